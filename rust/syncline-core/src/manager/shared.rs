//! What all handles of one manager share, and the one lock in it.
//!
//! [`Device`] (the store and the driver) sits behind one mutex. It is held for one transaction at a time, never across an
//! await, and never while foreign code runs: requests, credentials and listeners are called after it is free again. News of
//! a commit goes into the listeners' outbox while it is held, so its order is that of the commits.

use std::time::Duration;

use super::checkpoint::Checkpoints;
use super::listeners::{Listeners, News};
use super::primitives::{Arc, Mutex, Notify, watch};
use super::readers::Readers;
use super::writer::Writer;
use crate::environment::{Environment, LockGuard};
use crate::error::{Result, SynclineError};
use crate::metrics::{QueueMetrics, SyncState};
use crate::store::{Store, StoreOptions};
use crate::sync::Driver;

pub(super) struct Shared {
    pub(super) environment: Environment,
    pub(super) options: StoreOptions,
    /// A request, its credential included, takes no longer.
    pub(super) timeout: Duration,
    /// None once closed.
    device: Mutex<Option<Device>>,
    writer: Writer,
    readers: Readers,
    pub(super) listeners: Listeners,
    /// What delivery does, as of the last change. Reading it waits for no writer.
    standing: Mutex<Standing>,
    /// Raised whenever something was committed or answered.
    pub(super) progress: watch::Sender<u64>,
    /// Raised when requests under way are given up.
    pub(super) abandoned: watch::Sender<u64>,
    /// There may be something to send for the background task.
    pub(super) wake: Notify,
    checkpoints: Checkpoints,
}

/// What the mutex guards.
pub(super) struct Device {
    pub(super) store: Store,
    pub(super) driver: Driver,
    /// Held while this process drains the file.
    pub(super) guard: Option<Box<dyn LockGuard>>,
    /// The last try found another process draining.
    pub(super) elsewhere: bool,
    /// The background task that counts, if there is one. Older ones end by themselves.
    pub(super) background: Option<u64>,
    pub(super) tasks_started: u64,
    /// Calls under way that want the queue drained.
    pub(super) runs: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing {
    pub(super) state: SyncState,
    /// One bad operation is being searched among several.
    pub(super) searching: bool,
}

impl Device {
    pub(super) fn new(store: Store, driver: Driver) -> Self {
        Self { store, driver, guard: None, elsewhere: false, background: None, tasks_started: 0, runs: 0 }
    }
}

impl Shared {
    pub(super) fn new(environment: Environment, options: StoreOptions, timeout: Duration, device: Device) -> Self {
        Self {
            readers: Readers::new(options.clone()),
            checkpoints: Checkpoints::new(&options),
            environment,
            options,
            timeout,
            device: Mutex::new(Some(device)),
            writer: Writer::default(),
            listeners: Listeners::default(),
            standing: Mutex::new(Standing { state: SyncState::Paused, searching: false }),
            progress: watch::Sender::new(0),
            abandoned: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }

    /// Works on the device under its lock, then tells what has changed.
    pub(super) fn locked<T>(self: &Arc<Self>, work: impl FnOnce(&mut Device) -> T) -> Result<T> {
        let mut slot = self.device.lock();
        let device = slot.as_mut().ok_or(SynclineError::Closed)?;
        let value = work(device);
        let changed = self.publish(device);
        drop(slot);
        if changed {
            self.announce();
        }
        Ok(value)
    }

    /// The same for work on the file that may fail.
    pub(super) fn on_file<T>(self: &Arc<Self>, work: impl FnOnce(&mut Device) -> Result<T>) -> Result<T> {
        self.options.noticing(self.locked(work)?)
    }

    /// Makes a write durable, perhaps in one commit with others, and lets delivery know.
    pub(super) fn write<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let written = self.writer.write(job, |work| {
            let background = self.locked(|device| {
                work(&mut device.store);
                device.driver.wake();
                device.background.is_some()
            });
            if background.as_ref().is_ok_and(|runs| *runs) {
                self.wake.notify_one();
            }
            background.map(drop).ok()
        });
        self.options.noticing(written)
    }

    pub(super) fn read<T>(&self, job: impl FnOnce(&crate::store::Reader) -> Result<T>) -> Result<T> {
        self.options.noticing(self.readers.read(job))
    }

    /// What delivery does now. A wait that is over is none, also before delivery has noticed.
    pub(super) fn standing(&self) -> Standing {
        let mut standing = self.standing.lock().clone();
        let now = self.environment.clock.now();
        if matches!(standing.state, SyncState::Backoff { until, .. } if until <= now) {
            standing.state = SyncState::Idle;
        }
        standing
    }

    pub(super) fn metrics(&self) -> Result<QueueMetrics> {
        let now = self.environment.clock.now();
        let state = self.standing().state;
        self.read(|reader| reader.metrics(state, now))
    }

    /// Puts what the last work changed into the outbox. Returns whether there is anything to announce.
    fn publish(&self, device: &mut Device) -> bool {
        let changes = device.store.take_changes();
        let standing = device.standing(self.environment.clock.now());
        let before = std::mem::replace(&mut *self.standing.lock(), standing.clone());
        if changes.is_empty() && before == standing {
            return false;
        }
        if !changes.is_empty() {
            self.listeners.post(News::Changes(changes));
        }
        if let SyncState::AuthRequired { reason } = &standing.state
            && before.state != standing.state
        {
            self.listeners.post(News::AuthRequired(reason.clone()));
        }
        self.listeners.post(News::Metrics);
        true
    }

    /// Wakes those who wait for news, and has the listeners told.
    pub(super) fn announce(self: &Arc<Self>) {
        self.progress.send_modify(|count| *count += 1);
        self.checkpoints.after_commit(&*self.environment.runtime, &self.readers);
        if self.listeners.must_dispatch() {
            let shared = Arc::clone(self);
            let tell = move || shared.listeners.tell(|| shared.metrics().ok());
            self.environment.runtime.dispatch(Box::new(tell));
        }
    }

    /// Ends everything. `tidy`: what is in flight is returned to pending and listeners hear of it; without, it is left as a
    /// kill would leave it, which the next one to drain the file mends. Idempotent.
    pub(super) fn close(self: &Arc<Self>, tidy: bool) {
        let device = {
            let mut slot = self.device.lock();
            if let Some(device) = slot.as_mut().filter(|_| tidy) {
                device.disengage(&self.environment);
                self.publish(device);
            }
            slot.take()
        };
        let Some(device) = device else { return };
        *self.standing.lock() = Standing { state: SyncState::Paused, searching: false };
        drop(device);
        self.readers.close();
        self.abandon_requests();
        self.wake.notify_one();
        if tidy {
            self.announce();
            let shared = Arc::clone(self);
            // A writer may have taken it upon itself to have its news told, and not have come to it yet.
            let tell_and_close = move || {
                shared.listeners.tell(|| None);
                shared.listeners.close();
            };
            self.environment.runtime.dispatch(Box::new(tell_and_close));
        } else {
            self.progress.send_modify(|count| *count += 1);
            self.listeners.close();
        }
    }

    pub(super) fn abandon_requests(&self) {
        self.abandoned.send_modify(|count| *count += 1);
    }
}
