use std::collections::BTreeSet;

use super::effect::thousands;
use super::{Check, DeviceFile, ServerFile};

/// Every conflict is in both ledgers, with both values.
pub(super) fn check(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    for device in devices {
        for (id, ours) in &device.conflicts {
            let (entity_type, entity_id) = &ours.entity;
            match server.conflicts.get(id) {
                None => breaches.push(format!(
                    "{}: its conflict on {entity_type} {entity_id} is not in the server's ledger",
                    device.name
                )),
                Some(theirs) => {
                    if ["rule", "result", "their_clock"].iter().any(|part| ours.object[part] != theirs.object[part])
                        || values(&ours.object) != values(&theirs.object)
                    {
                        breaches.push(format!(
                            "{}: its conflict on {entity_type} {entity_id} reads otherwise in the server's ledger",
                            device.name
                        ));
                    }
                }
            }
        }
    }
    let on_devices: BTreeSet<&String> = devices.iter().flat_map(|device| device.conflicts.keys()).collect();
    for (id, conflict) in &server.conflicts {
        let (entity_type, entity_id) = &conflict.entity;
        if !on_devices.contains(id) {
            breaches.push(format!("the server's conflict on {entity_type} {entity_id} is in no device's ledger"));
        }
        if values(&conflict.object).is_empty() {
            breaches.push(format!("the conflict on {entity_type} {entity_id} names no value"));
        }
    }
    for row in server.decided.iter().filter(|row| row.verdict == "conflict" || row.conflict_id.is_some()) {
        if row.conflict_id.as_ref().is_none_or(|id| !server.conflicts.contains_key(id)) {
            let (entity_type, entity_id) = &row.entity;
            breaches.push(format!("a conflict on {entity_type} {entity_id} was decided without a row in the ledger"));
        }
    }
    Check {
        promise: "every conflict in both ledgers, with both values",
        figure: thousands(server.conflicts.len()),
        breaches,
    }
}

/// Per field the two values and the winner.
fn values(conflict: &serde_json::Value) -> Vec<(&String, [&serde_json::Value; 3])> {
    let fields = conflict["fields"].as_object().into_iter().flatten();
    fields.map(|(field, sides)| (field, [&sides["ours"], &sides["theirs"], &sides["winner"]])).collect()
}
