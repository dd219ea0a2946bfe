//! What the app did on one file and what it was told, so that the file can be held against it.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{OperationEvent, OperationStatus, Receipt};

use super::observe::{DeviceState, OperationRow};
use super::{Verdict, hold};

/// The memory of one file; a copy of the file takes a copy of it along.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// What `enqueue` and its like acknowledged, and has not been seen to end.
    acknowledged: BTreeMap<String, Written>,
    /// The user gave these up, or tried to: nothing else may cancel an operation.
    given_up: BTreeSet<String>,
    /// Their conflict was resolved: the payload is another one since.
    resolved: BTreeSet<String>,
    /// Where each operation stands by the events told so far.
    told: BTreeMap<String, OperationStatus>,
    /// Told to have ended, by one of two processes.
    ended: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Written {
    sequence: u64,
    entity_type: String,
    entity_id: String,
    kind: &'static str,
    payload: Option<String>,
    /// As last seen in the file.
    status: OperationStatus,
}

/// An operation that the app asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `create`, `update` or `delete`.
    pub kind: &'static str,
    /// Its entity's type.
    pub entity_type: String,
    /// Its entity's id.
    pub entity_id: String,
    /// As canonical JSON.
    pub payload: Option<String>,
}

impl Journal {
    /// The manager said that it is durable.
    pub fn acknowledge(&mut self, receipt: &Receipt, asked: Asked) {
        if receipt.duplicate {
            return;
        }
        let Asked { kind, entity_type, entity_id, payload } = asked;
        let (sequence, status) = (receipt.sequence, OperationStatus::Pending);
        let written = Written { sequence, entity_type, entity_id, kind, payload, status };
        self.acknowledged.insert(receipt.id.clone(), written);
    }

    /// The user gives up an operation, with all of its transaction.
    pub fn give_up(&mut self, id: &str) {
        self.given_up.insert(id.to_owned());
    }

    /// The user resolves a conflict with a value.
    pub fn resolve(&mut self, id: &str) {
        self.resolved.insert(id.to_owned());
    }

    /// Conservation and durability: what was acknowledged is there, or was seen to end and may be forgotten by now.
    /// `kept`: how many completed operations are kept whatever their age.
    pub(crate) fn check(&mut self, state: &DeviceState, kept: u64) -> Verdict {
        let by_id: BTreeMap<&str, &OperationRow> =
            state.operations.values().map(|row| (row.id.as_str(), row)).collect();
        let survivors: BTreeSet<u64> = state.operations.values().filter_map(|row| row.survivor).collect();
        let resolved = with_groups(state, &self.resolved);
        let mut gone = Vec::new();
        for (id, written) in &mut self.acknowledged {
            let Some(row) = by_id.get(id.as_str()) else {
                let last = self.told.get(id).copied().unwrap_or(written.status);
                hold!(
                    last.has_ended() || self.ended.contains(id),
                    "durability: operation {} was acknowledged, was {last} and is gone",
                    written.sequence
                );
                gone.push((id.clone(), written.sequence, last == OperationStatus::Completed));
                continue;
            };
            written.status = row.status;
            let entity = &state.entities[&row.entity];
            hold!(
                row.sequence == written.sequence
                    && entity.entity_type == written.entity_type
                    && entity.entity_id == written.entity_id,
                "durability: operation {} is about another entity than was acknowledged",
                written.sequence
            );
            let folded = row.survivor.is_some() || survivors.contains(&row.sequence);
            if !folded && !resolved.contains(&row.sequence) {
                hold!(
                    row.kind == written.kind && row.payload == written.payload,
                    "durability: operation {} has another content than was acknowledged",
                    written.sequence
                );
            }
        }
        let completed = state.operations.values().filter(|row| row.status == OperationStatus::Completed).count() as u64;
        for (id, sequence, was_completed) in gone {
            hold!(
                completed >= kept || !was_completed,
                "retention: operation {sequence} was forgotten while only {completed} completed ones are kept"
            );
            self.acknowledged.remove(&id);
        }
        self.check_cancelled(state)
    }

    /// Nothing but the user, a fold or a lost conflict cancels.
    fn check_cancelled(&self, state: &DeviceState) -> Verdict {
        let given_up = with_groups(state, &self.given_up);
        for row in state.operations.values().filter(|row| row.status == OperationStatus::Cancelled) {
            let allowed = match row.reason.as_deref() {
                Some("coalesced") => true,
                Some("user" | "discarded" | "resolved") => given_up.contains(&row.sequence),
                _ => false,
            };
            hold!(allowed, "conservation: operation {} was cancelled ({:?}) by nobody", row.sequence, row.reason);
        }
        Ok(())
    }

    /// An event: it must go on from where the last one left the operation.
    pub(crate) fn tell(&mut self, event: &OperationEvent) -> Verdict {
        let before = self.told.insert(event.id.clone(), event.to);
        hold!(
            before == event.from,
            "events: operation {} was {before:?}, and an event says it left {:?} for {}",
            event.sequence,
            event.from,
            event.to
        );
        hold!(
            event.from != Some(event.to),
            "events: operation {} is told to have changed from {} to the same",
            event.sequence,
            event.to
        );
        Ok(())
    }

    /// An event of one of two processes: in which order these commit, their listeners cannot tell.
    pub(crate) fn hear(&mut self, event: &OperationEvent) {
        self.told.insert(event.id.clone(), event.to);
        if event.to.has_ended() {
            self.ended.insert(event.id.clone());
        }
    }

    /// Every change was told: the events lead to what the file says. Only when no callback is under way.
    pub(crate) fn check_told(&self, state: &DeviceState) -> Verdict {
        for row in state.operations.values() {
            let told = self.told.get(&row.id);
            hold!(
                told == Some(&row.status),
                "events: operation {} is {}, and told was {told:?}",
                row.sequence,
                row.status
            );
        }
        Ok(())
    }

    /// Another process told the events meanwhile, or the one that would have died: goes on from what the file says.
    pub(crate) fn resume(&mut self, state: &DeviceState) {
        self.told = state.operations.values().map(|row| (row.id.clone(), row.status)).collect();
    }
}

/// The sequences of operations and of those in one transaction with them: what a user does takes the whole group.
fn with_groups(state: &DeviceState, ids: &BTreeSet<String>) -> BTreeSet<u64> {
    let named = || state.operations.values().filter(|row| ids.contains(&row.id));
    let groups: BTreeSet<&str> = named().filter_map(|row| row.transaction_id.as_deref()).collect();
    let members = state
        .operations
        .values()
        .filter(|row| row.transaction_id.as_deref().is_some_and(|group| groups.contains(group)));
    named().chain(members).map(|row| row.sequence).collect()
}
