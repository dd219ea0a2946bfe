//! What `inspect --json` prints.

use serde_json::{Value, json};
use syncline_core::{ConflictEntry, Explanation, Operation, SyncState, Troubled};
use syncline_protocol::Timestamp;

use super::Overview;

pub(super) fn overview(overview: &Overview, now: Timestamp) -> Value {
    let (device, metrics) = (&overview.device, &overview.metrics);
    json!({
        "device": {
            "device_id": device.device_id,
            "user_id": device.user_id,
            "scope": device.scope,
            "has_pulled": device.has_pulled,
            "in_reset": device.in_reset,
        },
        "metrics": {
            "queue_length": metrics.queue_length,
            "pending": metrics.pending,
            "in_progress": metrics.in_progress,
            "failed": metrics.failed,
            "conflicted": metrics.conflicted,
            "completed_total": metrics.completed_total,
            "cancelled_total": metrics.cancelled_total,
            "enqueued_total": metrics.enqueued_total,
            "avg_sync_latency_ms": metrics.avg_sync_latency_ms,
            "p50_sync_latency_ms": metrics.p50_sync_latency_ms,
            "p95_sync_latency_ms": metrics.p95_sync_latency_ms,
            "conflicts_detected": metrics.conflicts_detected,
            "last_successful_sync": moment(metrics.last_successful_sync, now),
            "oldest_pending_age_ms": metrics.oldest_pending_age_ms,
            "bytes_pending": metrics.bytes_pending,
            "state": state(&metrics.state, now),
        },
        "troubled": overview.troubled.iter().map(|troubled| self::troubled(troubled, now)).collect::<Vec<_>>(),
        "conflicts": overview.undecided.iter().map(|entry| conflict(entry, now)).collect::<Vec<_>>(),
    })
}

fn troubled(troubled: &Troubled, now: Timestamp) -> Value {
    json!({ "operation": operation(&troubled.operation, now), "behind": troubled.behind })
}

fn state(state: &SyncState, now: Timestamp) -> Value {
    match state {
        SyncState::Backoff { until, reason } => {
            json!({ "kind": state.as_str(), "until": moment(Some(*until), now), "reason": reason })
        }
        other => json!({ "kind": other.as_str() }),
    }
}

pub(super) fn explained(found: &Operation, why: &Explanation, now: Timestamp) -> Value {
    json!({
        "operation": operation(found, now),
        "explanation": {
            "operation_id": why.operation_id,
            "waiting": why.waiting.as_str(),
            "until": moment(why.until, now),
            "blocked_by": why.blocked_by,
            "text": why.text,
        },
    })
}

fn operation(operation: &Operation, now: Timestamp) -> Value {
    json!({
        "sequence": operation.sequence,
        "id": operation.id,
        "idempotency_key": operation.idempotency_key,
        "operation": operation.kind,
        "entity_type": operation.entity_type,
        "entity_id": operation.entity_id,
        "payload": payload(operation),
        "timestamp": moment(Some(operation.timestamp), now),
        "enqueued_at": moment(Some(operation.enqueued_at), now),
        "transaction_id": operation.transaction_id,
        "status": operation.status.as_str(),
        "void": operation.void,
        "attempts": operation.attempts,
        "max_attempts": operation.max_attempts,
        "next_attempt_at": moment(operation.next_attempt_at, now),
        "reason": operation.reason,
        "message": operation.message,
        "field": operation.field,
        "coalesced_into": operation.coalesced_into,
        "ended_at": moment(operation.ended_at, now),
    })
}

fn payload(operation: &Operation) -> Value {
    operation.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

pub(super) fn conflict(entry: &ConflictEntry, now: Timestamp) -> Value {
    json!({
        "conflict": entry.conflict,
        "sequence": entry.sequence,
        "detected_at": moment(Some(entry.detected_at), now),
        "resolution": entry.resolution.map(|kind| kind.as_str()),
        "resolved_at": moment(entry.resolved_at, now),
        "reopened_by": entry.reopened_by,
    })
}

/// The timestamp, and how long ago it was.
fn moment(moment: Option<Timestamp>, now: Timestamp) -> Value {
    moment.map_or(Value::Null, |moment| json!({ "at": moment, "age_ms": now.millis() - moment.millis() }))
}
