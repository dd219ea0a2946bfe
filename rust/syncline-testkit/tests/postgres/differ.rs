//! The same random requests to the embedded endpoint and to Postgres: every answer, the final records and the ledgers are the same
//! but for what an endpoint makes up itself (epochs, cursors, ids of ledger rows).

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::Claims;
use syncline_testkit::contract::{EmbeddedHost, Host, PostgresHost, Sent};

/// 2026-05-01T12:00:00Z
const NOON: i64 = 1_777_636_800_000;
const STREAMS: u64 = 150;
const REQUESTS: usize = 14;
const DEVICES: [&str; 4] = ["A", "B", "C", "a"];
const FIELDS: [&str; 4] = ["f", "g", "h", "ü"];

/// What one host has told one device.
#[derive(Default, Clone)]
struct Told {
    epoch: Value,
    cursors: Vec<Value>,
}

#[derive(Default)]
struct Device {
    sequence: u64,
    mark: u64,
    /// Operations sent, to be sent again.
    sent: Vec<Value>,
    told: [Told; 2],
}

struct Stream<'h> {
    hosts: [&'h mut dyn Host; 2],
    random: StdRng,
    scope: String,
    now: i64,
    devices: BTreeMap<&'static str, Device>,
    /// Every clock that an entity has had, by id.
    clocks: BTreeMap<String, Vec<Value>>,
    /// How often which word was answered.
    words: &'h mut BTreeMap<String, u64>,
}

