use std::sync::Arc;

use parking_lot::Mutex;
use syncline_core::Result;
use syncline_core::environment::{LockGuard, ProcessLock};

/// A process lock in memory, shared by the simulated processes of one file.
#[derive(Clone, Default)]
pub struct MemoryLock {
    held: Arc<Mutex<bool>>,
}

impl MemoryLock {
    /// Whether a process drains the file.
    pub fn is_held(&self) -> bool {
        *self.held.lock()
    }
}

impl ProcessLock for MemoryLock {
    fn try_acquire(&self) -> Result<Option<Box<dyn LockGuard>>> {
        let mut held = self.held.lock();
        if std::mem::replace(&mut *held, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held { held: Arc::clone(&self.held) })))
    }
}

struct Held {
    held: Arc<Mutex<bool>>,
}

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        *self.held.lock() = false;
    }
}
