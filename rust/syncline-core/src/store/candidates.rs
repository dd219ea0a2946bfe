//! Which operations the planner should look at next, and what stands in their way.

use std::collections::BTreeSet;

use rusqlite::params;
use syncline_protocol::{Timestamp, planted};

use super::Store;
use super::row::QueueRow;
use crate::error::Result;
use crate::operation::OperationStatus;

/// An operation that waits to be sent. The members of a transaction come next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub sequence: u64,
    /// Its lane.
    pub entity: i64,
    pub transaction_id: Option<String>,
    /// Payload bytes; what surrounds them on the wire comes on top.
    pub bytes: usize,
    pub void: bool,
    /// The nearest earlier operation of its lane that has not ended.
    pub predecessor: Option<Blocker>,
    /// Declared dependencies that have not ended.
    pub dependencies: Vec<Blocker>,
}

/// An operation that has not ended and that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocker {
    pub sequence: u64,
    pub void: bool,
    /// The operation that it is parked on itself.
    pub parked_on: Option<u64>,
}

/// A part of the queue to plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Candidates {
    /// In sequence order within each source: first those that are ready again, then fresh ones.
    pub list: Vec<Candidate>,
    /// Give this as `fresh_after` once every candidate of the list is claimed or parked.
    pub fresh_through: u64,
    /// The limit cut the list: there may be more at once.
    pub more: bool,
}

/// Puts an operation aside until another one has ended (or, with −1, until the driver asks for it by name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Park {
    pub sequence: u64,
    pub on: i64,
}

impl Store {
    /// Up to about `limit` operations to plan. `fresh_after` is the pointer from the last call, 0 at first.
    pub(crate) fn candidates(&mut self, fresh_after: u64, limit: usize, now: Timestamp) -> Result<Candidates> {
        self.wake_due(now)?;
        let mut rows =
            QueueRow::select(&self.conn, "park = 0 AND next_attempt_at IS NULL ORDER BY sequence LIMIT ?1", [limit])?;
        let mut more = rows.len() == limit;
        let mut fresh_through = fresh_after;
        if !more {
            let low: u64 =
                self.conn.prepare_cached("SELECT low_water FROM counters")?.query_row([], |row| row.get(0))?;
            let after = fresh_after.max(low.saturating_sub(1));
            let left = limit - rows.len();
            let fresh = QueueRow::select(
                &self.conn,
                "sequence > ?1 AND status = 'pending' AND park IS NULL ORDER BY sequence LIMIT ?2",
                params![after, left],
            )?;
            more = fresh.len() == left;
            fresh_through = fresh.last().map_or(after, |row| row.sequence);
            rows.extend(fresh);
        }
        let mut list = Vec::with_capacity(rows.len());
        let mut groups = BTreeSet::new();
        for row in rows {
            match &row.transaction_id {
                None => list.push(self.candidate(&row)?),
                Some(id) if groups.insert(id.clone()) => {
                    for member in row.group(&self.conn)?.iter().filter(|m| m.status == OperationStatus::Pending) {
                        fresh_through = if member.sequence > fresh_through && row.sequence >= fresh_through {
                            member.sequence
                        } else {
                            fresh_through
                        };
                        list.push(self.candidate(member)?);
                    }
                }
                Some(_) => {}
            }
        }
        Ok(Candidates { list, fresh_through, more })
    }

    /// Those of these operations that are still held (park −1), in sequence order, with what stands in their way now.
    pub(crate) fn held(&self, sequences: &[u64]) -> Result<Vec<Candidate>> {
        let mut list = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let rows = QueueRow::select(&self.conn, "sequence = ?1 AND status = 'pending' AND park = -1", [sequence])?;
            for row in &rows {
                list.push(self.candidate(row)?);
            }
        }
        list.sort_by_key(|candidate| candidate.sequence);
        Ok(list)
    }

    /// When the earliest operation's own backoff ends. A wait longer than it can ever have been is cut: clocks jump.
    pub(crate) fn next_due(&mut self, now: Timestamp) -> Result<Option<Timestamp>> {
        let (earliest, jumped): (Option<i64>, bool) = self
            .conn
            .prepare_cached(
                "SELECT min(next_attempt_at), coalesce(max(next_attempt_at > ?1 + backoff_ms), 0) FROM sync_queue
                 WHERE next_attempt_at IS NOT NULL",
            )?
            .query_row([now.millis()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !jumped || planted!(WaitNotCut) {
            return Ok(earliest.map(Timestamp::from_millis));
        }
        self.write(|store| {
            store
                .conn
                .prepare_cached(
                    "UPDATE sync_queue SET next_attempt_at = ?1 + backoff_ms
                     WHERE next_attempt_at IS NOT NULL AND next_attempt_at > ?1 + backoff_ms",
                )?
                .execute([now.millis()])?;
            Ok(())
        })?;
        self.next_due(now)
    }

    /// Puts operations aside.
    pub(crate) fn park(&mut self, parks: &[Park]) -> Result<()> {
        if parks.is_empty() {
            return Ok(());
        }
        self.write(|store| {
            let mut statement = store.conn.prepare_cached(
                "UPDATE sync_queue SET park = ?2, next_attempt_at = NULL, backoff_ms = NULL
                 WHERE sequence = ?1 AND status = 'pending'",
            )?;
            for park in parks {
                statement.execute(params![park.sequence, park.on])?;
            }
            Ok(())
        })
    }

    fn wake_due(&mut self, now: Timestamp) -> Result<()> {
        if self.next_due(now)?.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.write(|store| {
            store
                .conn
                .prepare_cached(
                    "UPDATE sync_queue SET next_attempt_at = NULL, backoff_ms = NULL WHERE next_attempt_at <= ?1",
                )?
                .execute([now.millis()])?;
            Ok(())
        })
    }

    fn candidate(&self, row: &QueueRow) -> Result<Candidate> {
        let before = "SELECT sequence, void, park FROM sync_queue
             WHERE entity = ?1 AND open = 1 AND sequence < ?2 AND status <> 'completed' ORDER BY sequence DESC LIMIT 1";
        let before = if planted!(WaitForCancelled) { &before.replace("open = 1 AND", "") } else { before };
        let predecessor = self
            .conn
            .prepare_cached(before)?
            .query_map(params![row.entity, row.sequence], read_blocker)?
            .next()
            .transpose()?;
        let dependencies = self
            .conn
            .prepare_cached(
                "SELECT q.sequence, q.void, q.park FROM dependencies d JOIN sync_queue q ON q.sequence = d.depends_on
                 WHERE d.sequence = ?1 AND q.status NOT IN ('completed', 'cancelled') ORDER BY q.sequence",
            )?
            .query_map([row.sequence], read_blocker)?
            .collect::<rusqlite::Result<_>>()?;
        // A withdrawal applies nothing, so there is nothing that must be there before it.
        let dependencies = if row.void { Vec::new() } else { dependencies };
        Ok(Candidate {
            sequence: row.sequence,
            entity: row.entity,
            transaction_id: row.transaction_id.clone(),
            bytes: usize::try_from(row.payload_bytes).unwrap_or(0),
            void: row.void,
            predecessor,
            dependencies,
        })
    }
}

fn read_blocker(row: &rusqlite::Row<'_>) -> rusqlite::Result<Blocker> {
    let park: Option<i64> = row.get(2)?;
    Ok(Blocker {
        sequence: row.get(0)?,
        void: row.get(1)?,
        parked_on: park.filter(|on| *on > 0).and_then(|on| u64::try_from(on).ok()),
    })
}
