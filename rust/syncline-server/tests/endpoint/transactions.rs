//! Transactions, lanes and dependencies in one batch (spec §2, §5, §6).

use serde_json::{Value, json};
use syncline_protocol::FirstStatus;

use crate::world::{World, codes, op, with, words};

fn member(group: &str, operation: Value) -> Value {
    with(operation, json!({ "transaction_id": group }))
}

fn create(device: &str, sequence: u64, id: &str) -> Value {
    op(device, sequence, "create", id, json!({"f": sequence}), json!({}))
}

#[test]
fn a_transaction_applies_whole() {
    let mut world = World::new();
    let answer = world.push("A", vec![member("t", create("A", 1, "e1")), member("t", create("A", 2, "e2"))]);
    assert_eq!((answer.applied, answer.version), (2, 2));
}

#[test]
fn one_rejected_member_undoes_the_others_and_is_named() {
    let mut world = World::new();
    let update = op("A", 2, "update", "none", json!({"f": 1}), json!({}));
    let members = vec![create("A", 1, "e1"), update, create("A", 3, "e3")];
    let operations: Vec<_> =
        members.into_iter().map(|operation| member("t", operation)).chain([create("A", 4, "e4")]).collect();
    let answer = world.push("A", operations.clone());
    assert_eq!(codes(&answer), ["transaction_failed", "not_found", "transaction_failed"]);
    for result in [&answer.results[0], &answer.results[2]] {
        assert_eq!(result.error.as_ref().unwrap().culprit.as_deref(), Some("A2"));
        assert_eq!((result.version, result.deleted), (0, true));
    }
    assert!(answer.results[1].error.as_ref().unwrap().culprit.is_none());
    assert_eq!((answer.applied, answer.version), (1, 1), "what is outside goes on");
    let again = world.push("A", operations[..3].to_vec());
    assert!(again.results.iter().all(|result| result.first == Some(FirstStatus::Rejected)));
    assert_eq!(codes(&again), ["transaction_failed", "not_found", "transaction_failed"], "all stored");
}

#[test]
fn members_of_one_lane_follow_each_other_and_are_undone_together() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    let group = |fourth: &str| {
        vec![
            member("t", op("A", 2, "update", "e", json!({"f": 2}), json!({"A": 1}))),
            member("t", op("A", 3, "delete", "e", json!(null), json!({"A": 2}))),
            member("t", op("A", 4, fourth, "e", json!({"f": 4}), json!({"A": 3}))),
        ]
    };
    let answer = world.push("A", group("update"));
    assert_eq!(codes(&answer), ["transaction_failed", "transaction_failed", "gone"]);
    assert_eq!((world.record("e"), answer.version), (Some(json!({"f": 1})), 1));
    let retried = group("create").into_iter().enumerate().map(|(index, operation)| {
        let key = format!("A-{}#2", index + 2);
        with(operation, json!({ "idempotency_key": key }))
    });
    assert_eq!(world.push("A", retried.collect()).results.len(), 3);
    assert_eq!(world.record("e"), Some(json!({"f": 4})));
}

#[test]
fn a_conflict_in_a_manual_type_is_the_culprit_and_in_the_ledger() {
    let mut world = World::with(json!({"pin": {"conflict_rule": "manual"}}));
    world.push("B", vec![create("B", 1, "e")]);
    let update = member("t", op("A", 2, "update", "e", json!({"f": 2}), json!({"X": 1})));
    let answer = world.push("A", vec![member("t", create("A", 1, "e1")), update.clone()]);
    assert_eq!(words(&answer), ["rejected", "conflict"]);
    assert_eq!(answer.results[0].error.as_ref().unwrap().culprit.as_deref(), Some("A2"));
    assert_eq!((world.endpoint.ledger("team").unwrap().len(), world.record("e1")), (1, None));
    let again = world.push("A", vec![member("t", create("A", 1, "e1")), update]);
    assert_eq!(again.results[1].first, Some(FirstStatus::Conflict));
    assert!(again.results[1].conflict.is_some());
}

/// Counter-example 22: "a `manual` entity in a transaction conflicts; the user retries: the same conflict for ever".
#[test]
fn ce22_a_group_retried_with_the_clock_that_the_app_saw_applies() {
    let mut world = World::with(json!({"pin": {"conflict_rule": "manual"}}));
    world.push("B", vec![create("B", 1, "e")]);
    let first = member("t", create("A", 1, "e1"));
    let second = member("t", op("A", 2, "update", "e", json!({"f": 2}), json!({"X": 1})));
    let answer = world.push("A", vec![first.clone(), second.clone()]);
    let seen = answer.results[1].conflict.as_ref().unwrap().their_clock.clone();
    let retry = vec![
        with(first, json!({"idempotency_key": "A-1#2"})),
        with(second, json!({"idempotency_key": "A-2#2", "base_clock": seen})),
    ];
    let retried = world.push("A", retry);
    assert_eq!((words(&retried), retried.applied), (vec!["applied".to_owned()], 1));
}

#[test]
fn ledger_rows_of_an_undone_transaction_are_undone() {
    let mut world = World::new();
    world.push("B", vec![create("B", 1, "e")]);
    let merged = member("t", op("A", 1, "update", "e", json!({"f": 9}), json!({"X": 1})));
    let rejected = member("t", op("A", 2, "update", "none", json!({}), json!({})));
    let answer = world.push("A", vec![merged, rejected]);
    assert_eq!(codes(&answer), ["transaction_failed", "not_found"]);
    assert_eq!(world.endpoint.ledger("team").unwrap().len(), 0);
    assert_eq!(world.record("e"), Some(json!({"f": 1})));
}

