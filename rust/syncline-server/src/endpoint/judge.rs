//! The rules of spec §4 on one record and one operation: values in, values out.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use syncline_protocol::{
    Clock, ConflictResult, ConflictRule, DeleteRule, FieldConflict, OperationKind, Record, Winner, planted,
};

use super::record::{ServerRecord, Write};

/// What is judged: the operation as the rules see it.
#[derive(Debug, Clone)]
pub(super) struct Intent<'a> {
    /// What it intends.
    pub(super) kind: OperationKind,
    /// The fields it writes; empty for a delete.
    pub(super) patch: &'a Record,
    /// The old values, where the device sent them.
    pub(super) before: Option<&'a Record>,
    /// What the device had seen.
    pub(super) base: &'a Clock,
    /// Its dot and clamped timestamp.
    pub(super) write: Write,
}

/// The rules that hold for an entity type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// For two writes to one field.
    pub(super) conflict: ConflictRule,
    /// For a deletion and a write.
    pub(super) delete: DeleteRule,
}

/// What a ledger entry says that the rules know.
#[derive(Debug, Clone)]
pub(super) struct Dispute {
    /// The rule's name on the wire.
    pub(super) rule: &'static str,
    /// Whether a rule decided, or nobody.
    pub(super) result: ConflictResult,
    /// Whether the record was a tombstone.
    pub(super) their_deleted: bool,
    /// The fields in conflict.
    pub(super) fields: BTreeMap<String, FieldConflict>,
}

/// What the rules say.
#[derive(Debug, Clone)]
pub(super) enum Judgement {
    /// The operation takes effect. `record` is what the entity is from now on; `None`: still nothing.
    Accepted {
        /// The new record.
        record: Option<ServerRecord>,
        /// `merged` instead of `applied`.
        merged: bool,
        /// The ledger entry, if a value lost.
        dispute: Option<Dispute>,
    },
    /// A `manual` type: nothing applied.
    Conflict(Dispute),
    /// There is no record to update.
    NotFound,
    /// The record was deleted, and the writer had seen it.
    Gone,
}

/// Judges `intent` on `record` (spec §4, rules 3 to 6).
pub(super) fn judge(record: Option<&ServerRecord>, intent: &Intent<'_>, rules: Rules) -> Judgement {
    match (record, intent.kind) {
        (None, OperationKind::Create) => applied(Some(ServerRecord::create(intent.patch, intent.write.clone()))),
        (None, OperationKind::Delete) => applied(None),
        (None, OperationKind::Update) if intent.base.is_empty() => Judgement::NotFound,
        (None, OperationKind::Update) => Judgement::Gone,
        (Some(record), kind) => match (&record.deleted, kind) {
            (None, OperationKind::Delete) => delete(record, intent, rules),
            (None, _) => patch(record, intent, rules.conflict),
            (Some(_), OperationKind::Delete) => applied(Some(record.clone())),
            (Some(deleted), _) => write_on_tombstone(record, deleted, intent, rules),
        },
    }
}

/// Rules 4 and 5: an update of a live record, or a create that meets one.
fn patch(record: &ServerRecord, intent: &Intent<'_>, rule: ConflictRule) -> Judgement {
    let mut next = record.clone();
    let mut fields = BTreeMap::new();
    for (field, value) in intent.patch.members() {
        let setter = record.setter(field);
        let without_dot = planted!(FieldWithoutDot) && !record.fields.contains_key(field);
        if intent.base.covers(&setter.dot) || without_dot {
            next.set(field, Some(value), intent.write.clone());
        } else if Record::same_value(record.payload.get(field), Some(value)) {
            // If theirs is the later one, nothing differs: a dot copied from the create would look like a change.
            if intent.write.is_later_than(setter) || planted!(EqualTakesLast) {
                next.fields.insert(field.to_owned(), intent.write.clone());
            }
        } else {
            let winner = winner(rule, &intent.write, setter);
            if winner == Winner::Ours {
                next.set(field, Some(value), intent.write.clone());
            }
            fields.insert(field.to_owned(), dispute_field(record, intent, field, winner));
        }
    }
    if fields.is_empty() {
        return accepted(record, next, intent, None);
    }
    let (name, result) = match rule {
        ConflictRule::LastWriterWins => ("last_writer_wins", ConflictResult::Merged),
        ConflictRule::ServerWins => ("server_wins", ConflictResult::Merged),
        ConflictRule::ClientWins => ("client_wins", ConflictResult::Merged),
        ConflictRule::Manual => ("manual", ConflictResult::Conflict),
    };
    let dispute = Dispute { rule: name, result, their_deleted: false, fields };
    match result {
        ConflictResult::Merged => accepted(record, next, intent, Some(dispute)),
        ConflictResult::Conflict => Judgement::Conflict(dispute),
    }
}

