//! What must hold after every committed step, computed the slow and obvious way.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use super::*;
use crate::metrics::SyncState;

impl Bench {
    /// Spec §9.1 and the store's own promises.
    pub(super) fn assert_consistent(&mut self) {
        self.assert_events_tell_every_change();
        self.assert_metrics_equal_plain_counts();
        self.assert_current_is_base_with_the_fold();
        self.assert_parks_wait_for_something();
    }

    fn count(&self, sql: &str) -> u64 {
        self.store.conn.query_row(sql, [], |row| row.get::<_, Option<u64>>(0)).expect(sql).unwrap_or(0)
    }

    fn assert_metrics_equal_plain_counts(&self) {
        let metrics = metrics::read_metrics(&self.store.conn, SyncState::Idle, self.now).expect("readable");
        let by = |status: &str| self.count(&format!("SELECT count(*) FROM sync_queue WHERE status = '{status}'"));
        assert_eq!(metrics.pending, by("pending"), "pending");
        assert_eq!(metrics.in_progress, by("in_progress"), "in_progress");
        assert_eq!(metrics.failed, by("failed"), "failed");
        assert_eq!(metrics.conflicted, by("conflicted"), "conflicted");
        let all = metrics.completed_total + metrics.cancelled_total + metrics.queue_length;
        assert_eq!(metrics.enqueued_total, all, "conservation");
        let ended = by("completed") + by("cancelled");
        assert!(metrics.completed_total + metrics.cancelled_total >= ended, "what was pruned had been counted");
        let bytes = self.count(
            "SELECT sum(length(CAST(payload AS BLOB))) FROM sync_queue WHERE status NOT IN ('completed', 'cancelled')",
        );
        assert_eq!(metrics.bytes_pending, bytes, "bytes_pending");
        let oldest: Option<i64> = self
            .store
            .conn
            .query_row(
                "SELECT enqueued_at FROM sync_queue WHERE status IN ('pending', 'in_progress') ORDER BY sequence LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()
            .expect("readable");
        assert_eq!(metrics.oldest_pending_age_ms, oldest.map(|at| (self.now.millis() - at).max(0) as u64), "oldest");
    }

    fn assert_current_is_base_with_the_fold(&self) {
        let mut statement = self.store.conn.prepare("SELECT entity FROM entities").expect("prepares");
        let entities: Vec<i64> =
            statement.query_map([], |row| row.get(0)).expect("reads").map(|row| row.expect("reads")).collect();
        for entity in entities {
            let row = self.store.entity(entity).expect("readable");
            let folded = self.store.folded(&row).expect("folds").map(|record| record.to_string());
            assert_eq!(row.current, folded, "{}/{}", row.entity_type, row.entity_id);
            let open = self.count(&format!(
                "SELECT count(*) FROM sync_queue WHERE entity = {entity} AND status NOT IN ('completed', 'cancelled')"
            ));
            let kept = self.count(&format!("SELECT open_operations FROM entities WHERE entity = {entity}"));
            assert_eq!(kept, open, "open operations of {}", row.entity_id);
        }
    }

    fn assert_parks_wait_for_something(&self) {
        let idle = self.count(
            "SELECT count(*) FROM sync_queue q WHERE park > 0 AND NOT EXISTS (
                SELECT 1 FROM sync_queue b WHERE b.sequence = q.park AND b.status NOT IN ('completed', 'cancelled'))",
        );
        assert_eq!(idle, 0, "an operation is parked on one that has ended");
    }

    fn assert_events_tell_every_change(&mut self) {
        for event in self.store.take_changes().operations {
            let known = self.told.insert(event.sequence, event.to);
            assert_eq!(known, event.from, "event of #{}", event.sequence);
        }
        let mut statement = self.store.conn.prepare("SELECT sequence, status FROM sync_queue").expect("prepares");
        let rows: BTreeMap<u64, String> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("reads")
            .map(|row| row.expect("reads"))
            .collect();
        for (sequence, status) in &rows {
            assert_eq!(self.told.get(sequence).map(|s| s.as_str()), Some(status.as_str()), "#{sequence}");
        }
    }
}

/// Every (state × state) pair: what `transition` allows is the lifecycle of spec §2, no more.
#[test]
fn only_the_lifecycle_of_the_specification_is_allowed() {
    use OperationStatus::*;
    let allowed = [
        (Pending, InProgress),   // claim
        (Pending, Cancelled),    // cancel, coalesced, observed
        (Pending, Failed),       // a dependency was cancelled
        (InProgress, Pending),   // lease lost, back-off, retry, deferred
        (InProgress, Completed), // applied, merged
        (InProgress, Failed),    // rejected, attempts used up
        (InProgress, Conflicted),
        (InProgress, Cancelled), // a confirmed withdrawal
        (Completed, Pending),    // the server went back
        (Failed, Pending),       // retry
        (Failed, Cancelled),     // discard
        (Conflicted, Pending),   // resolve
        (Conflicted, Cancelled),
    ];
    for from in OperationStatus::ALL {
        for to in OperationStatus::ALL {
            assert_eq!(transition::is_allowed(from, to), allowed.contains(&(from, to)), "{from} -> {to}");
        }
    }
}
