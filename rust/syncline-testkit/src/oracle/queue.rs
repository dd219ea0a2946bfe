//! What one device's file must show by itself at every moment (spec §2, §3, §9).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use syncline_core::{OperationStatus, QueueMetrics};

use super::observe::{DeviceState, OperationRow, record};
use super::{Verdict, hold};

/// What a world may do to a file that some rules are not for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowances {
    /// There is a copy of it. What both wrote within one millisecond has one key and one effect, so that a transaction of the one
    /// may have a member that is the other's.
    pub(crate) copied: bool,
    /// The server goes back in time. What it lost is sent again while the answer to what followed is still awaited; that will be
    /// dropped, and the model sees to the order on the server.
    pub(crate) restores: bool,
}

/// All rules that need nothing but the file.
pub(crate) fn check(state: &DeviceState, allowed: Allowances) -> Verdict {
    conservation(state)?;
    if !allowed.restores {
        lanes(state)?;
    }
    dependents(state)?;
    if !allowed.copied {
        transactions(state)?;
    }
    replica(state)?;
    ledger(state)
}

fn count(state: &DeviceState, status: OperationStatus) -> u64 {
    state.operations.values().filter(|row| row.status == status).count() as u64
}

fn enqueued(state: &DeviceState) -> u64 {
    state.operations.last_key_value().map_or(0, |(sequence, _)| *sequence)
}

/// Invariant 1.
fn conservation(state: &DeviceState) -> Verdict {
    use OperationStatus::{Cancelled, Completed, Conflicted, Failed, InProgress, Pending};
    let open: u64 = [Pending, InProgress, Failed, Conflicted].map(|status| count(state, status)).iter().sum();
    let (completed, cancelled) = (state.counters.completed_total, state.counters.cancelled_total);
    let all = enqueued(state);
    hold!(
        all == open + completed + cancelled,
        "conservation: {all} enqueued, but {open} open, {completed} completed and {cancelled} cancelled"
    );
    let pruned = all - state.operations.len() as u64;
    let ended = count(state, Completed) + count(state, Cancelled);
    hold!(
        completed + cancelled >= ended && pruned == completed + cancelled - ended,
        "conservation: {pruned} rows are gone, but {} were completed or cancelled and {ended} of these are there",
        completed + cancelled
    );
    let mut unsettled: BTreeMap<i64, u64> = BTreeMap::new();
    for row in state.operations.values().filter(|row| row.is_unsettled()) {
        *unsettled.entry(row.entity).or_default() += 1;
    }
    for (entity, row) in &state.entities {
        let open = unsettled.get(entity).copied().unwrap_or(0);
        hold!(
            row.open_operations == open,
            "conservation: {} has {open} open operations and counts {}",
            row.entity_id,
            row.open_operations
        );
    }
    Ok(())
}

/// The queue's figures are plain counts.
pub(crate) fn metrics(state: &DeviceState, said: &QueueMetrics, now_ms: i64) -> Verdict {
    use OperationStatus::{Conflicted, Failed, InProgress, Pending};
    let waiting = || state.operations.values().filter(|row| row.is_waiting());
    let bytes = |row: &OperationRow| row.payload.as_ref().map_or(0, String::len) as u64;
    let age = waiting().next().map(|oldest| u64::try_from(now_ms.saturating_sub(oldest.enqueued_at)).unwrap_or(0));
    let open = state.operations.values().filter(|row| row.is_unsettled());
    let (length, open_bytes) = open.fold((0, 0), |(length, sum), row| (length + 1, sum + bytes(row)));
    let table = [
        ("pending", said.pending, count(state, Pending)),
        ("in_progress", said.in_progress, count(state, InProgress)),
        ("failed", said.failed, count(state, Failed)),
        ("conflicted", said.conflicted, count(state, Conflicted)),
        ("queue_length", said.queue_length, length),
        ("bytes_pending", said.bytes_pending, open_bytes),
        ("enqueued_total", said.enqueued_total, enqueued(state)),
        ("completed_total", said.completed_total, state.counters.completed_total),
        ("cancelled_total", said.cancelled_total, state.counters.cancelled_total),
        ("conflicts_detected", said.conflicts_detected, state.ledger.len() as u64),
    ];
    for (name, told, counted) in table {
        hold!(told == counted, "metrics: {name} is said to be {told}, and counted {counted}");
    }
    hold!(
        said.oldest_pending_age_ms == age,
        "metrics: oldest_pending_age_ms is said to be {:?}, and is {age:?}",
        said.oldest_pending_age_ms
    );
    let shape = said.p50_sync_latency_ms <= said.p95_sync_latency_ms && said.avg_sync_latency_ms >= 0.0;
    hold!(shape, "metrics: latencies are out of order");
    Ok(())
}

