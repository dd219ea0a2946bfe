//! Requests under way.

use std::collections::BTreeMap;

use syncline_protocol::Timestamp;

use super::history::Known;
use super::planner::Room;
use crate::store::SentOperation;
use crate::transport::Route;

/// A request under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) sent_at: Timestamp,
    /// Of the credential it carries.
    pub(crate) generation: u64,
    /// Whether the provider was asked for a fresh credential.
    pub(crate) fresh: bool,
    /// Which of the server's histories it belongs to: an answer of an earlier one is dropped.
    pub(crate) history: u64,
    pub(crate) what: Sent,
}

/// What was sent.
#[derive(Debug)]
pub(crate) enum Sent {
    Push(SentPush),
    Pull(SentPull),
}

impl InFlight {
    pub(crate) fn route(&self) -> Route {
        match self.what {
            Sent::Push(_) => Route::Push,
            Sent::Pull(_) => Route::Pull,
        }
    }
}

/// Why a push was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To deliver.
    Batch,
    /// To try the first set under suspicion.
    Trial,
    /// Empty: to see whether the endpoint answers at all.
    Probe,
    /// Empty: to see whether the credential is good now.
    Ask,
}

/// A push as it left.
#[derive(Debug)]
pub(crate) struct SentPush {
    pub(crate) role: Role,
    pub(crate) known: Known,
    pub(crate) cursor: Option<String>,
    /// What can be sent again only as a whole.
    pub(crate) units: Vec<Vec<u64>>,
    pub(crate) operations: Vec<SentOperation>,
    /// Its size.
    pub(crate) room: Room,
}

/// A pull as it left.
#[derive(Debug)]
pub(crate) struct SentPull {
    pub(crate) epoch: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) mark: u64,
    pub(crate) limit: u64,
    /// See `Device::heard_version`.
    pub(crate) heard_version: u64,
}

/// All requests under way, by ticket.
#[derive(Debug, Default)]
pub(crate) struct InFlights {
    requests: BTreeMap<u64, InFlight>,
    last_ticket: u64,
}

impl InFlights {
    /// The ticket of the next request. Never given twice.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    pub(crate) fn insert(&mut self, ticket: u64, request: InFlight) {
        self.requests.insert(ticket, request);
    }

    pub(crate) fn take(&mut self, ticket: u64) -> Option<InFlight> {
        self.requests.remove(&ticket)
    }

    pub(crate) fn take_all(&mut self) -> Vec<InFlight> {
        std::mem::take(&mut self.requests).into_values().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn count(&self, route: Route) -> usize {
        self.requests.values().filter(|request| request.route() == route).count()
    }

    /// The lowest mark that a push under way carries.
    pub(crate) fn lowest_mark(&self) -> Option<u64> {
        let marks = self.requests.values().filter_map(|request| match &request.what {
            Sent::Push(push) => Some(push.known.mark),
            Sent::Pull(_) => None,
        });
        marks.min()
    }
}
