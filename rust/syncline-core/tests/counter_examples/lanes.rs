//! Lanes, keys and blame.

use serde_json::{Value, json};
use syncline_core::{OperationStatus, Retention, Waiting};
use syncline_testkit::{Fault, World};

use crate::*;

/// create e; cancel it; update e: the update is judged, it waits for nobody.
#[test]
fn ce01_a_lane_goes_on_past_a_cancelled_operation() {
    let mut world = World::new(1);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &b, "e", r#"{"g":1}"#);
    let first = create(&world, &a, "e", r#"{"f":1}"#);
    a.cancel(&first.id).unwrap();
    let second = update(&world, &a, "e", r#"{"f":2}"#);
    world.sync(&a);
    assert_status(&a, &[&first], OperationStatus::Cancelled);
    assert_eq!(a.operation(&second.id).unwrap().unwrap().reason.as_deref(), Some("not_found"));

    // Once B's create is there, the same update applies.
    world.sync(&b);
    a.retry(&second.id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(value(&b, "e"), json!({"f":2,"g":1}));
}

/// The server rejects #1; the cause is mended; retry: it goes under `key#2` and is judged anew.
#[test]
fn ce10_a_retry_after_a_rejection_is_judged_anew() {
    let mut world = World::new(10);
    let (a, b) = (world.device("a"), world.device("b"));
    let operation = NewOperation::update("pin", "e", r#"{"f":1}"#).with_key("mine");
    let receipt = enqueue(&world, &a, operation);
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Failed);
    world.assert_invariants(&[&a]);

    create(&world, &b, "e", r#"{"f":0}"#);
    world.sync(&b);
    a.retry(&receipt.id).unwrap();
    world.settle(&[&a, &b]);
    assert_status(&a, &[&receipt], OperationStatus::Completed);
    let keys: Vec<Value> = pushes(&world, &a)
        .iter()
        .flat_map(|(operations, _)| operations.iter().map(|operation| operation["idempotency_key"].clone()))
        .collect();
    assert_eq!(keys, ["mine", "mine#2"]);
}

/// create, delete, create, delete e within one millisecond: four intents, four keys, with and without folding.
#[test]
fn ce24_four_intents_within_one_millisecond_are_no_duplicates() {
    let mut world = World::new(24);
    let folded = world.device("folded");
    let config = unfolded(&world, "unfolded");
    let unfolded = world.device_with("unfolded", config);
    for (device, id, ended) in
        [(&folded, "e1", OperationStatus::Cancelled), (&unfolded, "e2", OperationStatus::Completed)]
    {
        let receipts: Vec<_> = (0..2)
            .flat_map(|_| [NewOperation::create("pin", id, r#"{"f":1}"#), NewOperation::delete("pin", id)])
            .map(|operation| device.enqueue(operation).unwrap())
            .collect();
        assert!(receipts.iter().all(|receipt| !receipt.duplicate));
        assert_eq!(value(device, id), Value::Null);
        world.sync(device);
        assert_status(device, &receipts.iter().collect::<Vec<_>>(), ended);
    }
    world.settle(&[&folded, &unfolded]);
    assert_eq!(value(&folded, "e2"), Value::Null);
}

/// One caller's key on deletes of two entities: the second is refused, never answered by the first.
#[test]
fn ce34_one_key_on_two_entities_is_refused_and_can_be_retried() {
    let mut world = World::new(34);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e1", "{}");
    create(&world, &a, "e2", "{}");
    world.settle(&[&a, &b]);
    let drop = |id: &str| NewOperation::delete("pin", id).with_key("clean-up");
    let first = enqueue(&world, &a, drop("e1"));
    let again = a.enqueue(drop("e2")).unwrap_err();
    assert_eq!(again.code(), "invalid_operation", "one device sees it at once");
    world.sync(&a);
    let second = enqueue(&world, &b, drop("e2"));
    world.sync(&b);
    assert_status(&a, &[&first], OperationStatus::Completed);
    assert_eq!(b.operation(&second.id).unwrap().unwrap().reason.as_deref(), Some("idempotency_key_reused"));
    world.assert_invariants(&[&a, &b]);

    b.retry(&second.id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!((value(&a, "e1"), value(&a, "e2")), (Value::Null, Value::Null));
}

/// A firewall answers 403 to one payload, without our header: that one waits alone, all else goes on.
#[test]
fn ce36_a_firewall_holds_up_one_payload_and_nothing_else() {
    let mut world = World::new(36);
    let (a, b) = (world.device("a"), world.device("b"));
    let receipts: Vec<_> = (0..20)
        .map(|n| {
            let text = if n == 7 { "<script>" } else { "fine" };
            create(&world, &a, &format!("e{n}"), &json!({ "text": text }).to_string())
        })
        .collect();
    a.network.script(|request| {
        let disliked = String::from_utf8_lossy(&request.body).contains("<script>");
        disliked.then(|| Fault::proxy(403, "<html>Blocked</html>"))
    });
    a.start().unwrap();
    world.advance_secs(120);
    let (bad, good): (Vec<_>, Vec<_>) = receipts.iter().partition(|receipt| receipt.sequence == 8);
    assert_status(&a, &good, OperationStatus::Completed);
    let operation = a.operation(&bad[0].id).unwrap().unwrap();
    assert_eq!((operation.status, operation.attempts), (OperationStatus::Pending, 0), "{operation:?}");
    assert_eq!(a.explain(&bad[0].id).unwrap().waiting, Waiting::ProxyRefused);

    let late = create(&world, &a, "late", "{}");
    world.run_until_idle();
    assert_status(&a, &[&late], OperationStatus::Completed);
    a.network.heal();
    world.advance_secs(600);
    assert_status(&a, &bad, OperationStatus::Completed);
    a.stop().unwrap();
    world.settle(&[&a, &b]);
}

/// create e; delete e, for months: what was folded away is pruned, and `forgotten_through` moves.
#[test]
fn ce39_what_was_cancelled_is_pruned_and_forgotten() {
    let mut world = World::new(39);
    let mut config = world.config("a");
    config.retention = Retention { age: std::time::Duration::ZERO, count: 0 };
    let a = world.device_with("a", config);
    for n in 0..30 {
        create(&world, &a, &format!("e{n}"), "{}");
        delete(&world, &a, &format!("e{n}"));
    }
    a.start().unwrap();
    world.advance_secs(7200);
    for id in ["last", "very last"] {
        create(&world, &a, id, "{}");
        world.advance_secs(7200);
    }
    assert_eq!(a.sql::<i64>("SELECT count(*) FROM sync_queue"), 1, "only the last row stays, as the queue's memory");
    let forgotten: Vec<u64> =
        world.server.exchanges().iter().filter_map(|exchange| exchange.request["forgotten_through"].as_u64()).collect();
    assert!(forgotten.last() >= Some(&60), "{forgotten:?}");
    a.stop().unwrap();
    world.settle(&[&a]);
}
