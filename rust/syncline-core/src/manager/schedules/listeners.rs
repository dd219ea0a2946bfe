//! The outbox: every event is told once, in order, by one job at a time; not to who was removed, and to nobody after close.

use std::sync::Mutex as Log;

use shuttle::sync::mpsc;
use shuttle::thread;

use super::super::listeners::{Listener, ListenerId, Listeners, News};
use super::super::primitives::{Arc, Mutex};
use super::explore;
use super::outside::{Machine, Threads, new_pin};
use crate::environment::Runtime;
use crate::error::SynclineError;

/// Those who post, as the manager does it: under one lock, and then they see to it that somebody tells.
struct Office {
    listeners: Listeners,
    /// The number of the next word; the lock is the store's.
    next: Mutex<u64>,
    threads: Threads,
}

impl Office {
    fn new() -> Arc<Self> {
        Arc::new(Self { listeners: Listeners::default(), next: Mutex::new(0), threads: Threads::new() })
    }

    fn listen(&self) -> (ListenerId, Arc<Log<Vec<u64>>>) {
        let heard = Arc::new(Log::new(Vec::new()));
        let inside = Arc::clone(&heard);
        let hear = move |word: String| {
            thread::yield_now();
            inside.lock().unwrap().push(word.parse().unwrap());
        };
        (self.listeners.add(Listener::Auth(Arc::new(hear))).expect("open"), heard)
    }

    fn post(self: &Arc<Self>, count: u64) -> thread::JoinHandle<()> {
        let office = Arc::clone(self);
        thread::spawn(move || {
            for _ in 0..count {
                let mut next = office.next.lock();
                office.listeners.post(News::AuthRequired(next.to_string()));
                *next += 1;
                drop(next);
                if office.listeners.must_dispatch() {
                    let inside = Arc::clone(&office);
                    office.threads.dispatch(Box::new(move || inside.listeners.tell(|| None)));
                }
            }
        })
    }
}

/// Waits for the callbacks that were given until now.
fn flush(runtime: &dyn Runtime) {
    let (done, all_done) = mpsc::channel();
    runtime.dispatch(Box::new(move || done.send(()).unwrap()));
    all_done.recv().unwrap();
}

#[test]
fn every_event_is_told_once_and_in_order() {
    explore(3_000, || {
        let office = Office::new();
        let (_, heard) = office.listen();
        let posting: Vec<_> = (0..3).map(|_| office.post(2)).collect();
        posting.into_iter().for_each(|thread| thread.join().unwrap());
        flush(&office.threads);
        assert_eq!(*heard.lock().unwrap(), (0..6).collect::<Vec<_>>());
        assert!(!office.listeners.must_dispatch(), "nothing is left, and nobody thinks that a job is on its way");
    });
}

#[test]
fn who_is_removed_during_a_call_hears_that_call_at_most() {
    explore(2_000, || {
        let office = Office::new();
        let (_, heard) = office.listen();
        let (leaver, heard_before) = office.listen();
        let posting: Vec<_> = (0..2).map(|_| office.post(2)).collect();
        office.listeners.remove(leaver);
        let at_most = heard_before.lock().unwrap().len() + 1;
        posting.into_iter().for_each(|thread| thread.join().unwrap());
        flush(&office.threads);
        let heard_before = heard_before.lock().unwrap();
        assert!(heard_before.len() <= at_most, "one call may be under way");
        assert_eq!(*heard_before, (0..heard_before.len() as u64).collect::<Vec<_>>());
        assert_eq!(*heard.lock().unwrap(), (0..4).collect::<Vec<_>>(), "the others miss nothing by it");
    });
}

#[test]
fn closing_tells_what_was_written_and_nothing_after() {
    let template = Machine::new();
    drop(template.open("a.db"));
    explore(1_000, move || {
        let machine = Machine::with_copy_of(&template, "a.db");
        let sync = machine.manager("a.db");
        let heard = Arc::new(Log::new(Vec::new()));
        let inside = Arc::clone(&heard);
        sync.add_operation_listener(move |event| inside.lock().unwrap().push(event.id)).unwrap();
        let runtime = Arc::clone(&sync.handle.shared.environment.runtime);
        let writing: Vec<_> = (0..2)
            .map(|writer| {
                let sync = sync.clone();
                thread::spawn(move || {
                    (0..2)
                        .map_while(|n| match sync.enqueue(new_pin(&format!("{writer}-{n}"))) {
                            Ok(receipt) => Some((receipt.sequence, receipt.id)),
                            Err(SynclineError::Closed) => None,
                            Err(error) => panic!("{error}"),
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        sync.close();
        let mut written: Vec<_> = writing.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        written.sort_unstable();
        flush(&*runtime);
        assert_eq!(*heard.lock().unwrap(), written.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        assert!(sync.add_operation_listener(|_| {}).is_err());
    });
}
