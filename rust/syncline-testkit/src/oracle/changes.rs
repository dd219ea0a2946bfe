//! What may change in one device's file from one look to the next, given what its processes sent and heard in between: nobody
//! settles, charges, moves or forgets anything of his own accord (spec §2 to §4, §6).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_core::OperationStatus::{Cancelled, Completed, Conflicted, Failed, InProgress, Pending};

use super::observe::{DeviceState, EntityRow, OperationRow};
use super::wire::{Memory, Wire};
use super::{Verdict, hold};

/// A vector clock, or a part of one.
pub(crate) type Clock = BTreeMap<String, u64>;

/// What the file was at the last look, and what was heard since the world began.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    memory: Memory,
    before: Option<DeviceState>,
    /// Requests that had been sent by then and were not answered.
    sent_before: BTreeSet<u64>,
    /// Every timestamp that this file gave is at most this.
    given: i64,
    /// Every timestamp that it has seen is at most this.
    seen: i64,
    /// Dots of operations that were applied, by entity, also of those that are pruned.
    applied: BTreeMap<i64, BTreeSet<(String, u64)>>,
    /// Operations enqueued since the last look, and the clocks that they must have taken; none: the base's as it stands.
    enqueued: BTreeMap<u64, Option<Clock>>,
    /// The app resolved these conflicts since the last look.
    resolved: BTreeSet<String>,
    /// A process was opened since the last look.
    opened: bool,
    /// The server goes back in time in this world.
    restores: bool,
    /// There is a copy of the file.
    copied: bool,
}

impl Changes {
    pub(crate) fn new(restores: bool) -> Self {
        let mut memory = Memory::default();
        if restores {
            memory.be_lenient();
        }
        Self {
            memory,
            before: None,
            sent_before: BTreeSet::new(),
            given: i64::MIN,
            seen: i64::MIN,
            applied: BTreeMap::new(),
            enqueued: BTreeMap::new(),
            resolved: BTreeSet::new(),
            opened: false,
            restores,
            copied: false,
        }
    }

    /// There is a copy of the file from now on.
    pub(crate) fn copied(&mut self) {
        self.copied = true;
        self.memory.be_lenient();
    }

    /// Its clock or its disk cannot be relied upon any more.
    pub(crate) fn be_lenient(&mut self) {
        self.memory.be_lenient();
    }

    /// Days have passed: no wait lasts as long.
    pub(crate) fn slept(&mut self) {
        self.memory.may_speak();
    }

    /// A process was opened on the file: of what the one before heard, it knows what that has stored.
    pub(crate) fn opened(&mut self) {
        self.opened = true;
    }

    /// An operation was enqueued; `clock`: that of its entity's base when it was asked for, if that was not just now.
    pub(crate) fn enqueued(&mut self, sequence: u64, clock: Option<Clock>) {
        self.enqueued.insert(sequence, clock);
    }

    /// A conflict was resolved in favour of a value of this device, or a transaction that met one is tried again.
    pub(crate) fn resolved(&mut self, id: &str) {
        self.resolved.insert(id.to_owned());
    }

