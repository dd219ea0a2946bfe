//! Forgetting what has ended long ago. Nothing that a server might still have to be told again is forgotten early.

use std::collections::BTreeSet;

use rusqlite::params;
use syncline_protocol::{Dot, Timestamp, planted};

use super::Store;
use super::row::{QueueRow, clock_text};
use crate::error::Result;
use crate::operation::OperationStatus;

const SLICE: usize = 500;

impl Store {
    /// Removes a slice of ended operations past their retention; 0 when there are none left. The row with the highest
    /// sequence always stays: it is the queue's memory of where it was.
    pub(crate) fn prune(&mut self, now: Timestamp) -> Result<u64> {
        let age = i64::try_from(self.options.retention.age.as_millis()).unwrap_or(i64::MAX);
        let before = now.millis().saturating_sub(age);
        // Only what ended before the oldest of the newest `count` may go: of all, and of those that a server may have lost.
        let oldest_of = |condition: &str| {
            let sql = format!(
                "SELECT min(ended_at) FROM (SELECT ended_at FROM sync_queue WHERE ended_at IS NOT NULL {condition}
                 ORDER BY ended_at DESC LIMIT ?1)"
            );
            self.conn
                .prepare_cached(&sql)?
                .query_row([self.options.retention.count], |row| row.get::<_, Option<i64>>(0))
        };
        let newest = [oldest_of("")?, oldest_of("AND status = 'completed'")?].into_iter().flatten().min();
        let before = match newest {
            Some(newest) if self.options.retention.count > 0 => before.min(newest.saturating_sub(1)),
            _ => before,
        };
        let before = if planted!(PruneEarly) { now.millis() } else { before };
        let ended =
            "ended_at <= ?1 AND open = 0 AND survivor IS NULL AND sequence < (SELECT max(sequence) FROM sync_queue)
             ORDER BY ended_at, sequence LIMIT ?2";
        let ended = if planted!(PruneLast) { &ended.replace("sequence < (", "sequence <= (") } else { ended };
        let ended = if planted!(KeepCancelled) { &format!("status = 'completed' AND {ended}") } else { ended };
        let ended = QueueRow::select(&self.conn, ended, params![before, SLICE])?;
        if ended.is_empty() {
            return Ok(0);
        }
        self.write(|store| {
            let mut pruned = 0;
            let mut seen = BTreeSet::new();
            for row in ended {
                if seen.contains(&row.sequence) {
                    continue;
                }
                let group = row.group(&store.conn)?;
                seen.extend(group.iter().map(|member| member.sequence));
                if store.may_go(&group)? {
                    for member in &group {
                        pruned += store.forget(member)?;
                    }
                }
            }
            Ok(pruned)
        })
    }

    /// A transaction goes whole; an operation that others were folded into goes with them; the last row never goes.
    fn may_go(&self, group: &[QueueRow]) -> Result<bool> {
        let last: u64 =
            self.conn.prepare_cached("SELECT max(sequence) FROM sync_queue")?.query_row([], |row| row.get(0))?;
        for member in group {
            let folded_last: bool = self
                .conn
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM sync_queue WHERE survivor = ?1 AND sequence = ?2)")?
                .query_row([member.sequence, last], |row| row.get(0))?;
            let is_last = (member.sequence == last || folded_last) && !planted!(PruneLast);
            if member.open || !member.status.has_ended() || is_last {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn forget(&mut self, row: &QueueRow) -> Result<u64> {
        if row.status == OperationStatus::Completed {
            let (device_id, sequence): (Option<String>, Option<u64>) = self
                .conn
                .prepare_cached("SELECT dot_device, dot_sequence FROM sync_queue WHERE sequence = ?1")?
                .query_row([row.sequence], |found| Ok((found.get(0)?, found.get(1)?)))?;
            if let (Some(device_id), Some(sequence)) = (device_id, sequence) {
                let mut clock = self.entity(row.entity)?.pruned_clock;
                clock.add(&Dot { device_id, sequence });
                self.conn
                    .prepare_cached("UPDATE entities SET pruned_clock = ?2 WHERE entity = ?1")?
                    .execute(params![row.entity, clock_text(&clock)])?;
            }
        }
        self.conn
            .prepare_cached(
                "DELETE FROM dependencies WHERE sequence = ?1
                 OR sequence IN (SELECT sequence FROM sync_queue WHERE survivor = ?1)",
            )?
            .execute([row.sequence])?;
        let folded = self.conn.prepare_cached("DELETE FROM sync_queue WHERE survivor = ?1")?.execute([row.sequence])?;
        self.conn.prepare_cached("DELETE FROM sync_queue WHERE sequence = ?1")?.execute([row.sequence])?;
        Ok(1 + folded as u64)
    }
}
