//! What an answer to a push leaves out, and its cursor (spec §6).

use serde_json::{Value, json};

use crate::world::{World, op, with, words};

/// A pushes with its cursor, or with another one.
fn push_at(
    world: &mut World,
    device: &str,
    cursor: Option<&str>,
    operations: Vec<Value>,
) -> syncline_protocol::PushResponse {
    let request = with(world.request(device, operations), json!({ "cursor": cursor }));
    world.push_as_is(&request)
}

fn create(device: &str, sequence: u64, id: &str) -> Value {
    op(device, sequence, "create", id, json!({"f": sequence}), json!({}))
}

/// Counter-example 3: "#1 applied without a record in the answer; #2 on another field is left out".
#[test]
fn ce03_what_the_device_has_not_pulled_is_not_left_out() {
    let mut world = World::new();
    let before = world.pull(None).cursor;
    push_at(&mut world, "A", Some(&before), vec![create("A", 1, "e")]);
    let update = op("A", 2, "update", "e", json!({"g": 2}), json!({"A": 1}));
    let answer = push_at(&mut world, "A", Some(&before), vec![update]);
    assert_eq!(words(&answer), ["applied"]);
    assert_eq!(answer.results[0].record.as_ref().unwrap().to_string(), r#"{"f":1,"g":2}"#);
}

/// Counter-example 4: "e is re-sent by its author; A's older update, judged on a clock that covers e, is left out".
#[test]
fn ce04_a_device_without_a_cursor_gets_the_records() {
    let mut world = World::new();
    world.push("B", vec![create("B", 1, "e")]);
    let update = op("A", 2, "update", "e", json!({"g": 2}), json!({"B": 1}));
    let answer = push_at(&mut world, "A", None, vec![update]);
    assert_eq!((words(&answer), answer.applied), (vec!["applied".to_owned()], 0));
    assert!(answer.results[0].record.is_some());
}

/// Counter-example 28: "#1 e.f and #2 e.g in one batch, both left out".
#[test]
fn ce28_both_writes_of_one_entity_are_counted_and_left_out() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    let cursor = world.pull(None).cursor;
    let updates = vec![
        op("A", 2, "update", "e", json!({"f": 2}), json!({"A": 1})),
        op("A", 3, "update", "e", json!({"g": 3}), json!({"A": 2})),
    ];
    let answer = push_at(&mut world, "A", Some(&cursor), updates);
    assert_eq!((answer.applied, answer.results.len(), answer.version), (2, 0, 2), "one version for both");
    assert_eq!(world.record("e"), Some(json!({"f": 2, "g": 3})));
}

#[test]
fn one_entitys_results_are_left_out_all_or_none() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    world.push("B", vec![op("B", 1, "update", "e", json!({"f": 0}), json!({"A": 1}))]);
    let cursor = world.pull(None).cursor;
    let operations = vec![
        op("A", 2, "update", "e", json!({"g": 2}), json!({"A": 1, "B": 1})),
        op("A", 3, "update", "e", json!({"f": 3}), json!({"A": 2})),
        create("A", 4, "other"),
    ];
    let answer = push_at(&mut world, "A", Some(&cursor), operations);
    assert_eq!((words(&answer), answer.applied), (vec!["applied".to_owned(), "merged".into()], 1));
    for result in &answer.results {
        assert_eq!(result.version, 3, "after the whole push");
        assert_eq!(result.record.as_ref().unwrap().to_string(), r#"{"f":3,"g":2}"#);
    }
}

#[test]
fn a_type_outside_the_cursors_filter_is_not_left_out_once_it_has_a_record() {
    let mut world = World::new();
    let cursor = world.pull_with(json!({"entity_types": ["form"]})).cursor;
    let first = push_at(&mut world, "A", Some(&cursor), vec![create("A", 1, "e")]);
    assert_eq!(first.applied, 1, "there was no record");
    let cursor = first.cursor.unwrap();
    let update = op("A", 2, "update", "e", json!({"f": 2}), json!({"A": 1}));
    let second = push_at(&mut world, "A", Some(&cursor), vec![update]);
    assert_eq!((words(&second), second.applied), (vec!["applied".to_owned()], 0));
    assert!(second.cursor.is_some(), "all records are told");
}

#[test]
fn a_tombstone_is_a_record() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    world.push("A", vec![op("A", 2, "delete", "e", json!(null), json!({"A": 1}))]);
    let again = op("A", 3, "create", "e", json!({"f": 3}), json!({"A": 2}));
    let told = push_at(&mut world, "A", None, vec![again]);
    assert_eq!((told.applied, told.results.len()), (0, 1));
}

#[test]
fn what_was_already_processed_is_never_left_out() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    let cursor = world.pull(None).cursor;
    let update = op("A", 2, "update", "e", json!({"g": 2}), json!({"A": 1}));
    let answer = push_at(&mut world, "A", Some(&cursor), vec![create("A", 1, "e"), update]);
    assert_eq!((words(&answer), answer.applied), (vec!["already_processed".to_owned(), "applied".into()], 0));
    assert!(answer.results.iter().all(|result| result.version == 2));
}

#[test]
fn the_results_add_up_and_keep_the_requests_order() {
    let mut world = World::new();
    world.push("B", vec![create("B", 1, "e3")]);
    let operations = vec![
        create("A", 1, "e1"),
        op("A", 2, "update", "none", json!({}), json!({})),
        create("A", 3, "e3"),
        create("A", 4, "e4"),
    ];
    let answer = world.push("A", operations);
    let ids: Vec<_> = answer.results.iter().map(|result| result.id.as_str()).collect();
    assert_eq!((ids, answer.applied), (vec!["A2", "A3"], 2));
    let none = &answer.results[0];
    assert_eq!((none.version, none.deleted, none.record.is_none()), (0, true, true));
}

