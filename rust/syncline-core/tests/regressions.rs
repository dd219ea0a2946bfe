//! What random worlds found, each as the smallest life that showed it.

use syncline_core::{NewOperation, OperationStatus, Waiting};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, World};

/// `Retry-After` was cut to its own length from now at every look, so it lasted until the wall clock had caught up.
#[test]
fn a_clock_that_is_set_back_does_not_prolong_retry_after() {
    let mut world = World::new(18);
    let device = world.device("a");
    device.start().unwrap();
    device.network.next(Fault::problem(ProblemCode::RateLimited).retry_after("20"));
    let pin = device.enqueue(NewOperation::create("pin", "p1", "{}")).unwrap();
    world.advance_secs(5);
    assert_eq!(device.network.sent(), 1);
    device.clock.shift(-3_600_000);
    world.advance_secs(60);
    assert_eq!(device.status(&pin.id), OperationStatus::Completed);
    world.settle(&[&device]);
}

/// An operation is parked on the root of what it waits for. When a cancel took away the way to that root, only the cancelled
/// one's own lane was looked at again; what waited further behind waited until the root ended, which a failed one need not.
#[test]
fn what_waited_through_a_cancelled_operation_goes_on() {
    let mut world = World::new(315);
    let device = world.device("a");
    let root = device.enqueue(NewOperation::update("pin", "missing", r#"{"n":1}"#)).unwrap();
    world.sync(&device);
    assert_eq!(device.status(&root.id), OperationStatus::Failed);
    let between = device.enqueue(NewOperation::create("pin", "p1", "{}").after(&root)).unwrap();
    let mut group = device.begin_transaction().unwrap();
    group.create("pin", "p1", r#"{"n":1}"#).unwrap().create("pin", "p2", "{}").unwrap();
    let group = group.commit_queued().unwrap();
    let behind = device.enqueue(NewOperation::update("pin", "p2", r#"{"n":2}"#)).unwrap();
    world.sync(&device);
    device.cancel(&between.id).unwrap();
    world.sync(&device);
    assert_eq!(device.status(&group[0].id), OperationStatus::Completed);
    assert_eq!(device.status(&behind.id), OperationStatus::Completed, "{}", device.explain(&behind.id).unwrap().text);
    device.discard(&root.id).unwrap();
    world.settle(&[&device]);
}

/// A withdrawn group left the root that it was parked on, but what waited through it did not: when the root was tried again
/// together with the withdrawal, and failed again, that went on waiting for it.
#[test]
fn what_waited_through_a_withdrawn_group_goes_on() {
    let mut world = World::new(315);
    let device = world.device("a");
    let root = device.enqueue(NewOperation::update("pin", "missing", r#"{"n":1}"#)).unwrap();
    let mut group = device.begin_transaction().unwrap();
    group.create("pin", "p1", "{}").unwrap().update("pin", "missing", r#"{"n":2}"#).unwrap();
    let group = group.commit_queued().unwrap();
    let behind = device.enqueue(NewOperation::create("pin", "p1", r#"{"n":3}"#)).unwrap();
    let last = device.enqueue(NewOperation::create("pin", "p2", "{}").after(&behind)).unwrap();
    world.sync(&device);
    assert_eq!(device.status(&root.id), OperationStatus::Failed);

    device.cancel(&group[0].id).unwrap();
    device.retry(&root.id).unwrap();
    world.sync(&device);
    assert_eq!(device.status(&root.id), OperationStatus::Failed);
    assert_eq!(device.status(&group[1].id), OperationStatus::Cancelled);
    assert_eq!(device.status(&behind.id), OperationStatus::Completed);
    assert_eq!(device.status(&last.id), OperationStatus::Completed, "{}", device.explain(&last.id).unwrap().text);
    device.discard(&root.id).unwrap();
    world.settle(&[&device]);
}

/// An operation is cancelled while it is under way. When the answer then left its result out, for it had been applied, the whole
/// answer was dropped, for a withdrawal's result is never left out; but what had been sent was none.
#[test]
fn a_cancel_under_way_does_not_cost_the_answer() {
    let mut world = World::new(401);
    let device = world.device("a");
    world.sync(&device);
    device.network.next_push(Fault::HoldAnswer);
    let pin = device.enqueue(NewOperation::create("pin", "p1", r#"{"n":1}"#)).unwrap();
    let other = device.enqueue(NewOperation::create("pin", "p2", r#"{"n":2}"#)).unwrap();
    let manager = device.manager();
    let _syncing = world.start(async move { manager.process_queue().await });
    world.run_until_idle();
    device.cancel(&pin.id).unwrap();
    let sent = device.network.sent();
    device.network.release();
    world.run_until_idle();
    assert_eq!(device.status(&pin.id), OperationStatus::Completed);
    assert_eq!(device.status(&other.id), OperationStatus::Completed);
    assert_eq!(device.network.sent(), sent, "nothing is sent again");
    assert_eq!(device.value("pin", "p1").unwrap()["n"], 1);
    world.settle(&[&device]);
}

/// Two copies of a file wrote the same within one millisecond, as members of transactions: one key, one effect. The rest of the
/// second transaction could then neither be retried nor discarded, because not all of it had failed.
#[test]
fn the_rest_of_a_transaction_can_be_given_up_when_a_copy_delivered_a_part() {
    let mut world = World::new(1);
    let a = world.device("a");
    world.sync(&a);
    let b = world.copy(&a, "b");
    let mut theirs = a.begin_transaction().unwrap();
    theirs.create("pin", "p0", r#"{"n":1}"#).unwrap().create("pin", "p1", r#"{"n":1}"#).unwrap();
    theirs.commit_queued().unwrap();
    let mut ours = b.begin_transaction().unwrap();
    ours.update("pin", "nowhere", r#"{"n":1}"#).unwrap().create("pin", "p1", r#"{"n":1}"#).unwrap();
    let [alone, shared] = &ours.commit_queued().unwrap()[..] else { panic!("two receipts") };
    world.sync(&a);
    world.sync(&b);
    assert_eq!(b.status(&shared.id), OperationStatus::Completed, "delivered by the copy");
    assert_eq!(b.status(&alone.id), OperationStatus::Failed);
    b.retry(&alone.id).expect("what failed can be tried again");
    world.sync(&b);
    b.discard(&alone.id).expect("and given up");
    assert_eq!(b.status(&alone.id), OperationStatus::Cancelled);
}

/// A withdrawn operation waited behind one that had failed. Once that was to be tried again it was named no more, and the
/// withdrawal, which holds up what follows until the endpoint confirms it, was not named either.
#[test]
fn a_withdrawal_is_named_by_what_waits_behind_it() {
    let mut world = World::new(43);
    let device = world.device("a");
    let first = device.enqueue(NewOperation::update("pin", "p1", r#"{"n":1}"#)).unwrap();
    let withdrawn = device.enqueue(NewOperation::create("pin", "p1", r#"{"n":2}"#)).unwrap();
    world.sync(&device);
    assert_eq!(device.status(&first.id), OperationStatus::Failed);
    device.cancel(&withdrawn.id).unwrap();
    let behind = device.enqueue(NewOperation::update("pin", "p1", r#"{"n":3}"#)).unwrap();
    world.sync(&device);
    device.retry(&first.id).unwrap();
    let told = device.explain(&behind.id).unwrap();
    assert_eq!((told.waiting, told.blocked_by), (Waiting::LaneBlocked, Some(withdrawn.id)));
}

/// Found by fuzzing. The mark was taken, and every request that carried it was refused from then on: counters stay below 2⁵³.
#[test]
fn a_mark_that_no_endpoint_can_have_is_not_taken() {
    for mark in [1 << 53, i64::MAX as u64, u64::MAX] {
        let applied = r#""applied":1,"results":[],"version":2,"server_time":"2026-05-01T12:00:00.000Z""#;
        for (status, body) in [
            (409, format!(r#"{{"code":"server_behind","epoch":"other","mark":{mark}}}"#)),
            (200, format!(r#"{{{applied},"epoch":"other","mark":{mark}}}"#)),
        ] {
            let mut world = World::new(1);
            let device = world.device("a");
            world.sync(&device);
            device.network.next_push(Fault::ours(status, &body));
            let pin = device.enqueue(NewOperation::create("pin", "p1", "{}")).unwrap();
            world.sync(&device);
            world.advance_secs(3600);
            world.sync(&device);
            assert_eq!(device.status(&pin.id), OperationStatus::Completed, "{body}");
            world.settle(&[&device]);
        }
    }
}
