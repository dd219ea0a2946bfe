//! What is sent: half of a batch makes records, half changes those that the batch before it made. Every writer has written all
//! of its records itself, so nothing is in conflict; what a conflict costs depends on the app.

use serde_json::{Value, json};

/// How the work is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub batch: usize,
    pub clients: usize,
    pub scopes: usize,
}

impl Shape {
    /// The writers of each client: one for every scope that is its own, or one in the scope of all.
    pub(crate) fn writers(&self, prefix: &str) -> Vec<Vec<Writer>> {
        let of = |client: usize| {
            let scopes: Vec<usize> = (0..self.scopes).skip(client % self.scopes).step_by(self.clients).collect();
            let writer = |scope: &usize| Writer::new(format!("{prefix}-{scope}"), format!("device-{client}"));
            scopes.iter().map(writer).collect()
        };
        (0..self.clients).map(of).collect()
    }
}

/// A device at work in a scope.
#[derive(Clone)]
pub(crate) struct Writer {
    pub scope: String,
    pub device: String,
    epoch: Value,
    cursor: Value,
    sequence: usize,
    /// Made and not changed yet: number and sequence.
    fresh: Vec<(usize, usize)>,
}

impl Writer {
    pub(crate) fn new(scope: String, device: String) -> Self {
        Self { scope, device, epoch: Value::Null, cursor: Value::Null, sequence: 0, fresh: Vec::new() }
    }

    fn head(&self) -> Value {
        json!({ "protocol": 1, "user_id": "bench", "scope": self.scope, "device_id": self.device, "epoch": self.epoch,
            "cursor": self.cursor })
    }

    /// The body of a pull from the start.
    pub(crate) fn pull(&self) -> String {
        let mut body = self.head();
        body["limit"] = json!(1);
        body.to_string()
    }

    /// The body of the next push.
    pub(crate) fn push(&mut self, batch: usize) -> String {
        let changed = std::mem::take(&mut self.fresh);
        let changes = changed.len().min(batch.div_ceil(2));
        let mut operations = Vec::with_capacity(batch);
        for (number, seen) in changed.into_iter().take(changes) {
            let patch = json!({ "note": format!("Checked again, visit {}.", self.sequence), "state": "closed" });
            operations.push(self.operation("update", number, patch, json!({ &self.device: seen })));
        }
        while operations.len() < batch {
            let number = self.sequence + 1;
            self.fresh.push((number, number));
            operations.push(self.operation("create", number, payload(number), json!({})));
        }
        let mut body = self.head();
        body["sent_at"] = json!("2026-05-01T12:00:00.000Z");
        body["operations"] = operations.into();
        body.to_string()
    }

    fn operation(&mut self, kind: &str, number: usize, payload: Value, base: Value) -> Value {
        self.sequence += 1;
        let (device, sequence) = (&self.device, self.sequence);
        json!({ "id": format!("{device}-{sequence:08x}-7000-8000-000000000000"), "idempotency_key": format!("{device}/{sequence}"),
            "sequence": sequence, "operation": kind, "entity_type": "pin", "entity_id": entity_id(device, number),
            "base_clock": base, "timestamp": "2026-05-01T12:00:00.000Z", "payload": payload })
    }

    /// Takes in what was answered.
    pub(crate) fn answered(&mut self, answer: &str) {
        let answer: Value = serde_json::from_str(answer).expect("an answer is JSON");
        assert!(answer["code"].is_null(), "{answer}");
        for (member, own) in [("epoch", &mut self.epoch), ("cursor", &mut self.cursor)] {
            if !answer[member].is_null() {
                *own = answer[member].clone();
            }
        }
    }
}

/// Ids rise with time, as uuid v7 does.
fn entity_id(device: &str, number: usize) -> String {
    format!("0197a2b0-{number:08x}-7000-8000-{device}")
}

/// About what a pin or a form weighs.
fn payload(number: usize) -> Value {
    json!({ "lat": 52.0 + number as f64 / 1e6, "lon": 13.4, "note": "Checked the valve and the gauge, both dry.",
        "title": format!("Valve {number}") })
}
