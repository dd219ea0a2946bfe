//! Pushes: what goes into one, and what its answer means.

use std::collections::BTreeSet;

use syncline_protocol::{PROTOCOL, PushRequest, PushResponse, Timestamp, planted};

use super::Action;
use super::batch::QUICK_MS;
use super::blame::{Accusation, Sentence, Trial};
use super::driver::Driver;
use super::history::{Answer, Known};
use super::inflight::{InFlight, Role, Sent, SentPush};
use super::planner::{Plan, Room, plan};
use super::retry::{Blame, Disposition, STATEMENT_TIMEOUT, Silence};
use crate::environment::Random;
use crate::error::Result;
use crate::store::{ClaimedBatch, Device, How, PushAnswer, Settled, Store};
use crate::transport::Route;

/// Candidates looked at in one go, and how often before others get their turn with the store.
const CANDIDATES: usize = 500;
const PASSES: usize = 8;

impl Driver {
    /// Whether a push may start.
    pub(super) fn may_push(&self, device: &Device) -> bool {
        let most = if self.connection.is_doubtful() { 1 } else { self.settings.max_in_flight.max(1) };
        // A push without an epoch would be refused: a new device pulls first.
        (device.epoch.is_some() || planted!(PushWithoutEpoch))
            && self.credential.allows(Route::Push)
            && self.in_flight.count(Route::Push) < most
    }

    /// Starts a push, if there is something to push and it may go.
    pub(super) fn start_push(&mut self, store: &mut Store, device: &Device, now: Timestamp) -> Result<Option<Action>> {
        if !self.may_push(device) {
            return Ok(None);
        }
        if let Some(action) = self.start_trial(store, now)? {
            return Ok(Some(action));
        }
        if let Some(action) = self.start_batch(store, now)? {
            return Ok(Some(action));
        }
        if self.credential.must_ask() == Some(Route::Push) && !self.more_to_plan {
            return self.send_push(store, Role::Ask, &Plan::default(), now);
        }
        Ok(None)
    }

    /// The next step in the search for one to blame.
    fn start_trial(&mut self, store: &mut Store, now: Timestamp) -> Result<Option<Action>> {
        while let Some(trial) = self.suspects.next_trial() {
            let sequences = match trial {
                Trial::Probe => return self.send_push(store, Role::Probe, &Plan::default(), now),
                Trial::Send(sequences) => sequences,
            };
            // What is before them may have failed, or they may have been withdrawn, since they were first sent.
            let held = plan(store.held(&sequences)?, Room::UNBOUNDED, |_| false);
            self.park(store, &held)?;
            if !held.batch.is_empty()
                && let Some(action) = self.send_push(store, Role::Trial, &held, now)?
            {
                return Ok(Some(action));
            }
            self.suspects.clear();
        }
        Ok(None)
    }

    fn start_batch(&mut self, store: &mut Store, now: Timestamp) -> Result<Option<Action>> {
        let room = self.size.room();
        self.more_to_plan = false;
        for _ in 0..PASSES {
            let candidates = store.candidates(self.fresh_after, room.operations.clamp(50, CANDIDATES), now)?;
            let plan = plan(candidates.list, room, |sequence| self.suspects.is_loner(sequence));
            self.park(store, &plan)?;
            let through = plan.stopped_at.map_or(candidates.fresh_through, |at| candidates.fresh_through.min(at - 1));
            let action = match plan.batch.is_empty() {
                true => None,
                false => self.send_push(store, Role::Batch, &plan, now)?,
            };
            self.fresh_after = self.fresh_after.max(through);
            if action.is_some() || (plan.batch.is_empty() && !candidates.more) {
                return Ok(action);
            }
        }
        self.more_to_plan = true;
        Ok(None)
    }

    fn park(&self, store: &mut Store, plan: &Plan) -> Result<()> {
        if plan.parks.is_empty() { Ok(()) } else { store.park(&plan.parks) }
    }

