//! Keys, hashes, voids, marks (spec §4 rules 1 and 2, §6).

use serde_json::json;
use syncline_protocol::FirstStatus;

use crate::world::{World, codes, op, with, word, words};

#[test]
fn a_repeated_push_is_already_processed_and_applies_once() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"title": "x"}), json!({}));
    let first = world.push("A", vec![create.clone()]);
    assert_eq!((first.applied, first.results.len(), first.version, first.mark), (1, 0, 1, Some(1)));
    let again = world.push("A", vec![create]);
    let result = &again.results[0];
    assert_eq!((word(&again, 0).as_str(), result.first), ("already_processed", Some(FirstStatus::Applied)));
    assert_eq!((again.applied, again.version, again.mark, result.version), (0, 1, Some(2), 1));
    assert_eq!(result.record.as_ref().unwrap().to_string(), r#"{"title":"x"}"#);
    assert!(result.device_id.is_none() && result.sequence.is_none());
    assert_eq!(world.pull(None).changes.len(), 1);
}

#[test]
fn a_stored_rejection_is_repeated_with_its_error() {
    let mut world = World::new();
    let update = op("A", 1, "update", "e", json!({"title": "x"}), json!({}));
    let first = world.push("A", vec![update.clone()]);
    assert_eq!((words(&first), codes(&first)), (vec!["rejected".to_owned()], vec!["not_found"]));
    world.push("A", vec![op("A", 2, "create", "e", json!({}), json!({}))]);
    let again = world.push("A", vec![update]);
    assert_eq!(again.results[0].first, Some(FirstStatus::Rejected));
    assert_eq!(codes(&again), ["not_found"]);
}

/// Counter-example 34: "one caller's key on deletes of two entities: the second was answered by the first: never applied".
#[test]
fn ce34_a_key_used_for_another_entity_is_refused() {
    let mut world = World::new();
    world.push(
        "A",
        vec![op("A", 1, "create", "e1", json!({}), json!({})), op("A", 2, "create", "e2", json!({}), json!({}))],
    );
    let delete = with(op("A", 3, "delete", "e1", json!(null), json!({"A": 1})), json!({"idempotency_key": "mine"}));
    assert_eq!(world.status("A", delete), "applied");
    let other = with(op("A", 4, "delete", "e2", json!(null), json!({"A": 2})), json!({"idempotency_key": "mine"}));
    let answer = world.push("A", vec![other]);
    assert_eq!(codes(&answer), ["idempotency_key_reused"]);
    assert!(answer.results[0].first.is_none());
    assert!(world.record("e2").is_some());
}
