//! Spec §4, rules 3 to 6, on one record and one operation: read sentence by sentence.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use syncline_protocol::{ConflictRule, DeleteRule, OperationKind};

use super::state::{Clock, Record, Write, has_seen, has_seen_all};
use super::used::Used;
use super::values::same;

/// An operation, as the rules see it.
pub(crate) struct Intent<'a> {
    pub(crate) operation: OperationKind,
    pub(crate) patch: &'a BTreeMap<String, Value>,
    /// The old values, where the device sent them.
    pub(crate) before: Option<&'a BTreeMap<String, Value>>,
    /// B
    pub(crate) base: &'a Clock,
    /// (A, n) and its clamped timestamp
    pub(crate) write: &'a Write,
}

/// Rule 7: "rule, result, … and per field `base`, `ours`, `theirs`, `winner`".
pub(crate) struct Dispute {
    pub(crate) rule: &'static str,
    pub(crate) fields: Map<String, Value>,
}

pub(crate) enum Ruling {
    /// `applied` or `merged`: what the entity is from now on.
    Takes(&'static str, Option<Record>, Option<Dispute>),
    /// `conflict`: nothing applied, no dot.
    Conflict(Dispute),
    /// `rejected`, with this code.
    Rejected(&'static str),
}

pub(crate) fn rule_on(
    record: Option<&Record>,
    intent: &Intent<'_>,
    rules: (ConflictRule, DeleteRule),
    used: &mut Used,
) -> Ruling {
    use OperationKind::{Create, Delete, Update};
    // Rule 3: "no record: a create applies, a delete has nothing to do (`applied`), an update is `rejected`".
    let Some(record) = record else {
        used.note(match intent.operation {
            Create => "3: no record, a create",
            Delete => "3: no record, a delete",
            Update if intent.base.is_empty() => "3: no record, an update of what never was",
            Update => "3: no record, an update of what was",
        });
        return match intent.operation {
            Create => Ruling::Takes("applied", Some(Record::create(intent.patch, intent.write)), None),
            Delete => Ruling::Takes("applied", None, None),
            Update if intent.base.is_empty() => Ruling::Rejected("not_found"),
            Update => Ruling::Rejected("gone"),
        };
    };
    match (&record.deleted, intent.operation) {
        // Rule 4: "a create of a live record is an update of its fields".
        (None, kind @ (Create | Update)) => {
            if kind == Create {
                used.note("4: a create of a live record");
            }
            write_live(record, intent, rules.0, used)
        }
        (None, Delete) => delete_live(record, intent, rules, used),
        // Rule 6: "a delete of a tombstone is `applied` and changes nothing".
        (Some(_), Delete) => {
            used.note("6: a delete of a tombstone");
            Ruling::Takes("applied", Some(record.clone()), None)
        }
        (Some(delete), _) if !has_seen(intent.base, delete) => write_dead(record, intent, rules, used),
        // Rule 3: "`gone` also on a tombstone that it has seen".
        (Some(_), Update) => {
            used.note("3: an update that has seen the tombstone");
            Ruling::Rejected("gone")
        }
        // Rule 4: a create "that has seen the tombstone replaces everything, field clocks too".
        (Some(_), Create) => {
            used.note("4: a create that has seen the tombstone");
            takes(record, Record::create(intent.patch, intent.write), intent, None)
        }
    }
}

/// Rule 4: "`applied` if B covers S, else `merged`". Rules 5 and 6: with a conflict `merged`.
fn takes(record: &Record, next: Record, intent: &Intent<'_>, dispute: Option<Dispute>) -> Ruling {
    let has_seen_it = has_seen_all(intent.base, &record.clock());
    let status = if has_seen_it && dispute.is_none() { "applied" } else { "merged" };
    Ruling::Takes(status, Some(next), dispute)
}

/// Rules 4 and 5.
fn write_live(record: &Record, intent: &Intent<'_>, rule: ConflictRule, used: &mut Used) -> Ruling {
    let mut next = record.clone();
    let mut fields = Map::new();
    for (name, value) in intent.patch {
        let setter = record.setter(name);
        let theirs = record.fields.get(name).map_or(&Value::Null, |field| &field.value);
        let ours_is_later = intent.write.is_later_than(setter);
        // "A patched field applies if B covers the dot that last set it …"
        let applies = if has_seen(intent.base, setter) {
            used.note("4: a field whose setter was seen");
            true
        // "… or the value is equal (the later of the two, by timestamp then device id, stays as its dot)"
        } else if same(theirs, value) {
            let (ours, theirs) = ("4: an equal value, ours the later", "4: an equal value, theirs the later");
            used.note(if ours_is_later { ours } else { theirs });
            ours_is_later
        // Rule 5: "conflict → the entity type's rule"
        } else {
            if !record.fields.contains_key(name) {
                used.note("4: a field that only the create set");
            }
            note_dispute(intent, setter, rule, used);
            let winner = match rule {
                ConflictRule::LastWriterWins if ours_is_later => "ours",
                ConflictRule::LastWriterWins | ConflictRule::ServerWins => "theirs",
                ConflictRule::ClientWins => "ours",
                ConflictRule::Manual => "none",
            };
            fields.insert(name.clone(), field_of_ledger(record, intent, name, winner));
            winner == "ours"
        };
        if applies {
            next.set(name, value, intent.write);
        }
    }
    if fields.is_empty() {
        let covers = has_seen_all(intent.base, &record.clock());
        used.note(if covers { "4: the base covers all" } else { "4: the base does not cover all" });
        return takes(record, next, intent, None);
    }
    let rule = match rule {
        ConflictRule::LastWriterWins => "last_writer_wins",
        ConflictRule::ServerWins => "server_wins",
        ConflictRule::ClientWins => "client_wins",
        // "`manual`: `conflict`, nothing applied, no dot."
        ConflictRule::Manual => return Ruling::Conflict(Dispute { rule: "manual", fields }),
    };
    takes(record, next, intent, Some(Dispute { rule, fields }))
}

fn note_dispute(intent: &Intent<'_>, setter: &Write, rule: ConflictRule, used: &mut Used) {
    if rule == ConflictRule::LastWriterWins && intent.write.at == setter.at {
        used.note("5: last_writer_wins, a tie of timestamps");
    }
    used.note(match rule {
        ConflictRule::LastWriterWins if intent.write.is_later_than(setter) => "5: last_writer_wins, ours",
        ConflictRule::LastWriterWins => "5: last_writer_wins, theirs",
        ConflictRule::ServerWins => "5: server_wins",
        ConflictRule::ClientWins => "5: client_wins",
        ConflictRule::Manual => "5: manual",
    });
}

/// Rule 6: "a delete that has not seen the last setter of some field"; "a record without fields counts as one field set by
/// its create".
fn delete_live(
    record: &Record,
    intent: &Intent<'_>,
    (conflict, delete): (ConflictRule, DeleteRule),
    used: &mut Used,
) -> Ruling {
    let mut next = record.clone();
    let unseen = |name: &&String| !has_seen(intent.base, record.setter(name));
    let is_empty_and_unseen = record.fields.is_empty() && !has_seen(intent.base, &record.created);
    let names: Vec<_> = record.fields.keys().filter(unseen).collect();
    if names.is_empty() && !is_empty_and_unseen {
        next.deleted = Some(intent.write.clone());
        return takes(record, next, intent, None);
    }
    if is_empty_and_unseen {
        used.note("6: a delete of a record without fields");
    }
    used.note(match (conflict, delete) {
        (ConflictRule::Manual, _) => "6: a delete, manual",
        (_, DeleteRule::UpdateWins) => "6: a delete, update_wins",
        (_, DeleteRule::DeleteWins) => "6: a delete, delete_wins",
    });
    let (rule, winner) = match (conflict, delete) {
        (ConflictRule::Manual, _) => ("manual", "none"),
        // "default: the delete is not applied"
        (_, DeleteRule::UpdateWins) => ("update_wins", "theirs"),
        (_, DeleteRule::DeleteWins) => ("delete_wins", "ours"),
    };
    let fields = names.into_iter().map(|name| (name.clone(), field_of_ledger(record, intent, name, winner))).collect();
    let dispute = Dispute { rule, fields };
    if winner == "none" {
        return Ruling::Conflict(dispute);
    }
    if winner == "ours" {
        next.deleted = Some(intent.write.clone());
    }
    takes(record, next, intent, Some(dispute))
}

/// Rule 6: "an update that has not seen the delete", and "a create that has not seen the tombstone counts as an update here".
fn write_dead(
    record: &Record,
    intent: &Intent<'_>,
    (conflict, delete): (ConflictRule, DeleteRule),
    used: &mut Used,
) -> Ruling {
    if intent.operation == OperationKind::Create {
        used.note("6: a create that has not seen the tombstone");
    }
    used.note(match (conflict, delete) {
        (ConflictRule::Manual, _) => "6: a write on a tombstone, manual",
        (_, DeleteRule::UpdateWins) => "6: a write on a tombstone, update_wins",
        (_, DeleteRule::DeleteWins) => "6: a write on a tombstone, delete_wins",
    });
    let (rule, winner) = match (conflict, delete) {
        (ConflictRule::Manual, _) => ("manual", "none"),
        (_, DeleteRule::UpdateWins) => ("update_wins", "ours"),
        (_, DeleteRule::DeleteWins) => ("delete_wins", "theirs"),
    };
    let names = intent.patch.keys();
    let fields = names.map(|name| (name.clone(), field_of_ledger(record, intent, name, winner))).collect();
    let dispute = Dispute { rule, fields };
    if winner == "none" {
        return Ruling::Conflict(dispute);
    }
    let mut next = record.clone();
    if winner == "ours" {
        // "the record revives with its last payload + patch"
        next.deleted = None;
        for (name, value) in intent.patch {
            next.set(name, value, intent.write);
        }
    }
    takes(record, next, intent, Some(dispute))
}

/// Rule 7: `theirs` is what the world saw, so nothing where the record was deleted.
fn field_of_ledger(record: &Record, intent: &Intent<'_>, name: &str, winner: &str) -> Value {
    let theirs = record.visible().and_then(|payload| payload.get(name).cloned());
    let base = intent.before.and_then(|before| before.get(name));
    json!({ "base": base, "ours": intent.patch.get(name), "theirs": theirs, "winner": winner })
}
