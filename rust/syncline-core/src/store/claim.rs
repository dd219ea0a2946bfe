//! Taking operations under a lease, and what is sent for them. The claim commits before a byte leaves the device.

use std::collections::BTreeMap;

use rusqlite::params;
use serde_json::value::RawValue;
use syncline_protocol::{Clock, Dot, PushOperation, Timestamp, planted};

use super::failure::unreadable;
use super::row::{QueueRow, parse_clock, parse_record};
use super::{Device, Store};
use crate::error::Result;
use crate::operation::OperationStatus;

/// Operations under lease, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct ClaimedBatch {
    pub operations: Vec<PushOperation>,
    pub sent: Vec<SentOperation>,
    pub device: Device,
    pub forgotten_through: u64,
}

/// What an answer's results are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentOperation {
    pub sequence: u64,
    pub id: String,
    /// It went as a withdrawal. One that is withdrawn while it is under way did not.
    pub void: bool,
}

impl Store {
    /// Leases these operations to `term`. Those that are no longer pending are left out.
    pub(crate) fn claim(&mut self, term: u64, sequences: &[u64], now: Timestamp) -> Result<ClaimedBatch> {
        self.write(|store| {
            let device = store.device()?;
            let mut operations = Vec::with_capacity(sequences.len());
            let mut sent = Vec::with_capacity(sequences.len());
            // Per lane: the dots that go before in this very batch.
            let mut ahead: BTreeMap<i64, Clock> = BTreeMap::new();
            for sequence in sequences {
                let Some(row) = QueueRow::find(&store.conn, *sequence)? else { continue };
                if row.status != OperationStatus::Pending || device.term != term {
                    continue;
                }
                let lane = ahead.entry(row.entity).or_default();
                operations.push(store.wire_form(&row, lane)?);
                if !row.void {
                    lane.add(&Dot::new(&device.device_id, row.sequence));
                }
                store.lease(&row, term, now)?;
                sent.push(SentOperation { sequence: row.sequence, id: row.id, void: row.void });
            }
            let forgotten_through = store.forgotten_through()?;
            Ok(ClaimedBatch { operations, sent, device, forgotten_through })
        })
    }

    /// Every operation up to this sequence is gone for good.
    pub(crate) fn forgotten_through(&self) -> Result<u64> {
        let lowest: Option<u64> =
            self.conn.prepare_cached("SELECT min(sequence) FROM sync_queue")?.query_row([], |row| row.get(0))?;
        Ok(lowest.map_or(0, |lowest| lowest.saturating_sub(1)))
    }

    fn lease(&mut self, row: &QueueRow, term: u64, now: Timestamp) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET status = 'in_progress', term = ?2, claimed = 1, park = NULL, next_attempt_at = NULL,
                        backoff_ms = NULL, reason = NULL, message = NULL, field = NULL, culprit = NULL
                 WHERE sequence = ?1 AND status = 'pending'",
            )?
            .execute(params![row.sequence, term])?;
        self.note_transition(row, OperationStatus::InProgress, None, now)
    }

    fn wire_form(&self, row: &QueueRow, ahead: &Clock) -> Result<PushOperation> {
        let mut statement = self.conn.prepare_cached(
            "SELECT q.idempotency_key, q.key_try, q.payload, q.before, q.base_clock, q.timestamp,
                    e.entity_type, e.entity_id, e.applied_clock
             FROM sync_queue q JOIN entities e ON e.entity = q.entity WHERE q.sequence = ?1",
        )?;
        let (mut operation, payload, before, clocks) = statement.query_row([row.sequence], |found| {
            let key: String = found.get(0)?;
            let tries: u32 = found.get(1)?;
            let operation = PushOperation {
                id: row.id.clone(),
                idempotency_key: if tries == 1 || planted!(RetryUnderOldKey) { key } else { format!("{key}#{tries}") },
                sequence: row.sequence,
                operation: row.kind,
                entity_type: found.get(6)?,
                entity_id: found.get(7)?,
                payload: None,
                before: None,
                base_clock: Clock::new(),
                timestamp: Timestamp::from_millis(found.get(5)?),
                transaction_id: row.transaction_id.clone(),
                depends_on: Vec::new(),
                void: row.void,
                conflict_rule: None,
                delete_rule: None,
            };
            let payload: Option<String> = found.get(2)?;
            let clocks: [String; 2] = [found.get(4)?, found.get(8)?];
            Ok((operation, payload, found.get::<_, String>(3)?, clocks))
        })?;
        operation.payload =
            payload.map(RawValue::from_string).transpose().map_err(|_| unreadable("a stored payload"))?;
        let settings = self.options.entity_type(&operation.entity_type);
        if settings.send_before {
            operation.before = Some(parse_record(&before)?);
        }
        operation.conflict_rule = settings.conflicts;
        operation.delete_rule = settings.deletes;
        operation.base_clock = parse_clock(&clocks[0])?;
        // Only earlier operations of the lane: after a server went back, later ones may have been applied and pruned.
        for (device, sequence) in parse_clock(&clocks[1])?.iter().filter(|(_, sequence)| *sequence < row.sequence) {
            operation.base_clock.add(&Dot::new(device, sequence));
        }
        operation.base_clock.merge(ahead);
        if planted!(CoverOwnSequences) {
            operation.base_clock.add(&Dot::new(&self.device_id, row.sequence - 1));
        }
        operation.depends_on = self
            .conn
            .prepare_cached("SELECT depends_on_id FROM dependencies WHERE sequence = ?1 ORDER BY depends_on")?
            .query_map([row.sequence], |found| found.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(operation)
    }
}
