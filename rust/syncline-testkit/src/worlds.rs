//! Random lives of whole devices over the real endpoint. [`run_plan`] takes a [`Plan`]'s steps, checks spec §9 on the way, and
//! in the end lets the faults stop, time pass and the user decide what is left: then everybody must agree.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::json;
use syncline_core::{
    EntityType, NetworkStatus, NewOperation, Operation, OperationFilter, OperationStatus, Receipt, Resolution,
    Retention, SyncManager, SyncSummary,
};
use syncline_protocol::{ConflictRule, DeleteRule, ProblemCode};
use syncline_server::endpoint::types::TypeConfig;

use crate::network::{Fault, Network};
use crate::plan::{Action, Intent, Kind, Mishap, Plan, Step, Wall};
use crate::steps::Started;
use crate::world::{TOKEN, TestDevice, World};

/// The entity types of every random world, one for each rule, and one (`form`) whose schema refuses some values.
pub const TYPES: [&str; 6] = ["pin", "server_wins", "client_wins", "manual", "delete_wins", "form"];

/// Invariant 11: the longest backoff is five minutes; a wait under a wall clock that jumped is looked at once a minute.
const DRAINED_WITHIN: Duration = Duration::from_secs(300 + 60 + 10);
/// A device that has nothing to send pulls once a minute.
const PULLED_WITHIN: Duration = Duration::from_secs(2 * 60 + 10);
/// How many devices there may be, copies included.
const MOST_DEVICES: usize = 5;
/// After so many decisions a user gives up what fails, and takes theirs.
const PATIENCE: u64 = 2;

/// What a life came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Over everything that was said on the wire, and everything that each device then held: equal for equal plans.
    pub hash: u64,
    /// Requests that arrived.
    pub requests: usize,
    /// Operations that the devices had recorded.
    pub operations: u64,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// After how many steps of the plan it was found; all of them: in the end.
    pub step: usize,
    /// What did not hold.
    pub what: String,
}

/// Runs a plan to its end.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run_plan(plan: &Plan) -> Result<Trace, Violation> {
    let taken = Cell::new(0_usize);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(plan.seed);
        for step in &plan.steps {
            life.take(step);
            taken.set(taken.get() + 1);
            if taken.get().is_multiple_of(4) {
                life.check();
            }
        }
        life.end();
        life.trace()
    }));
    lived.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Violation { step: taken.get(), what }
    })
}

struct Life {
    world: World,
    /// Calls of `process_queue` under way, and the last receipts, go with their device.
    devices: Vec<Lived>,
    snapshots: u32,
}

struct Lived {
    device: TestDevice,
    receipts: Vec<Receipt>,
    calls: Vec<Started<syncline_core::Result<SyncSummary>>>,
}

impl Lived {
    fn new(device: TestDevice) -> Self {
        Self { device, receipts: Vec::new(), calls: Vec::new() }
    }

    fn kill(&mut self) {
        self.device.kill();
        self.calls.clear();
        self.device.restart();
    }

    fn in_states(&self, statuses: &[OperationStatus]) -> Vec<Operation> {
        let filter = OperationFilter { statuses: statuses.to_vec(), limit: 1_000, ..OperationFilter::default() };
        self.device.operations(&filter).expect("operations can be listed")
    }
}