    /// The file as it is now, by the device's clock, and what went over the wire since the last look.
    pub(crate) fn check(&mut self, state: &DeviceState, wire: Vec<Wire>, now_ms: i64) -> Verdict {
        for wire in wire {
            self.memory.take(wire)?;
        }
        let waits = state.device.retry_after_until.is_some_and(|until| until > now_ms);
        if std::mem::take(&mut self.opened) && !waits {
            self.memory.may_speak();
        }
        // From here on verdicts of an older term are dropped, and so are answers to requests sent under another epoch. What was
        // heard since the last look may have come before that.
        let goes_on = |before: &DeviceState| {
            before.device.term == state.device.term
                && (before.device.epoch.is_none() || before.device.epoch == state.device.epoch)
        };
        if !self.before.as_ref().is_none_or(goes_on) {
            self.memory.out_of_date(&self.sent_before);
        }
        self.note_applied(state);
        if let Some(before) = self.before.take() {
            let last = |state: &DeviceState| state.operations.last_key_value().map_or(0, |(last, _)| *last);
            if last(state) < last(&before) {
                // What a failing disk refused, and showed all the same, a loss of power has taken.
                self.given = i64::MIN;
            }
            self.times(&before, state)?;
            self.standing(&before, state)?;
            for (sequence, row) in &state.operations {
                match before.operations.get(sequence) {
                    Some(old) => self.operation(old, row, state)?,
                    None => self.new_operation(row, &before, state)?,
                }
            }
            for (entity, row) in &state.entities {
                if let Some(old) = before.entities.get(entity) {
                    self.base(old, row, &before, state)?;
                }
            }
            self.sent_clocks(&before, state)?;
        }
        self.given = state.operations.values().map(|row| row.timestamp).fold(self.given, i64::max);
        if let Some(seen) = self.memory.page(state.device.cursor.as_deref()).and_then(|page| page.latest) {
            self.seen = self.seen.max(seen);
        }
        self.memory.look(state.device.cursor.as_deref());
        self.sent_before = self.memory.open();
        self.enqueued.clear();
        self.resolved.clear();
        self.before = Some(state.clone());
        Ok(())
    }

    fn note_applied(&mut self, state: &DeviceState) {
        for row in state.operations.values() {
            if let Some(dot) = &row.dot {
                self.applied.entry(row.entity).or_default().insert(dot.clone());
            }
        }
    }

    /// Spec §4: at least 1 ms after every `changed_at` seen and every timestamp that this device gave.
    fn times(&self, before: &DeviceState, state: &DeviceState) -> Verdict {
        let last = before.operations.last_key_value().map_or(0, |(last, _)| *last);
        let mut latest = self.given.max(self.seen);
        // What was folded away since gave its timestamp to an earlier one.
        let newer: BTreeSet<u64> = state.operations.values().filter_map(|row| row.survivor).collect();
        for (sequence, row) in state.operations.range(last + 1..).filter(|(sequence, _)| !newer.contains(*sequence)) {
            hold!(
                row.timestamp > latest,
                "timestamps: operation {sequence} is stamped {} ms before what its device had seen or given",
                latest - row.timestamp + 1
            );
            latest = row.timestamp;
        }
        Ok(())
    }

    /// The cursor is one that an answer to a request with the cursor before it gave.
    fn standing(&self, before: &DeviceState, state: &DeviceState) -> Verdict {
        hold!(
            self.memory.may_hold(state.device.cursor.as_deref()),
            "cursor: the file went from version {} to {} by an answer to a request that did not carry its cursor",
            before.device.cursor_version,
            state.device.cursor_version
        );
        // A page and its cursor are stored together.
        if let Some(page) = self.memory.page(state.device.cursor.as_deref())
            && before.device.cursor != state.device.cursor
        {
            let bases: BTreeMap<(&str, &str), u64> = state
                .entities
                .values()
                .map(|row| ((row.entity_type.as_str(), row.entity_id.as_str()), row.base_version))
                .collect();
            for (entity_type, id, version) in &page.changes {
                let base = bases.get(&(entity_type.as_str(), id.as_str())).copied().unwrap_or(0);
                hold!(
                    base >= *version,
                    "page: the file has the cursor of a page that brought {id} at version {version}, and holds version {base}"
                );
            }
        }
        Ok(())
    }

    fn operation(&mut self, old: &OperationRow, row: &OperationRow, state: &DeviceState) -> Verdict {
        self.verdict(old, row)?;
        self.attempts(old, row)?;
        self.base_clock(old, row, state)
    }

