//! An endpoint in memory with a clock and a randomness of its own, and short ways to write requests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use syncline_protocol::{Change, PullResponse, PushResponse, Timestamp};
use syncline_server::endpoint::types::{TypeConfig, Types};
use syncline_server::{Answer, Claims, Embedded, Endpoint, EndpointLimits, Random, Request, SqliteStore, contract};

/// 2026-05-01T12:00:00Z
pub(crate) const NOON: i64 = 1_777_636_800_000;

/// A fixed sequence of bytes (splitmix64).
pub(crate) struct Seeded(pub u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed ^ (mixed >> 27)) as u8;
        }
    }
}

pub(crate) struct World {
    pub(crate) endpoint: Embedded<SqliteStore>,
    pub(crate) now: Timestamp,
    pub(crate) random: Seeded,
    pub(crate) scope: String,
    /// Per device, the mark that it has recorded.
    marks: BTreeMap<String, u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(json!({}))
    }

    /// With these entity types configured.
    pub(crate) fn with(types: Value) -> Self {
        Self::over(SqliteStore::open_in_memory().unwrap(), types)
    }

    pub(crate) fn over(store: SqliteStore, types: Value) -> Self {
        let types: BTreeMap<String, TypeConfig> = serde_json::from_value(types).unwrap();
        let endpoint = Embedded::new(store, Types::new(types).unwrap(), EndpointLimits::default());
        let now = Timestamp::from_millis(NOON);
        Self { endpoint, now, random: Seeded(7), scope: "team".into(), marks: BTreeMap::new() }
    }

    /// Sends a request as its user, with a token for this world's scope.
    pub(crate) fn send(&mut self, path: &str, body: &Value) -> Answer {
        let user_id = body["user_id"].as_str().unwrap_or("ada").to_owned();
        let claims = Claims::new(user_id, [self.scope.clone()].into());
        self.send_as(&claims, path, body)
    }

    pub(crate) fn send_as(&mut self, claims: &Claims, path: &str, body: &Value) -> Answer {
        let text = body.to_string();
        let request = if path == "push" { Request::Push(text.as_bytes()) } else { Request::Pull(text.as_bytes()) };
        let answer = self.endpoint.handle(request, claims, self.now, &mut self.random);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        contract::validate_answer(&format!("/v1/{path}"), answer.status, &body).unwrap();
        self.invariants();
        assert_eq!(answer.problem.is_some(), answer.status != 200);
        answer
    }

    /// What holds after every request: versions are dense up to the head, one per entity.
    fn invariants(&mut self) {
        let head = self.endpoint.head(&self.scope).unwrap();
        let entities = self.endpoint.entities(&self.scope).unwrap();
        let versions: BTreeSet<u64> = entities.iter().map(|entity| entity.version).collect();
        assert_eq!(versions.len(), entities.len());
        assert!(versions.last().is_none_or(|highest| *highest <= head));
    }

    pub(crate) fn epoch(&mut self) -> String {
        if self.endpoint.epoch(&self.scope).unwrap().is_none() {
            self.pull(None);
        }
        self.endpoint.epoch(&self.scope).unwrap().unwrap()
    }

    /// A push of device `device` with what it knows; `operations` as [`op`] makes them.
    pub(crate) fn request(&mut self, device: &str, operations: Vec<Value>) -> Value {
        json!({
            "protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": device, "epoch": self.epoch(),
            "mark": self.marks.get(device).copied().unwrap_or(0), "sent_at": self.now.to_string(), "operations": operations,
        })
    }

    /// Pushes, expecting verdicts, and records the mark.
    pub(crate) fn push(&mut self, device: &str, operations: Vec<Value>) -> PushResponse {
        let request = self.request(device, operations);
        self.push_as_is(&request)
    }

    pub(crate) fn push_as_is(&mut self, request: &Value) -> PushResponse {
        contract::validate_request("/v1/push", request).unwrap();
        let answer = self.send("push", request);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let response: PushResponse = serde_json::from_str(&answer.body).unwrap();
        if let Some(mark) = response.mark {
            self.marks.insert(request["device_id"].as_str().unwrap().to_owned(), mark);
        }
        response
    }

    /// Pushes one operation and returns the word of its verdict.
    pub(crate) fn status(&mut self, device: &str, operation: Value) -> String {
        word(&self.push(device, vec![operation]), 0)
    }

    /// Pushes, expecting a problem; returns its code.
    pub(crate) fn refused(&mut self, request: &Value) -> String {
        let answer = self.send("push", request);
        answer.problem.unwrap_or_else(|| panic!("{}", answer.body)).code
    }

    pub(crate) fn pull(&mut self, cursor: Option<&str>) -> PullResponse {
        self.pull_with(json!({ "cursor": cursor }))
    }

    /// A pull of device `reader` with these members replaced.
    pub(crate) fn pull_with(&mut self, members: Value) -> PullResponse {
        let epoch = self.endpoint.epoch(&self.scope).unwrap();
        let mut body = json!({
            "protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": "reader", "epoch": epoch, "mark": 0,
            "limit": 1000,
        });
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        contract::validate_request("/v1/pull", &body).unwrap();
        let answer = self.send("pull", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Follows the pages from `cursor` to the end; returns the changes and the last cursor.
    pub(crate) fn pull_all(&mut self, cursor: Option<String>, limit: u64) -> (Vec<Change>, String) {
        let (mut changes, mut cursor) = (Vec::new(), cursor);
        loop {
            let page = self.pull_with(json!({ "cursor": cursor, "limit": limit }));
            assert!(!page.reset && (!page.has_more || !page.changes.is_empty()));
            changes.extend(page.changes);
            cursor = Some(page.cursor);
            if !page.has_more {
                return (changes, cursor.unwrap());
            }
        }
    }

    /// The live record of pin `id`, as the server has it.
    pub(crate) fn record(&mut self, id: &str) -> Option<Value> {
        let entities = self.endpoint.entities(&self.scope).unwrap();
        let entity = entities.into_iter().find(|entity| entity.entity_id == id)?;
        entity.record.visible().map(|record| serde_json::from_str(&record.to_string()).unwrap())
    }

    pub(crate) fn clock(&mut self, id: &str) -> Value {
        let entities = self.endpoint.entities(&self.scope).unwrap();
        let entity = entities.into_iter().find(|entity| entity.entity_id == id).unwrap();
        serde_json::to_value(entity.record.clock()).unwrap()
    }
}

/// An operation on a pin: `sequence` also makes its id and key, and its timestamp (`sequence` seconds after noon).
/// `base` is the clock; a payload is given to what writes.
pub(crate) fn op(device: &str, sequence: u64, operation: &str, entity_id: &str, payload: Value, base: Value) -> Value {
    let mut value = json!({
        "id": format!("{device}{sequence}"), "idempotency_key": format!("{device}-{sequence}"), "sequence": sequence,
        "operation": operation, "entity_type": "pin", "entity_id": entity_id, "base_clock": base,
        "timestamp": Timestamp::from_millis(NOON + 1000 * sequence as i64).to_string(),
    });
    if !payload.is_null() {
        value["payload"] = payload;
    }
    value
}

/// `value` with these members replaced.
pub(crate) fn with(mut value: Value, members: Value) -> Value {
    for (name, member) in members.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

/// The status of the `index`-th result.
pub(crate) fn word(response: &PushResponse, index: usize) -> String {
    match response.results.get(index) {
        Some(result) => serde_json::to_value(result.status).unwrap().as_str().unwrap().to_owned(),
        None => {
            assert!((response.applied as usize) > index, "no result {index}");
            "applied".into()
        }
    }
}

/// The codes of the results' errors, empty where there is none.
pub(crate) fn codes(response: &PushResponse) -> Vec<&str> {
    response.results.iter().map(|result| result.error.as_ref().map_or("", |error| error.code.as_str())).collect()
}

pub(crate) fn words(response: &PushResponse) -> Vec<String> {
    (0..response.results.len()).map(|index| word(response, index)).collect()
}
