//! The oracle's look at a device after each step, and in the end.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use syncline_core::OperationStatus;
use syncline_core::environment::Clock;

use super::{LOOKED_THROUGH_WITHIN, Watched};
use crate::oracle::effects::{ServerView, check_drained};
use crate::oracle::observe::{DeviceState, OperationRow};
use crate::oracle::{Verdict, hold, queue, reasons};
use crate::simulation::account::retention;
use crate::simulation::coverage::Coverage;
use crate::simulation::life::failed;
use crate::simulation::plan::Setting;

/// Explanations looked at after a step, per device: all of them in turn.
const EXPLAINED_AT_ONCE: usize = 3;

impl Watched {
    /// Something on the way, or the endpoint, dislikes one payload, and everything else has gone.
    pub(in crate::simulation) fn has_wall(&self) -> bool {
        self.device.network.is_scripted()
    }

    /// Time passes, in which nothing happens.
    pub(in crate::simulation) fn sleep(&mut self, ms: i64) {
        self.device.clock.shift(ms);
        self.changes.slept();
    }

    /// What ended long ago is gone, where little is kept.
    pub(in crate::simulation) fn check_forgotten(&self, setting: &Setting) -> Verdict {
        let kept = retention(setting);
        let age_ms = i64::try_from((kept.age + LOOKED_THROUGH_WITHIN).as_millis()).unwrap_or(i64::MAX);
        queue::forgotten(self.state(), self.device.clock.now().millis(), age_ms, kept.count)
    }

    /// Invariants 4 and 11.
    pub(in crate::simulation) fn has_drained(&self) -> Verdict {
        let wall = self.has_wall();
        let poisoned = |row: &OperationRow| {
            let holds = |text: &str| text.contains(r#""poison""#);
            wall && (holds(&row.before) || row.payload.as_deref().is_some_and(holds))
        };
        check_drained(self.state(), poisoned)
    }

    /// The same, once it had time enough.
    pub(in crate::simulation) fn check_drained(&self) -> Verdict {
        self.has_drained()?;
        if self.has_wall() { Ok(()) } else { self.check_no_moment_has_passed() }
    }

    pub(super) fn check_events(&mut self, told_all: bool) -> Verdict {
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
    pub(in crate::simulation) fn check(&mut self, told_all: bool) -> Verdict {
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
            let now = self.device.clock.now().millis();
            self.changes.check(self.state.as_ref().expect("read"), wire, now)?;
        }
        if self.touched { self.check_words() } else { Ok(()) }
    }

    /// What it says of itself is so.
    pub(super) fn check_words(&mut self) -> Verdict {
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
    pub(super) fn check_folded(&self, state: &DeviceState) -> Verdict {
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
    pub(in crate::simulation) fn told_to_wait(&self) -> Duration {
        let now = self.device.clock.now().millis();
        let of_operations = self.state().operations.values().filter_map(|row| row.next_attempt_at).max();
        let until = of_operations.max(self.state().device.retry_after_until).unwrap_or(now);
        Duration::from_millis(u64::try_from(until - now).unwrap_or(0))
    }

    pub(in crate::simulation) fn check_effects(&self, server: &ServerView<'_>) -> Verdict {
        server.check_effects(self.state(), self.device.shared_through(), self.allowed.copied)
    }

    /// Once the `until` of an explanation has passed with no new fault, its reason is gone.
    pub(in crate::simulation) fn check_no_moment_has_passed(&self) -> Verdict {
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

    pub(in crate::simulation) fn hash_events(&self, hash: &mut DefaultHasher) {
        self.told.finish().hash(hash);
    }

    /// Adds what happened here to the table.
    pub(in crate::simulation) fn count(&self, coverage: &Coverage) {
        for ((kind, name), count) in self.transitions.counts() {
            coverage.add(kind, name, count);
        }
        self.device.count_disk(coverage);
    }
}
