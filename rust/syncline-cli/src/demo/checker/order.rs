use std::collections::HashMap;

use super::effect::{group, thousands};
use super::{Check, DeviceFile, ServerFile};

/// Within a lane the server applied in sequence order, and what was to wait for another came after it.
pub(super) fn lanes(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    let names: HashMap<&str, &str> =
        devices.iter().map(|device| (device.device_id.as_str(), device.name.as_str())).collect();
    let lanes = group(server.applied().map(|row| ((&row.device_id, &row.entity), row)));
    for ((device_id, (entity_type, entity_id)), rows) in &lanes {
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].sequence >= pair[1].sequence) {
            let device = names.get(device_id.as_str()).copied().unwrap_or("an unknown device");
            breaches.push(format!(
                "{device}: the server applied #{} of {entity_type} {entity_id} before #{}: the lane's order is broken",
                pair[0].sequence, pair[1].sequence
            ));
        }
    }
    for device in devices {
        breaches.extend(dependencies(device, server));
    }
    Check {
        promise: "each lane applied in the order of its sequences",
        figure: format!("{} lanes", thousands(lanes.len())),
        breaches,
    }
}

fn dependencies(device: &DeviceFile, server: &ServerFile) -> Vec<String> {
    let place: HashMap<u64, i64> = device
        .with_status("completed")
        .filter_map(|operation| Some((operation.sequence, server.decision(&operation.key)?.place)))
        .collect();
    let early =
        device.dependencies.iter().filter(|(operation, earlier)| match (place.get(operation), place.get(earlier)) {
            (Some(own), Some(other)) => own < other,
            _ => false,
        });
    early
        .map(|(operation, earlier)| {
            format!("{}: #{operation} was applied before #{earlier}, which it depends on", device.name)
        })
        .collect()
}

/// Of a transaction all members were applied, or none.
pub(super) fn transactions(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let mut breaches = Vec::new();
    let mut seen = 0;
    for device in devices {
        let members =
            device.operations.iter().filter_map(|operation| Some((operation.transaction.as_deref()?, operation)));
        for members in group(members).values() {
            seen += 1;
            let applied =
                members.iter().filter(|operation| server.decision(&operation.key).is_some_and(|row| row.applied()));
            let applied = applied.count();
            if applied != 0 && applied != members.len() {
                let (name, first, all) = (&device.name, members[0].name(), members.len());
                breaches.push(format!(
                    "{name}: of the transaction from {first} on, {applied} of {all} members were applied"
                ));
            }
        }
    }
    Check {
        promise: "of each transaction all or nothing",
        figure: format!("{} transactions", thousands(seen)),
        breaches,
    }
}
