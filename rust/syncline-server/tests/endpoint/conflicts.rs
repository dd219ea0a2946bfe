//! What the rules of spec §4 do when they are reached through a push: statuses, ledger, revival.

use serde_json::{Value, json};
use syncline_protocol::{ConflictResult, Winner};

use crate::world::{NOON, World, codes, op, with, word};

/// A's create, and then what B writes without having seen it.
fn disputed(types: Value, payload: Value) -> (World, syncline_protocol::PushResponse) {
    let mut world = World::with(types);
    world.push("A", vec![op("A", 5, "create", "e", json!({"f": 1, "g": 1}), json!({}))]);
    let answer = world.push("B", vec![op("B", 9, "update", "e", payload, json!({"X": 1}))]);
    (world, answer)
}

#[test]
fn the_later_write_wins_and_the_ledger_has_both() {
    let (mut world, answer) = disputed(json!({}), json!({"f": 2, "h": 3}));
    assert_eq!(word(&answer, 0), "merged");
    assert_eq!(answer.results[0].record.as_ref().unwrap().to_string(), r#"{"f":2,"g":1,"h":3}"#);
    let conflict = answer.results[0].conflict.clone().unwrap();
    assert_eq!((conflict.rule.as_str(), conflict.result), ("last_writer_wins", ConflictResult::Merged));
    assert_eq!(conflict.fields.keys().collect::<Vec<_>>(), ["f", "h"]);
    let field = &conflict.fields["f"];
    assert_eq!((field.ours.as_ref().unwrap().get(), field.theirs.as_ref().unwrap().get()), ("2", "1"));
    assert!(field.base.is_none() && field.winner == Winner::Ours);
    assert_eq!(serde_json::to_value(&conflict.our_clock).unwrap(), json!({"B": 9, "X": 1}));
    assert_eq!(serde_json::to_value(&conflict.their_clock).unwrap(), json!({"A": 5}));
    assert_eq!((conflict.device_id.as_str(), conflict.user_id.as_str()), ("B", "ada"));
    let ledger = world.endpoint.ledger("team").unwrap();
    assert_eq!(serde_json::to_value(&ledger).unwrap(), serde_json::to_value([&conflict]).unwrap());
    let again = world.push("B", vec![op("B", 9, "update", "e", json!({"f": 2, "h": 3}), json!({"X": 1}))]);
    assert_eq!(serde_json::to_value(&again.results[0].conflict).unwrap(), serde_json::to_value(&conflict).unwrap());
    assert_eq!(world.endpoint.ledger("team").unwrap().len(), 1);
}

#[test]
fn an_earlier_write_loses_its_field_only() {
    let mut world = World::new();
    world.push("A", vec![op("A", 9, "create", "e", json!({"f": 1}), json!({}))]);
    world.push("A", vec![op("A", 10, "update", "e", json!({"g": 1}), json!({"A": 9}))]);
    let update = op("B", 5, "update", "e", json!({"f": 2, "g": 2}), json!({"A": 9}));
    let answer = world.push("B", vec![update]);
    assert_eq!(answer.results[0].record.as_ref().unwrap().to_string(), r#"{"f":2,"g":1}"#);
    assert_eq!(world.clock("e"), json!({"A": 10, "B": 5}));
}

#[test]
fn the_operators_rule_goes_before_the_apps_wish() {
    for (types, wish, rule, f) in [
        (json!({"pin": {"conflict_rule": "server_wins"}}), json!("client_wins"), "server_wins", 1),
        (json!({"pin": {}}), json!("server_wins"), "server_wins", 1),
        (json!({}), json!("client_wins"), "client_wins", 2),
        (json!({}), json!(null), "last_writer_wins", 2),
    ] {
        let mut world = World::with(types);
        world.push("A", vec![op("A", 5, "create", "e", json!({"f": 1}), json!({}))]);
        let update = with(op("B", 9, "update", "e", json!({"f": 2}), json!({"X": 1})), json!({"conflict_rule": wish}));
        let answer = world.push("B", vec![update]);
        assert_eq!(answer.results[0].conflict.as_ref().unwrap().rule, rule);
        assert_eq!(world.record("e"), Some(json!({"f": f})));
    }
}

#[test]
fn a_manual_conflict_applies_nothing_and_is_resolved_with_the_ledgers_clock() {
    let manual = json!({"pin": {"conflict_rule": "manual"}});
    let (mut world, answer) = disputed(manual, json!({"f": 2, "free": true}));
    let before = with(op("B", 9, "update", "e", json!({"f": 2, "free": true}), json!({"X": 1})), json!({}));
    assert_eq!((word(&answer, 0).as_str(), answer.version), ("conflict", 1));
    let conflict = answer.results[0].conflict.as_ref().unwrap();
    assert_eq!((conflict.rule.as_str(), conflict.fields["f"].winner), ("manual", Winner::None));
    assert_eq!(world.record("e"), Some(json!({"f": 1, "g": 1})));
    assert_eq!(world.clock("e"), json!({"A": 5}));
    let resolved = with(before, json!({"idempotency_key": "B-9#2", "base_clock": conflict.their_clock}));
    assert_eq!(world.status("B", resolved), "applied");
    assert_eq!(world.record("e"), Some(json!({"f": 2, "g": 1, "free": true})));
}

#[test]
fn what_the_writer_saw_is_the_base_in_the_ledger() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    let update = op("B", 2, "update", "e", json!({"f": 2}), json!({}));
    let answer = world.push("B", vec![with(update, json!({"before": {"f": "old", "g": 1}}))]);
    let fields = &answer.results[0].conflict.as_ref().unwrap().fields;
    assert_eq!(fields["f"].base.as_ref().unwrap().get(), r#""old""#);
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let update = op("C", 3, "update", "e", json!({"f": 3}), json!({}));
    let update = with(update, json!({"before": {"f": serde_json::from_str::<Value>(&deep).unwrap()}}));
    let answer = world.push("C", vec![update]);
    assert_eq!(word(&answer, 0), "merged", "an unfit `before` costs only the base");
    assert!(answer.results[0].conflict.as_ref().unwrap().fields["f"].base.is_none());
}

/// Counter-example 19: "A writes e.f=1 at 10:00:05; B writes e.f=1 at 10:00:02, arriving later; C writes e.f=2 at 10:00:03, last".
#[test]
fn ce19_an_equal_value_keeps_the_later_dot() {
    for order in [["A", "B", "C"], ["B", "A", "C"], ["C", "B", "A"], ["B", "C", "A"]] {
        let mut world = World::new();
        world.push("X", vec![op("X", 1, "create", "e", json!({"f": 0}), json!({}))]);
        for device in order {
            let (sequence, value) = match device {
                "A" => (5, 1),
                "B" => (2, 1),
                _ => (3, 2),
            };
            world.push(device, vec![op(device, sequence, "update", "e", json!({"f": value}), json!({"X": 1}))]);
        }
        assert_eq!(world.record("e"), Some(json!({"f": 1})), "{order:?}");
        assert_eq!(world.clock("e"), json!({"A": 5, "X": 1}), "{order:?}");
    }
}

/// Counter-example 20: "A deletes e, then re-creates it with e.f0; B, who saw neither, writes e.f1".
#[test]
fn ce20_a_field_without_its_own_dot_counts_as_set_by_the_create() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f1": 0}), json!({}))]);
    world.push("A", vec![op("A", 2, "delete", "e", json!(null), json!({"A": 1}))]);
    world.push("A", vec![op("A", 3, "create", "e", json!({"f0": 1}), json!({"A": 2}))]);
    let answer = world.push("B", vec![op("B", 4, "update", "e", json!({"f1": 1}), json!({"A": 1}))]);
    assert_eq!(word(&answer, 0), "merged");
    assert_eq!(answer.results[0].conflict.as_ref().unwrap().fields.len(), 1, "a ledger row");
    assert_eq!(world.record("e"), Some(json!({"f0": 1, "f1": 1})));
}

/// Counter-example 21: "A deletes e and, unaware, updates it (a stale screen)".
#[test]
fn ce21_an_update_that_has_seen_the_tombstone_is_gone() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    let delete = op("A", 2, "delete", "e", json!(null), json!({"A": 1}));
    let update = op("A", 3, "update", "e", json!({"f": 2}), json!({"A": 2}));
    let answer = world.push("A", vec![delete, update]);
    assert_eq!(codes(&answer)[1], "gone");
    assert_eq!(world.record("e"), None);
}

