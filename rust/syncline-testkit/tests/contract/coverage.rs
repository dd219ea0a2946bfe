//! That the vectors are well written, and cover what they should.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_protocol::ProblemCode;
use syncline_testkit::contract::{Vector, files, folder, load};

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

fn sentences() -> BTreeMap<String, Value> {
    let sentences = json("sentences.json")["sentences"].as_object().unwrap().clone();
    sentences.into_iter().collect()
}

fn vectors() -> Vec<Vector> {
    load(&folder()).unwrap()
}

#[test]
fn every_file_satisfies_the_schema() {
    let validator = jsonschema::validator_for(&json("schema.json")).unwrap();
    for path in files(&folder()).unwrap() {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let wrong: Vec<_> =
            validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {}", path.display(), wrong.join("\n"));
    }
}

#[test]
fn every_sentence_has_a_vector_or_says_where_else_it_is_shown() {
    let (sentences, vectors) = (sentences(), vectors());
    let shown: BTreeSet<&String> = vectors.iter().flat_map(|vector| &vector.shows).collect();
    let unknown: Vec<_> = shown.iter().filter(|id| !sentences.contains_key(**id)).collect();
    assert!(unknown.is_empty(), "vectors name sentences that are none: {unknown:?}");
    let is_right = |id: &String, sentence: &Value| shown.contains(id) != sentence["elsewhere"].is_string();
    let open: Vec<_> = sentences.iter().filter(|(id, sentence)| !is_right(id, sentence)).map(|(id, _)| id).collect();
    assert!(open.is_empty(), "sentences without a vector, or with one and `elsewhere`: {open:?}");
}

/// Codes that no request brings about by itself, and what shows them.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "too_deep",
        "an endpoint whose reader of JSON has a depth of its own: Postgres, in the vector of 60,000 levels, which takes both",
    ),
    ("rate_limited", "server::http::limits"),
    ("unavailable", "server::http::limits, and a database that is busy: server::endpoint::store"),
    ("internal", "a defect: server::http::paths"),
    ("retry", "a registered table: testkit::postgres::direct, supabase/tests/tables_budget.sql"),
];

#[test]
fn every_code_and_status_of_the_protocol_is_expected_somewhere() {
    let mut words = BTreeSet::new();
    let mut expected = Vec::new();
    for vector in vectors() {
        expected.extend(vector.steps().flat_map(|step| [step.answer.clone(), step.problem.clone()]).flatten());
    }
    expected.iter().for_each(|answer| collect(answer, &mut words));
    let statuses = ["applied", "merged", "already_processed", "conflict", "rejected", "deferred", "retry"];
    let rules = ["last_writer_wins", "server_wins", "client_wins", "manual", "update_wins", "delete_wins"];
    let errors = ["not_found", "gone", "voided", "transaction_failed", "idempotency_key_reused"];
    let values = ["invalid_value", "payload_too_large", "record_too_large"];
    let problems = ProblemCode::ALL.iter().map(|code| code.as_str());
    let all = statuses.into_iter().chain(rules).chain(errors).chain(values).chain(problems);
    let all = all.filter(|word| !ELSEWHERE.iter().any(|(elsewhere, _)| elsewhere == word));
    let missing: Vec<_> = all.filter(|word| !words.contains(*word)).collect();
    assert!(missing.is_empty(), "no vector expects {missing:?}");
}

fn collect(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(words.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(members) => members.values().for_each(|member| collect(member, words)),
        _ => {}
    }
}

#[test]
fn there_are_enough_of_them() {
    assert!(vectors().len() >= 150);
}

#[test]
fn names_are_one_of_a_kind() {
    let vectors = vectors();
    let names: BTreeSet<&String> = vectors.iter().map(|vector| &vector.name).collect();
    assert_eq!(names.len(), vectors.len());
}
