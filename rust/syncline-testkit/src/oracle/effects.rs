//! What the devices' files and the endpoint's must show together: invariants 2, 5, 6, 7 and 11. The model sees to the order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use syncline_core::OperationStatus;

use super::observe::{DeviceState, LedgerRow, OperationRow, record};
use super::{Verdict, hold};
use crate::model::{ServerScope, ServerState};

/// What the endpoint's file holds of one scope, ready to be asked about operations.
pub(crate) struct ServerView<'a> {
    scope: &'a ServerScope,
    /// Keys under which an operation took effect.
    by_operation: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> ServerView<'a> {
    /// Of a scope; none before its first request.
    pub(crate) fn of(state: &'a ServerState, scope: &str) -> Option<Self> {
        let scope = state.scopes.get(scope)?;
        let mut by_operation: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, stored) in scope.operations.iter().filter(|(_, stored)| has_effect(&stored.verdict)) {
            by_operation.entry(&stored.operation_id).or_default().push(key);
        }
        Some(Self { scope, by_operation })
    }

    /// Whether the device knows the server's present history; until it has heard of another one, the two cannot be compared.
    fn is_history_of(&self, device: &DeviceState) -> bool {
        let row = &device.device;
        let mark = self.scope.devices.get(&row.device_id).map_or(0, |device| device.mark);
        row.epoch.as_ref() == Some(&self.scope.epoch) && row.mark <= mark
    }

    /// There is nothing that could not be compared.
    pub(crate) fn check_history(&self, device: &DeviceState) -> Verdict {
        hold!(self.is_history_of(device), "history: it does not know the server's");
        Ok(())
    }

    /// Invariant 2, with no device asked: also of operations that a device has forgotten. `shared`: what is in the file of a copy
    /// as well.
    pub(crate) fn check_once(&self, shared: &BTreeSet<&str>) -> Verdict {
        match self.by_operation.iter().find(|(id, keys)| keys.len() > 1 && !shared.contains(*id)) {
            Some((id, keys)) => Err(format!("effect: operation {id} was applied {} times", keys.len())),
            None => Ok(()),
        }
    }

    fn applied_by_id(&self, row: &OperationRow) -> usize {
        self.by_operation.get(row.id.as_str()).map_or(0, Vec::len)
    }

    /// By its id; else by its key: what two copies of a file write within one millisecond has one key, and so has what an app
    /// writes on two devices under a key of its own. One effect is enough, of its last try or of the one before: the other
    /// may be somebody else's.
    fn effects(&self, device: &DeviceState, row: &OperationRow) -> usize {
        let by_id = self.applied_by_id(row);
        if by_id > 0 {
            return by_id;
        }
        let entity = &device.entities[&row.entity];
        let again = format!("{}#{}", row.key, row.key_try);
        let mut stored = [&again, &row.key].into_iter().filter_map(|key| self.scope.operations.get(key));
        let same = |lane: &(String, String)| lane.0 == entity.entity_type && lane.1 == entity.entity_id;
        usize::from(stored.any(|stored| has_effect(&stored.verdict) && same(&stored.lane)))
    }

    /// Invariants 2, 6 and 7. Operations up to `shared_through` are in the file of a copy as well: "an intent that one copy
    /// cancelled, folded further or retried may arrive from the other copy as well".
    pub(crate) fn check_effects(&self, device: &DeviceState, shared_through: u64, copied: bool) -> Verdict {
        if !self.is_history_of(device) {
            return Ok(());
        }
        let owned = || device.operations.range(shared_through + 1..).map(|(_, row)| row);
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for row in owned() {
            let by_id = self.applied_by_id(row);
            let effects = if row.status == OperationStatus::Completed { self.effects(device, row) } else { by_id };
            let expected = match row.status {
                OperationStatus::Completed => effects == 1,
                OperationStatus::Cancelled => effects == 0,
                OperationStatus::Failed | OperationStatus::Conflicted => effects == 0 || !row.decided,
                OperationStatus::Pending | OperationStatus::InProgress => effects <= 1,
            };
            hold!(expected, "effect: operation {} is {}, and was applied {effects} times", row.sequence, row.status);
            if let Some(id) = row.transaction_id.as_deref().filter(|_| row.survivor.is_none()) {
                let (members, applied) = groups.entry(id).or_default();
                *members += 1;
                *applied += usize::from(by_id > 0);
            }
        }
        for (members, applied) in groups.values() {
            hold!(
                copied || *applied == 0 || applied == members,
                "atomicity: the server applied {applied} of the {members} members of a transaction"
            );
        }
        self.check_ledger(device, shared_through)
    }

    /// Invariant 7: what the server recorded is in the device's ledger, with the same values, and with `base`.
    fn check_ledger(&self, device: &DeviceState, shared_through: u64) -> Verdict {
        let rows: BTreeMap<&str, &OperationRow> =
            device.operations.values().map(|row| (row.id.as_str(), row)).collect();
        let ledger: BTreeMap<&str, &LedgerRow> = device.ledger.iter().map(|row| (row.id.as_str(), row)).collect();
        for (id, theirs) in &self.scope.conflicts {
            let operation_id = theirs["operation_id"].as_str().unwrap_or_default();
            let Some(row) = rows.get(operation_id).filter(|row| row.sequence > shared_through) else { continue };
            let settled = matches!(row.status, OperationStatus::Completed | OperationStatus::Conflicted)
                || (row.status == OperationStatus::Failed && row.decided);
            if !settled {
                continue;
            }
            let Some(mine) = ledger.get(id.as_str()) else {
                return Err(format!("audit: the conflict of operation {} is not in its device's ledger", row.sequence));
            };
            let mut mine: Value = serde_json::from_str(&mine.conflict).expect("ledger rows are JSON");
            let mut theirs = theirs.clone();
            let fields = theirs["fields"].as_object().into_iter().flatten();
            let told: BTreeSet<String> =
                fields.filter(|(_, field)| !field["base"].is_null()).map(|(name, _)| name.clone()).collect();
            forget_base(&mut mine, &told);
            forget_base(&mut theirs, &told);
            hold!(mine == theirs, "audit: the ledgers differ about operation {}: {mine} and {theirs}", row.sequence);
        }
        Ok(())
    }

    /// Invariant 5.
    pub(crate) fn check_converged(&self, device: &DeviceState) -> Verdict {
        let waiting = device.operations.values().filter(|row| row.is_unsettled()).count();
        hold!(waiting == 0, "convergence: {waiting} operations still wait");
        let wanted =
            |entity_type: &String| device.device.entity_types.as_ref().is_none_or(|types| types.contains(entity_type));
        let here: Live = device
            .entities
            .values()
            .filter(|row| wanted(&row.entity_type))
            .filter_map(|row| {
                let value = record(row.current.as_deref()?);
                Some(((row.entity_type.clone(), row.entity_id.clone()), value))
            })
            .collect();
        let there: Live = self
            .scope
            .entities
            .iter()
            .filter(|((entity_type, _), entity)| wanted(entity_type) && entity.deleted_by.is_none())
            .map(|(lane, entity)| (lane.clone(), entity.payload.as_object().cloned().unwrap_or_default()))
            .collect();
        for (entity, value) in &there {
            let mine = here.get(entity);
            hold!(mine == Some(value), "convergence: {entity:?} is {value:?} on the server and {mine:?} here");
        }
        let more = here.keys().find(|entity| !there.contains_key(entity));
        hold!(more.is_none(), "convergence: {more:?} is here and not on the server");
        Ok(())
    }
}

