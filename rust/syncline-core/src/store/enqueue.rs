//! Recording what the app wants: one queue row and its effect on the replica, in one transaction.

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};
use syncline_protocol::{
    Clock, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OPERATIONS, OperationKind, Record, Timestamp, canonical_payload,
    check_entity_id, check_name, planted,
};

use super::Store;
use super::coalesce::Folded;
use super::entity::{EntityRow, Step, fold};
use super::row::{QueueRow, clock_text};
use crate::config::EntityType;
use crate::error::{Result, SynclineError};
use crate::operation::{NewOperation, OperationStatus, Receipt};

/// A [`NewOperation`] that has been checked. Made on the caller's thread, before the writer is asked.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub id: String,
    pub kind: OperationKind,
    pub entity_type: String,
    pub entity_id: String,
    pub payload: Option<String>,
    pub(super) patch: Option<Record>,
    payload_hash: [u8; 32],
    content_hash: [u8; 32],
    key: Option<String>,
    depends_on: Vec<Receipt>,
    max_attempts: u32,
    pub(super) coalesce: bool,
}

/// What a member of a transaction had seen when it was added (spec §5): taken then, not at commit.
#[derive(Debug, Clone)]
pub(crate) struct GroupMember {
    pub operation: Prepared,
    base_clock: Clock,
    before: String,
}

impl Prepared {
    /// Checks an operation against spec §6 and the entity type's settings.
    ///
    /// # Errors
    /// `invalid_operation`, with the argument or the payload's member named.
    pub(crate) fn new(operation: NewOperation, id: String, settings: &EntityType) -> Result<Self> {
        if !check_name(&operation.entity_type) {
            return Err(SynclineError::invalid("entity_type", "must have 1 to 64 characters of a-z, 0-9 and _"));
        }
        if !check_entity_id(&operation.entity_id) {
            let detail = "must have 1 to 128 characters, none of them a control character";
            return Err(SynclineError::invalid("entity_id", detail));
        }
        if let Some(key) = &operation.idempotency_key
            && (!check_entity_id(key) || key.contains('#'))
        {
            let detail = "must have 1 to 128 characters, without # and control characters";
            return Err(SynclineError::invalid("idempotency_key", detail));
        }
        let max_attempts = operation.max_attempts.unwrap_or(settings.max_attempts);
        if !(1..=100).contains(&max_attempts) {
            return Err(SynclineError::invalid("max_attempts", "must be 1 to 100"));
        }
        if operation.depends_on.len() > 100 {
            return Err(SynclineError::invalid("depends_on", "must name at most 100 operations"));
        }
        let payload = match (operation.kind, operation.payload) {
            (OperationKind::Delete, Some(_)) => {
                return Err(SynclineError::invalid("payload", "must be absent for a delete"));
            }
            (OperationKind::Delete, None) => None,
            (_, None) => return Err(SynclineError::invalid("payload", "is missing")),
            (_, Some(text)) => {
                let payload = canonical_payload(&text).map_err(|error| {
                    SynclineError::invalid(format!("payload{}", error.path.trim_start_matches('$')), error.reason)
                })?;
                Some(payload.into_string())
            }
        };
        let patch = match &payload {
            Some(text) => Some(super::row::parse_record(text)?),
            None => None,
        };
        let payload_hash: [u8; 32] = Sha256::digest(payload.as_deref().unwrap_or("null")).into();
        let content_hash = length_prefixed(&[
            operation.kind.as_str().as_bytes(),
            operation.entity_type.as_bytes(),
            operation.entity_id.as_bytes(),
            &payload_hash,
        ]);
        Ok(Self {
            id,
            kind: operation.kind,
            entity_type: operation.entity_type,
            entity_id: operation.entity_id,
            payload,
            patch,
            payload_hash,
            content_hash,
            key: operation.idempotency_key,
            depends_on: operation.depends_on,
            max_attempts,
            coalesce: settings.coalesce,
        })
    }
}

