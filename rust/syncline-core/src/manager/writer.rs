//! Group commit by flat combining. Callers line up; the one in front does the work of all who stand behind it, in one
//! SQLite transaction with one commit, and gives each its own result. A caller who is alone writes on its own thread,
//! without a hop; callers who come together share one trip to the disk.
//!
//! Each job is a savepoint within the group: one that fails or panics rolls back alone. If the commit itself fails, nothing
//! of the group is written and every caller hears of it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use syncline_protocol::planted;

use super::primitives::{Arc, AtomicBool, Condvar, Mutex, Ordering};
use crate::error::{Result, SynclineError};
use crate::store::Store;

/// Jobs that one commit takes at most, so that the first of them does not wait for ever.
const MOST_PER_COMMIT: usize = 256;

/// The callers in line. It does not own the store: the front caller brings it.
#[derive(Default)]
pub(super) struct Writer {
    line: Mutex<VecDeque<Arc<dyn Waiting>>>,
}

impl Writer {
    /// Runs `job` in a transaction, perhaps together with others, and returns when it is durable.
    ///
    /// `with_store` is called by the front caller only: it locks the store, gives it to the work, and does what must follow
    /// a commit. Without a store (closed) it returns none.
    pub(super) fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
        with_store: impl FnOnce(&mut dyn FnMut(&mut Store)) -> Option<()>,
    ) -> Result<T> {
        let mine = Arc::new(Place::new(job));
        let mut line = self.line.lock();
        line.push_back(Arc::clone(&mine) as Arc<dyn Waiting>);
        while !mine.is_done() && !is_front(&line, &mine) {
            mine.turn.wait(&mut line);
        }
        if mine.is_done() {
            drop(line);
            return mine.outcome();
        }
        drop(line);
        let mut served = Vec::new();
        let opened = with_store(&mut |store| self.serve(store, &mut served));
        if opened.is_none() {
            mine.fail(SynclineError::Closed);
            served.push(Arc::clone(&mine) as Arc<dyn Waiting>);
        }
        self.leave(served.len());
        mine.outcome()
    }

    /// Serves the front of the line. A lone job needs no savepoint; a group also takes whoever joins before it commits.
    fn serve(&self, store: &mut Store, served: &mut Vec<Arc<dyn Waiting>>) {
        self.take(served);
        if let [alone] = &served[..] {
            alone.run(store);
            return;
        }
        let committed = store.group(|store| {
            let mut next = 0;
            while next < served.len() {
                served[next].run(store);
                next += 1;
                if next == served.len() {
                    self.take(served);
                }
            }
        });
        if let Err(error) = committed {
            for place in served.iter() {
                place.fail(error.clone());
            }
        }
    }

    /// Adds those in line who are not among `served` yet. They stay in line until they are told.
    fn take(&self, served: &mut Vec<Arc<dyn Waiting>>) {
        let line = self.line.lock();
        let known = served.len();
        served.extend(line.iter().take(MOST_PER_COMMIT).skip(known).map(Arc::clone));
    }

    /// The first `served` in line are done; the next one is in front now.
    fn leave(&self, served: usize) {
        let mut line = self.line.lock();
        for place in line.drain(..served) {
            place.tell();
        }
        if let Some(front) = line.front()
            && !planted!(LostWakeUp)
        {
            front.wake();
        }
    }

    /// How many stand in line, the one in front included.
    #[cfg(test)]
    pub(super) fn in_line(&self) -> usize {
        self.line.lock().len()
    }
}

fn is_front<T, F>(line: &VecDeque<Arc<dyn Waiting>>, mine: &Arc<Place<T, F>>) -> bool {
    line.front().is_some_and(|front| std::ptr::addr_eq(Arc::as_ptr(front), Arc::as_ptr(mine)))
}

/// A caller in line, whatever its job gives.
trait Waiting: Send + Sync {
    fn run(&self, store: &mut Store);
    fn fail(&self, error: SynclineError);
    fn tell(&self);
    fn wake(&self);
}

type Outcome<T> = std::result::Result<Result<T>, Box<dyn Any + Send>>;

struct Place<T, F> {
    job: Mutex<Option<F>>,
    outcome: Mutex<Option<Outcome<T>>>,
    done: AtomicBool,
    turn: Condvar,
}

