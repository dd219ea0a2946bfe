//! The driver: what to do next, and what to do about an outcome. Pushes are in `push`, pulls in `pull`.

use syncline_protocol::{Timestamp, planted};

use super::batch::BatchSize;
use super::blame::Suspects;
use super::connection::Connection;
use super::credential::Credential;
use super::history::Marks;
use super::inflight::{InFlight, InFlights, Role, Sent, SentPush};
use super::pull::Pulling;
use super::retry::{self, Disposition, cut};
use super::{Action, DriverSettings, NetworkStatus, Outcome, SyncSummary};
use crate::environment::Random;
use crate::error::Result;
use crate::metrics::SyncState;
use crate::store::{Device, GiveBack, How, SettledCounts, Store};
use crate::transport::{CredentialReason, Request, Route};

/// How often ended operations are looked through while there is nothing else to do.
const PRUNE_INTERVAL_MS: u64 = 60_000;
/// A moment that has come and changed nothing is not waited for again before this long.
const LEAST_WAIT_MS: i64 = 1_000;

/// Decides what is sent. See the module's essay.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) settings: DriverSettings,
    pub(super) term: u64,
    pub(super) connection: Connection,
    pub(super) credential: Credential,
    pub(super) in_flight: InFlights,
    pub(super) suspects: Suspects,
    pub(super) size: BatchSize,
    pub(super) marks: Marks,
    pub(super) pulling: Pulling,
    pub(super) summary: SyncSummary,
    /// Counts the server's histories that this driver has lived through.
    pub(super) history: u64,
    /// The server went back, and no verdict has come since: if it does so again, the connection backs off.
    pub(super) went_back: bool,
    /// Operations up to here have been looked at, or have come since and are ready again.
    pub(super) fresh_after: u64,
    /// There is more to look at than one call should.
    pub(super) more_to_plan: bool,
    /// Leases that are over but not yet told to the store: it may have failed.
    returns: Vec<GiveBack>,
    paused: bool,
    at_rest: bool,
    superseded: bool,
    prune_at: Option<Timestamp>,
}

impl Driver {
    /// A driver with nothing in flight. [`Driver::start`] comes first.
    pub(crate) fn new(settings: DriverSettings) -> Self {
        Self {
            settings,
            term: 0,
            connection: Connection::default(),
            credential: Credential::default(),
            in_flight: InFlights::default(),
            suspects: Suspects::default(),
            size: BatchSize::default(),
            marks: Marks::default(),
            pulling: Pulling::default(),
            summary: SyncSummary::default(),
            history: 0,
            went_back: false,
            fresh_after: 0,
            more_to_plan: false,
            returns: Vec::new(),
            paused: false,
            at_rest: false,
            superseded: false,
            prune_at: None,
        }
    }

    /// Begins to drain under a new term. The caller holds the process lock.
    pub(crate) fn start(&mut self, store: &mut Store, now: Timestamp) -> Result<()> {
        self.term = store.begin_drain(now)?;
        if planted!(RetryAfterInMemory) {
            store.set_retry_after(None)?;
        }
        self.in_flight.take_all();
        self.returns.clear();
        self.credential.abandon();
        self.suspects = Suspects::default();
        self.marks = Marks::default();
        self.history += 1;
        self.fresh_after = 0;
        self.at_rest = false;
        self.superseded = false;
        self.pulling.want();
        Ok(())
    }

    /// What to do next. After [`Action::Send`], ask again at once: more may go beside it.
    pub(crate) fn next(&mut self, store: &mut Store, now: Timestamp, random: &dyn Random) -> Result<Action> {
        self.at_rest = false;
        self.flush(store, now, random)?;
        if self.paused || !self.connection.is_online() {
            self.at_rest = self.in_flight.is_empty();
            return Ok(Action::Wait { until: None });
        }
        let mut device = store.device()?;
        self.superseded = device.term != self.term;
        if self.superseded {
            // Somebody else drains under a newer term: nothing that this driver could claim would be its own.
            self.at_rest = true;
            return Ok(Action::Wait { until: None });
        }
        if device.forked {
            if !self.in_flight.is_empty() {
                return Ok(Action::Wait { until: Some(now.plus_millis(self.pull_interval_ms())) });
            }
            device = self.fork(store, now, random)?;
        }
        let told = device.retry_after.map(|(until, ms)| (cut(until, ms, now), ms));
        if told != device.retry_after && !planted!(CutWithoutEnd) {
            // Kept, or a clock that was set back would cut it anew from each moment, without end.
            store.set_retry_after(told)?;
        }
        self.connection.set_retry_after(told);
        if let Some((until, _)) = self.connection.blocked(now) {
            self.at_rest = self.in_flight.is_empty();
            return Ok(Action::Wait { until: Some(until).filter(|_| !planted!(TimerNotArmed)) });
        }
        if let Some(action) = self.start_push(store, &device, now)? {
            return Ok(action);
        }
        if let Some(action) = self.start_pull(&device, now) {
            return Ok(action);
        }
        self.rest(store, &device, now)
    }