/// Lane order and dependencies: what is under way has nothing before it that is not under way with it, or has ended.
fn lanes(state: &DeviceState) -> Verdict {
    let under_way = || state.operations.values().filter(|row| row.status == OperationStatus::InProgress);
    for row in under_way() {
        let ahead = state.operations.range(..row.sequence).map(|(_, other)| other);
        for other in ahead.filter(|other| other.entity == row.entity && other.is_unsettled()) {
            // Withdrawn while it was under way: what went in the same batch is under way with it.
            let together = other.status == OperationStatus::InProgress && (!other.void || row.void || other.claimed);
            hold!(
                together,
                "order: operation {} is under way before {} of its lane, which is {}",
                row.sequence,
                other.sequence,
                other.status
            );
        }
        if row.void {
            continue;
        }
        for (_, earlier) in state.dependencies.iter().filter(|(sequence, _)| *sequence == row.sequence) {
            let Some(other) = state.operations.get(earlier) else { continue };
            let passable = matches!(
                other.status,
                OperationStatus::Completed | OperationStatus::InProgress | OperationStatus::Cancelled
            );
            hold!(passable, "order: operation {} is under way before {earlier}, on which it depends", row.sequence);
        }
    }
    Ok(())
}

/// Cancelled operations are forgotten as completed ones are: what ended more than `age_ms` ago, before the newest `count` that ended
/// and the newest `count` that completed. Only where time enough has passed for the device to look through them.
pub(crate) fn forgotten(state: &DeviceState, now_ms: i64, age_ms: i64, count: u64) -> Verdict {
    let last = enqueued(state);
    for row in state.operations.values().filter(|row| row.status == OperationStatus::Cancelled) {
        let Some(ended_at) = row.ended_at.filter(|at| *at < now_ms - age_ms) else { continue };
        let later = || state.operations.values().filter(|other| other.ended_at.is_some_and(|at| at > ended_at));
        let completed = later().filter(|other| other.status == OperationStatus::Completed).count() as u64;
        let stands_alone = row.sequence < last
            && row.survivor.is_none()
            && row.transaction_id.is_none()
            && state.operations.values().all(|other| other.survivor != Some(row.sequence));
        hold!(
            !stands_alone || completed < count,
            "retention: operation {} was cancelled {} s ago, {completed} completed ones have ended since, and it is still there",
            row.sequence,
            (now_ms - ended_at) / 1_000
        );
    }
    Ok(())
}

/// Spec §2: a cancelled dependency fails its dependents, unless it was coalesced.
fn dependents(state: &DeviceState) -> Verdict {
    for (sequence, earlier) in &state.dependencies {
        let (Some(row), Some(other)) = (state.operations.get(sequence), state.operations.get(earlier)) else {
            continue;
        };
        let cancelled = other.status == OperationStatus::Cancelled && other.reason.as_deref() != Some("coalesced");
        hold!(
            !(cancelled && row.is_waiting() && !row.void),
            "order: operation {sequence} is {}, and {earlier}, on which it depends, was cancelled",
            row.status
        );
    }
    Ok(())
}

