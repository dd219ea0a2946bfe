//! Spec §5 and §6: transactions, lanes, what is left out, cursors, histories, forgetting.

use serde_json::{Value, json};
use syncline_core::transport::Route;

use crate::judge::{EPOCH, Judge, op, told, with};

fn none(id: &str, members: Value) -> Value {
    with(told(id, "rejected", 0, json!({}), json!(null)), members)
}

fn in_group(operation: Value) -> Value {
    with(operation, json!({"transaction_id": "t"}))
}

#[test]
fn a_transaction_is_applied_whole_or_its_culprit_named() {
    let mut judge = Judge::new();
    let good = in_group(op("A", 1, "create", "e", json!({"f": 1}), json!({})));
    let bad = in_group(op("A", 2, "update", "none", json!({"f": 1}), json!({})));
    let failed = json!({"error": {"code": "transaction_failed", "culprit": "A2"}});
    let results = json!([none("A1", failed.clone()), none("A2", json!({"error": {"code": "not_found"}}))]);
    judge.push("A", &[good.clone(), bad], results, 0);
    // "all stored": the member says the same alone, later.
    let again = json!({"status": "already_processed", "first": "rejected"});
    judge.push("A", &[with(good, json!({"transaction_id": null}))], json!([with(none("A1", failed), again)]), 0);
    let whole = [
        in_group(op("A", 3, "create", "e", json!({"f": 1}), json!({}))),
        in_group(op("A", 4, "create", "x", json!({"f": 1}), json!({}))),
    ];
    judge.push("A", &whole, json!([]), 2);
}

#[test]
fn what_follows_in_a_lane_or_depends_is_deferred_and_a_group_with_it() {
    let mut judge = Judge::new();
    let operations = [
        op("A", 1, "update", "none", json!({"f": 1}), json!({})),
        op("A", 2, "create", "none", json!({"f": 1}), json!({"A": 1})),
        with(op("A", 3, "create", "x", json!({"f": 1}), json!({})), json!({"depends_on": ["A1"]})),
        in_group(op("A", 4, "create", "y", json!({"f": 1}), json!({}))),
        in_group(op("A", 5, "update", "x", json!({"f": 2}), json!({"A": 3}))),
        op("A", 6, "create", "z", json!({"f": 1}), json!({})),
    ];
    let deferred = json!({"status": "deferred"});
    let mut results = vec![none("A1", json!({"error": {"code": "not_found"}}))];
    results.extend(["A2", "A3", "A4", "A5"].map(|id| none(id, deferred.clone())));
    judge.push("A", &operations, json!(results), 1);
    // Nothing of it was stored.
    judge.push("A", &operations[3..4], json!([]), 2);
}

#[test]
fn a_void_operation_is_refused_for_good() {
    let mut judge = Judge::new();
    let create = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    let voided = json!({"error": {"code": "voided"}});
    judge.push("A", &[with(create.clone(), json!({"void": true}))], json!([none("A1", voided.clone())]), 0);
    let late = none("A1", with(voided, json!({"status": "already_processed", "first": "rejected"})));
    judge.push("A", &[create], json!([late]), 0);
}

#[test]
fn a_dry_run_gives_verdicts_and_commits_nothing() {
    let mut judge = Judge::new();
    let create = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    for _ in 0..2 {
        let dry = json!({"dry_run": true, "forgotten_through": 0});
        judge.push_with("A", std::slice::from_ref(&create), dry, json!([]), json!({"version": 0}));
    }
    judge.push("A", &[create], json!([]), 1);
}

