//! Spec §4, rule by rule: each verdict is written by hand from its sentence.

use serde_json::{Value, json};
use syncline_core::transport::Route;

use crate::judge::{Judge, op, row, told, with};

/// A creates e with f and g at sequence 5; B has not seen it.
fn created(types: Value) -> Judge {
    let mut judge = Judge::with(types);
    judge.push("A", &[op("A", 5, "create", "e", json!({"f": 1, "g": 1}), json!({}))], json!([]), 1);
    judge
}

/// Then A deletes it with sequence 7.
fn deleted(types: Value) -> Judge {
    let mut judge = created(types);
    let result = told("A7", "applied", 2, json!({"A": 7}), json!(null));
    judge.push("A", &[op("A", 7, "delete", "e", json!(null), json!({"A": 5}))], json!([result]), 2);
    judge
}

fn type_of(member: &str, word: &str) -> Value {
    json!({ "pin": { member: word } })
}

fn field(ours: Value, theirs: Value, winner: &str) -> Value {
    json!({ "ours": ours, "theirs": theirs, "winner": winner })
}

#[test]
fn rule_1_a_known_key_repeats_its_verdict_with_the_record_as_it_stands() {
    let mut judge = created(json!({}));
    let other = told("B9", "applied", 2, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1}));
    judge.push("B", &[op("B", 9, "update", "e", json!({"f": 2}), json!({"A": 5}))], json!([other]), 2);
    let again = told("A5", "already_processed", 2, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1}));
    let again = with(again, json!({"first": "applied"}));
    judge.push("A", &[op("A", 5, "create", "e", json!({"f": 1, "g": 1}), json!({}))], json!([again]), 2);
}

#[test]
fn rule_1_applied_under_another_dot_names_it_and_defers_what_follows() {
    let mut judge = created(json!({}));
    let copy = with(op("A", 5, "create", "e", json!({"f": 1, "g": 1}), json!({})), json!({"sequence": 3}));
    let next = op("C", 4, "update", "e", json!({"f": 3}), json!({"C": 3}));
    let entity = |id, status| told(id, status, 1, json!({"A": 5}), json!({"f": 1, "g": 1}));
    let first = json!({"first": "applied", "device_id": "A", "sequence": 5});
    let results = json!([with(entity("A5", "already_processed"), first), entity("C4", "deferred")]);
    judge.push("C", &[copy, next], results, 1);
}

#[test]
fn rule_1_a_key_used_for_another_content_is_refused_and_reveals_nothing() {
    let mut judge = created(json!({}));
    let reused = with(op("A", 6, "create", "x", json!({"f": 1}), json!({})), json!({"idempotency_key": "A-5"}));
    let error = json!({"error": {"code": "idempotency_key_reused", "message": "…"}});
    let result = with(told("A6", "rejected", 0, json!({}), json!(null)), error);
    judge.push("A", &[reused], json!([result]), 1);
}

#[test]
fn rule_2_another_copy_has_written() {
    let mut judge = created(json!({}));
    let known_dot = op("A", 5, "create", "x", json!({}), json!({"A": 5}));
    let known_dot = with(known_dot, json!({"idempotency_key": "other"}));
    let unseen_own = op("A", 6, "update", "e", json!({"f": 2}), json!({"A": 4}));
    for forked in [known_dot, unseen_own] {
        let body = judge.pushing("A", &[forked], json!({}));
        judge.refuses(Route::Push, &body, "device_forked", json!({}));
    }
    judge.push_with("A", &[], json!({"forgotten_through": 9}), json!([]), json!({"version": 1}));
    let body = judge.pushing("A", &[op("A", 8, "create", "x", json!({}), json!({}))], json!({}));
    judge.refuses(Route::Push, &body, "device_forked", json!({}));
}