#[test]
fn a_cursor_at_the_head_moves_with_the_push() {
    let mut world = World::new();
    let cursor = world.pull(None).cursor;
    let answer = push_at(&mut world, "A", Some(&cursor), vec![create("A", 1, "e1"), create("A", 2, "e2")]);
    let moved = answer.cursor.expect("the cursor stood at the head");
    let page = world.pull(Some(&moved));
    assert!(page.changes.is_empty() && !page.reset);
    assert_eq!(page.cursor, moved);
    world.push("B", vec![create("B", 1, "e3")]);
    assert_eq!(world.pull(Some(&moved)).changes.len(), 1);
    let behind = push_at(&mut world, "A", Some(&moved), vec![create("A", 3, "e4")]);
    assert_eq!((behind.cursor, behind.applied), (None, 1), "another device's change is still to be pulled");
    assert_eq!(push_at(&mut world, "A", None, vec![]).cursor, None);
}

#[test]
fn the_moved_cursor_keeps_its_filter() {
    let mut world = World::new();
    let cursor = world.pull_with(json!({"entity_types": ["pin", "form"]})).cursor;
    let moved = push_at(&mut world, "A", Some(&cursor), vec![create("A", 1, "e1")]).cursor.unwrap();
    assert!(!world.pull_with(json!({"cursor": moved, "entity_types": ["form", "pin", "pin"]})).reset);
    assert!(world.pull_with(json!({"cursor": moved, "entity_types": ["pin"]})).reset);
    assert!(world.pull(Some(&moved)).reset);
}

#[test]
fn a_cursor_that_means_nothing_here_is_no_cursor() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    world.scope = "other".into();
    let foreign = world.pull(None).cursor;
    world.scope = "team".into();
    for cursor in [foreign.as_str(), "garbage"] {
        let update = op("A", 2, "update", "e", json!({"f": 2}), json!({"A": 1}));
        let answer = push_at(&mut world, "A", Some(cursor), vec![update]);
        assert_eq!((answer.applied, answer.cursor), (0, None), "{cursor}");
    }
}

#[test]
fn records_beyond_a_mebibyte_are_left_to_the_pull() {
    let mut world = World::new();
    let large = |sequence: u64| {
        let payload = json!({"blob": "x".repeat(250 * 1024)});
        op("A", sequence, "create", &format!("e{sequence}"), payload, json!({}))
    };
    let operations: Vec<_> = (1..=5).map(large).collect();
    let cursor = world.pull(None).cursor;
    assert_eq!(push_at(&mut world, "A", Some(&cursor), operations.clone()).applied, 5);
    let cursor = world.pull_all(None, 1000).1;
    let answer = push_at(&mut world, "A", Some(&cursor), operations);
    let told: Vec<_> = answer.results.iter().map(|result| result.record.is_some()).collect();
    assert_eq!(told, [true, true, true, true, false]);
    assert!(answer.results.iter().all(|result| result.version > 0 && !result.deleted));
    assert_eq!(answer.cursor, None, "a record is absent");
}

/// Counter-example 2: "A pushes #1, the answer is lost; B overwrites e.f; A pulls; A re-sends #1": the repeated verdict
/// carries the record as it stands, at its version.
#[test]
fn ce02_a_repeated_verdict_carries_the_record_as_it_stands() {
    let mut world = World::new();
    world.push("A", vec![create("A", 1, "e")]);
    world.push("B", vec![op("B", 9, "update", "e", json!({"f": "b"}), json!({"A": 1}))]);
    let answer = world.push("A", vec![create("A", 1, "e")]);
    assert_eq!((answer.results[0].version, answer.version), (2, 2));
    assert_eq!(answer.results[0].record.as_ref().unwrap().to_string(), r#"{"f":"b"}"#);
}

#[test]
fn the_head_rises_once_per_entity_that_changed() {
    let mut world = World::new();
    let operations = vec![
        create("A", 1, "e1"),
        op("A", 2, "update", "e1", json!({"g": 1}), json!({"A": 1})),
        create("A", 3, "e2"),
        op("A", 4, "delete", "none", json!(null), json!({})),
    ];
    assert_eq!(world.push("A", operations).version, 2);
    let same = op("A", 5, "update", "e1", json!({"g": 1}), json!({"A": 2}));
    assert_eq!(world.push("A", vec![same]).version, 3, "a dot differs");
    let nothing = op("A", 6, "update", "e1", json!({}), json!({"A": 5}));
    assert_eq!(world.push("A", vec![nothing]).version, 3);
    let old = op("B", 1, "update", "e1", json!({"g": 1}), json!({"X": 1}));
    assert_eq!(world.push("B", vec![old]).version, 3, "the later dot stays");
}

/// "A field without its own counts as set by the record's create" (spec §4): it has that dot already, so nothing differs.
#[test]
fn an_equal_value_that_is_older_than_the_create_changes_nothing() {
    let mut world = World::new();
    assert_eq!(world.push("A", vec![op("A", 9, "create", "e1", json!({"g": 1}), json!({}))]).version, 1);
    let equal = op("B", 1, "update", "e1", json!({"g": 1}), json!({"X": 1}));
    assert_eq!(world.push("B", vec![equal]).version, 1);
    let removes_nothing = op("B", 2, "update", "e1", json!({"h": null}), json!({"X": 1}));
    assert_eq!(world.push("B", vec![removes_nothing]).version, 1);
}
