//! A device of the simulator: what the plan may do to it, and the oracle's eyes on it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use syncline_core::environment::Clock;
use syncline_core::{
    NetworkStatus, Operation, OperationEvent, OperationFilter, OperationStatus, Receipt, SignOutMode, SyncManager,
    SynclineError,
};

use super::account::{Account, retention};
use super::coverage::Coverage;
use super::faults::{fault_of, poison};
use super::life::failed;
use super::plan::{DiskCall, Intent, Leave, Setting, Step, Wallet};
use super::situations;
use super::user::{act, asked, operation, write};
use crate::disk::Failure;
use crate::oracle::changes::{Changes, Clock as VectorClock};
use crate::oracle::effects::{ServerView, check_drained};
use crate::oracle::journal::Journal;
use crate::oracle::observe::{DeviceState, OperationRow, base_clock, device_state};
use crate::oracle::queue::Allowances;
use crate::oracle::{Verdict, hold, queue, reasons};
use crate::steps::Started;
use crate::world::{MOVED_TOKEN, TestDevice, World};

/// Explanations looked at after a step, per device: all of them in turn.
const EXPLAINED_AT_ONCE: usize = 3;

/// A device that has nothing else to do looks through what has ended once a minute; under a clock that runs slow, a little later.
pub(super) const LOOKED_THROUGH_WITHIN: Duration = Duration::from_secs(80);

type Events = Arc<Mutex<Vec<OperationEvent>>>;

pub(super) struct Watched {
    pub(super) device: TestDevice,
    /// A second process on the file.
    second: Option<TestDevice>,
    /// Two processes tell events, or callbacks of that time are still under way.
    two_told: bool,
    pub(super) account: Account,
    /// The device of the phone's other user. One of the two is signed out.
    pub(super) partner: Option<usize>,
    signed_out: bool,
    allowed: Allowances,
    /// It dies by a loss of power, once it dies.
    loses_power: bool,
    kept: u64,
    /// What the platform last reported of the network.
    online: bool,
    /// Background processing is on.
    processing: bool,
    journal: Journal,
    changes: Changes,
    /// The file was last held against its changes as it had so many.
    compared: u64,
    events: Events,
    /// Over everything the app was told.
    told: DefaultHasher,
    receipts: Vec<Receipt>,
    calls: Vec<Started<()>>,
    /// The oracle's own connection; it reads.
    file: Option<Connection>,
    state: Option<DeviceState>,
    seen: u64,
    news: bool,
    explained: usize,
    /// The plan did something to it since it was last looked at.
    touched: bool,
    /// What its processes had come to, and the time, when it was last looked at.
    pulse: Pulse,
    /// All events had been told by then, and led to what the file says.
    told_all: bool,
    transitions: Coverage,
}

type Steps = Option<(u64, u64, u64)>;
/// As long as it is the same, no code of the device has run, and no time has passed: whatever it says, it has said before.
type Pulse = (Steps, Steps, i64);

impl Watched {
    pub(super) fn new(device: TestDevice, account: Account, setting: &Setting) -> Result<Self, String> {
        device.credentials.set(Some(account.token()));
        device.network.listen();
        let mut watched = Self {
            device,
            second: None,
            two_told: false,
            account,
            partner: None,
            signed_out: false,
            allowed: Allowances { copied: false, restores: setting.restores },
            loses_power: false,
            // A server that goes back returns what was kept to pending.
            kept: if setting.restores { 0 } else { retention(setting).count },
            online: true,
            processing: false,
            journal: Journal::default(),
            changes: Changes::new(setting.restores),
            compared: 0,
            events: Events::default(),
            told: DefaultHasher::new(),
            receipts: Vec::new(),
            calls: Vec::new(),
            file: None,
            state: None,
            seen: 0,
            news: true,
            explained: 0,
            touched: true,
            pulse: Pulse::default(),
            told_all: false,
            transitions: Coverage::default(),
        };
        watched.opened()?;
        Ok(watched)
    }

