//! A model, and answers written by hand for it to judge.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use syncline_core::transport::Route;
use syncline_protocol::{ProblemCode, Timestamp};
use syncline_testkit::model::{Limits, Model, Token, Types};

/// 2026-05-01T12:00:00Z
pub(crate) const NOON: i64 = 1_777_636_800_000;
/// The epoch in which a [`Judge`] begins.
pub(crate) const EPOCH: &str = "epoch-1";

#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) model: Model,
    pub(crate) now: Timestamp,
    pub(crate) epoch: String,
    marks: BTreeMap<String, u64>,
}

pub(crate) fn limits() -> Limits {
    Limits { max_operations: 500, max_bytes: 8 << 20, max_payload_bytes: 256 << 10 }
}

impl Judge {
    /// With these types configured, after a first pull that gave the cursor `at-0`.
    pub(crate) fn with(types: Value) -> Self {
        let model = Model::new(Types::new(&types), limits());
        let now = Timestamp::from_millis(NOON);
        let mut judge = Self { model, now, epoch: EPOCH.to_owned(), marks: BTreeMap::new() };
        let page = json!({ "changes": [], "cursor": "at-0", "epoch": EPOCH, "has_more": false, "reset": false });
        judge.ask(Route::Pull, &judge.pulling(json!({ "epoch": null })), 200, &page).unwrap();
        judge
    }

    pub(crate) fn new() -> Self {
        Self::with(json!({}))
    }

    /// Asks the model about one exchange.
    pub(crate) fn ask(&mut self, route: Route, body: &Value, status: u16, answer: &Value) -> Result<(), String> {
        let scopes: BTreeSet<String> = ["team".to_owned()].into();
        let token = Token { user_id: "ada", scopes: &scopes };
        self.model.judge(route, body.to_string().as_bytes(), token, self.now, status, answer)
    }

    /// A push as `device` would send it.
    pub(crate) fn pushing(&self, device: &str, operations: &[Value], members: Value) -> Value {
        let body = json!({
            "protocol": 1, "user_id": "ada", "scope": "team", "device_id": device, "epoch": self.epoch,
            "mark": self.marks.get(device).copied().unwrap_or(0), "sent_at": self.now, "operations": operations,
        });
        with(body, members)
    }

    pub(crate) fn pulling(&self, members: Value) -> Value {
        let body = json!({
            "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "reader", "epoch": self.epoch, "limit": 1000,
        });
        with(body, members)
    }

    /// The push's right answer: these results, all else applied and left out, and this head. Every other answer must be wrong.
    pub(crate) fn push(&mut self, device: &str, operations: &[Value], results: Value, head: u64) {
        self.push_with(device, operations, json!({}), results, json!({ "version": head }));
    }

    /// The same, with these members of request and answer replaced.
    pub(crate) fn push_with(&mut self, device: &str, operations: &[Value], asked: Value, results: Value, said: Value) {
        let body = self.pushing(device, operations, asked);
        let is_dry = body["dry_run"] == true;
        let mark = self.marks.get(device).copied().unwrap_or(0) + 1;
        let answer = with(
            json!({
                "applied": operations.len() - results.as_array().unwrap().len(), "results": results, "epoch": self.epoch,
                "mark": (!is_dry).then_some(mark), "server_time": self.now,
                "limits": { "max_operations": 500, "max_bytes": 8_388_608 },
            }),
            said,
        );
        self.only_this(Route::Push, &body, &answer);
        if !is_dry {
            self.marks.insert(device.to_owned(), mark);
        }
    }

    /// The pull's right page.
    pub(crate) fn pull(&mut self, asked: Value, page: Value) {
        let body = self.pulling(asked);
        let page = with(json!({ "epoch": self.epoch, "has_more": false, "reset": false }), page);
        self.only_this(Route::Pull, &body, &page);
    }

