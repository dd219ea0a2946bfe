//! Operations that were withdrawn after they may have left the device.

use serde_json::{Value, json};
use syncline_core::OperationStatus;
use syncline_testkit::{Fault, World};

use crate::*;

/// push #1; crash before the answer; cancel #1: it ends as what became of it on the server.
#[test]
fn ce08_a_cancelled_operation_ends_as_the_server_says() {
    for (fault, status, left) in [
        (Fault::HoldAnswer, OperationStatus::Completed, json!({"f":1})),
        (Fault::HoldRequest, OperationStatus::Cancelled, Value::Null),
    ] {
        let mut world = World::new(8);
        let (mut a, b) = (world.device("a"), world.device("b"));
        world.sync(&a);
        let receipt = create(&world, &a, "e", r#"{"f":1}"#);
        sent_before_a_crash(&world, &mut a, fault);
        a.cancel(&receipt.id).unwrap();
        let operation = a.operation(&receipt.id).unwrap().unwrap();
        assert!(operation.void && !operation.status.has_ended(), "{operation:?}");
        assert_eq!(value(&a, "e"), Value::Null, "it left the fold at once");
        world.assert_invariants(&[&a, &b]);
        world.settle(&[&a, &b]);
        assert_status(&a, &[&receipt], status);
        assert_eq!(value(&b, "e"), left);
        a.network.release_all();
        world.settle(&[&a, &b]);
        assert_eq!(value(&b, "e"), left);
    }
}

/// As 8, and #2 behind it: it waits for the void's answer, and its clock covers #1 only if #1 applied.
#[test]
fn ce09_what_is_behind_a_void_waits_for_its_answer() {
    for (fault, covered) in [(Fault::HoldAnswer, true), (Fault::HoldRequest, false)] {
        let mut world = World::new(9);
        let (mut a, b) = (world.device("a"), world.device("b"));
        create(&world, &a, "e", r#"{"f":0}"#);
        world.settle(&[&a, &b]);
        let first = update(&world, &a, "e", r#"{"f":1}"#);
        sent_before_a_crash(&world, &mut a, fault);
        a.cancel(&first.id).unwrap();
        let second = update(&world, &a, "e", r#"{"f":2}"#);
        let name = device_id(&a);
        world.settle(&[&a, &b]);
        assert_status(&a, &[&second], OperationStatus::Completed);
        let pushes = pushes(&world, &a);
        let at = |id: &str, void: bool| {
            let is = |operation: &Value| operation["id"] == id && operation["void"].as_bool().unwrap_or(false) == void;
            pushes.iter().position(|(operations, _)| operations.iter().any(is)).unwrap()
        };
        let (voided, followed) = (at(&first.id, true), at(&second.id, false));
        assert!(voided < followed, "not together");
        assert_eq!(pushes[voided].0.len(), 1);
        let clock = &pushes[followed].0[0]["base_clock"];
        assert_eq!(clock[&name], if covered { first.sequence } else { 1 }, "{clock}");
        assert_eq!((device_id(&a), ledger(&a)), (name, 0), "no false fork and no false conflict");
        assert_eq!(value(&b, "e"), json!({"f":2}));
        a.network.release_all();
        world.settle(&[&a, &b]);
    }
}

/// The first request of #1 is delayed; #1 is voided; then the first request arrives: it meets the verdict under its key.
#[test]
fn ce11_a_late_first_request_of_a_voided_operation_has_no_effect() {
    let mut world = World::new(11);
    let (mut a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    let receipt = create(&world, &a, "e", r#"{"f":1}"#);
    sent_before_a_crash(&world, &mut a, Fault::HoldRequest);
    a.cancel(&receipt.id).unwrap();
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Cancelled);
    a.network.release_all();
    let (operations, answer) = pushes(&world, &a).pop().unwrap();
    assert_eq!((operations[0]["void"].as_bool(), statuses(&answer)), (None, vec!["already_processed".to_owned()]));
    world.settle(&[&a, &b]);
    assert_eq!(value(&b, "e"), Value::Null);
}

/// The first request of #1 is delayed; #1 is rejected, retried and applied, and B changes it; then the first request arrives.
#[test]
fn ce11_a_late_first_request_of_a_retried_operation_applies_nothing_twice() {
    let mut world = World::new(111);
    let (mut a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    create(&world, &b, "e", r#"{"f":0}"#);
    let receipt = update(&world, &a, "e", r#"{"f":1}"#);
    sent_before_a_crash(&world, &mut a, Fault::HoldRequest);
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Failed);
    world.sync(&b);
    a.retry(&receipt.id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(value(&b, "e"), json!({"f":1}));
    update(&world, &b, "e", r#"{"f":2}"#);
    world.settle(&[&b]);
    a.network.release_all();
    world.settle(&[&a, &b]);
    assert_eq!(value(&a, "e"), json!({"f":2}));
}