impl Stream<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())].clone()
    }

    fn value(&mut self) -> Value {
        self.pick(&[
            json!(1),
            json!(1.0),
            json!(2),
            json!("x"),
            json!("x"),
            json!(null),
            json!([1, {"b": 2, "a": null}]),
            json!({"a": 1}),
            json!(0.1),
            json!(1e21),
            json!(true),
        ])
    }

    fn payload(&mut self) -> Value {
        let count = self.random.random_range(0..4);
        (0..count).map(|_| (self.pick(&FIELDS).to_owned(), self.value())).collect::<Map<_, _>>().into()
    }

    fn operation(&mut self, device: &'static str, earlier: &[Value]) -> Value {
        let skipped = u64::from(self.chance(10));
        let state = self.devices.get_mut(device).unwrap();
        state.sequence += 1 + skipped;
        let sequence = state.sequence;
        let entity_id = self.pick(&["e0", "e1", "e2", "e3"]);
        let kind = self.pick(&["create", "create", "update", "update", "update", "delete"]);
        let known = self.clocks.get(entity_id).cloned().unwrap_or_default();
        let mut base = match self.random.random_range(0..10) {
            0 | 1 => json!({}),
            2 | 3 if !known.is_empty() => self.pick(&known),
            _ => known.last().cloned().unwrap_or_else(|| json!({})),
        };
        // Mostly what the device itself has written is known to it.
        let own = earlier.iter().rev().find(|operation| operation["entity_id"] == entity_id);
        if let Some(own) = own.filter(|_| self.random.random_range(0..100) < 90) {
            base[device] = own["sequence"].clone();
        }
        let mut operation = json!({
            "id": format!("{device}{sequence}"), "idempotency_key": format!("{device}-{sequence}"), "sequence": sequence,
            "operation": kind, "entity_type": self.pick(&["pin", "pin", "form"]), "entity_id": entity_id, "base_clock": base,
            "timestamp": Timestamp::from_millis(self.now + self.random.random_range(-5_000..5_000)).to_string(),
        });
        if kind != "delete" || self.chance(5) {
            operation["payload"] = self.payload();
        }
        for (percent, member, value) in [
            (5, "payload", json!([1])),
            (3, "payload", json!("text")),
            (4, "void", json!(true)),
            (30, "before", self.payload()),
            (12, "conflict_rule", json!(self.pick(&["server_wins", "client_wins", "manual"]))),
            (15, "delete_rule", json!("delete_wins")),
            (3, "timestamp", json!(Timestamp::from_millis(self.now + 3_600_000).to_string())),
            (2, "base_clock", json!({"Z": 0})),
        ] {
            if self.chance(percent) {
                operation[member] = value;
            }
        }
        if !earlier.is_empty() && self.chance(15) {
            operation["depends_on"] = json!([self.pick(earlier)["id"]]);
        }
        operation
    }

    fn operations(&mut self, device: &'static str) -> Vec<Value> {
        let mut operations: Vec<Value> = Vec::new();
        for _ in 0..self.random.random_range(0..7) {
            let operation = self.operation(device, &operations);
            operations.push(operation);
        }
        if operations.len() > 1 && self.chance(40) {
            let start = self.random.random_range(0..operations.len() - 1);
            let void = operations[start]["void"].clone();
            let group = format!("{device}-t{}", operations[start]["sequence"]);
            for operation in operations[start..].iter_mut().take(3) {
                operation["transaction_id"] = json!(group);
                operation["void"] = json!(void == json!(true));
            }
        }
        let sent = self.devices[device].sent.clone();
        if !sent.is_empty() && self.chance(35) {
            // Again: as it was, under another content, or as a copy of the device would send it.
            let mut again = self.pick(&sent);
            if self.chance(15) {
                again["payload"] = json!({"f": "other"});
            }
            if self.chance(10) {
                again["idempotency_key"] = json!(format!("{device}-copy-{}", self.now));
            }
            operations.insert(0, again);
        }
        if self.chance(5) {
            let other = self.pick(&DEVICES);
            if let Some(theirs) = self.devices[other].sent.last().cloned() {
                operations.insert(0, theirs);
            }
        }
        operations
    }

    /// Sends to both, and compares.
    fn exchange(&mut self, route: Route, device: &'static str, request: &Value, cursor: Option<usize>) -> Value {
        let claims = Claims::new("ada".into(), [self.scope.clone()].into());
        let mut answers = Vec::new();
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let told = self.devices.get_mut(device).unwrap();
            let mut body = request.clone();
            body["epoch"] = told.told[index].epoch.clone();
            body["cursor"] = cursor.map_or(Value::Null, |number| told.told[index].cursors[number].clone());
            host.set_clock(Timestamp::from_millis(self.now)).unwrap();
            let text = body.to_string();
            let answered = host.handle(Sent { route, body: text.as_bytes(), claims: &claims, http: None }).unwrap();
            let mut answer: Value = serde_json::from_slice(&answered.body).unwrap();
            if let Some(epoch) = answer.get("epoch") {
                told.told[index].epoch = epoch.clone();
            }
            if let Some(cursor) = answer.get("cursor").cloned() {
                told.told[index].cursors.push(cursor);
            }
            let given = answer.clone();
            same_names(&mut answer);
            answers.push((answered.status, sorted(answer), given));
        }
        let [(status, answer, given), (other_status, other, _)] = answers.try_into().expect("two hosts");
        assert_eq!((status, &answer), (other_status, &other), "embedded and Postgres differ about {request}");
        count_words(&answer, self.words);
        given
    }

    fn push(&mut self, device: &'static str) {
        let operations = self.operations(device);
        let state = &self.devices[device];
        let mut request = json!({"protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": device, "mark": state.mark,
            "sent_at": Timestamp::from_millis(self.now).to_string(), "operations": operations});
        let cursors = state.told[0].cursors.len();
        if self.chance(10) {
            request["dry_run"] = json!(true);
        }
        if self.chance(4) {
            request["forgotten_through"] = json!(self.random.random_range(0..6));
        }
        if self.chance(2) {
            request["mark"] = json!(self.devices[device].mark + 2);
        }
        let cursor = (cursors > 0 && self.chance(70)).then(|| cursors - 1);
        let answer = self.exchange(Route::Push, device, &request, cursor);
        let state = self.devices.get_mut(device).unwrap();
        state.mark = answer["mark"].as_u64().unwrap_or(state.mark);
        state.sent.extend(operations);
        for result in answer["results"].as_array().into_iter().flatten() {
            let operation = state.sent.iter().find(|operation| operation["id"] == result["id"]);
            if let Some(id) = operation.and_then(|operation| operation["entity_id"].as_str()) {
                self.clocks.entry(id.to_owned()).or_default().push(result["clock"].clone());
            }
        }
    }

    fn pull(&mut self, device: &'static str) {
        let mut request = json!({"protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": device,
            "mark": self.devices[device].mark, "limit": self.pick(&[1, 3, 1000])});
        if self.chance(20) {
            request["entity_types"] = self.pick(&[json!(["pin"]), json!([]), json!(["form", "pin", "form"])]);
        }
        let cursors = self.devices[device].told[0].cursors.len();
        let cursor = (cursors > 0 && self.chance(60)).then(|| self.random.random_range(0..cursors));
        let answer = self.exchange(Route::Pull, device, &request, cursor);
        for change in answer["changes"].as_array().into_iter().flatten() {
            let id = change["entity_id"].as_str().unwrap().to_owned();
            self.clocks.entry(id).or_default().push(change["clock"].clone());
        }
    }

    fn run(&mut self) {
        for device in DEVICES {
            self.devices.insert(device, Device::default());
            self.pull(device);
        }
        for _ in 0..REQUESTS {
            self.now += self.random.random_range(1..4_000);
            let device = self.pick(&DEVICES);
            if self.chance(75) {
                self.push(device)
            } else {
                self.pull(device)
            }
            if self.chance(2) {
                let scope = self.scope.clone();
                self.now += 200 * 24 * 3_600_000;
                for host in &mut self.hosts {
                    host.set_clock(Timestamp::from_millis(self.now)).unwrap();
                    host.maintain(&scope).unwrap();
                }
            }
        }
        self.devices.insert("reader", Device::default());
        let request = json!({"protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": "reader", "mark": 0, "limit": 1000});
        self.exchange(Route::Pull, "reader", &request, None);
        let scope = self.scope.clone();
        let ledgers = self.hosts.each_mut().map(|host| {
            let rows = host.ledger(&scope).unwrap().into_iter().map(|mut row| {
                same_names(&mut row);
                row.as_object_mut().unwrap().remove("id");
                sorted(row).to_string()
            });
            let mut rows: Vec<_> = rows.collect();
            rows.sort();
            rows
        });
        assert_eq!(ledgers[0], ledgers[1]);
    }
}

