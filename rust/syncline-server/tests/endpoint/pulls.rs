//! Pages, cursors, filters, tombstones and their horizon (spec §6, §7).

use serde_json::{Value, json};
use syncline_server::endpoint::{KEYS_KEPT_DAYS, Purged, TOMBSTONES_KEPT_DAYS};

use crate::world::{World, op, with};

const DAY: i64 = 24 * 60 * 60 * 1000;

fn create(sequence: u64, id: &str) -> Value {
    op("A", sequence, "create", id, json!({"f": sequence}), json!({}))
}

fn filled(entities: u64) -> World {
    let mut world = World::new();
    world.push("A", (1..=entities).map(|sequence| create(sequence, &format!("e{sequence}"))).collect());
    world
}

#[test]
fn pages_come_in_order_of_version_each_entity_once() {
    let mut world = filled(7);
    for limit in [1, 2, 3, 7, 8] {
        let (changes, _) = world.pull_all(None, limit);
        let versions: Vec<_> = changes.iter().map(|change| change.version).collect();
        assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7], "limit {limit}");
    }
    let page = world.pull_with(json!({"limit": 7}));
    assert!(!page.has_more && page.changes.len() == 7, "the last page knows that it is");
}

#[test]
fn what_changes_meanwhile_comes_again_later() {
    let mut world = filled(3);
    let first = world.pull_with(json!({"limit": 2}));
    world.push("A", vec![op("A", 4, "update", "e1", json!({"f": 9}), json!({"A": 1}))]);
    let (rest, cursor) = world.pull_all(Some(first.cursor), 2);
    let ids: Vec<_> = rest.iter().map(|change| change.entity_id.as_str()).collect();
    assert_eq!(ids, ["e3", "e1"]);
    assert!(world.pull(Some(&cursor)).changes.is_empty());
}