    /// Leases the plan's operations and builds the request. None if none of them could be leased any more.
    fn send_push(&mut self, store: &mut Store, role: Role, plan: &Plan, now: Timestamp) -> Result<Option<Action>> {
        let claimed = store.claim(self.term, &plan.batch.concat(), now)?;
        if claimed.operations.is_empty() && !plan.batch.is_empty() {
            return Ok(None);
        }
        let units = claimed_units(plan, &claimed);
        let room = Room { operations: claimed.operations.len(), bytes: plan.bytes };
        let ClaimedBatch { device, operations, sent, forgotten_through } = claimed;
        let known = Known { epoch: device.epoch.clone().unwrap_or_default(), mark: device.mark, dry_run: false };
        let cursor = device.cursor.clone();
        let request = PushRequest {
            protocol: PROTOCOL,
            user_id: device.user_id,
            scope: device.scope,
            device_id: device.device_id,
            epoch: device.epoch,
            mark: device.mark,
            cursor: device.cursor,
            sent_at: now,
            dry_run: known.dry_run,
            forgotten_through,
            operations,
        };
        if matches!(role, Role::Trial | Role::Probe) {
            self.suspects.begin((role == Role::Trial).then(|| units.clone()));
        }
        let body = serde_json::to_vec(&request).expect("a push is plain data");
        let push = SentPush { role, known, cursor, units, operations: sent, room };
        Ok(Some(self.send(Route::Push, body, Sent::Push(push), now)))
    }

    /// What only a push can be answered with.
    pub(super) fn push_answered(
        &mut self,
        store: &mut Store,
        request: &InFlight,
        push: &SentPush,
        disposition: Disposition,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        self.end_trial(push);
        match disposition {
            Disposition::Pushed(response) => self.settle(store, request, push, &response, now, random),
            Disposition::Silent(silence) => self.push_silent(store, push, &silence, now, random),
            Disposition::TooLarge { ours, limits } => {
                if planted!(NeverShrinks) {
                    self.connection.fail(Route::Push, "too_large", now, random);
                } else {
                    self.size.refused(push.room, limits);
                }
                self.push_too_large(push, ours, now, random);
                Ok(())
            }
            Disposition::Blame(blame) => {
                self.push_blamed(push, blame, now, random);
                Ok(())
            }
            _ => unreachable!("a push is answered as one, and the rest is judged for every request"),
        }
    }

    fn settle(
        &mut self,
        store: &mut Store,
        request: &InFlight,
        push: &SentPush,
        response: &PushResponse,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        match self.marks.check(&push.known, response) {
            Answer::Continues => {}
            Answer::WentBack { epoch, mark } => {
                self.keep(request);
                return self.go_back(store, Route::Push, &epoch, mark, now, random);
            }
            Answer::Invalid => return self.push_silent(store, push, &INVALID, now, random),
        }
        let answer =
            PushAnswer { term: self.term, sent: &push.operations, sent_cursor: push.cursor.as_deref(), response };
        let settled = store.settle(&answer, now, random).inspect_err(|_| self.keep(request))?;
        match settled {
            Settled::Mismatch(why) => {
                log::warn!("an answer was dropped: {why}");
                self.push_silent(store, push, &INVALID, now, random)
            }
            Settled::Done { more_to_pull, counts } => {
                if more_to_pull {
                    self.pulling.want_soon();
                }
                self.went_back = false;
                self.credential.taken(request.generation, Route::Push);
                self.connection.works(Route::Push);
                self.size.limit(response.limits);
                let took = now.millis() - request.sent_at.millis();
                if (0..QUICK_MS).contains(&took) {
                    self.size.quick();
                }
                self.count(counts);
                self.suspects.acquit(&push.units);
                match push.role {
                    Role::Trial => self.suspects.clear(),
                    Role::Probe => self.charge(),
                    Role::Batch | Role::Ask => {}
                }
                Ok(())
            }
        }
    }

