//! A runtime whose every step the test takes itself: tasks, callbacks and timers, on the caller's thread, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use syncline_core::environment::{Clock, Random, Runtime, Task};
use syncline_protocol::Timestamp;

type Job = Box<dyn FnOnce() + Send>;

/// The steps of a whole world: one queue for everything that can happen next.
#[derive(Clone, Default)]
pub struct Steps {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Since the world began. Wall clocks are offsets from it.
    now_ms: u64,
    next_id: u64,
    tasks: BTreeMap<u64, (u64, Task)>,
    ready: VecDeque<Ready>,
    timers: BTreeMap<(u64, u64), Waker>,
    order: Option<StdRng>,
    /// How many steps each owner has taken.
    taken: BTreeMap<u64, u64>,
}

enum Ready {
    Task(u64),
    /// A callback of an owner.
    Job(u64, Job),
}

impl Ready {
    fn key(&self) -> (bool, u64) {
        match self {
            Self::Job(owner, _) => (false, *owner),
            Self::Task(id) => (true, *id),
        }
    }
}

impl Steps {
    /// Takes ready steps in an order drawn from `seed`, instead of first come, first served. An owner's callbacks stay in order.
    pub fn shuffle(&self, seed: u64) {
        self.inner.lock().order = Some(StdRng::seed_from_u64(seed));
    }

    /// A runtime whose tasks can be killed together.
    pub fn owner(&self) -> StepRuntime {
        StepRuntime { owner: self.inner.lock().id(), steps: self.clone() }
    }

    /// Takes one step, if one is ready.
    pub fn step(&self) -> bool {
        let Some(next) = self.inner.lock().next() else { return false };
        match next {
            Ready::Job(owner, job) => {
                self.inner.lock().take(owner);
                job();
            }
            Ready::Task(id) => {
                // Polled outside the lock: a task spawns, sleeps and wakes. One that ended meanwhile is gone.
                let mut inner = self.inner.lock();
                let Some((owner, mut task)) = inner.tasks.remove(&id) else { return true };
                inner.take(owner);
                drop(inner);
                let waker = Waker::from(Arc::new(Awaken { id, steps: self.clone() }));
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    self.inner.lock().tasks.insert(id, (owner, task));
                }
            }
        }
        true
    }

    /// Takes steps until none is ready: everything waits for time, or for the test.
    ///
    /// # Panics
    /// After a million steps, which no test needs: something turns in circles.
    pub fn run_until_idle(&self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("a million steps and still not idle");
    }

    /// Takes steps until `future` is done.
    ///
    /// # Panics
    /// If everything waits and `future` is not done: it needs time ([`Steps::advance`]) or an answer that is held.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
            assert!(self.step(), "stuck: everything waits for time, or for an answer that is held");
        }
    }

    /// Starts `future`, to be looked at later.
    pub fn start<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Started<T> {
        let value = Arc::new(Mutex::new(None));
        let inside = Arc::clone(&value);
        let task: Task = Box::pin(async move {
            let done = future.await;
            *inside.lock() = Some(done);
        });
        let id = self.spawn(0, task);
        Started { value, id, steps: self.clone() }
    }

    /// Lets time pass, stopping at every timer on the way and taking all steps that it makes ready.
    pub fn advance(&self, wait: Duration) {
        self.run_until_idle();
        let end = self.now_ms() + millis(wait);
        loop {
            let due = {
                let mut inner = self.inner.lock();
                match inner.timers.first_key_value().map(|(key, _)| *key) {
                    Some(key) if key.0 <= end => {
                        inner.now_ms = inner.now_ms.max(key.0);
                        inner.timers.remove(&key)
                    }
                    _ => None,
                }
            };
            match due {
                Some(waker) => waker.wake(),
                None => break,
            }
            self.run_until_idle();
        }
        self.inner.lock().now_ms = end;
    }

    /// Whether a callback is on its way.
    pub(crate) fn has_callbacks(&self) -> bool {
        self.inner.lock().ready.iter().any(|ready| matches!(ready, Ready::Job(..)))
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        self.inner.lock().now_ms
    }

    fn spawn(&self, owner: u64, task: Task) -> u64 {
        let mut inner = self.inner.lock();
        let id = inner.id();
        inner.tasks.insert(id, (owner, task));
        inner.ready.push_back(Ready::Task(id));
        id
    }

    fn forget(&self, gone: impl Fn(u64, u64) -> bool) {
        let mut inner = self.inner.lock();
        let ids: Vec<u64> = inner.tasks.iter().filter(|(id, task)| gone(task.0, **id)).map(|(id, _)| *id).collect();
        let tasks: Vec<_> = ids.into_iter().filter_map(|id| inner.tasks.remove(&id)).collect();
        let (dropped, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut inner.ready)
            .into_iter()
            .partition(|ready| matches!(ready, Ready::Job(owner, _) if gone(*owner, 0)));
        inner.ready = kept;
        drop(inner);
        // Futures run destructors, which may look at the steps again.
        drop((tasks, dropped));
    }
}

