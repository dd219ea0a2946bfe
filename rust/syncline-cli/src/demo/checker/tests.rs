//! Each promise is broken once, on a small team in memory, and the right check must say so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::files::{Conflict, Counters, Decided, DeviceFile, Entity, Operation, ServerFile, Stored};
use super::{Verdict, judge};

fn entity(id: &str) -> Entity {
    ("pin".to_owned(), id.to_owned())
}

fn operation(sequence: u64, kind: &str, id: &str, payload: Value) -> Operation {
    Operation {
        sequence,
        id: format!("op-{sequence}"),
        key: format!("key-{sequence}"),
        kind: kind.to_owned(),
        entity: entity(id),
        payload: Some(payload),
        transaction: None,
        status: "completed".to_owned(),
        reason: None,
        message: None,
        field: None,
        survivor: None,
        verdict: Some("applied".to_owned()),
        dot: ("A".to_owned(), sequence),
    }
}

fn decided(operation: &Operation) -> Decided {
    Decided {
        place: i64::try_from(operation.sequence).unwrap(),
        key: operation.key.clone(),
        operation_id: operation.id.clone(),
        device_id: "A".to_owned(),
        sequence: operation.sequence,
        kind: operation.kind.clone(),
        entity: operation.entity.clone(),
        verdict: "applied".to_owned(),
        conflict_id: None,
    }
}

/// One device with two pins: the first created and then updated, the second created; a transaction of two; one conflict.
struct Team {
    device: DeviceFile,
    server: ServerFile,
    acknowledged: BTreeSet<String>,
}

impl Team {
    fn new() -> Self {
        let mut operations = vec![
            operation(1, "create", "1", json!({ "a": 1, "b": 1 })),
            operation(2, "update", "1", json!({ "a": 2 })),
            operation(3, "create", "2", json!({ "a": 1 })),
            operation(4, "create", "3", json!({ "a": 1 })),
        ];
        for member in &mut operations[2..] {
            member.transaction = Some("t".to_owned());
        }
        let records: BTreeMap<Entity, Value> = [
            (entity("1"), json!({ "a": 2, "b": 1 })),
            (entity("2"), json!({ "a": 1 })),
            (entity("3"), json!({ "a": 1 })),
        ]
        .into();
        let dot = |sequence| ("A".to_owned(), sequence);
        let stored = |record: &Value, set_by: &[(&str, u64)], created_by| Stored {
            record: record.clone(),
            deleted: false,
            set_by: set_by.iter().map(|(field, sequence)| ((*field).to_owned(), dot(*sequence))).collect(),
            created_by: dot(created_by),
        };
        let entities = [
            (entity("1"), stored(&records[&entity("1")], &[("a", 2)], 1)),
            (entity("2"), stored(&records[&entity("2")], &[], 3)),
            (entity("3"), stored(&records[&entity("3")], &[], 4)),
        ];
        let object = json!({ "rule": "manual", "fields": { "a": { "ours": 2, "theirs": 3, "winner": "ours" } } });
        let conflict = Conflict { operation_id: "op-2".to_owned(), entity: entity("1"), object, resolution: None };
        let conflicts: BTreeMap<String, Conflict> = [("c".to_owned(), conflict)].into();
        let decided: Vec<Decided> = operations.iter().map(decided).collect();
        Self {
            acknowledged: operations.iter().map(|operation| operation.id.clone()).collect(),
            device: DeviceFile {
                name: "tablet".to_owned(),
                device_id: "A".to_owned(),
                counters: Counters { completed: 4, ..Counters::default() },
                operations,
                dependencies: vec![(3, 2)],
                conflicts: conflicts.clone(),
                records,
            },
            server: ServerFile { decided, by_key: HashMap::new(), conflicts, entities: entities.into_iter().collect() },
        }
    }

    fn judge(mut self) -> Verdict {
        self.server.by_key =
            self.server.decided.iter().enumerate().map(|(index, row)| (row.key.clone(), index)).collect();
        judge(vec![self.device], self.server, &[&self.acknowledged])
    }
}

/// Breaks something and gives every sentence that is said about it.
fn broken(damage: impl FnOnce(&mut Team)) -> String {
    let mut team = Team::new();
    damage(&mut team);
    let verdict = team.judge();
    assert!(!verdict.holds());
    verdict.checks.iter().flat_map(|check| &check.breaches).map(|breach| format!("{breach}\n")).collect()
}

#[test]
fn a_team_that_keeps_its_promises_is_told_so() {
    let verdict = Team::new().judge();
    let breaches: Vec<_> = verdict.checks.iter().flat_map(|check| &check.breaches).collect();
    assert!(verdict.holds(), "{breaches:?}");
    assert_eq!(verdict.checks[1].figure, "4 of 4");
    assert_eq!(verdict.hashes[0].1, verdict.hashes[1].1);
}

