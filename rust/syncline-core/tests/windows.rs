//! Bounded runs, stopping, closing, going away: in time, and with everything safe.

use std::time::Duration;

use syncline_core::{NewOperation, OperationStatus, SignOut, SignOutMode, SyncState, SynclineError};
use syncline_testkit::{Fault, TestDevice, World};

fn enqueue(device: &TestDevice, count: usize) -> Vec<String> {
    let pins = (0..count).map(|n| NewOperation::create("pin", format!("p{n}"), "{}"));
    device.enqueue_all(pins).unwrap().into_iter().map(|receipt| receipt.id).collect()
}

fn count(device: &TestDevice, ids: &[String], status: OperationStatus) -> usize {
    ids.iter().filter(|id| device.status(id) == status).count()
}

#[test]
fn run_background_returns_in_time_with_everything_pending_again() {
    let mut world = World::new(1);
    let device = world.device("a");
    world.sync(&device);
    let ids = enqueue(&device, 30);
    device.network.script(|_| Some(Fault::HoldAnswer));
    let started = world.start({
        let manager = device.manager();
        async move { manager.run_background(Duration::from_secs(20)).await }
    });
    world.run_until_idle();
    assert_eq!(count(&device, &ids, OperationStatus::InProgress), 30);
    world.advance(Duration::from_millis(19_500));
    let run = started.take().expect("back before the deadline").unwrap();
    assert!(!run.finished);
    assert_eq!(count(&device, &ids, OperationStatus::Pending), 30);
    assert!(!device.lock.is_held());
    assert_eq!(device.state(), SyncState::Paused);

    // The answers arrive late: nobody asks for them any more, and nothing is sent twice in effect.
    device.network.heal();
    device.network.release_all();
    world.run_until_idle();
    assert_eq!(count(&device, &ids, OperationStatus::Pending), 30);
    let run = world.run(device.run_background(Duration::from_secs(20))).unwrap();
    assert!(run.finished);
    assert_eq!((run.summary.completed, count(&device, &ids, OperationStatus::Completed)), (30, 30));
    world.settle(&[&device]);
}

#[test]
fn stop_gives_up_at_once_what_is_in_flight() {
    let mut world = World::new(2);
    let device = world.device("a");
    world.sync(&device);
    let ids = enqueue(&device, 5);
    device.network.next_push(Fault::HoldRequest);
    device.start().unwrap();
    world.run_until_idle();
    device.stop().unwrap();
    assert_eq!(count(&device, &ids, OperationStatus::Pending), 5);
    assert_eq!((device.lock.is_held(), device.state()), (false, SyncState::Paused));
    world.run_until_idle();
    let sent = device.network.sent();
    world.advance_secs(3600);
    assert_eq!(device.network.sent(), sent, "nothing runs any more");
    device.start().unwrap();
    world.run_until_idle();
    device.network.release_all();
    world.settle(&[&device]);
}

#[test]
fn a_cancelled_call_kills_no_delivery() {
    let mut world = World::new(3);
    let device = world.device("a");
    world.sync(&device);
    let ids = enqueue(&device, 5);
    device.network.next_push(Fault::HoldAnswer);
    let manager = device.manager();
    let started = world.start(async move { manager.process_queue().await });
    world.run_until_idle();
    drop(started);
    world.run_until_idle();
    assert_eq!(count(&device, &ids, OperationStatus::InProgress), 5);
    assert!(device.lock.is_held(), "the delivery still needs it");
    device.network.release();
    world.run_until_idle();
    assert_eq!(count(&device, &ids, OperationStatus::Completed), 5);
    assert!(!device.lock.is_held());
}