/// What an endpoint makes up itself, by one name.
fn same_names(value: &mut Value) {
    for member in ["epoch", "cursor"] {
        if value.get(member).is_some() {
            value[member] = json!(member);
        }
    }
    for result in value["results"].as_array_mut().into_iter().flatten() {
        if result["conflict"]["id"].is_string() {
            result["conflict"]["id"] = json!("row");
        }
    }
    for result in value["results"].as_array_mut().into_iter().flatten() {
        // Sentences of the JSON parser are not the contract; codes and fields are.
        if result["error"]["code"] == "invalid_value" {
            result["error"]["message"] = json!("…");
        }
    }
    if value.is_object() && value["results"].is_null() {
        value.as_object_mut().unwrap().remove("results");
    }
}

/// Statuses, codes, rules, winners; and what was left out or began anew.
fn count_words(answer: &Value, words: &mut BTreeMap<String, u64>) {
    let mut count = |word: &Value, times: u64| {
        let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
        *words.entry(word).or_default() += times;
    };
    count(&json!("left out"), answer["applied"].as_f64().unwrap_or(0.0) as u64);
    count(&json!("reset"), u64::from(answer["reset"] == true));
    count(&json!("cursor"), u64::from(answer.get("cursor").is_some() && answer.get("mark").is_some()));
    count(&answer["code"], 1);
    for result in answer["results"].as_array().into_iter().flatten() {
        for word in [&result["status"], &result["error"]["code"], &result["conflict"]["rule"]] {
            count(word, 1);
        }
        count(&json!("foreign dot"), u64::from(result.get("sequence").is_some()));
    }
}

/// What random requests must have met, or they prove little.
const MET: [&str; 23] = [
    "applied",
    "merged",
    "conflict",
    "rejected",
    "deferred",
    "already_processed",
    "left out",
    "reset",
    "cursor",
    "foreign dot",
    "last_writer_wins",
    "server_wins",
    "client_wins",
    "manual",
    "update_wins",
    "delete_wins",
    "not_found",
    "gone",
    "voided",
    "transaction_failed",
    "idempotency_key_reused",
    "invalid_value",
    "device_forked",
];

/// Numbers as doubles: notation does not count.
fn sorted(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, sorted(value))).collect(),
        other => other,
    }
}

/// One stream of requests to both.
pub(crate) fn live(seed: u64, embedded: &mut dyn Host, postgres: &mut dyn Host, words: &mut BTreeMap<String, u64>) {
    let (random, scope) = (StdRng::seed_from_u64(seed), format!("stream-{seed}"));
    let (devices, clocks) = (BTreeMap::new(), BTreeMap::new());
    Stream { hosts: [embedded, postgres], random, scope, now: NOON, devices, clocks, words }.run();
}

#[test]
#[expect(clippy::print_stdout, reason = "the last seed before a failure")]
fn the_same_requests_get_the_same_answers() {
    let mut embedded = EmbeddedHost::new().unwrap();
    let mut postgres = PostgresHost::new(&crate::database("differ")).unwrap();
    let streams = std::env::var("SYNCLINE_STREAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(STREAMS);
    let first = std::env::var("SYNCLINE_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut words = BTreeMap::new();
    for seed in first..first + streams {
        println!("seed {seed}");
        live(seed, &mut embedded, &mut postgres, &mut words);
    }
    println!("{words:?}");
    let missing: Vec<_> = MET.into_iter().filter(|word| words.get(*word).is_none_or(|times| *times < 5)).collect();
    assert!(missing.is_empty(), "hardly met: {missing:?}");
}
