//! The Syncline endpoint: takes pushes, answers pulls, decides conflicts (spec §4 to §7, `docs/protocol.md`).
//!
//! [`endpoint`] is the logic, one synchronous `handle`; [`store`] keeps the data; [`auth`] verifies tokens; [`http`] puts it
//! all on a socket. [`serve`] runs the whole as configured.

pub mod auth;
mod config;
pub mod contract;
pub mod endpoint;
pub mod http;
pub mod store;

pub use config::{Config, LimitsConfig, ServeError, StoreConfig};
pub use contract::openapi;
pub use endpoint::{Answer, Claims, Concurrent, Embedded, Endpoint, EndpointLimits, Random, Request, replica_hash};
pub use http::{Clock, Server, SystemClock, SystemRandom, open_endpoint, open_postgres, serve};
pub use store::postgres::{PostgresConfig, PostgresEndpoint, RegisteredTable};
pub use store::sqlite::SqliteStore;
