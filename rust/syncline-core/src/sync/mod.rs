//! What to send, and what an answer means.
//!
//! # What it is
//! [`Driver`] is a state machine without I/O: it is asked for its next [`Action`], and told each [`Outcome`]. It keeps in memory
//! what is in flight, how the connection fares and which operations are under suspicion; everything that matters is in the
//! store, so losing a driver loses nothing. It has no clock, no randomness and no threads of its own.
//!
//! # What it promises
//! - An operation leaves only after every earlier one of its lane and its dependencies ended, or with them in one batch, in
//!   order (`planner`).
//! - Every outcome is judged in one function, `retry::disposition`. What is not a verdict of our endpoint charges no operation.
//! - One bad operation costs others a few requests, never a verdict: it is found by bisecting (`blame`) while other lanes and
//!   the pull go on.
//! - Every [`Action::Wait`] says until when; no state waits for the next local write.
//!
//! # What it does not
//! It does not know how requests travel, who asks for credentials or who may drain: that is the manager's part.
//!
//! # How it recovers
//! [`Driver::start`] begins anew under a higher term. Requests of an earlier life have no ticket here, so their answers are dropped.

mod batch;
mod blame;
mod connection;
mod credential;
mod driver;
mod explain;
mod history;
mod inflight;
mod planner;
mod pull;
mod push;
pub(crate) mod retry;

#[cfg(test)]
mod tests;

use std::time::Duration;

use syncline_protocol::Timestamp;

pub(crate) use driver::Driver;
pub(crate) use explain::explain;

use crate::transport::{CredentialReason, Request, Response, TransportError};

/// What a driver needs to know about the manager's configuration.
#[derive(Debug, Clone)]
pub(crate) struct DriverSettings {
    /// Pushes in flight at once, at least 1.
    pub(crate) max_in_flight: usize,
    /// How often to pull when nothing else gives a reason to.
    pub(crate) pull_interval: Duration,
}

/// What the shell shall do next.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask the provider, send, and report what came of it under this ticket. Then ask for the next action at once.
    Send {
        /// Names the request in [`Driver::answered`].
        ticket: u64,
        /// What to send.
        request: Request,
        /// Why the provider is asked.
        reason: CredentialReason,
    },
    /// Nothing more can start now. Ask again after an answer, after [`Driver::wake`] and the like, and at this moment.
    /// None while paused or offline: then time alone changes nothing.
    Wait {
        /// The latest moment to ask again.
        until: Option<Timestamp>,
    },
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Somebody answered.
    Answered(Response),
    /// Nobody did.
    NoAnswer(TransportError),
    /// The provider gave no credential, and why, as a word.
    NoCredential(String),
    /// Given up by the device itself.
    Abandoned,
}

/// What the platform says about the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkStatus {
    /// There is none: nothing is sent.
    Offline,
    /// There is one.
    Online {
        /// Whether its traffic costs the user money.
        metered: bool,
    },
}

/// What delivery has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Operations that were decided on the server and took effect, merged ones included.
    pub completed: u64,
    /// Of these, operations that were merged with writes they had not seen.
    pub merged: u64,
    /// Operations that now wait for the app to resolve a conflict.
    pub conflicts: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Withdrawn operations whose withdrawal the endpoint confirmed.
    pub cancelled: u64,
    /// Changes pulled.
    pub pulled: u64,
    /// Requests made.
    pub requests: u64,
}

impl SyncSummary {
    /// What was done since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            completed: self.completed - earlier.completed,
            merged: self.merged - earlier.merged,
            conflicts: self.conflicts - earlier.conflicts,
            failed: self.failed - earlier.failed,
            cancelled: self.cancelled - earlier.cancelled,
            pulled: self.pulled - earlier.pulled,
            requests: self.requests - earlier.requests,
        }
    }
}