#[test]
fn if_one_member_waits_all_wait_and_nothing_is_stored() {
    let mut world = World::new();
    let failing = op("A", 1, "update", "e", json!({"f": 1}), json!({}));
    let group = vec![member("t", create("A", 2, "e2")), member("t", op("A", 3, "create", "e", json!({}), json!({})))];
    let answer = world.push("A", [vec![failing], group.clone()].concat());
    assert_eq!(words(&answer), ["rejected", "deferred", "deferred"]);
    assert!(world.endpoint.operation("team", "A-2").unwrap().is_none());
    assert_eq!(world.push("A", group).applied, 2);
}

#[test]
fn a_known_rejection_fails_the_members_that_are_not_decided() {
    let mut world = World::new();
    let first = op("A", 1, "update", "none", json!({}), json!({}));
    world.push("A", vec![first.clone()]);
    let second = member("t", create("A", 2, "e2"));
    let answer = world.push("A", vec![member("t", first), second.clone()]);
    assert_eq!(words(&answer), ["already_processed", "rejected"]);
    assert_eq!(answer.results[1].error.as_ref().unwrap().culprit.as_deref(), Some("A1"));
    assert_eq!(codes(&world.push("A", vec![second])), ["transaction_failed"], "stored");
}

/// Counter-example 33: "a group fails; it is discarded; its delayed first request arrives".
#[test]
fn ce33_a_late_group_meets_its_members_refusals() {
    let mut world = World::new();
    let group = vec![
        member("t", create("A", 1, "e1")),
        member("t", op("A", 2, "update", "e2", json!({"f": 1}), json!({"B": 1}))),
    ];
    world.push("A", group.clone());
    world.push("B", vec![create("B", 1, "e2")]);
    let late = world.push("A", group);
    assert!(late.results.iter().all(|result| result.first == Some(FirstStatus::Rejected)));
    assert_eq!(world.record("e1"), None);
}

#[test]
fn a_voided_group_is_voided_member_by_member() {
    let mut world = World::new();
    let group = vec![member("t", create("A", 1, "e1")), member("t", create("A", 2, "e2"))];
    let void: Vec<_> = group.iter().map(|operation| with(operation.clone(), json!({"void": true}))).collect();
    assert_eq!(codes(&world.push("A", void)), ["voided", "voided"]);
    assert_eq!(codes(&world.push("A", group)), ["voided", "voided"]);
}

#[test]
fn what_follows_in_the_lane_or_depends_on_what_failed_is_deferred() {
    let mut world = World::new();
    let operations = vec![
        op("A", 1, "update", "e", json!({"f": 1}), json!({})),
        op("A", 2, "create", "e", json!({}), json!({})),
        with(create("A", 3, "e3"), json!({"depends_on": ["A1"]})),
        op("A", 4, "update", "e3", json!({"f": 4}), json!({})),
        with(create("A", 5, "e5"), json!({"depends_on": ["A3", "elsewhere"]})),
        with(create("A", 6, "e6"), json!({"depends_on": ["elsewhere"]})),
        create("A", 7, "e7"),
    ];
    let answer = world.push("A", operations);
    assert_eq!(words(&answer), ["rejected", "deferred", "deferred", "deferred", "deferred"]);
    assert_eq!((answer.applied, answer.version), (2, 2));
    assert!(answer.results[1].error.is_none());
    for key in ["A-2", "A-3", "A-4", "A-5"] {
        assert!(world.endpoint.operation("team", key).unwrap().is_none(), "{key}");
    }
}

/// Counter-example 9: "#2 behind a void goes in the same batch": it is not looked at before the void's answer is known.
#[test]
fn ce09_what_is_behind_a_void_waits() {
    let mut world = World::new();
    let void = with(create("A", 1, "e"), json!({"void": true}));
    let answer = world.push("A", vec![void, op("A", 2, "create", "e", json!({"f": 2}), json!({}))]);
    assert_eq!(words(&answer), ["rejected", "deferred"]);
}

#[test]
fn a_malformed_payload_fails_its_own_operation_only() {
    let mut world = World::new();
    let deep: Value = serde_json::from_str(&format!("{}1{}", r#"{"a":"#.repeat(33), "}".repeat(33))).unwrap();
    let large = json!({"a": "x".repeat(256 * 1024)});
    let operations = vec![
        op("A", 1, "create", "e1", deep, json!({})),
        op("A", 2, "create", "e2", large, json!({})),
        op("A", 3, "create", "e3", json!([1]), json!({})),
        op("A", 4, "create", "e4", json!(null), json!({})),
        op("A", 5, "create", "e5", json!({"s": "a\0b"}), json!({})),
        op("A", 6, "create", "e6", json!({"n": 9_007_199_254_740_992u64}), json!({})),
        create("A", 7, "e7"),
    ];
    let request = world.request("A", operations);
    let answer: syncline_protocol::PushResponse = serde_json::from_str(&world.send("push", &request).body).unwrap();
    let invalid = "invalid_value";
    assert_eq!(codes(&answer), [invalid, "payload_too_large", invalid, invalid, invalid, invalid]);
    let field = |index: usize| answer.results[index].error.as_ref().unwrap().field.clone().unwrap();
    assert_eq!((field(4), field(5)), ("$.s".into(), "$.n".into()));
    assert_eq!(answer.applied, 1);
    assert_eq!(codes(&world.push_as_is(&with(request, json!({"operations": [create("A", 7, "e7")]})))), [""]);
}
