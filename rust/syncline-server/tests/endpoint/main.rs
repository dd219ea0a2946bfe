//! The endpoint's logic, driven through `handle` with the JSON of the wire.

mod answers;
mod conflicts;
mod fixtures;
mod history;
mod idempotency;
mod properties;
mod pulls;
mod requests;
mod store;
mod transactions;
mod types;
mod world;
