//! What a request must be (spec §6, §7): every refusal names the member.

use serde_json::{Value, json};
use syncline_server::endpoint::types::Types;
use syncline_server::{Claims, Embedded, Endpoint, EndpointLimits, Request, SqliteStore};

use crate::world::{World, op, with};

fn good(sequence: u64) -> Value {
    op("A", sequence, "create", &format!("e{sequence}"), json!({}), json!({}))
}

fn refused_field(world: &mut World, request: &Value) -> String {
    let problem = world.send("push", request).problem.expect("a problem");
    assert_eq!((problem.code.as_str(), problem.status), ("invalid_request", 400), "{request}");
    assert!(world.endpoint.device("team", "A").unwrap().is_none(), "nothing was done");
    problem.field.unwrap()
}

#[test]
fn a_malformed_operation_is_named_and_refuses_the_push() {
    let long = "x".repeat(129);
    for (member, value, field) in [
        ("id", json!(""), "id"),
        ("id", json!(long), "id"),
        ("id", json!("a\0b"), "id"),
        ("id", json!(7), "id"),
        ("id", json!(null), "id"),
        ("idempotency_key", json!(long), "idempotency_key"),
        ("sequence", json!(0), "sequence"),
        ("sequence", json!(-1), "sequence"),
        ("sequence", json!(1.5), "sequence"),
        ("sequence", json!(9_007_199_254_740_992u64), "sequence"),
        ("operation", json!("upsert"), "operation"),
        ("entity_type", json!("Pin"), "entity_type"),
        ("entity_type", json!("p".repeat(65)), "entity_type"),
        ("entity_id", json!(long), "entity_id"),
        ("entity_id", json!("a\nb"), "entity_id"),
        ("before", json!([]), "before"),
        ("base_clock", json!({"A": 9_007_199_254_740_992u64}), "base_clock"),
        ("base_clock", json!({ long.clone(): 1 }), "base_clock"),
        ("base_clock", json!({"A": "1"}), "base_clock.A"),
        ("timestamp", json!("yesterday"), "timestamp"),
        ("transaction_id", json!(""), "transaction_id"),
        ("depends_on", json!(["A1", ""]), "depends_on[1]"),
        ("void", json!("yes"), "void"),
        ("conflict_rule", json!("mine"), "conflict_rule"),
    ] {
        let mut world = World::new();
        let request = world.request("A", vec![good(1), with(good(2), json!({ member: value }))]);
        assert_eq!(refused_field(&mut world, &request), format!("operations[1].{field}"), "{member} {value}");
    }
}

#[test]
fn a_missing_member_is_named() {
    for member in ["id", "idempotency_key", "sequence", "operation", "entity_type", "entity_id", "timestamp"] {
        let mut world = World::new();
        let mut operation = good(1);
        operation.as_object_mut().unwrap().remove(member);
        let request = world.request("A", vec![operation]);
        assert_eq!(refused_field(&mut world, &request), format!("operations[0].{member}"));
    }
}

#[test]
fn the_head_of_a_push_is_checked() {
    for (member, value) in [
        ("device_id", json!("server")),
        ("device_id", json!("")),
        ("mark", json!(9_007_199_254_740_992u64)),
        ("mark", json!(-1)),
        ("forgotten_through", json!(9_007_199_254_740_992u64)),
        ("sent_at", json!("now")),
        ("operations", json!({})),
        ("dry_run", json!(1)),
    ] {
        let mut world = World::new();
        let request = with(world.request("A", vec![]), json!({ member: value }));
        assert_eq!(refused_field(&mut world, &request), member, "{value}");
    }
}

#[test]
fn operations_that_cannot_be_together_are_refused() {
    let twice = |member: &str| with(good(2), json!({ member: good(1)[member] }));
    let lane = |sequence| op("A", sequence, "create", "e", json!({}), json!({}));
    let group = |group: &str, sequence| with(good(sequence), json!({ "transaction_id": group }));
    let large = |sequence: u64| with(group("t", sequence), json!({"payload": {"a": "x".repeat(250 * 1024)}}));
    for (name, operations, field) in [
        ("an id twice", vec![good(1), twice("id")], "operations[1].id"),
        ("a key twice", vec![good(1), twice("idempotency_key")], "operations[1].idempotency_key"),
        ("a sequence twice", vec![good(1), twice("sequence")], "operations[1].sequence"),
        ("a lane out of order", vec![lane(2), lane(1)], "operations[1].sequence"),
        ("depending on itself", vec![with(good(1), json!({"depends_on": ["A1"]}))], "operations[0].depends_on[0]"),
        (
            "depending on a later one",
            vec![with(good(1), json!({"depends_on": ["A2"]})), good(2)],
            "operations[0].depends_on[0]",
        ),
        ("a group torn apart", vec![group("t", 1), good(2), group("t", 3)], "operations[2].transaction_id"),
        (
            "a group half void",
            vec![group("t", 1), with(group("t", 2), json!({"void": true}))],
            "operations[0].transaction_id",
        ),
        ("a group too long", (1..=101).map(|n| group("t", n)).collect(), "operations[0].transaction_id"),
        ("a group too large", [vec![good(9)], (1..=5).map(large).collect()].concat(), "operations[1].transaction_id"),
    ] {
        let mut world = World::new();
        let request = world.request("A", operations);
        assert_eq!(refused_field(&mut world, &request), field, "{name}");
    }
    let mut world = World::new();
    let mut request = world.request("A", vec![good(3)]);
    request["forgotten_through"] = json!(3);
    assert_eq!(refused_field(&mut world, &request), "operations[0].sequence", "said to be forgotten");
}

