//! Group commit by flat combining. Callers line up; the one in front does the work of all who stand behind it, in one
//! SQLite transaction with one commit, and gives each its own result. A caller who is alone writes on its own thread,
//! without a hop; callers who come together share one trip to the disk.
//!
//! Each job is a savepoint within the group: one that fails or panics rolls back alone. If the commit itself fails, nothing
//! of the group is written and every caller hears of it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
        if let Some(front) = line.front() {
            front.wake();
        }
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
        match self.outcome.lock().take().expect("set before it is told") {
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
