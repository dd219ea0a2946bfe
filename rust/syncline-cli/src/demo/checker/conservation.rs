use std::collections::BTreeSet;

use super::{Check, DeviceFile};

/// Nothing that was acknowledged is gone, and every operation is in exactly one state.
pub(super) fn check(devices: &[DeviceFile], acknowledged: &[&BTreeSet<String>]) -> Check {
    let per_device: Vec<Vec<String>> =
        devices.iter().zip(acknowledged).map(|(device, ids)| device_breaches(device, ids)).collect();
    let kept = per_device.iter().filter(|breaches| breaches.is_empty()).count();
    Check {
        promise: "enqueued = completed + pending + in progress + failed + conflicted + cancelled",
        figure: format!("holds on {kept} of {}", devices.len()),
        breaches: per_device.into_iter().flatten().collect(),
    }
}

fn device_breaches(device: &DeviceFile, acknowledged: &BTreeSet<String>) -> Vec<String> {
    let mut breaches = Vec::new();
    let rows = |status: &str| device.with_status(status).count() as u64;
    let counters = &device.counters;
    let pruned = device.enqueued() - device.operations.len() as u64;
    let ended = counters.completed + counters.cancelled;
    let sum = ended + rows("pending") + rows("in_progress") + rows("failed") + rows("conflicted");
    if sum != device.enqueued() {
        breaches.push(format!(
            "{}: {} operations were enqueued, but its states add up to {sum}",
            device.name,
            device.enqueued()
        ));
    }
    for (state, counted, seen) in [
        ("completed or cancelled", ended, rows("completed") + rows("cancelled") + pruned),
        ("in progress", counters.in_progress, rows("in_progress")),
        ("failed", counters.failed, rows("failed")),
        ("conflicted", counters.conflicted, rows("conflicted")),
    ] {
        if counted != seen {
            breaches.push(format!("{}: its counters say {counted} {state}, its rows {seen}", device.name));
        }
    }
    if pruned == 0 {
        let held: BTreeSet<&str> = device.operations.iter().map(|operation| operation.id.as_str()).collect();
        let missing = acknowledged.iter().filter(|id| !held.contains(id.as_str())).count();
        if missing > 0 {
            breaches.push(format!("{}: {missing} operations that it acknowledged are not in its queue", device.name));
        }
    }
    if device.enqueued() < acknowledged.len() as u64 {
        let acknowledged = acknowledged.len();
        breaches.push(format!(
            "{}: it acknowledged {acknowledged} operations and holds {}",
            device.name,
            device.enqueued()
        ));
    }
    for state in ["pending", "in_progress"] {
        if rows(state) > 0 {
            breaches.push(format!(
                "{}: {} operations are still {state} at the end of the day",
                device.name,
                rows(state)
            ));
        }
    }
    breaches
}
