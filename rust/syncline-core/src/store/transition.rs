//! Every change of an operation's state: fenced, counted, told. Nothing else in the store writes `status`.

use rusqlite::params;
use syncline_protocol::{Timestamp, planted};

use super::Store;
use super::row::QueueRow;
use crate::error::{Result, SynclineError};
use crate::event::{EntityChange, OperationEvent};
use crate::metrics::LatencyHistogram;
use crate::operation::OperationStatus::{self, Cancelled, Completed, Conflicted, Failed, InProgress, Pending};

/// What a transaction changes in `counters`; written once, at its end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    by_status: [i64; 6],
    bytes_ended: i64,
    conflicts: i64,
    latencies: Vec<u64>,
    low_water: Option<u64>,
    synced_at: Option<i64>,
    /// Whether anything was parked when the transaction first asked; within it nothing is parked anew.
    any_parked: Option<bool>,
}

impl Tally {
    fn count(&mut self, status: OperationStatus, by: i64) {
        self.by_status[status as usize] += by;
    }

    fn is_empty(&self) -> bool {
        self.by_status.iter().all(|delta| *delta == 0)
            && self.bytes_ended == 0
            && self.conflicts == 0
            && self.latencies.is_empty()
            && self.low_water.is_none()
            && self.synced_at.is_none()
    }
}

/// Why an operation changes its state, for the row and for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Why {
    pub reason: Option<String>,
    pub message: Option<String>,
    pub field: Option<String>,
    pub culprit: Option<String>,
}

impl Why {
    pub(super) fn code(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }

    pub(super) fn told(reason: &str, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::code(reason) }
    }
}

impl Store {
    /// Moves a row from the state it was read in to another one. What belongs only to the state left is cleared.
    ///
    /// # Errors
    /// The row is no longer in that state: the whole transaction must go.
    pub(super) fn transition(&mut self, row: &QueueRow, to: OperationStatus, why: Why, now: Timestamp) -> Result<()> {
        debug_assert!(is_allowed(row.status, to), "{} -> {to}", row.status);
        let ended = to.has_ended();
        let parked_on = if row.status == Pending { self.parked_on(row.sequence)? } else { None };
        let changed = self
            .conn
            .prepare_cached(
                "UPDATE sync_queue SET status = ?3, term = NULL, next_attempt_at = NULL, backoff_ms = NULL,
                        park = CASE ?3 WHEN 'pending' THEN 0 END,
                        void = CASE WHEN ?3 = 'pending' THEN void ELSE 0 END,
                        open = CASE WHEN ?3 = 'cancelled' THEN 0 ELSE 1 END,
                        ended_at = ?4, reason = ?5, message = ?6, field = ?7, culprit = ?8,
                        verdict = NULL, verdict_version = NULL
                 WHERE sequence = ?1 AND status = ?2 AND term IS ?9",
            )?
            .execute(params![
                row.sequence,
                row.status.as_str(),
                to.as_str(),
                ended.then_some(now.millis()),
                why.reason,
                why.message,
                why.field,
                why.culprit,
                row.term,
            ])?;
        if changed != 1 {
            return Err(fence_broken());
        }
        // What waits behind this row is parked on the same root, and may have waited for nothing else.
        if let Some(root) = parked_on {
            self.release(root)?;
        }
        self.note_transition(row, to, why.reason, now)
    }

    pub(super) fn parked_on(&self, sequence: u64) -> Result<Option<u64>> {
        let park: Option<i64> = self
            .conn
            .prepare_cached("SELECT park FROM sync_queue WHERE sequence = ?1")?
            .query_row([sequence], |row| row.get(0))?;
        Ok(park.and_then(|on| u64::try_from(on).ok()).filter(|on| *on > 0))
    }

    /// The part of a transition that is the same for all: counters, the entity's count of open operations, the event.
    pub(super) fn note_transition(
        &mut self,
        row: &QueueRow,
        to: OperationStatus,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<()> {
        if !(planted!(CompletedCountStays) && row.status == Completed) {
            self.tally.count(row.status, -1);
        }
        self.tally.count(to, 1);
        match (row.status.has_ended(), to.has_ended()) {
            (false, true) => {
                self.tally.bytes_ended += row.payload_bytes;
                self.add_open(row.entity, -1)?;
                if !planted!(ForgetParked) {
                    self.release(row.sequence)?;
                }
            }
            (true, false) => {
                self.tally.bytes_ended -= row.payload_bytes;
                self.add_open(row.entity, 1)?;
            }
            _ => {}
        }
        if to == Completed {
            let waited = now.millis().saturating_sub(row.enqueued_at);
            self.tally.latencies.push(u64::try_from(waited).unwrap_or(0));
        }
        if matches!(to, Pending | InProgress) && !matches!(row.status, Pending | InProgress) {
            let low = self.tally.low_water.map_or(row.sequence, |low| low.min(row.sequence));
            self.tally.low_water = Some(low);
        }
        if planted!(EventLost) && to == Cancelled {
            return Ok(());
        }
        self.uncommitted.operations.push(OperationEvent {
            id: row.id.clone(),
            sequence: row.sequence,
            from: Some(row.status),
            to,
            reason,
            at: now,
        });
        Ok(())
    }

    /// Lets the operations that were parked on `sequence` be looked at again.
    pub(super) fn release(&mut self, sequence: u64) -> Result<()> {
        let any_parked = match self.tally.any_parked {
            Some(known) => known,
            None => self
                .conn
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM sync_queue WHERE park > 0)")?
                .query_row([], |row| row.get(0))?,
        };
        self.tally.any_parked = Some(any_parked);
        if !any_parked {
            return Ok(());
        }
        self.conn.prepare_cached("UPDATE sync_queue SET park = 0 WHERE park = ?1")?.execute([sequence])?;
        Ok(())
    }

