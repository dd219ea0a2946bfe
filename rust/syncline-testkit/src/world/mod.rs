//! A whole world: one endpoint, and devices.

mod device;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use syncline_core::environment::Clock;
use syncline_core::{Config, Durability, SyncSummary};
use tempfile::TempDir;

use device::Machine;
pub use device::TestDevice;

use crate::disk::Disk;
use crate::lock::MemoryLock;
use crate::network::{Credentials, Network};
use crate::oracle::effects::{ServerView, check_drained};
use crate::oracle::observe::DeviceState;
use crate::oracle::queue::{self, Allowances};
use crate::oracle::server;
use crate::server::{TestServer, copy_database};
use crate::simulation::coverage::Coverage;
use crate::steps::{ManualClock, SeededRandom, Started, Steps};

/// The user of every device, unless its configuration says otherwise.
pub const USER: &str = "user-1";
/// The scope of every device, unless its configuration says otherwise.
pub const SCOPE: &str = "team-1";
/// The token of every device; the endpoint takes it for [`USER`] and [`SCOPE`].
pub const TOKEN: &str = "good-token";
/// Another user, with a scope and a token of their own.
pub(crate) const OTHER_USER: &str = "user-2";
/// See [`OTHER_USER`].
pub(crate) const OTHER_SCOPE: &str = "team-2";
/// See [`OTHER_USER`].
pub(crate) const OTHER_TOKEN: &str = "other-token";

/// Of [`USER`], who is in another scope only.
pub(crate) const MOVED_TOKEN: &str = "moved-token";

/// The name of a file on a disk in memory.
const QUEUE: &str = "queue.db";

/// One endpoint and any number of devices, in virtual time. See the crate's example.
pub struct World {
    /// All that can happen, one step after the other.
    pub steps: Steps,
    /// The endpoint.
    pub server: TestServer,
    /// What happened to requests, counted by name.
    pub(crate) coverage: Coverage,
    place: Place,
    seed: u64,
    devices: u64,
    /// Device ids that a file was copied under.
    shared: BTreeSet<String>,
}

/// Where the files are.
enum Place {
    Folder(TempDir),
    /// Each machine has a disk of its own.
    Disks,
}

impl World {
    /// A world without devices. The same seed gives the same ids, jitter and order.
    pub fn new(seed: u64) -> Self {
        #[cfg(feature = "teeth")]
        crate::plant_named();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let steps = Steps::default();
        let server = TestServer::new(folder.path().join("server.db"), ManualClock::new(&steps), seed);
        Self::with(steps, server, Place::Folder(folder), seed)
    }

    /// A world whose machines have disks in memory, which can lose power, fail and fill up.
    pub fn on_disks(seed: u64) -> Self {
        let steps = Steps::default();
        let server = TestServer::on_disk(Disk::new(seed), ManualClock::new(&steps), seed);
        Self::with(steps, server, Place::Disks, seed)
    }

    fn with(steps: Steps, server: TestServer, place: Place, seed: u64) -> Self {
        server.allow(TOKEN, USER, &[SCOPE]);
        server.allow(OTHER_TOKEN, OTHER_USER, &[OTHER_SCOPE]);
        server.allow(MOVED_TOKEN, USER, &[OTHER_SCOPE]);
        Self { steps, server, coverage: Coverage::default(), place, seed, devices: 0, shared: BTreeSet::new() }
    }

