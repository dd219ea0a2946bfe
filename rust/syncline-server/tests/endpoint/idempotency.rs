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

#[test]
fn the_same_key_with_another_payload_reveals_nothing_and_is_not_stored() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "update", "e", json!({"t": 1}), json!({}))]);
    let other = op("A", 1, "update", "e", json!({"t": 2}), json!({}));
    for _ in 0..2 {
        let answer = world.push("A", vec![other.clone()]);
        let result = &answer.results[0];
        assert_eq!((word(&answer, 0).as_str(), codes(&answer)), ("rejected", vec!["idempotency_key_reused"]));
        assert!(result.first.is_none() && result.conflict.is_none() && result.device_id.is_none());
    }
    let stored = world.endpoint.operation("team", "A-1").unwrap().unwrap();
    assert_eq!(stored.error.unwrap().code, "not_found");
}

#[test]
fn the_hash_is_over_the_payloads_text_as_received() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"n": 1}), json!({}));
    world.push("A", vec![create.clone()]);
    let text = world.request("A", vec![create]).to_string().replace(r#"{"n":1}"#, r#"{"n":1.0}"#);
    let claims = syncline_server::Claims::new("ada".into(), ["team".to_owned()].into());
    let request = syncline_server::Request::Push(text.as_bytes());
    let answer = syncline_server::Endpoint::handle(&mut world.endpoint, request, &claims, world.now, &mut world.random);
    assert!(answer.body.contains("idempotency_key_reused"), "{}", answer.body);
}

#[test]
fn keys_are_private_to_a_scope() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"t": 1}), json!({}));
    world.push("A", vec![create.clone()]);
    world.scope = "other".into();
    let mut request = world.request("A", vec![create]);
    request["mark"] = json!(0);
    assert_eq!(world.push_as_is(&request).applied, 1);
}

#[test]
fn a_void_of_an_unknown_key_is_stored_as_rejected() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"t": 1}), json!({}));
    let void = with(create.clone(), json!({"void": true}));
    let answer = world.push("A", vec![void.clone()]);
    assert_eq!((words(&answer), codes(&answer)), (vec!["rejected".to_owned()], vec!["voided"]));
    let again = world.push("A", vec![void]);
    assert_eq!((again.results[0].first, codes(&again)), (Some(FirstStatus::Rejected), vec!["voided"]));
    assert_eq!(world.record("e"), None);
}

#[test]
fn a_void_of_a_known_key_repeats_its_verdict() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"t": 1}), json!({}));
    world.push("A", vec![create.clone()]);
    let answer = world.push("A", vec![with(create, json!({"void": true}))]);
    assert_eq!(answer.results[0].first, Some(FirstStatus::Applied));
    assert!(world.record("e").is_some());
    let other = with(op("A", 1, "create", "e", json!({"t": 2}), json!({})), json!({"void": true}));
    assert_eq!(codes(&world.push("A", vec![other])), ["idempotency_key_reused"]);
}

/// Counter-example 11: "the first request of #1 is delayed; #1 is voided or retried; then the first request arrives".
#[test]
fn ce11_a_late_first_request_meets_the_verdict_under_its_key() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({"t": 1}), json!({}));
    world.push("A", vec![with(create.clone(), json!({"void": true}))]);
    assert_eq!(world.status("A", create), "already_processed");
    assert_eq!(world.record("e"), None, "applied although cancelled");
}

/// Counter-example 10: "the server rejects #1; the cause is mended; retry with the same key: the stored rejection for ever".
#[test]
fn ce10_a_retry_under_a_new_key_is_judged_anew() {
    let mut world = World::new();
    let update = op("A", 1, "update", "e", json!({"t": 2}), json!({"B": 1}));
    assert_eq!(world.status("A", update.clone()), "rejected");
    world.push("B", vec![op("B", 1, "create", "e", json!({"t": 1}), json!({}))]);
    assert_eq!(world.status("A", update.clone()), "already_processed");
    assert_eq!(world.status("A", with(update, json!({"idempotency_key": "A-1#2"}))), "applied");
    assert_eq!(world.record("e"), Some(json!({"t": 2})));
}

/// Counter-example 12: "A and A' both enqueue a different operation as sequence 1 on e; both push".
#[test]
fn ce12_one_dot_under_two_keys_is_a_fork() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"t": 1}), json!({}))]);
    let copy = with(op("A", 1, "create", "e", json!({"t": 2}), json!({})), json!({"idempotency_key": "copy"}));
    let other = op("A", 2, "create", "e2", json!({}), json!({}));
    let mark = world.endpoint.device("team", "A").unwrap();
    let request = world.request("A", vec![other, copy]);
    assert_eq!(world.refused(&request), "device_forked");
    assert_eq!(world.record("e2"), None, "nothing of the push is applied");
    assert_eq!(world.endpoint.device("team", "A").unwrap(), mark);
    assert!(world.endpoint.operation("team", "A-2").unwrap().is_none());
}

/// Counter-example 13: "A': #1 e.f, cancelled, #2 e.f. A: #1 e.f pushed. A' pushes #2 with own entry 1": own dots are added
/// of applied ones only, so #2 comes without, and the record's (A,1) gives the copy away.
#[test]
fn ce13_a_record_with_a_dot_that_its_device_does_not_know_is_a_fork() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    let copy = op("A", 2, "create", "e", json!({"f": 2}), json!({}));
    let request = world.request("A", vec![copy]);
    assert_eq!(world.refused(&request), "device_forked");
    assert_eq!(world.record("e"), Some(json!({"f": 1})));
}

