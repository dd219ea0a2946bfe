//! The golden JSON of version 1: requests with the answers that they must get, to the byte of every value. Frozen: a change of
//! an answer is a change of the protocol.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syncline_protocol::{Problem, PullRequest, PullResponse, PushRequest, PushResponse, Timestamp};

use crate::world::World;

#[derive(Deserialize)]
struct Fixture {
    description: String,
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

fn fixtures() -> Vec<(String, Fixture)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../syncline-protocol/fixtures/v1");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, fixture)
    };
    files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "json")).map(read).collect()
}

#[test]
fn every_request_gets_the_answer_on_record() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 10);
    for (name, fixture) in fixtures {
        assert!(!fixture.description.is_empty());
        let mut world = World::with(fixture.types);
        for (index, exchange) in fixture.exchanges.into_iter().enumerate() {
            world.now = exchange.now;
            let answer = world.send(&exchange.path, &exchange.request);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, body), (exchange.status, exchange.answer), "{name}, exchange {index}");
        }
    }
}

/// Reads JSON as a type and writes it again: every member on record is known to the type.
fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    // By way of the text: raw values are read from text only.
    let typed: T = serde_json::from_str(&value.to_string()).unwrap_or_else(|error| panic!("{error} in {value}"));
    serde_json::to_value(&typed).unwrap()
}

#[test]
fn the_types_of_the_protocol_hold_everything_on_record() {
    for (name, fixture) in fixtures() {
        for exchange in fixture.exchanges {
            let (request, answer) = match (exchange.path.as_str(), exchange.status) {
                ("push", 200) => {
                    (round_trip::<PushRequest>(&exchange.request), round_trip::<PushResponse>(&exchange.answer))
                }
                ("pull", 200) => {
                    (round_trip::<PullRequest>(&exchange.request), round_trip::<PullResponse>(&exchange.answer))
                }
                _ => (exchange.request.clone(), round_trip::<Problem>(&exchange.answer)),
            };
            assert_eq!(answer, exchange.answer, "{name}");
            assert_kept(&exchange.request, &request, &name);
        }
    }
}

/// Every member is kept, but for those at their default, which may be left out.
fn assert_kept(value: &Value, kept: &Value, place: &str) {
    match (value, kept) {
        (Value::Object(members), Value::Object(_)) => {
            for (name, member) in members {
                let default = [json!(null), json!(0), json!(false), json!([]), json!({})].contains(member);
                assert!(default || kept.get(name).is_some(), "{place}.{name}");
                if let Some(kept) = kept.get(name) {
                    assert_kept(member, kept, &format!("{place}.{name}"));
                }
            }
        }
        (Value::Array(items), Value::Array(kept)) => {
            assert_eq!(items.len(), kept.len(), "{place}");
            items
                .iter()
                .zip(kept)
                .enumerate()
                .for_each(|(n, (item, kept))| assert_kept(item, kept, &format!("{place}[{n}]")));
        }
        _ => assert_eq!(value, kept, "{place}"),
    }
}

#[test]
fn the_record_covers_every_status_and_most_codes() {
    let mut words = BTreeSet::new();
    for (_, fixture) in fixtures() {
        for exchange in fixture.exchanges {
            collect(&exchange.answer, &mut words);
        }
    }
    let expected = [
        "applied",
        "merged",
        "already_processed",
        "conflict",
        "rejected",
        "deferred",
        "last_writer_wins",
        "manual",
        "update_wins",
        "delete_wins",
        "server_wins",
        "client_wins",
        "not_found",
        "gone",
        "voided",
        "transaction_failed",
        "idempotency_key_reused",
        "invalid_value",
        "server_behind",
        "device_forked",
        "wrong_device",
        "wrong_scope",
        "invalid_request",
        "unsupported_protocol",
    ];
    for word in expected {
        assert!(words.contains(word), "no fixture shows {word}");
    }
}

fn collect(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(words.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(members) => members.values().for_each(|member| collect(member, words)),
        _ => {}
    }
}
