//! Living a plan: what each step does to the world, and what must hold after it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use syncline_core::transport::Route;
use syncline_core::{ListQuery, OperationStatus};
use syncline_protocol::{ConflictRule, DeleteRule};
use syncline_server::endpoint::types::TypeConfig;

use super::account::{Account, retention};
use super::coverage::{Counts, Coverage};
use super::plan::{Plan, Setting, Step};
use super::situations;
use super::user::decide;
use super::watched::{LOOKED_THROUGH_WITHIN, Watched};
use crate::model::ServerState;
use crate::oracle::effects::ServerView;
use crate::oracle::{Verdict, hold};
use crate::world::World;

/// The entity types of every world, one for each rule, and one (`form`) whose schema refuses some values.
pub const TYPES: [&str; 6] = ["pin", "server_wins", "client_wins", "manual", "delete_wins", "form"];

/// Invariant 11: the longest backoff is five minutes; a wait under a wall clock that jumped is looked at once a minute.
const DRAINED_WITHIN: Duration = Duration::from_secs(300 + 60 + 10);
/// Between two looks whether all have drained.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(10);
/// Where something refuses one payload: how long the search for it may take, each step of it a request that comes to nothing.
const SEARCHED_WITHIN: Duration = Duration::from_secs(600);
/// What an endpoint asks for is honoured up to an hour.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// A device that has nothing to send pulls once a minute, under a clock that runs slow a little later; and if its pulls failed, once
/// the longest backoff is over.
const PULLED_WITHIN: Duration = Duration::from_secs(300 + 2 * 60 + 20);
/// How many devices there may be, copies and other users' files included.
const MOST_DEVICES: usize = 5;
/// Between two looks whether all agree.
const PULLED_AGAIN: Duration = Duration::from_secs(35);
/// Changes in a page, where pages are short.
const SHORT_PAGE: u64 = 2;
/// After so many decisions a user gives up what fails, and takes theirs.
const PATIENCE: u64 = 1;

/// What a life came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Over everything that was said on the wire, everything that the app was told, and everything that each device then held:
    /// equal for equal plans.
    pub hash: u64,
    /// Requests that arrived.
    pub requests: usize,
    /// Operations that the devices had recorded.
    pub operations: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// What the world came across.
    pub counts: Counts,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// After how many steps of the plan it was found; all of them: in the end.
    pub step: usize,
    /// What did not hold: the rule's name, a colon, and what broke it.
    pub what: String,
}

impl Violation {
    /// The rule's name.
    pub fn rule(&self) -> &str {
        self.what.split(':').next().unwrap_or_default()
    }
}

/// Lives a plan to its end.
///
/// # Errors
/// The first rule that does not hold.
pub fn live(plan: &Plan) -> Result<Trace, Violation> {
    lived(plan, |mut life| {
        life.end()?;
        life.trace()
    })
}

/// Takes a plan's steps, and leaves it at that: what breaks only in the end is not found.
///
/// # Errors
/// The first rule that does not hold.
pub fn live_steps(plan: &Plan) -> Result<(), Violation> {
    lived(plan, |_| Ok(()))
}

fn lived<T>(plan: &Plan, then: impl FnOnce(Life) -> Result<T, String>) -> Result<T, Violation> {
    let taken = Cell::new(0_usize);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(plan)?;
        for step in &plan.steps {
            life.take(step)?;
            life.after_step()?;
            taken.set(taken.get() + 1);
        }
        then(life)
    }));
    let what = match lived {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            format!("panic: {text}")
        }
    };
    Err(Violation { step: taken.get(), what })
}

struct Life {
    world: World,
    setting: Setting,
    devices: Vec<Watched>,
    server: Option<Arc<ServerState>>,
    server_seen: u64,
    snapshots: u32,
    coverage: Coverage,
    hash: DefaultHasher,
}

