use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use syncline_protocol::{Clock, Dot, Record, Timestamp};

/// Who wrote something, and when: the dot of an operation and its (clamped) timestamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, u64, i64)", into = "(String, u64, i64)")]
pub struct Write {
    /// The operation's dot.
    pub dot: Dot,
    /// The operation's timestamp, as clamped on arrival.
    pub at: Timestamp,
}

impl Write {
    /// Whether this write is later than `other`: by timestamp, ties by device id.
    pub fn is_later_than(&self, other: &Write) -> bool {
        (self.at, &self.dot.device_id) > (other.at, &other.dot.device_id)
    }
}

impl From<(String, u64, i64)> for Write {
    fn from((device_id, sequence, millis): (String, u64, i64)) -> Self {
        Self { dot: Dot { device_id, sequence }, at: Timestamp::from_millis(millis) }
    }
}

impl From<Write> for (String, u64, i64) {
    fn from(write: Write) -> Self {
        (write.dot.device_id, write.dot.sequence, write.at.millis())
    }
}

/// What the server keeps of one entity, deleted ones too until they are purged (spec §4).
#[derive(Debug, Clone, PartialEq)]
pub struct ServerRecord {
    /// The fields. A tombstone keeps its last payload here, because a write may revive it.
    pub payload: Record,
    /// What last set each field, removed ones too. A field without an entry counts as set by `created`.
    pub fields: BTreeMap<String, Write>,
    /// The create.
    pub created: Write,
    /// The delete; a record that has one is a tombstone.
    pub deleted: Option<Write>,
}

impl ServerRecord {
    /// A record that `write` created with the fields of `payload`.
    pub fn create(payload: &Record, write: Write) -> Self {
        Self { payload: payload.clone().without_nulls(), fields: BTreeMap::new(), created: write, deleted: None }
    }

    /// What last set `field`.
    pub fn setter(&self, field: &str) -> &Write {
        self.fields.get(field).unwrap_or(&self.created)
    }

    /// Sets one field, or removes it, as `write`.
    pub fn set(&mut self, field: &str, value: Option<&serde_json::value::RawValue>, write: Write) {
        self.payload.set(field, value);
        self.fields.insert(field.to_owned(), write);
    }

    /// Per device, the highest dot of a field, the create or the delete.
    pub fn clock(&self) -> Clock {
        self.writes().map(|write| write.dot.clone()).collect()
    }

    /// The highest timestamp of a field, the create or the delete.
    pub fn changed_at(&self) -> Timestamp {
        self.writes().map(|write| write.at).max().unwrap_or_default()
    }

    /// The fields that apps see: none of a tombstone.
    pub fn visible(&self) -> Option<&Record> {
        self.deleted.is_none().then_some(&self.payload)
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.fields.values().chain([&self.created]).chain(&self.deleted)
    }
}

/// Bytes of a record's JSON text.
pub(crate) fn text_len(record: &Record) -> usize {
    2 + record.members().map(|(field, value)| field.len() + value.get().len() + 4).sum::<usize>()
}