impl Store {
    /// Makes an operation durable together with its effect on the replica.
    pub(crate) fn enqueue(&mut self, operation: &Prepared, now: Timestamp) -> Result<Receipt> {
        self.write(|store| store.enqueue_one(operation, None, now))
    }

    /// Makes all of them durable, or none.
    pub(crate) fn enqueue_all(&mut self, operations: &[Prepared], now: Timestamp) -> Result<Vec<Receipt>> {
        self.write(|store| operations.iter().map(|operation| store.enqueue_one(operation, None, now)).collect())
    }

    /// What a member of a transaction sees now.
    pub(crate) fn group_member(&self, operation: Prepared) -> Result<GroupMember> {
        let entity = self.find_entity(&operation.entity_type, &operation.entity_id)?;
        let (base_clock, before) = seen(entity.as_ref(), &operation);
        Ok(GroupMember { operation, base_clock, before })
    }

    /// Makes a transaction durable: consecutive sequences, all or none (spec §5).
    ///
    /// # Errors
    /// `invalid_operation` for an empty group, one over the limits, or one with a key that is already queued.
    pub(crate) fn commit_group(
        &mut self,
        transaction_id: &str,
        members: &[GroupMember],
        now: Timestamp,
    ) -> Result<Vec<Receipt>> {
        if members.is_empty() {
            return Err(SynclineError::invalid("transaction", "has no operations"));
        }
        if members.len() > MAX_TRANSACTION_OPERATIONS {
            let detail = format!("has more than {MAX_TRANSACTION_OPERATIONS} operations");
            return Err(SynclineError::invalid("transaction", detail));
        }
        // What an operation adds around its payload on the wire; generous, so that the text never passes the limit.
        let wire = |member: &GroupMember| {
            1024 + member.before.len()
                + clock_text(&member.base_clock).len()
                + member.operation.payload.as_ref().map_or(0, String::len)
        };
        if members.iter().map(wire).sum::<usize>() > MAX_TRANSACTION_BYTES {
            return Err(SynclineError::invalid("transaction", format!("is larger than {MAX_TRANSACTION_BYTES} bytes")));
        }
        self.write(|store| {
            members
                .iter()
                .map(|member| {
                    let receipt = store.enqueue_one(&member.operation, Some((transaction_id, member)), now)?;
                    if receipt.duplicate {
                        return Err(SynclineError::invalid(
                            "idempotency_key",
                            "is already queued outside this transaction",
                        ));
                    }
                    Ok(receipt)
                })
                .collect()
        })
    }

