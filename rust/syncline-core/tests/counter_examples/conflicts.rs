//! Who wins, and that nothing is overwritten unseen without a row.

use serde_json::{Value, json};
use syncline_core::{OperationStatus, Resolution};
use syncline_testkit::World;

use crate::*;

/// A writes e.f=1 at 5 s; B writes e.f=1 at 2 s; C writes e.f=2 at 3 s: A's stands, in every order of arrival.
#[test]
fn ce19_an_equal_value_keeps_the_later_dot() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new(19);
        let devices = ["a", "b", "c"].map(|name| world.device(name));
        let [a, b, c] = &devices;
        create(&world, a, "e", r#"{"f":0}"#);
        world.settle(&[a, b, c]);
        world.advance_secs(1);
        update(&world, b, "e", r#"{"f":1}"#);
        update(&world, c, "e", r#"{"f":2}"#);
        world.advance_secs(1);
        update(&world, a, "e", r#"{"f":1}"#);
        for at in order {
            world.sync(&devices[at]);
        }
        world.settle(&[a, b, c]);
        assert_eq!(value(c, "e"), json!({"f":1}), "{order:?}");
    }
}

/// A deletes e, then re-creates it with e.f0; B, who saw neither, writes e.f1: a row says so.
#[test]
fn ce20_a_field_without_a_dot_of_its_own_counts_as_set_by_the_create() {
    let mut world = World::new(20);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f0":0,"f1":0}"#);
    world.settle(&[&a, &b]);
    delete(&world, &a, "e");
    create(&world, &a, "e", r#"{"f0":9}"#);
    world.sync(&a);
    update(&world, &b, "e", r#"{"f1":5}"#);
    world.sync(&b);
    let rows = b.conflicts(false, 10).unwrap();
    assert_eq!(rows.iter().map(|row| row.conflict.fields.keys().collect::<Vec<_>>()).collect::<Vec<_>>(), [["f1"]]);
    world.settle(&[&a, &b]);
    assert_eq!(value(&a, "e"), json!({"f0":9,"f1":5}), "the later write stands");
}

/// A deletes e and, unaware, updates it (a stale screen): the update is `gone`, and both ends have nothing.
#[test]
fn ce21_an_update_that_has_seen_the_tombstone_is_gone() {
    let mut world = World::new(21);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f":0,"g":0}"#);
    world.settle(&[&a, &b]);
    let gone = delete(&world, &a, "e");
    let stale = update(&world, &a, "e", r#"{"f":1}"#);
    assert_eq!(value(&a, "e"), Value::Null);
    world.sync(&a);
    assert_status(&a, &[&gone], OperationStatus::Completed);
    assert_eq!(a.operation(&stale.id).unwrap().unwrap().reason.as_deref(), Some("gone"));
    world.assert_invariants(&[&a, &b]);
    a.discard(&stale.id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!((value(&a, "e"), value(&b, "e")), (Value::Null, Value::Null));
}

/// A's clock is an hour ahead; A writes; B, having seen it, writes; C, who saw neither, writes: B's stands in every order.
#[test]
fn ce26_a_clock_that_is_ahead_does_not_win_for_ever() {
    for b_first in [true, false] {
        let mut world = World::new(26);
        let (a, b, c) = (world.device("a"), world.device("b"), world.device("c"));
        create(&world, &a, "e", r#"{"f":0}"#);
        world.settle(&[&a, &b, &c]);
        a.clock.shift(3600 * 1000);
        update(&world, &a, "e", r#"{"f":1}"#);
        world.sync(&a);
        world.sync(&b);
        let seen = world.server.exchanges().pop().unwrap().answer["changes"][0]["changed_at"].clone();
        let clamped: syncline_protocol::Timestamp = seen.as_str().unwrap().parse().unwrap();
        let now = syncline_core::environment::Clock::now(&world.server.clock);
        assert_eq!(clamped, now.plus_millis(60_000), "not more than a minute ahead");
        let later = update(&world, &b, "e", r#"{"f":2}"#);
        assert!(b.operation(&later.id).unwrap().unwrap().timestamp > clamped);
        world.advance_secs(20);
        update(&world, &c, "e", r#"{"f":3}"#);
        for device in if b_first { [&b, &c] } else { [&c, &b] } {
            world.sync(device);
        }
        world.settle(&[&a, &b, &c]);
        assert_eq!(value(&a, "e"), json!({"f":2}));
        // Whoever has seen it all writes last, whatever the clocks say.
        update(&world, &c, "e", r#"{"f":4}"#);
        world.settle(&[&c, &a, &b]);
        assert_eq!(value(&a, "e"), json!({"f":4}));
    }
}

/// A resolves a conflict seen an hour ago; meanwhile a pull brought a newer value: that one is met, not overwritten.
#[test]
fn ce31_resolving_takes_the_clock_of_the_ledger_row() {
    let mut world = World::new(31);
    let config = manual(&world, "a");
    let (a, b) = (world.device_with("a", config), world.device("b"));
    create(&world, &b, "e", r#"{"f":0}"#);
    world.settle(&[&b, &a]);
    update(&world, &b, "e", r#"{"f":1}"#);
    world.sync(&b);
    let receipt = update(&world, &a, "e", r#"{"f":2}"#);
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Conflicted);
    world.advance_secs(3600);
    update(&world, &b, "e", r#"{"f":3}"#);
    world.sync(&b);
    world.sync(&a);
    a.resolve_conflict(&receipt.id, Resolution::TakeLocal).unwrap();
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Conflicted);
    let open = a.conflicts(true, 10).unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].conflict.fields["f"].theirs.as_ref().unwrap().get(), "3");
    world.assert_invariants(&[&a, &b]);

    a.resolve_conflict(&receipt.id, Resolution::TakeLocal).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!((value(&b, "e"), ledger(&a)), (json!({"f":2}), 2));
}

/// A writes, its clock is set back, A writes again; B writes in between: A's second stands, in every order of arrival.
#[test]
fn ce35_a_clock_that_was_set_back_does_not_undo_the_order_of_writing() {
    for b_last in [true, false] {
        let mut world = World::new(35);
        let (a, b) = (world.device("a"), world.device("b"));
        create(&world, &a, "e", r#"{"f":0}"#);
        world.settle(&[&a, &b]);
        update(&world, &b, "e", r#"{"f":3}"#);
        world.advance_secs(5);
        update(&world, &a, "e", r#"{"f":1}"#);
        world.sync(&a);
        if !b_last {
            world.sync(&b);
        }
        a.clock.shift(-10_000);
        update(&world, &a, "e", r#"{"f":2}"#);
        world.sync(&a);
        world.settle(&[&a, &b]);
        assert_eq!(value(&b, "e"), json!({"f":2}), "b last: {b_last}");
    }
}