#[test]
fn rule_3_no_record() {
    let mut judge = Judge::new();
    let rejected = |id, code| with(told(id, "rejected", 0, json!({}), json!(null)), json!({"error": {"code": code}}));
    let operations = [
        op("A", 1, "delete", "none", json!(null), json!({})),
        op("A", 2, "update", "never", json!({"f": 1}), json!({})),
        op("A", 3, "update", "purged", json!({"f": 1}), json!({"B": 1})),
        op("A", 4, "create", "e", json!({"f": 1}), json!({})),
    ];
    judge.push("A", &operations, json!([rejected("A2", "not_found"), rejected("A3", "gone")]), 1);
}

#[test]
fn rule_3_a_tombstone_that_was_seen_is_gone() {
    let mut judge = deleted(json!({}));
    let gone = with(told("B9", "rejected", 2, json!({"A": 7}), json!(null)), json!({"error": {"code": "gone"}}));
    judge.push("B", &[op("B", 9, "update", "e", json!({"f": 2}), json!({"A": 7}))], json!([gone]), 2);
}

#[test]
fn rule_4_applied_if_everything_was_seen_else_merged() {
    let mut judge = created(json!({}));
    let result = told("B9", "applied", 2, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1}));
    judge.push("B", &[op("B", 9, "update", "e", json!({"f": 2}), json!({"A": 5}))], json!([result]), 2);
    let result = told("C9", "merged", 3, json!({"A": 5, "B": 9, "C": 9}), json!({"f": 2, "g": 3}));
    judge.push("C", &[op("C", 9, "update", "e", json!({"g": 3}), json!({"A": 5}))], json!([result]), 3);
}

/// Counter-example 19: C's write at second 3 meets the later of the two equal ones.
#[test]
fn rule_4_an_equal_value_keeps_the_later_dot() {
    let mut judge = Judge::new();
    judge.push("A", &[op("A", 1, "create", "e", json!({"g": 0}), json!({}))], json!([]), 1);
    let clock = |rest: Value| with(json!({"A": 1}), rest);
    let b = told("B5", "applied", 2, clock(json!({"B": 5})), json!({"f": 1, "g": 0}));
    judge.push("B", &[op("B", 5, "update", "e", json!({"f": 1}), json!({"A": 1}))], json!([b]), 2);
    let equal = told("D2", "merged", 2, clock(json!({"B": 5})), json!({"f": 1, "g": 0}));
    judge.push("D", &[op("D", 2, "update", "e", json!({"f": 1.0}), json!({"A": 1}))], json!([equal]), 2);
    let late = op("C", 3, "update", "e", json!({"f": 2}), json!({"A": 1}));
    let fields = json!({"f": field(json!(2), json!(1), "theirs")});
    let conflict = row("c", "last_writer_wins", &late, json!({"A": 1, "C": 3}), clock(json!({"B": 5})), fields);
    let lost =
        with(told("C3", "merged", 2, clock(json!({"B": 5})), json!({"f": 1, "g": 0})), json!({"conflict": conflict}));
    judge.push("C", &[late], json!([lost]), 2);
    let equal = told("E9", "merged", 3, clock(json!({"E": 9})), json!({"f": 1, "g": 0}));
    judge.push("E", &[op("E", 9, "update", "e", json!({"f": 1}), json!({"A": 1}))], json!([equal]), 3);
}

#[test]
fn rule_4_an_equal_value_older_than_the_create_changes_nothing() {
    let mut judge = created(json!({}));
    let same = told("B1", "merged", 1, json!({"A": 5}), json!({"f": 1, "g": 1}));
    judge.push("B", &[op("B", 1, "update", "e", json!({"f": 1, "h": null}), json!({}))], json!([same]), 1);
}

#[test]
fn rule_4_a_create_of_a_live_record_is_an_update_of_its_fields() {
    let mut judge = created(json!({}));
    let result = told("B9", "applied", 2, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1}));
    judge.push("B", &[op("B", 9, "create", "e", json!({"f": 2}), json!({"A": 5}))], json!([result]), 2);
}

#[test]
fn rule_4_a_create_that_has_seen_the_tombstone_replaces_everything() {
    let mut judge = deleted(json!({}));
    let result = told("B9", "applied", 3, json!({"B": 9}), json!({"h": 1}));
    judge.push("B", &[op("B", 9, "create", "e", json!({"h": 1}), json!({"A": 7}))], json!([result]), 3);
}