#[test]
fn a_change_carries_record_clock_and_the_highest_timestamp() {
    let mut world = filled(1);
    world.push("B", vec![op("B", 9, "update", "e1", json!({"g": 1}), json!({"A": 1}))]);
    let change = &world.pull(None).changes[0];
    assert_eq!(change.record.as_ref().unwrap().to_string(), r#"{"f":1,"g":1}"#);
    assert_eq!(serde_json::to_value(&change.clock).unwrap(), json!({"A": 1, "B": 9}));
    assert_eq!(change.changed_at.to_string(), "2026-05-01T12:00:09.000Z");
}

#[test]
fn tombstones_are_pulled_without_their_payload() {
    let mut world = filled(2);
    let cursor = world.pull(None).cursor;
    world.push("A", vec![op("A", 3, "delete", "e1", json!(null), json!({"A": 1}))]);
    let page = world.pull(Some(&cursor));
    assert!(page.changes[0].deleted && page.changes[0].record.is_none());
    assert_eq!(world.pull(None).changes.len(), 2, "from the start too");
}

#[test]
fn a_filter_brings_its_types_only_and_ends_at_the_head() {
    let mut world = filled(3);
    let form = with(create(4, "f1"), json!({"entity_type": "form"}));
    world.push("A", vec![form, create(5, "e5")]);
    let page = world.pull_with(json!({"entity_types": ["form"]}));
    assert_eq!((page.changes.len(), page.has_more), (1, false));
    let request = with(world.request("A", vec![create(6, "e6")]), json!({"cursor": page.cursor}));
    assert!(world.push_as_is(&request).cursor.is_some(), "the cursor stood at the head");
    assert!(world.pull_with(json!({"entity_types": []})).changes.is_empty());
}

#[test]
fn a_page_holds_about_a_mebibyte_and_at_least_one() {
    let mut world = World::new();
    for sequence in 1..=3 {
        let payload = json!({"blob": "x".repeat(250 * 1024)});
        world.push("A", vec![op("A", sequence * 10, "create", &format!("e{sequence}"), payload, json!({}))]);
        for field in ["b", "c"] {
            let patch = json!({field: "x".repeat(250 * 1024)});
            let n = sequence * 10 + u64::from(field == "c") + 1;
            world.push("A", vec![op("A", n, "update", &format!("e{sequence}"), patch, json!({"A": n - 1}))]);
        }
    }
    let page = world.pull(None);
    assert_eq!((page.changes.len(), page.has_more), (1, true));
    assert_eq!(world.pull_all(None, 1000).0.len(), 3);
}

#[test]
fn a_limit_above_the_highest_counts_as_the_highest() {
    let mut world = World::new();
    for batch in 0..3u64 {
        world.push("A", (1..=400).map(|n| create(batch * 400 + n, &format!("e{batch}-{n}"))).collect());
    }
    let page = world.pull_with(json!({"limit": 5000}));
    assert_eq!((page.changes.len(), page.has_more), (1000, true));
}

/// Counter-example 25: "a pull page of 1 ends between two members of another device's transaction": accepted until
/// `has_more: false`, which the page says.
#[test]
fn ce25_a_page_that_ends_within_a_transaction_says_that_there_is_more() {
    let mut world = World::new();
    let member = |sequence, id| with(create(sequence, id), json!({"transaction_id": "t"}));
    world.push("A", vec![member(1, "e1"), member(2, "e2")]);
    assert!(world.pull_with(json!({"limit": 1})).has_more);
    assert_eq!(world.pull_all(None, 1).0.len(), 2);
}

#[test]
fn a_cursor_of_another_scope_filter_or_form_is_reset() {
    let mut world = filled(2);
    world.scope = "other".into();
    let foreign = world.pull(None).cursor;
    world.scope = "team".into();
    let filtered = world.pull_with(json!({"entity_types": ["pin"]})).cursor;
    for cursor in [foreign.as_str(), filtered.as_str(), "garbage", "1e30"] {
        let page = world.pull_with(json!({"cursor": cursor, "limit": 1}));
        assert!(page.reset && page.changes[0].version == 1, "{cursor}");
        let next = world.pull_with(json!({"cursor": page.cursor, "limit": 1}));
        assert!(!next.reset && next.changes[0].version == 2, "the following ones say false");
    }
}

#[test]
fn a_cursor_of_another_epoch_is_reset() {
    let mut world = filled(1);
    let cursor = world.pull(None).cursor;
    world.endpoint.renew_epochs(world.now, &mut world.random).unwrap();
    assert!(world.pull(Some(&cursor)).reset);
}

#[test]
fn a_pull_counts_no_mark_and_registers_nothing() {
    let mut world = filled(1);
    world.pull(None);
    assert!(world.endpoint.device("team", "reader").unwrap().is_none());
    assert_eq!(world.endpoint.device("team", "A").unwrap().unwrap().mark, 1);
}

#[test]
fn old_tombstones_are_purged_and_cursors_before_them_are_reset() {
    let mut world = filled(3);
    let early = world.pull(None).cursor;
    world.push("A", vec![op("A", 4, "delete", "e2", json!(null), json!({"A": 2}))]);
    let late = world.pull(None).cursor;
    let purge_after =
        |world: &mut World, days: i64| world.endpoint.purge("team", world.now.plus_millis(days * DAY)).unwrap();
    assert_eq!(purge_after(&mut world, TOMBSTONES_KEPT_DAYS), Purged::default(), "not yet older");
    world.now = world.now.plus_millis(1);
    assert_eq!(purge_after(&mut world, TOMBSTONES_KEPT_DAYS), Purged { operations: 0, tombstones: 1 });
    assert!(!world.pull(Some(&late)).reset);
    assert!(world.pull(Some(&early)).reset);
    let (changes, _) = world.pull_all(None, 1);
    assert_eq!(changes.len(), 2, "a pull from the start in pages below the horizon ends");
    assert_eq!(world.endpoint.purge("nowhere", world.now).unwrap(), Purged::default());
}

#[test]
fn a_pull_from_the_start_that_a_purge_overtakes_is_reset() {
    let mut world = filled(3);
    let first = world.pull_with(json!({"limit": 1}));
    world.push("A", vec![op("A", 4, "delete", "e1", json!(null), json!({"A": 1}))]);
    world.endpoint.purge("team", world.now.plus_millis((TOMBSTONES_KEPT_DAYS + 1) * DAY)).unwrap();
    assert!(world.pull(Some(&first.cursor)).reset, "it has e1 and would never hear of its deletion");
}

#[test]
fn old_keys_are_purged_only_if_their_device_has_forgotten_them() {
    let mut world = filled(3);
    let mut forget = world.request("A", vec![]);
    forget["forgotten_through"] = json!(2);
    world.push_as_is(&forget);
    let purge_after =
        |world: &mut World, days: i64| world.endpoint.purge("team", world.now.plus_millis(days * DAY)).unwrap();
    assert_eq!(purge_after(&mut world, KEYS_KEPT_DAYS).operations, 0);
    assert_eq!(purge_after(&mut world, KEYS_KEPT_DAYS + 1).operations, 2);
    assert!(world.endpoint.operation("team", "A-2").unwrap().is_none());
    assert_eq!(world.status("A", create(3, "e3")), "already_processed");
    let request = world.request("A", vec![create(1, "e1")]);
    assert_eq!(world.refused(&request), "device_forked", "what was forgotten and comes all the same is a copy's");
}

#[test]
fn maintenance_purges_every_scope() {
    let mut world = World::new();
    for scope in ["team", "other"] {
        world.scope = scope.into();
        let request = with(world.request(&format!("{scope}-device"), vec![create(1, "e")]), json!({"mark": 0}));
        world.push_as_is(&request);
        let delete = op("A", 2, "delete", "e", json!(null), json!({format!("{scope}-device"): 1}));
        let request = world.request(&format!("{scope}-device"), vec![delete]);
        world.push_as_is(&request);
        assert_eq!(world.endpoint.entities(scope).unwrap().len(), 1);
    }
    let later = world.now.plus_millis((TOMBSTONES_KEPT_DAYS + 1) * DAY);
    syncline_server::Endpoint::maintain(&mut world.endpoint, later).unwrap();
    for scope in ["team", "other"] {
        assert!(world.endpoint.entities(scope).unwrap().is_empty(), "{scope}");
    }
}