impl Life {
    /// Two to four devices; by the seed they forget early, fold nothing, or keep their old values to themselves.
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.steps.shuffle(seed);
        world.server.set_types(types());
        let devices = ["a", "b", "c", "d"][..2 + (seed % 3) as usize].iter().map(|name| {
            let mut config = world.config(name);
            if seed % 4 == 3 {
                config.retention = Retention { age: Duration::from_secs(60), count: 5 };
            }
            let settings =
                EntityType { coalesce: seed % 5 != 4, send_before: seed.is_multiple_of(2), ..EntityType::default() };
            for entity_type in TYPES {
                config = config.entity_type(entity_type, settings.clone());
            }
            Lived::new(world.device_with(name, config))
        });
        let devices = devices.collect();
        Self { world, devices, snapshots: 0 }
    }

    fn at(&mut self, device: u8) -> &mut Lived {
        let at = device as usize % self.devices.len();
        &mut self.devices[at]
    }

    /// What the app may not do now is refused, and that is all: a plan need not know what is possible.
    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { device, intent, depends } => self.write(*device, *intent, *depends),
            Step::Group { device, members } => self.group(*device, members),
            Step::Act { device, action, which } => act(self.at(*device), *action, *which as usize),
            Step::Next { device, fault } => self.at(*device).device.network.next(fault_of(*fault)),
            Step::Poison { device, wall } => poison(&self.at(*device).device.network, *wall),
            Step::Release { device, newest } => release(&self.at(*device).device.network, *newest),
            Step::Stray { which } => self.stray(*which as usize),
            Step::Process { device } => {
                let manager = self.at(*device).device.manager();
                let call = self.world.start(process(manager));
                self.at(*device).calls.push(call);
            }
            Step::Background { device, on: true } => self.at(*device).device.start().expect("the device is open"),
            Step::Background { device, on: false } => self.at(*device).device.stop().expect("the device is open"),
            Step::Online { device, on } => {
                let status = if *on { NetworkStatus::Online { metered: false } } else { NetworkStatus::Offline };
                self.at(*device).device.network_changed(status).expect("the device is open");
            }
            Step::Some { steps } => (0..*steps).for_each(|_| {
                self.world.steps.step();
            }),
            Step::Idle => self.world.run_until_idle(),
            Step::Pass { seconds } => self.world.advance_secs(u64::from(*seconds)),
            Step::Kill { device } => self.at(*device).kill(),
            Step::Copy { device } => self.copy(*device),
            Step::Jump { device, seconds } => self.at(*device).device.clock.shift(i64::from(*seconds) * 1_000),
            Step::Snapshot => {
                self.snapshots += 1;
                self.world.server.snapshot(&self.snapshot());
            }
            Step::Restore if self.snapshots > 0 => self.world.server.restore(&self.snapshot(), true),
            Step::Restore => {}
        }
    }

    fn snapshot(&self) -> std::path::PathBuf {
        self.world.path(&format!("snapshot-{}.db", self.snapshots))
    }

    fn write(&mut self, device: u8, intent: Intent, depends: bool) {
        let lived = self.at(device);
        let alone = operation(intent);
        let receipt = match lived.receipts.last() {
            // What was cancelled meanwhile is nothing to wait for, and refused.
            Some(earlier) if depends => {
                lived.device.enqueue(alone.clone().after(earlier)).or_else(|_| lived.device.enqueue(alone))
            }
            _ => lived.device.enqueue(alone),
        };
        lived.receipts.push(receipt.expect("what a plan writes is valid"));
    }

    fn group(&mut self, device: u8, members: &[Intent]) {
        let lived = self.at(device);
        let mut transaction = lived.device.begin_transaction().expect("the device is open");
        for member in members {
            transaction.add(operation(*member)).expect("what a plan writes is valid");
        }
        let receipts = transaction.commit_queued().expect("what a plan writes is valid");
        lived.receipts.extend(receipts);
    }

    fn stray(&self, which: usize) {
        let exchanges = self.world.server.exchanges();
        if !exchanges.is_empty() {
            let old = &exchanges[which % exchanges.len()];
            self.world.server.stray(old.route, &old.request, TOKEN);
        }
    }

    fn copy(&mut self, device: u8) {
        if self.devices.len() < MOST_DEVICES {
            let name = format!("copy-{}", self.devices.len());
            let at = device as usize % self.devices.len();
            let copy = self.world.copy(&self.devices[at].device, &name);
            self.devices.push(Lived::new(copy));
        }
    }

    fn check(&self) {
        self.world.assert_invariants(&self.all());
    }

    /// The faults stop, the users decide what is left, and all agree.
    fn end(&mut self) {
        for lived in &self.devices {
            lived.device.network.heal();
        }
        while self.devices.iter().any(|lived| lived.device.network.held() > 0) {
            self.devices.iter().for_each(|lived| lived.device.network.release_all());
            self.world.run_until_idle();
        }
        for lived in &self.devices {
            lived.device.network_changed(NetworkStatus::Online { metered: false }).expect("the device is open");
            lived.device.start().expect("the device is open");
        }
        self.drained();
        for round in 0.. {
            let mut decided = false;
            for lived in &self.devices {
                for operation in lived.in_states(&[OperationStatus::Failed, OperationStatus::Conflicted]) {
                    decide(&lived.device, &operation, round);
                    decided = true;
                }
            }
            if !decided {
                break;
            }
            // Giving one up may fail those that depend on it, one after the other; but each only once.
            assert!(round < PATIENCE + self.recorded(), "liveness: what was given up fails again and again");
            self.drained();
        }
        self.world.advance(PULLED_WITHIN);
        self.check();
        self.world.assert_converged(&self.all());
    }

    /// Invariant 11: time passes, nobody writes, and what can go has gone.
    fn drained(&self) {
        self.world.advance(DRAINED_WITHIN);
        self.check();
        self.world.assert_drained(&self.all());
    }

    fn all(&self) -> Vec<&TestDevice> {
        self.devices.iter().map(|lived| &lived.device).collect()
    }

    /// Operations that all devices have recorded.
    fn recorded(&self) -> u64 {
        let of = |lived: &Lived| lived.device.metrics().expect("the device is open").enqueued_total;
        self.devices.iter().map(of).sum()
    }

    fn trace(&self) -> Trace {
        let mut hash = DefaultHasher::new();
        let exchanges = self.world.server.exchanges();
        for exchange in &exchanges {
            exchange.device.hash(&mut hash);
            exchange.request.to_string().hash(&mut hash);
            exchange.answer.to_string().hash(&mut hash);
        }
        for lived in &self.devices {
            for operation in lived.in_states(&[]) {
                format!("{operation:?}").hash(&mut hash);
            }
        }
        Trace { hash: hash.finish(), requests: exchanges.len(), operations: self.recorded() }
    }
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