/// The later one wins; at the same moment the higher device id; the operator's rule before the app's wish.
#[test]
fn rule_5_two_writes_to_one_field() {
    let at = |second: i64| json!({"timestamp": format!("2026-05-01T12:00:0{second}.000Z")});
    let cases = [
        (json!({}), "B", 9, "last_writer_wins", "ours"),
        (json!({}), "B", 2, "last_writer_wins", "theirs"),
        (json!({}), "B", 5, "last_writer_wins", "ours"),
        (json!({}), "0", 5, "last_writer_wins", "theirs"),
        (type_of("conflict_rule", "server_wins"), "B", 9, "server_wins", "theirs"),
        (type_of("conflict_rule", "client_wins"), "B", 2, "client_wins", "ours"),
    ];
    for (types, device, second, rule, winner) in cases {
        let mut judge = created(types.clone());
        let wish = if types == json!({}) { json!({}) } else { json!({"conflict_rule": "manual"}) };
        let write = op(device, 9, "update", "e", json!({"f": 2}), json!({}));
        let write = with(with(write, at(second)), with(wish, json!({"id": format!("{device}9")})));
        let fields = json!({"f": field(json!(2), json!(1), winner)});
        let mut conflict = row("c", rule, &write, json!({device: 9}), json!({"A": 5}), fields);
        conflict["device_id"] = json!(device);
        let (version, clock, f) =
            if winner == "ours" { (2, json!({"A": 5, device: 9}), 2) } else { (1, json!({"A": 5}), 1) };
        let result = told(&format!("{device}9"), "merged", version, clock, json!({"f": f, "g": 1}));
        judge.push(device, &[write], json!([with(result, json!({"conflict": conflict}))]), version);
    }
}

#[test]
fn rule_5_manual_applies_nothing_and_rule_7_repeats_the_row() {
    for types in [type_of("conflict_rule", "manual"), json!({})] {
        let wish = if types == json!({}) { json!("manual") } else { json!(null) };
        let mut judge = created(types);
        let write = op("B", 9, "update", "e", json!({"f": 2, "h": 1}), json!({"X": 1}));
        let write = with(write, json!({"conflict_rule": wish, "before": {"f": 0}}));
        let f = with(field(json!(2), json!(1), "none"), json!({"base": 0}));
        let fields = json!({"f": f, "h": field(json!(1), json!(null), "none")});
        let conflict = row("c", "manual", &write, json!({"B": 9, "X": 1}), json!({"A": 5}), fields);
        let result =
            with(told("B9", "conflict", 1, json!({"A": 5}), json!({"f": 1, "g": 1})), json!({"conflict": conflict}));
        judge.push("B", std::slice::from_ref(&write), json!([result]), 1);
        let again = with(result, json!({"status": "already_processed", "first": "conflict"}));
        judge.push("B", std::slice::from_ref(&write), json!([again]), 1);
        // "It is sent again with … the clock that the app saw", under a key of its own.
        let resolved = with(write, json!({"idempotency_key": "B-9#2", "base_clock": {"A": 5}}));
        let result = told("B9", "applied", 2, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1, "h": 1}));
        judge.push("B", &[resolved], json!([result]), 2);
    }
}

