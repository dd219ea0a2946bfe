//! How bytes reach the endpoint. Nothing here decides about retries: an outcome is reported, `sync::retry` judges it.

mod http;

use std::future::Future;
use std::pin::Pin;

pub use http::HttpTransport;

/// What is asked of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /v1/push`, or the function `syncline_push`
    Push,
    /// `POST /v1/pull`, or the function `syncline_pull`
    Pull,
}

/// How the endpoint is spoken to, which says what counts as its word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Spec §6: what carries the header `syncline-protocol`.
    #[default]
    Syncline,
    /// Functions behind PostgREST: its error objects too, which lack that header.
    Supabase,
}

/// One request, without its credential.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it goes.
    pub route: Route,
    /// JSON text. The transport may compress it.
    pub body: Vec<u8>,
}

/// What came back, from whoever answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The header `syncline-protocol`; without it the answer is not our endpoint's.
    pub protocol: Option<String>,
    /// The header `Retry-After` as it stands: seconds or a date.
    pub retry_after: Option<String>,
    /// The body, inflated, up to 8 MiB.
    pub body: Vec<u8>,
    /// How the endpoint was spoken to.
    pub dialect: Dialect,
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection could be made.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection broke, or the answer was cut off.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than 8 MiB.
    #[error("the answer is too large")]
    TooLarge,
    /// The certificate is not trusted, expired, or another host's.
    #[error("the endpoint's certificate was refused: {0}")]
    Certificate(String),
}

/// A token, opaque to the core; never stored, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why the provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialReason {
    /// A request is about to be sent: a token at hand will do.
    First,
    /// The endpoint refused the last one: a fresh one is needed.
    Refresh,
}

/// A future of this crate's traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends one request. Dropping the future abandons it.
pub trait Transport: Send + Sync {
    /// Sends `request` with `Authorization: Bearer token`.
    fn send(&self, request: Request, token: Token) -> BoxFuture<'_, Result<Response, TransportError>>;
}

/// The app's credentials, asked for at send time.
pub trait CredentialProvider: Send + Sync {
    /// A token, or none when the user must sign in first. The message of an error is shown, so it may hold no secret.
    fn token(&self, reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>>;
}