#[test]
fn an_update_of_nothing_is_not_found_or_gone() {
    let mut world = World::new();
    let never = op("A", 1, "update", "e", json!({"f": 1}), json!({}));
    let zero = op("A", 2, "update", "e2", json!({"f": 1}), json!({"B": 0}));
    let purged = op("A", 3, "update", "e3", json!({"f": 1}), json!({"B": 1}));
    assert_eq!(codes(&world.push("A", vec![never, zero, purged])), ["not_found", "not_found", "gone"]);
}

#[test]
fn a_delete_of_nothing_is_applied_and_leaves_nothing() {
    let mut world = World::new();
    let answer = world.push("A", vec![op("A", 1, "delete", "e", json!(null), json!({}))]);
    assert_eq!((answer.applied, answer.version), (1, 0));
    let again = world.push("A", vec![op("A", 1, "delete", "e", json!(null), json!({}))]);
    assert_eq!((again.results[0].version, again.results[0].deleted), (0, true));
}

#[test]
fn a_delete_of_a_tombstone_is_applied_and_changes_nothing() {
    let mut world = World::with(json!({"pin": {"conflict_rule": "manual"}}));
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    world.push("A", vec![op("A", 2, "delete", "e", json!(null), json!({"A": 1}))]);
    let answer = world.push("B", vec![op("B", 3, "delete", "e", json!(null), json!({}))]);
    assert_eq!((word(&answer, 0).as_str(), answer.version), ("applied", 2));
    assert_eq!(world.clock("e"), json!({"A": 2}));
}

