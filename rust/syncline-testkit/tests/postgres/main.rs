//! The endpoint on Postgres: the golden exchanges, the vectors of `contract/`, and what only a database can get wrong. Needs
//! PostgreSQL 15 or later; `scripts/test` has a part of its own for it.
#![cfg(unix)]

mod cluster;
mod golden;
mod vectors;

use std::sync::{LazyLock, Mutex};

use syncline_testkit::postgres::{Cluster, Database, Durability};

/// One cluster for all tests of this program: it stops when the program ends, as its shell watches.
static CLUSTER: LazyLock<Mutex<Cluster>> = LazyLock::new(|| Mutex::new(Cluster::start(Durability::None)));

/// A database of one's own.
fn database(name: &str) -> Database {
    CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).database(name)
}
