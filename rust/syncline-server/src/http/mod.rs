//! HTTP around the endpoint: paths, tokens, packing, limits, metrics. Every answer carries the protocol header.

mod body;
mod connections;
mod limit;
mod metrics;
mod shell;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde::Deserialize;
use syncline_protocol::{PROTOCOL, PROTOCOL_HEADER, Problem, ProblemCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::auth::{AuthError, Verifier};
use crate::config::{Config, LimitsConfig, ServeError};
use crate::contract;
use crate::endpoint::types::Types;
use crate::endpoint::{Answer, Claims, Concurrent, Embedded, Endpoint, Random, Request};
use crate::store::StorageError;
use crate::store::postgres::{PostgresConfig, PostgresEndpoint};
use crate::store::sqlite::SqliteStore;
use body::Encoding;
use limit::RateLimit;
use metrics::Metrics;
use shell::Stopwatch;
pub use shell::{Clock, SystemClock, SystemRandom};

/// Between two rounds of maintenance.
const MAINTENANCE_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// An endpoint behind HTTP.
#[derive(Clone)]
pub struct Server(Arc<Parts>);

struct Parts {
    endpoint: Box<dyn Concurrent>,
    random: Mutex<Box<dyn Random>>,
    verifier: Verifier,
    clock: Box<dyn Clock>,
    limits: LimitsConfig,
    rate: RateLimit,
    in_flight: Arc<Semaphore>,
    metrics: Metrics,
}

/// Opens the store, as the configuration says, with a new epoch for every scope if it was restored.
///
/// # Errors
/// The types', or the store's.
pub fn open_endpoint(
    config: &Config,
    clock: &dyn Clock,
    random: &mut dyn Random,
) -> Result<Embedded<SqliteStore>, ServeError> {
    let types = Types::new(config.types.clone())?;
    let store = SqliteStore::open(&config.store.path, config.store.vfs.as_deref())?;
    let mut endpoint = Embedded::new(store, types, config.limits.request);
    if config.store.restored {
        endpoint.renew_epochs(clock.now(), random)?;
    }
    Ok(endpoint)
}

/// Opens the endpoint that a Postgres database is. `migrate` first brings in what is missing; `restored` gives every scope a new
/// epoch.
///
/// # Errors
/// See [`PostgresEndpoint::open`].
pub async fn open_postgres(
    config: PostgresConfig,
    migrate: bool,
    restored: bool,
) -> Result<PostgresEndpoint, ServeError> {
    let opened = shell::blocking(move || {
        let endpoint = PostgresEndpoint::open(&config, migrate)?;
        if restored {
            endpoint.renew_epochs()?;
        }
        Ok(endpoint)
    });
    opened.await.unwrap_or_else(|_| Err(StorageError::Failed("a thread panicked".into()))).map_err(ServeError::from)
}

/// Serves the configured endpoint on `listener` until `shutdown` resolves; then finishes the requests under way.
///
/// # Errors
/// The configuration's, the store's, or the socket's.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (clock, mut random) = (SystemClock, SystemRandom);
    let endpoint = open_endpoint(&config, &clock, &mut random)?;
    let verifier = Verifier::new(&config.auth)?;
    let server = Server::new(Box::new(endpoint), verifier, config.limits, Box::new(clock), Box::new(random))?;
    server.serve(listener, shutdown).await
}

impl Server {
    /// Puts an endpoint behind HTTP that answers one request at a time.
    ///
    /// # Errors
    /// A limit that is 0.
    pub fn new(
        endpoint: Box<dyn Endpoint>,
        verifier: Verifier,
        limits: LimitsConfig,
        clock: Box<dyn Clock>,
        random: Box<dyn Random>,
    ) -> Result<Self, ServeError> {
        Self::concurrent(Box::new(Mutex::new(endpoint)), verifier, limits, clock, random)
    }

    /// Puts an endpoint behind HTTP that answers several requests at once.
    ///
    /// # Errors
    /// A limit that is 0.
    pub fn concurrent(
        endpoint: Box<dyn Concurrent>,
        verifier: Verifier,
        limits: LimitsConfig,
        clock: Box<dyn Clock>,
        random: Box<dyn Random>,
    ) -> Result<Self, ServeError> {
        let rate = RateLimit::new(&limits)?;
        let in_flight = Arc::new(Semaphore::new(limits.max_in_flight as usize));
        let (random, metrics) = (Mutex::new(random), Metrics::new());
        Ok(Self(Arc::new(Parts { endpoint, random, verifier, clock, limits, rate, in_flight, metrics })))
    }

