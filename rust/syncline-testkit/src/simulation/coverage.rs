//! What a run came across, counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::situations;
use crate::model::RULES;

/// Counts by kind and name. Handles are clones.
#[derive(Clone, Default)]
pub struct Coverage {
    counts: Arc<Mutex<Counts>>,
}

/// (kind, name) → how often.
pub type Counts = BTreeMap<(&'static str, String), u64>;

impl Coverage {
    /// One more.
    pub fn note(&self, kind: &'static str, name: impl Into<String>) {
        self.add(kind, name, 1);
    }

    /// So many more.
    pub fn add(&self, kind: &'static str, name: impl Into<String>, count: u64) {
        if count > 0 {
            *self.counts.lock().entry((kind, name.into())).or_default() += count;
        }
    }

    /// How many of a kind.
    pub fn of_kind(&self, kind: &str) -> u64 {
        self.counts.lock().iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum()
    }

    /// All counts.
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }
}

/// What a long run must come across, and often.
pub fn expected() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rules = RULES.iter().map(|rule| ("rule", *rule));
    let lines = situations::LINES.iter().map(|line| (situations::KIND, *line));
    EXPECTED.iter().copied().chain(rules).chain(lines)
}

const EXPECTED: &[(&str, &str)] = &[
    ("fault", "no way to the endpoint"),
    ("fault", "request lost"),
    ("fault", "request cut off"),
    ("fault", "answer lost after the commit"),
    ("fault", "request delayed"),
    ("fault", "answer delayed"),
    ("fault", "answer after the time-out"),
    ("fault", "answers reordered"),
    ("fault", "request duplicated"),
    ("fault", "answer cut off after the commit"),
    ("fault", "an old request arrives again"),
    ("fault", "proxy page 200"),
    ("fault", "proxy page 404"),
    ("fault", "proxy page 502"),
    ("fault", "proxy page 520"),
    ("fault", "proxy page after the commit"),
    ("fault", "401"),
    ("fault", "403"),
    ("fault", "413 of the endpoint"),
    ("fault", "413 of a proxy"),
    ("fault", "429 with Retry-After in seconds"),
    ("fault", "503 with Retry-After as a date"),
    ("fault", "500"),
    ("fault", "the endpoint fails on one payload"),
    ("fault", "a firewall refuses one payload"),
    ("fault", "hostile: wrong id"),
    ("fault", "hostile: verdict for one never sent"),
    ("fault", "hostile: told twice"),
    ("fault", "hostile: unknown verdict"),
    ("fault", "hostile: huge number"),
    ("fault", "hostile: missing member"),
    ("fault", "hostile: wrong type"),
    ("fault", "hostile: wrong count"),
    ("fault", "the server died"),
    ("fault", "the endpoint's write failed"),
    ("fault", "the endpoint's flush failed"),
    ("fault", "the endpoint's disk full"),
    ("fault", "server restored"),
    ("fault", "server restored, untold"),
    ("fault", "a process died"),
    ("fault", "power lost"),
    ("fault", "sector lost"),
    ("fault", "sector torn"),
    ("fault", "unsynced sector kept"),
    ("fault", "create or delete lost"),
    ("fault", "write failed"),
    ("fault", "flush failed"),
    ("fault", "disk full"),
    ("fault", "a clock jumped"),
    ("fault", "a clock drifts"),
    ("fault", "two processes on one file"),
    ("fault", "a process lock lost"),
    ("fault", "the app updated"),
    ("fault", "the app put back"),
    ("fault", "the app closed and opened again"),
    ("fault", "an opening interrupted"),
    ("fault", "the user switched"),
    ("fault", "a user signed out"),
    ("fault", "a token expired"),
    ("fault", "a file copied"),
    ("transition", "new → pending"),
    ("transition", "pending → in_progress"),
    ("transition", "pending → cancelled"),
    ("transition", "pending → failed"),
    ("transition", "in_progress → pending"),
    ("transition", "in_progress → completed"),
    ("transition", "in_progress → failed"),
    ("transition", "in_progress → conflicted"),
    ("transition", "in_progress → cancelled"),
    ("transition", "completed → pending"),
    ("transition", "failed → pending"),
    ("transition", "failed → cancelled"),
    ("transition", "conflicted → pending"),
    ("transition", "conflicted → cancelled"),
    // On devices; the others are the reference endpoint's.
    ("rule", "7: resolved, take_local"),
    ("rule", "7: resolved, take_remote"),
    ("rule", "7: resolved, merged"),
    ("rule", "7: an update resolved against a deletion"),
    ("rule", "7: reopened"),
    ("verdict", "applied"),
    ("verdict", "applied, left out"),
    ("verdict", "merged"),
    ("verdict", "already_processed"),
    ("verdict", "conflict"),
    ("verdict", "rejected"),
    ("verdict", "deferred"),
];
