//! Random pushes of several devices: what must hold whatever they do. proptest prints the seed of what fails.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use syncline_protocol::{Clock, Dot, PushResponse, Record, Status};

use crate::world::{World, op, with};

/// A device that keeps no queue: it writes, pushes at once, and pulls now and then.
#[derive(Default)]
struct Device {
    name: &'static str,
    sequence: u64,
    cursor: Option<String>,
    base: BTreeMap<String, Base>,
}

#[derive(Default, Clone, Debug)]
struct Base {
    version: u64,
    record: Option<Record>,
    clock: Clock,
}

#[derive(Clone, Debug)]
enum Act {
    Push { device: usize, writes: Vec<(u8, u8, Value)>, group: bool },
    Pull { device: usize, limit: u64 },
}

const IDS: [&str; 3] = ["e0", "e1", "e2"];

fn act() -> impl Strategy<Value = Act> {
    let fields = prop::collection::btree_map("[fg]", prop::option::of(0u8..3), 0..3);
    let write = (0u8..3, 0u8..6, fields.prop_map(|fields| json!(fields)));
    prop_oneof![
        3 => (0usize..3, prop::collection::vec(write, 0..4), any::<bool>())
            .prop_map(|(device, writes, group)| Act::Push { device, writes, group }),
        2 => (0usize..3, 1u64..4).prop_map(|(device, limit)| Act::Pull { device, limit }),
    ]
}

impl Device {
    /// Operations as a device would send them: each one's clock covers what goes before it in its lane.
    fn operations(&mut self, writes: &[(u8, u8, Value)], group: bool) -> Vec<Value> {
        let mut clocks: BTreeMap<&str, Clock> = BTreeMap::new();
        let mut operations = Vec::new();
        for (entity, kind, payload) in writes {
            let id = IDS[*entity as usize];
            let base = self.base.get(id).cloned().unwrap_or_default();
            let clock = clocks.entry(id).or_insert(base.clock);
            self.sequence += 1;
            let kind = ["create", "update", "update", "update", "create", "delete"][*kind as usize];
            let payload = if kind == "delete" { json!(null) } else { payload.clone() };
            let operation = op(self.name, self.sequence, kind, id, payload, json!(clock));
            clock.add(&Dot::new(self.name, self.sequence));
            operations.push(if group {
                with(operation, json!({"transaction_id": format!("t{}", self.sequence)}))
            } else {
                operation
            });
        }
        if group {
            operations =
                operations.into_iter().map(|operation| with(operation, json!({"transaction_id": "t"}))).collect();
        }
        operations
    }

    /// Settles an answer as spec §3 says: left-out results are computed, told ones replace.
    fn settle(&mut self, operations: &[Value], answer: &PushResponse) {
        let told: BTreeMap<&str, _> = answer.results.iter().map(|result| (result.id.as_str(), result)).collect();
        let before = self.base.clone();
        for operation in operations {
            let id = operation["entity_id"].as_str().unwrap();
            if told.contains_key(operation["id"].as_str().unwrap()) {
                continue;
            }
            let base = self.base.entry(id.to_owned()).or_default();
            // It had reached it before: nothing changed.
            if before.get(id).is_some_and(|base| base.version >= answer.version) {
                continue;
            }
            base.version = answer.version;
            base.clock.add(&Dot::new(self.name, operation["sequence"].as_u64().unwrap()));
            match operation["operation"].as_str().unwrap() {
                "delete" => base.record = None,
                _ => {
                    let patch = Record::parse(&operation["payload"].to_string()).unwrap();
                    base.record.get_or_insert_default().apply(&patch);
                }
            }
        }
        for operation in operations {
            let Some(result) = told.get(operation["id"].as_str().unwrap()) else { continue };
            let base = self.base.entry(operation["entity_id"].as_str().unwrap().to_owned()).or_default();
            if result.version > base.version {
                assert_eq!(result.deleted, result.record.is_none());
                *base = Base { version: result.version, record: result.record.clone(), clock: result.clock.clone() };
            }
        }
        if answer.cursor.is_some() {
            self.cursor.clone_from(&answer.cursor);
        }
    }

