//! What the reference endpoint remembers: plain maps of plain values.

use std::collections::BTreeMap;

use serde_json::Value;
use syncline_protocol::OperationKind;

use super::values::same_object;

/// Per device the highest sequence seen (spec §1).
pub(crate) type Clock = BTreeMap<String, u64>;

/// An entity's type and id.
pub type Lane = (String, String);

/// §4: "the dot and timestamp that last set it".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) device: String,
    pub(crate) sequence: u64,
    /// Clamped, in milliseconds since 1970.
    pub(crate) at: i64,
}

impl Write {
    /// §4 rules 4 and 5: "by timestamp, ties by device id".
    pub(crate) fn is_later_than(&self, other: &Write) -> bool {
        self.at > other.at || self.at == other.at && self.device > other.device
    }
}

pub(crate) fn has_seen(clock: &Clock, write: &Write) -> bool {
    clock.get(&write.device).is_some_and(|seen| *seen >= write.sequence)
}

pub(crate) fn has_seen_all(clock: &Clock, other: &Clock) -> bool {
    other.iter().all(|(device, sequence)| clock.get(device).is_some_and(|seen| seen >= sequence))
}

/// A field and what last set it. A removed one is `null`, and keeps its dot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) value: Value,
    pub(crate) by: Write,
}

/// §4: "the server keeps for each record, deleted ones too until purged, the payload, and for each field …".
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) fields: BTreeMap<String, Field>,
    pub(crate) created: Write,
    pub(crate) deleted: Option<Write>,
}

impl Record {
    /// §3: "null and absent are one"; §4: a field without its own dot counts as set by the create.
    pub(crate) fn create(patch: &BTreeMap<String, Value>, by: &Write) -> Self {
        let present = patch.iter().filter(|(_, value)| !value.is_null());
        let fields = present.map(|(name, value)| (name.clone(), Field { value: value.clone(), by: by.clone() }));
        Self { fields: fields.collect(), created: by.clone(), deleted: None }
    }

    pub(crate) fn setter(&self, field: &str) -> &Write {
        self.fields.get(field).map_or(&self.created, |field| &field.by)
    }

    pub(crate) fn set(&mut self, field: &str, value: &Value, by: &Write) {
        self.fields.insert(field.to_owned(), Field { value: value.clone(), by: by.clone() });
    }

    /// The fields that exist; a tombstone keeps its last ones.
    pub(crate) fn payload(&self) -> Value {
        let present = self.fields.iter().filter(|(_, field)| !field.value.is_null());
        Value::Object(present.map(|(name, field)| (name.clone(), field.value.clone())).collect())
    }

    /// What the world sees: nothing of a tombstone.
    pub(crate) fn visible(&self) -> Option<Value> {
        self.deleted.is_none().then(|| self.payload())
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.fields.values().map(|field| &field.by).chain([&self.created]).chain(&self.deleted)
    }

    /// §4: "per device, the highest of these dots and of the create and delete, and no other".
    pub(crate) fn clock(&self) -> Clock {
        let mut clock = Clock::new();
        for write in self.writes() {
            let highest = clock.entry(write.device.clone()).or_default();
            *highest = write.sequence.max(*highest);
        }
        clock
    }

    /// §6: "the highest timestamp of its fields, create and delete".
    pub(crate) fn changed_at(&self) -> i64 {
        self.writes().map(|write| write.at).max().unwrap_or_default()
    }

    /// §6: "payload, `deleted`, or any dot or timestamp differs afterwards".
    pub(crate) fn differs_from(&self, other: &Record) -> bool {
        let names = self.fields.keys().chain(other.fields.keys());
        self.deleted != other.deleted
            || self.created != other.created
            || names.into_iter().any(|name| self.setter(name) != other.setter(name))
            || !same_object(&self.payload(), &other.payload())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entity {
    pub(crate) record: Record,
    pub(crate) version: u64,
    /// When it got that version, by the server's clock.
    pub(crate) stored_at: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) mark: u64,
    pub(crate) forgotten_through: u64,
}

/// Why an operation was refused. Messages are nobody's business here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) field: Option<String>,
    pub(crate) culprit: Option<String>,
    /// The spec does not say which field is named: what is said first stands.
    pub(crate) learns_field: bool,
}

impl Fault {
    pub(crate) fn new(code: &'static str) -> Self {
        Self { code, field: None, culprit: None, learns_field: false }
    }

    pub(crate) fn of_field(code: &'static str, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(code) }
    }
}

/// §6: "key, payload hash, effect and stored verdict". In place of the hash, what it is over.
#[derive(Debug, Clone)]
pub(crate) struct StoredVerdict {
    pub(crate) operation_id: String,
    pub(crate) device: String,
    pub(crate) sequence: u64,
    pub(crate) content: Content,
    pub(crate) verdict: &'static str,
    pub(crate) fault: Option<Fault>,
    pub(crate) conflict: Option<String>,
    pub(crate) decided_at: i64,
}

impl StoredVerdict {
    pub(crate) fn has_effect(&self) -> bool {
        matches!(self.verdict, "applied" | "merged")
    }
}

/// §6: "the hash is over operation, entity type, entity id and the payload's text as received (absent counts as `null`)".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) operation: OperationKind,
    pub(crate) lane: Lane,
    pub(crate) payload: String,
}

/// What a cursor's text was given out for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) scope: String,
    pub(crate) epoch: String,
    pub(crate) version: u64,
    /// The tombstone horizon at that time: what was purged by then, its holder need not hear of.
    pub(crate) horizon: u64,
    pub(crate) types: Option<Vec<String>>,
}

/// An operation that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The scope.
    pub scope: String,
    /// The operation's id.
    pub operation_id: String,
    /// The key of its verdict.
    pub key: String,
    /// The device of its dot.
    pub device_id: String,
    /// The sequence of its dot.
    pub sequence: u64,
    /// Entity type and id.
    pub lane: Lane,
    /// `applied` or `merged`.
    pub verdict: &'static str,
    /// The transaction it was part of.
    pub transaction_id: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) head: u64,
    /// None: renewed, and not yet heard.
    pub(crate) epoch: Option<String>,
    /// Tombstones up to this version may be gone.
    pub(crate) horizon: u64,
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) entities: BTreeMap<Lane, Entity>,
    /// By idempotency key: "keys are private to a scope".
    pub(crate) verdicts: BTreeMap<String, StoredVerdict>,
    /// The ledger, by id, as on the wire.
    pub(crate) ledger: BTreeMap<String, Value>,
}