impl Life {
    fn new(plan: &Plan) -> Result<Self, String> {
        let world = World::on_disks(plan.seed);
        world.steps.shuffle(plan.seed);
        world.server.set_types(types());
        if plan.setting.small_batches {
            world.server.limit_operations(7);
        }
        let mut life = Self {
            coverage: world.coverage.clone(),
            world,
            setting: plan.setting.clone(),
            devices: Vec::new(),
            server: None,
            server_seen: 0,
            snapshots: 0,
            hash: DefaultHasher::new(),
        };
        for name in ["a", "b", "c", "d"].into_iter().take(usize::from(plan.setting.devices)) {
            life.add_device(name, Account::First)?;
        }
        Ok(life)
    }

    fn add_device(&mut self, name: &str, account: Account) -> Result<usize, String> {
        let config = account.config(&self.world, name, &self.setting);
        let device = self.world.device_with(name, config);
        if self.setting.short_pages {
            device.network.shorten_pulls(SHORT_PAGE);
        }
        self.devices.push(Watched::new(device, account, &self.setting)?);
        Ok(self.devices.len() - 1)
    }

    fn index(&self, device: u8) -> usize {
        usize::from(device & 127) % self.devices.len()
    }

    /// What the app may not do now is refused, and that is all: a plan need not know what is possible.
    fn take(&mut self, step: &Step) -> Verdict {
        let world = &self.world;
        match step {
            Step::Some { steps } => (0..*steps).for_each(|_| {
                world.steps.step();
            }),
            Step::Idle => world.run_until_idle(),
            Step::Pass { seconds } => world.advance(Duration::from_secs(u64::from(*seconds))),
            Step::Sleep { days } => {
                let ms = i64::from(*days) * 86_400_000;
                world.server.clock.shift(ms);
                self.devices.iter_mut().for_each(|device| device.sleep(ms));
            }
            Step::Stray { which } => self.stray(usize::from(*which)),
            Step::ServerDies { after, power } => self.world.server.die_after(u64::from(*after), *power),
            Step::ServerDiskFails { call, after } => self.world.server.fail_disk(call.failure(), u64::from(*after)),
            Step::ServerDiskFull { on } => self.world.server.set_full(*on),
            Step::Maintain => self.world.server.maintain(),
            Step::Snapshot => {
                self.snapshots += 1;
                self.world.server.snapshot(&self.snapshot());
            }
            Step::Restore { told } if self.snapshots > 0 => {
                self.coverage.note("fault", if *told { "server restored" } else { "server restored, untold" });
                self.world.server.restore(&self.snapshot(), *told);
            }
            Step::Restore { .. } => {}
            Step::Copy { device } => return self.copy(*device),
            Step::Switch { device } => return self.switch(*device),
            step => {
                let at = self.index(step.device());
                return self.devices[at].take(&mut self.world, step, step.device() > 127);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> std::path::PathBuf {
        self.world.server.snapshot_path(self.snapshots)
    }

    fn stray(&self, which: usize) {
        let old = self.world.server.with_exchanges(|all| all.get(which % all.len().max(1)).cloned());
        if let Some(old) = old {
            self.coverage.note("fault", "an old request arrives again");
            let mut request = old.request;
            // As an app of another make would send its first one, before it has pulled.
            if old.route == Route::Push && which % 4 == 3 && request.is_object() {
                request["epoch"] = serde_json::Value::Null;
            }
            self.world.server.stray(old.route, &request, &old.token);
        }
    }

    fn copy(&mut self, device: u8) -> Verdict {
        let at = self.index(device);
        if self.devices.len() < MOST_DEVICES && self.devices[at].is_alone() {
            let name = format!("copy-{}", self.devices.len());
            let copy = self.world.copy(&self.devices[at].device, &name);
            self.coverage.note("fault", "a file copied");
            let copy = self.devices[at].copied(copy, &self.setting)?;
            self.devices.push(copy);
        }
        Ok(())
    }

    /// The phone's other user signs in, and this one's file is closed; or the other way round.
    fn switch(&mut self, device: u8) -> Verdict {
        let at = self.index(device);
        if !self.devices[at].is_alone() {
            return Ok(());
        }
        if self.devices[at].partner.is_none() {
            if self.devices.len() >= MOST_DEVICES {
                return Ok(());
            }
            let account = self.devices[at].account.other();
            let partner = self.add_device(&format!("other-{at}"), account)?;
            self.devices[partner].partner = Some(at);
            self.devices[at].partner = Some(partner);
        } else if let Some(partner) = self.devices[at].partner {
            self.devices[partner].sign_in()?;
        }
        self.coverage.note("fault", "the user switched");
        self.devices[at].sign_out(&self.world)
    }

    /// Whoever died is started again; then everything is looked at.
    fn after_step(&mut self) -> Verdict {
        for at in 0..self.devices.len() {
            self.devices[at].revive()?;
        }
        self.check()
    }

    fn check(&mut self) -> Verdict {
        let told_all = !self.world.steps.has_callbacks();
        for device in &mut self.devices {
            device.check(told_all).map_err(|what| at(&device.device.name, &what))?;
        }
        if let Some(difference) = self.world.server.first_violation() {
            return Err(difference);
        }
        let changes = self.world.server.changes();
        let server_changed = self.server.is_none() || changes != self.server_seen;
        if server_changed {
            let state = self.world.server.state().map_err(|error| format!("storage: the server's file: {error}"))?;
            self.server = Some(state);
            self.server_seen = changes;
        }
        let server = self.server.as_ref().expect("read above");
        for device in &mut self.devices {
            if (server_changed || device.is_news())
                && let Some(server) = ServerView::of(server, &device.state().device.scope)
            {
                device.check_effects(&server).map_err(|what| at(&device.device.name, &what))?;
            }
            device.looked_at();
        }
        Ok(())
    }

    /// The faults stop, the users decide what is left, and all agree.
    fn end(&mut self) -> Verdict {
        self.world.server.heal();
        for at in 0..self.devices.len() {
            self.devices[at].heal()?;
        }
        while self.devices.iter().any(|device| device.device.network.held() > 0) {
            self.devices.iter().for_each(|device| device.device.network.release_all());
            self.world.run_until_idle();
        }
        for device in &mut self.devices {
            device.is_used()?;
        }
        // A server that went back tells each device when it pulls, and what comes of that may be news to all the others.
        let told = if self.setting.restores { DRAINED_WITHIN } else { Duration::ZERO };
        self.drained(told)?;
        if self.devices.iter().any(Watched::has_wall) {
            self.devices.iter().for_each(|device| device.device.network.heal());
            self.drained(told)?;
        }
        for round in 0.. {
            let mut decided = false;
            for device in &mut self.devices {
                for operation in device.in_states(&[OperationStatus::Failed, OperationStatus::Conflicted]) {
                    decide(device, &operation, round < PATIENCE)?;
                    decided = true;
                }
            }
            if !decided {
                break;
            }
            // Giving one up may fail those that depend on it, one after the other; but each only once.
            hold!(round < PATIENCE + self.recorded(), "liveness: what was given up fails again and again");
            self.drained(Duration::ZERO)?;
        }
        self.pulled()?;
        for device in &self.devices {
            check_reads(device).map_err(|what| at(&device.device.name, &what))?;
        }
        if self.setting.forgetful {
            self.world.advance(retention(&self.setting).age + 2 * LOOKED_THROUGH_WITHIN);
            self.check()?;
            for device in &self.devices {
                device.check_forgotten(&self.setting).map_err(|what| at(&device.device.name, &what))?;
            }
        }
        Ok(())
    }

    /// Invariant 5: once everybody has pulled, which they do unasked, all agree.
    fn pulled(&mut self) -> Verdict {
        let longest = self.devices.iter().map(Watched::told_to_wait).max().unwrap_or_default();
        let mut left = PULLED_WITHIN + longest.min(LONGEST_RETRY_AFTER);
        loop {
            let part = PULLED_AGAIN.min(left);
            self.world.advance(part);
            left -= part;
            self.check()?;
            match self.converged() {
                Err(what) if left.is_zero() => return Err(what),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    fn converged(&self) -> Verdict {
        let server = self.server.as_ref().expect("read");
        for device in &self.devices {
            let server = ServerView::of(server, &device.state().device.scope);
            let server = server.ok_or("convergence: the server has never heard of a scope")?;
            server.check_converged(device.state()).map_err(|what| at(&device.device.name, &what))?;
        }
        Ok(())
    }

    /// Invariant 11: time passes, nobody writes, and what can go has gone. `at_least`: so much time passes in any case.
    fn drained(&mut self, at_least: Duration) -> Verdict {
        let longest = self.devices.iter().map(Watched::told_to_wait).max().unwrap_or_default();
        let search = if self.devices.iter().any(Watched::has_wall) { SEARCHED_WITHIN } else { Duration::ZERO };
        let mut left = DRAINED_WITHIN + longest.min(LONGEST_RETRY_AFTER) + search;
        let first = at_least.min(left);
        self.world.advance(first);
        left -= first;
        // Most have drained long before they must have: from then on nothing would happen but pulls.
        while !left.is_zero() && !self.have_drained()? {
            let part = LOOKED_AT_AGAIN.min(left);
            self.world.advance(part);
            left -= part;
        }
        self.check()?;
        for device in &mut self.devices {
            device.check_drained().map_err(|what| at(&device.device.name, &what))?;
        }
        Ok(())
    }

    fn have_drained(&mut self) -> Result<bool, String> {
        for device in &mut self.devices {
            device.read()?;
        }
        Ok(self.devices.iter().all(|device| device.has_drained().is_ok()))
    }

    /// Operations that all devices have recorded.
    fn recorded(&self) -> u64 {
        self.devices.iter().map(|device| device.state().operations.last_key_value().map_or(0, |(last, _)| *last)).sum()
    }

    fn trace(mut self) -> Result<Trace, String> {
        let requests = self.world.server.with_exchanges(|exchanges| {
            for exchange in exchanges {
                exchange.device.hash(&mut self.hash);
                exchange.request.to_string().hash(&mut self.hash);
                exchange.answer.to_string().hash(&mut self.hash);
            }
            situations::wire::count(exchanges, &self.coverage);
            exchanges.len()
        });
        for device in &self.devices {
            format!("{:?}", device.state()).hash(&mut self.hash);
            device.hash_events(&mut self.hash);
            device.count(&self.coverage);
        }
        self.world.server.count(&self.coverage);
        situations::add_known(&self.coverage, &self.coverage.counts());
        Ok(Trace {
            hash: self.hash.finish(),
            requests,
            operations: self.recorded(),
            elapsed: Duration::from_millis(self.world.steps.now_ms()),
            counts: self.coverage.counts(),
        })
    }
}

/// What `list` gives is what the replica holds.
fn check_reads(device: &Watched) -> Verdict {
    for entity_type in TYPES {
        let page = device.device.list(&ListQuery { limit: 1_000, ..ListQuery::new(entity_type) }).map_err(failed)?;
        let live =
            device.state().entities.values().filter(|row| row.entity_type == entity_type && row.current.is_some());
        let (listed, live) = (page.entities.len(), live.count());
        hold!(listed == live, "replica: {listed} entities of {entity_type} are listed, and {live} are there");
    }
    Ok(())
}

fn at(device: &str, what: &str) -> String {
    match what.split_once(':') {
        Some((rule, what)) => format!("{rule}: device {device}:{what}"),
        None => format!("{what} (device {device})"),
    }
}

pub(super) fn failed(error: syncline_core::SynclineError) -> String {
    format!("errors: a call that must not fail said: {error}")
}

fn types() -> BTreeMap<String, TypeConfig> {
    let of = |name: &str| match name {
        "server_wins" => TypeConfig { conflict_rule: Some(ConflictRule::ServerWins), ..TypeConfig::default() },
        "client_wins" => TypeConfig { conflict_rule: Some(ConflictRule::ClientWins), ..TypeConfig::default() },
        "manual" => TypeConfig { conflict_rule: Some(ConflictRule::Manual), ..TypeConfig::default() },
        "delete_wins" => TypeConfig { delete_rule: Some(DeleteRule::DeleteWins), ..TypeConfig::default() },
        "form" => TypeConfig {
            schema: Some(json!({ "properties": { "f0": { "type": "integer", "maximum": 5 } } })),
            ..TypeConfig::default()
        },
        _ => TypeConfig::default(),
    };
    TYPES.iter().map(|name| ((*name).to_owned(), of(name))).collect()
}
