//! What a request says of itself: media types, schema, who asks.

use axum::http::{HeaderMap, Method, header};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{ANON, Parts};

/// Who asks.
pub(super) struct Caller {
    pub(super) role: String,
    /// All claims of the token, with the role.
    pub(super) claims: Value,
    /// Whether there was a token.
    pub(super) authenticated: bool,
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What Supabase's gateway does before PostgREST sees the request.
pub(super) fn check_key(parts: &Parts, headers: &HeaderMap) -> Result<(), (u16, Value)> {
    let Some(expected) = &parts.publishable_key else { return Ok(()) };
    match text(headers, "apikey") {
        Some(key) if key == expected => Ok(()),
        Some(_) => Err((401, json!({ "message": "Invalid API key", "hint": "Double check your API key." }))),
        None => Err((401, json!({ "message": "No API key found in request" }))),
    }
}

/// Who asks, by the token; the anonymous role without one.
pub(super) async fn caller(parts: &Parts, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let bearer = text(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        let claims = json!({ "role": ANON });
        return Ok(Caller { role: ANON.to_owned(), claims, authenticated: false });
    };
    let mut claims = parts.verifier.verify_claims(token.trim(), (parts.now)()).await.map_err(refused)?;
    let role = claims.get("role").and_then(Value::as_str).unwrap_or(ANON).to_owned();
    claims.insert("role".to_owned(), json!(role));
    Ok(Caller { role, claims: Value::Object(claims), authenticated: true })
}

fn refused(error: syncline_server::auth::AuthError) -> ApiError {
    use syncline_server::auth::AuthError;
    let (code, message) = match error {
        AuthError::Expired => ("PGRST303", "JWT expired"),
        _ => ("PGRST301", "The JWT could not be verified"),
    };
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
    ApiError::new(401, code, message).header("www-authenticate", &challenge)
}

/// The schema that the profile header chooses.
pub(super) fn schema<'a>(parts: &'a Parts, method: &Method, headers: &HeaderMap) -> Result<&'a str, ApiError> {
    let name = if *method == Method::POST { "content-profile" } else { "accept-profile" };
    let default = parts.schemas.first().map_or("public", String::as_str);
    let Some(wanted) = text(headers, name) else { return Ok(default) };
    let found = parts.schemas.iter().find(|schema| *schema == wanted).map(String::as_str);
    found.ok_or_else(|| {
        let all = parts.schemas.join(", ");
        ApiError::new(406, "PGRST106", format!("Invalid schema: {wanted}"))
            .hint(format!("Only the following schemas are exposed: {all}"))
    })
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// Only JSON can be had.
pub(super) fn check_accept(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(accept) = text(headers, header::ACCEPT) else { return Ok(()) };
    let known = ["*/*", "application/*", "application/json", "application/vnd.pgrst.object+json"];
    if accept.split(',').map(media_type).any(|wanted| known.contains(&wanted)) {
        return Ok(());
    }
    let message = format!("None of these media types are available: {accept}");
    Err(ApiError::new(406, "PGRST107", message))
}

/// Only JSON is read.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    match text(headers, header::CONTENT_TYPE).map(media_type) {
        None | Some("application/json") => Ok(()),
        Some(other) => Err(ApiError::new(415, "PGRST107", format!("Content-Type not acceptable: {other}"))),
    }
}

/// `request.headers`: names in small letters.
pub(super) fn headers_json(headers: &HeaderMap) -> String {
    let one = |name: &header::HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (name.as_str().to_owned(), json!(values.join(", ")))
    };
    Value::Object(headers.keys().filter(|name| *name != header::COOKIE).map(one).collect::<Map<_, _>>()).to_string()
}