#[test]
fn lanes_may_interleave_in_any_order() {
    let mut world = World::new();
    assert_eq!(world.push("A", vec![good(5), good(3), good(4)]).applied, 3);
}

#[test]
fn too_many_operations_are_refused_with_the_limit() {
    let mut world = World::new();
    let request = world.request("A", (1..=501).map(good).collect());
    let problem = world.send("push", &request).problem.unwrap();
    assert_eq!((problem.code.as_str(), problem.status), ("too_many_operations", 413));
    assert_eq!(problem.limits.unwrap().max_operations, 500);
    let request = world.request("A", (1..=500).map(good).collect());
    assert_eq!(world.push_as_is(&request).applied, 500);
}

#[test]
fn limits_are_configurable() {
    let limits = EndpointLimits { max_operations: 2, max_bytes: 2000, max_payload_bytes: 20 };
    let mut world = World::new();
    world.endpoint = Embedded::new(SqliteStore::open_in_memory().unwrap(), Types::default(), limits);
    let large = with(good(1), json!({"payload": {"text": "longer than twenty"}}));
    let answer = world.push("A", vec![large, good(2)]);
    assert_eq!((crate::world::codes(&answer), answer.applied), (vec!["payload_too_large"], 1));
    assert_eq!((answer.limits.max_operations, answer.limits.max_bytes), (2, 2000));
    let request = world.request("A", vec![good(3), good(4), good(5)]);
    assert_eq!(world.refused(&request), "too_many_operations");
    let request = with(world.request("A", vec![]), json!({"padding": "x".repeat(2000)}));
    assert_eq!(world.refused(&request), "body_too_large");
}

#[test]
fn the_head_of_a_pull_is_checked() {
    let names = vec!["pin"; 257];
    for (member, value, field) in [
        ("limit", json!(0), "limit"),
        ("limit", json!(null), "limit"),
        ("entity_types", json!(["pin", "Pin"]), "entity_types[1]"),
        ("entity_types", json!(names), "entity_types"),
        ("device_id", json!("server"), "device_id"),
        ("cursor", json!(7), "cursor"),
        ("mark", json!("1"), "mark"),
    ] {
        let mut world = World::new();
        let body = json!({"protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "limit": 1});
        let problem = world.send("pull", &with(body, json!({ member: value }))).problem.unwrap();
        assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("invalid_request", Some(field)));
    }
}

#[test]
fn unknown_members_are_ignored() {
    let mut world = World::new();
    let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(100), "]".repeat(100))).unwrap();
    let request = with(world.request("A", vec![with(good(1), json!({"later": deep}))]), json!({"later": {"x": 1}}));
    assert_eq!(world.push_as_is(&request).applied, 1);
}

#[test]
fn a_body_nested_without_end_is_answered() {
    let mut world = World::new();
    world.epoch();
    let claims = Claims::new("ada".into(), ["team".to_owned()].into());
    let head = r#"{"protocol":1,"user_id":"ada","scope":"team","device_id":"A","sent_at":"2026-05-01T12:00:00Z""#;
    for body in [
        format!("{head},\"later\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)),
        format!("{head},\"operations\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)),
        "[".repeat(200_000),
        format!("{{\"protocol\":{}", "[".repeat(200_000)),
    ] {
        let answer = world.endpoint.handle(Request::Push(body.as_bytes()), &claims, world.now, &mut world.random);
        assert!(answer.problem.is_some());
    }
}

#[test]
fn no_value_is_repeated_in_a_problem() {
    let mut world = World::new();
    for members in [
        json!({"device_id": 1, "user_id": "s3cret"}),
        json!({"sent_at": "s3cret"}),
        json!({"operations": "s3cret"}),
        json!({"operations": [{"operation": "s3cret"}]}),
        json!({"dry_run": "s3cret"}),
    ] {
        let request = with(world.request("A", vec![]), members);
        let claims = Claims::new("s3cret".into(), ["team".to_owned()].into());
        let answer = world.send_as(&claims, "push", &request);
        assert!(answer.status >= 400 && !answer.body.contains("s3cret"), "{}", answer.body);
    }
}
