//! The endpoint's logic, free of HTTP: one synchronous [`Endpoint::handle`] that takes the request, the verified claims, the
//! time and the randomness, and returns the answer. [`Embedded`] decides everything itself over a [`Storage`]; a database
//! that decides in its own functions would implement [`Endpoint`] directly.
//!
//! A push is decided in memory and written at its end, in one database transaction: a verdict, its key and its effect are
//! durable together or not at all, and a dry run is a push that is not written.

mod cursor;
mod decide;
mod history;
mod judge;
mod maintenance;
mod pull;
mod push;
/// What the server keeps of an entity.
pub mod record;
/// Entity types as the operator configures them.
pub mod types;
mod validate;
mod view;

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use syncline_protocol::{
    MAX_INFLATED_BYTES, MAX_OPERATIONS, MAX_PAYLOAD_BYTES, Problem, ProblemCode, PullRequest, PushRequest, Timestamp,
};
use uuid::Builder;

use crate::store::{Storage, StorageError};
pub use maintenance::{KEYS_KEPT_DAYS, Purged, TOMBSTONES_KEPT_DAYS};
use types::Types;
pub(crate) use validate::too_large;
pub use view::replica_hash;

/// Where randomness comes from.
pub trait Random: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// What a verified token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is.
    pub user_id: String,
    /// The scopes it opens.
    pub scopes: BTreeSet<String>,
    /// All that it says, for a database whose own functions decide by it; empty if nothing more is known.
    pub all: Map<String, Value>,
}

impl Claims {
    /// Claims that say no more than this.
    pub fn new(user_id: String, scopes: BTreeSet<String>) -> Self {
        Self { user_id, scopes, all: Map::new() }
    }
}

/// A request, its body inflated.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// `POST /v1/push`
    Push(&'a [u8]),
    /// `POST /v1/pull`
    Pull(&'a [u8]),
}

/// An answer, whatever carries it. Every carrier adds the protocol header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `application/json` or `application/problem+json`.
    pub content_type: &'static str,
    /// JSON.
    pub body: String,
    /// The problem, when the body is one.
    pub problem: Option<Problem>,
    /// Seconds that the client should wait.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// An answer that speaks of the request.
    pub fn problem(problem: Problem) -> Self {
        let body = serde_json::to_string(&problem).expect("a problem is JSON");
        let retry_after = (problem.code == ProblemCode::Unavailable.as_str()).then_some(1);
        let content_type = "application/problem+json";
        Self { status: problem.status, content_type, body, problem: Some(problem), retry_after }
    }

    fn of<T: Serialize>(result: Result<T, Failure>) -> Self {
        match result.map(|value| serde_json::to_string(&value)) {
            Ok(Ok(body)) => {
                Self { status: 200, content_type: "application/json", body, problem: None, retry_after: None }
            }
            Ok(Err(_)) => Self::problem(Problem::new(ProblemCode::Internal)),
            Err(Failure::Problem(problem)) => Self::problem(*problem),
            Err(Failure::Storage(error @ StorageError::Unavailable(_))) => {
                log::warn!("{error}");
                Self::problem(Problem::new(ProblemCode::Unavailable))
            }
            Err(Failure::Storage(error)) => {
                log::error!("{error}");
                Self::problem(Problem::new(ProblemCode::Internal))
            }
        }
    }
}

/// Something that answers pushes and pulls.
pub trait Endpoint: Send {
    /// Answers a request, to the end. Never panics on what a client sends.
    fn handle(&mut self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer;

    /// Drops what nobody can ask for any more, where the endpoint itself has to: about once a day.
    ///
    /// # Errors
    /// The store's; then it is tried again the next day.
    fn maintain(&mut self, _now: Timestamp) -> Result<(), StorageError> {
        Ok(())
    }
}

/// An endpoint that answers several requests at once.
pub trait Concurrent: Send + Sync {
    /// See [`Endpoint::handle`].
    fn handle(&self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer;

    /// See [`Endpoint::maintain`].
    ///
    /// # Errors
    /// The store's.
    fn maintain(&self, now: Timestamp) -> Result<(), StorageError>;
}

/// One request after the other: the store has one writer anyway.
impl<E: Endpoint + ?Sized> Concurrent for Mutex<Box<E>> {
    fn handle(&self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer {
        self.lock().handle(request, claims, now, random)
    }

    fn maintain(&self, now: Timestamp) -> Result<(), StorageError> {
        self.lock().maintain(now)
    }
}

/// What the endpoint takes in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointLimits {
    /// Operations in one push.
    pub max_operations: u64,
    /// Bytes of a body, inflated.
    pub max_bytes: u64,
    /// Bytes of one payload.
    pub max_payload_bytes: u64,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            max_operations: MAX_OPERATIONS as u64,
            max_bytes: MAX_INFLATED_BYTES as u64,
            max_payload_bytes: MAX_PAYLOAD_BYTES as u64,
        }
    }
}

/// The endpoint that decides itself, over a store.
pub struct Embedded<S> {
    store: S,
    types: Types,
    limits: EndpointLimits,
}

impl<S: Storage> Embedded<S> {
    /// An endpoint over `store`.
    pub fn new(store: S, types: Types, limits: EndpointLimits) -> Self {
        Self { store, types, limits }
    }

    /// The store, for reading.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
}

impl<S: Storage> Endpoint for Embedded<S> {
    fn handle(&mut self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer {
        match request {
            Request::Push(body) => Answer::of(validate::parse(body, &self.limits).map_err(Failure::from).and_then(
                |request: PushRequest| {
                    validate::check_claims(&request.user_id, &request.scope, claims)?;
                    validate::check_push(&request, &self.limits)?;
                    let rules = push::Settings { types: &self.types, limits: &self.limits };
                    push::push(&mut self.store, &request, rules, now, random)
                },
            )),
            Request::Pull(body) => Answer::of(validate::parse(body, &self.limits).map_err(Failure::from).and_then(
                |request: PullRequest| {
                    validate::check_claims(&request.user_id, &request.scope, claims)?;
                    validate::check_pull(&request)?;
                    pull::pull(&mut self.store, request, now, random)
                },
            )),
        }
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), StorageError> {
        for scope in self.store.scopes()? {
            self.purge(&scope, now)?;
        }
        Ok(())
    }
}

/// Why a request has no answer of its own.
#[derive(Debug)]
enum Failure {
    Problem(Box<Problem>),
    Storage(StorageError),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<Box<Problem>> for Failure {
    fn from(problem: Box<Problem>) -> Self {
        Self::Problem(problem)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A time-ordered id (uuid v7).
fn new_id(now: Timestamp, random: &mut dyn Random) -> String {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
}