    /// The device of a copy of this one's file.
    pub(super) fn copied(&mut self, device: TestDevice, setting: &Setting) -> Result<Self, String> {
        let mut copy = Self::new(device, self.account, setting)?;
        copy.journal = self.journal.clone();
        copy.receipts = self.receipts.clone();
        (self.allowed.copied, copy.allowed.copied) = (true, true);
        self.changes.copied();
        copy.changes.copied();
        copy.read()?;
        copy.journal.resume(copy.state.as_ref().expect("just read"));
        Ok(copy)
    }

    /// Neither signed out nor with a second process.
    pub(super) fn is_alone(&self) -> bool {
        !self.signed_out && self.second.is_none()
    }

    pub(super) fn state(&self) -> &DeviceState {
        self.state.as_ref().expect("every device is looked at when it is opened")
    }

    /// Whether the file was written to since the last [`Watched::looked_at`].
    pub(super) fn is_news(&self) -> bool {
        self.news
    }

    pub(super) fn looked_at(&mut self) {
        self.news = false;
    }

    /// A process was opened on the file.
    fn opened(&mut self) -> Verdict {
        listen(&self.device, &self.events)?;
        self.touched = true;
        self.two_told = self.second.is_some();
        (self.online, self.processing) = (true, false);
        // Recovering a log writes nothing, and may bring back what nobody was told of.
        self.state = None;
        self.read()?;
        self.journal.resume(self.state.as_ref().expect("just read"));
        self.changes.opened();
        Ok(())
    }

    /// Reads the file, if anything has been written to it.
    pub(super) fn read(&mut self) -> Verdict {
        let changes = self.device.changes();
        if self.state.is_some() && changes == self.seen {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(self.device.reader().map_err(storage)?);
        }
        let file = self.file.as_ref().expect("just opened");
        let state = device_state(file).map_err(storage)?;
        if let Some(before) = &self.state {
            situations::files::between(before, &state, &self.transitions);
        }
        self.state = Some(state);
        self.seen = changes;
        (self.news, self.touched) = (true, true);
        Ok(())
    }

    fn pulse(&self) -> Pulse {
        let second = self.second.as_ref().and_then(TestDevice::pulse);
        (self.device.pulse(), second, self.device.clock.now().millis())
    }

    pub(super) fn in_states(&self, statuses: &[OperationStatus]) -> Vec<Operation> {
        let filter = OperationFilter { statuses: statuses.to_vec(), limit: 1_000, ..OperationFilter::default() };
        // A disk that fails lists nothing; the next look does.
        if self.signed_out { Vec::new() } else { self.device.operations(&filter).unwrap_or_default() }
    }

    pub(super) fn give_up(&mut self, id: &str) {
        self.journal.give_up(id);
    }

    pub(super) fn resolve(&mut self, id: &str) {
        self.journal.resolve(id);
    }

    /// It goes again on what the app saw, with all of its transaction.
    pub(super) fn note_resolved(&mut self, id: &str) {
        let state = self.state.as_ref().expect("looked at");
        let Some(row) = state.operations.values().find(|row| row.id == id) else { return };
        let group = |other: &&OperationRow| row.transaction_id.is_some() && other.transaction_id == row.transaction_id;
        self.changes.resolved(id);
        state.operations.values().filter(group).for_each(|member| self.changes.resolved(&member.id));
    }

