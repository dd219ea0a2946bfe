//! Error objects, and which HTTP status they travel with.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_postgres::error::DbError;

/// An answer that is an error object.
#[derive(Debug)]
pub(super) struct ApiError(Box<Said>);

#[derive(Debug)]
struct Said {
    status: u16,
    /// The SQLSTATE, or PostgREST's own code.
    code: String,
    message: String,
    details: Option<String>,
    hint: Option<String>,
    headers: Vec<(String, String)>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Said { status, code: code.to_owned(), message, details: None, hint: None, headers: Vec::new() }))
    }

    pub(super) fn details(mut self, text: impl Into<String>) -> Self {
        self.0.details = Some(text.into());
        self
    }

    pub(super) fn hint(mut self, text: impl Into<String>) -> Self {
        self.0.hint = Some(text.into());
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An error that Postgres reported to a request that was made as somebody, or not.
    pub(super) fn from_postgres(error: &tokio_postgres::Error, authenticated: bool) -> Self {
        match error.as_db_error() {
            Some(error) if error.code().code() == "PGRST" => raised(error),
            Some(error) => reported(error, authenticated),
            None => Self::new(503, "PGRST001", "Database client error. Retrying the connection."),
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let said = *self.0;
        let body = json!({
            "code": said.code, "message": said.message, "details": said.details, "hint": said.hint,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if said.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in &said.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn reported(error: &DbError, authenticated: bool) -> ApiError {
    let code = error.code().code();
    ApiError(Box::new(Said {
        status: status(code, authenticated),
        code: code.to_owned(),
        message: error.message().to_owned(),
        details: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        headers: Vec::new(),
    }))
}

/// What `RAISE sqlstate 'PGRST'` asks for.
fn raised(error: &DbError) -> ApiError {
    #[derive(Deserialize)]
    struct Message {
        code: String,
        message: String,
        details: Option<String>,
        hint: Option<String>,
    }
    #[derive(Deserialize)]
    struct Detail {
        status: u16,
        headers: Map<String, Value>,
    }
    let message = serde_json::from_str::<Message>(error.message());
    let detail = error.detail().map(serde_json::from_str::<Detail>);
    let (Ok(message), Some(Ok(detail))) = (message, detail) else {
        return ApiError::new(500, "PGRST121", "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error");
    };
    let headers = detail.headers.into_iter();
    ApiError(Box::new(Said {
        status: detail.status,
        code: message.code,
        message: message.message,
        details: message.details,
        hint: message.hint,
        headers: headers.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect(),
    }))
}

/// The HTTP status for a SQLSTATE.
pub(super) fn status(code: &str, authenticated: bool) -> u16 {
    match code {
        "23503" | "23505" => 409,
        "25006" => 405,
        "53400" | "42P17" => 500,
        "P0001" => 400,
        "42883" | "42P01" => 404,
        "42501" if authenticated => 403,
        "42501" => 401,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV" | "P0" | "XX" => {
                500
            }
            "PT" => code[2..].parse().ok().filter(|status| (200..600).contains(status)).unwrap_or(500),
            _ => 400,
        },
    }
}
