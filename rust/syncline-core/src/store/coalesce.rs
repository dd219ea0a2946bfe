//! Folding a new operation into one of its lane that still waits (spec §2): what never left the device need not travel twice.

use rusqlite::params;
use syncline_protocol::{Clock, MAX_PAYLOAD_BYTES, OperationKind, Timestamp, planted};

use super::Store;
use super::enqueue::Prepared;
use super::entity::EntityRow;
use super::row::{QueueRow, clock_text, parse_record};
use super::transition::Why;
use crate::error::Result;
use crate::operation::OperationStatus;

/// The older operation took the newer one in.
pub(super) struct Folded {
    pub survivor: u64,
    /// A create met its delete: the older one goes too, after the newer one is recorded.
    pub also_cancelled: Option<QueueRow>,
}

impl Store {
    /// Folds `operation` into the last not cancelled one of its lane, if spec §2 allows it.
    pub(super) fn coalesce(
        &mut self,
        entity: &EntityRow,
        operation: &Prepared,
        base_clock: &Clock,
        timestamp: i64,
    ) -> Result<Option<Folded>> {
        let Some((older, payload)) = self.fold_target(entity, base_clock)? else { return Ok(None) };
        let bytes = payload.as_ref().map_or(0, String::len) as i64;
        let (kind, merged) = match (older.kind, operation.kind) {
            (OperationKind::Create | OperationKind::Update, OperationKind::Update) => {
                let mut patch = parse_record(payload.as_deref().unwrap_or("{}"))?;
                if let Some(newer) = &operation.patch {
                    patch.merge_patch(newer);
                }
                let text = patch.to_string();
                if text.len() > MAX_PAYLOAD_BYTES {
                    return Ok(None);
                }
                (older.kind, Some(text))
            }
            (OperationKind::Update, OperationKind::Delete) => (OperationKind::Delete, None),
            (OperationKind::Create, OperationKind::Delete) => {
                let empty_base = planted!(VanishOnBase) || (entity.base_version == 0 && entity.base_clock.is_empty());
                // With an earlier operation in the lane the delete is not the create's alone (docs/adr/0010).
                let nothing_lost =
                    empty_base && self.is_first_of_lane(&older)? && !self.has_dependents(older.sequence)?;
                let folded = Folded { survivor: older.sequence, also_cancelled: Some(older) };
                return Ok(nothing_lost.then_some(folded));
            }
            _ => return Ok(None),
        };
        // `before` keeps the older one's values; fields that only the newer one names come from the base.
        let mut before = parse_record(&self.before_of(older.sequence)?)?;
        if let (Some(base), Some(patch)) = (&entity.base, &operation.patch) {
            for (field, _) in patch.members() {
                if before.get(field).is_none() {
                    before.set(field, base.get(field));
                }
            }
        }
        if let (Some(base), OperationKind::Delete) = (&entity.base, kind) {
            before = base.clone();
        }
        self.note_bytes_grown(merged.as_ref().map_or(0, String::len) as i64 - bytes);
        let fold = "UPDATE sync_queue SET operation = ?2, payload = ?3, before = ?4, timestamp = ?5
             WHERE sequence = ?1 AND status = 'pending' AND claimed = 0";
        let fold = if planted!(FoldSent) { fold.trim_end_matches(" AND claimed = 0") } else { fold };
        self.conn.prepare_cached(fold)?.execute(params![
            older.sequence,
            kind.as_str(),
            merged,
            before.to_string(),
            timestamp
        ])?;
        Ok(Some(Folded { survivor: older.sequence, also_cancelled: None }))
    }

    /// The operation a new one may fold into, with its payload.
    fn fold_target(&self, entity: &EntityRow, base_clock: &Clock) -> Result<Option<(QueueRow, Option<String>)>> {
        let last = "SELECT max(sequence) FROM sync_queue WHERE entity = ?1 AND open = 1";
        let last = if planted!(FoldIntoCancelled) { last.trim_end_matches(" AND open = 1") } else { last };
        let last: Option<u64> = self.conn.prepare_cached(last)?.query_row([entity.entity], |row| row.get(0))?;
        let Some(last) = last else { return Ok(None) };
        let Some(older) = QueueRow::find(&self.conn, last)? else { return Ok(None) };
        let is_pending = older.status == OperationStatus::Pending
            || (planted!(FoldIntoCancelled) && older.status == OperationStatus::Cancelled);
        let never_left = is_pending && (!older.claimed || planted!(FoldSent)) && older.key_try == 1;
        if !never_left || older.transaction_id.is_some() {
            return Ok(None);
        }
        let (clock, payload): (String, Option<String>) = self
            .conn
            .prepare_cached("SELECT base_clock, payload FROM sync_queue WHERE sequence = ?1")?
            .query_row([last], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let same_base = clock == clock_text(base_clock) || planted!(FoldOnAnyBase);
        Ok((same_base || planted!(FoldSent)).then_some((older, payload)))
    }

    fn before_of(&self, sequence: u64) -> Result<String> {
        Ok(self
            .conn
            .prepare_cached("SELECT before FROM sync_queue WHERE sequence = ?1")?
            .query_row([sequence], |row| row.get(0))?)
    }

    fn is_first_of_lane(&self, row: &QueueRow) -> Result<bool> {
        let first: Option<u64> = self
            .conn
            .prepare_cached("SELECT min(sequence) FROM sync_queue WHERE entity = ?1 AND open = 1")?
            .query_row([row.entity], |found| found.get(0))?;
        Ok(first == Some(row.sequence))
    }

    fn has_dependents(&self, sequence: u64) -> Result<bool> {
        Ok(self
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dependencies WHERE depends_on = ?1)")?
            .query_row([sequence], |row| row.get(0))?)
    }

    /// The create of a pair that folded to nothing.
    pub(super) fn cancel_folded_away(&mut self, older: &QueueRow, now: Timestamp) -> Result<()> {
        self.transition(older, OperationStatus::Cancelled, Why::code("coalesced"), now)
    }
}