#[test]
fn a_delete_against_an_unseen_write() {
    for (rule, lives, winner) in [("update_wins", true, Winner::Theirs), ("delete_wins", false, Winner::Ours)] {
        let mut world = World::with(json!({"pin": {"delete_rule": rule}}));
        world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1, "g": 1}), json!({}))]);
        world.push("B", vec![op("B", 2, "update", "e", json!({"f": 2}), json!({"A": 1}))]);
        let answer = world.push("A", vec![op("A", 3, "delete", "e", json!(null), json!({"A": 1}))]);
        assert_eq!(word(&answer, 0), "merged", "{rule}");
        let conflict = answer.results[0].conflict.as_ref().unwrap();
        assert_eq!((conflict.rule.as_str(), conflict.fields.len()), (rule, 1));
        let field = &conflict.fields["f"];
        assert_eq!((field.theirs.as_ref().unwrap().get(), field.winner), ("2", winner));
        assert!(field.ours.is_none() && !conflict.their_deleted);
        assert_eq!(world.record("e").is_some(), lives);
        assert_eq!(answer.version, if lives { 2 } else { 3 }, "a delete that is not applied changes nothing");
    }
}

#[test]
fn a_delete_that_has_not_seen_a_removal() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    world.push("B", vec![op("B", 2, "update", "e", json!({"f": null}), json!({"A": 1}))]);
    assert_eq!(world.status("C", op("C", 3, "delete", "e", json!(null), json!({"A": 1}))), "merged");
    assert_eq!(world.record("e"), Some(json!({})));
    assert_eq!(world.status("C", op("C", 4, "delete", "e", json!(null), json!({"A": 1, "B": 2}))), "applied");
}

#[test]
fn a_record_without_fields_counts_as_one_field_set_by_its_create() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({}), json!({}))]);
    let answer = world.push("B", vec![op("B", 2, "delete", "e", json!(null), json!({}))]);
    assert_eq!((word(&answer, 0).as_str(), world.record("e")), ("merged", Some(json!({}))));
    assert_eq!(world.status("B", op("B", 3, "delete", "e", json!(null), json!({"A": 1}))), "applied");
}