    /// Takes the outcome of a request. One whose ticket is not known (any more) is dropped.
    pub(crate) fn answered(
        &mut self,
        store: &mut Store,
        ticket: u64,
        outcome: Outcome,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        let Some(request) = self.in_flight.take(ticket) else { return Ok(()) };
        self.at_rest = false;
        self.credential.ended(ticket);
        let disposition = retry::disposition(request.route(), outcome, now);
        let taken = self.take(store, &request, disposition, now, random);
        self.marks.settle(self.in_flight.lowest_mark());
        let flushed = self.flush(store, now, random);
        let stored = taken.and(flushed);
        if let Err(error) = &stored {
            // Asked for again at once it would not be stored either.
            self.connection.fail(request.route(), error.code(), now, random);
        }
        stored
    }

    /// What every request has in common; the rest is decided per route.
    fn take(
        &mut self,
        store: &mut Store,
        request: &InFlight,
        disposition: Disposition,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        let route = request.route();
        if request.history != self.history && !planted!(AnswerOfOldEpoch) {
            self.keep(request);
            return Ok(());
        }
        match disposition {
            Disposition::Abandoned => self.keep(request),
            Disposition::Refused { reason, stale } => {
                self.keep(request);
                if self.credential.refused(request.generation, request.fresh, stale, reason, route) {
                    self.connection.fail(route, "auth_required", now, random);
                }
            }
            Disposition::Busy { reason, retry_after_ms } => {
                self.keep(request);
                self.connection.fail(route, &reason, now, random);
                self.retry_after(store, retry_after_ms, now)?;
            }
            Disposition::UnsupportedProtocol { supported } => {
                self.keep(request);
                self.connection.set_unsupported(supported);
                self.connection.fail(route, "unsupported_protocol", now, random);
            }
            Disposition::Forked => {
                self.keep(request);
                store.request_fork()?;
            }
            Disposition::Behind { epoch, mark } => {
                self.keep(request);
                self.go_back(store, route, &epoch, mark, now, random)?;
            }
            other => match &request.what {
                Sent::Push(push) => self.push_answered(store, request, push, other, now, random)?,
                Sent::Pull(pull) => self.pull_answered(store, request, pull, other, now, random)?,
            },
        }
        Ok(())
    }

    /// The request came to nothing, and nobody is to blame: what it carried may go again.
    pub(super) fn keep(&mut self, request: &InFlight) {
        match &request.what {
            Sent::Pull(_) => self.pulling.want(),
            Sent::Push(push) => {
                self.end_trial(push);
                if push.role == Role::Probe {
                    self.probe_failed();
                }
                self.return_all(push, if push.role == Role::Trial { How::Held } else { How::Ready });
            }
        }
    }

    pub(super) fn end_trial(&mut self, push: &SentPush) {
        if matches!(push.role, Role::Trial | Role::Probe) {
            self.suspects.end();
        }
    }

    /// Notes that every lease of `push` is over, `how`.
    pub(super) fn return_all(&mut self, push: &SentPush, how: How) {
        self.return_these(push.units.concat(), &how);
    }

    /// Notes that the leases of these operations are over, `how`.
    pub(super) fn return_these(&mut self, sequences: Vec<u64>, how: &How) {
        self.returns.extend(sequences.into_iter().map(|sequence| GiveBack { sequence, how: how.clone() }));
    }

    /// The empty push failed too: it is the connection.
    pub(super) fn probe_failed(&mut self) {
        let accused = self.suspects.probe_failed();
        self.return_these(accused, &How::Held);
    }

    /// Tells the store which leases are over. What it could not take is told again.
    fn flush(&mut self, store: &mut Store, now: Timestamp, random: &dyn Random) -> Result<()> {
        if !self.returns.is_empty() {
            self.count(store.give_back(self.term, &self.returns, now, random)?);
            self.returns.clear();
        }
        Ok(())
    }

    pub(super) fn retry_after(&mut self, store: &mut Store, wait_ms: Option<u64>, now: Timestamp) -> Result<()> {
        let Some(ms) = wait_ms.filter(|_| !planted!(DropRetryAfter)) else { return Ok(()) };
        let wait = Some((now.plus_millis(to_i64(ms)), ms));
        self.connection.set_retry_after(wait);
        store.set_retry_after(wait)
    }

    /// The server's history is another one (spec §6). Answers to what is in flight will be dropped.
    pub(super) fn go_back(
        &mut self,
        store: &mut Store,
        route: Route,
        epoch: &str,
        mark: u64,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        let returned = store.server_went_back(epoch, mark, now)?;
        log::warn!("the server went back in time; {returned} completed operations are sent again");
        self.history += 1;
        self.marks = Marks::default();
        self.pulling.want();
        if self.went_back {
            self.connection.fail(route, "server_behind", now, random);
        }
        self.went_back = true;
        Ok(())
    }

