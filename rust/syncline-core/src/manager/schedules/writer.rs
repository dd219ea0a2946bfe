//! The writers' line: every caller returns once, with its own result; jobs are done in order, in groups, and fail alone.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex as Log;
use std::sync::atomic::AtomicU64;

use shuttle::thread;
use syncline_protocol::teeth::Bug;

use super::super::primitives::{Arc, Mutex, Ordering};
use super::super::writer::Writer;
use super::outside::{Machine, now, pin};
use super::{explore, first_failure};
use crate::error::{Result, SynclineError};
use crate::store::Store;

/// A line before a real store, which outlives the schedule: only the line is new each time.
struct Desk {
    writer: Writer,
    store: Mutex<Option<Store>>,
    /// Whose jobs ran, in order, with the sequence that each took (0 if none).
    ran: Log<Vec<(usize, u64)>>,
    /// How often somebody came to the front, which is one commit each.
    turns: Log<usize>,
}

/// What becomes of a caller's job.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Job {
    Succeeds,
    Fails,
    Panics,
}

/// How a call ended: its job's sequence, an error, or the job's panic.
type Ended = std::thread::Result<Result<u64>>;

impl Desk {
    fn new(store: Store) -> Arc<Self> {
        Arc::new(Self {
            writer: Writer::default(),
            store: Mutex::new(Some(store)),
            ran: Log::default(),
            turns: Log::default(),
        })
    }

    fn write(self: &Arc<Self>, caller: usize, job: Job) -> Ended {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The same key for two things: when the second is refused, the first is written already.
        let operations = ["a", "b"].map(|half| pin(&format!("{number}{half}"), Some(&format!("key-{number}"))));
        let desk = Arc::clone(self);
        let work = move |store: &mut Store| {
            let done = match job {
                Job::Succeeds => store.enqueue(&operations[0], now()).map(|receipt| receipt.sequence),
                Job::Fails => store.enqueue_all(&operations, now()).map(|_| 0),
                // Without the panic hook, which takes every panic for the end of the schedule.
                Job::Panics => {
                    desk.ran.lock().unwrap().push((caller, 0));
                    store.write(|_| resume_unwind(Box::new(caller)))
                }
            };
            desk.ran.lock().unwrap().push((caller, *done.as_ref().unwrap_or(&0)));
            done
        };
        catch_unwind(AssertUnwindSafe(|| {
            self.writer.write(work, |serve| {
                *self.turns.lock().unwrap() += 1;
                serve(self.store.lock().as_mut()?);
                Some(())
            })
        }))
    }

    fn call(self: &Arc<Self>, caller: usize, job: Job) -> thread::JoinHandle<Ended> {
        let desk = Arc::clone(self);
        thread::spawn(move || desk.write(caller, job))
    }

    /// Checks that each job ran once, each caller has its own result, and what failed left nothing behind.
    fn check(&self, first: u64, jobs: &[Job], ended: Vec<Ended>) {
        let ran = self.ran.lock().unwrap().clone();
        let mut callers: Vec<usize> = ran.iter().map(|(caller, _)| *caller).collect();
        callers.sort_unstable();
        assert_eq!(callers, (0..jobs.len()).collect::<Vec<_>>(), "each job runs once");
        let succeeded: Vec<u64> =
            ran.iter().filter(|(of, _)| jobs[*of] == Job::Succeeds).map(|(_, took)| *took).collect();
        let consecutive: Vec<u64> = (first..).take(succeeded.len()).collect();
        assert_eq!(succeeded, consecutive, "what failed left nothing behind");
        for (caller, (job, ended)) in jobs.iter().zip(ended).enumerate() {
            let sequence = ran.iter().find(|(of, _)| *of == caller).expect("it ran").1;
            match (job, ended) {
                (Job::Succeeds, Ok(Ok(returned))) => {
                    assert_eq!(returned, sequence, "caller {caller} has its own result")
                }
                (Job::Fails, Ok(Err(SynclineError::InvalidOperation { .. }))) => {}
                (Job::Panics, Err(panic)) => assert_eq!(panic.downcast_ref(), Some(&caller), "its own panic"),
                (job, ended) => panic!("{job:?} of caller {caller} ended as {:?}", ended.ok()),
            }
        }
        assert_eq!(self.writer.in_line(), 0);
    }
}