type Live = BTreeMap<(String, String), Map<String, Value>>;

pub(crate) fn has_effect(verdict: &str) -> bool {
    matches!(verdict, "applied" | "merged")
}

/// The device knows `base` where the server was not told.
fn forget_base(conflict: &mut Value, told: &BTreeSet<String>) {
    for (name, field) in conflict["fields"].as_object_mut().into_iter().flatten() {
        if let Some(field) = field.as_object_mut().filter(|_| !told.contains(name)) {
            field.remove("base");
        }
    }
}

/// Invariants 4 and 11: what still waits has one that failed or conflicts before it in its lane, among its dependencies or in its
/// group, or one that something refuses: `refused` says which.
pub(crate) fn check_drained(device: &DeviceState, refused: impl Fn(&OperationRow) -> bool) -> Verdict {
    let troubled = |row: &OperationRow| {
        matches!(row.status, OperationStatus::Failed | OperationStatus::Conflicted)
            || (row.is_waiting() && refused(row))
    };
    let mut blocked: BTreeSet<u64> =
        device.operations.values().filter(|row| troubled(row)).map(|row| row.sequence).collect();
    loop {
        let more: BTreeSet<u64> = device
            .operations
            .values()
            .filter(|row| row.is_waiting() && !blocked.contains(&row.sequence))
            .filter(|row| {
                blocked.iter().filter_map(|sequence| device.operations.get(sequence)).any(|other| {
                    (other.entity == row.entity && other.sequence < row.sequence)
                        || (row.transaction_id.is_some() && row.transaction_id == other.transaction_id)
                        || depends_on(device, row.sequence, other.sequence)
                })
            })
            .map(|row| row.sequence)
            .collect();
        if more.is_empty() {
            break;
        }
        blocked.extend(more);
    }
    let stuck: Vec<u64> = device
        .operations
        .values()
        .filter(|row| row.is_waiting() && !blocked.contains(&row.sequence))
        .map(|row| row.sequence)
        .collect();
    let rule =
        if device.operations.values().any(|row| row.is_waiting() && refused(row)) { "isolation" } else { "liveness" };
    hold!(stuck.is_empty(), "{rule}: nothing stands in the way of operations {stuck:?}, and they wait");
    Ok(())
}

/// On it, or on one that was folded into it.
fn depends_on(device: &DeviceState, sequence: u64, other: u64) -> bool {
    device.dependencies.range((sequence, 0)..(sequence + 1, 0)).any(|(_, earlier)| {
        *earlier == other || device.operations.get(earlier).is_some_and(|folded| folded.survivor == Some(other))
    })
}