impl Inner {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn take(&mut self, owner: u64) {
        *self.taken.entry(owner).or_default() += 1;
    }

    fn next(&mut self) -> Option<Ready> {
        if self.ready.is_empty() {
            return None;
        }
        let at = match &mut self.order {
            Some(random) => {
                // Those that one change wakes are woken in an order that tokio draws from randomness of its own.
                self.ready.make_contiguous().sort_by_key(Ready::key);
                random.random_range(0..self.ready.len())
            }
            None => 0,
        };
        // Callbacks of one owner are one queue: the first of them comes first.
        let at = match &self.ready[at] {
            Ready::Job(owner, _) => {
                self.ready.iter().position(|ready| matches!(ready, Ready::Job(other, _) if other == owner))
            }
            Ready::Task(_) => Some(at),
        };
        self.ready.remove(at?)
    }
}

struct Awaken {
    id: u64,
    steps: Steps,
}

impl Wake for Awaken {
    fn wake(self: Arc<Self>) {
        self.steps.inner.lock().ready.push_back(Ready::Task(self.id));
    }
}

/// A future that runs while the test does other things. Dropping this drops the future.
pub struct Started<T> {
    value: Arc<Mutex<Option<T>>>,
    id: u64,
    steps: Steps,
}

impl<T> Started<T> {
    /// Its value, if it is done and was not taken yet.
    pub fn take(&self) -> Option<T> {
        self.value.lock().take()
    }
}

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        self.steps.forget(|owner, id| owner == 0 && id == self.id);
    }
}

/// The [`Runtime`] of one process.
#[derive(Clone)]
pub struct StepRuntime {
    owner: u64,
    steps: Steps,
}

impl StepRuntime {
    /// As if the process died: its tasks and callbacks stop where they are.
    pub fn kill(&self) {
        self.steps.forget(|owner, _| owner == self.owner);
    }

    /// Changes whenever its process, or a call from outside that was started in this world, has gone a step further.
    pub(crate) fn pulse(&self) -> (u64, u64, u64) {
        let inner = self.steps.inner.lock();
        let taken = |owner: u64| inner.taken.get(&owner).copied().unwrap_or(0);
        (self.owner, taken(self.owner), taken(0))
    }
}

impl Runtime for StepRuntime {
    fn spawn(&self, task: Task) {
        self.steps.spawn(self.owner, task);
    }

    fn sleep(&self, wait: Duration) -> Task {
        let until = self.steps.now_ms().saturating_add(millis(wait));
        Box::pin(Sleep { until, key: None, steps: self.steps.clone() })
    }

    fn dispatch(&self, job: Job) {
        self.steps.inner.lock().ready.push_back(Ready::Job(self.owner, job));
    }
}

struct Sleep {
    until: u64,
    key: Option<(u64, u64)>,
    steps: Steps,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let steps = self.steps.clone();
        let mut inner = steps.inner.lock();
        if let Some(key) = self.key.take() {
            inner.timers.remove(&key);
        }
        if inner.now_ms >= self.until {
            return Poll::Ready(());
        }
        let key = (self.until, inner.id());
        inner.timers.insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.steps.inner.lock().timers.remove(&key);
        }
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 4)
}

/// Where virtual time begins: 2026-01-01T00:00:00Z.
const BEGINNING_MS: i64 = 1_767_225_600_000;

/// A wall clock that follows virtual time and can be wrong.
#[derive(Clone)]
pub struct ManualClock {
    steps: Steps,
    error: Arc<Mutex<ClockError>>,
}

#[derive(Default)]
struct ClockError {
    offset_ms: i64,
    /// Parts per thousand, since that moment of virtual time.
    drift: (i64, i64),
}

impl ClockError {
    fn at(&self, elapsed_ms: i64) -> i64 {
        let (permille, since) = self.drift;
        self.offset_ms + (elapsed_ms - since) * permille / 1_000
    }
}

impl ManualClock {
    /// A clock that is right.
    pub fn new(steps: &Steps) -> Self {
        Self { steps: steps.clone(), error: Arc::default() }
    }

    /// Sets the clock this much forward (back, if negative), in milliseconds.
    pub fn shift(&self, ms: i64) {
        self.error.lock().offset_ms += ms;
    }

    /// Runs fast (slow, if negative) from now on, in parts per thousand.
    pub fn drift(&self, permille: i64) {
        let elapsed = self.elapsed();
        let mut error = self.error.lock();
        error.offset_ms = error.at(elapsed);
        error.drift = (permille, elapsed);
    }

    /// Virtual milliseconds since the world began, whatever the clock says.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.steps.now_ms()
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.steps.now_ms()).unwrap_or(i64::MAX)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.elapsed();
        Timestamp::from_millis(BEGINNING_MS + elapsed + self.error.lock().at(elapsed))
    }
}

/// Randomness that a seed repeats.
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// The same seed gives the same bytes.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes);
    }
}
