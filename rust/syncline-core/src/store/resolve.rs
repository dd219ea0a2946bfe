//! Deciding a `manual` conflict, and bringing back a value that lost one (spec §4 rule 7).

use rusqlite::{OptionalExtension, params};
use serde_json::value::RawValue;
use syncline_protocol::{Conflict, ConflictResult, OperationKind, Record, Timestamp, Winner, canonical_payload};

use super::failure::unreadable;
use super::row::{QueueRow, parse_record};
use super::transition::Why;
use super::{Prepared, Store};
use crate::conflict::{Resolution, ResolutionKind};
use crate::error::{Result, SynclineError};
use crate::operation::{NewOperation, OperationStatus, Receipt};

impl Store {
    /// Decides a conflict, named by its ledger entry's or its operation's id.
    ///
    /// # Errors
    /// `not_possible` if there is no undecided conflict by that id; `invalid_operation` for a merged value that is no payload.
    pub(crate) fn resolve_conflict(&mut self, id: &str, resolution: &Resolution, now: Timestamp) -> Result<()> {
        let merged = match resolution {
            Resolution::Merged(value) => Some(canonical_payload(value).map_err(|error| {
                SynclineError::invalid(format!("value{}", error.path.trim_start_matches('$')), error.reason)
            })?),
            _ => None,
        };
        self.write(|store| {
            let row = store.conflicted(id)?;
            store.pass_on_their_clock(&row)?;
            match resolution {
                Resolution::TakeRemote => {
                    store.settle_ledger(&row.id, ResolutionKind::TakeRemote, now)?;
                    store.transition(&row, OperationStatus::Cancelled, Why::code("resolved"), now)?;
                    store.after_cancel(&row, now)?;
                }
                Resolution::TakeLocal => store.send_again(&row, None, ResolutionKind::TakeLocal, now)?,
                Resolution::Merged(_) => {
                    let value = merged.as_ref().map(|payload| payload.as_str());
                    store.send_again(&row, value, ResolutionKind::Merged, now)?;
                }
            }
            store.release(row.sequence)?;
            store.refold_all([row.entity])
        })
    }

    /// The operation that would restore what lost in a ledger entry: a new operation, on what the device sees now.
    fn reopening(&self, conflict_id: &str) -> Result<NewOperation> {
        let (conflict, resolution) = self.ledger_entry(conflict_id)?;
        // Where no rule decided, the app did, for the whole entry.
        let decided = match (conflict.result, resolution) {
            (ConflictResult::Merged, _) => Winner::None,
            (ConflictResult::Conflict, Some(ResolutionKind::TakeLocal)) => Winner::Ours,
            (ConflictResult::Conflict, Some(ResolutionKind::TakeRemote | ResolutionKind::Discarded)) => Winner::Theirs,
            (ConflictResult::Conflict, Some(ResolutionKind::Merged)) => {
                return Err(SynclineError::not_possible(
                    "neither value lost to the other: the app gave one of its own",
                ));
            }
            (ConflictResult::Conflict, None) => {
                return Err(SynclineError::not_possible("the conflict is still to be resolved"));
            }
        };
        let winner = |winner: Winner| if winner == Winner::None { decided } else { winner };
        let deletes = conflict.operation == OperationKind::Delete;
        // A deletion wins or loses as a whole; where it met no field, only the rule tells.
        let ours_stands = conflict.fields.values().any(|field| winner(field.winner) == Winner::Ours)
            || decided == Winner::Ours
            || (conflict.fields.is_empty() && conflict.rule == if deletes { "delete_wins" } else { "update_wins" });
        let deletion_lost = if deletes { !ours_stands } else { conflict.their_deleted && ours_stands };
        if deletion_lost {
            return Ok(NewOperation::delete(conflict.entity_type, conflict.entity_id));
        }
        let mut lost = Record::new();
        let mut members = Vec::new();
        for (name, field) in &conflict.fields {
            let value = match winner(field.winner) {
                Winner::Ours => &field.theirs,
                Winner::Theirs => &field.ours,
                Winner::None => return Err(unreadable("a ledger row")),
            };
            lost.set(name, value.as_deref());
            let text = value.as_deref().map_or("null", RawValue::get);
            members.push(format!("{}:{text}", serde_json::Value::String(name.clone())));
        }
        let payload = format!("{{{}}}", members.join(","));
        let lives = self
            .find_entity(&conflict.entity_type, &conflict.entity_id)?
            .is_some_and(|entity| entity.current.is_some());
        Ok(if lives {
            NewOperation::update(conflict.entity_type, conflict.entity_id, payload)
        } else {
            NewOperation::create(conflict.entity_type, conflict.entity_id, lost.to_string())
        })
    }

