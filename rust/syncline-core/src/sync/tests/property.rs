use proptest::prelude::*;

use super::*;
use crate::sync::NetworkStatus;
use crate::transport::TransportError;

/// What the app, the network and the process may do, in any order.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Update(u8, Option<u8>),
    Group(u8, u8),
    Cancel(u8),
    /// Lets the driver start what it wants to.
    Start,
    /// Answers one of the requests in flight, the n-th of them, this way.
    Answer(u8, Fate),
    Advance(u32),
    Offline,
    Online,
    Nudge,
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    LostBefore,
    LostAfter,
    Proxy(u16),
    Problem(ProblemCode),
    Behind,
    Forked,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Done),
        2 => Just(Fate::LostBefore),
        2 => Just(Fate::LostAfter),
        1 => prop::sample::select(vec![200u16, 403, 413, 502]).prop_map(Fate::Proxy),
        2 => prop::sample::select(vec![
            ProblemCode::Unauthorized, ProblemCode::RateLimited, ProblemCode::BodyTooLarge, ProblemCode::UnsupportedProtocol,
        ])
        .prop_map(Fate::Problem),
        1 => Just(Fate::Behind),
        1 => Just(Fate::Forked),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..5).prop_map(Step::Create),
        3 => (0u8..5, prop::option::of(any::<u8>())).prop_map(|(entity, after)| Step::Update(entity, after)),
        1 => (0u8..5, 0u8..5).prop_map(|(a, b)| Step::Group(a, b)),
        1 => any::<u8>().prop_map(Step::Cancel),
        6 => Just(Step::Start),
        8 => (any::<u8>(), fate()).prop_map(|(which, fate)| Step::Answer(which, fate)),
        2 => (0u32..400_000).prop_map(Step::Advance),
        1 => Just(Step::Offline),
        1 => Just(Step::Online),
        1 => Just(Step::Nudge),
        1 => Just(Step::Restart),
    ]
}

struct World {
    rig: Rig,
    endpoint: Endpoint,
    open: Vec<Sending>,
    receipts: Vec<Receipt>,
    epochs: Vec<&'static str>,
}

impl World {
    fn new(in_flight: usize) -> Self {
        let (endpoint, rig) = ready(in_flight);
        Self { rig, endpoint, open: Vec::new(), receipts: Vec::new(), epochs: vec!["e5", "e4", "e3", "e2"] }
    }