/// "Those of one entity are left out, all or none, … if all were `applied` and its version before the push was not above the
/// push's `cursor` and its type in that cursor's filter"; "if the push's `cursor` stood at the head …, the answer carries the
/// `cursor` at the new head".
#[test]
fn what_the_device_can_compute_is_left_out() {
    let mut judge = Judge::new();
    let create = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    judge.push_with("A", &[create], json!({"cursor": "at-0"}), json!([]), json!({"version": 1, "cursor": "at-1"}));
    let write = |n: u64, base: u64| op("A", n, "update", "e", json!({"f": n}), json!({"A": base}));
    let result = told("A2", "applied", 2, json!({"A": 2}), json!({"f": 2}));
    judge.push_with("A", &[write(2, 1)], json!({"cursor": "at-0"}), json!([result]), json!({"version": 2}));
    let result = told("A3", "applied", 3, json!({"A": 3}), json!({"f": 3}));
    judge.push_with("A", &[write(3, 2)], json!({"cursor": "at-1"}), json!([result]), json!({"version": 3}));
    let change = json!({ "entity_type": "pin", "entity_id": "e", "version": 3, "record": {"f": 3}, "deleted": false,
                         "clock": {"A": 3}, "changed_at": "2026-05-01T12:00:03.000Z" });
    judge.pull(json!({"cursor": "at-1"}), json!({"changes": [change], "cursor": "at-3"}));
    judge.pull(json!({"entity_types": ["form"]}), json!({"changes": [], "cursor": "forms-3"}));
    let result = told("A4", "applied", 4, json!({"A": 4}), json!({"f": 4}));
    let said = json!({"version": 4, "cursor": "forms-4"});
    judge.push_with("A", &[write(4, 3)], json!({"cursor": "forms-3"}), json!([result]), said);
    let body = judge.pulling(json!({"cursor": "at-3"}));
    let forgetful = json!({"changes": [], "cursor": "at-4", "epoch": EPOCH, "has_more": false, "reset": false});
    assert!(judge.ask(Route::Pull, &body, 200, &forgetful).is_err(), "a change is missing");
}

#[test]
fn pages_are_in_order_and_their_cursors_stay_what_they_are() {
    let mut judge = Judge::new();
    let create = |n: u64| op("A", n, "create", &format!("e{n}"), json!({"f": n}), json!({}));
    judge.push("A", &[create(1), create(2), create(3)], json!([]), 3);
    let change = |n: u64| {
        json!({ "entity_type": "pin", "entity_id": format!("e{n}"), "version": n, "record": {"f": n}, "deleted": false,
                "clock": {"A": n}, "changed_at": format!("2026-05-01T12:00:0{n}.000Z") })
    };
    let first = json!({"changes": [change(1), change(2)], "cursor": "at-2", "has_more": true});
    judge.pull(json!({"cursor": "at-0", "limit": 2}), first);
    judge.pull(json!({"cursor": "at-2", "limit": 2}), json!({"changes": [change(3)], "cursor": "at-3"}));
    // Of another filter, or never given out: "that page is itself the first one from the start".
    judge.pull(
        json!({"cursor": "at-2", "entity_types": ["form"]}),
        json!({"changes": [], "cursor": "f-3", "reset": true}),
    );
    let all = json!([change(1), change(2), change(3)]);
    judge.pull(json!({"cursor": "?"}), json!({"changes": all, "cursor": "at-3", "reset": true}));
    let page = json!({"changes": [], "cursor": "at-2", "epoch": EPOCH, "has_more": false, "reset": false});
    let body = judge.pulling(json!({"cursor": "at-3"}));
    let said = judge.ask(Route::Pull, &body, 200, &page).unwrap_err();
    assert!(said.contains("given out for"), "{said}");
}

#[test]
fn a_server_that_went_back_is_behind() {
    let mut judge = Judge::new();
    let snapshot = judge.model.clone();
    judge.push("A", &[op("A", 1, "create", "e", json!({"f": 1}), json!({}))], json!([]), 1);
    let after = judge.pushing("A", &[], json!({}));
    let unknown = judge.pushing("A", &[], json!({"epoch": "of another time"}));
    judge.refuses(Route::Push, &unknown, "server_behind", json!({"epoch": EPOCH, "mark": 1}));
    let without = judge.pushing("A", &[], json!({"epoch": null}));
    judge.refuses(Route::Push, &without, "server_behind", json!({"epoch": EPOCH, "mark": 1}));
    // Untold: the device's mark is ahead. "Renewing it commits before `server_behind` is answered."
    judge.model.restore(&snapshot, false);
    let old = json!({"code": "server_behind", "status": 409, "epoch": EPOCH, "mark": 0});
    assert!(judge.clone().ask(Route::Push, &after, 409, &old).is_err(), "the old epoch passes for a new one");
    judge.refuses(Route::Push, &after, "server_behind", json!({"epoch": "epoch-2", "mark": 0}));
    judge.epoch = "epoch-2".to_owned();
    // Told: every epoch the devices know is of another history.
    judge.model.restore(&snapshot, true);
    let body = judge.pulling(json!({}));
    judge.refuses(Route::Pull, &body, "server_behind", json!({"epoch": "epoch-3", "mark": 0}));
}