    /// No answer of our endpoint. Once is bad luck; when it happens again, the operations may have to do with it.
    fn push_silent(
        &mut self,
        store: &mut Store,
        push: &SentPush,
        silence: &Silence,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<()> {
        if silence.is_slow() {
            self.size.slow(push.room);
        }
        let counts = silence.went_out && self.connection.is_online();
        let accused = match push.role {
            Role::Probe => {
                self.probe_failed();
                false
            }
            Role::Trial => counts && self.suspects.silent(silence.reason),
            Role::Batch if counts => self.suspects.add_silent(push.units.clone(), silence.reason),
            Role::Batch | Role::Ask => false,
        };
        if !accused {
            let held = push.role == Role::Trial || (push.role == Role::Batch && counts);
            let charge = How::Charge { reason: silence.reason.into(), message: None };
            let kept = if held { How::Held } else { How::Ready };
            self.return_all(push, if planted!(CountOffline) { charge } else { kept });
            self.connection.fail(Route::Push, silence.reason, now, random);
        }
        self.retry_after(store, silence.retry_after_ms, now)
    }

    /// 413, ours or a proxy's: smaller batches; what cannot be made smaller fails if it is our endpoint's word.
    fn push_too_large(&mut self, push: &SentPush, ours: bool, now: Timestamp, random: &dyn Random) {
        let alone = push.units.len() == 1;
        match push.role {
            Role::Ask => self.connection.fail(Route::Push, "too_large", now, random),
            Role::Probe => {
                self.probe_failed();
                self.connection.fail(Route::Push, "too_large", now, random);
            }
            Role::Batch if !alone => self.return_all(push, How::Ready),
            Role::Trial if !alone => {
                self.suspects.too_large();
                self.return_all(push, How::Held);
            }
            role => {
                if role == Role::Trial {
                    self.suspects.clear();
                }
                if ours {
                    self.fail(push, "too_large", "The endpoint does not take as many bytes at once.");
                } else {
                    self.suspects.add_refused(push.units.clone());
                }
            }
        }
    }

    /// Our endpoint answered, but for no operation.
    fn push_blamed(&mut self, push: &SentPush, blame: Blame, now: Timestamp, random: &dyn Random) {
        match push.role {
            Role::Ask => self.connection.fail(Route::Push, &blame.reason, now, random),
            Role::Probe => {
                self.probe_failed();
                self.connection.fail(Route::Push, &blame.reason, now, random);
            }
            Role::Trial => {
                if !self.suspects.blamed(blame) {
                    self.return_all(push, How::Held);
                }
            }
            Role::Batch if planted!(ChargeUnasked) && push.units.len() == 1 => {
                self.fail(push, &blame.reason, &blame.message);
            }
            Role::Batch => self.suspects.add_blamed(push.units.clone(), blame),
        }
    }

    /// An empty push was answered: who stands alone is charged, the others are searched on.
    fn charge(&mut self) {
        let (unit, accusation) = match self.suspects.probe_passed() {
            Some(Sentence::Charge(unit, accusation)) => (unit, accusation),
            Some(Sentence::Search(all)) => return self.return_these(all, &How::Held),
            None => return,
        };
        let how = match &accusation {
            Accusation::Silent("invalid_answer") => How::Wait {
                reason: "invalid_answer".into(),
                message: Some("The endpoint's answer to this operation alone cannot be read.".into()),
            },
            Accusation::Silent(STATEMENT_TIMEOUT) => How::Wait {
                reason: STATEMENT_TIMEOUT.into(),
                message: Some("The database does not finish it in time, while it does others.".into()),
            },
            Accusation::Silent(reason) => How::Wait {
                reason: "proxy_refused".into(),
                message: Some(format!("It gets no answer of the endpoint ({reason}), while others do.")),
            },
            Accusation::Blamed(blame) if blame.attempt => How::Charge {
                reason: blame.reason.clone(),
                message: Some(format!("The endpoint fails on this operation: {}", blame.message)),
            },
            Accusation::Blamed(blame) => How::Fail {
                reason: blame.reason.clone(),
                message: Some(format!("{} {UNKNOWN_OUTCOME}", blame.message)),
            },
        };
        if !matches!(how, How::Fail { .. }) {
            self.suspects.isolate(&unit, matches!(accusation, Accusation::Silent(_)));
        }
        self.return_these(unit, &how);
    }

    fn fail(&mut self, push: &SentPush, reason: &str, message: &str) {
        self.suspects.acquit(&push.units);
        let message = Some(format!("{message} {UNKNOWN_OUTCOME}"));
        self.return_all(push, How::Fail { reason: reason.into(), message });
    }
}

const UNKNOWN_OUTCOME: &str = "The endpoint gave no verdict, so whether it had an effect is not known.";
const INVALID: Silence = Silence { reason: "invalid_answer", went_out: true, retry_after_ms: None };

/// The plan's units, of what was leased.
fn claimed_units(plan: &Plan, claimed: &ClaimedBatch) -> Vec<Vec<u64>> {
    let leased: BTreeSet<u64> = claimed.sent.iter().map(|sent| sent.sequence).collect();
    let units =
        plan.batch.iter().map(|unit| unit.iter().copied().filter(|sequence| leased.contains(sequence)).collect());
    units.filter(|unit: &Vec<u64>| !unit.is_empty()).collect()
}