    fn step(&mut self, step: Step) {
        let name = |entity: u8| format!("e{entity}");
        match step {
            Step::Create(entity) => {
                let receipt = self.rig.create(&name(entity));
                self.receipts.push(receipt);
            }
            Step::Update(entity, after) => {
                let mut update = NewOperation::update("pin", name(entity), r#"{"a":1}"#);
                let earlier = after.and_then(|n| self.receipts.get(usize::from(n) % self.receipts.len().max(1)));
                // Nothing can depend on what was cancelled.
                if let Some(receipt) = earlier.filter(|receipt| self.rig.status(receipt) != OperationStatus::Cancelled)
                {
                    update = update.after(receipt);
                }
                let receipt = self.rig.enqueue(update);
                self.receipts.push(receipt);
            }
            Step::Group(a, b) => {
                let members = [a, b].map(|entity| NewOperation::update("pin", name(entity), r#"{"g":1}"#));
                let receipts = self.rig.group(members.into());
                self.receipts.extend(receipts);
            }
            Step::Cancel(n) => {
                if let Some(receipt) = self.receipts.get(usize::from(n) % self.receipts.len().max(1)) {
                    // It may have ended already: then there is nothing to cancel.
                    let _ = self.rig.store.cancel(&receipt.id, self.rig.now);
                }
            }
            Step::Start => self.start(),
            Step::Answer(which, fate) if !self.open.is_empty() => {
                let sent = self.open.remove(usize::from(which) % self.open.len());
                let outcome = self.outcome(&sent, fate);
                self.rig.answer(&sent, outcome);
            }
            Step::Answer(..) => {}
            Step::Advance(millis) => self.rig.advance(millis.into()),
            Step::Offline => self.rig.driver.network_changed(NetworkStatus::Offline),
            Step::Online => self.rig.driver.network_changed(NetworkStatus::Online { metered: false }),
            Step::Nudge => self.rig.driver.nudge(),
            Step::Restart => self.rig.restart(),
        }
    }

    fn start(&mut self) {
        while let Action::Send { ticket, request, reason } = self.rig.next() {
            self.open.push(sending(ticket, &request, reason));
        }
    }

    fn outcome(&mut self, sent: &Sending, fate: Fate) -> Outcome {
        let lost = || Outcome::NoAnswer(TransportError::Broken("reset".into()));
        match fate {
            Fate::Done => self.honest(sent),
            Fate::LostBefore => lost(),
            Fate::LostAfter => {
                self.honest(sent);
                lost()
            }
            Fate::Proxy(status) => theirs(status),
            Fate::Problem(code) => problem(code),
            Fate::Forked => problem(ProblemCode::DeviceForked),
            Fate::Behind => {
                // Restored from a backup made before anything happened.
                if let Some(epoch) = self.epochs.pop() {
                    self.endpoint = Endpoint { epoch, ..Endpoint::default() };
                }
                self.honest(sent)
            }
        }
    }

    fn honest(&mut self, sent: &Sending) -> Outcome {
        let epoch = &sent.body["epoch"];
        if !epoch.is_null() && epoch != self.endpoint.epoch {
            let mut said = Problem::new(ProblemCode::ServerBehind);
            (said.epoch, said.mark) = (Some(self.endpoint.epoch.into()), Some(self.endpoint.mark));
            return ours(409, &serde_json::to_value(said).unwrap());
        }
        self.endpoint.answer(sent)
    }

    /// Lane order on the server, and conservation on the device.
    fn check(&self) {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (entity, sequence) in &self.endpoint.applied {
            let before = last.insert(entity, *sequence);
            assert!(before.is_none_or(|before| before < *sequence), "{entity}: {before:?} before {sequence}");
        }
        self.rig.completed();
    }

    /// Faults stop: time alone must bring everything to its end.
    fn settle(&mut self) {
        self.rig.driver.network_changed(NetworkStatus::Online { metered: false });
        for sent in std::mem::take(&mut self.open) {
            self.rig.answer(&sent, Outcome::NoAnswer(TransportError::Timeout));
        }
        let Self { rig, endpoint, .. } = self;
        let current = endpoint.epoch;
        rig.run_for(1_800_000, |request| {
            if request.body["epoch"].is_null() || request.body["epoch"] == current {
                return endpoint.answer(request);
            }
            let mut said = Problem::new(ProblemCode::ServerBehind);
            (said.epoch, said.mark) = (Some(current.into()), Some(endpoint.mark));
            ours(409, &serde_json::to_value(said).unwrap())
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_happens_lanes_stay_in_order_and_the_queue_drains(
        steps in prop::collection::vec(step(), 1..120),
        in_flight in 1usize..4,
    ) {
        let mut world = World::new(in_flight);
        for step in steps {
            world.step(step);
            world.check();
        }
        world.settle();
        world.check();
        for receipt in &world.receipts {
            let operation = world.rig.operation(&receipt.id);
            let allowed = match operation.status {
                OperationStatus::Completed => true,
                OperationStatus::Cancelled => true,
                // What depends on something withdrawn, or was too large by itself, is the user's to decide.
                OperationStatus::Failed => ["dependency_cancelled", "too_large", "transaction_failed"]
                    .contains(&operation.reason.as_deref().unwrap_or_default()),
                // And what waits for such a one waits with it.
                OperationStatus::Pending => {
                    world.rig.reader().facts(&receipt.id).unwrap().is_some_and(|facts| {
                        facts.predecessor.iter().chain(&facts.dependencies).chain(&facts.members).any(|blocker| {
                            blocker.status == OperationStatus::Failed || blocker.status == OperationStatus::Pending
                        })
                    })
                }
                OperationStatus::InProgress | OperationStatus::Conflicted => false,
            };
            prop_assert!(allowed, "{}: {:?} {:?}", operation.id, operation.status, operation.reason);
            prop_assert_eq!(operation.attempts, 0);
        }
    }
}