    /// The right answer is this problem.
    pub(crate) fn refuses(&mut self, route: Route, body: &Value, code: &str, members: Value) {
        let status = ProblemCode::parse(code).unwrap().status();
        let problem = with(json!({ "code": code, "status": status, "title": "…" }), members);
        let wrong = with(problem.clone(), json!({ "code": "internal" }));
        assert!(self.clone().ask(route, body, status, &wrong).is_err(), "another code passes");
        self.ask(route, body, status, &problem).unwrap_or_else(|why| panic!("{code}: {why}"));
    }

    /// This answer is right, and it is wrong once any member of it is another.
    fn only_this(&mut self, route: Route, body: &Value, answer: &Value) {
        for wrong in variants(answer) {
            let judged = self.clone().ask(route, body, 200, &wrong);
            assert!(judged.is_err(), "passes as well: {wrong}\ninstead of {answer}");
        }
        self.ask(route, body, 200, answer).unwrap_or_else(|why| panic!("{why}\nof {answer}"));
    }
}

/// The value with one member changed, for each; cursors and the ids of ledger rows are the endpoint's choice.
fn variants(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) => members.iter().flat_map(|member| of_member(members, member)).collect(),
        Value::Array(items) => {
            let mut all: Vec<Value> = (0..items.len())
                .flat_map(|at| {
                    let put = move |changed| {
                        let mut items = items.clone();
                        items[at] = changed;
                        Value::Array(items)
                    };
                    variants(&items[at]).into_iter().map(put)
                })
                .collect();
            all.extend((!items.is_empty()).then(|| Value::Array(items[1..].to_vec())));
            all
        }
        Value::String(text) => vec![json!(format!("{text}!"))],
        Value::Number(number) => vec![json!(number.as_u64().unwrap_or(0) + 1)],
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Null => vec![],
    }
}

fn of_member(members: &Map<String, Value>, (name, value): (&String, &Value)) -> Vec<Value> {
    let is_free = ["cursor", "message"].contains(&name.as_str()) || name == "id" && members.contains_key("rule");
    let put = |changed| {
        let mut members = members.clone();
        members.insert(name.clone(), changed);
        Value::Object(members)
    };
    if is_free { vec![] } else { variants(value).into_iter().map(put).collect() }
}

/// An operation on a pin: `sequence` also makes its id, its key and its timestamp (`sequence` seconds after noon).
pub(crate) fn op(device: &str, sequence: u64, operation: &str, entity_id: &str, payload: Value, base: Value) -> Value {
    json!({
        "id": format!("{device}{sequence}"), "idempotency_key": format!("{device}-{sequence}"), "sequence": sequence,
        "operation": operation, "entity_type": "pin", "entity_id": entity_id, "base_clock": base, "payload": payload,
        "timestamp": Timestamp::from_millis(NOON + 1000 * sequence as i64),
    })
}

/// A result with the entity's state.
pub(crate) fn told(id: &str, status: &str, version: u64, clock: Value, record: Value) -> Value {
    let deleted = record.is_null();
    json!({ "id": id, "status": status, "version": version, "clock": clock, "deleted": deleted, "record": record })
}

/// The ledger row of an operation that [`op`] made.
pub(crate) fn row(id: &str, rule: &str, operation: &Value, ours: Value, theirs: Value, fields: Value) -> Value {
    let device = operation["id"].as_str().unwrap().trim_end_matches(char::is_numeric);
    json!({
        "id": id, "rule": rule, "result": if rule == "manual" { "conflict" } else { "merged" }, "entity_type": "pin",
        "entity_id": operation["entity_id"], "operation_id": operation["id"], "operation": operation["operation"],
        "device_id": device, "user_id": "ada", "our_clock": ours, "their_clock": theirs, "their_deleted": false,
        "decided_at": Timestamp::from_millis(NOON), "fields": fields,
    })
}

/// `value` with these members replaced.
pub(crate) fn with(mut value: Value, members: Value) -> Value {
    for (name, member) in members.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}