    /// Pulls one page; says whether there is more.
    fn pull(&mut self, world: &mut World, limit: u64) -> bool {
        let page = world.pull_with(json!({"device_id": self.name, "cursor": self.cursor, "limit": limit}));
        assert!(!page.reset);
        for change in page.changes {
            let base = self.base.entry(change.entity_id).or_default();
            if change.version > base.version {
                *base = Base { version: change.version, record: change.record, clock: change.clock };
            }
        }
        self.cursor = Some(page.cursor);
        page.has_more
    }
}

fn push(world: &mut World, device: &mut Device, writes: &[(u8, u8, Value)], group: bool) -> Result<(), TestCaseError> {
    let operations = device.operations(writes, group);
    let before = world.endpoint.entities("team").unwrap();
    let head = world.endpoint.head("team").unwrap();
    let request = with(world.request(device.name, operations.clone()), json!({"cursor": device.cursor}));

    let dry: PushResponse = world.push_as_is(&with(request.clone(), json!({"dry_run": true})));
    prop_assert_eq!(&world.endpoint.entities("team").unwrap(), &before, "a dry run changes nothing");
    let answer = world.push_as_is(&request);
    let statuses = |answer: &PushResponse| answer.results.iter().map(|result| result.status).collect::<Vec<_>>();
    prop_assert_eq!((statuses(&dry), dry.applied), (statuses(&answer), answer.applied), "a dry run judges alike");
    prop_assert_eq!(answer.applied as usize + answer.results.len(), operations.len());

    let after = world.endpoint.entities("team").unwrap();
    let fresh: Vec<_> = after.iter().filter(|entity| entity.version > head).map(|entity| entity.version).collect();
    let changed = after
        .iter()
        .filter(|entity| before.iter().all(|old| old.record != entity.record || old.entity_id != entity.entity_id));
    prop_assert_eq!(changed.count(), fresh.len(), "one version per entity that changed");
    prop_assert_eq!(answer.version, head + fresh.len() as u64, "the head rises densely");

    if group && answer.results.iter().any(|result| result.status == Status::Rejected) {
        prop_assert_eq!(fresh.len(), 0, "of a transaction all or none");
    }
    let again = world.push("again", vec![]);
    prop_assert_eq!(again.version, answer.version);
    device.settle(&operations, &answer);

    let repeated = world.push_as_is(&request);
    prop_assert_eq!(repeated.version, answer.version, "a repeated push changes nothing");
    prop_assert!(
        repeated.results.iter().all(|result| matches!(result.status, Status::AlreadyProcessed | Status::Deferred))
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_devices_do_versions_are_dense_pushes_repeat_and_replicas_converge(acts in prop::collection::vec(act(), 1..14)) {
        let mut world = World::new();
        world.epoch();
        let mut devices = ["A", "B", "C"].map(|name| Device { name, ..Device::default() });
        for act in &acts {
            match act {
                Act::Push { device, writes, group } => push(&mut world, &mut devices[*device], writes, *group)?,
                Act::Pull { device, limit } => {
                    devices[*device].pull(&mut world, *limit);
                }
            }
        }
        let server: BTreeMap<_, _> = world.endpoint.entities("team").unwrap().into_iter()
            .filter_map(|entity| Some((entity.entity_id.clone(), entity.record.visible()?.clone()))).collect();
        for device in &mut devices {
            while device.pull(&mut world, 2) {}
            let replica: BTreeMap<_, _> =
                device.base.iter().filter_map(|(id, base)| Some((id.clone(), base.record.clone()?))).collect();
            prop_assert_eq!(&replica, &server, "{}", device.name);
        }
    }
}
