use super::primitives::{Arc, AtomicBool, AtomicU64, Ordering};
use super::readers::Readers;
use crate::environment::Runtime;
use crate::store::{Checkpointer, StoreOptions};

/// The WAL is looked at once in so many commits: looking costs a statement.
const COMMITS_BETWEEN_LOOKS: u64 = 64;
/// From so many pages on it is worth moving the WAL into the file; 4 MiB.
const WAL_PAGES: u64 = 1024;

/// Moves the WAL into the file in a task of its own, so that no caller of a write pays for it.
pub(super) struct Checkpoints {
    options: StoreOptions,
    commits: AtomicU64,
    running: Arc<AtomicBool>,
}

impl Checkpoints {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self { options: options.clone(), commits: AtomicU64::new(0), running: Arc::new(AtomicBool::new(false)) }
    }

    /// Starts a checkpoint if one is due and none is under way.
    pub(super) fn after_commit(&self, runtime: &dyn Runtime, readers: &Readers) {
        if self.commits.fetch_add(1, Ordering::Relaxed) % COMMITS_BETWEEN_LOOKS != COMMITS_BETWEEN_LOOKS - 1 {
            return;
        }
        let grown = readers.read(|reader| reader.wal_pages()).is_ok_and(|pages| pages >= WAL_PAGES);
        if !grown || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let options = self.options.clone();
        let running = Arc::clone(&self.running);
        runtime.spawn(Box::pin(async move {
            let moved = Checkpointer::open(&options).and_then(|connection| connection.checkpoint());
            if let Err(error) = options.noticing(moved) {
                log::warn!("the write-ahead log could not be moved into the file: {error}");
            }
            running.store(false, Ordering::Release);
        }));
    }
}