    /// Brings back what lost in a ledger entry: the new operation and the note of it in the ledger, together.
    pub(crate) fn reopen(&mut self, conflict_id: &str, operation_id: String, now: Timestamp) -> Result<Receipt> {
        self.write(|store| {
            let operation = store.reopening(conflict_id)?;
            let settings = store.options.entity_type(&operation.entity_type);
            let receipt = store.enqueue_one(&Prepared::new(operation, operation_id, &settings)?, None, now)?;
            store
                .conn
                .prepare_cached("UPDATE conflicts SET reopened_by = ?2 WHERE id = ?1")?
                .execute([conflict_id, receipt.id.as_str()])?;
            Ok(receipt)
        })
    }

    fn conflicted(&self, id: &str) -> Result<QueueRow> {
        let by_entry: Option<String> = self
            .conn
            .prepare_cached("SELECT operation_id FROM conflicts WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        let row = QueueRow::find_id(&self.conn, by_entry.as_deref().unwrap_or(id))?;
        row.filter(|row| row.status == OperationStatus::Conflicted)
            .ok_or_else(|| SynclineError::not_possible("there is no undecided conflict with this id"))
    }

    fn ledger_entry(&self, conflict_id: &str) -> Result<(Conflict, Option<ResolutionKind>)> {
        let found: Option<(String, Option<String>)> = self
            .conn
            .prepare_cached("SELECT conflict, resolution FROM conflicts WHERE id = ?1")?
            .query_row([conflict_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (text, resolution) =
            found.ok_or_else(|| SynclineError::not_possible("there is no ledger entry with this id"))?;
        let conflict = serde_json::from_str(&text).map_err(|_| unreadable("a ledger row"))?;
        Ok((conflict, resolution.as_deref().and_then(ResolutionKind::parse)))
    }

    /// Sends a conflicted operation again as one that has seen theirs: with its own value, or with the one given.
    fn send_again(&mut self, row: &QueueRow, value: Option<&str>, kind: ResolutionKind, now: Timestamp) -> Result<()> {
        let conflict = self
            .see_their_clock(row)?
            .ok_or_else(|| SynclineError::not_possible("the ledger has no entry for this operation"))?;
        let (payload, before): (Option<String>, String) = self
            .conn
            .prepare_cached("SELECT payload, before FROM sync_queue WHERE sequence = ?1")?
            .query_row([row.sequence], |found| Ok((found.get(0)?, found.get(1)?)))?;
        let old_bytes = payload.as_ref().map_or(0, String::len) as i64;
        let mut payload = value.map(str::to_owned).or(payload);
        let mut operation = row.kind;
        if conflict.their_deleted && payload.is_some() && operation != OperationKind::Delete {
            // Nothing is left to update: the whole value comes to life again.
            operation = OperationKind::Create;
            if value.is_none() {
                payload = Some(whole_value(&conflict, payload.as_deref().unwrap_or("{}"), &before)?);
            }
        } else if operation == OperationKind::Delete && value.is_some() {
            operation = if conflict.their_deleted { OperationKind::Create } else { OperationKind::Update };
        }
        let mut before = parse_record(&before)?;
        for (name, field) in &conflict.fields {
            before.set(name, field.theirs.as_deref());
        }
        self.conn
            .prepare_cached("UPDATE sync_queue SET operation = ?2, payload = ?3, before = ?4 WHERE sequence = ?1")?
            .execute(params![row.sequence, operation.as_str(), payload, before.to_string()])?;
        self.note_bytes_grown(payload.as_ref().map_or(0, String::len) as i64 - old_bytes);
        self.settle_ledger(&row.id, kind, now)?;
        self.make_pending_again(row, now)
    }
}

/// What an update stood on, with the update on top: what the ledger says of the deleted record, then what the device had seen.
fn whole_value(conflict: &Conflict, payload: &str, before: &str) -> Result<String> {
    let mut whole = Record::new();
    for (name, field) in &conflict.fields {
        whole.set(name, field.theirs.as_deref());
    }
    whole.apply(&parse_record(before)?);
    whole.apply(&parse_record(payload)?);
    Ok(whole.to_string())
}