#[test]
fn rule_6_a_delete_that_has_not_seen_the_last_setter_of_some_field() {
    for (types, rule, winner) in [
        (json!({}), "update_wins", "theirs"),
        (type_of("delete_rule", "delete_wins"), "delete_wins", "ours"),
        (type_of("conflict_rule", "manual"), "manual", "none"),
    ] {
        let mut judge = created(types);
        let write = op("C", 6, "update", "e", json!({"f": 2}), json!({"A": 5}));
        let result = told("C6", "applied", 2, json!({"A": 5, "C": 6}), json!({"f": 2, "g": 1}));
        judge.push("C", &[write], json!([result]), 2);
        let delete = with(op("B", 9, "delete", "e", json!(null), json!({"A": 5})), json!({"before": {"f": 1, "g": 1}}));
        let f = with(field(json!(null), json!(2), winner), json!({"base": 1}));
        let clock = json!({"A": 5, "C": 6});
        let conflict = row("c", rule, &delete, json!({"A": 5, "B": 9}), clock.clone(), json!({"f": f}));
        let live = json!({"f": 2, "g": 1});
        let result = match winner {
            "theirs" => told("B9", "merged", 2, clock, live),
            "ours" => told("B9", "merged", 3, json!({"A": 5, "B": 9, "C": 6}), json!(null)),
            _ => told("B9", "conflict", 2, clock, live),
        };
        let head = result["version"].as_u64().unwrap();
        judge.push("B", &[delete], json!([with(result, json!({"conflict": conflict}))]), head);
    }
}

#[test]
fn rule_6_a_record_without_fields_counts_as_one_field_set_by_its_create() {
    let mut judge = Judge::new();
    judge.push("A", &[op("A", 5, "create", "e", json!({}), json!({}))], json!([]), 1);
    let delete = op("B", 9, "delete", "e", json!(null), json!({}));
    let conflict = row("c", "update_wins", &delete, json!({"B": 9}), json!({"A": 5}), json!({}));
    let result = with(told("B9", "merged", 1, json!({"A": 5}), json!({})), json!({"conflict": conflict}));
    judge.push("B", &[delete], json!([result]), 1);
}

/// An update, or a create, that has not seen the delete: the record revives with its last payload and the patch, or not.
#[test]
fn rule_6_a_write_that_has_not_seen_the_delete() {
    for (types, rule, winner) in [
        (json!({}), "update_wins", "ours"),
        (type_of("delete_rule", "delete_wins"), "delete_wins", "theirs"),
        (type_of("conflict_rule", "manual"), "manual", "none"),
    ] {
        for kind in ["update", "create"] {
            let mut judge = deleted(types.clone());
            let write = op("B", 9, kind, "e", json!({"f": 2}), json!({"A": 5}));
            let fields = json!({"f": field(json!(2), json!(null), winner)});
            let conflict = row("c", rule, &write, json!({"A": 5, "B": 9}), json!({"A": 7}), fields);
            let conflict = json!({"conflict": with(conflict, json!({"their_deleted": true}))});
            let result = match winner {
                "ours" => told("B9", "merged", 3, json!({"A": 5, "B": 9}), json!({"f": 2, "g": 1})),
                "theirs" => told("B9", "merged", 2, json!({"A": 7}), json!(null)),
                _ => told("B9", "conflict", 2, json!({"A": 7}), json!(null)),
            };
            let head = result["version"].as_u64().unwrap();
            judge.push("B", &[write], json!([with(result, conflict)]), head);
        }
    }
}

#[test]
fn rule_6_a_delete_of_a_tombstone_changes_nothing() {
    let mut judge = deleted(json!({}));
    let result = told("B9", "applied", 2, json!({"A": 7}), json!(null));
    judge.push("B", &[op("B", 9, "delete", "e", json!(null), json!({}))], json!([result]), 2);
}

/// §4: "the server clamps it on arrival to its own time + 60 s; only the clamped one is compared, stored and sent".
#[test]
fn a_timestamp_far_ahead_is_clamped() {
    let mut judge = Judge::new();
    let ahead = json!({"timestamp": "2027-01-01T00:00:00.000Z"});
    judge.push("A", &[with(op("A", 1, "create", "e", json!({"f": 1}), json!({})), ahead)], json!([]), 1);
    let page = json!({
        "changes": [{ "entity_type": "pin", "entity_id": "e", "version": 1, "record": {"f": 1}, "deleted": false,
                      "clock": {"A": 1}, "changed_at": "2026-05-01T12:01:00.000Z" }],
        "cursor": "at-1",
    });
    judge.pull(json!({"cursor": "at-0"}), page);
}