#[test]
fn a_write_against_an_unseen_delete() {
    for (rule, kind, lives) in [
        ("update_wins", "update", true),
        ("update_wins", "create", true),
        ("delete_wins", "update", false),
        ("delete_wins", "create", false),
    ] {
        let mut world = World::with(json!({"pin": {"delete_rule": rule}}));
        world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1, "g": 1}), json!({}))]);
        world.push("A", vec![op("A", 2, "delete", "e", json!(null), json!({"A": 1}))]);
        let answer = world.push("B", vec![op("B", 3, kind, "e", json!({"f": 2}), json!({"A": 1}))]);
        assert_eq!(word(&answer, 0), "merged", "{rule} {kind}");
        let conflict = answer.results[0].conflict.as_ref().unwrap();
        assert!(conflict.their_deleted && conflict.fields["f"].theirs.is_none());
        assert_eq!((conflict.rule.as_str(), answer.results[0].deleted), (rule, !lives));
        assert_eq!(world.record("e"), lives.then(|| json!({"f": 2, "g": 1})));
        let clock = if lives { json!({"A": 1, "B": 3}) } else { json!({"A": 2}) };
        assert_eq!(world.clock("e"), clock);
    }
}

#[test]
fn in_a_manual_type_deletion_and_write_are_a_conflict_either_way() {
    let manual = || World::with(json!({"pin": {"conflict_rule": "manual", "delete_rule": "delete_wins"}}));
    let mut world = manual();
    world.push("A", vec![op("A", 1, "create", "e", json!({"f": 1}), json!({}))]);
    assert_eq!(world.status("B", op("B", 2, "delete", "e", json!(null), json!({}))), "conflict");
    world.push("A", vec![op("A", 3, "delete", "e", json!(null), json!({"A": 1}))]);
    let answer = world.push("C", vec![op("C", 4, "update", "e", json!({"f": 2}), json!({"A": 1}))]);
    assert_eq!(word(&answer, 0), "conflict");
    let their_clock = &answer.results[0].conflict.as_ref().unwrap().their_clock;
    // "An update resolved against a deletion is sent as a create with the whole value."
    let resolved = op("C", 4, "create", "e", json!({"f": 2}), serde_json::to_value(their_clock).unwrap());
    assert_eq!(world.status("C", with(resolved, json!({"idempotency_key": "C-4#2"}))), "applied");
    assert_eq!((world.record("e"), world.clock("e")), (Some(json!({"f": 2})), json!({"C": 4})));
}

/// Counter-example 26: "clock of A one hour ahead; A writes; B, having seen it, writes: B's later write lost".
#[test]
fn ce26_a_timestamp_far_ahead_is_clamped() {
    let mut world = World::new();
    let hour =
        with(op("A", 1, "create", "e", json!({"f": 1}), json!({})), json!({"timestamp": "2026-05-01T13:00:00.000Z"}));
    world.push("A", vec![hour]);
    let change = &world.pull(None).changes[0];
    assert_eq!(change.changed_at.millis(), NOON + 60_000);
    let later =
        with(op("B", 2, "update", "e", json!({"f": 2}), json!({})), json!({"timestamp": "2026-05-01T12:01:00.001Z"}));
    world.now = world.now.plus_millis(1);
    let answer = world.push("B", vec![later]);
    assert_eq!(answer.results[0].conflict.as_ref().unwrap().fields["f"].winner, Winner::Ours);
    assert_eq!(world.record("e"), Some(json!({"f": 2})));
}

#[test]
fn a_timestamp_within_the_minute_is_kept_and_so_is_an_old_one() {
    let mut world = World::new();
    for (sequence, timestamp) in [(1, "2026-05-01T12:00:59.999Z"), (2, "1999-01-01T00:00:00.000Z")] {
        let create = op("A", sequence, "create", &format!("e{sequence}"), json!({}), json!({}));
        world.push("A", vec![with(create, json!({ "timestamp": timestamp }))]);
        let change = world.pull(None).changes.pop().unwrap();
        assert_eq!(change.changed_at.to_string(), timestamp);
    }
}