#[test]
fn what_is_old_and_forgotten_is_dropped() {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let mut judge = Judge::new();
    let create = |n: u64| op("A", n, "create", &format!("e{n}"), json!({"f": n}), json!({}));
    judge.push("A", &[create(1), create(2)], json!([]), 2);
    let gone = told("A3", "applied", 3, json!({"A": 3}), json!(null));
    judge.push("A", &[op("A", 3, "delete", "e1", json!(null), json!({"A": 1}))], json!([gone]), 3);
    judge.push_with("A", &[], json!({"forgotten_through": 1}), json!([]), json!({"version": 3}));
    judge.now = judge.now.plus_millis(181 * DAY);
    judge.model.maintain(judge.now);
    // Its key is forgotten, its sequence is not: another copy of A.
    let body = judge.pushing("A", &[create(1)], json!({}));
    judge.refuses(Route::Push, &body, "device_forked", json!({}));
    let entity = told("A2", "already_processed", 2, json!({"A": 2}), json!({"f": 2}));
    judge.push("A", &[create(2)], json!([with(entity, json!({"first": "applied"}))]), 3);
    // The tombstone is gone, so a cursor from before it must begin anew.
    let change = json!({ "entity_type": "pin", "entity_id": "e2", "version": 2, "record": {"f": 2}, "deleted": false,
                         "clock": {"A": 2}, "changed_at": "2026-05-01T12:00:02.000Z" });
    judge.pull(json!({"cursor": "at-0"}), json!({"changes": [change], "cursor": "at-3", "reset": true}));
    judge.pull(json!({"cursor": "at-3"}), json!({"changes": [], "cursor": "at-3"}));
}

#[test]
fn bad_requests_are_refused_by_their_code() {
    let mut judge = Judge::new();
    let good = op("A", 1, "create", "e", json!({"f": 1}), json!({}));
    for (operation, named) in [
        (with(good.clone(), json!({"entity_type": "Pin"})), "entity_type"),
        (with(good.clone(), json!({"id": ""})), "id"),
        (with(good.clone(), json!({"sequence": 0})), "sequence"),
        (with(good.clone(), json!({"base_clock": {"A": 1_u64 << 53}})), "base_clock"),
        (with(good.clone(), json!({"depends_on": ["A1"]})), "depends_on[0]"),
    ] {
        let body = judge.pushing("A", &[operation], json!({}));
        judge.refuses(Route::Push, &body, "invalid_request", json!({"field": format!("operations[0].{named}")}));
    }
    for (members, code, said) in [
        (json!({"protocol": 2}), "unsupported_protocol", json!({"supported": [1]})),
        (json!({"user_id": "eve"}), "wrong_user", json!({})),
        (json!({"scope": "other"}), "wrong_scope", json!({})),
        (json!({"device_id": "server"}), "invalid_request", json!({"field": "device_id"})),
        (json!({"operations": 7}), "invalid_request", json!({"field": "operations"})),
    ] {
        let body = judge.pushing("A", &[], members);
        judge.refuses(Route::Push, &body, code, said);
    }
    let limits = json!({"limits": {"max_operations": 500, "max_bytes": 8_388_608}});
    let many: Vec<_> = (1..=501).map(|n| op("A", n, "create", &format!("e{n}"), json!({}), json!({}))).collect();
    let body = judge.pushing("A", &many, json!({}));
    judge.refuses(Route::Push, &body, "too_many_operations", limits);
}

#[test]
fn a_bad_value_is_the_operations_own_matter() {
    let schema = json!({"properties": {"f": {"type": "integer"}}});
    let mut judge = Judge::with(json!({"form": {"schema": schema}}));
    let write = |n: u64, payload: Value| op("A", n, "create", &format!("e{n}"), payload, json!({}));
    let rejected = |id, field: Value| none(id, json!({"error": {"code": "invalid_value", "field": field}}));
    let operations = [
        write(1, json!({"f": "a\0b"})),
        write(2, json!({"f": [1, {"g": 9_007_199_254_740_992_u64}]})),
        write(3, json!(7)),
        with(write(4, json!({"f": "text"})), json!({"entity_type": "form"})),
        write(5, json!({"f": 1})),
    ];
    let fields = [("A1", "$.f"), ("A2", "$.f[1].g"), ("A3", "$"), ("A4", "f")];
    let results: Vec<_> = fields.into_iter().map(|(id, field)| rejected(id, json!(field))).collect();
    judge.push("A", &operations, json!(results), 1);
}
