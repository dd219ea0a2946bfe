//! A server that went back in time.

use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_core::{Notice, OperationStatus};
use syncline_testkit::{Fault, TOKEN, World};

use crate::*;

/// snapshot; A pushes #1; server restored, untold; A pushes #2: A hears that #1 is gone and sends it again.
#[test]
fn ce15_a_mark_ahead_of_the_server_tells_the_loss() {
    let mut world = World::new(15);
    let (a, b) = (world.device("a"), world.device("b"));
    world.settle(&[&a, &b]);
    let before = world.path("before.db");
    world.server.snapshot(&before);
    let first = create(&world, &a, "e1", r#"{"f":1}"#);
    world.sync(&a);
    world.server.restore(&before, false);
    let heard = notices(&a);
    let second = create(&world, &a, "e2", r#"{"f":2}"#);
    world.sync(&a);
    world.run_until_idle();
    assert_eq!(*heard.lock().unwrap(), [Notice::ServerWentBack { returned: 1 }]);
    world.settle(&[&a, &b]);
    assert_status(&a, &[&first, &second], OperationStatus::Completed);
    assert_eq!((value(&b, "e1"), value(&b, "e2")), (json!({"f":1}), json!({"f":2})));
}

/// As 15, and a delayed duplicate of A's old request reaches the restored server: it cannot make the mark catch up.
#[test]
fn ce16_a_delayed_duplicate_does_not_hide_the_loss() {
    let mut world = World::new(16);
    let (mut a, b) = (world.device("a"), world.device("b"));
    world.settle(&[&a, &b]);
    let before = world.path("before.db");
    world.server.snapshot(&before);
    let first = create(&world, &a, "e1", r#"{"f":1}"#);
    sent_before_a_crash(&world, &mut a, Fault::HoldRequest);
    world.sync(&a);
    let second = create(&world, &a, "e2", r#"{"f":2}"#);
    world.sync(&a);
    world.server.restore(&before, true);
    a.network.release_all();
    assert_eq!(pushes(&world, &a).pop().unwrap().1["code"], "server_behind");
    let third = create(&world, &a, "e3", r#"{"f":3}"#);
    world.settle(&[&a, &b]);
    assert_status(&a, &[&first, &second, &third], OperationStatus::Completed);
    for (id, f) in [("e1", 1), ("e2", 2), ("e3", 3)] {
        assert_eq!(value(&b, id), json!({ "f": f }));
    }
}

/// As 15, and the late answer of the old server arrives after A took the new epoch: it is dropped.
#[test]
fn ce17_a_late_answer_of_the_lost_history_is_dropped() {
    let mut world = World::new(17);
    let (a, b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f":0}"#);
    world.settle(&[&a, &b]);
    let before = world.path("before.db");
    world.server.snapshot(&before);
    let receipt = update(&world, &a, "e", r#"{"f":1}"#);
    a.network.next_push(Fault::HoldAnswer);
    a.start().unwrap();
    world.run_until_idle();
    world.server.restore(&before, true);
    let epoch: String = a.sql("SELECT epoch FROM device");
    pull_beside(&world, &a);
    assert_ne!(a.sql::<String>("SELECT epoch FROM device"), epoch, "the pull brought the new one");
    assert_status(&a, &[&receipt], OperationStatus::InProgress);
    assert_eq!(a.sql::<String>("SELECT base FROM entities"), r#"{"f":0}"#);
    a.network.release();
    world.run_until_idle();
    let operations: Vec<Value> = pushes(&world, &a).into_iter().flat_map(|(operations, _)| operations).collect();
    assert_eq!(operations.iter().filter(|operation| operation["id"] == receipt.id.as_str()).count(), 2);
    assert_status(&a, &[&receipt], OperationStatus::Completed);
    a.stop().unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(value(&b, "e"), json!({"f":1}));
}

/// A cancels #1, voided on the server; server restored; a duplicate of A's first push, without an epoch, arrives: refused.
#[test]
fn ce18_a_push_without_an_epoch_revives_nothing() {
    let mut world = World::new(18);
    let mut a = world.device("a");
    let b = world.device("b");
    let before = world.path("before.db");
    world.sync(&b);
    world.server.snapshot(&before);
    let receipt = create(&world, &a, "e", r#"{"f":1}"#);
    sent_before_a_crash(&world, &mut a, Fault::HoldRequest);
    let exchanges = world.server.exchanges();
    let first = exchanges.iter().find(|exchange| exchange.device == "a").unwrap();
    assert_eq!(first.route, Route::Pull, "a new device pulls first");
    a.cancel(&receipt.id).unwrap();
    world.sync(&a);
    assert_status(&a, &[&receipt], OperationStatus::Cancelled);

    world.server.restore(&before, true);
    a.network.release();
    let late = world.server.exchanges().pop().unwrap();
    assert_eq!((late.route, late.answer["code"].as_str()), (Route::Push, Some("server_behind")), "its own first push");
    let mut stray = late.request;
    assert!(stray["epoch"].is_string() && stray["operations"][0]["id"] == receipt.id.as_str());
    stray.as_object_mut().unwrap().remove("epoch");
    let (status, answer) = world.server.stray(Route::Push, &stray, TOKEN);
    assert_eq!((status, answer["code"].as_str()), (409, Some("server_behind")));
    world.settle(&[&a, &b]);
    assert_eq!(value(&b, "e"), Value::Null);
}

/// After `server_behind` A pulls from the start; `base` of the lost history has the higher version: it is replaced all the same.
#[test]
fn ce29_every_pull_from_the_start_is_a_reset() {
    let mut world = World::new(29);
    let (a, mut b) = (world.device("a"), world.device("b"));
    create(&world, &a, "e", r#"{"f":0}"#);
    world.settle(&[&a, &b]);
    let before = world.path("before.db");
    world.server.snapshot(&before);
    for n in 1..=5 {
        update(&world, &b, "e", &json!({ "f": n }).to_string());
        create(&world, &b, &format!("lost{n}"), "{}");
        world.sync(&b);
    }
    world.sync(&a);
    assert_eq!((value(&a, "e"), value(&a, "lost1")), (json!({"f":5}), json!({})));
    // B's phone is at the bottom of a lake: nobody can send its changes again.
    b.kill();
    world.server.restore(&before, true);
    world.settle(&[&a]);
    assert_eq!((value(&a, "e"), value(&a, "lost1")), (json!({"f":0}), Value::Null));
    let answers = world.server.exchanges();
    assert!(answers.iter().all(|exchange| exchange.answer["reset"] != true), "nobody said `reset`");
}
