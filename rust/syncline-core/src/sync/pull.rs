//! Pulls: when to ask for changes, and what a page means.

use syncline_protocol::{PROTOCOL, PullRequest, PullResponse, Timestamp};

use super::Action;
use super::connection::Backoff;
use super::driver::Driver;
use super::inflight::{InFlight, Sent, SentPull};
use super::retry::{Disposition, Silence};
use crate::environment::Random;
use crate::error::Result;
use crate::store::{Device, PageApplied, PullPage, Store};
use crate::transport::Route;

/// Changes per page, unless they are too large or the network too slow.
const PAGE: u64 = 1_000;
/// While pushes are under way, what they brought about is pulled back at most this often: each of them moves the head anyway.
const SOON_MS: i64 = 5_000;

/// When to pull.
#[derive(Debug)]
pub(super) struct Pulling {
    /// There is something to pull.
    wanted: bool,
    /// There is something to pull once the pushes are through.
    soon: bool,
    /// When the last one began.
    last: Option<Timestamp>,
    /// The endpoint fails on pulls. Pushes go on.
    backoff: Backoff,
    page: u64,
}

impl Default for Pulling {
    fn default() -> Self {
        Self { wanted: true, soon: false, last: None, backoff: Backoff::default(), page: PAGE }
    }
}

impl Pulling {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) fn want_soon(&mut self) {
        self.soon = true;
    }

    /// The user or the network gives a reason to.
    pub(super) fn try_now(&mut self) {
        self.wanted = true;
        self.backoff.try_now();
    }

    /// When to pull next, if nothing else happens. `interval_ms` after the last one at the latest, whatever the clock did.
    pub(super) fn due_at(&mut self, now: Timestamp, interval_ms: i64) -> Option<Timestamp> {
        if self.last.is_some_and(|last| last > now) {
            self.last = Some(now);
        }
        let after = |wait: i64| self.last.map_or(now, |last| last.plus_millis(wait));
        let due = if self.wanted {
            now
        } else if self.soon {
            after(SOON_MS.min(interval_ms))
        } else {
            after(interval_ms)
        };
        Some(self.backoff.until(now).map_or(due, |until| until.max(due)))
    }

    fn is_due(&mut self, now: Timestamp, interval_ms: i64, pushes: usize) -> bool {
        let due = self.due_at(now, interval_ms).is_some_and(|at| at <= now);
        due || (self.soon && pushes == 0 && self.backoff.until(now).is_none())
    }

    fn begin(&mut self, now: Timestamp) {
        self.wanted = false;
        self.soon = false;
        self.last = Some(now);
    }

    fn smaller_page(&mut self) -> bool {
        let smaller = self.page > 1;
        self.page = (self.page / 2).max(1);
        smaller
    }
}

impl Driver {
    /// Starts a pull, if one is due and may go. There is never more than one.
    pub(super) fn start_pull(&mut self, device: &Device, now: Timestamp) -> Option<Action> {
        let pushes = self.in_flight.count(Route::Push);
        let interval = self.pull_interval_ms();
        let asked = device.epoch.is_none() || self.credential.must_ask() == Some(Route::Pull);
        let may = self.credential.allows(Route::Pull) && self.in_flight.count(Route::Pull) == 0;
        if asked {
            self.pulling.want();
        }
        if !may || !self.pulling.is_due(now, interval, pushes) {
            return None;
        }
        self.pulling.begin(now);
        let request = PullRequest {
            protocol: PROTOCOL,
            user_id: device.user_id.clone(),
            scope: device.scope.clone(),
            device_id: device.device_id.clone(),
            epoch: device.epoch.clone(),
            mark: device.mark,
            cursor: device.cursor.clone(),
            entity_types: device.entity_types.clone(),
            limit: self.pulling.page,
        };
        let body = serde_json::to_vec(&request).expect("a pull is plain data");
        let pull = SentPull {
            epoch: request.epoch,
            cursor: request.cursor,
            mark: request.mark,
            limit: request.limit,
            heard_version: device.heard_version,
        };
        Some(self.send(Route::Pull, body, Sent::Pull(pull), now))
    }

    /// What only a pull can be answered with.
    pub(super) fn pull_answered(
        &mut self,
        store: &mut Store,
        request: &InFlight,
        pull: &SentPull,
        disposition: Disposition,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        match disposition {
            Disposition::Pulled(page) => return self.take_page(store, request, pull, &page, now, random),
            Disposition::Silent(silence) => return self.pull_silent(store, &silence, now, random),
            Disposition::TooLarge { .. } => self.pull_failed("too_large", now, random),
            Disposition::Blame(blame) => self.pull_failed(&blame.reason, now, random),
            _ => unreachable!("a pull is answered as one, and the rest is judged for every request"),
        }
        Ok(())
    }

    fn take_page(
        &mut self,
        store: &mut Store,
        request: &InFlight,
        pull: &SentPull,
        response: &PullResponse,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        if pull.epoch.as_ref().is_some_and(|epoch| *epoch != response.epoch) {
            // The next push finds out how far back its mark is.
            return self.go_back(store, Route::Pull, &response.epoch, pull.mark, now, random);
        }
        if response.has_more && pull.cursor.as_deref() == Some(response.cursor.as_str()) {
            self.pull_failed("invalid_answer", now, random);
            return Ok(());
        }
        let page = PullPage { sent_cursor: pull.cursor.as_deref(), heard_version: pull.heard_version, response };
        match store.apply_page(&page, now).inspect_err(|_| self.pulling.want())? {
            PageApplied::Taken { changes, has_more } => {
                self.summary.pulled += changes;
                if has_more {
                    self.pulling.want();
                }
            }
            PageApplied::Stale => self.pulling.want(),
            PageApplied::Invalid(why) => {
                log::warn!("a page was dropped: {why}");
                self.pull_failed("invalid_answer", now, random);
                return Ok(());
            }
        }
        self.pulling.backoff.reset();
        self.pulling.page = (pull.limit * 2).min(PAGE);
        self.credential.taken(request.generation, Route::Pull);
        self.connection.works(Route::Pull);
        Ok(())
    }

    /// Our endpoint fails on pulls: they wait, and pushes go on.
    fn pull_failed(&mut self, reason: &str, now: Timestamp, random: &dyn Random) {
        self.pulling.want();
        self.pulling.backoff.fail(reason, now, random);
    }

    fn pull_silent(&mut self, store: &mut Store, silence: &Silence, now: Timestamp, random: &dyn Random) -> Result<()> {
        self.pulling.want();
        let too_much = silence.is_slow() || silence.reason == "answer_too_large";
        let smaller = too_much && self.pulling.smaller_page();
        if silence.reason != "answer_too_large" || !smaller {
            self.connection.fail(Route::Pull, silence.reason, now, random);
        }
        self.retry_after(store, silence.retry_after_ms, now)
    }
}
