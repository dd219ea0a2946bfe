//! Syncline on the device: a durable queue of operations, a replica of the entities, delivery exactly once in effect, and
//! conflicts that nobody overlooks.
//!
//! [`SyncManager`] is the front door. Below it lie three rings: `store` (SQLite, synchronous), `sync` (decides what to send and
//! what an answer means; no I/O, no clock, no randomness of its own) and `manager` (the shell: threads, callbacks, waiting).
//! `docs/operation-lifecycle.md` has the whole story.

mod config;
mod conflict;
pub mod environment;
mod error;
mod event;
mod explain;
mod manager;
mod metrics;
mod operation;
mod query;
mod store;
mod sync;
pub mod transport;

pub use config::{Config, Durability, Endpoint, EntityType, Network, Retention};
pub use conflict::{ConflictEntry, Resolution, ResolutionKind};
pub use error::{Result, SynclineError};
pub use event::{Changes, EntityChange, Notice, OperationEvent};
pub use explain::{Explanation, Waiting};
pub use manager::{BackgroundRun, CommitOutcome, ListenerId, SignOut, SignOutMode, SyncManager, SyncTransaction};
pub use metrics::{QueueMetrics, SyncState};
pub use operation::{NewOperation, Operation, OperationStatus, Receipt};
pub use query::{ChangePage, Comparison, Entity, EntityPage, Filter, ListQuery, OperationFilter, SyncStatus};
#[cfg(feature = "teeth")]
pub use store::open_as_next_version;
pub use store::{InspectedDevice, Inspection, Troubled};
pub use sync::{NetworkStatus, SyncSummary};
