//! Who may drain: two managers on one file, as two processes would be, with one lock between them.

use shuttle::future::block_on;
use shuttle::thread;
use syncline_protocol::teeth::Bug;

use super::super::SyncManager;
use super::super::primitives::{Arc, AtomicBool, Ordering};
use super::outside::{Machine, new_pin, now, pin};
use super::{explore, first_failure};
use crate::error::SynclineError;
use crate::operation::OperationStatus;

/// A machine with a file in which two operations wait.
fn template() -> Machine {
    let machine = Machine::new();
    let mut store = machine.open("a.db");
    for id in ["p1", "p2"] {
        store.enqueue(&pin(id, None), now()).unwrap();
    }
    machine
}

/// Drains to the end, as soon as nobody else does.
fn drain(sync: &SyncManager) {
    loop {
        match block_on(sync.process_queue()) {
            Ok(_) | Err(SynclineError::Closed) => return,
            Err(SynclineError::Locked) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn draining(sync: &SyncManager) -> thread::JoinHandle<()> {
    let sync = sync.clone();
    thread::spawn(move || drain(&sync))
}

/// Everything took effect, and the file knows it.
fn check(machine: &Machine, sync: &SyncManager, operations: u64) {
    assert_eq!(machine.endpoint.applied() as u64, operations);
    let metrics = sync.metrics().unwrap();
    assert_eq!((metrics.completed_total, metrics.enqueued_total), (operations, operations), "{metrics:?}");
}

/// Both drain, and one of them writes.
fn two_drain() -> impl Fn() + Clone + Send + Sync + 'static {
    let template = Arc::new(template());
    move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let (a, b) = (machine.manager("a.db"), machine.manager("a.db"));
        let threads = [draining(&a), draining(&b)];
        a.enqueue(new_pin("p3")).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drain(&b);
        assert_eq!(machine.endpoint.claimed_twice(), Vec::<String>::new(), "one claim at a time");
        check(&machine, &b, 3);
        a.close();
        b.close();
        assert!(!machine.lock.is_held());
    }
}

/// A call goes away while its push is under way, and another process comes. What was sent may still be answered, so nobody
/// else may drain until then.
fn one_lingers() -> impl Fn() + Clone + Send + Sync + 'static {
    let template = Arc::new(template());
    move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let (a, b) = (machine.manager("a.db"), machine.manager("a.db"));
        machine.endpoint.hold(true);
        let call = {
            let a = a.clone();
            shuttle::future::spawn(async move { drop(a.process_queue().await) })
        };
        while !machine.endpoint.is_pushing() {
            thread::yield_now();
        }
        call.abort();
        let tried = Arc::new(AtomicBool::new(false));
        let other = {
            let (b, tried) = (b.clone(), Arc::clone(&tried));
            thread::spawn(move || {
                let first = block_on(b.process_queue());
                tried.store(true, Ordering::SeqCst);
                assert_eq!(first.err(), Some(SynclineError::Locked));
                drain(&b);
            })
        };
        while !tried.load(Ordering::SeqCst) && machine.endpoint.claimed_twice().is_empty() {
            thread::yield_now();
        }
        assert_eq!(machine.endpoint.claimed_twice(), Vec::<String>::new(), "one claim at a time");
        machine.endpoint.hold(false);
        other.join().unwrap();
        check(&machine, &b, 2);
        a.close();
        b.close();
        assert!(!machine.lock.is_held());
    }
}

#[test]
fn an_operation_is_claimed_by_one_at_a_time() {
    explore(1_000, two_drain());
}

#[test]
fn who_lingers_keeps_the_lock_until_the_answer() {
    explore(500, one_lingers());
}

#[test]
fn who_is_stopped_or_closed_hands_over() {
    let template = Arc::new(template());
    explore(1_000, move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let (a, b) = (machine.manager("a.db"), machine.manager("a.db"));
        a.start().unwrap();
        let threads = [draining(&a), draining(&b)];
        a.stop().unwrap();
        a.close();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drain(&b);
        check(&machine, &b, 2);
        for operation in b.operations(&Default::default()).unwrap() {
            assert_eq!(operation.status, OperationStatus::Completed);
        }
        b.close();
        assert!(!machine.lock.is_held());
    });
}

#[test]
fn a_planted_double_claim_is_found() {
    let message = first_failure(Bug::DoubleClaim, 1_000, one_lingers()).expect("not found");
    assert!(message.contains("one claim at a time"), "{message}");
}
