//! 9: no payload, token or query string in a log line, an error text or an explanation.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_core::{Comparison, ConflictEntry, ListQuery, NewOperation, OperationFilter, Resolution};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, SCOPE, TestDevice, USER, World};

/// In every payload and entity id of this file.
const SECRET: &str = "patient-zero";
/// The token.
const TOKEN: &str = "eyJ-the-token";

/// Everything that anybody logs in this process.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Everything;

impl Log for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LOGGED.lock().unwrap().push(format!("{} {} {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// What an app may show or send to its own log.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn add(&self, what: impl Debug) {
        self.0.lock().unwrap().push(format!("{what:?}"));
    }

    fn error<T>(&self, result: syncline_core::Result<T>) {
        let Err(error) = result else { panic!("that must be refused") };
        self.add((error.to_string(), error));
    }

    /// All that a device says of its operations, but for their payloads and keys, which are the app's own.
    fn device(&self, device: &TestDevice) {
        for operation in device.operations(&OperationFilter { limit: 1000, ..OperationFilter::default() }).unwrap() {
            self.add((&operation.reason, &operation.message, &operation.field));
            self.add(device.explain(&operation.id).unwrap());
        }
        self.add(device.metrics().unwrap());
        self.add(device.state());
    }
}

fn secret(n: u32) -> String {
    json!({ "name": SECRET, "n": n }).to_string()
}