    /// Serves on `listener` until `shutdown` resolves; then finishes the requests under way. Speaks HTTP/1.1, up to 1024
    /// connections; TLS and HTTP/2 are a proxy's matter.
    ///
    /// # Errors
    /// None so far: what goes wrong with a connection ends that connection.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let maintenance = connections::repeat(MAINTENANCE_PERIOD, || self.maintain());
        tokio::select! {
            () = connections::serve(listener, self.clone().router(), shutdown) => Ok(()),
            never = maintenance => match never {},
        }
    }

    /// Drops what nobody can ask for any more.
    async fn maintain(&self) {
        let server = self.clone();
        let done = shell::blocking(move || {
            let now = server.0.clock.now();
            server.0.endpoint.maintain(now)
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("maintenance: {error}"),
            Err(_) => log::error!("maintenance panicked"),
        }
    }

    /// The routes, to be mounted anywhere.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/push", post(push))
            .route("/v1/pull", post(pull))
            .route("/health", get(health))
            .route("/metrics", get(metrics_text))
            .route("/openapi.json", get(openapi))
            .fallback(async || respond(Answer::problem(Problem::new(ProblemCode::UnknownPath))))
            .method_not_allowed_fallback(async || respond(Answer::problem(Problem::new(ProblemCode::MethodNotAllowed))))
            .with_state(self)
            .layer(CatchPanicLayer::custom(answer_panic))
            .layer(CompressionLayer::new().gzip(true).zstd(true))
            .layer(axum::middleware::map_response(add_protocol_header))
    }

    /// Answers a push or a pull.
    async fn answer(&self, path: Path, request: HttpRequest) -> Response {
        let stopwatch = Stopwatch::start();
        let timeout = Duration::from_secs(self.0.limits.timeout_seconds);
        let answer = match tokio::time::timeout(timeout, self.handle(path, request)).await {
            Ok(result) => result.unwrap_or_else(|answer| *answer),
            Err(_) => Answer::problem(Problem::new(ProblemCode::Unavailable).detail("the request took too long")),
        };
        let outcome = answer.problem.as_ref().map_or("ok", |problem| problem.code.as_str());
        self.0.metrics.answered(path.as_str(), outcome, stopwatch.elapsed());
        log::debug!("{} {outcome}", path.as_str());
        respond(answer)
    }

    async fn handle(&self, path: Path, request: HttpRequest) -> Result<Answer, Box<Answer>> {
        let parts = &self.0;
        let slot = parts.in_flight.clone().try_acquire_owned().map_err(|_| refuse(ProblemCode::Unavailable))?;
        let slot = (slot, parts.metrics.enter());
        let (head, body) = request.into_parts();
        let token = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let claims = parts.verifier.verify_header(token, parts.clock.now()).await.map_err(refuse_token)?;
        parts.rate.check_user(&claims.user_id).map_err(rate_limited)?;
        let encoding = Encoding::of(&head.headers).map_err(|refusal| problem(*refusal))?;
        let body = encoding.read(body, &parts.limits).await.map_err(|refusal| problem(*refusal))?;
        let server = self.clone();
        let decided = shell::blocking(move || {
            // Until the work is done, even if nobody waits for its answer any more.
            let _slot = slot;
            server.decide(path, encoding, body, &claims)
        });
        decided.await.unwrap_or_else(|_| Err(refuse(ProblemCode::Internal)))
    }

    /// Unpacks and decides a request, on a thread that may block.
    fn decide(&self, path: Path, encoding: Encoding, body: Vec<u8>, claims: &Claims) -> Result<Answer, Box<Answer>> {
        let parts = &self.0;
        let body = encoding.inflate(body, &parts.limits).map_err(|refusal| problem(*refusal))?;
        parts.metrics.received(path.as_str(), body.len());
        if let Some(device_id) = device_id(&body) {
            parts.rate.check_device(&claims.user_id, &device_id).map_err(rate_limited)?;
        }
        let request = match path {
            Path::Push => Request::Push(&body),
            Path::Pull => Request::Pull(&body),
        };
        Ok(parts.endpoint.handle(request, claims, parts.clock.now(), &mut Drawing(&parts.random)))
    }
}

/// The server's randomness, taken only while something is drawn.
struct Drawing<'a>(&'a Mutex<Box<dyn Random>>);

impl Random for Drawing<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes);
    }
}

#[derive(Debug, Clone, Copy)]
enum Path {
    Push,
    Pull,
}

impl Path {
    fn as_str(self) -> &'static str {
        match self {
            Self::Push => "/v1/push",
            Self::Pull => "/v1/pull",
        }
    }
}

async fn push(State(server): State<Server>, request: HttpRequest) -> Response {
    server.answer(Path::Push, request).await
}

async fn pull(State(server): State<Server>, request: HttpRequest) -> Response {
    server.answer(Path::Pull, request).await
}

async fn health() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!(r#"{{"status":"ok","protocol":{PROTOCOL}}}"#))
        .into_response()
}

async fn metrics_text(State(server): State<Server>) -> Response {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], server.0.metrics.text()).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], contract::openapi()).into_response()
}

/// The device that asks, as far as the body can be read.
fn device_id(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        device_id: String,
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.device_id)
}

fn problem(problem: Problem) -> Box<Answer> {
    Box::new(Answer::problem(problem))
}

fn refuse(code: ProblemCode) -> Box<Answer> {
    problem(Problem::new(code))
}

fn rate_limited(seconds: u64) -> Box<Answer> {
    Box::new(Answer { retry_after: Some(seconds), ..*refuse(ProblemCode::RateLimited) })
}

fn refuse_token(error: AuthError) -> Box<Answer> {
    let code = match error {
        AuthError::Missing | AuthError::Invalid | AuthError::Expired => ProblemCode::Unauthorized,
        AuthError::Forbidden => ProblemCode::Forbidden,
        AuthError::Unavailable => ProblemCode::Unavailable,
    };
    problem(Problem::new(code).detail(error.to_string()))
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, answer.content_type)], answer.body).into_response();
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn answer_panic(_: Box<dyn Any + Send>) -> Response {
    log::error!("a handler panicked");
    respond(*refuse(ProblemCode::Internal))
}

async fn add_protocol_header(mut response: Response) -> Response {
    response.headers_mut().insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL));
    response
}
