//! One contract for every endpoint: the vectors in `contract/`, and what runs them.
//!
//! A vector is data: what happened before, one request, the answer that the specification demands, what a pull shows
//! afterwards. `contract/README.md` describes their form, for runners in any language. Here is the one for Rust: an endpoint
//! becomes a [`Host`], and [`run()`] tells of each vector whether it holds.
//!
//! Besides what a vector says, every exchange is held to what holds for all of them: the answer has the form of the OpenAPI
//! document and the header of the protocol, no sentence in it quotes a value, and the ledger has grown by exactly the
//! conflicts that it tells of.

mod body;
mod embedded;
mod expect;
mod host;
#[cfg(unix)]
mod http;
mod names;
#[cfg(unix)]
mod postgres;
mod run;
mod tables;
#[cfg(feature = "teeth")]
pub mod teeth;
mod vector;

pub use embedded::EmbeddedHost;
pub use host::{Ability, Answered, Dialect, Host, HostError, Http, Sent};
#[cfg(unix)]
pub use http::{HttpHost, Place};
#[cfg(unix)]
pub use postgres::PostgresHost;
pub use run::{Outcome, run, run_one};
pub use tables::DirectWrite;
pub use vector::{Expected, State, Step, Vector, files, folder, load};
