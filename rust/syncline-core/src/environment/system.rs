use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncline_protocol::Timestamp;

use super::{Clock, Environment, LockGuard, ProcessLock, Random, Runtime, Task};
use crate::config::Config;
use crate::error::{Result, SynclineError};
use crate::transport::{CredentialProvider, HttpTransport};

impl Environment {
    /// The real one: the system's clock and randomness, two worker threads and one for callbacks, HTTP to
    /// `config.endpoint`, and the lock file beside `config.database`.
    ///
    /// # Errors
    /// `InvalidConfig` for an endpoint or a root certificate that cannot be used; `Storage` if the system gives no thread.
    pub fn system(config: &Config, credentials: Arc<dyn CredentialProvider>) -> Result<Self> {
        Ok(Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            runtime: Arc::new(System::new()?),
            transport: Arc::new(HttpTransport::new(&config.endpoint, &config.network)?),
            credentials,
            lock: Arc::new(FileLock::beside(&config.database)),
            vfs: None,
        })
    }
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others are given")]
    fn now(&self) -> Timestamp {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        })
    }
}

/// A cryptographic generator, seeded by the operating system.
#[derive(Debug, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// One tokio runtime with two workers for tasks, and one thread on which callbacks run in order.
///
/// It may be dropped on any thread, its own ones too: tasks are abandoned at their next await, callbacks already
/// dispatched still run.
pub struct System {
    /// Present until dropped.
    tokio: Option<tokio::runtime::Runtime>,
    callbacks: mpsc::Sender<Job>,
}

impl System {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Storage` if the system gives no thread.
    pub fn new() -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("syncline")
            .enable_all()
            .build()
            .map_err(|error| no_thread(&error))?;
        let (callbacks, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("syncline-callbacks".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .map_err(|error| no_thread(&error))?;
        Ok(Self { tokio: Some(tokio), callbacks })
    }

    fn tokio(&self) -> &tokio::runtime::Runtime {
        self.tokio.as_ref().expect("present until dropped")
    }
}

impl Runtime for System {
    fn spawn(&self, task: Task) {
        self.tokio().spawn(task);
    }

    #[expect(clippy::disallowed_methods, reason = "this is the sleep that all others are given")]
    fn sleep(&self, wait: Duration) -> Task {
        // tokio's timers need its context when they are made, and a caller of an async method may be on any thread.
        let _context = self.tokio().enter();
        Box::pin(tokio::time::sleep(wait))
    }

    fn dispatch(&self, job: Job) {
        // The thread ends only when this sender is dropped, so there is a receiver.
        let _ = self.callbacks.send(job);
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            // Waiting for the workers would panic on one of them, and hang on a task that never awaits.
            tokio.shutdown_background();
        }
    }
}

/// A file that the process which drains holds locked. The operating system frees it when that process dies.
#[derive(Debug, Clone)]
pub struct FileLock {
    path: PathBuf,
}

impl FileLock {
    /// The lock for a database: `<database>.lock`, in the same folder.
    pub fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        Self { path: path.into() }
    }
}

impl ProcessLock for FileLock {
    fn try_acquire(&self) -> Result<Option<Box<dyn LockGuard>>> {
        // Never deleted: a lock on a deleted file excludes nobody.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path).map_err(no_lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(HeldFile { _locked: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(no_lock(error)),
        }
    }
}

/// Closing the file frees the lock.
struct HeldFile {
    _locked: File,
}

impl LockGuard for HeldFile {}

fn no_thread(error: &io::Error) -> SynclineError {
    SynclineError::Storage { detail: format!("the system gives no thread: {error}") }
}

fn no_lock(error: io::Error) -> SynclineError {
    if error.kind() == io::ErrorKind::StorageFull {
        return SynclineError::StorageFull;
    }
    SynclineError::Storage { detail: format!("the lock file cannot be locked: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_run_in_order_and_off_the_callers_thread() {
        let system = System::new().unwrap();
        let (sender, receiver) = mpsc::channel();
        for n in 0..100 {
            let sender = sender.clone();
            system.dispatch(Box::new(move || sender.send((n, thread::current().id())).unwrap()));
        }
        drop((system, sender));
        let seen: Vec<_> = receiver.into_iter().collect();
        assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(seen.iter().all(|(_, id)| *id == seen[0].1 && *id != thread::current().id()));
    }

    #[test]
    fn dropping_it_on_its_own_worker_does_not_panic() {
        let system = Arc::new(System::new().unwrap());
        let (sender, receiver) = mpsc::channel();
        let last = Arc::clone(&system);
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        system.spawn(Box::pin(async move {
            gone.await.unwrap();
            let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(last)));
            sender.send((dropped.is_ok(), thread::current().name().map(str::to_owned))).unwrap();
        }));
        drop(system);
        go.send(()).unwrap();
        assert_eq!(receiver.recv().unwrap(), (true, Some("syncline".to_owned())));
    }

    #[test]
    fn dropping_it_within_a_callback_does_not_panic() {
        let system = System::new().unwrap();
        let (sender, receiver) = mpsc::channel();
        let slot = Arc::new(parking_lot::Mutex::new(None::<System>));
        let slot_inside = Arc::clone(&slot);
        let (go, gone) = mpsc::channel::<()>();
        system.dispatch(Box::new(move || {
            gone.recv().unwrap();
            drop(slot_inside.lock().take());
            sender.send(()).unwrap();
        }));
        *slot.lock() = Some(system);
        go.send(()).unwrap();
        receiver.recv().unwrap();
    }

    #[test]
    fn a_sleep_made_outside_the_runtime_ends() {
        let system = System::new().unwrap();
        let (sender, receiver) = mpsc::channel();
        let sleep = system.sleep(Duration::from_millis(1));
        system.spawn(Box::pin(async move {
            sleep.await;
            sender.send(()).unwrap();
        }));
        receiver.recv().unwrap();
    }

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FileLock::beside(&folder.path().join("a.db"));
        let held = lock.try_acquire().unwrap().unwrap();
        assert!(lock.try_acquire().unwrap().is_none());
        drop(held);
        assert!(lock.try_acquire().unwrap().is_some());
        assert!(folder.path().join("a.db.lock").exists());
    }

    #[test]
    fn a_folder_that_does_not_exist_is_a_storage_error() {
        let lock = FileLock::beside(Path::new("/nonexistent-folder/a.db"));
        assert!(matches!(lock.try_acquire(), Err(SynclineError::Storage { .. })));
    }
}
