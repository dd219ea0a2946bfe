use super::primitives::Mutex;
use crate::error::{Result, SynclineError};
use crate::store::{Reader, StoreOptions};

/// Readers kept for the next call. More may be open for a moment, when more threads read at once.
const KEPT: usize = 4;

/// Connections that read, so that no reader waits for a writer.
pub(super) struct Readers {
    options: StoreOptions,
    /// None once closed.
    free: Mutex<Option<Vec<Reader>>>,
}

impl Readers {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self { options, free: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn read<T>(&self, job: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let free = self.free.lock().as_mut().ok_or(SynclineError::Closed)?.pop();
        let reader = match free {
            Some(reader) => reader,
            None => Reader::open(&self.options)?,
        };
        let value = job(&reader);
        if let Some(free) = self.free.lock().as_mut().filter(|free| free.len() < KEPT) {
            free.push(reader);
        }
        value
    }

    pub(super) fn close(&self) {
        // Readers in use are closed when they come back.
        drop(self.free.lock().take());
    }
}