#[test]
fn close_gives_everything_back_and_is_idempotent() {
    let mut world = World::new(4);
    let mut device = world.device("a");
    world.sync(&device);
    let ids = enqueue(&device, 5);
    device.network.next_push(Fault::HoldRequest);
    device.start().unwrap();
    world.run_until_idle();
    let waiting = world.start({
        let (manager, id) = (device.manager(), ids[0].clone());
        async move { manager.wait_for(&id, Duration::from_secs(3600)).await }
    });
    world.run_until_idle();
    device.close();
    device.close();
    world.run_until_idle();
    assert_eq!(waiting.take(), Some(Err(SynclineError::Closed)));
    assert!(!device.lock.is_held());
    assert_eq!(device.sql::<i64>("SELECT count(*) FROM sync_queue WHERE status = 'pending'"), 5);
    assert_eq!(device.metrics().unwrap_err(), SynclineError::Closed);
    assert_eq!(device.start(), Err(SynclineError::Closed));
    assert_eq!(device.stop(), Err(SynclineError::Closed));
    assert!(matches!(device.begin_transaction(), Err(SynclineError::Closed)));
    assert_eq!(world.run(device.process_queue()), Err(SynclineError::Closed));
    device.network.release_all();
    device.restart();
    world.settle(&[&device]);
}

#[test]
fn wait_for_gives_the_verdict_the_survivor_and_the_timeout() {
    let mut world = World::new(5);
    let device = world.device("a");
    world.sync(&device);
    let first = device.enqueue(NewOperation::create("pin", "p1", "{}")).unwrap();
    let folded = device.enqueue(NewOperation::update("pin", "p1", r#"{"n":1}"#)).unwrap();
    let wait = |id: &str| {
        let (manager, id) = (device.manager(), id.to_owned());
        world.start(async move { manager.wait_for(&id, Duration::from_secs(30)).await })
    };
    let (one, two) = (wait(&first.id), wait(&folded.id));
    world.advance_secs(20);
    assert!(one.take().is_none());
    world.sync(&device);
    world.run_until_idle();
    for waited in [one, two] {
        let operation = waited.take().expect("told").unwrap();
        assert_eq!((operation.id.as_str(), operation.status), (first.id.as_str(), OperationStatus::Completed));
    }
    let late = device.enqueue(NewOperation::create("pin", "p2", "{}")).unwrap();
    let late = wait(&late.id);
    world.advance_secs(31);
    assert_eq!(late.take(), Some(Err(SynclineError::Timeout)));
    assert!(matches!(wait_now(&world, &device, "nothing"), Err(SynclineError::NotPossible { .. })));
}

fn wait_now(world: &World, device: &TestDevice, id: &str) -> syncline_core::Result<syncline_core::Operation> {
    world.run(device.wait_for(id, Duration::from_secs(30)))
}

#[test]
fn signing_out_says_what_it_leaves_behind() {
    let mut world = World::new(6);
    let mut device = world.device("a");
    world.sync(&device);
    enqueue(&device, 3);
    device.network.next_push(Fault::DropAfter);
    world.sync(&device);
    device.enqueue(NewOperation::create("pin", "later", "{}")).unwrap();
    let left = SignOut { unsent: 4, unknown_outcome: 3 };
    assert_eq!(device.unsent().unwrap(), left);
    assert_eq!(world.run(device.sign_out(SignOutMode::Keep)).unwrap(), left);
    assert_eq!(device.metrics().unwrap_err(), SynclineError::Closed);

    device.restart();
    assert_eq!(world.run(device.sign_out(SignOutMode::Discard)).unwrap(), left);
    device.restart();
    assert_eq!(device.metrics().unwrap().pending, 3, "the server must confirm that these were withdrawn");
    world.settle(&[&device]);
    assert_eq!(device.value("pin", "later"), None);
    assert!(device.value("pin", "p0").is_some(), "it had arrived before it was withdrawn");

    enqueue(&device, 0);
    device.enqueue(NewOperation::create("pin", "last", "{}")).unwrap();
    let left = world.run(device.sign_out(SignOutMode::Flush(Duration::from_secs(10)))).unwrap();
    assert_eq!(left, SignOut::default());
    device.restart();
    world.settle(&[&device]);
}
