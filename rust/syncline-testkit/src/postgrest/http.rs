//! The HTTP side: paths, the body, the answer.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::routing::any;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::call::{Returned, call, statement};
use super::error::ApiError;
use super::function::find;
use super::request::{caller, check_accept, check_content_type, check_key, headers_json, schema};
use super::settings::Seen;
use super::{Parts, PostgRest};

impl PostgRest {
    /// The routes of a project's Data API.
    pub fn router(self) -> Router {
        Router::new()
            .route("/rest/v1/rpc/{function}", any(rpc))
            // PostgREST has no limit of its own; a test that sends more than this is wrong.
            .layer(DefaultBodyLimit::max(64 * 1024 * 1024))
            .with_state(self)
    }
}

async fn rpc(
    State(PostgRest(parts)): State<PostgRest>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if let Err((status, object)) = check_key(&parts, &headers) {
        let mut response = Response::new(Body::from(object.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::UNAUTHORIZED);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return response;
    }
    let query = query.unwrap_or_default();
    let asked = Asked { name: &name, query: &query, method: &method, path: path(&uri), headers: &headers, body };
    asked.answer(&parts).await.unwrap_or_else(ApiError::into_response)
}

/// `request.path`: the gateway takes its own prefix away.
fn path(uri: &Uri) -> &str {
    uri.path().strip_prefix("/rest/v1").unwrap_or(uri.path())
}

struct Asked<'a> {
    name: &'a str,
    query: &'a str,
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Asked<'_> {
    async fn answer(self, parts: &Parts) -> Result<Response<Body>, ApiError> {
        let has_body = *self.method == Method::POST;
        if !has_body && !matches!(*self.method, Method::GET | Method::HEAD) {
            let message = format!("Cannot use the {} method on RPC", self.method);
            return Err(ApiError::new(405, "PGRST101", message));
        }
        let caller = caller(parts, self.headers).await?;
        let schema = schema(parts, self.method, self.headers)?;
        check_accept(self.headers)?;
        if has_body {
            check_content_type(self.headers)?;
        }
        let (keys, body) = if has_body { (keys(&self.body)?, self.body) } else { arguments(self.query) };
        let mut client = parts.database.lend().await?;
        let function = find(&client, schema, self.name, &keys, has_body).await?;
        let headers = headers_json(self.headers);
        let seen = Seen { schema, method: self.method.as_str(), path: self.path, headers: &headers };
        let sql = statement(&function, schema, self.name, &keys);
        respond(call(&mut client, &caller, &function, &sql, &seen, body).await?)
    }
}

/// The names of the arguments in a body; none if it is no object. Only its form is looked at: it goes on as it arrived.
fn keys(body: &Bytes) -> Result<BTreeSet<String>, ApiError> {
    let invalid = |_| ApiError::new(400, "PGRST102", "Empty or invalid json");
    let text = std::str::from_utf8(body).map_err(|_| invalid(()))?;
    // Ignoring a value needs no stack, however deep it nests.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| invalid(()))?;
    let object = Keys::read(&mut serde_json::Deserializer::from_str(text)).unwrap_or_default();
    Ok(object.0)
}

/// The names in an object, each once.
#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Keys {
    fn read<'de>(reader: &mut serde_json::Deserializer<serde_json::de::StrRead<'de>>) -> serde_json::Result<Self> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys::default();
                while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.0.insert(key);
                }
                Ok(keys)
            }
        }
        serde::Deserializer::deserialize_map(reader, Visitor)
    }
}

/// The arguments of a GET, as an object of texts.
fn arguments(query: &str) -> (BTreeSet<String>, Bytes) {
    let pairs = reqwest::Url::parse(&format!("http://query/?{query}"));
    let pairs: Map<String, Value> = pairs
        .map(|url| {
            url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
        })
        .unwrap_or_default();
    let keys = pairs.keys().cloned().collect();
    (keys, Bytes::from(Value::Object(pairs).to_string()))
}

/// The answer of a transaction that was committed.
fn respond(returned: Returned) -> Result<Response<Body>, ApiError> {
    let status = match &returned.status {
        None if returned.body.is_none() => StatusCode::NO_CONTENT,
        None => StatusCode::OK,
        Some(text) => text
            .parse::<u16>()
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| ApiError::new(500, "PGRST112", "response.status guc must be a valid status code"))?,
    };
    let mut response = Response::new(Body::from(returned.body.unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    for (name, value) in set_headers(returned.headers.as_deref())? {
        // PostgREST's own is replaced; another one that is set twice is sent twice.
        if name == header::CONTENT_TYPE {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(response)
}

/// `response.headers`: an array of objects with one member each.
fn set_headers(text: Option<&str>) -> Result<Vec<(HeaderName, HeaderValue)>, ApiError> {
    let invalid = || {
        let message =
            "response.headers guc must be a JSON array composed of objects with a single key and a string value";
        ApiError::new(500, "PGRST111", message)
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(|_| invalid())?;
    let header = |object: Map<String, Value>| {
        let mut members = object.into_iter();
        let (Some((name, Value::String(value))), None) = (members.next(), members.next()) else {
            return Err(invalid());
        };
        let name = name.parse::<HeaderName>().map_err(|_| invalid())?;
        Ok((name, HeaderValue::try_from(value).map_err(|_| invalid())?))
    };
    list.into_iter().map(header).collect()
}
