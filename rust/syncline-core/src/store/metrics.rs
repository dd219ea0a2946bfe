//! The queue's numbers, without counting rows: what changes often is derived, what is rare is a counter.

use rusqlite::{Connection, OptionalExtension};
use syncline_protocol::Timestamp;

use crate::error::Result;
use crate::metrics::{LatencyHistogram, QueueMetrics, SyncState};

/// Reads the metrics in one snapshot; `state` is the driver's.
pub(super) fn read_metrics(conn: &Connection, state: SyncState, now: Timestamp) -> Result<QueueMetrics> {
    let counters = conn
        .prepare_cached(
            "SELECT in_progress, failed, conflicted, completed_total, cancelled_total, conflicts_detected, bytes_ended,
                    low_water, last_successful_sync, latencies FROM counters",
        )?
        .query_row([], |row| {
            Ok((
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?] as [i64; 6],
                row.get::<_, i64>(6)?,
                row.get::<_, u64>(7)?,
                row.get::<_, Option<i64>>(8)?,
                row.get::<_, String>(9)?,
            ))
        })?;
    let ([in_progress, failed, conflicted, completed, cancelled, conflicts], bytes_ended, low_water, synced, latencies) =
        counters;
    let (enqueued, bytes): (i64, i64) = conn
        .prepare_cached("SELECT sequence, bytes_through FROM sync_queue ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .unwrap_or_default();
    let oldest: Option<i64> = conn
        .prepare_cached(
            "SELECT enqueued_at FROM sync_queue WHERE sequence >= ?1 AND status IN ('pending', 'in_progress')
             ORDER BY sequence LIMIT 1",
        )?
        .query_row([low_water], |row| row.get(0))
        .optional()?;
    let sum = |numbers: &[i64]| numbers.iter().fold(0, |sum: i64, number| sum.saturating_add(*number));
    let pending = enqueued.saturating_sub(sum(&[completed, cancelled, failed, conflicted, in_progress]));
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let histogram = LatencyHistogram::parse(&latencies);
    Ok(QueueMetrics {
        queue_length: count(sum(&[pending, in_progress, failed, conflicted])),
        pending: count(pending),
        in_progress: count(in_progress),
        failed: count(failed),
        conflicted: count(conflicted),
        completed_total: count(completed),
        cancelled_total: count(cancelled),
        enqueued_total: count(enqueued),
        avg_sync_latency_ms: histogram.mean(),
        p50_sync_latency_ms: histogram.percentile(0.5),
        p95_sync_latency_ms: histogram.percentile(0.95),
        conflicts_detected: count(conflicts),
        last_successful_sync: synced.map(Timestamp::from_millis),
        oldest_pending_age_ms: oldest.map(|at| count(now.millis().saturating_sub(at))),
        bytes_pending: count(bytes.saturating_sub(bytes_ended)),
        state,
    })
}
