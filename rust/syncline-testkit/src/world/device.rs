//! A device of a world: its process, its machine and what is to go wrong with them.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncline_core::environment::Environment;
use syncline_core::{Config, SyncManager};

use super::QUEUE;
use crate::disk::{Disk, Failure, Process};
use crate::lock::MemoryLock;
use crate::network::{Credentials, Network};
use crate::oracle::Verdict;
use crate::oracle::observe::{DeviceState, device_state};
use crate::server::open_database;
use crate::simulation::coverage::Coverage;
use crate::steps::{ManualClock, SeededRandom, StepRuntime, Steps};

/// A device of a [`World`](super::World). It dereferences to its [`SyncManager`].
pub struct TestDevice {
    /// Its name, for messages and the server's log.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// Its user's credentials.
    pub credentials: Credentials,
    /// Its wall clock.
    pub clock: ManualClock,
    /// Its file's process lock.
    pub lock: MemoryLock,
    /// How it is opened; changes count from the next [`TestDevice::open`].
    pub config: Config,
    pub(super) random: Arc<SeededRandom>,
    pub(super) steps: Steps,
    /// Operations up to this sequence are in the file of a copy as well.
    pub(super) shared_through: AtomicU64,
    /// The app is of the version after the newest, in builds that have one.
    pub(crate) is_next_version: bool,
    /// None: its file is in a folder.
    pub(super) machine: Option<Machine>,
    pub(super) life: Option<Life>,
}

/// A disk in memory, and the process that is alive on it, or was.
pub(super) struct Machine {
    pub(super) disk: Disk,
    pub(super) process: Process,
    /// The next process dies at this call.
    pub(super) dies_after_opening: Option<u64>,
}

pub(super) struct Life {
    pub(super) manager: SyncManager,
    pub(super) runtime: StepRuntime,
}

impl TestDevice {
    /// Opens the file again, after [`TestDevice::kill`] or `close`.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(&mut self) -> syncline_core::Result<()> {
        self.kill();
        if let Some(machine) = &mut self.machine {
            machine.process = machine.disk.process();
            self.config.database = machine.process.path(QUEUE);
            if let Some(calls) = machine.dies_after_opening.take() {
                machine.process.die_after(calls);
            }
        }
        let runtime = self.steps.owner();
        let environment = Environment {
            clock: Arc::new(self.clock.clone()),
            random: Arc::clone(&self.random) as _,
            runtime: Arc::new(runtime.clone()),
            transport: Arc::new(self.network.clone()),
            credentials: Arc::new(self.credentials.clone()),
            lock: Arc::new(self.lock.clone()),
            vfs: self.vfs().map(str::to_owned),
        };
        #[cfg(feature = "teeth")]
        syncline_core::open_as_next_version(self.is_next_version);
        let manager = SyncManager::open(self.config.clone(), environment)?;
        self.life = Some(Life { manager, runtime });
        Ok(())
    }

    /// The process dies where it stands: nothing is written, given back or told any more. Clones of its manager say `Closed`.
    pub fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            if let Some(machine) = &self.machine {
                machine.process.kill();
            }
            life.runtime.kill();
            drop(life);
        }
    }

    /// The app is closed in good order.
    pub(crate) fn close(&mut self) {
        if let Some(life) = self.life.take() {
            life.manager.close();
            life.runtime.kill();
        }
    }

    /// Dies and opens again.
    ///
    /// # Panics
    /// If the file does not open.
    pub fn restart(&mut self) {
        self.open().expect("the device opens again");
    }

    /// A connection that only looks, as of another process, and leaves no trace: closing it tidies nothing up.
    ///
    /// # Errors
    /// SQLite's.
    pub fn reader(&self) -> rusqlite::Result<rusqlite::Connection> {
        let reader = match &self.machine {
            Some(machine) => open_database(&machine.disk.process().path(QUEUE), Some(Disk::VFS))?,
            None => open_database(self.path(), None)?,
        };
        reader.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(reader)
    }

    pub(super) fn vfs(&self) -> Option<&'static str> {
        self.machine.as_ref().map(|_| Disk::VFS)
    }

    /// What its file holds.
    pub(super) fn state(&self) -> DeviceState {
        self.reader().and_then(|file| device_state(&file)).expect("the file can be read")
    }

    pub(super) fn holds(&self, verdict: Verdict) {
        verdict.unwrap_or_else(|breach| panic!("{}: {breach}", self.name));
    }

    /// Operations up to this sequence are in the file of a copy as well.
    pub(crate) fn shared_through(&self) -> u64 {
        self.shared_through.load(Ordering::Relaxed)
    }

    /// A handle of its own.
    ///
    /// # Panics
    /// If the device was killed.
    pub fn manager(&self) -> SyncManager {
        self.life.as_ref().expect("the device is open").manager.clone()
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.config.database
    }

    /// One value by plain SQL on its file.
    ///
    /// # Panics
    /// If the statement is wrong or gives no row.
    pub fn sql<T: rusqlite::types::FromSql>(&self, statement: &str) -> T {
        let connection = self.reader().expect("the file opens");
        connection.query_row(statement, [], |row| row.get(0)).expect(statement)
    }

    /// An entity's value as this device sees it.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn value(&self, entity_type: &str, entity_id: &str) -> Option<serde_json::Value> {
        let entity = self.get(entity_type, entity_id).expect("the entity can be read")?;
        entity.value.map(|text| serde_json::from_str(&text).expect("values are JSON"))
    }

    /// An operation's status.
    ///
    /// # Panics
    /// If it is unknown.
    pub fn status(&self, id: &str) -> syncline_core::OperationStatus {
        self.operation(id).expect("the operation can be read").expect("the operation is known").status
    }
}