fn operation(intent: Intent) -> NewOperation {
    let entity_type = TYPES[intent.entity_type as usize % TYPES.len()];
    let entity_id = format!("e{}", intent.entity);
    match intent.kind {
        Kind::Create => NewOperation::create(entity_type, entity_id, intent.payload()),
        Kind::Update => NewOperation::update(entity_type, entity_id, intent.payload()),
        Kind::Delete => NewOperation::delete(entity_type, entity_id),
    }
}

async fn process(manager: SyncManager) -> syncline_core::Result<SyncSummary> {
    manager.process_queue().await
}

fn fault_of(mishap: Mishap) -> Fault {
    match mishap {
        Mishap::Unreachable => Fault::Unreachable,
        Mishap::LostBefore => Fault::DropBefore,
        Mishap::LostAfter => Fault::DropAfter,
        Mishap::HeldRequest => Fault::HoldRequest,
        Mishap::HeldAnswer => Fault::HoldAnswer,
        Mishap::Twice => Fault::Duplicate,
        Mishap::Truncated => Fault::ours(200, r#"{"applied":1,"results":[{"id"#).after_commit(),
        Mishap::Portal => Fault::proxy(200, "<html>Welcome to the hotel</html>"),
        Mishap::ProxyNotFound => Fault::proxy(404, "<html>404</html>"),
        Mishap::ProxyBadGateway => Fault::proxy(502, "<html>502</html>"),
        Mishap::ProxyAfter => Fault::proxy(502, "<html>502</html>").after_commit(),
        Mishap::Unauthorized => Fault::problem(ProblemCode::Unauthorized),
        Mishap::Forbidden => Fault::problem(ProblemCode::Forbidden),
        Mishap::TooLarge => Fault::problem(ProblemCode::BodyTooLarge),
        Mishap::ProxyTooLarge => Fault::proxy(413, ""),
        Mishap::TooMany => Fault::problem(ProblemCode::RateLimited).retry_after("20"),
        Mishap::Unavailable => Fault::problem(ProblemCode::Unavailable).retry_after("120"),
        Mishap::Internal => Fault::problem(ProblemCode::Internal),
    }
}

fn poison(network: &Network, wall: Wall) {
    network.script(move |request| {
        let text = String::from_utf8_lossy(&request.body);
        text.contains("poison").then(|| match wall {
            Wall::Endpoint => Fault::problem(ProblemCode::Internal),
            Wall::Firewall => Fault::proxy(403, "<html>Blocked</html>"),
        })
    });
}

fn release(network: &Network, newest: bool) {
    match (network.held(), newest) {
        (0, _) => {}
        (_, true) => network.release_last(),
        (_, false) => network.release(),
    }
}

/// The user picks something that the action is for.
fn act(lived: &Lived, action: Action, which: usize) {
    use OperationStatus::{Conflicted, Failed, InProgress, Pending};
    let device = &lived.device;
    if action == Action::Reopen {
        let ledger = device.conflicts(false, 100).expect("the ledger can be read");
        if !ledger.is_empty() {
            // A conflict that is still to be resolved cannot be reopened.
            let _ = device.reopen_conflict(&ledger[which % ledger.len()].conflict.id);
        }
        return;
    }
    let statuses: &[OperationStatus] = match action {
        Action::Cancel => &[Pending, InProgress],
        Action::Retry => &[Failed],
        Action::Discard => &[Failed, Conflicted],
        _ => &[Conflicted],
    };
    let found = lived.in_states(statuses);
    if found.is_empty() {
        return;
    }
    let id = &found[which % found.len()].id;
    // A group may be half under way: then it is refused, as it must be.
    let _ = match action {
        Action::Cancel => device.cancel(id),
        Action::Retry => device.retry(id),
        Action::Discard => device.discard(id),
        Action::TakeLocal => device.resolve_conflict(id, Resolution::TakeLocal),
        Action::TakeRemote => device.resolve_conflict(id, Resolution::TakeRemote),
        Action::Merged | Action::Reopen => {
            device.resolve_conflict(id, Resolution::Merged(r#"{"f0":4,"f1":4}"#.to_owned()))
        }
    };
}

/// What a user does in the end about an operation that failed or conflicts; a decision about a group's other member has decided.
fn decide(device: &TestDevice, operation: &Operation, round: u64) {
    let patient = round < PATIENCE;
    let _ = match (operation.status, operation.sequence % 3) {
        (OperationStatus::Failed, _) if patient => device.retry(&operation.id),
        (OperationStatus::Failed, _) => device.discard(&operation.id),
        (_, 0) if patient => device.resolve_conflict(&operation.id, Resolution::TakeLocal),
        (_, 1) if patient => {
            device.resolve_conflict(&operation.id, Resolution::Merged(r#"{"f1":3,"f2":3}"#.to_owned()))
        }
        _ => device.resolve_conflict(&operation.id, Resolution::TakeRemote),
    };
}
