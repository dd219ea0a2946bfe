//! A device of the simulator: what the plan may do to it, and the oracle's eyes on it.

mod app;
mod check;
mod process;

use std::hash::DefaultHasher;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use syncline_core::environment::Clock;
use syncline_core::{NetworkStatus, OperationEvent, Receipt};

use super::account::{Account, retention};
use super::coverage::Coverage;
use super::faults::{fault_of, poison};
use super::life::failed;
use super::plan::{Setting, Step, Wallet};
use super::situations;
use crate::oracle::Verdict;
use crate::oracle::changes::Changes;
use crate::oracle::journal::Journal;
use crate::oracle::observe::{DeviceState, device_state};
use crate::oracle::queue::Allowances;
use crate::steps::Started;
use crate::world::{MOVED_TOKEN, TestDevice, World};

/// A device that has nothing else to do looks through what has ended once a minute; under a clock that runs slow, a little later.
pub(super) const LOOKED_THROUGH_WITHIN: Duration = Duration::from_secs(80);

type Events = Arc<Mutex<Vec<OperationEvent>>>;

pub(super) struct Watched {
    pub(super) device: TestDevice,
    /// A second process on the file.
    second: Option<TestDevice>,
    /// Two processes tell events, or callbacks of that time are still under way.
    two_told: bool,
    pub(super) account: Account,
    /// The device of the phone's other user. One of the two is signed out.
    pub(super) partner: Option<usize>,
    signed_out: bool,
    allowed: Allowances,
    /// It dies by a loss of power, once it dies.
    loses_power: bool,
    kept: u64,
    /// What the platform last reported of the network.
    online: bool,
    /// Background processing is on.
    processing: bool,
    journal: Journal,
    changes: Changes,
    /// The file was last held against its changes as it had so many.
    compared: u64,
    events: Events,
    /// Over everything the app was told.
    told: DefaultHasher,
    receipts: Vec<Receipt>,
    calls: Vec<Started<()>>,
    /// The oracle's own connection; it reads.
    file: Option<Connection>,
    state: Option<DeviceState>,
    seen: u64,
    news: bool,
    explained: usize,
    /// The plan did something to it since it was last looked at.
    touched: bool,
    /// What its processes had come to, and the time, when it was last looked at.
    pulse: Pulse,
    /// All events had been told by then, and led to what the file says.
    told_all: bool,
    transitions: Coverage,
}

type Steps = Option<(u64, u64, u64)>;
/// As long as it is the same, no code of the device has run, and no time has passed: whatever it says, it has said before.
type Pulse = (Steps, Steps, i64);

impl Watched {
    pub(super) fn new(device: TestDevice, account: Account, setting: &Setting) -> Result<Self, String> {
        device.credentials.set(Some(account.token()));
        device.network.listen();
        let mut watched = Self {
            device,
            second: None,
            two_told: false,
            account,
            partner: None,
            signed_out: false,
            allowed: Allowances { copied: false, restores: setting.restores },
            loses_power: false,
            // A server that goes back returns what was kept to pending.
            kept: if setting.restores { 0 } else { retention(setting).count },
            online: true,
            processing: false,
            journal: Journal::default(),
            changes: Changes::new(setting.restores),
            compared: 0,
            events: Events::default(),
            told: DefaultHasher::new(),
            receipts: Vec::new(),
            calls: Vec::new(),
            file: None,
            state: None,
            seen: 0,
            news: true,
            explained: 0,
            touched: true,
            pulse: Pulse::default(),
            told_all: false,
            transitions: Coverage::default(),
        };
        watched.opened()?;
        Ok(watched)
    }

    /// The device of a copy of this one's file.
    pub(super) fn copied(&mut self, device: TestDevice, setting: &Setting) -> Result<Self, String> {
        let mut copy = Self::new(device, self.account, setting)?;
        copy.journal = self.journal.clone();
        copy.receipts = self.receipts.clone();
        (self.allowed.copied, copy.allowed.copied) = (true, true);
        self.changes.copied();
        copy.changes.copied();
        copy.read()?;
        copy.journal.resume(copy.state.as_ref().expect("just read"));
        Ok(copy)
    }

    /// Neither signed out nor with a second process.
    pub(super) fn is_alone(&self) -> bool {
        !self.signed_out && self.second.is_none()
    }

    pub(super) fn state(&self) -> &DeviceState {
        self.state.as_ref().expect("every device is looked at when it is opened")
    }

    /// Whether the file was written to since the last [`Watched::looked_at`].
    pub(super) fn is_news(&self) -> bool {
        self.news
    }

    pub(super) fn looked_at(&mut self) {
        self.news = false;
    }

    /// A process was opened on the file.
    fn opened(&mut self) -> Verdict {
        listen(&self.device, &self.events)?;
        self.touched = true;
        self.two_told = self.second.is_some();
        (self.online, self.processing) = (true, false);
        // Recovering a log writes nothing, and may bring back what nobody was told of.
        self.state = None;
        self.read()?;
        self.journal.resume(self.state.as_ref().expect("just read"));
        self.changes.opened();
        Ok(())
    }

