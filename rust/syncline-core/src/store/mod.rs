//! Everything that is SQLite, and nothing else.
//!
//! # What it is
//! One file per user and scope: the queue (`sync_queue`), the replica (`entities`), the ledger (`conflicts`), and where the
//! device stands with the server (`device`). [`Store`] owns the one connection that writes; [`Reader`]s have their own.
//!
//! # What it promises
//! - Each public method that writes is one transaction: all of it is durable when it returns `Ok`, none of it otherwise.
//! - A queue row and its effect on the replica are written together, always.
//! - Every change of an operation's state goes through `transition.rs`, fenced on the state it leaves, counted, and told in
//!   exactly one event. Events come out of [`Store::take_changes`] only after their transaction has committed.
//! - `current` of an entity is `base` with its open operations folded in, at every commit.
//!
//! # What it does not
//! It never decides whether or when to send (that is `sync`), takes no time or randomness of its own, and starts no thread.
//!
//! # How it recovers
//! An operation in progress is a lease with a term. Whoever begins to drain raises the term and returns what older terms
//! left; a verdict that comes under an older term finds no row to settle. A half-done reset is a flag in `device`, so the
//! next pull goes on where the last one stopped. All else is SQLite's own recovery.

mod actions;
mod candidates;
mod claim;
mod coalesce;
mod enqueue;
mod entity;
mod facts;
mod failure;
mod give_back;
mod inspect;
mod json_path;
mod metrics;
#[cfg(feature = "teeth")]
mod next_version;
mod open;
mod page;
mod prune;
mod read;
mod recover;
mod resolve;
mod row;
mod settle;
#[cfg(test)]
mod tests;
mod transition;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use rusqlite::Connection;
use syncline_protocol::{Timestamp, planted};

pub(crate) use actions::Unsent;
pub(crate) use candidates::{Blocker, Candidate, Park};
pub(crate) use claim::{ClaimedBatch, SentOperation};
pub(crate) use enqueue::{GroupMember, Prepared};
pub(crate) use facts::{BlockerFacts, ExplainFacts};
pub(crate) use give_back::{GiveBack, How};
pub use inspect::{InspectedDevice, Inspection, Troubled};
#[cfg(feature = "teeth")]
pub use next_version::open_as_next_version;
pub(crate) use open::Checkpointer;
pub(crate) use page::{PageApplied, PullPage};
pub(crate) use read::Reader;
pub(crate) use settle::{PushAnswer, Settled, SettledCounts};

use crate::config::{Durability, EntityType, Retention};
use crate::error::Result;
use crate::event::Changes;
use transition::Tally;

/// How to open a file.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    pub path: PathBuf,
    pub vfs: Option<String>,
    pub user_id: String,
    pub scope: String,
    pub entity_types: BTreeMap<String, EntityType>,
    pub pull_types: Option<Vec<String>>,
    pub durability: Durability,
    pub retention: Retention,
}

impl StoreOptions {
    pub(crate) fn entity_type(&self, name: &str) -> EntityType {
        self.entity_types.get(name).cloned().unwrap_or_default()
    }
}

/// Where the device stands with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub device_id: String,
    pub user_id: String,
    pub scope: String,
    pub term: u64,
    pub epoch: Option<String>,
    pub mark: u64,
    pub cursor: Option<String>,
    pub cursor_version: u64,
    pub entity_types: Option<Vec<String>>,
    pub reset: bool,
    pub forked: bool,
    pub retry_after: Option<(Timestamp, u64)>,
    /// The highest version that a verdict named and the replica has not reached. A pull sent now that ends with
    /// `has_more: false` has reached it.
    pub heard_version: u64,
}

/// What the next enqueue needs to know of the last one. Read anew whenever another connection has written.
#[derive(Debug, Clone, Copy)]
struct Tail {
    next_sequence: u64,
    bytes_through: u64,
    next_change: u64,
    latest_ms: i64,
}

/// The connection that writes.
pub(crate) struct Store {
    conn: Connection,
    options: StoreOptions,
    device_id: String,
    tail: Option<Tail>,
    /// `tail` was looked at in the transaction under way.
    tail_is_ours: bool,
    data_version: i64,
    /// Within [`Store::group`], where each write is a savepoint.
    in_group: bool,
    /// Of the transaction under way.
    uncommitted: Changes,
    tally: Tally,
    committed: Changes,
}

impl Store {
    /// Runs `job` as one transaction (or, within [`Store::group`], as one savepoint): all or nothing, also when it panics.
    pub(crate) fn write<T>(&mut self, job: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (begin, commit, rollback) = if self.in_group {
            ("SAVEPOINT job", "RELEASE job", "ROLLBACK TO job; RELEASE job")
        } else {
            ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        };
        let before =
            (self.uncommitted.operations.len(), self.uncommitted.entities.len(), self.uncommitted.notices.len());
        self.tail_is_ours &= self.in_group;
        self.run(begin)?;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let value = job(self)?;
            self.flush_tally()?;
            self.run(commit)?;
            Ok(value)
        }));
        match done {
            Ok(Ok(value)) => {
                if !self.in_group {
                    self.tail_is_ours = false;
                    self.publish();
                }
                Ok(value)
            }
            failed => {
                // A failed COMMIT may have ended the transaction already; then there is nothing to roll back.
                if self.in_group || !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch(rollback);
                }
                self.uncommitted.operations.truncate(before.0);
                self.uncommitted.entities.truncate(before.1);
                self.uncommitted.notices.truncate(before.2);
                self.tally = Tally::default();
                self.tail = None;
                match failed {
                    Ok(result) => result,
                    Err(panic) => resume_unwind(panic),
                }
            }
        }
    }

    /// Runs `jobs`, each of which writes by itself, in one transaction with one commit.
    ///
    /// # Errors
    /// The transaction could not begin or commit: then nothing of any job is written.
    pub(crate) fn group<T>(&mut self, jobs: impl FnOnce(&mut Self) -> T) -> Result<T> {
        self.tail_is_ours = false;
        self.run("BEGIN IMMEDIATE")?;
        self.in_group = true;
        let done = catch_unwind(AssertUnwindSafe(|| jobs(self)));
        self.in_group = false;
        self.tail_is_ours = false;
        let committed = match &done {
            Ok(_) => self.run("COMMIT"),
            Err(_) => Ok(()),
        };
        if done.is_err() || committed.is_err() {
            if !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            self.uncommitted = Changes::default();
            self.tail = None;
        }
        match done {
            Ok(value) => {
                committed?;
                self.publish();
                Ok(value)
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What the writes since the last call have changed, in order.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.committed)
    }

    fn publish(&mut self) {
        if planted!(EventsOutOfOrder) {
            self.uncommitted.operations.reverse();
        }
        if planted!(EventTwice) {
            self.committed.operations.extend_from_slice(&self.uncommitted.operations);
        }
        self.committed.operations.append(&mut self.uncommitted.operations);
        self.committed.entities.append(&mut self.uncommitted.entities);
        self.committed.notices.append(&mut self.uncommitted.notices);
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}
