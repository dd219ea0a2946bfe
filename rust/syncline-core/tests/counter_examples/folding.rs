//! Which operations may become one.

use serde_json::{Value, json};
use syncline_core::{NewOperation, OperationStatus};
use syncline_testkit::World;

use crate::*;

/// A has a create of e.f2 unsent; pulls B's e; updates e.f0: two operations, each on what it had seen.
#[test]
fn ce05_nothing_folds_across_a_pull() {
    let mut world = World::new(5);
    let (a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    let first = create(&world, &a, "e", r#"{"f2":"mine"}"#);
    create(&world, &b, "e", r#"{"f0":"theirs","f2":"theirs"}"#);
    world.sync(&b);
    cut_pushes(&a);
    world.sync(&a);
    let second = update(&world, &a, "e", r#"{"f0":"seen and changed"}"#);
    a.network.heal();
    world.settle(&[&a, &b]);
    assert_status(&a, &[&first, &second], OperationStatus::Completed);
    // f2 was written unseen, so there is a row; f0 was seen, so there is none.
    let conflicts = a.conflicts(false, 10).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].conflict.fields.keys().collect::<Vec<_>>(), ["f2"]);
    assert_eq!(value(&b, "e")["f0"], "seen and changed");
}

/// A creates e offline; pulls B's e of the same id; deletes e: the delete of B's e arrives.
#[test]
fn ce06_a_deletion_of_what_was_pulled_meanwhile_arrives() {
    let mut world = World::new(6);
    let (a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    create(&world, &a, "e", r#"{"f":1}"#);
    create(&world, &b, "e", r#"{"f":2}"#);
    world.sync(&b);
    cut_pushes(&a);
    world.sync(&a);
    delete(&world, &a, "e");
    a.network.heal();
    world.settle(&[&a, &b]);
    assert_eq!((value(&a, "e"), value(&b, "e")), (Value::Null, Value::Null));
}

/// #1 e1; #2 e0 depends on #1; #3 e1 depends on #2: no cycle, all arrive in order.
#[test]
fn ce07_an_operation_with_a_dependency_folds_into_none() {
    let mut world = World::new(7);
    let a = world.device("a");
    let first = create(&world, &a, "e1", r#"{"f":1}"#);
    let second = enqueue(&world, &a, NewOperation::create("pin", "e0", "{}").after(&first));
    let third = enqueue(&world, &a, NewOperation::update("pin", "e1", r#"{"f":3}"#).after(&second));
    world.settle(&[&a]);
    assert_status(&a, &[&first, &second, &third], OperationStatus::Completed);
    assert_eq!(value(&a, "e1"), json!({"f":3}));
}

/// A new write meets a cancelled predecessor that was never claimed: it stands alone and arrives.
#[test]
fn ce38_nothing_folds_into_a_cancelled_operation() {
    let mut world = World::new(38);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f":0}"#);
    world.sync(&a);
    let first = update(&world, &a, "e", r#"{"f":1}"#);
    a.cancel(&first.id).unwrap();
    let second = update(&world, &a, "e", r#"{"f":2}"#);
    world.settle(&[&a, &b]);
    assert_status(&a, &[&first], OperationStatus::Cancelled);
    assert_status(&a, &[&second], OperationStatus::Completed);
    assert_eq!(value(&b, "e"), json!({"f":2}));
}
