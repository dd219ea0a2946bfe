//! Entity types as the operator configures them.

use std::collections::BTreeMap;

use serde_json::json;
use syncline_protocol::FirstStatus;
use syncline_server::endpoint::types::{TypeConfig, Types};

use crate::world::{World, codes, op};

fn with_schema() -> World {
    World::with(json!({"pin": {"schema": {
        "type": "object",
        "required": ["title"],
        "properties": {"title": {"type": "string", "maxLength": 5}, "n": {"type": "integer"}, "o": {"required": ["x"]}},
        "additionalProperties": false,
    }}}))
}

#[test]
fn a_record_that_does_not_satisfy_its_schema_is_rejected_with_the_field() {
    for (payload, field) in [
        (json!({"title": "too long"}), "title"),
        (json!({"title": 7}), "title"),
        (json!({}), "title"),
        (json!({"title": "ok", "n": 1.5}), "n"),
        (json!({"title": "ok", "o": {}}), "o"),
        (json!({"title": "ok", "a/b": 1}), "a/b"),
    ] {
        let mut world = with_schema();
        let answer = world.push("A", vec![op("A", 1, "create", "e", payload.clone(), json!({}))]);
        let error = answer.results[0].error.as_ref().unwrap();
        assert_eq!((error.code.as_str(), error.field.as_deref()), ("invalid_value", Some(field)), "{payload}");
        assert!(!error.message.contains("too long"));
        assert_eq!(world.record("e"), None);
    }
}

#[test]
fn it_is_the_whole_record_after_the_write_that_counts() {
    let mut world = with_schema();
    world.push("A", vec![op("A", 1, "create", "e", json!({"title": "ok"}), json!({}))]);
    assert_eq!(world.status("A", op("A", 2, "update", "e", json!({"n": 1}), json!({"A": 1}))), "applied");
    let removal = op("A", 3, "update", "e", json!({"title": null}), json!({"A": 2}));
    let answer = world.push("A", vec![removal.clone(), op("A", 4, "update", "e", json!({"n": 2}), json!({"A": 2}))]);
    assert_eq!(codes(&answer), ["invalid_value", ""], "stored, and its lane waits");
    assert_eq!(world.push("A", vec![removal]).results[0].first, Some(FirstStatus::Rejected));
    assert_eq!(world.record("e"), Some(json!({"title": "ok", "n": 1})));
    assert_eq!(
        world.status("A", op("A", 5, "delete", "e", json!(null), json!({"A": 2}))),
        "applied",
        "no record, no schema"
    );
}

#[test]
fn a_record_may_grow_to_a_mebibyte() {
    let mut world = World::new();
    world.push("A", vec![op("A", 1, "create", "e", json!({}), json!({}))]);
    let statuses: Vec<_> = (2..=6)
        .map(|n| {
            let patch = json!({ format!("f{n}"): "x".repeat(250 * 1024) });
            let answer = world.push("A", vec![op("A", n, "update", "e", patch, json!({"A": n - 1}))]);
            codes(&answer)[0].to_owned()
        })
        .collect();
    assert_eq!(statuses, ["", "", "", "", "record_too_large"]);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_name() {
    for (types, name) in [
        (json!({"Pin": {}}), "Pin"),
        (json!({"pin": {"schema": {"type": "no such type"}}}), "pin"),
        (json!({"pin": {"schema": {"$ref": "https://example.com/schema"}}}), "pin"),
    ] {
        let config: BTreeMap<String, TypeConfig> = serde_json::from_value(types).unwrap();
        assert_eq!(Types::new(config).unwrap_err().entity_type, name);
    }
    assert!(serde_json::from_value::<TypeConfig>(json!({"conflict_rules": "manual"})).is_err(), "a misspelling");
}
