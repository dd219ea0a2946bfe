//! The device core for Kotlin and Swift.
//!
//! Nothing is decided here: each item hands over to `syncline-core` and puts its words into types that UniFFI can carry. The
//! libraries of the platforms (`bindings/kotlin`, `ios`) are the faces that apps see; their names for things are these.
//!
//! - Numbers are `i64`: Kotlin and JavaScript have no good unsigned ones. None of ours passes 2^53. Times are milliseconds since
//!   1970 in UTC, durations milliseconds; documents are JSON text.
//! - Every call returns a [`SynclineError`] or what was asked for. A panic is caught and becomes [`SynclineError::Internal`].
//! - Methods that are not `async` block until a write is durable, never for the network: call them off the main thread.
//!   `async` ones wait for work that goes on if the caller stops waiting.
//! - A [`SyncListener`] is called on one thread of the core's, with several events at a time. It may call anything.

uniffi::setup_scaffolding!();

mod config;
mod conflict;
mod contained;
mod credentials;
mod entity;
mod error;
mod events;
mod explanation;
mod logging;
mod manager;
mod metrics;
mod operation;
mod transaction;

pub use config::{ConflictRule, DeleteRule, Durability, Endpoint, EntityType, SyncConfig};
pub use conflict::{ConflictEntry, ConflictField, Resolution};
pub use credentials::CredentialReason;
pub use entity::{ChangePage, Comparison, Entity, EntityPage, Filter, ListQuery, SyncStatus};
pub use error::{CallbackError, SynclineError};
pub use events::{SyncEvent, SyncListener};
pub use explanation::{Explanation, Waiting};
pub use logging::{LogLevel, Logger, set_logger};
pub use manager::{BackgroundRun, NetworkStatus, SignOut, SignOutMode, SyncManager, SyncSummary};
pub use metrics::{QueueMetrics, SyncState};
pub use operation::{
    NewOperation, Operation, OperationAction, OperationFilter, OperationKind, OperationStatus, Receipt,
};
pub use transaction::{CommitOutcome, SyncTransaction};
