//! What the endpoint's file must show by itself, where nobody has listened to what it answered (spec §4, §6, §9).

use std::collections::{BTreeMap, BTreeSet};

use super::effects::has_effect;
use super::{Verdict, hold};
use crate::model::{Lane, ServerEntity, ServerScope, ServerState, StoredWrite, check_conflict, check_order};
use crate::server_state::StoredEffect;

/// `effects`: in the order in which they were committed. `shared`: device ids that more than one file has used, whose lanes have
/// no order.
pub(crate) fn check(state: &ServerState, effects: &[StoredEffect], shared: &BTreeSet<String>) -> Verdict {
    for (name, scope) in &state.scopes {
        let here = effects.iter().filter(|effect| effect.scope == *name && !shared.contains(&effect.device_id));
        check_order(here.map(|effect| (effect.device_id.as_str(), &effect.lane, effect.sequence)))?;
        versions(scope)?;
        dots(scope)?;
        ledger(scope)?;
    }
    Ok(())
}

/// Each entity has a version of its own, and none is above the head.
fn versions(scope: &ServerScope) -> Verdict {
    let mut seen = BTreeSet::new();
    for (lane, entity) in &scope.entities {
        let version = entity.version;
        hold!((1..=scope.head).contains(&version), "versions: {lane:?} has {version}, and the head is {}", scope.head);
        hold!(seen.insert(version), "versions: {lane:?} has {version}, as another entity does");
    }
    Ok(())
}

/// A record's clock has the dots of what stands in it and no other, and whatever stands in it was applied.
fn dots(scope: &ServerScope) -> Verdict {
    let applied: BTreeSet<(&str, u64, &Lane)> = scope
        .operations
        .values()
        .filter(|stored| has_effect(&stored.verdict))
        .map(|stored| (stored.device_id.as_str(), stored.sequence, &stored.lane))
        .collect();
    for (lane, entity) in &scope.entities {
        let mut clock = BTreeMap::new();
        for (device, sequence, _) in writes(entity) {
            let highest = clock.entry(device.clone()).or_default();
            *highest = u64::max(*highest, *sequence);
            let may_be_forgotten = scope.devices.get(device).is_none_or(|it| it.forgotten_through >= *sequence);
            hold!(
                may_be_forgotten || applied.contains(&(device, *sequence, lane)),
                "effect: ({device}, {sequence}) stands in {lane:?} and was not applied to it"
            );
        }
        hold!(clock == entity.clock, "clock: {lane:?} has {:?}, and its dots come to {clock:?}", entity.clock);
    }
    Ok(())
}

fn writes(entity: &ServerEntity) -> impl Iterator<Item = &StoredWrite> {
    entity.fields.values().chain([&entity.created_by]).chain(&entity.deleted_by)
}

/// Invariant 7: every conflict is in the ledger, with both values.
fn ledger(scope: &ServerScope) -> Verdict {
    scope.conflicts.values().try_for_each(check_conflict)?;
    let named = scope.operations.values().filter_map(|stored| Some((stored.conflict_id.as_ref()?, stored)));
    let named: BTreeMap<_, _> = named.collect();
    for (id, stored) in &named {
        let about = scope.conflicts.get(*id).map(|conflict| &conflict["operation_id"]);
        hold!(
            about.is_some_and(|about| *about == stored.operation_id),
            "audit: the conflict of operation {} is not in the server's ledger",
            stored.operation_id
        );
    }
    let silent = scope.operations.values().find(|stored| stored.verdict == "conflict" && stored.conflict_id.is_none());
    hold!(silent.is_none(), "audit: operation {} conflicts, with nothing", silent.map_or("", |it| &it.operation_id));
    Ok(())
}
