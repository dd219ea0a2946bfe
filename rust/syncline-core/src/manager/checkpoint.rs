use std::path::PathBuf;

use super::primitives::{Arc, AtomicBool, AtomicU64, Ordering};
use crate::environment::Runtime;
use crate::store::{Checkpointer, StoreOptions};

/// The WAL's size is looked at once in so many commits: looking costs a system call.
const COMMITS_BETWEEN_LOOKS: u64 = 64;
/// From this size on it is worth moving the WAL into the file.
const WAL_BYTES: u64 = 4 * 1024 * 1024;

/// Moves the WAL into the file in a task of its own, so that no caller of a write pays for it.
pub(super) struct Checkpoints {
    options: StoreOptions,
    wal: PathBuf,
    commits: AtomicU64,
    running: Arc<AtomicBool>,
}

impl Checkpoints {
    pub(super) fn new(options: &StoreOptions) -> Self {
        let mut wal = options.path.as_os_str().to_owned();
        wal.push("-wal");
        Self {
            options: options.clone(),
            wal: wal.into(),
            commits: AtomicU64::new(0),
            running: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Starts a checkpoint if one is due and none is under way.
    pub(super) fn after_commit(&self, runtime: &dyn Runtime) {
        if self.commits.fetch_add(1, Ordering::Relaxed) % COMMITS_BETWEEN_LOOKS != COMMITS_BETWEEN_LOOKS - 1 {
            return;
        }
        let grown = std::fs::metadata(&self.wal).is_ok_and(|wal| wal.len() >= WAL_BYTES);
        if !grown || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let options = self.options.clone();
        let running = Arc::clone(&self.running);
        runtime.spawn(Box::pin(async move {
            if let Err(error) = Checkpointer::open(&options).and_then(|connection| connection.checkpoint()) {
                log::warn!("the write-ahead log could not be moved into the file: {error}");
            }
            running.store(false, Ordering::Release);
        }));
    }
}