    /// Reads the file, if anything has been written to it.
    pub(super) fn read(&mut self) -> Verdict {
        let changes = self.device.changes();
        if self.state.is_some() && changes == self.seen {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(self.device.reader().map_err(storage)?);
        }
        let file = self.file.as_ref().expect("just opened");
        let state = device_state(file).map_err(storage)?;
        if let Some(before) = &self.state {
            situations::files::between(before, &state, &self.transitions);
        }
        self.state = Some(state);
        self.seen = changes;
        (self.news, self.touched) = (true, true);
        Ok(())
    }

    fn pulse(&self) -> Pulse {
        let second = self.second.as_ref().and_then(TestDevice::pulse);
        (self.device.pulse(), second, self.device.clock.now().millis())
    }

    pub(super) fn take(&mut self, world: &mut World, step: &Step, second: bool) -> Verdict {
        if self.signed_out {
            return Ok(());
        }
        self.touched = true;
        let chosen = self.second.as_ref().filter(|_| second).unwrap_or(&self.device);
        match step {
            Step::Next { fault, .. } => {
                let (fault, name) = fault_of(*fault, &world.server.clock);
                chosen.network.next_counted(fault, name);
            }
            Step::Poison { wall, .. } => poison(&chosen.network, *wall),
            Step::Release { newest, .. } if chosen.network.held() > 0 => {
                situations::held::released(&chosen.network.on_the_way(), *newest, self.state(), &world.coverage);
                if *newest {
                    world.coverage.note("fault", "answers reordered");
                    chosen.network.release_last();
                } else {
                    chosen.network.release();
                }
            }
            Step::Release { .. } => {}
            Step::Credential { wallet, .. } => {
                world.coverage.note("fault", "a token expired");
                self.change_credential(*wallet);
            }
            Step::Kill { after, .. } => self.dies_after(*after, false),
            Step::PowerLoss { after, .. } => self.dies_after(*after, true),
            Step::DiskFails { call, after, .. } => {
                self.changes.be_lenient();
                self.device.fail_disk(call.failure(), u64::from(*after));
            }
            Step::DiskFull { on, .. } => {
                self.changes.be_lenient();
                self.device.set_full(*on);
            }
            Step::Jump { seconds, .. } => {
                self.changes.be_lenient();
                world.coverage.note("fault", "a clock jumped");
                chosen.clock.shift(*seconds * 1_000);
            }
            Step::Drift { permille, .. } => {
                self.changes.be_lenient();
                world.coverage.note("fault", "a clock drifts");
                chosen.clock.drift(i64::from(*permille));
            }
            Step::Steal { .. } if self.second.is_some() => {
                self.transitions.note("fault", "a process lock lost");
                self.device.lock.steal();
            }
            Step::Second { on, .. } => return self.second_process(world, *on),
            Step::Update { after, .. } => return self.update(*after),
            Step::Close { after, power, .. } => return self.close(*after, *power),
            Step::SignOut { mode, .. } => return self.leave(world, *mode),
            step => return self.use_app(world, step, second),
        }
        Ok(())
    }

    fn change_credential(&self, wallet: Wallet) {
        let (good, credentials) = (self.account.token(), &self.device.credentials);
        match wallet {
            Wallet::Stale => {
                credentials.set(Some("an expired token"));
                credentials.set_fresh(good);
            }
            Wallet::Expired => credentials.set(Some("an expired token")),
            Wallet::Moved => credentials.set(Some(MOVED_TOKEN)),
            Wallet::Broken => credentials.fail("the sign-in service does not answer"),
            Wallet::Good => credentials.set(Some(good)),
        }
    }

    /// No more trouble.
    pub(super) fn heal(&mut self) -> Verdict {
        if let Some(mut second) = self.second.take() {
            second.network.heal();
            second.network.release_all();
            second.kill();
        }
        self.device.heal_disk();
        self.loses_power = false;
        self.device.network.heal_single();
        self.device.credentials.set(Some(self.account.token()));
        if self.signed_out { self.sign_in() } else { Ok(()) }
    }

    /// It is processed, and the platform has a network. Nothing else wakes what waits: its time comes by itself.
    pub(super) fn is_used(&mut self) -> Verdict {
        if !std::mem::replace(&mut self.online, true) {
            self.device.network_changed(NetworkStatus::Online { metered: false }).map_err(failed)?;
        }
        if !std::mem::replace(&mut self.processing, true) {
            self.device.start().map_err(failed)?;
        }
        Ok(())
    }
}

fn listen(device: &TestDevice, events: &Events) -> Verdict {
    let events = Arc::clone(events);
    device.add_operation_listener(move |event| events.lock().push(event)).map(drop).map_err(failed)
}

fn storage(error: rusqlite::Error) -> String {
    format!("storage: the file cannot be read: {error}")
}
