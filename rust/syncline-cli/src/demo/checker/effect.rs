use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::files::{Operation, Stored};
use super::{Check, DeviceFile, ServerFile};

/// Every completed operation was decided by the endpoint, once, as what it is.
pub(super) fn exactly_once(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for row in server.applied() {
        *times.entry(&row.operation_id).or_default() += 1;
    }
    let (mut completed, mut good) = (0, 0);
    for (device, operation) in each(devices, "completed") {
        completed += 1;
        let before = breaches.len();
        match server.decision(&operation.key) {
            Some(row) if row.applied() => {
                if row.operation_id != operation.id || row.entity != operation.entity || row.kind != operation.kind {
                    breaches.push(format!("{device}: operation {} is another one on the server", operation.name()));
                } else if (&row.device_id, row.sequence) != (&operation.dot.0, operation.dot.1) {
                    breaches.push(format!("{device}: operation {} has another place on the server", operation.name()));
                }
            }
            Some(row) => breaches.push(format!(
                "{device}: operation {} is completed, but the server's verdict is {}",
                operation.name(),
                row.verdict
            )),
            None => breaches.push(format!(
                "{device}: operation {} is completed, but the server never decided it: it is lost",
                operation.name()
            )),
        }
        let applied = times.get(operation.id.as_str()).copied().unwrap_or(0);
        if applied > 1 {
            breaches.push(format!("{device}: operation {} was applied {applied} times", operation.name()));
        }
        good += usize::from(breaches.len() == before);
    }
    Check {
        promise: "every completed operation on the server exactly once",
        figure: format!("{} of {}", thousands(good), thousands(completed)),
        breaches,
    }
}

/// What failed, conflicts or was cancelled has no effect, and nothing has effect that no device knows of.
pub(super) fn no_stray_effect(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    let applied: BTreeSet<&str> = server.applied().map(|row| row.operation_id.as_str()).collect();
    let mut without = 0;
    for status in ["failed", "conflicted", "cancelled"] {
        for (device, operation) in each(devices, status) {
            without += 1;
            if applied.contains(operation.id.as_str()) {
                breaches
                    .push(format!("{device}: operation {} is {status}, yet the server applied it", operation.name()));
            }
        }
    }
    breaches.extend(devices.iter().flat_map(folded_into_nothing));
    let known: BTreeSet<&str> =
        devices.iter().flat_map(|device| &device.operations).map(|operation| operation.id.as_str()).collect();
    let pruned = devices.iter().any(|device| device.enqueued() != device.operations.len() as u64);
    for row in server.applied().filter(|row| !pruned && !known.contains(row.operation_id.as_str())) {
        let (kind, (entity_type, entity_id)) = (&row.kind, &row.entity);
        breaches
            .push(format!("the server applied {kind} {entity_type} {entity_id} of an operation that no device has"));
    }
    Check {
        promise: "no failed, conflicted or cancelled one has effect",
        figure: format!("{} without", thousands(without)),
        breaches,
    }
}

/// Operations that were folded into one that is not there, or is about another entity.
fn folded_into_nothing(device: &DeviceFile) -> Vec<String> {
    let entities: HashMap<u64, _> =
        device.operations.iter().map(|operation| (operation.sequence, &operation.entity)).collect();
    let lost = device.operations.iter().filter(|operation| {
        operation
            .survivor
            .is_some_and(|survivor| entities.get(&survivor).is_none_or(|entity| **entity != operation.entity))
    });
    lost.map(|operation| format!("{}: operation {} was folded into none of its lane", device.name, operation.name()))
        .collect()
}

/// Every value on the server is what the operation wrote that is said to have set it, and each completed write either stands
/// or was followed by a later one or lost in the ledger.
pub(super) fn values(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    let by_dot: HashMap<(&str, u64), &Operation> = devices
        .iter()
        .flat_map(|device| device.with_status("completed"))
        .map(|operation| ((operation.dot.0.as_str(), operation.dot.1), operation))
        .collect();
    let mut checked = 0;
    for ((entity_type, entity_id), entity) in server.entities.iter().filter(|(_, entity)| !entity.deleted) {
        for (field, value) in entity.record.as_object().into_iter().flatten() {
            let (device, sequence) = setter(entity, field);
            let written = by_dot.get(&(device.as_str(), *sequence)).and_then(|operation| operation.payload.as_ref());
            checked += 1;
            if written.is_none_or(|payload| payload[field] != *value) {
                breaches
                    .push(format!("{entity_type} {entity_id}: its {field} on the server is not what its author wrote"));
            }
        }
    }
    for (device, operation) in each(devices, "completed") {
        breaches.extend(overwritten_unseen(device, operation, server));
    }
    Check {
        promise: "every value on the server as its author wrote it",
        figure: format!("{} values", thousands(checked)),
        breaches,
    }
}

/// A field of a completed write whose place is held by an earlier write of the same device.
fn overwritten_unseen(device: &str, operation: &Operation, server: &ServerFile) -> Option<String> {
    let entity = server.entities.get(&operation.entity).filter(|entity| !entity.deleted)?;
    let payload = operation.payload.as_ref().and_then(Value::as_object)?;
    let lost_in_ledger = server.conflicts.values().any(|conflict| conflict.operation_id == operation.id);
    let stale = payload.iter().find(|(field, value)| {
        let (setter, sequence) = setter(entity, field);
        !value.is_null() && *setter == operation.dot.0 && *sequence < operation.dot.1
    });
    stale.filter(|_| !lost_in_ledger).map(|(field, _)| {
        format!("{device}: operation {} is completed, but its {field} has no effect on the server", operation.name())
    })
}

fn setter<'a>(entity: &'a Stored, field: &str) -> &'a (String, u64) {
    entity.set_by.get(field).unwrap_or(&entity.created_by)
}

/// The operations in a state, each with its device's name.
fn each<'a>(devices: &'a [DeviceFile], status: &'a str) -> impl Iterator<Item = (&'a str, &'a Operation)> {
    devices.iter().flat_map(move |device| device.with_status(status).map(|operation| (device.name.as_str(), operation)))
}

/// A number with separators.
pub(super) fn thousands(number: usize) -> String {
    crate::output::thousands(number as u64)
}

/// The rows of a map by group.
pub(super) fn group<K: Ord, V>(rows: impl Iterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, row) in rows {
        groups.entry(key).or_default().push(row);
    }
    groups
}
