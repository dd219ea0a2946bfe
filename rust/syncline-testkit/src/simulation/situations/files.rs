//! Situations that a device's file shows: what it held before and holds now.

use serde_json::Value;
use syncline_core::OperationStatus;

use super::note;
use crate::oracle::changes::clock_of;
use crate::oracle::observe::{DeviceState, EntityRow, OperationRow};
use crate::simulation::coverage::Coverage;

/// Milliseconds that a write is ahead of its clock, to be more than one of many at once.
const AHEAD_MS: i64 = 1_000;

/// What came about between two looks at a file.
pub(in crate::simulation) fn between(before: &DeviceState, after: &DeviceState, coverage: &Coverage) {
    for row in after.operations.values() {
        match before.operations.get(&row.sequence) {
            None => written(before, after, row, coverage),
            Some(was) if was != row => changed(before, after, was, row, coverage),
            Some(_) => {}
        }
    }
    let gone = before.operations.values().filter(|row| !after.operations.contains_key(&row.sequence));
    for _ in gone.filter(|row| row.status == OperationStatus::Cancelled) {
        note(coverage, 39);
    }
    for (entity, row) in &after.entities {
        if let Some(was) = before.entities.get(entity).filter(|was| *was != row) {
            reset(before, after, was, row, coverage);
        }
    }
    for entry in &after.ledger {
        let was = before.ledger.iter().find(|was| was.id == entry.id);
        if let Some(resolution) = entry.resolution.as_deref().filter(|_| was.is_some_and(|it| it.resolution.is_none()))
        {
            coverage.note("rule", format!("7: resolved, {resolution}"));
        }
        if entry.reopened_by.is_some() && was.is_some_and(|was| was.reopened_by.is_none()) {
            coverage.note("rule", "7: reopened");
        }
    }
}

/// A new row of the queue.
fn written(before: &DeviceState, after: &DeviceState, row: &OperationRow, coverage: &Coverage) {
    let waits = |it: &OperationRow| it.status == OperationStatus::Pending && !it.claimed && it.transaction_id.is_none();
    let mut lane = after.operations.range(..row.sequence).rev().map(|(_, it)| it).filter(|it| it.entity == row.entity);
    let entity = &after.entities[&row.entity];
    if let Some(ahead) = lane.clone().next() {
        // As it was when this one was written: the two may have folded since.
        let ahead_was = before.operations.get(&ahead.sequence).unwrap_or(ahead);
        let is_cancelled = ahead_was.status == OperationStatus::Cancelled;
        let by_user = is_cancelled && ahead_was.reason.as_deref() == Some("user");
        if by_user && ahead.kind == "create" && row.kind == "update" {
            note(coverage, 1);
        }
        if is_cancelled && !ahead.claimed {
            note(coverage, 38);
        }
        if waits(ahead_was) && row.transaction_id.is_none() {
            if ahead.base_clock != row.base_clock {
                note(coverage, 5);
            }
            if ahead.kind == "create" && row.kind == "delete" && entity.base.is_some() {
                note(coverage, 6);
            }
            let mut depends_on = after.dependencies.range((row.sequence, 0)..(row.sequence + 1, 0));
            if depends_on.any(|(_, on)| after.dependencies.contains(&(*on, ahead.sequence))) {
                note(coverage, 7);
            }
        }
    }
    let is_same =
        |it: &OperationRow| (&it.kind, &it.payload, it.enqueued_at) == (&row.kind, &row.payload, row.enqueued_at);
    if lane.clone().any(is_same) {
        note(coverage, 24);
    }
    if lane.any(|it| it.void) {
        note(coverage, 9);
    }
    if row.timestamp > row.enqueued_at + AHEAD_MS {
        let own = after.operations.range(..row.sequence).map(|(_, it)| it.timestamp).max();
        note(coverage, if own.is_some_and(|own| row.timestamp <= own + 1) { 35 } else { 26 });
    }
    if row.transaction_id.is_some() && row.base_clock != entity.base_clock {
        note(coverage, 32);
    }
}

/// A row of the queue that was there.
fn changed(before: &DeviceState, after: &DeviceState, was: &OperationRow, row: &OperationRow, coverage: &Coverage) {
    use OperationStatus::{Cancelled, Completed, Conflicted, Failed, InProgress, Pending};
    let conflict = || after.ledger.iter().rev().find(|entry| entry.operation_id == row.id);
    if row.void && !was.void && was.status == InProgress {
        note(coverage, 8);
    }
    if row.status == Completed && row.open && was.status != Completed {
        note(coverage, 3);
    }
    if row.key_try > was.key_try && was.status == Failed {
        if was.decided {
            note(coverage, 10);
        }
        if row.transaction_id.is_some() && conflict().is_some() {
            note(coverage, 22);
        }
    }
    if row.status == Cancelled && was.status != Cancelled && row.transaction_id.is_some() && row.survivor.is_none() {
        note(coverage, 23);
    }
    if was.status == Conflicted && row.status == Pending {
        let seen: Option<Value> = conflict().and_then(|entry| serde_json::from_str(&entry.conflict).ok());
        let base = before.entities.get(&row.entity).map(|it| it.base_clock.clone());
        if seen.map(|seen| clock_of(&seen["their_clock"])) != base {
            note(coverage, 31);
        }
        if was.kind == "update" && row.kind == "create" {
            coverage.note("rule", "7: an update resolved against a deletion");
        }
    }
}

/// An entity whose row changed: a reset may be under way.
fn reset(before: &DeviceState, after: &DeviceState, was: &EntityRow, row: &EntityRow, coverage: &Coverage) {
    let was_unconfirmed = was.base.is_some() && !was.base_confirmed;
    if was_unconfirmed && row.base.is_some() && row.base_confirmed && row.base_version < was.base_version {
        note(coverage, 29);
    }
    let is_over = before.device.reset && !after.device.reset;
    if is_over && was.base.is_some() && row.base.is_none() && row.open_operations > 0 {
        note(coverage, 4);
    }
}
