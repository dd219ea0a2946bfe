//! `SyncTransaction`: queued, committed now, refused, too late, rolled back.

use std::time::Duration;

use syncline_core::{CommitOutcome, NewOperation, OperationStatus, SynclineError};
use syncline_testkit::{Fault, TestDevice, World};

const MINUTE: Duration = Duration::from_secs(60);

fn commit_now(world: &World, device: &TestDevice, update: &str) -> CommitOutcome {
    let mut transaction = device.begin_transaction().unwrap();
    transaction.create("form", "f1", r#"{"pin":"p1"}"#).unwrap().update("pin", "p1", update).unwrap();
    world.run(transaction.commit_now(MINUTE)).unwrap()
}

#[test]
fn commit_now_brings_the_verdict() {
    let mut world = World::new(1);
    let (a, b) = (world.device("a"), world.device("b"));
    a.enqueue(NewOperation::create("pin", "p1", r#"{"title":"Leak"}"#)).unwrap();
    world.sync(&a);
    let CommitOutcome::Applied { receipts } = commit_now(&world, &a, r#"{"title":"Fixed"}"#) else {
        panic!("not applied")
    };
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|receipt| a.status(&receipt.id) == OperationStatus::Completed));
    assert!(!a.lock.is_held(), "the call gave the process lock back");
    world.settle(&[&a, &b]);
    assert_eq!(b.value("form", "f1").unwrap()["pin"], "p1");
}

#[test]
fn a_refused_transaction_applies_nothing_and_names_the_culprit() {
    let mut world = World::new(2);
    let a = world.device("a");
    // The pin is nowhere: the update is rejected, and the create with it.
    let CommitOutcome::Failed { receipts, culprit, reason, message } = commit_now(&world, &a, r#"{"title":"Fixed"}"#)
    else {
        panic!("not refused")
    };
    assert_eq!((culprit, reason.as_str()), (receipts[1].id.clone(), "not_found"));
    assert!(message.is_some());
    assert!(receipts.iter().all(|receipt| a.status(&receipt.id) == OperationStatus::Failed));
    a.discard(&receipts[0].id).unwrap();
    assert_eq!(a.value("form", "f1"), None, "rolled back by folding again");
    world.settle(&[&a]);
}

#[test]
fn at_the_timeout_the_group_stays_queued() {
    let mut world = World::new(3);
    let a = world.device("a");
    a.enqueue(NewOperation::create("pin", "p1", r#"{"title":"Leak"}"#)).unwrap();
    world.sync(&a);
    a.network.next_push(Fault::HoldRequest);
    let mut transaction = a.begin_transaction().unwrap();
    transaction.update("pin", "p1", r#"{"title":"Fixed"}"#).unwrap();
    let started = world.start(transaction.commit_now(Duration::from_secs(10)));
    world.advance_secs(9);
    assert!(started.take().is_none());
    world.advance_secs(2);
    let CommitOutcome::Pending { receipts } = started.take().unwrap().unwrap() else { panic!("not pending") };
    assert_eq!(a.value("pin", "p1").unwrap()["title"], "Fixed", "visible here all the same");

    // The call went away, its request did not: the answer still counts.
    assert_eq!(a.status(&receipts[0].id), OperationStatus::InProgress);
    a.network.release();
    world.run_until_idle();
    assert_eq!(a.status(&receipts[0].id), OperationStatus::Completed);
    assert!(!a.lock.is_held());
    world.settle(&[&a]);
}

#[test]
fn commit_now_waits_out_a_backoff() {
    let mut world = World::new(4);
    let a = world.device("a");
    world.sync(&a);
    a.network.next_push(Fault::DropBefore);
    let mut transaction = a.begin_transaction().unwrap();
    transaction.create("pin", "p1", "{}").unwrap();
    let started = world.start(transaction.commit_now(MINUTE));
    world.advance_secs(59);
    assert!(matches!(started.take(), Some(Ok(CommitOutcome::Applied { .. }))));
}

#[test]
fn commit_now_hears_of_a_verdict_that_another_process_fetched() {
    let mut world = World::new(5);
    let app = world.device("app");
    let extension = world.process(&app, "extension");
    app.start().unwrap();
    world.run_until_idle();
    assert_eq!(world.run(extension.process_queue()).unwrap_err(), SynclineError::Locked);
    let mut transaction = extension.begin_transaction().unwrap();
    transaction.create("pin", "p1", "{}").unwrap();
    let started = world.start(transaction.commit_now(Duration::from_secs(180)));
    world.advance_secs(179);
    assert!(matches!(started.take(), Some(Ok(CommitOutcome::Applied { .. }))));
    world.assert_invariants(&[&app, &extension]);
}

#[test]
fn nothing_is_written_before_a_commit() {
    let mut world = World::new(6);
    let a = world.device("a");
    let mut transaction = a.begin_transaction().unwrap();
    transaction.create("pin", "p1", "{}").unwrap();
    assert_eq!(a.metrics().unwrap().enqueued_total, 0);
    transaction.rollback();
    let mut dropped = a.begin_transaction().unwrap();
    dropped.create("pin", "p2", "{}").unwrap();
    drop(dropped);
    assert_eq!(a.metrics().unwrap().enqueued_total, 0);
    assert!(matches!(a.begin_transaction().unwrap().commit_queued(), Err(SynclineError::InvalidOperation { .. })));
    let mut bad = a.begin_transaction().unwrap();
    assert!(matches!(bad.create("Pin!", "p1", "{}").map(|_| ()), Err(SynclineError::InvalidOperation { .. })));
    bad.create("pin", "p1", "{}").unwrap();
    assert_eq!(bad.commit_queued().unwrap().len(), 1, "what was refused left the rest as it was");
}

/// Counter-example 32.
#[test]
fn what_is_pulled_between_adding_and_committing_counts_as_not_seen() {
    let mut world = World::new(7);
    let (a, b) = (world.device("a"), world.device("b"));
    a.enqueue(NewOperation::create("pin", "p1", r#"{"title":"Leak"}"#)).unwrap();
    world.settle(&[&a, &b]);
    let mut transaction = a.begin_transaction().unwrap();
    transaction.update("pin", "p1", r#"{"title":"mine"}"#).unwrap();
    b.enqueue(NewOperation::update("pin", "p1", r#"{"title":"theirs"}"#)).unwrap();
    world.sync(&b);
    world.sync(&a);
    transaction.commit_queued().unwrap();
    world.settle(&[&a, &b]);
    let ledger = a.conflicts(false, 10).unwrap();
    assert_eq!(ledger.len(), 1, "overwritten, but not unseen");
}