/// A scenario with a store that is lent to each schedule in turn.
fn with_store(
    scenario: impl Fn(&Arc<Desk>, u64) + Clone + Send + Sync + 'static,
) -> impl Fn() + Clone + Send + Sync + 'static {
    let machine = Machine::new();
    let kept = Arc::new(Log::new(Some((machine.open("a.db"), 1))));
    move || {
        let _machine = &machine;
        let (store, first) = kept.lock().unwrap().take().expect("given back by the schedule before");
        let desk = Desk::new(store);
        scenario(&desk, first);
        let mut store = desk.store.lock().take().expect("nobody closed it");
        let stands = store.enqueue(&pin(&format!("after-{first}"), None), now()).unwrap().sequence;
        *kept.lock().unwrap() = Some((store, stands + 1));
    }
}

/// Five callers come as they like.
fn crowd() -> impl Fn() + Clone + Send + Sync + 'static {
    const JOBS: [Job; 5] = [Job::Succeeds, Job::Fails, Job::Succeeds, Job::Panics, Job::Succeeds];
    with_store(|desk, first| {
        let calls: Vec<_> = JOBS.iter().enumerate().map(|(caller, job)| desk.call(caller, *job)).collect();
        let ended = calls.into_iter().map(|call| call.join().expect("caught")).collect();
        desk.check(first, &JOBS, ended);
        assert!((1..=JOBS.len()).contains(&*desk.turns.lock().unwrap()));
    })
}

#[test]
fn every_caller_returns_with_its_own_result() {
    explore(3_000, crowd());
}

#[test]
fn who_stands_in_line_is_served_in_order_by_one_commit() {
    const JOBS: [Job; 4] = [Job::Succeeds, Job::Panics, Job::Fails, Job::Succeeds];
    let scenario = with_store(|desk, first| {
        // Nobody can be served as long as the store is held.
        let held = desk.store.lock();
        let calls: Vec<_> = JOBS
            .iter()
            .enumerate()
            .map(|(caller, job)| {
                let call = desk.call(caller, *job);
                while desk.writer.in_line() <= caller {
                    thread::yield_now();
                }
                call
            })
            .collect();
        drop(held);
        let ended = calls.into_iter().map(|call| call.join().expect("caught")).collect();
        desk.check(first, &JOBS, ended);
        let order: Vec<usize> = desk.ran.lock().unwrap().iter().map(|(caller, _)| *caller).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(*desk.turns.lock().unwrap(), 1, "one commit for all");
    });
    explore(2_000, scenario);
}

#[test]
fn when_the_store_goes_everyone_hears_of_it() {
    let machine = Machine::new();
    let store = Arc::new(Log::new(Some(machine.open("a.db"))));
    explore(1_000, move || {
        let _machine = &machine;
        let desk = Desk::new(store.lock().unwrap().take().expect("given back by the schedule before"));
        let calls: Vec<_> = (0..3).map(|caller| desk.call(caller, Job::Succeeds)).collect();
        let taken = desk.store.lock().take();
        let ended: Vec<_> = calls.into_iter().map(|call| call.join().expect("caught").expect("no panic")).collect();
        let written = ended.iter().filter(|ended| ended.is_ok()).count();
        assert_eq!(desk.ran.lock().unwrap().len(), written, "acknowledged or refused, nothing between");
        assert!(ended.iter().all(|ended| matches!(ended, Ok(_) | Err(SynclineError::Closed))));
        *store.lock().unwrap() = taken;
    });
}

#[test]
fn a_planted_lost_wake_up_is_found() {
    let message = first_failure(Bug::LostWakeUp, 1_000, crowd()).expect("not found");
    assert!(message.contains("deadlock"), "{message}");
}