    pub(super) fn enqueue_one(
        &mut self,
        operation: &Prepared,
        group: Option<(&str, &GroupMember)>,
        now: Timestamp,
    ) -> Result<Receipt> {
        if let Some(key) = &operation.key
            && let Some(receipt) = self.find_key(key, &operation.content_hash)?
        {
            return Ok(receipt);
        }
        if planted!(KeyWithoutSequence)
            && let Some(receipt) =
                self.find_key(&derived_key(&self.device_id, 0, operation, now.millis()), &operation.content_hash)?
        {
            return Ok(receipt);
        }
        let tail = self.tail()?;
        let sequence = tail.next_sequence;
        let timestamp =
            if planted!(WallClock) { now.millis() } else { now.millis().max(tail.latest_ms.saturating_add(1)) };
        let dependencies = self.check_dependencies(operation, sequence)?;
        let entity = self.find_entity(&operation.entity_type, &operation.entity_id)?;
        let (base_clock, before) = match group {
            Some((_, member)) if !planted!(ClockAtCommit) => (member.base_clock.clone(), member.before.clone()),
            _ => seen(entity.as_ref(), operation),
        };
        let folded = match (&entity, group) {
            (Some(entity), None) if operation.coalesce && (dependencies.is_empty() || planted!(FoldWithDependency)) => {
                self.coalesce(entity, operation, &base_clock, timestamp)?
            }
            _ => None,
        };
        let entity = match entity {
            Some(entity) => self.fold_new(entity, operation, folded.is_some())?,
            None => self.insert_entity(operation)?,
        };
        let derived;
        let key = match &operation.key {
            Some(key) => key,
            None => {
                let (place, at) = if planted!(KeyWithoutSequence) { (0, now.millis()) } else { (sequence, timestamp) };
                derived = derived_key(&self.device_id, place, operation, at);
                &derived
            }
        };
        let payload = if folded.is_some() { None } else { operation.payload.as_deref() };
        let bytes_through = tail.bytes_through.saturating_add(payload.map_or(0, str::len) as u64);
        let ended = folded.as_ref().map(|_| now.millis());
        self.conn.prepare_cached(INSERT)?.execute(params![
            sequence,
            operation.id,
            key,
            operation.content_hash,
            entity,
            operation.kind.as_str(),
            payload,
            before,
            clock_text(&base_clock),
            timestamp,
            now.millis(),
            group.map(|(transaction_id, _)| transaction_id),
            operation.max_attempts,
            bytes_through,
            if folded.is_some() { "cancelled" } else { "pending" },
            folded.is_none(),
            folded.as_ref().map(|_| "coalesced"),
            folded.as_ref().map(|folded| folded.survivor),
            ended,
        ])?;
        let waits = folded.as_ref().filter(|_| planted!(FoldWithDependency)).map_or(sequence, |folded| folded.survivor);
        for (earlier, id) in dependencies {
            self.conn
                .prepare_cached(
                    "INSERT OR IGNORE INTO dependencies (sequence, depends_on, depends_on_id) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![waits, earlier, id])?;
        }
        // Only now: what failed above must leave the tail to be read anew, which `write` sees to.
        let mut tail = self.tail()?;
        tail.next_sequence += 1;
        tail.bytes_through = bytes_through;
        tail.latest_ms = if planted!(ForgetOwnTimes) { tail.latest_ms } else { timestamp };
        self.tail = Some(tail);
        let status = if folded.is_some() { OperationStatus::Cancelled } else { OperationStatus::Pending };
        self.note_enqueued(&operation.id, sequence, status, now);
        if let Some(Folded { also_cancelled: Some(survivor), .. }) = folded {
            self.cancel_folded_away(&survivor, now)?;
        }
        Ok(Receipt { id: operation.id.clone(), sequence, duplicate: false })
    }

    /// The receipt of what is queued under a caller's key, if anything is.
    fn find_key(&self, key: &str, content_hash: &[u8; 32]) -> Result<Option<Receipt>> {
        let found: Option<(u64, String, Vec<u8>, Option<u64>)> = self
            .conn
            .prepare_cached("SELECT sequence, id, content_hash, survivor FROM sync_queue WHERE idempotency_key = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((sequence, id, hash, survivor)) = found else { return Ok(None) };
        if hash != content_hash {
            let detail = "is already queued with another operation, entity or payload";
            return Err(SynclineError::invalid("idempotency_key", detail));
        }
        let survivor = match survivor {
            Some(survivor) => QueueRow::find(&self.conn, survivor)?,
            None => None,
        };
        let (id, sequence) = survivor.map_or((id, sequence), |row| (row.id, row.sequence));
        Ok(Some(Receipt { id, sequence, duplicate: true }))
    }

    /// The dependencies to record: those that are not settled yet, or failed. What was folded leads to its survivor.
    fn check_dependencies(&self, operation: &Prepared, sequence: u64) -> Result<Vec<(u64, String)>> {
        let mut recorded = Vec::new();
        for (index, receipt) in operation.depends_on.iter().enumerate() {
            let field = || format!("depends_on[{index}]");
            if receipt.sequence == 0 || receipt.sequence >= sequence {
                return Err(SynclineError::invalid(field(), "is not the receipt of an earlier operation"));
            }
            let mut row = QueueRow::find(&self.conn, receipt.sequence)?;
            if row.as_ref().is_some_and(|row| row.id != receipt.id) {
                return Err(SynclineError::invalid(field(), "is not the receipt of an operation in this file"));
            }
            let folded = row.as_ref().and_then(|row| row.survivor);
            if let Some(survivor) = folded {
                row = QueueRow::find(&self.conn, survivor)?;
            }
            match row {
                None => {} // pruned: counts as completed
                Some(row) if row.status == OperationStatus::Completed => recorded.push((row.sequence, row.id)),
                // A pair that folded to nothing has nothing to wait for.
                Some(row) if row.status == OperationStatus::Cancelled && folded.is_some() => {}
                Some(row) if row.status == OperationStatus::Cancelled => {
                    return Err(SynclineError::invalid(field(), "was cancelled"));
                }
                Some(row) => recorded.push((row.sequence, row.id)),
            }
        }
        Ok(recorded)
    }

    fn insert_entity(&mut self, operation: &Prepared) -> Result<i64> {
        let step = Step { kind: operation.kind, payload: operation.patch.as_ref() };
        let current = fold(None, &step).map(|record| record.to_string());
        let change = self.next_change()?;
        self.conn
            .prepare_cached(
                "INSERT INTO entities (entity_type, entity_id, current, open_operations, change) VALUES (?1, ?2, ?3, 1, ?4)",
            )?
            .execute(params![operation.entity_type, operation.entity_id, current, change])?;
        self.note_entity(&operation.entity_type, &operation.entity_id);
        Ok(self.conn.last_insert_rowid())
    }

    /// The newest operation is the last step of the fold, so `current` alone is enough to go on from.
    fn fold_new(&mut self, entity: EntityRow, operation: &Prepared, folded: bool) -> Result<i64> {
        let current = entity.current.as_deref().map(super::row::parse_record).transpose()?;
        let step = Step { kind: operation.kind, payload: operation.patch.as_ref() };
        let current = fold(current, &step).map(|record| record.to_string());
        let change = if current == entity.current { None } else { Some(self.next_change()?) };
        self.conn
            .prepare_cached(
                "UPDATE entities SET current = ?2, open_operations = open_operations + ?3, change = coalesce(?4, change)
                 WHERE entity = ?1",
            )?
            .execute(params![entity.entity, current, if folded { 0 } else { 1 }, change])?;
        self.note_entity(&operation.entity_type, &operation.entity_id);
        Ok(entity.entity)
    }
}

const INSERT: &str = "INSERT INTO sync_queue (sequence, id, idempotency_key, content_hash, entity, operation, payload, before,
        base_clock, timestamp, enqueued_at, transaction_id, max_attempts, bytes_through, status, open, reason, survivor, ended_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// What the device has seen of an entity: the base's clock, and the base's values of the fields that are about to change.
fn seen(entity: Option<&EntityRow>, operation: &Prepared) -> (Clock, String) {
    let Some(entity) = entity else { return (Clock::new(), "{}".into()) };
    let before = match (&entity.base, &operation.patch) {
        (None, _) => Record::new(),
        (Some(base), None) => base.clone(),
        (Some(base), Some(patch)) => {
            let mut before = Record::new();
            for (field, _) in patch.members() {
                before.set(field, base.get(field));
            }
            before
        }
    };
    (entity.base_clock.clone(), before.to_string())
}

/// The key of an operation whose caller gave none (spec §2). The sequence makes it unique.
fn derived_key(device_id: &str, sequence: u64, operation: &Prepared, timestamp: i64) -> String {
    let hash = length_prefixed(&[
        device_id.as_bytes(),
        sequence.to_string().as_bytes(),
        operation.kind.as_str().as_bytes(),
        operation.entity_type.as_bytes(),
        operation.entity_id.as_bytes(),
        Timestamp::from_millis(timestamp).to_string().as_bytes(),
        &operation.payload_hash,
    ]);
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        text.push(HEX[usize::from(byte >> 4)] as char);
        text.push(HEX[usize::from(byte & 15)] as char);
        text
    })
}

fn length_prefixed(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
