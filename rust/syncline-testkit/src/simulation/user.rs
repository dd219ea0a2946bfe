//! What the app and its user do on a device, told to the journal.

use syncline_core::{NewOperation, Operation, OperationStatus, Receipt, Resolution};

use super::life::TYPES;
use super::plan::{Action, Intent, Kind};
use super::watched::Watched;
use crate::oracle::Verdict;
use crate::oracle::journal::Asked;
use crate::world::TestDevice;

pub(super) fn operation(intent: Intent) -> NewOperation {
    let entity_type = TYPES[usize::from(intent.entity_type) % TYPES.len()];
    let entity_id = format!("e{}", intent.entity);
    match intent.kind {
        Kind::Create => NewOperation::create(entity_type, entity_id, intent.payload()),
        Kind::Update => NewOperation::update(entity_type, entity_id, intent.payload()),
        Kind::Delete => NewOperation::delete(entity_type, entity_id),
    }
}

pub(super) fn asked(intent: Intent) -> Asked {
    let entity_type = TYPES[usize::from(intent.entity_type) % TYPES.len()].to_owned();
    let (kind, payload) = match intent.kind {
        Kind::Create => ("create", Some(intent.payload())),
        Kind::Update => ("update", Some(intent.payload())),
        Kind::Delete => ("delete", None),
    };
    Asked { kind, entity_type, entity_id: format!("e{}", intent.entity), payload }
}

/// A write that depends on an earlier one, if that is still there to wait for.
pub(super) fn write(device: &TestDevice, intent: Intent, after: Option<&Receipt>) -> syncline_core::Result<Receipt> {
    let alone = operation(intent);
    match after {
        // What was cancelled meanwhile is nothing to wait for, and refused.
        Some(earlier) => match device.enqueue(alone.clone().after(earlier)) {
            Err(syncline_core::SynclineError::InvalidOperation { .. }) => device.enqueue(alone),
            other => other,
        },
        None => device.enqueue(alone),
    }
}

/// The user picks something that the action is for.
pub(super) fn act(watched: &mut Watched, second: bool, action: Action, which: usize) -> Verdict {
    use OperationStatus::{Conflicted, Failed, InProgress, Pending};
    if action == Action::Reopen {
        let Some(ledger) = watched.call(second, |device| device.conflicts(false, 100))? else { return Ok(()) };
        if !ledger.is_empty() {
            // A conflict that is still to be resolved cannot be reopened, nor one where nothing lost.
            let id = ledger[which % ledger.len()].conflict.id.clone();
            watched.call(second, |device| device.reopen_conflict(&id))?;
        }
        return Ok(());
    }
    let statuses: &[OperationStatus] = match action {
        Action::Cancel => &[Pending, InProgress],
        Action::Retry => &[Failed],
        Action::Discard => &[Failed, Conflicted],
        _ => &[Conflicted],
    };
    let found = watched.in_states(statuses);
    if found.is_empty() {
        return Ok(());
    }
    let id = found[which % found.len()].id.clone();
    take(watched, second, action, &id)
}

/// Calls what the action is. A group may be half under way: then it is refused, as it must be.
fn take(watched: &mut Watched, second: bool, action: Action, id: &str) -> Verdict {
    // Noted before: a call that fails may have done it all the same.
    match action {
        Action::Cancel | Action::Discard | Action::TakeRemote => watched.give_up(id),
        Action::Merged | Action::TakeLocal | Action::Retry => watched.resolve(id),
        Action::Reopen => {}
    }
    let done = watched.call(second, |device| match action {
        Action::Cancel => device.cancel(id),
        Action::Retry => device.retry(id),
        Action::Discard => device.discard(id),
        Action::TakeLocal => device.resolve_conflict(id, Resolution::TakeLocal),
        Action::TakeRemote => device.resolve_conflict(id, Resolution::TakeRemote),
        Action::Merged | Action::Reopen => {
            device.resolve_conflict(id, Resolution::Merged(r#"{"f0":4,"f1":4}"#.to_owned()))
        }
    });
    if done?.is_some() && matches!(action, Action::Merged | Action::TakeLocal | Action::Retry) {
        watched.note_resolved(id);
    }
    Ok(())
}

/// What a user does in the end about an operation that failed or conflicts; a decision about a group's other member has decided.
pub(super) fn decide(watched: &mut Watched, operation: &Operation, patient: bool) -> Verdict {
    let action = match (operation.status, operation.sequence % 3) {
        (OperationStatus::Failed, _) if patient => Action::Retry,
        (OperationStatus::Failed, _) => Action::Discard,
        (_, 0) if patient => Action::TakeLocal,
        (_, 1) if patient => Action::Merged,
        _ => Action::TakeRemote,
    };
    take(watched, false, action, &operation.id)
}
