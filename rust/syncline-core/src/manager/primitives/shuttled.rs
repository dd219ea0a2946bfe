//! The primitives for a check of schedules. Locks, condition variables and atomics are shuttle's, with parking_lot's
//! signatures. `Notify` and `watch` are tokio's own, which need no runtime, each call behind a point at which another thread may
//! go on; a oneshot's single event needs no such point. (Shuttle's wrapper of tokio brings a benchmark harness along.)

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::sync;
pub(in crate::manager) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
pub(in crate::manager) use tokio::sync::oneshot;

/// Here another thread may go on.
fn point() {
    shuttle::thread::sleep(Duration::ZERO);
}

#[derive(Default)]
pub(in crate::manager) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(in crate::manager) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// As parking_lot's, it does not mind that somebody panicked.
    pub(in crate::manager) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    #[cfg(test)]
    pub(in crate::manager) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empty only within [`Condvar::wait`].
pub(in crate::manager) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("present but within a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("present but within a wait")
    }
}

pub(in crate::manager) struct Condvar(sync::Condvar);

impl Condvar {
    pub(in crate::manager) fn new() -> Self {
        Self(sync::Condvar::new())
    }

    pub(in crate::manager) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("present but within a wait");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(in crate::manager) fn notify_one(&self) {
        self.0.notify_one();
    }
}

pub(in crate::manager) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(in crate::manager) fn new() -> Self {
        Self(tokio::sync::Notify::new())
    }

    pub(in crate::manager) fn notify_one(&self) {
        point();
        self.0.notify_one();
    }

    pub(in crate::manager) async fn notified(&self) {
        point();
        self.0.notified().await;
    }
}

pub(in crate::manager) mod watch {
    use tokio::sync::watch;

    use super::point;

    pub(in crate::manager) struct Sender<T>(watch::Sender<T>);

    impl<T> Sender<T> {
        pub(in crate::manager) fn new(value: T) -> Self {
            Self(watch::Sender::new(value))
        }

        pub(in crate::manager) fn send_modify(&self, modify: impl FnOnce(&mut T)) {
            point();
            self.0.send_modify(modify);
        }

        pub(in crate::manager) fn subscribe(&self) -> Receiver<T> {
            point();
            Receiver(self.0.subscribe())
        }
    }

    pub(in crate::manager) struct Receiver<T>(watch::Receiver<T>);

    impl<T> Receiver<T> {
        pub(in crate::manager) fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
            point();
            self.0.borrow_and_update()
        }

        pub(in crate::manager) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
            point();
            self.0.changed().await
        }
    }
}