    /// Nothing ends, fails or conflicts unless an answer said so; and nothing that has ended begins again.
    fn verdict(&mut self, old: &OperationRow, row: &OperationRow) -> Verdict {
        let sequence = row.sequence;
        if old.status == Completed {
            hold!(
                row.status == Completed || self.restores,
                "history: operation {sequence} was completed and is {}, and the server never went back",
                row.status
            );
        }
        if old.status == row.status {
            return Ok(());
        }
        let heard = self.memory.about(&row.id);
        let needs = match row.status {
            Completed => Some("completed"),
            Conflicted => Some("conflicted"),
            Failed if row.decided => Some("failed"),
            // It may have left the device: only the server can say that it has no effect.
            Cancelled if old.claimed && !old.decided && row.survivor.is_none() && old.status != Conflicted => {
                Some("cancelled")
            }
            _ => None,
        };
        if let Some(decision) = needs {
            hold!(
                heard.decisions.contains(decision),
                "verdict: operation {sequence} is {}, and no answer that holds said so",
                row.status
            );
            heard.decisions.clear();
        }
        let told = matches!(row.reason.as_deref(), Some("transaction_failed" | "dependency_cancelled"));
        if row.status == Failed && !row.decided && !told && row.attempts <= old.attempts {
            let blamed = heard.charges > 0 || heard.too_large;
            hold!(
                blamed,
                "blame: operation {sequence} failed ({:?}), and no empty push has shown that it is to blame",
                row.reason
            );
            heard.charges = heard.charges.saturating_sub(1);
        }
        Ok(())
    }

    /// Spec §2, what counts as an attempt. A user's retry starts anew.
    fn attempts(&mut self, old: &OperationRow, row: &OperationRow) -> Verdict {
        let anew = old.status == Failed && matches!(row.status, Pending | InProgress) && !row.void;
        let from = if anew { 0 } else { old.attempts };
        if row.attempts <= from {
            return Ok(());
        }
        let charged = row.attempts - from;
        let heard = self.memory.about(&row.id);
        hold!(
            charged <= heard.charges,
            "attempts: operation {} has {} instead of {}, and {} may have been charged",
            row.sequence,
            row.attempts,
            from,
            heard.charges
        );
        heard.charges -= charged;
        Ok(())
    }

    /// Spec §4: the stored clock changes only by resolving, and then by what the app saw.
    fn base_clock(&self, old: &OperationRow, row: &OperationRow, state: &DeviceState) -> Verdict {
        let entity = &state.entities[&row.entity];
        let ledger = state
            .ledger
            .iter()
            .filter(|entry| entry.entity_type == entity.entity_type && entry.entity_id == entity.entity_id);
        if self.resolved.contains(&row.id) && matches!(old.status, Conflicted | Failed) && row.status == Pending {
            let met = ledger.clone().rfind(|entry| entry.operation_id == row.id);
            let conflicted = old.status == Conflicted || old.reason.as_deref() == Some("conflict");
            if let Some(entry) = met.filter(|_| conflicted) {
                let theirs = clock_of(&their_clock(&entry.conflict));
                hold!(
                    covers(&row.base_clock, &theirs),
                    "clocks: operation {} is sent again without the clock that the app saw",
                    row.sequence
                );
            }
        }
        if row.base_clock == old.base_clock {
            return Ok(());
        }
        let mut allowed = old.base_clock.clone();
        for entry in ledger {
            merge(&mut allowed, &clock_of(&their_clock(&entry.conflict)));
        }
        hold!(
            covers(&allowed, &row.base_clock),
            "clocks: operation {} claims to have seen {:?}, and the app saw {allowed:?}",
            row.sequence,
            row.base_clock
        );
        Ok(())
    }

