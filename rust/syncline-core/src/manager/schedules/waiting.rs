//! Waiting for a verdict: no wake-up is lost, whoever brings the verdict. No sleep ends here, so nothing else helps out.

use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::explore;
use super::outside::{Machine, new_pin};
use crate::operation::OperationStatus;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn who_waits_hears_what_another_thread_decides() {
    let template = Machine::new();
    drop(template.open("a.db"));
    explore(1_000, move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let sync = machine.manager("a.db");
        let id = sync.enqueue(new_pin("p1")).unwrap().id;
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let (sync, id) = (sync.clone(), id.clone());
                thread::spawn(move || block_on(sync.wait_for(&id, HOUR)).unwrap().status)
            })
            .collect();
        sync.cancel(&id).unwrap();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), OperationStatus::Cancelled);
        }
        sync.close();
    });
}

#[test]
fn what_is_written_while_delivery_runs_is_delivered() {
    let template = Machine::new();
    drop(template.open("a.db"));
    explore(1_000, move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let sync = machine.manager("a.db");
        sync.start().unwrap();
        let writing: Vec<_> = (0..2)
            .map(|writer| {
                let sync = sync.clone();
                thread::spawn(move || {
                    // The second time delivery may have come to rest: somebody must wake it.
                    for n in 0..2 {
                        let id = sync.enqueue(new_pin(&format!("{writer}-{n}"))).unwrap().id;
                        let delivered = block_on(sync.wait_for(&id, HOUR)).unwrap();
                        assert_eq!(delivered.status, OperationStatus::Completed);
                    }
                })
            })
            .collect();
        writing.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(machine.endpoint.applied(), 4);
        sync.close();
        assert!(!machine.lock.is_held());
    });
}

#[test]
fn stopping_and_starting_loses_nothing() {
    let template = Machine::new();
    drop(template.open("a.db"));
    explore(500, move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let sync = machine.manager("a.db");
        sync.start().unwrap();
        let restarting = {
            let sync = sync.clone();
            thread::spawn(move || {
                sync.stop().unwrap();
                sync.start().unwrap();
            })
        };
        let id = sync.enqueue(new_pin("p1")).unwrap().id;
        assert_eq!(block_on(sync.wait_for(&id, HOUR)).unwrap().status, OperationStatus::Completed);
        restarting.join().unwrap();
        assert_eq!(machine.endpoint.applied(), 1);
        sync.close();
        assert!(!machine.lock.is_held());
    });
}