    /// Nothing is in flight: goes on as another device (spec §6, clone detection).
    fn fork(&mut self, store: &mut Store, now: Timestamp, random: &dyn Random) -> Result<Device> {
        let accused = self.suspects.adjourn();
        self.return_these(accused, &How::Held);
        self.flush(store, now, random)?;
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let device_id = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
        store.fork(&device_id, now)?;
        log::info!("another copy of this file had written; it goes on as a new device");
        self.history += 1;
        self.marks = Marks::default();
        store.device()
    }

    /// Nothing can start: tidies up and says when to ask again.
    fn rest(&mut self, store: &mut Store, device: &Device, now: Timestamp) -> Result<Action> {
        if std::mem::take(&mut self.more_to_plan) {
            return Ok(Action::Wait { until: Some(now) });
        }
        let idle = self.in_flight.is_empty();
        self.at_rest = idle;
        let prune_at = self.prune_at.map_or(now, |at| cut(at, PRUNE_INTERVAL_MS, now));
        self.prune_at = Some(prune_at);
        if idle && prune_at <= now {
            if store.prune(now)? > 0 {
                return Ok(Action::Wait { until: Some(now) });
            }
            self.prune_at = Some(now.plus_millis(to_i64(PRUNE_INTERVAL_MS)));
        }
        let due = if self.may_push(device) { store.next_due(now)? } else { None };
        let moments = [due, self.pulling.due_at(now, self.pull_interval_ms()), self.prune_at.filter(|_| idle)];
        let until = moments.into_iter().flatten().min().map(|until| until.max(now.plus_millis(LEAST_WAIT_MS)));
        Ok(Action::Wait { until })
    }

    /// Local writes happened: the next call of [`Driver::next`] finds them.
    pub(crate) fn wake(&mut self) {
        self.at_rest = false;
    }

    /// The user asks now: no jitter is waited for, and a pull is made. `Retry-After` stands.
    pub(crate) fn nudge(&mut self) {
        self.at_rest = false;
        self.connection.try_now();
        self.pulling.try_now();
    }

    /// The platform reports. A network is a reason to try at once.
    pub(crate) fn network_changed(&mut self, status: NetworkStatus) {
        self.at_rest = false;
        self.connection.network_changed(status);
        if self.connection.is_online() {
            self.size.forget();
            self.pulling.try_now();
        }
    }

    /// Starts no more requests. Those in flight may still be answered.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Starts requests again.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
        self.at_rest = false;
    }

    /// What delivery is doing.
    pub(crate) fn state(&self, now: Timestamp) -> SyncState {
        if self.paused {
            return SyncState::Paused;
        }
        if !self.connection.is_online() {
            return SyncState::Offline;
        }
        if let Some(supported) = self.connection.unsupported() {
            return SyncState::UnsupportedProtocol { supported: supported.to_vec() };
        }
        if let Some(reason) = self.credential.required() {
            return SyncState::AuthRequired { reason: reason.to_owned() };
        }
        if !self.in_flight.is_empty() {
            return SyncState::Syncing;
        }
        match self.connection.blocked_at(now) {
            Some((until, reason)) => SyncState::Backoff { until, reason },
            None => SyncState::Idle,
        }
    }

    /// Whether nothing is in flight and the last [`Driver::next`] found nothing to start: all is delivered, or waits for time,
    /// the user or the network.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.at_rest
    }

    /// Whether somebody else had begun to drain when this driver was last asked: the process lock was lost.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// Whether one bad operation is being searched among several (for `explain`).
    pub(crate) fn is_searching(&self) -> bool {
        self.suspects.is_searching()
    }

    /// What was done since this driver was made.
    pub(crate) fn summary(&self) -> SyncSummary {
        self.summary
    }

    /// Gives up everything in flight: its operations are pending again, and late answers are dropped.
    pub(crate) fn abandon_all(&mut self, store: &mut Store, now: Timestamp, random: &dyn Random) -> Result<()> {
        for request in self.in_flight.take_all() {
            self.keep(&request);
        }
        let accused = self.suspects.adjourn();
        self.return_these(accused, &How::Held);
        self.credential.abandon();
        self.flush(store, now, random)
    }

    /// Registers a request and hands it to the shell.
    pub(super) fn send(&mut self, route: Route, body: Vec<u8>, what: Sent, now: Timestamp) -> Action {
        let ticket = self.in_flight.ticket();
        let (reason, generation) = self.credential.ask(ticket);
        let fresh = reason == CredentialReason::Refresh;
        self.in_flight.insert(ticket, InFlight { sent_at: now, generation, fresh, history: self.history, what });
        self.summary.requests += 1;
        Action::Send { ticket, request: Request { route, body }, reason }
    }

    pub(super) fn count(&mut self, counts: SettledCounts) {
        self.summary.completed += counts.completed;
        self.summary.merged += counts.merged;
        self.summary.conflicts += counts.conflicted;
        self.summary.failed += counts.failed;
        self.summary.cancelled += counts.cancelled;
    }

    pub(super) fn pull_interval_ms(&self) -> i64 {
        i64::try_from(self.settings.pull_interval.as_millis()).unwrap_or(i64::MAX).max(LEAST_WAIT_MS)
    }
}

pub(super) fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
