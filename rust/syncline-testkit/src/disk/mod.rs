//! A disk in memory that loses power, fails calls and fills up: an SQLite VFS whose files any number of connections and simulated
//! processes share, WAL and all, as they would on one machine.
//!
//! What the disk promises is what a decent disk promises, and no more: what a sync covered is there for good; of everything
//! else each 512-byte sector, each length, each create and each delete arrives, vanishes or (a sector) is torn on its own. Syncing a
//! journal or a WAL that was just made syncs the folder, as SQLite's VFS for Unix does, and with it every create and
//! delete before. Nothing else makes a name durable.
//!
//! Same seed, same calls: same losses. SQLite's randomness is its own and is in a few bytes of a WAL (its salts and checksums),
//! but decides nothing: no draw depends on bytes, and a torn sector is cut so that a checksum is lost or kept whole.

mod content;
mod locks;
mod state;
mod vfs;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use state::{Life, State};
use vfs::Inner;

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A write: some of its bytes arrive, then `SQLITE_IOERR_WRITE`.
    Write,
    /// A sync: `SQLITE_IOERR_FSYNC`. Of what it should have covered nobody knows what arrived, and no later sync sees to it.
    Sync,
    /// A read: `SQLITE_IOERR_READ`.
    Read,
}

/// What happened on a disk so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes, truncates, syncs and deletes of living processes.
    pub calls: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Unsynced sectors that a power loss left as written.
    pub survived: u64,
    /// Unsynced sectors that a power loss took back.
    pub vanished: u64,
    /// Unsynced sectors of which a power loss left a part.
    pub torn: u64,
    /// Unsynced creates and deletes that came through a power loss which took some.
    pub names_survived: u64,
    /// Unsynced creates and deletes that such a power loss took back.
    pub names_vanished: u64,
    /// Failures delivered, by [`Failure`] in its order.
    pub failures: [u64; 3],
    /// Calls that failed since the disk was full.
    pub full: u64,
}

/// The disk of one machine. Clones are the same disk; it is gone with the last of them and of its connections.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

impl Disk {
    /// The name of the VFS, for `Environment::vfs` and its like. It finds a disk by the path.
    pub const VFS: &str = "syncline-disk";

    /// An empty disk. `seed` decides what a power loss leaves.
    pub fn new(seed: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { inner: Inner::register(NEXT.fetch_add(1, Ordering::Relaxed), State::new(seed)) }
    }

    /// A new process on this machine.
    pub fn process(&self) -> Process {
        let mut state = self.inner.state.lock();
        state.processes.push(Life::default());
        Process { inner: Arc::clone(&self.inner), number: state.processes.len() - 1 }
    }

    /// The machine goes dark: all its processes die, and what no sync covered fares as it may.
    pub fn lose_power(&self) {
        self.inner.state.lock().lose_power();
    }

    /// After `after` more calls of this kind, one fails, once. A second call replaces the first.
    pub fn fail(&self, failure: Failure, after: u64) {
        self.inner.state.lock().failures[failure as usize] = Some(after);
    }

    /// While the disk is full no file grows (`SQLITE_FULL`), nor does a WAL's index (`SQLITE_IOERR_SHMSIZE`).
    pub fn set_full(&self, full: bool) {
        self.inner.state.lock().full = full;
    }

    /// Whether it is full now.
    pub fn is_full(&self) -> bool {
        self.inner.state.lock().full
    }

    /// While the disk lies a sync does nothing and says that all is well. No database survives that: for tests of tests.
    pub fn set_lying(&self, lies: bool) {
        self.inner.state.lock().lies = lies;
    }

    /// From now on nothing fails any more; what was planned and has not happened will not.
    pub fn heal(&self) {
        let mut state = self.inner.state.lock();
        (state.failures, state.full, state.lies) = ([None; 3], false, false);
    }

    /// Raised by whatever may change what a database holds: a write to it, its WAL or its journal, a power loss.
    pub fn changes(&self, name: &str) -> u64 {
        self.inner.state.lock().changes(name)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.inner.state.lock().counts
    }

    /// Copies a database and its WAL as they lie, unsynced bytes included, on the other disk for good. What has that name there
    /// is replaced, but for connections that have it open.
    ///
    /// To look at a database without touching it, look at a copy: SQLite checkpoints when the last connection of a file closes.
    pub fn copy_to(&self, name: &str, other: &Disk, other_name: &str) {
        for suffix in ["", "-wal", "-journal"] {
            let bytes =
                self.inner.state.lock().file(&format!("{name}{suffix}")).map(|file| file.content.bytes().to_vec());
            other.inner.state.lock().put(&format!("{other_name}{suffix}"), bytes.unwrap_or_default());
        }
    }
}

/// A process that opens files on a [`Disk`]. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
    number: usize,
}

impl Process {
    /// The path under which this process opens the file that all processes of the disk know as `name`. Its numbers
    /// differ from run to run: keep it out of what must be repeatable.
    pub fn path(&self, name: &str) -> PathBuf {
        format!("/disk-{}/process-{}/{name}", self.inner.number, self.number).into()
    }

    /// It stands still from now on: its locks are free, its calls do nothing and fail with `SQLITE_IOERR`, but for closing.
    ///
    /// Drop its connections before another process writes: SQLite, unaware, may still tidy up in the memory that a WAL's
    /// connections share.
    pub fn kill(&self) {
        self.inner.state.lock().kill(self.number);
    }

    /// It makes `calls` more writes, truncates, syncs and deletes, and dies before the next.
    pub fn die_after(&self, calls: u64) {
        self.inner.state.lock().processes[self.number].calls_left = Some(calls);
    }

    /// Whether it was killed, or lost power.
    pub fn is_dead(&self) -> bool {
        self.inner.state.lock().processes[self.number].dead
    }
}
