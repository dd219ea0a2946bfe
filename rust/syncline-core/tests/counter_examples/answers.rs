//! What an answer may do to `base`, to the cursor and to the marks.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use syncline_core::NewOperation;
use syncline_core::OperationStatus;
use syncline_core::transport::Route;
use syncline_testkit::{Fault, World};

use crate::*;

/// A pushes #1, the answer is lost; B overwrites e.f; A pulls; A re-sends #1: the repeated verdict puts nothing back.
#[test]
fn ce02_a_repeated_verdict_moves_base_only_forward() {
    let mut world = World::new(2);
    let (mut a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f":0}"#);
    world.settle(&[&a, &b]);
    let receipt = update(&world, &a, "e", r#"{"f":1}"#);
    a.network.next_push(Fault::HoldAnswer);
    a.start().unwrap();
    world.run_until_idle();
    world.sync(&b);
    update(&world, &b, "e", r#"{"f":2}"#);
    world.sync(&b);
    pull_beside(&world, &a);
    assert_eq!(a.sql::<String>("SELECT base FROM entities"), r#"{"f":2}"#, "the pull went by");
    a.restart();
    world.sync(&a);
    assert_eq!(statuses(&pushes(&world, &a).pop().unwrap().1), ["already_processed"]);
    assert_status(&a, &[&receipt], OperationStatus::Completed);
    assert_eq!(value(&a, "e"), json!({"f":2}));
    a.network.release_all();
    world.settle(&[&a, &b]);
}

/// #1 is merged, without a record in the answer (it is too large); #2 on another field, before any pull: nothing of #1 is lost.
#[test]
fn ce03_a_verdict_without_a_record_leaves_base_to_the_pull() {
    let mut world = World::new(3);
    let (a, b) = (world.device("a"), world.device("b"));
    let large = "x".repeat(200 * 1024);
    let ids: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
    for id in &ids {
        create(&world, &b, id, &json!({ "large": large }).to_string());
    }
    world.settle(&[&b, &a]);
    for id in &ids {
        update(&world, &b, id, r#"{"theirs":1}"#);
    }
    world.sync(&b);
    for id in &ids {
        update(&world, &a, id, r#"{"f":1}"#);
    }
    a.network.script(|request| (request.route == Route::Pull).then_some(Fault::Unreachable));
    world.sync(&a);
    let (_, answer) = pushes(&world, &a).pop().unwrap();
    let results = answer["results"].as_array().unwrap().clone();
    let without: Vec<usize> = (0..results.len()).filter(|at| results[*at].get("record").is_none()).collect();
    assert_eq!(results.len(), 8, "none is left out");
    assert!(!without.is_empty() && without.len() < 8, "some records are too much for one answer: {without:?}");

    for id in &ids {
        update(&world, &a, id, r#"{"g":2}"#);
    }
    world.sync(&a);
    for id in &ids {
        let here = value(&a, id);
        assert_eq!((&here["f"], &here["g"]), (&json!(1), &json!(2)), "{id}");
    }
    world.assert_invariants(&[&a, &b]);
    a.network.heal();
    world.settle(&[&a, &b]);
    for id in &ids {
        let here = value(&b, id);
        assert_eq!((&here["f"], &here["g"], &here["theirs"]), (&json!(1), &json!(2), &json!(1)), "{id}");
    }
}

/// A server restore drops e from A's replica; its author re-sends it; A's older update is judged on a clock that covers e.
#[test]
fn ce04_a_device_that_dropped_its_base_gets_the_record() {
    let mut world = World::new(4);
    let (a, b) = (world.device("a"), world.device("b"));
    world.settle(&[&a, &b]);
    let before = world.path("before.db");
    world.server.snapshot(&before);
    create(&world, &b, "e", r#"{"f":0}"#);
    world.settle(&[&b, &a]);
    let receipt = update(&world, &a, "e", r#"{"g":1}"#);
    world.server.restore(&before, true);
    cut_pushes(&a);
    world.sync(&a);
    world.sync(&a);
    assert_eq!(a.get("pin", "e").unwrap().and_then(|entity| entity.value), None, "the reset dropped its base");
    world.sync(&b);
    assert_eq!(value(&b, "e"), json!({"f":0}), "re-sent by its author");
    a.network.heal();
    world.settle(&[&a, &b]);
    assert_status(&a, &[&receipt], OperationStatus::Completed);
    assert_eq!((value(&a, "e"), value(&b, "e")), (json!({"f":0,"g":1}), json!({"f":0,"g":1})));
}

/// #1 e.f and #2 e.g in one batch, both left out of the answer: both are in `base`.
#[test]
fn ce28_left_out_results_of_one_entity_are_folded_together() {
    let mut world = World::new(28);
    let config = unfolded(&world, "a");
    let a = world.device_with("a", config);
    let b = world.device("b");
    create(&world, &a, "e", r#"{"f":0,"g":0}"#);
    world.settle(&[&a, &b]);
    update(&world, &a, "e", r#"{"f":1}"#);
    update(&world, &a, "e", r#"{"g":2}"#);
    world.sync(&a);
    let (operations, answer) = pushes(&world, &a).pop().unwrap();
    assert_eq!((operations.len(), &answer["applied"], statuses(&answer).len()), (2, &json!(2), 0));
    assert_eq!(a.sql::<String>("SELECT base FROM entities"), r#"{"f":1,"g":2}"#);
    world.settle(&[&a, &b]);
}

/// Two pushes in flight for different lanes, answers in reverse order: no sign of a server gone back.
#[test]
fn ce27_answers_in_reverse_order_are_no_sign_of_a_restore() {
    let mut world = World::new(27);
    let (a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    let heard = notices(&a);
    a.network.script(|request| (request.route == Route::Push).then_some(Fault::HoldAnswer));
    a.start().unwrap();
    world.run_until_idle();
    let receipts: Vec<_> = (0..3)
        .map(|n| {
            let receipt = create(&world, &a, &format!("e{n}"), "{}");
            world.run_until_idle();
            receipt
        })
        .collect();
    assert_eq!(a.network.held(), 3, "three batches in flight");
    while a.network.held() > 0 {
        a.network.release_last();
        world.run_until_idle();
    }
    a.network.heal();
    assert_status(&a, &receipts.iter().collect::<Vec<_>>(), OperationStatus::Completed);
    assert_eq!(pushes(&world, &a).len(), 3, "nothing was sent again");
    assert_eq!(*heard.lock().unwrap(), []);
    a.stop().unwrap();
    world.settle(&[&a, &b]);
}

/// A push is sent at the head; a reset begins and its first page is stored; the push's answer carries a cursor: not taken.
#[test]
fn ce30_a_pushs_cursor_does_not_cut_a_reset_short() {
    let mut world = World::new(30);
    let (a, b) = (world.device("a"), world.device("b"));
    b.enqueue_all((0..1500).map(|n| NewOperation::create("pin", format!("p{n}"), "{}"))).unwrap();
    world.settle(&[&b, &a]);

    // A's push is decided at the head; its answer, with a cursor, is late.
    create(&world, &a, "mine", "{}");
    a.network.next_push(Fault::HoldAnswer);
    a.start().unwrap();
    world.run_until_idle();
    assert!(pushes(&world, &a).pop().unwrap().1["cursor"].is_string());

    // Half a year passes on the server: a tombstone that A has not heard of is purged.
    delete(&world, &b, "p0");
    world.sync(&b);
    world.server.clock.shift(200 * 24 * 60 * 60 * 1000);
    world.server.maintain();
    let pages = AtomicU64::new(0);
    a.network.script(move |request| {
        let second = request.route == Route::Pull && pages.fetch_add(1, Ordering::Relaxed) == 1;
        second.then_some(Fault::HoldRequest)
    });
    pull_beside(&world, &a);
    assert_eq!(a.network.held(), 2, "the answer to the push, and the second page");
    assert_eq!(a.sql::<i64>("SELECT reset FROM device"), 1, "half done");
    let cursor: String = a.sql("SELECT cursor FROM device");
    a.network.release();
    world.run_until_idle();
    assert_eq!(a.sql::<String>("SELECT cursor FROM device"), cursor);
    a.network.release();
    world.run_until_idle();
    a.network.heal();
    assert_eq!(a.sql::<i64>("SELECT reset FROM device"), 0);
    assert_eq!((value(&a, "p0"), value(&a, "p1499"), value(&a, "mine")), (Value::Null, json!({}), json!({})));
    a.stop().unwrap();
    world.settle(&[&a, &b]);
}