/// What the device refuses, each with the secret in it.
fn refused_calls(device: &TestDevice, told: &Told) {
    for (id, payload) in [
        ("e", format!(r#"["{SECRET}"]"#)),
        ("e", format!(r#"{{"name":"{SECRET}"#)),
        ("e", format!(r#"{{"name":"{SECRET}","name":"{SECRET}"}}"#)),
        ("e", format!(r#"{{"name":"{SECRET}\u0000"}}"#)),
        ("e", format!(r#"{{"name":"{SECRET}\ud800"}}"#)),
        ("e", format!(r#"{{"name":"{SECRET}","n":1e999}}"#)),
        ("e", format!(r#"{{"name":"{}"}}"#, SECRET.repeat(30_000))),
        (SECRET.repeat(20).as_str(), "{}".to_owned()),
    ] {
        told.error(device.enqueue(NewOperation::create("pin", id, payload)));
    }
    told.error(device.enqueue(NewOperation::create("pin", "e", "{}").with_key(format!("{SECRET}#"))));
    told.error(device.enqueue(NewOperation::create(format!("{SECRET}!"), "e", "{}")));
    let query = |path: &str| ListQuery::new("pin").filter(path, Comparison::Equals(json!(SECRET)));
    told.error(device.list(&query(&format!("'{SECRET}"))));
    told.error(device.list(&ListQuery { after: Some(SECRET.into()), ..ListQuery::new("pin") }));
    told.error(device.cancel(SECRET));
    told.error(device.resolve_conflict(SECRET, Resolution::TakeLocal));
}

/// Answers that echo what was sent, as proxies, broken endpoints and broken JSON do.
fn echoes() -> Vec<Fault> {
    let echo = format!("<html>GET /v1/push?name={SECRET} Authorization: Bearer {TOKEN}</html>");
    vec![
        Fault::proxy(403, &echo),
        Fault::proxy(200, &echo),
        Fault::ours(200, &echo),
        Fault::ours(500, &echo),
        Fault::ours(200, &format!(r#"{{"applied":"{SECRET}"}}"#)),
        Fault::ours(200, &format!(r#"{{"results":[{{"id":"{SECRET}","status":"{TOKEN}"}}]}}"#)),
        Fault::ours(503, &echo).retry_after(&format!("{SECRET} {TOKEN}")),
        Fault::problem(ProblemCode::RateLimited),
        Fault::DropAfter,
        Fault::Unreachable,
    ]
}

/// Requests that the endpoint refuses, each with the secret in a place where it does not belong.
fn refused_requests(world: &World, told: &Told) {
    let good = json!({
        "protocol": 1, "user_id": USER, "scope": SCOPE, "device_id": "D", "epoch": "x", "mark": 0,
        "sent_at": "2026-01-01T00:00:00.000Z",
        "operations": [{
            "id": "o", "idempotency_key": "k", "sequence": 1, "operation": "create", "entity_type": "pin",
            "entity_id": "e", "payload": { "name": SECRET }, "base_clock": {}, "timestamp": "2026-01-01T00:00:00.000Z",
        }],
    });
    let members = ["protocol", "user_id", "scope", "device_id", "epoch", "mark", "cursor", "sent_at", "operations"];
    let of_operation = [
        "id",
        "idempotency_key",
        "sequence",
        "operation",
        "entity_type",
        "entity_id",
        "payload",
        "before",
        "base_clock",
        "timestamp",
        "transaction_id",
        "depends_on",
        "void",
        "conflict_rule",
    ];
    let wrong = [json!(SECRET), json!([SECRET]), json!({ "x": SECRET }), json!(format!("{SECRET}\u{0}"))];
    for value in wrong {
        for member in members {
            let mut body = good.clone();
            body[member] = value.clone();
            told.add(world.server.stray(Route::Push, &body, TOKEN));
            told.add(world.server.stray(Route::Pull, &body, TOKEN));
        }
        for member in of_operation {
            let mut body = good.clone();
            body["operations"][0][member] = value.clone();
            told.add(world.server.stray(Route::Push, &body, TOKEN));
        }
    }
    told.add(world.server.stray(Route::Push, &good, &format!("{TOKEN}-of-somebody-else")));
}

#[test]
fn inv09_no_payload_and_no_token_in_logs_errors_and_explanations() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let told = Told::default();
    let mut world = World::new(9);
    world.server.allow(TOKEN, USER, &[SCOPE]);
    let (mut a, b) = (world.device("a"), world.device("b"));
    for device in [&a, &b] {
        device.credentials.set(Some(TOKEN));
        let (events, auth, notices) = (told.clone(), told.clone(), told.clone());
        device.add_operation_listener(move |event| events.add((event.reason, event.to))).unwrap();
        device.add_auth_listener(move |reason| auth.add(reason)).unwrap();
        device.add_notice_listener(move |notice| notices.add(notice)).unwrap();
    }
    refused_calls(&a, &told);
    told.error(
        a.enqueue(NewOperation::create("pin", SECRET, secret(0)).with_key("k"))
            .and_then(|_| a.enqueue(NewOperation::create("pin", SECRET, secret(1)).with_key("k"))),
    );
    world.settle(&[&a, &b]);

    // A life with conflicts, refusals, faults, deaths and a restored server.
    let before = world.path("before.db");
    world.server.snapshot(&before);
    for (n, fault) in (2..).zip(echoes()) {
        b.enqueue(NewOperation::update("pin", SECRET, secret(n * 100))).unwrap();
        world.sync(&b);
        a.enqueue(NewOperation::update("pin", SECRET, secret(n))).unwrap();
        a.enqueue(NewOperation::update("pin", format!("{SECRET}-{n}"), secret(n))).unwrap();
        let mut transaction = a.begin_transaction().unwrap();
        transaction.create("pin", &format!("{SECRET}-x"), &secret(n)).unwrap();
        transaction.update("pin", "nowhere", &secret(n)).unwrap();
        transaction.commit_queued().unwrap();
        a.network.script(move |_| Some(fault.clone()));
        a.start().unwrap();
        world.advance_secs(900);
        told.device(&a);
        a.network.heal();
        world.advance_secs(4000);
        told.device(&a);
        a.restart();
    }
    a.credentials.set(Some(&format!("{TOKEN}\n")));
    world.sync(&a);
    told.device(&a);
    a.credentials.set(Some(&format!("{TOKEN}-that-nobody-knows")));
    world.sync(&a);
    told.device(&a);
    a.credentials.set(Some(TOKEN));
    world.server.restore(&before, true);
    world.sync(&a);
    told.device(&a);
    refused_requests(&world, &told);
    problems(&world, &told);
    assert!(a.conflicts(false, 100).unwrap().iter().any(|row: &ConflictEntry| row.conflict.entity_id == SECRET));
    world.run_until_idle();

    let logged = LOGGED.lock().unwrap();
    let told = told.0.lock().unwrap();
    assert!(!logged.is_empty(), "something was logged");
    assert!(told.len() > 500, "and told: {}", told.len());
    for text in logged.iter().chain(told.iter()) {
        assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
    }
}

/// What the endpoint said of requests, and of operations that it refused.
fn problems(world: &World, told: &Told) {
    for exchange in world.server.exchanges() {
        if exchange.status != 200 {
            told.add(&exchange.answer);
        }
        for result in exchange.answer["results"].as_array().into_iter().flatten() {
            let error: &Value = &result["error"];
            told.add((&error["code"], &error["message"], &error["field"]));
        }
    }
}
