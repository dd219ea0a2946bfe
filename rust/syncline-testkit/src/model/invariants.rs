//! What must hold after each push whatever the rules said (spec §9): a look at the model itself, from another side.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::push::Decided;
use super::request::Push;
use super::values::same;
use super::{Lane, Model};

impl Model {
    pub(super) fn check(&self, push: &Push, decided: &Decided, head_before: u64) -> Result<(), String> {
        self.check_versions(push, decided, head_before)?;
        self.check_order(push)?;
        check_transactions(push, decided)?;
        decided.outcomes.iter().filter_map(|outcome| outcome.conflict.as_ref()).try_for_each(check_conflict)
    }

    /// §6: "a scope's versions are dense": one to each entity that the push changed, and none left over.
    fn check_versions(&self, push: &Push, decided: &Decided, head_before: u64) -> Result<(), String> {
        let scope = &self.scopes[&push.head.scope];
        let versions = decided.lanes.iter().filter_map(|lane| scope.entities.get(lane)).map(|entity| entity.version);
        let new: BTreeSet<u64> = versions.filter(|version| *version > head_before).collect();
        if new.iter().copied().eq(head_before + 1..=scope.head) {
            return Ok(());
        }
        Err(format!("versions: the head went from {head_before} to {}, the entities to {new:?}", scope.head))
    }

    /// But for devices that share an id.
    fn check_order(&self, push: &Push) -> Result<(), String> {
        let device = &push.head.device_id;
        if self.heard.shared.contains(device) {
            return Ok(());
        }
        let own = self.effects.iter().filter(|it| it.device_id == *device && it.scope == push.head.scope);
        check_order(own.map(|effect| (device.as_str(), &effect.lane, effect.sequence)))
    }
}

/// Invariant 3: the server applies a lane of a device in sequence order. `effects`: device, lane and sequence, as they came.
pub(crate) fn check_order<'a>(effects: impl Iterator<Item = (&'a str, &'a Lane, u64)>) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for (device, lane, sequence) in effects {
        if last.insert((device, lane), sequence).is_some_and(|earlier| earlier >= sequence) {
            return Err(format!("order: {device} {sequence} of {lane:?} was applied after a later one"));
        }
    }
    Ok(())
}

/// Invariant 6: of the members that this push decided, all took effect or none.
fn check_transactions(push: &Push, decided: &Decided) -> Result<(), String> {
    let mut effects: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for (operation, outcome) in push.operations.iter().zip(&decided.outcomes).filter(|(_, outcome)| outcome.is_new) {
        if let Some(id) = &operation.transaction_id {
            effects.entry(id).or_default().insert(outcome.has_effect());
        }
    }
    match effects.iter().find(|(_, effects)| effects.len() > 1) {
        Some((id, _)) => Err(format!("atomicity: only a part of transaction {id} took effect")),
        None => Ok(()),
    }
}

/// Invariant 7: "every conflict is in the ledger, with both values": two that differ, or a deletion on one side.
pub(crate) fn check_conflict(conflict: &Value) -> Result<(), String> {
    let has_deletion = conflict["operation"] == "delete" || conflict["their_deleted"] == true;
    let fields = conflict["fields"].as_object().ok_or("audit: a conflict without fields")?;
    match fields.iter().find(|(_, field)| same(&field["ours"], &field["theirs"])) {
        Some((name, _)) if !has_deletion => Err(format!("audit: the conflict about {name} has one value twice")),
        _ if fields.is_empty() && !has_deletion => Err("audit: a conflict about nothing".to_owned()),
        _ => Ok(()),
    }
}
