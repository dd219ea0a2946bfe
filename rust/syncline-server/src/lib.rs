//! The Syncline endpoint: takes pushes, answers pulls, decides conflicts (spec §4 to §7, `docs/protocol.md`).
//!
//! [`endpoint`] is the logic, one synchronous `handle`; [`store`] keeps the data.

pub mod endpoint;
pub mod store;

pub use endpoint::{Answer, Claims, Embedded, Endpoint, EndpointLimits, Random, Request, replica_hash};
pub use store::sqlite::SqliteStore;
