//! Two copies of one file: a phone restored from a backup.

use serde_json::json;
use syncline_core::{Notice, OperationStatus};
use syncline_testkit::World;

use crate::*;

/// A and A' both enqueue a different operation as sequence 1 on e; both push: the second is another device, and nothing is lost.
#[test]
fn ce12_one_sequence_used_twice_is_a_fork() {
    let mut world = World::new(12);
    let a = world.device("a");
    let copy = world.copy(&a, "copy");
    let heard = notices(&copy);
    let first = create(&world, &a, "e", r#"{"f":1,"g":1}"#);
    let second = create(&world, &copy, "e", r#"{"f":2,"h":2}"#);
    assert_eq!((first.sequence, second.sequence, device_id(&a)), (1, 1, device_id(&copy)));
    world.sync(&a);
    world.sync(&copy);
    world.run_until_idle();
    assert_eq!(*heard.lock().unwrap(), [Notice::Forked { device_id: device_id(&copy) }]);
    assert_ne!(device_id(&a), device_id(&copy));
    world.settle(&[&a, &copy]);
    assert_status(&a, &[&first], OperationStatus::Completed);
    assert_status(&copy, &[&second], OperationStatus::Completed);
    assert_eq!(value(&a, "e"), json!({"f":2,"g":1,"h":2}));
    assert_eq!(ledger(&copy), 1, "A's value of f was overwritten, but not unseen");
}

/// As before, on two entities: no record's clock tells, only the dot.
#[test]
fn ce12_one_sequence_used_for_two_entities_is_a_fork() {
    let mut world = World::new(121);
    let a = world.device("a");
    let copy = world.copy(&a, "copy");
    let first = create(&world, &a, "e1", r#"{"f":1}"#);
    let second = create(&world, &copy, "e2", r#"{"f":2}"#);
    world.settle(&[&a, &copy]);
    assert_ne!(device_id(&a), device_id(&copy));
    assert_status(&a, &[&first], OperationStatus::Completed);
    assert_status(&copy, &[&second], OperationStatus::Completed);
    assert_eq!((value(&copy, "e1"), value(&a, "e2")), (json!({"f":1}), json!({"f":2})));
}

/// A': #1 e.f, cancelled (or folded away), #2 e.f. A: #1 e.f pushed. A' pushes #2: its clock does not cover A's (A,1), a
/// value never seen.
#[test]
fn ce13_a_cancelled_predecessor_covers_nothing() {
    for folded in [false, true] {
        let mut world = World::new(13);
        let (a, b) = (world.device("a"), world.device("b"));
        if !folded {
            create(&world, &b, "e", r#"{"f":0}"#);
        }
        world.settle(&[&b, &a]);
        let copy = world.copy(&a, "copy");
        if folded {
            create(&world, &copy, "e", r#"{"f":10}"#);
            delete(&world, &copy, "e");
            create(&world, &a, "e", r#"{"f":1}"#);
            create(&world, &copy, "e", r#"{"f":30}"#);
        } else {
            let first = update(&world, &copy, "e", r#"{"f":10}"#);
            copy.cancel(&first.id).unwrap();
            update(&world, &a, "e", r#"{"f":1}"#);
            update(&world, &copy, "e", r#"{"f":30}"#);
        }
        world.sync(&a);
        world.sync(&copy);
        assert_ne!(device_id(&copy), device_id(&a));
        let rows = copy.conflicts(false, 10).unwrap();
        assert_eq!(rows.len(), 1, "overwritten, but not unseen");
        assert_eq!(rows[0].conflict.fields["f"].theirs.as_ref().unwrap().get(), "1");
        world.settle(&[&copy, &a, &b]);
        assert_eq!(value(&b, "e"), json!({"f":30}));
    }
}

/// A' forks to C and re-sends #1, which A had delivered as (A,1); then its #2 of the same lane: no conflict with itself.
#[test]
fn ce14_a_fork_learns_under_which_dot_its_operation_applied() {
    let mut world = World::new(14);
    let config = unfolded(&world, "a");
    let a = world.device_with("a", config);
    let b = world.device("b");
    create(&world, &b, "e", r#"{"f":0}"#);
    world.settle(&[&b, &a]);
    let first = update(&world, &a, "e", r#"{"f":1}"#);
    let copy = world.copy(&a, "copy");
    let third = world.copy(&a, "third");
    create(&world, &a, "other", "{}");
    world.sync(&a);
    for (device, number) in [(&copy, 2), (&third, 3)] {
        let second = update(&world, device, "e", &json!({ "f": number }).to_string());
        world.sync(device);
        assert_ne!(device_id(device), device_id(&a));
        assert_status(device, &[&first, &second], OperationStatus::Completed);
        let answers: Vec<_> = pushes(&world, device).iter().map(|(_, answer)| statuses(answer)).collect();
        let repeated = vec!["already_processed".to_owned(), "deferred".to_owned()];
        assert!(answers.contains(&repeated), "its followers wait once: {answers:?}");
    }
    assert_eq!(ledger(&copy), 0, "#2 has seen #1");
    assert_eq!(ledger(&third), 1, "the third has seen #1, but not the second's value");
    world.settle(&[&a, &copy, &third, &b]);
    assert_eq!(value(&a, "e"), json!({"f":3}));
}
