//! Whole devices and an endpoint as steps on the caller's thread, in virtual time, with nothing faked but the outside: the
//! manager, the driver, the SQLite files and the endpoint are the real ones. Never shipped.
//!
//! ```
//! use syncline_core::{NewOperation, OperationStatus};
//! use syncline_testkit::{Fault, World};
//!
//! let mut world = World::new(1);
//! let (a, b) = (world.device("a"), world.device("b"));
//!
//! let pin = a.enqueue(NewOperation::create("pin", "p1", r#"{"title":"Leak"}"#)).unwrap();
//! a.network.next_push(Fault::DropAfter); // the server commits, the answer is lost
//! world.sync(&a);
//! assert_eq!(a.status(&pin.id), OperationStatus::Pending);
//!
//! world.sync(&a); // tried again: `already_processed`
//! assert_eq!(a.status(&pin.id), OperationStatus::Completed);
//!
//! world.settle(&[&a, &b]); // everyone syncs, the invariants hold, all agree with the server
//! assert_eq!(b.value("pin", "p1").unwrap()["title"], "Leak");
//! ```
//!
//! - A [`TestDevice`] dereferences to its `SyncManager`; async methods go through [`World::run`] (to the end) or [`World::start`]
//!   (to be looked at later). [`World::sync`] is `process_queue` to the end.
//! - Time passes only in [`World::advance`]. Everything that can happen without it happens in [`World::run_until_idle`].
//! - [`Network`] scripts faults per request; what is held arrives on [`Network::release`], however late.
//! - [`TestDevice::kill`] is the death of the process; [`World::copy`] a restored backup; [`World::process`] a second process on
//!   one file; [`TestServer::snapshot`] and [`TestServer::restore`] a server that goes back in time.
//! - [`simulation::life::live`] lives a random [`simulation::plan::Plan`] to its end, on disks in memory ([`disk`]).
//! - [`disk::Disk`] is a disk that loses power, fails calls and fills up, for whatever opens SQLite files.
//! - [`BrokenEndpoint`] breaks one rule, so that a check of endpoints from outside can be checked itself.
//! - [`postgrest`] stands in for Supabase's Data API, over a real Postgres.
//! - [`model`] is a second opinion on the endpoint: every exchange of a world is judged by it.
//! - The `oracle` reads the files and holds them against each other and what the app was told, rule by rule of spec §9:
//!   [`World::assert_invariants`] for a test's world, a simulated life after every step, [`files::judge`] for files that real
//!   processes left behind.
//! - [`postgres::Cluster`] is a private Postgres with Syncline's migrations; [`server_copy::copy`] makes what is in it a file that
//!   can be judged.
//! - [`plans`] are the plans that a Postgres really used.

mod broken;
pub mod contract;
pub mod differential;
pub mod disk;
pub mod files;
mod lock;
pub mod model;
mod network;
mod oracle;
#[cfg(unix)]
pub mod plans;
#[cfg(unix)]
pub mod postgres;
pub mod postgrest;
mod server;
#[cfg(unix)]
pub mod server_copy;
mod server_state;
pub mod simulation;
mod steps;
mod world;

pub use broken::{BrokenEndpoint, Flaw};
pub use lock::MemoryLock;
pub use network::{Credentials, Fault, Network};
pub use oracle::journal::{Asked, Journal};
pub use server::{Exchange, TestServer};
pub use server_state::read_state;
pub use steps::{ManualClock, SeededRandom, Started, StepRuntime, Steps};
pub use world::{SCOPE, TOKEN, TestDevice, USER, World};

/// Plants the bug that `SYNCLINE_TEETH` names, on this thread.
///
/// # Panics
/// If there is no such bug.
#[cfg(feature = "teeth")]
fn plant_named() {
    use syncline_protocol::teeth::{Bug, plant};
    if let Ok(name) = std::env::var("SYNCLINE_TEETH") {
        plant(Some(Bug::parse(&name).unwrap_or_else(|| panic!("there is no bug {name}"))));
    }
}

/// The Rust examples of the docs, as doc tests: they are compiled, and run unless they say otherwise.
#[cfg(doctest)]
mod docs {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/conflicts.md")]
    mod conflicts {}
    #[doc = include_str!("../../../docs/metrics.md")]
    mod metrics {}
    #[doc = include_str!("../../../docs/operating.md")]
    mod operating {}
    #[doc = include_str!("../../../docs/operation-lifecycle.md")]
    mod operation_lifecycle {}
    #[doc = include_str!("../../../docs/protocol.md")]
    mod protocol {}
    #[doc = include_str!("../../../docs/supabase.md")]
    mod supabase {}
}