    /// A path in the world's own folder.
    ///
    /// # Panics
    /// If its files are on disks in memory.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.place {
            Place::Folder(folder) => folder.path().join(name),
            Place::Disks => panic!("the files are on disks in memory"),
        }
    }

    /// The configuration that [`World::device`] uses.
    pub fn config(&self, name: &str) -> Config {
        let (path, durability) = match &self.place {
            Place::Folder(folder) => (folder.path().join(format!("{name}.db")), Durability::Normal),
            // Given anew whenever a process opens it. Losing power is no test of a setting that allows for losses.
            Place::Disks => (PathBuf::new(), Durability::Full),
        };
        let mut config = Config::new(path, "https://endpoint.invalid", USER, SCOPE);
        config.durability = durability;
        config
    }

    /// A new device, opened.
    pub fn device(&mut self, name: &str) -> TestDevice {
        self.device_with(name, self.config(name))
    }

    /// A new device with a configuration of its own.
    pub fn device_with(&mut self, name: &str, config: Config) -> TestDevice {
        let disk = matches!(self.place, Place::Disks).then(|| Disk::new(self.seed.wrapping_add(self.devices + 1)));
        let mut device = self.unopened(name, config, MemoryLock::default(), disk);
        device.open().expect("the device opens");
        device
    }

    /// A second process on the same file. Processes of one file share its lock.
    pub fn process(&mut self, of: &TestDevice, name: &str) -> TestDevice {
        self.try_process(of, name).expect("the file opens")
    }

    /// As [`World::process`], where the disk may refuse.
    pub(crate) fn try_process(&mut self, of: &TestDevice, name: &str) -> syncline_core::Result<TestDevice> {
        let mut process =
            self.unopened(name, of.config.clone(), of.lock.clone(), of.machine.as_ref().map(|m| m.disk.clone()));
        process.clock = of.clock.clone();
        process.is_next_version = of.is_next_version;
        process.network.listen_like(&of.network);
        process.open().map(|()| process)
    }

    /// A new device whose file is a copy of another's, as after a restored backup.
    pub fn copy(&mut self, of: &TestDevice, name: &str) -> TestDevice {
        let mut config = of.config.clone();
        let disk = of.machine.as_ref().map(|_| Disk::new(self.seed.wrapping_add(self.devices + 1)));
        let target = match &disk {
            Some(disk) => disk.process().path(QUEUE),
            None => {
                config.database = self.path(&format!("{name}.db"));
                config.database.clone()
            }
        };
        copy_database(of.path(), &target, of.vfs());
        let mut copy = self.unopened(name, config, MemoryLock::default(), disk);
        copy.is_next_version = of.is_next_version;
        copy.open().expect("the copy opens");
        let device_id: String = copy.sql("SELECT device_id FROM device");
        self.server.share(&device_id);
        self.shared.insert(device_id);
        let shared: u64 = copy.sql("SELECT coalesce(max(sequence), 0) FROM sync_queue");
        for device in [of, &copy] {
            device.shared_through.fetch_max(shared, Ordering::Relaxed);
        }
        copy
    }

    fn unopened(&mut self, name: &str, config: Config, lock: MemoryLock, disk: Option<Disk>) -> TestDevice {
        self.devices += 1;
        TestDevice {
            name: name.to_owned(),
            network: Network::new(name, &self.server, self.coverage.clone()),
            credentials: Credentials::new(TOKEN),
            clock: ManualClock::new(&self.steps),
            lock,
            config,
            random: Arc::new(SeededRandom::new(self.seed.wrapping_mul(1_000_003).wrapping_add(self.devices))),
            steps: self.steps.clone(),
            shared_through: AtomicU64::new(0),
            is_next_version: false,
            machine: disk.map(|disk| Machine { process: disk.process(), disk, dies_after_opening: None }),
            life: None,
        }
    }

    /// Takes steps until `future` is done. Panics if it waits for time or for an answer that is held.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.steps.run(future)
    }

    /// Starts a future, to be looked at later.
    pub fn start<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Started<T> {
        self.steps.start(future)
    }

    /// Takes all steps that are ready.
    pub fn run_until_idle(&self) {
        self.steps.run_until_idle();
    }

    /// Lets time pass, with all that happens meanwhile.
    pub fn advance(&self, wait: Duration) {
        self.steps.advance(wait);
    }

    /// Lets seconds pass.
    pub fn advance_secs(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// `process_queue` to its end.
    ///
    /// # Panics
    /// If it fails, or hangs on an answer that is held.
    pub fn sync(&self, device: &TestDevice) -> SyncSummary {
        let manager = device.manager();
        self.run(async move { manager.process_queue().await }).expect("the queue is processed")
    }

    /// Syncs every device until all have seen what all did, and checks that they agree with the server.
    ///
    /// # Panics
    /// If an invariant does not hold, or they differ.
    pub fn settle(&self, devices: &[&TestDevice]) {
        for _ in 0..2 {
            for device in devices {
                self.sync(device);
            }
        }
        self.assert_invariants(devices);
        self.assert_converged(devices);
    }

    /// Checks that nothing waits but behind what failed or conflicts (invariant 11).
    ///
    /// # Panics
    /// With the operations that do.
    pub fn assert_drained(&self, devices: &[&TestDevice]) {
        devices.iter().for_each(|device| device.holds(check_drained(&device.state(), |_| false)));
    }

    /// Checks that nothing waits any more and that all replicas equal the server (invariant 5).
    ///
    /// # Panics
    /// If not.
    pub fn assert_converged(&self, devices: &[&TestDevice]) {
        self.with_server(devices, |device, state, server| device.holds(server.check_converged(state)));
    }

    /// Checks what must hold at every moment (spec §9).
    ///
    /// # Panics
    /// With the invariant's name and what broke it.
    pub fn assert_invariants(&self, devices: &[&TestDevice]) {
        assert_eq!(
            self.server.violations(),
            Vec::<String>::new(),
            "the endpoint differs from the OpenAPI document or the model"
        );
        self.with_server(devices, |device, state, server| {
            let (shared_through, restores) = (device.shared_through(), self.server.went_back());
            let copied = shared_through > 0;
            device.holds(queue::check(state, Allowances { copied, restores }));
            if let Some(said) = device.life.as_ref().and_then(|life| life.manager.metrics().ok()) {
                device.holds(queue::metrics(state, &said, device.clock.now().millis()));
            }
            device.holds(server.check_effects(state, shared_through, copied));
        });
        let (stored, effects) = self.server.stored();
        server::check(&stored, &effects, &self.shared).unwrap_or_else(|breach| panic!("{breach}"));
    }

    fn with_server(&self, devices: &[&TestDevice], check: impl Fn(&TestDevice, &DeviceState, &ServerView<'_>)) {
        let (mut stored, _) = self.server.stored();
        for device in devices {
            let state = device.state();
            // A scope comes into being with its first request.
            stored.scopes.entry(state.device.scope.clone()).or_default();
            check(device, &state, &ServerView::of(&stored, &state.device.scope).expect("it is there"));
        }
    }
}