    fn add_open(&mut self, entity: i64, by: i64) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE entities SET open_operations = open_operations + ?2 WHERE entity = ?1")?
            .execute([entity, by])?;
        Ok(())
    }

    /// An operation that has just been inserted: an event, and nothing to count, because `pending` is what remains.
    pub(super) fn note_enqueued(&mut self, id: &str, sequence: u64, to: OperationStatus, now: Timestamp) {
        let event = |from, to, reason: Option<&str>| OperationEvent {
            id: id.to_owned(),
            sequence,
            from,
            to,
            reason: reason.map(str::to_owned),
            at: now,
        };
        self.uncommitted.operations.push(event(None, Pending, None));
        if to == Cancelled {
            self.tally.count(Pending, -1);
            self.tally.count(Cancelled, 1);
            self.uncommitted.operations.push(event(Some(Pending), Cancelled, Some("coalesced")));
        }
    }

    pub(super) fn note_entity(&mut self, entity_type: &str, entity_id: &str) {
        self.uncommitted
            .entities
            .push(EntityChange { entity_type: entity_type.to_owned(), entity_id: entity_id.to_owned() });
    }

    pub(super) fn note_conflict(&mut self) {
        self.tally.conflicts += 1;
    }

    pub(super) fn note_bytes_grown(&mut self, by: i64) {
        self.tally.bytes_ended -= if planted!(BytesDrift) { 0 } else { by };
    }

    pub(super) fn note_synced(&mut self, now: Timestamp) {
        self.tally.synced_at = Some(now.millis());
    }

    /// Writes what the transaction counted.
    pub(super) fn flush_tally(&mut self) -> Result<()> {
        let tally = std::mem::take(&mut self.tally);
        if tally.is_empty() {
            return Ok(());
        }
        let of = |status: OperationStatus| tally.by_status[status as usize];
        self.conn
            .prepare_cached(
                "UPDATE counters SET in_progress = in_progress + ?1, failed = failed + ?2, conflicted = conflicted + ?3,
                        completed_total = completed_total + ?4, cancelled_total = cancelled_total + ?5,
                        conflicts_detected = conflicts_detected + ?6, bytes_ended = bytes_ended + ?7,
                        low_water = min(low_water, coalesce(?8, low_water)),
                        last_successful_sync = coalesce(?9, last_successful_sync)",
            )?
            .execute(params![
                of(InProgress),
                of(Failed),
                of(Conflicted),
                of(Completed),
                of(Cancelled),
                tally.conflicts,
                tally.bytes_ended,
                tally.low_water,
                tally.synced_at,
            ])?;
        if !tally.latencies.is_empty() {
            let text: String =
                self.conn.prepare_cached("SELECT latencies FROM counters")?.query_row([], |row| row.get(0))?;
            let mut histogram = LatencyHistogram::parse(&text);
            tally.latencies.iter().for_each(|waited| histogram.add(*waited));
            self.conn.prepare_cached("UPDATE counters SET latencies = ?1")?.execute([histogram.text()])?;
            self.advance_low_water()?;
        }
        Ok(())
    }

    /// Moves the mark below which nothing waits, so that the oldest waiting operation is found without a walk.
    pub(super) fn advance_low_water(&mut self) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE counters SET low_water = coalesce(
                    (SELECT sequence FROM sync_queue WHERE sequence >= low_water AND status IN ('pending', 'in_progress')
                     ORDER BY sequence LIMIT 1),
                    (SELECT max(sequence) + 1 FROM sync_queue), 1)",
            )?
            .execute([])?;
        Ok(())
    }
}

fn fence_broken() -> SynclineError {
    SynclineError::Storage { detail: "an operation changed its state underneath its own transaction".into() }
}

/// The lifecycle of spec §2: every pair that may happen, and no other.
pub(super) fn is_allowed(from: OperationStatus, to: OperationStatus) -> bool {
    matches!(
        (from, to),
        (Pending, InProgress | Cancelled | Failed)
            | (InProgress, Pending | Completed | Failed | Conflicted | Cancelled)
            | (Completed, Pending)
            | (Failed, Pending | Cancelled)
            | (Conflicted, Pending | Cancelled)
    )
}
