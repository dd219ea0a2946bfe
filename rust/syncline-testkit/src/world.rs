use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use syncline_core::environment::Environment;
use syncline_core::{Config, Durability, SyncManager, SyncSummary};
use tempfile::TempDir;

use crate::check;
use crate::lock::MemoryLock;
use crate::network::{Credentials, Network};
use crate::server::{TestServer, copy_database};
use crate::steps::{ManualClock, SeededRandom, Started, StepRuntime, Steps};

/// The user of every device, unless its configuration says otherwise.
pub const USER: &str = "user-1";
/// The scope of every device, unless its configuration says otherwise.
pub const SCOPE: &str = "team-1";
/// The token of every device; the endpoint takes it for [`USER`] and [`SCOPE`].
pub const TOKEN: &str = "good-token";

/// One endpoint and any number of devices, in virtual time. See the crate's example.
pub struct World {
    /// All that can happen, one step after the other.
    pub steps: Steps,
    /// The endpoint.
    pub server: TestServer,
    folder: TempDir,
    seed: u64,
    devices: u64,
    /// Device ids that a file was copied under.
    shared: Vec<String>,
}

impl World {
    /// A world without devices. The same seed gives the same ids, jitter and order.
    pub fn new(seed: u64) -> Self {
        #[cfg(feature = "teeth")]
        crate::plant_named();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let steps = Steps::default();
        let server = TestServer::new(folder.path().join("server.db"), ManualClock::new(&steps), seed);
        server.allow(TOKEN, USER, &[SCOPE]);
        Self { steps, server, folder, seed, devices: 0, shared: Vec::new() }
    }

    /// A path in the world's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration that [`World::device`] uses.
    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::new(self.path(&format!("{name}.db")), "https://endpoint.invalid", USER, SCOPE);
        config.durability = Durability::Normal;
        config
    }

    /// A new device, opened.
    pub fn device(&mut self, name: &str) -> TestDevice {
        self.device_with(name, self.config(name))
    }

    /// A new device with a configuration of its own.
    pub fn device_with(&mut self, name: &str, config: Config) -> TestDevice {
        self.device_sharing(name, config, MemoryLock::default())
    }

    /// A second process on the same file. Processes of one file share its lock.
    pub fn process(&mut self, of: &TestDevice, name: &str) -> TestDevice {
        self.device_sharing(name, of.config.clone(), of.lock.clone())
    }

    /// A new device whose file is a copy of another's, as after a restored backup.
    pub fn copy(&mut self, of: &TestDevice, name: &str) -> TestDevice {
        let mut config = of.config.clone();
        config.database = self.path(&format!("{name}.db"));
        copy_database(&of.config.database, &config.database);
        let copy = self.device_with(name, config);
        let device_id: String = copy.sql("SELECT device_id FROM device");
        self.server.share(&device_id);
        self.shared.push(device_id);
        let shared: u64 = copy.sql("SELECT coalesce(max(sequence), 0) FROM sync_queue");
        for device in [of, &copy] {
            device.shared_through.fetch_max(shared, Ordering::Relaxed);
        }
        copy
    }

    fn device_sharing(&mut self, name: &str, config: Config, lock: MemoryLock) -> TestDevice {
        self.devices += 1;
        let mut device = TestDevice {
            name: name.to_owned(),
            network: Network::new(name, &self.server),
            credentials: Credentials::new(TOKEN),
            clock: ManualClock::new(&self.steps),
            lock,
            config,
            random: Arc::new(SeededRandom::new(self.seed.wrapping_mul(1_000_003).wrapping_add(self.devices))),
            steps: self.steps.clone(),
            shared_through: AtomicU64::new(0),
            life: None,
        };
        device.open().expect("the device opens");
        device
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
        check::drained(&open_devices(devices));
    }

    /// Checks that nothing waits any more and that all replicas equal the server (invariant 5).
    ///
    /// # Panics
    /// If not.
    pub fn assert_converged(&self, devices: &[&TestDevice]) {
        check::converged(&self.server.path(), &open_devices(devices));
    }

    /// Checks what must hold at every moment (spec §9), by plain SQL on the files.
    ///
    /// # Panics
    /// With the invariant's name and what broke it.
    pub fn assert_invariants(&self, devices: &[&TestDevice]) {
        assert_eq!(
            self.server.violations(),
            Vec::<String>::new(),
            "the endpoint differs from the OpenAPI document or the model"
        );
        check::invariants(&self.server.path(), &self.shared, &open_devices(devices));
    }
}

fn open_devices<'a>(devices: &[&'a TestDevice]) -> Vec<check::Subject<'a>> {
    let subject = |device: &&'a TestDevice| check::Subject {
        name: &device.name,
        path: &device.config.database,
        shared_through: device.shared_through.load(Ordering::Relaxed),
        metrics: device.life.as_ref().and_then(|life| life.manager.metrics().ok()),
    };
    devices.iter().map(subject).collect()
}

/// A device of a [`World`]. It dereferences to its [`SyncManager`].
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
    random: Arc<SeededRandom>,
    steps: Steps,
    /// Operations up to this sequence are in the file of a copy as well.
    shared_through: AtomicU64,
    life: Option<Life>,
}

struct Life {
    manager: SyncManager,
    runtime: StepRuntime,
}

impl TestDevice {
    /// Opens the file again, after [`TestDevice::kill`] or `close`.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(&mut self) -> syncline_core::Result<()> {
        self.kill();
        let runtime = self.steps.owner();
        let environment = Environment {
            clock: Arc::new(self.clock.clone()),
            random: Arc::clone(&self.random) as _,
            runtime: Arc::new(runtime.clone()),
            transport: Arc::new(self.network.clone()),
            credentials: Arc::new(self.credentials.clone()),
            lock: Arc::new(self.lock.clone()),
            vfs: None,
        };
        let manager = SyncManager::open(self.config.clone(), environment)?;
        self.life = Some(Life { manager, runtime });
        Ok(())
    }

    /// The process dies where it stands: nothing is written, given back or told any more. Clones of its manager say `Closed`.
    pub fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            life.runtime.kill();
            drop(life);
        }
    }

    /// Dies and opens again.
    ///
    /// # Panics
    /// If the file does not open.
    pub fn restart(&mut self) {
        self.open().expect("the device opens again");
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
        let connection = rusqlite::Connection::open(self.path()).expect("the file opens");
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

impl Deref for TestDevice {
    type Target = SyncManager;

    fn deref(&self) -> &SyncManager {
        &self.life.as_ref().expect("the device is open").manager
    }
}
