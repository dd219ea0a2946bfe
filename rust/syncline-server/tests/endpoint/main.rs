//! The endpoint's logic, driven through `handle` with the JSON of the wire.

mod idempotency;
mod world;