#[test]
fn what_is_forgotten_and_yet_sent_is_a_fork_unless_its_key_is_known() {
    let mut world = World::new();
    let first = op("A", 1, "create", "e", json!({}), json!({}));
    world.push("A", vec![first.clone()]);
    let mut forget = world.request("A", vec![]);
    forget["forgotten_through"] = json!(5);
    world.push_as_is(&forget);
    assert_eq!(world.status("A", first), "already_processed");
    let request = world.request("A", vec![op("A", 5, "create", "e5", json!({}), json!({}))]);
    assert_eq!(world.refused(&request), "device_forked");
    assert_eq!(world.status("A", op("A", 6, "create", "e6", json!({}), json!({}))), "applied");
    let void = with(op("A", 4, "create", "e4", json!({}), json!({})), json!({"void": true}));
    assert_eq!(codes(&world.push("A", vec![void])), ["voided"], "a void has no effect that could be a copy's");
}

#[test]
fn forgotten_through_never_falls_and_a_dry_run_leaves_it() {
    let mut world = World::new();
    for (through, dry, kept) in [(5, false, 5), (3, false, 5), (9, true, 5), (9, false, 9)] {
        let mut request = world.request("A", vec![]);
        request["forgotten_through"] = json!(through);
        request["dry_run"] = json!(dry);
        world.push_as_is(&request);
        assert_eq!(world.endpoint.device("team", "A").unwrap().unwrap().forgotten_through, kept);
    }
}

/// Counter-example 14: "A' forks to C and re-sends #1, which A had delivered as (A,1); then its #2 of the same lane".
#[test]
fn ce14_a_copy_learns_the_dot_and_its_followers_wait_once() {
    let mut world = World::new();
    let first = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    world.push("A", vec![first.clone()]);
    let second = with(op("A", 2, "update", "e", json!({"f": 2}), json!({"C": 1})), json!({"idempotency_key": "C-2"}));
    let elsewhere = op("C", 3, "create", "e3", json!({}), json!({}));
    let answer = world.push("C", vec![first, second.clone(), elsewhere]);
    assert_eq!(words(&answer), ["already_processed", "deferred"]);
    assert_eq!(answer.applied, 1, "another lane goes on");
    assert_eq!((answer.results[0].device_id.as_deref(), answer.results[0].sequence), (Some("A"), Some(1)));
    let judged_on = with(second, json!({"base_clock": {"A": 1}}));
    assert_eq!(world.status("C", judged_on), "applied");
    assert_eq!(world.clock("e"), json!({"A": 1, "C": 2}));
}

#[test]
fn known_followers_of_a_foreign_dot_are_answered_at_once() {
    let mut world = World::new();
    let first = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    let second = op("A", 2, "update", "e", json!({"f": 2}), json!({"A": 1}));
    world.push("A", vec![first.clone(), second.clone()]);
    let answer = world.push("C", vec![first, second]);
    assert_eq!(words(&answer), ["already_processed", "already_processed"]);
    assert_eq!((answer.results[1].device_id.as_deref(), answer.results[1].sequence), (Some("A"), Some(2)));
}

#[test]
fn marks_count_every_committed_push() {
    let mut world = World::new();
    let create = op("A", 1, "create", "e", json!({}), json!({}));
    let marks: Vec<_> = [vec![], vec![create.clone()], vec![create], vec![]]
        .into_iter()
        .map(|operations| world.push("A", operations).mark)
        .collect();
    assert_eq!(marks, [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(world.push("B", vec![]).mark, Some(1));
}

/// Counter-example 37: "an entity type in `observe` sends dry runs: the repeated mark looked like a server gone back".
#[test]
fn ce37_a_dry_run_judges_and_leaves_no_trace() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    let before = world.endpoint.entities("team").unwrap();
    let operations = vec![
        op("B", 1, "update", "e", json!({"f": 2}), json!({})),
        op("B", 2, "update", "gone", json!({}), json!({})),
        op("B", 3, "create", "new", json!({}), json!({})),
    ];
    let mut request = world.request("B", operations.clone());
    request["dry_run"] = json!(true);
    let cursor = world.pull(None).cursor;
    request["cursor"] = json!(cursor);
    let answer = world.push_as_is(&request);
    assert_eq!(words(&answer), ["merged", "rejected"]);
    assert_eq!((answer.applied, answer.mark, answer.cursor.as_deref(), answer.version), (1, None, None, 1));
    assert!(answer.results[0].conflict.is_some());
    assert_eq!(answer.results[0].version, 1, "what is answered about the entity is what is stored");
    assert_eq!(world.endpoint.entities("team").unwrap(), before);
    assert_eq!(world.endpoint.ledger("team").unwrap().len(), 0);
    assert!(world.endpoint.device("team", "B").unwrap().is_none());
    assert!(world.endpoint.operation("team", "B-1").unwrap().is_none());
    let applied = world.push("B", operations);
    assert_eq!((words(&applied), applied.mark), (words(&answer), Some(1)));
}

#[test]
fn a_device_belongs_to_the_user_who_first_used_it() {
    let mut world = World::new();
    world.push("A", vec![]);
    let mut request = world.request("A", vec![]);
    request["user_id"] = json!("bob");
    assert_eq!(world.refused(&request), "wrong_device");
    let pull = json!({"protocol": 1, "user_id": "bob", "scope": "team", "device_id": "A", "limit": 1});
    assert_eq!(world.send("pull", &pull).problem.unwrap().code, "wrong_device");
}
