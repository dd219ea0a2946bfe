//! What one device, or one copy of its file, remembers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(super) type Clock = BTreeMap<String, u64>;
pub(super) type Lane = (String, String);

/// An operation as it is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) sequence: u64,
    pub(super) kind: &'static str,
    pub(super) lane: Lane,
    /// As it is written.
    pub(super) payload: Option<String>,
    pub(super) before: Option<String>,
    pub(super) base: Clock,
    pub(super) timestamp: String,
    pub(super) transaction: Option<String>,
    pub(super) depends_on: Vec<String>,
    pub(super) void: bool,
    pub(super) conflict_rule: Option<&'static str>,
    pub(super) delete_rule: Option<&'static str>,
}

impl Operation {
    pub(super) fn text(&self) -> String {
        let mut members = json!({
            "id": self.id, "idempotency_key": self.key, "sequence": self.sequence, "operation": self.kind,
            "entity_type": self.lane.0, "entity_id": self.lane.1, "timestamp": self.timestamp,
        });
        if !self.base.is_empty() {
            members["base_clock"] = json!(self.base);
        }
        if let Some(transaction) = &self.transaction {
            members["transaction_id"] = json!(transaction);
        }
        if !self.depends_on.is_empty() {
            members["depends_on"] = json!(self.depends_on);
        }
        if self.void {
            members["void"] = json!(true);
        }
        for (name, rule) in [("conflict_rule", self.conflict_rule), ("delete_rule", self.delete_rule)] {
            if let Some(rule) = rule {
                members[name] = json!(rule);
            }
        }
        let mut text = members.to_string();
        text.pop();
        for (name, value) in [("payload", &self.payload), ("before", &self.before)] {
            if let Some(value) = value {
                text += &format!(",\"{name}\":{value}");
            }
        }
        text + "}"
    }
}

/// One copy of a device's file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) device: String,
    pub(super) user: &'static str,
    pub(super) next: u64,
    pub(super) mark: u64,
    /// The epoch's number.
    pub(super) epoch: Option<usize>,
    /// The clocks that it was told.
    pub(super) seen: BTreeMap<Lane, Clock>,
    /// What it has sent, oldest first.
    pub(super) sent: Vec<Operation>,
    /// Cursors by number, with their filters.
    pub(super) cursors: Vec<(usize, Option<Vec<String>>)>,
}

impl File {
    pub(super) fn new(device: &str, user: &'static str) -> Self {
        let (device, seen) = (device.to_owned(), BTreeMap::new());
        Self { device, user, next: 1, mark: 0, epoch: None, seen, sent: Vec::new(), cursors: Vec::new() }
    }

    /// Takes in what an answer says of an entity, if it is more than what is known.
    pub(super) fn see(&mut self, lane: Lane, clock: &Value) {
        let seen = self.seen.entry(lane).or_default();
        for (device, sequence) in clock.as_object().into_iter().flatten() {
            let known = seen.entry(device.clone()).or_default();
            *known = sequence.as_u64().unwrap_or(0).max(*known);
        }
    }
}