    /// A call of the app. What is not possible now is refused with that word; a disk that fails, with one of its own, and only
    /// when it did fail.
    pub(super) fn call<T>(
        &mut self,
        second: bool,
        call: impl FnOnce(&TestDevice) -> syncline_core::Result<T>,
    ) -> Result<Option<T>, String> {
        if self.signed_out {
            return Ok(None);
        }
        self.touched = true;
        let device = self.second.as_ref().filter(|_| second).unwrap_or(&self.device);
        let failures = device.disk_failures();
        let result = call(device);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(SynclineError::NotPossible { .. } | SynclineError::Locked | SynclineError::Timeout) => Ok(None),
            Err(SynclineError::Storage { .. }) if device.is_dead() || device.disk_failures() > failures => Ok(None),
            Err(SynclineError::StorageFull) if device.is_dead() || device.is_full() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn take(&mut self, world: &mut World, step: &Step, second: bool) -> Verdict {
        if self.signed_out {
            return Ok(());
        }
        self.touched = true;
        let chosen = self.second.as_ref().filter(|_| second).unwrap_or(&self.device);
        match step {
            Step::Next { fault, .. } => {
                let (fault, name) = fault_of(*fault, &world.server.clock);
                chosen.network.next_counted(fault, name);
            }
            Step::Poison { wall, .. } => poison(&chosen.network, *wall),
            Step::Release { newest, .. } if chosen.network.held() > 0 => {
                situations::held::released(&chosen.network.on_the_way(), *newest, self.state(), &world.coverage);
                if *newest {
                    world.coverage.note("fault", "answers reordered");
                    chosen.network.release_last();
                } else {
                    chosen.network.release();
                }
            }
            Step::Release { .. } => {}
            Step::Credential { wallet, .. } => {
                world.coverage.note("fault", "a token expired");
                self.change_credential(*wallet);
            }
            Step::Kill { after, .. } => self.dies_after(*after, false),
            Step::PowerLoss { after, .. } => self.dies_after(*after, true),
            Step::DiskFails { call, after, .. } => {
                self.changes.be_lenient();
                let call = if *call == DiskCall::Sync { Failure::Sync } else { Failure::Write };
                self.device.fail_disk(call, u64::from(*after));
            }
            Step::DiskFull { on, .. } => {
                self.changes.be_lenient();
                self.device.set_full(*on);
            }
            Step::Jump { seconds, .. } => {
                self.changes.be_lenient();
                world.coverage.note("fault", "a clock jumped");
                chosen.clock.shift(*seconds * 1_000);
            }
            Step::Drift { permille, .. } => {
                self.changes.be_lenient();
                world.coverage.note("fault", "a clock drifts");
                chosen.clock.drift(i64::from(*permille));
            }
            Step::Steal { .. } if self.second.is_some() => {
                self.transitions.note("fault", "a process lock lost");
                self.device.lock.steal();
            }
            Step::Second { on, .. } => return self.second_process(world, *on),
            Step::Update { after, .. } => return self.update(*after),
            Step::SignOut { mode, .. } => return self.leave(world, *mode),
            step => return self.use_app(world, step, second),
        }
        Ok(())
    }

    /// What an app does.
    fn use_app(&mut self, world: &World, step: &Step, second: bool) -> Verdict {
        match step {
            Step::Write { intent, depends, .. } => {
                let after = self.receipts.last().filter(|_| *depends).cloned();
                let receipt = self.call(second, |device| write(device, *intent, after.as_ref()))?;
                self.note_own(receipt.into_iter().collect(), &[*intent])?;
            }
            Step::Keyed { intent, key, .. } => {
                let keyed = operation(*intent).with_key(format!("key-{key}"));
                let receipt = self.call(second, |device| match device.enqueue(keyed) {
                    // The key is another operation's.
                    Err(SynclineError::InvalidOperation { field, .. }) if field == "idempotency_key" => Ok(None),
                    other => other.map(Some),
                })?;
                self.note(receipt.flatten().into_iter().collect(), &[*intent]);
            }
            Step::Import { intents, .. } => {
                let all: Vec<_> = intents.iter().copied().map(operation).collect();
                let receipts = self.call(second, |device| device.enqueue_all(all))?;
                self.note_own(receipts.unwrap_or_default(), intents)?;
            }
            Step::Group { members, now: false, .. } => {
                let receipts = self.call(second, |device| group(device, members))?;
                self.note_own(receipts.unwrap_or_default(), members)?;
            }
            Step::SlowGroup { members, pause, .. } => {
                let pause = || {
                    (0..*pause).for_each(|_| {
                        world.steps.step();
                    });
                };
                let clocks = Mutex::new(Vec::new());
                let file = self.device.reader().map_err(storage)?;
                let asked = |member: &Intent| clocks.lock().push(base_of(&file, *member));
                let receipts = self.call(second, |device| slow_group(device, members, asked, pause))?;
                let receipts = receipts.unwrap_or_default();
                let clocks = clocks.into_inner().into_iter().collect::<rusqlite::Result<Vec<_>>>().map_err(storage)?;
                let written: Vec<_> = receipts.iter().map(|receipt| receipt.sequence).zip(clocks).collect();
                self.note_own(receipts, members)?;
                written.into_iter().for_each(|(sequence, clock)| self.changes.enqueued(sequence, Some(clock)));
            }
            Step::Group { members, now: true, .. } => {
                let manager = self.manager(second);
                let members: Vec<_> = members.iter().copied().map(operation).collect();
                self.calls.push(world.start(commit_now(manager, members)));
            }
            Step::Act { action, which, .. } => act(self, second, *action, usize::from(*which))?,
            Step::Process { .. } => {
                let manager = self.manager(second);
                self.calls.push(world.start(async move { drop(manager.process_queue().await) }));
            }
            Step::Window { seconds, .. } => {
                let (manager, deadline) = (self.manager(second), Duration::from_secs(u64::from(*seconds)));
                self.calls.push(world.start(async move { drop(manager.run_background(deadline).await) }));
            }
            Step::Background { on, .. } => {
                let first = !second || self.second.is_none();
                let done = self.call(second, |device| if *on { device.start() } else { device.stop() })?;
                if first && done.is_some() {
                    self.processing = *on;
                }
            }
            Step::Online { on, .. } => {
                let status = if *on { NetworkStatus::Online { metered: false } } else { NetworkStatus::Offline };
                let first = !second || self.second.is_none();
                if self.call(second, |device| device.network_changed(status))?.is_some() && first {
                    self.online = *on;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn manager(&self, second: bool) -> SyncManager {
        self.second.as_ref().filter(|_| second).unwrap_or(&self.device).manager()
    }

    /// What was written under no key of the app's own is never the same as something before.
    fn note_own(&mut self, receipts: Vec<Receipt>, intents: &[Intent]) -> Verdict {
        for receipt in &receipts {
            hold!(!receipt.duplicate, "keys: operation {} has the key of an earlier one", receipt.sequence);
        }
        self.note(receipts, intents);
        Ok(())
    }

    fn note(&mut self, receipts: Vec<Receipt>, intents: &[Intent]) {
        for receipt in receipts.iter().filter(|receipt| !receipt.duplicate) {
            self.changes.enqueued(receipt.sequence, None);
        }
        for (receipt, intent) in receipts.iter().zip(intents) {
            self.journal.acknowledge(receipt, asked(*intent));
        }
        self.receipts.extend(receipts);
    }

    fn change_credential(&self, wallet: Wallet) {
        let (good, credentials) = (self.account.token(), &self.device.credentials);
        match wallet {
            Wallet::Stale => {
                credentials.set(Some("an expired token"));
                credentials.set_fresh(good);
            }
            Wallet::Expired => credentials.set(Some("an expired token")),
            Wallet::Moved => credentials.set(Some(MOVED_TOKEN)),
            Wallet::Broken => credentials.fail("the sign-in service does not answer"),
            Wallet::Good => credentials.set(Some(good)),
        }
    }

    fn dies_after(&mut self, after: u8, power: bool) {
        self.loses_power |= power;
        self.device.die_after(u64::from(after));
    }

    /// If the process has died, it is started again; on a phone without power, after that has come back.
    pub(super) fn revive(&mut self) -> Verdict {
        if self.signed_out || !self.device.is_dead() {
            return Ok(());
        }
        self.file = None;
        self.calls.clear();
        if std::mem::take(&mut self.loses_power) {
            if let Some(mut second) = self.second.take() {
                second.kill();
            }
            self.device.lose_power();
            self.transitions.note("fault", "power lost");
        } else {
            self.device.kill();
            self.transitions.note("fault", "a process died");
        }
        self.events.lock().clear();
        self.reopen()
    }

    /// A disk that fails may refuse; once it no longer does, the file opens.
    fn reopen(&mut self) -> Verdict {
        for _ in 0..3 {
            let failures = self.device.disk_failures();
            match self.device.open() {
                Ok(()) => return self.opened(),
                Err(SynclineError::Storage { .. }) if self.device.disk_failures() > failures => {}
                Err(SynclineError::StorageFull) if self.device.is_full() => self.device.set_full(false),
                Err(error) => return Err(failed(error)),
            }
        }
        self.device.open().map_err(failed)?;
        self.opened()
    }

    fn second_process(&mut self, world: &mut World, on: bool) -> Verdict {
        match (on, self.second.take()) {
            (true, None) if !self.device.is_dead() => {
                let second = world.try_process(&self.device, "second");
                if let Ok(second) = second {
                    listen(&second, &self.events)?;
                    self.transitions.note("fault", "two processes on one file");
                    (self.second, self.two_told) = (Some(second), true);
                }
            }
            (false, Some(mut second)) => second.kill(),
            (_, second) => self.second = second,
        }
        Ok(())
    }

    /// Another version of the app opens the file, and may die of it.
    fn update(&mut self, after: u8) -> Verdict {
        if let Some(mut second) = self.second.take() {
            second.kill();
        }
        self.transitions.note("fault", "the app updated");
        self.file = None;
        self.calls.clear();
        self.device.kill();
        self.events.lock().clear();
        self.device.dies_after_opening(u64::from(after));
        let failures = self.device.disk_failures();
        match self.device.open() {
            Ok(()) => self.opened(),
            Err(_) if self.device.is_dead() || self.device.is_full() || self.device.disk_failures() > failures => {
                self.transitions.note("fault", "an opening interrupted");
                self.reopen()
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn sign_out(&mut self, world: &World) -> Verdict {
        self.leave_with(world, SignOutMode::Keep)?;
        self.signed_out = true;
        Ok(())
    }

    /// Signs out, and in again.
    fn leave(&mut self, world: &World, mode: Leave) -> Verdict {
        if self.second.is_some() {
            return Ok(());
        }
        self.transitions.note("fault", "a user signed out");
        let mode = match mode {
            Leave::Flush => SignOutMode::Flush(Duration::from_secs(10)),
            Leave::Keep => SignOutMode::Keep,
            Leave::Discard => {
                // What the app has begun to write is written by then.
                world.run_until_idle();
                self.read()?;
                let state = self.state.as_ref().expect("just read");
                let open: Vec<String> =
                    state.operations.values().filter(|row| row.is_unsettled()).map(|row| row.id.clone()).collect();
                open.iter().for_each(|id| self.journal.give_up(id));
                SignOutMode::Discard
            }
        };
        self.leave_with(world, mode)?;
        self.sign_in()
    }

    fn leave_with(&mut self, world: &World, mode: SignOutMode) -> Verdict {
        let manager = self.device.manager();
        let left = world.start(async move { manager.sign_out(mode).await });
        world.run_until_idle();
        if left.take().is_none() {
            world.advance(Duration::from_secs(11));
        }
        self.calls.clear();
        self.touched = true;
        self.check_events(!world.steps.has_callbacks() && !self.device.is_dead())?;
        self.file = None;
        self.device.kill();
        Ok(())
    }

    pub(super) fn sign_in(&mut self) -> Verdict {
        self.signed_out = false;
        self.events.lock().clear();
        self.reopen()
    }

    /// No more trouble.
    pub(super) fn heal(&mut self) -> Verdict {
        if let Some(mut second) = self.second.take() {
            second.network.heal();
            second.network.release_all();
            second.kill();
        }
        self.device.heal_disk();
        self.loses_power = false;
        self.device.network.heal_single();
        self.device.credentials.set(Some(self.account.token()));
        if self.signed_out { self.sign_in() } else { Ok(()) }
    }

    /// It is processed, and the platform has a network. Nothing else wakes what waits: its time comes by itself.
    pub(super) fn is_used(&mut self) -> Verdict {
        if !std::mem::replace(&mut self.online, true) {
            self.device.network_changed(NetworkStatus::Online { metered: false }).map_err(failed)?;
        }
        if !std::mem::replace(&mut self.processing, true) {
            self.device.start().map_err(failed)?;
        }
        Ok(())
    }

    /// Something on the way, or the endpoint, dislikes one payload, and everything else has gone.
    pub(super) fn has_wall(&self) -> bool {
        self.device.network.is_scripted()
    }

    /// Time passes, in which nothing happens.
    pub(super) fn sleep(&mut self, ms: i64) {
        self.device.clock.shift(ms);
        self.changes.slept();
    }

    /// What ended long ago is gone, where little is kept.
    pub(super) fn check_forgotten(&self, setting: &Setting) -> Verdict {
        let kept = retention(setting);
        let age_ms = i64::try_from((kept.age + LOOKED_THROUGH_WITHIN).as_millis()).unwrap_or(i64::MAX);
        queue::forgotten(self.state(), self.device.clock.now().millis(), age_ms, kept.count)
    }

    /// Invariants 4 and 11.
    pub(super) fn has_drained(&self) -> Verdict {
        let wall = self.has_wall();
        let poisoned = |row: &OperationRow| {
            let holds = |text: &str| text.contains(r#""poison""#);
            wall && (holds(&row.before) || row.payload.as_deref().is_some_and(holds))
        };
        check_drained(self.state(), poisoned)
    }

    /// The same, once it had time enough.
    pub(super) fn check_drained(&self) -> Verdict {
        self.has_drained()?;
        if self.has_wall() { Ok(()) } else { self.check_no_moment_has_passed() }
    }

    fn check_events(&mut self, told_all: bool) -> Verdict {
        self.told_all &= !self.touched;
        let events = std::mem::take(&mut *self.events.lock());
        format!("{events:?}").hash(&mut self.told);
        if self.two_told {
            events.iter().for_each(|event| self.journal.hear(event));
            self.read()?;
            if told_all && self.second.is_none() {
                self.two_told = false;
                self.journal.resume(self.state.as_ref().expect("read"));
            }
            return Ok(());
        }
        for event in &events {
            let from = event.from.map_or("new", OperationStatus::as_str);
            self.transitions.note("transition", format!("{from} → {}", event.to));
            self.journal.tell(event)?;
        }
        self.read()?;
        if told_all && !self.told_all {
            self.journal.check_told(self.state.as_ref().expect("read"))?;
            self.told_all = true;
        }
        Ok(())
    }

    /// Everything that can be said of this device alone.
    pub(super) fn check(&mut self, told_all: bool) -> Verdict {
        if self.signed_out {
            return Ok(());
        }
        let pulse = self.pulse();
        self.touched |= std::mem::replace(&mut self.pulse, pulse) != pulse;
        self.read()?;
        self.check_events(told_all)?;
        if self.news {
            let state = self.state.as_ref().expect("read");
            queue::check(state, self.allowed)?;
            self.journal.check(state, self.kept)?;
        }
        let wire = self.device.network.take_wire();
        if std::mem::replace(&mut self.compared, self.seen) != self.seen || !wire.is_empty() {
            self.changes.check(self.state.as_ref().expect("read"), wire)?;
        }
        if self.touched { self.check_words() } else { Ok(()) }
    }

    /// What it says of itself is so.
    fn check_words(&mut self) -> Verdict {
        let now = self.device.clock.now().millis();
        let said = self.call(false, |device| device.metrics())?;
        self.touched = false;
        let Some(said) = said else { return Ok(()) };
        let state = self.state.as_ref().expect("read");
        queue::metrics(state, &said, now)?;
        let unsettled: Vec<_> = state.operations.values().filter(|row| row.is_unsettled()).collect();
        let file = reasons::File::new(state, now);
        self.explained += 1;
        for _ in 0..EXPLAINED_AT_ONCE.min(unsettled.len()) {
            self.explained += 1;
            let row = unsettled[self.explained % unsettled.len()];
            let told = self.device.explain(&row.id).map_err(failed)?;
            reasons::check(&file, row, &said.state, &told)?;
            self.transitions.note("reason", told.waiting.as_str());
            if let Some(until) = told.until {
                hold!(until.millis() > now, "explain: operation {} waits until a moment that has passed", row.sequence);
            }
        }
        self.check_folded(state)
    }

    /// What was folded away leads to what it was folded into; one of them after each look, all in turn.
    fn check_folded(&self, state: &DeviceState) -> Verdict {
        let survivor_of = |row: &OperationRow| state.operations.get(&row.survivor?);
        let folded: Vec<_> = state.operations.values().filter_map(|row| Some((row, survivor_of(row)?))).collect();
        let Some((row, survivor)) = folded.get(self.explained % folded.len().max(1)) else { return Ok(()) };
        let told = self.device.explain(&row.id).map_err(failed)?;
        hold!(
            survivor.survivor.is_some() || told.operation_id == survivor.id,
            "explain: operation {} was folded into {}, and does not lead to it",
            row.sequence,
            survivor.sequence
        );
        Ok(())
    }

    /// How long the endpoint has asked the device, or an operation, to wait yet.
    pub(super) fn told_to_wait(&self) -> Duration {
        let now = self.device.clock.now().millis();
        let of_operations = self.state().operations.values().filter_map(|row| row.next_attempt_at).max();
        let until = of_operations.max(self.state().device.retry_after_until).unwrap_or(now);
        Duration::from_millis(u64::try_from(until - now).unwrap_or(0))
    }

    pub(super) fn check_effects(&self, server: &ServerView<'_>) -> Verdict {
        server.check_effects(self.state(), self.device.shared_through(), self.allowed.copied)
    }

    /// Once the `until` of an explanation has passed with no new fault, its reason is gone.
    pub(super) fn check_no_moment_has_passed(&self) -> Verdict {
        let now = self.device.clock.now();
        for row in self.state().operations.values().filter(|row| row.is_unsettled()) {
            let told = self.device.explain(&row.id).map_err(failed)?;
            let over = told.until.is_some_and(|until| until < now);
            hold!(
                !over,
                "explain: operation {} waits until a moment that has passed, and nothing is wrong",
                row.sequence
            );
        }
        Ok(())
    }

    pub(super) fn hash_events(&self, hash: &mut DefaultHasher) {
        self.told.finish().hash(hash);
    }

    /// Adds what happened here to the table.
    pub(super) fn count(&self, coverage: &Coverage) {
        for ((kind, name), count) in self.transitions.counts() {
            coverage.add(kind, name, count);
        }
        self.device.count_disk(coverage);
    }
}

fn listen(device: &TestDevice, events: &Events) -> Verdict {
    let events = Arc::clone(events);
    device.add_operation_listener(move |event| events.lock().push(event)).map(drop).map_err(failed)
}

fn storage(error: rusqlite::Error) -> String {
    format!("storage: the file cannot be read: {error}")
}

fn group(device: &TestDevice, members: &[Intent]) -> syncline_core::Result<Vec<Receipt>> {
    slow_group(device, members, |_| (), || ())
}

/// As [`group`], with time between the members; `asked` hears of each before it is added.
fn slow_group(
    device: &TestDevice,
    members: &[Intent],
    asked: impl Fn(&Intent),
    pause: impl Fn(),
) -> syncline_core::Result<Vec<Receipt>> {
    let mut transaction = device.begin_transaction()?;
    for member in members {
        asked(member);
        transaction.add(operation(*member))?;
        pause();
    }
    transaction.commit_queued()
}

fn base_of(file: &Connection, intent: Intent) -> rusqlite::Result<VectorClock> {
    let asked = asked(intent);
    base_clock(file, &asked.entity_type, &asked.entity_id)
}

async fn commit_now(manager: SyncManager, members: Vec<syncline_core::NewOperation>) {
    let Ok(mut transaction) = manager.begin_transaction() else { return };
    for member in members {
        if transaction.add(member).is_err() {
            return;
        }
    }
    drop(transaction.commit_now(Duration::from_secs(30)).await);
}
