//! All that the core needs from the outside and may not take by itself: time, randomness, tasks, the network, the process lock.
//!
//! They are given at open. [`System`] is the real thing; a test or a simulator gives its own and then owns every step.

mod system;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use syncline_protocol::Timestamp;

pub use system::{FileLock, System, SystemClock, SystemRandom};

use crate::error::Result;
use crate::transport::{CredentialProvider, Transport};

/// A future that a [`Runtime`] can run on any thread.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// The wall clock. It may jump; nothing in the core relies on it going forward.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// Randomness for ids and jitter.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number from `low` to `high`, both included.
    fn between(&self, low: u64, high: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        let span = high.saturating_sub(low).saturating_add(1).max(1);
        low + u64::from_be_bytes(bytes) % span
    }
}

/// Runs tasks. The manager spawns one task that drives delivery and one per request; nothing else runs in the background.
pub trait Runtime: Send + Sync {
    /// Runs `task` to its end, on any thread.
    fn spawn(&self, task: Task);

    /// Ends after `wait`, measured so that suspension or a change of the wall clock does no harm.
    fn sleep(&self, wait: Duration) -> Task;

    /// Runs `job` after all jobs given before, one at a time, never on the caller's stack: listeners are called here.
    fn dispatch(&self, job: Box<dyn FnOnce() + Send>);
}

/// Decides which process may drain a file.
pub trait ProcessLock: Send + Sync {
    /// Takes the lock if nobody holds it. It is free again when the guard is dropped, or when the process dies.
    ///
    /// # Errors
    /// The lock file cannot be made.
    fn try_acquire(&self) -> Result<Option<Box<dyn LockGuard>>>;
}

/// Holds the lock while it lives.
pub trait LockGuard: Send + Sync {}

/// Everything given at open.
#[derive(Clone)]
pub struct Environment {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Tasks, waiting and callbacks.
    pub runtime: Arc<dyn Runtime>,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// The app's credentials.
    pub credentials: Arc<dyn CredentialProvider>,
    /// Who may drain.
    pub lock: Arc<dyn ProcessLock>,
    /// The name of a registered SQLite VFS; SQLite's own if none.
    pub vfs: Option<String>,
}