/// Its machine, in a world on disks.
impl TestDevice {
    fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("the world is on disks")
    }

    /// Raised by every write to its file.
    pub(crate) fn changes(&self) -> u64 {
        self.machine().disk.changes(QUEUE)
    }

    /// Changes whenever code of its process may have run, but for what the caller does on its manager.
    pub(crate) fn pulse(&self) -> Option<(u64, u64, u64)> {
        self.life.as_ref().map(|life| life.runtime.pulse())
    }

    /// Calls of its disk that failed so far.
    pub(crate) fn disk_failures(&self) -> u64 {
        self.machine().disk.counts().failures.iter().sum()
    }

    /// Whether its process has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.machine().process.is_dead()
    }

    /// Whether its disk refuses to grow, or did so a moment ago.
    pub(crate) fn is_full(&self) -> bool {
        self.machine().disk.is_full()
    }

    /// Its process dies before the call after so many more.
    pub(crate) fn die_after(&self, calls: u64) {
        self.machine().process.die_after(calls);
    }

    /// Its machine goes dark. Whoever was open there must be killed.
    pub(crate) fn lose_power(&mut self) {
        let machine = self.machine.as_ref().expect("the world is on disks");
        machine.disk.lose_power();
        self.kill();
    }

    /// One call of its disk fails.
    pub(crate) fn fail_disk(&self, failure: Failure, after: u64) {
        self.machine().disk.fail(failure, after);
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.machine().disk.set_full(full);
    }

    /// No more trouble with the disk, nor a death to come.
    pub(crate) fn heal_disk(&self) {
        let machine = self.machine();
        machine.disk.set_full(false);
        machine.disk.heal();
        machine.process.die_after(u64::MAX);
    }

    /// The next process dies at its `after`-th call to the disk.
    pub(crate) fn dies_after_opening(&mut self, after: u64) {
        self.machine.as_mut().expect("the world is on disks").dies_after_opening = Some(after);
    }

    /// Adds what happened to its disk to the table.
    pub(crate) fn count_disk(&self, coverage: &Coverage) {
        count_disk(coverage, &self.machine().disk);
    }
}

/// Adds what happened to a disk to the table.
pub(crate) fn count_disk(coverage: &Coverage, disk: &Disk) {
    let counts = disk.counts();
    for (name, count) in [
        ("sector lost", counts.vanished),
        ("sector torn", counts.torn),
        ("unsynced sector kept", counts.survived),
        ("create or delete lost", counts.names_vanished),
        ("write failed", counts.failures[Failure::Write as usize]),
        ("flush failed", counts.failures[Failure::Sync as usize]),
        ("disk full", counts.full),
    ] {
        coverage.add("fault", name, count);
    }
}

/// Its tasks know the world's steps, which hold the tasks: somebody has to let go first.
impl Drop for TestDevice {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Deref for TestDevice {
    type Target = SyncManager;

    fn deref(&self) -> &SyncManager {
        &self.life.as_ref().expect("the device is open").manager
    }
}