impl<T, F> Place<T, F> {
    fn new(job: F) -> Self {
        Self {
            job: Mutex::new(Some(job)),
            outcome: Mutex::new(None),
            done: AtomicBool::new(false),
            turn: Condvar::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// What became of the job; its panic goes on in the caller's thread.
    fn outcome(&self) -> Result<T> {
        let outcome = self.outcome.lock().take().expect("set before it is told");
        match outcome {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl<T, F> Waiting for Place<T, F>
where
    T: Send,
    F: FnOnce(&mut Store) -> Result<T> + Send,
{
    fn run(&self, store: &mut Store) {
        let job = self.job.lock().take().expect("run once");
        *self.outcome.lock() = Some(catch_unwind(AssertUnwindSafe(|| job(store))));
    }

    fn fail(&self, error: SynclineError) {
        *self.outcome.lock() = Some(Ok(Err(error)));
    }

    fn tell(&self) {
        self.done.store(true, Ordering::Release);
        self.turn.notify_one();
    }

    fn wake(&self) {
        self.turn.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::thread;

    use syncline_protocol::Timestamp;

    use super::*;
    use crate::config::{Durability, EntityType, Retention};
    use crate::operation::NewOperation;
    use crate::store::{Prepared, StoreOptions};

    /// A line before a store of its own. `turns` counts who came to the front, which is one commit each.
    struct Desk {
        writer: Writer,
        store: Mutex<Option<Store>>,
        turns: AtomicUsize,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let options = StoreOptions {
                path: folder.path().join("a.db"),
                vfs: None,
                user_id: "user-1".into(),
                scope: "team-1".into(),
                entity_types: Default::default(),
                pull_types: None,
                durability: Durability::Normal,
                retention: Retention::default(),
            };
            let store = Store::open(options, "device-1", now()).unwrap();
            Self {
                writer: Writer::default(),
                store: Mutex::new(Some(store)),
                turns: AtomicUsize::new(0),
                _folder: folder,
            }
        }

        fn write<T: Send + 'static>(&self, job: impl FnOnce(&mut Store) -> Result<T> + Send + 'static) -> Result<T> {
            self.writer.write(job, |work| {
                self.turns.fetch_add(1, Ordering::Relaxed);
                work(self.store.lock().as_mut()?);
                Some(())
            })
        }

        fn enqueue(&self, id: &str) -> Result<u64> {
            let operation = pin(id);
            self.write(move |store| Ok(store.enqueue(&operation, now())?.sequence))
        }

        /// Occupies the front until told, with `others` in line behind it.
        fn while_busy<'scope>(
            &'scope self,
            scope: &'scope thread::Scope<'scope, '_>,
            others: Vec<Box<dyn FnOnce() + Send + 'scope>>,
        ) {
            let (begun, is_busy) = mpsc::channel();
            let (finish, told) = mpsc::channel::<()>();
            let (operation, count) = (pin("first"), others.len());
            scope.spawn(move || {
                self.write(move |store| {
                    begun.send(()).unwrap();
                    told.recv().unwrap();
                    store.enqueue(&operation, now())
                })
                .unwrap();
            });
            is_busy.recv().unwrap();
            for other in others {
                scope.spawn(other);
            }
            while self.writer.in_line() < count + 1 {
                thread::yield_now();
            }
            finish.send(()).unwrap();
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000)
    }

    fn pin(id: &str) -> Prepared {
        Prepared::new(NewOperation::create("pin", id, "{}"), format!("op-{id}"), &EntityType::default()).unwrap()
    }

    #[test]
    fn those_who_wait_together_share_one_commit() {
        let desk = Desk::new();
        let receipts = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let (desk, receipts) = (&desk, &receipts);
            let others = (0..7).map(|n| -> Box<dyn FnOnce() + Send> {
                Box::new(move || {
                    let sequence = desk.enqueue(&format!("{n}")).unwrap();
                    receipts.lock().push(sequence);
                })
            });
            desk.while_busy(scope, others.collect());
        });
        let mut receipts = receipts.into_inner();
        receipts.sort_unstable();
        assert_eq!(receipts, (2..=8).collect::<Vec<_>>());
        assert_eq!(desk.turns.load(Ordering::Relaxed), 2, "one commit for the first, one for the other seven");
    }

    #[test]
    fn a_job_that_fails_or_panics_rolls_back_alone() {
        let desk = Desk::new();
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let (desk, outcomes) = (&desk, &outcomes);
            let fails = move || {
                let operation = pin("fails");
                let failed = desk.write(move |store| {
                    store.write(|store| {
                        store.enqueue(&operation, now())?;
                        Err::<(), _>(SynclineError::Timeout)
                    })
                });
                outcomes.lock().push(failed == Err(SynclineError::Timeout));
            };
            let panics = move || {
                let operation = pin("panics");
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    desk.write::<()>(move |store| {
                        store.write(|store| {
                            store.enqueue(&operation, now())?;
                            panic!("on purpose: a job that panics")
                        })
                    })
                }));
                outcomes.lock().push(panicked.is_err());
            };
            let writes = move || {
                let written = desk.enqueue("writes").is_ok();
                outcomes.lock().push(written);
            };
            desk.while_busy(scope, vec![Box::new(fails), Box::new(panics), Box::new(writes)]);
        });
        assert_eq!(outcomes.into_inner(), [true; 3]);
        assert_eq!(desk.enqueue("last").unwrap(), 3, "the first, the one that writes, and this: nothing of the others");
        assert_eq!(desk.turns.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn without_a_store_everyone_hears_that_it_is_closed() {
        let desk = Desk::new();
        let closed = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (desk, closed) = (&desk, &closed);
            let close = || -> Box<dyn FnOnce() + Send> {
                Box::new(move || {
                    desk.store.lock().take();
                    if desk.enqueue("late") == Err(SynclineError::Closed) {
                        closed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            for _ in 0..4 {
                scope.spawn(close());
            }
        });
        assert_eq!(closed.load(Ordering::Relaxed), 4);
        assert_eq!(desk.writer.in_line(), 0);
    }
}