/// Invariant 6, as the device shows it: the members of a transaction stand together.
fn transactions(state: &DeviceState) -> Verdict {
    let mut groups: BTreeMap<&str, Vec<&OperationRow>> = BTreeMap::new();
    for row in state.operations.values() {
        if let Some(id) = &row.transaction_id {
            groups.entry(id).or_default().push(row);
        }
    }
    for members in groups.values() {
        let first = members[0];
        let completed = members.iter().filter(|row| row.status == OperationStatus::Completed).count();
        hold!(
            completed == 0 || completed == members.len(),
            "atomicity: of the transaction that begins with operation {}, {completed} of {} members are completed",
            first.sequence,
            members.len()
        );
        let failed = members.iter().filter(|row| row.status == OperationStatus::Failed).count();
        let waiting = members.iter().filter(|row| row.is_waiting() && !row.void).count();
        hold!(
            failed == 0 || waiting == 0,
            "atomicity: of the transaction that begins with operation {}, {failed} members have failed and {waiting} wait",
            first.sequence
        );
        let under_way = members.iter().filter(|row| row.status == OperationStatus::InProgress && !row.void).count();
        let whole = members.iter().filter(|row| !row.void).count();
        hold!(
            under_way == 0 || under_way == whole,
            "atomicity: of the transaction that begins with operation {}, {under_way} of {whole} members are under way",
            first.sequence
        );
    }
    Ok(())
}

/// Spec §3: `current` is `base` with the open operations folded in, in lane order; the failed and the withdrawn are left out.
fn replica(state: &DeviceState) -> Verdict {
    let mut lanes: BTreeMap<i64, Vec<&OperationRow>> = BTreeMap::new();
    let open = state.operations.values().filter(|row| row.open);
    for row in open.filter(|row| !row.void && row.status != OperationStatus::Failed) {
        lanes.entry(row.entity).or_default().push(row);
    }
    for (entity, row) in &state.entities {
        let lane = lanes.get(entity).map_or(&[][..], Vec::as_slice);
        if lane.is_empty() && row.base == row.current {
            continue;
        }
        let mut value = row.base.as_deref().map(record);
        for step in lane {
            value = fold(value, &step.kind, step.payload.as_deref());
        }
        let current = row.current.as_deref().map(record);
        hold!(current == value, "fold: {} {} is not its base with its operations", row.entity_type, row.entity_id);
    }
    Ok(())
}

/// One operation on a value; null and absent are one.
fn fold(value: Option<Map<String, Value>>, kind: &str, payload: Option<&str>) -> Option<Map<String, Value>> {
    let mut value = match (kind, value) {
        ("delete", _) | ("update", None) => return None,
        (_, value) => value.unwrap_or_default(),
    };
    for (field, new) in payload.map(record).unwrap_or_default() {
        if new.is_null() {
            value.remove(&field);
        } else {
            value.insert(field, new);
        }
    }
    Some(value)
}

/// Invariant 7, as the device shows it.
fn ledger(state: &DeviceState) -> Verdict {
    let rows = state.ledger.len() as u64;
    hold!(
        state.counters.conflicts_detected == rows,
        "audit: {} conflicts are counted, and the ledger has {rows}",
        state.counters.conflicts_detected
    );
    for row in state.operations.values().filter(|row| row.status == OperationStatus::Conflicted) {
        let undecided = state.ledger.iter().any(|entry| entry.operation_id == row.id && entry.resolution.is_none());
        hold!(undecided, "audit: operation {} conflicts, and no undecided ledger row says with what", row.sequence);
    }
    for entry in &state.ledger {
        let conflict: Value = serde_json::from_str(&entry.conflict).expect("ledger rows are JSON");
        for (name, field) in conflict["fields"].as_object().into_iter().flatten() {
            // Null and absent are one: where a deletion meets the removal of a field, neither side has a value.
            let deletion = conflict["their_deleted"] == true || conflict["operation"] == "delete";
            let known =
                field.get("winner").is_some() && (deletion || !field["ours"].is_null() || !field["theirs"].is_null());
            hold!(known, "audit: ledger row {} does not say both values of {name}", entry.id);
        }
    }
    Ok(())
}