#[test]
fn conservation() {
    let gone = broken(|team| {
        team.device.operations.remove(3);
        team.device.counters.completed = 3;
    });
    assert!(gone.contains("1 operations that it acknowledged are not in its queue"), "{gone}");
    let miscounted = broken(|team| team.device.counters.completed = 3);
    assert!(miscounted.contains("4 operations were enqueued, but its states add up to 3"), "{miscounted}");
    let waiting = broken(|team| {
        team.device.operations[3].status = "pending".to_owned();
        team.device.counters.completed = 3;
    });
    assert!(waiting.contains("1 operations are still pending"), "{waiting}");
}

#[test]
fn effect() {
    let rejected = broken(|team| team.server.decided[0].verdict = "rejected".to_owned());
    assert!(rejected.contains("#1 (create pin 1) is completed, but the server's verdict is rejected"), "{rejected}");
    let elsewhere = broken(|team| team.server.decided[0].entity = entity("9"));
    assert!(elsewhere.contains("#1 (create pin 1) is another one on the server"), "{elsewhere}");
    let displaced = broken(|team| team.server.decided[3].sequence = 9);
    assert!(displaced.contains("#4 (create pin 3) has another place on the server"), "{displaced}");
    let failed = broken(|team| {
        team.device.operations[3].status = "failed".to_owned();
        (team.device.counters.completed, team.device.counters.failed) = (3, 1);
    });
    assert!(failed.contains("#4 (create pin 3) is failed, yet the server applied it"), "{failed}");
    let stray = broken(|team| {
        let row = Decided {
            key: "other".into(),
            operation_id: "other".into(),
            sequence: 9,
            ..team.server.decided[0].clone()
        };
        team.server.decided.push(row);
    });
    assert!(stray.contains("of an operation that no device has"), "{stray}");
    let folded = broken(|team| team.device.operations[1].survivor = Some(3));
    assert!(folded.contains("#2 (update pin 1) was folded into none of its lane"), "{folded}");
}

#[test]
fn values() {
    let change = |team: &mut Team, record: Value| {
        team.server.entities.get_mut(&entity("1")).unwrap().record = record.clone();
        team.device.records.insert(entity("1"), record);
    };
    let altered = broken(|team| change(team, json!({ "a": 2, "b": 7 })));
    assert!(altered.contains("pin 1: its b on the server is not what its author wrote"), "{altered}");
    // The update never took effect, and the books say that the create set the field.
    let lost = broken(|team| {
        change(team, json!({ "a": 1, "b": 1 }));
        team.server.entities.get_mut(&entity("1")).unwrap().set_by.clear();
        team.server.conflicts.clear();
        team.device.conflicts.clear();
    });
    assert!(lost.contains("#2 (update pin 1) is completed, but its a has no effect"), "{lost}");
}

#[test]
fn order_and_transactions() {
    let swapped = broken(|team| team.server.decided.swap(0, 1));
    assert!(swapped.contains("applied #2 of pin 1 before #1: the lane's order is broken"), "{swapped}");
    let early = broken(|team| team.server.decided[2].place = 0);
    assert!(early.contains("#3 was applied before #2, which it depends on"), "{early}");
    let half = broken(|team| {
        team.server.decided.pop();
    });
    assert!(half.contains("of the transaction from #3 (create pin 2) on, 1 of 2 members were applied"), "{half}");
}

#[test]
fn ledger() {
    let on_server = broken(|team| team.server.conflicts.clear());
    assert!(on_server.contains("its conflict on pin 1 is not in the server's ledger"), "{on_server}");
    let on_device = broken(|team| team.device.conflicts.clear());
    assert!(on_device.contains("the server's conflict on pin 1 is in no device's ledger"), "{on_device}");
    let other = broken(|team| {
        let conflict = team.device.conflicts.get_mut("c").unwrap();
        conflict.object["fields"]["a"]["theirs"] = json!(4);
    });
    assert!(other.contains("reads otherwise in the server's ledger"), "{other}");
    let unrecorded = broken(|team| team.server.decided[0].conflict_id = Some("none".into()));
    assert!(unrecorded.contains("was decided without a row in the ledger"), "{unrecorded}");
}

#[test]
fn replicas() {
    let missing = broken(|team| {
        team.device.records.remove(&entity("2"));
    });
    assert!(missing.contains("tablet: its replica differs from the server, first in pin 2"), "{missing}");
    let extra = broken(|team| {
        team.device.records.insert(entity("9"), json!({}));
    });
    assert!(extra.contains("its replica differs from the server, first in pin 9"), "{extra}");
}
