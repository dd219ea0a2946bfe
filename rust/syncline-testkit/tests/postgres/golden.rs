//! The golden exchanges of version 1. What an endpoint makes up itself (epochs, cursors, ids of ledger rows) stands in them as the
//! embedded endpoint made it up; here it stands for what Postgres answered at the same place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::Claims;
use syncline_testkit::contract::{Host as _, PostgresHost, Sent};

#[derive(Deserialize)]
struct Fixture {
    types: Value,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    path: String,
    now: Timestamp,
    request: Value,
    status: u16,
    answer: Value,
}

/// What stands in the fixture → what Postgres said.
#[derive(Default)]
struct Meanings(BTreeMap<String, String>);

impl Meanings {
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.0.get(text).unwrap_or(text).clone()),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }

    fn learn(&mut self, name: &str, on_record: &Value, given: &Value) {
        match (on_record, given) {
            (Value::String(on_record), Value::String(given)) if is_made_up(name, on_record) => {
                self.0.insert(on_record.clone(), given.clone());
            }
            (Value::Array(on_record), Value::Array(given)) => {
                on_record.iter().zip(given).for_each(|(on_record, given)| self.learn(name, on_record, given));
            }
            (Value::Object(on_record), Value::Object(given)) => {
                for (name, value) in on_record {
                    given.get(name).into_iter().for_each(|given| self.learn(name, value, given));
                }
            }
            _ => {}
        }
    }
}

fn is_made_up(member: &str, text: &str) -> bool {
    let is_uuid = text.len() == 36 && text.matches('-').count() == 4;
    ["epoch", "cursor"].contains(&member) || member == "id" && is_uuid
}

#[test]
fn every_golden_request_gets_the_answer_on_record() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../syncline-protocol/fixtures/v1");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10);
    for (number, file) in files.iter().enumerate() {
        let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut host = PostgresHost::new(&crate::database(&format!("golden_{number}"))).unwrap();
        host.reset(&fixture.types).unwrap();
        let mut meanings = Meanings::default();
        for (index, exchange) in fixture.exchanges.iter().enumerate() {
            host.set_clock(exchange.now).unwrap();
            let request = meanings.fill(&exchange.request);
            let user_id = request["user_id"].as_str().unwrap_or("ada").to_owned();
            let claims = Claims::new(user_id, ["team".to_owned()].into());
            let route = if exchange.path == "push" { Route::Push } else { Route::Pull };
            let body = request.to_string();
            let sent = Sent { route, body: body.as_bytes(), claims: &claims, http: None };
            let answered = host.handle(sent).unwrap();
            let given: Value = serde_json::from_slice(&answered.body).unwrap();
            meanings.learn("", &exchange.answer, &given);
            let expected = meanings.fill(&exchange.answer);
            let place = format!("{}, exchange {index}", file.display());
            assert_eq!((answered.status, given), (exchange.status, expected), "{place}");
        }
    }
}
