use std::sync::Arc;

use parking_lot::Mutex;
use syncline_core::Result;
use syncline_core::environment::{LockGuard, ProcessLock};

/// A process lock in memory, shared by the simulated processes of one file.
#[derive(Clone, Default)]
pub struct MemoryLock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    held: bool,
    /// Raised by a theft: who held it then has nothing to give back any more.
    thefts: u64,
}

impl MemoryLock {
    /// Whether a process drains the file.
    pub fn is_held(&self) -> bool {
        self.state.lock().held
    }

    /// The next process gets it, although another one believes to hold it: as on a file system that forgets locks.
    pub fn steal(&self) {
        let mut state = self.state.lock();
        state.held = false;
        state.thefts += 1;
    }
}

impl ProcessLock for MemoryLock {
    fn try_acquire(&self) -> Result<Option<Box<dyn LockGuard>>> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.held, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held { state: Arc::clone(&self.state), thefts: state.thefts })))
    }
}

struct Held {
    state: Arc<Mutex<State>>,
    thefts: u64,
}

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.thefts == self.thefts {
            state.held = false;
        }
    }
}