    /// What was enqueued since the last look.
    fn new_operation(&mut self, row: &OperationRow, before: &DeviceState, state: &DeviceState) -> Verdict {
        if let Some(survivor) = row.survivor {
            if let Some(older) = before.operations.get(&survivor) {
                hold!(
                    older.status == Pending && !older.claimed,
                    "fold: operation {} was folded into {survivor}, which was {} and may have left the device",
                    row.sequence,
                    older.status
                );
            }
            if let Some(older) = state.operations.get(&survivor) {
                hold!(
                    older.base_clock == row.base_clock,
                    "fold: operations {} and {survivor} had not seen the same, and were folded",
                    row.sequence
                );
            }
        }
        let entity = &state.entities[&row.entity];
        let vanished = row.status == Cancelled && row.reason.as_deref() == Some("coalesced") && row.kind == "delete";
        hold!(
            !vanished || row.survivor.is_some() || (entity.base_version == 0 && entity.base_clock.is_empty()),
            "fold: a create and its delete vanished although the server knows {}",
            entity.entity_id
        );
        let Some(expected) = self.enqueued.get(&row.sequence) else { return Ok(()) };
        let expected = expected.as_ref().unwrap_or(&entity.base_clock);
        hold!(
            row.base_clock == *expected,
            "clocks: operation {} was written on {expected:?}, and claims {:?}",
            row.sequence,
            row.base_clock
        );
        Ok(())
    }

    /// Spec §3: a base is replaced only by a higher version, unless a reset has made it unconfirmed.
    fn base(&self, old: &EntityRow, row: &EntityRow, before: &DeviceState, state: &DeviceState) -> Verdict {
        let reset = before.device.reset
            || state.device.reset
            || self.memory.was_reset()
            || before.device.epoch != state.device.epoch;
        hold!(
            row.base_version >= old.base_version || reset,
            "base: {} went back from version {} to {}",
            row.entity_id,
            old.base_version,
            row.base_version
        );
        Ok(())
    }

    /// Spec §4: to its stored clock each claim adds the dots of the lane's earlier operations that were applied, or go before it in
    /// the same batch, and no other.
    fn sent_clocks(&self, before: &DeviceState, state: &DeviceState) -> Verdict {
        let by_id = |state: &DeviceState| -> BTreeMap<String, OperationRow> {
            state.operations.values().map(|row| (row.id.clone(), row.clone())).collect()
        };
        if self.memory.clocks().is_empty() {
            return Ok(());
        }
        let (old, new) = (by_id(before), by_id(state));
        for sent in self.memory.clocks() {
            let Some(row) = new.get(&sent.id) else { continue };
            let mut stored = row.base_clock.clone();
            if let Some(old) = old.get(&sent.id) {
                merge(&mut stored, &old.base_clock);
            }
            let applied = self.applied.get(&row.entity);
            for (device, sequence) in &sent.clock {
                let dot = (device.clone(), *sequence);
                let known = stored.get(device).is_some_and(|seen| seen >= sequence)
                    || sent.before.contains(&dot)
                    || applied.is_some_and(|applied| applied.contains(&dot))
                    // Completed and forgotten since the last look.
                    || self.memory.was_applied(&sent.entity, &dot);
                hold!(
                    known || self.copied,
                    "clocks: operation {} was sent as if it had seen {dot:?}, which was not applied",
                    row.sequence
                );
            }
        }
        Ok(())
    }
}

fn their_clock(conflict: &str) -> Value {
    let conflict: Value = serde_json::from_str(conflict).expect("ledger rows are JSON");
    conflict["their_clock"].clone()
}

/// The clock that a JSON object is.
pub(crate) fn clock_of(value: &Value) -> Clock {
    let members = value.as_object().into_iter().flatten();
    members.filter_map(|(device, sequence)| Some((device.clone(), sequence.as_u64()?))).collect()
}

fn covers(clock: &Clock, other: &Clock) -> bool {
    other.iter().all(|(device, sequence)| clock.get(device).is_some_and(|seen| seen >= sequence))
}

fn merge(clock: &mut Clock, other: &Clock) {
    for (device, sequence) in other {
        let seen = clock.entry(device.clone()).or_default();
        *seen = (*seen).max(*sequence);
    }
}