fn winner(rule: ConflictRule, ours: &Write, theirs: &Write) -> Winner {
    match rule {
        ConflictRule::LastWriterWins if ours.is_later_than(theirs) => Winner::Ours,
        ConflictRule::LastWriterWins | ConflictRule::ServerWins => Winner::Theirs,
        ConflictRule::ClientWins => Winner::Ours,
        ConflictRule::Manual => Winner::None,
    }
}

/// Rule 6, a delete of a live record. A removed field counts as well: its removal is a write.
fn delete(record: &ServerRecord, intent: &Intent<'_>, rules: Rules) -> Judgement {
    let deleted = || ServerRecord { deleted: Some(intent.write.clone()), ..record.clone() };
    let by_create = record.payload.members().any(|(field, _)| !record.fields.contains_key(field));
    let counts_create = by_create || record.fields.is_empty();
    let create_unseen = counts_create && !intent.base.covers(&record.created.dot);
    let all_seen = !create_unseen && record.fields.values().all(|write| intent.base.covers(&write.dot));
    if all_seen || planted!(DeleteUnseen) {
        return accepted(record, deleted(), intent, None);
    }
    let winner = deletion_winner(rules, Winner::Ours);
    let names = record.payload.members().map(|(field, _)| field).chain(record.fields.keys().map(String::as_str));
    let fields = names
        .filter(|field| !intent.base.covers(&record.setter(field).dot))
        .map(|field| (field.to_owned(), dispute_field(record, intent, field, winner)))
        .collect();
    let next = if winner == Winner::Ours { deleted() } else { record.clone() };
    settle_deletion(record, next, intent, rules, fields)
}

/// Rules 3, 4 and 6: a create or an update that meets a tombstone.
fn write_on_tombstone(record: &ServerRecord, deleted: &Write, intent: &Intent<'_>, rules: Rules) -> Judgement {
    let revives = planted!(UpdateRevivesSeen) && intent.kind == OperationKind::Update;
    if intent.base.covers(&deleted.dot) && !revives {
        return match intent.kind {
            OperationKind::Create => {
                accepted(record, ServerRecord::create(intent.patch, intent.write.clone()), intent, None)
            }
            _ => Judgement::Gone,
        };
    }
    let winner = deletion_winner(rules, Winner::Theirs);
    let mut next = record.clone();
    if winner == Winner::Ours {
        next.deleted = None;
        for (field, value) in intent.patch.members() {
            next.set(field, Some(value), intent.write.clone());
        }
    }
    let fields = intent
        .patch
        .members()
        .map(|(field, _)| (field.to_owned(), dispute_field(record, intent, field, winner)))
        .collect();
    settle_deletion(record, next, intent, rules, fields)
}

/// Who wins between a write and a deletion, `deletion` saying which of the two is ours.
fn deletion_winner(rules: Rules, deletion: Winner) -> Winner {
    match (rules.conflict, rules.delete, deletion) {
        (ConflictRule::Manual, _, _) => Winner::None,
        (_, DeleteRule::DeleteWins, side) => side,
        (_, DeleteRule::UpdateWins, Winner::Ours) => Winner::Theirs,
        (_, DeleteRule::UpdateWins, _) => Winner::Ours,
    }
}

fn settle_deletion(
    record: &ServerRecord,
    next: ServerRecord,
    intent: &Intent<'_>,
    rules: Rules,
    fields: BTreeMap<String, FieldConflict>,
) -> Judgement {
    let their_deleted = record.deleted.is_some();
    if rules.conflict == ConflictRule::Manual {
        let result = ConflictResult::Conflict;
        return Judgement::Conflict(Dispute { rule: "manual", result, their_deleted, fields });
    }
    let rule = match rules.delete {
        DeleteRule::UpdateWins => "update_wins",
        DeleteRule::DeleteWins => "delete_wins",
    };
    let dispute = Dispute { rule, result: ConflictResult::Merged, their_deleted, fields };
    accepted(record, next, intent, Some(dispute))
}

fn dispute_field(record: &ServerRecord, intent: &Intent<'_>, field: &str, winner: Winner) -> FieldConflict {
    let own = |value: Option<&RawValue>| value.map(ToOwned::to_owned);
    FieldConflict {
        base: own(intent.before.and_then(|before| before.get(field))),
        ours: own(intent.patch.get(field)),
        theirs: own(record.visible().and_then(|payload| payload.get(field))),
        winner,
    }
}

fn applied(record: Option<ServerRecord>) -> Judgement {
    Judgement::Accepted { record, merged: false, dispute: None }
}

fn accepted(record: &ServerRecord, next: ServerRecord, intent: &Intent<'_>, dispute: Option<Dispute>) -> Judgement {
    let merged = dispute.is_some() || !intent.base.covers_clock(&record.clock());
    Judgement::Accepted { record: Some(next), merged, dispute }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
