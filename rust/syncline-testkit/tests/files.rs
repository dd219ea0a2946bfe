//! The verdict on files: good ones pass, and one damaged row of any kind is noticed, by the rule that it breaks.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{NewOperation, QueueMetrics, Receipt};
use syncline_testkit::files::{LeftFile, judge};
use syncline_testkit::{Asked, Journal, TestDevice, World};

/// Two devices that have met on a record, and have nothing left to do.
struct Scene {
    world: World,
    devices: Vec<(TestDevice, Journal, QueueMetrics)>,
}

fn scene() -> Scene {
    let mut world = World::new(1);
    let (a, b) = (world.device("a"), world.device("b"));
    let mut journals = [Journal::default(), Journal::default()];
    let mut write = |device: &TestDevice, at: usize, kind: &'static str, id: &str, payload: &str| -> Receipt {
        let operation = match kind {
            "create" => NewOperation::create("pin", id, payload),
            _ => NewOperation::update("pin", id, payload),
        };
        let receipt = device.enqueue(operation).unwrap();
        let (entity_type, entity_id) = ("pin".to_owned(), id.to_owned());
        journals[at].acknowledge(&receipt, Asked { kind, entity_type, entity_id, payload: Some(payload.to_owned()) });
        receipt
    };
    write(&a, 0, "create", "p1", r#"{"n":1}"#);
    write(&a, 0, "create", "p2", r#"{"n":1}"#);
    world.settle(&[&a, &b]);
    write(&a, 0, "update", "p1", r#"{"n":2}"#);
    world.sync(&a);
    write(&a, 0, "update", "p1", r#"{"n":3}"#);
    world.sync(&a);
    // It has not seen the last two: a conflict, which the ledger has.
    write(&b, 1, "update", "p1", r#"{"n":4}"#);
    world.settle(&[&b, &a]);
    let devices = [a, b].into_iter().zip(journals).map(|(device, journal)| {
        let metrics = device.metrics().unwrap();
        device.close();
        (device, journal, metrics)
    });
    Scene { devices: devices.collect(), world }
}

impl Scene {
    fn judged(&mut self) -> Vec<String> {
        let mut files: Vec<LeftFile<'_>> = self
            .devices
            .iter_mut()
            .map(|(device, journal, metrics)| LeftFile {
                name: &device.name,
                path: &device.config.database,
                shared_through: 0,
                journal,
                kept: 100,
                restores: false,
                metrics: Some(metrics),
            })
            .collect();
        judge(&self.world.server.path(), &BTreeSet::new(), &mut files).unwrap()
    }
}

#[test]
fn good_files_break_nothing() {
    assert_eq!(scene().judged(), Vec::<String>::new());
}

#[test]
fn a_damaged_row_of_the_server_is_noticed_by_the_rule_it_breaks() {
    let cases = [
        ("order", "UPDATE operations SET rowid = 0 WHERE sequence = 4"),
        ("effect: (", "UPDATE operations SET verdict = 'conflict' WHERE sequence = 2"),
        ("audit: operation", "UPDATE operations SET verdict = 'conflict' WHERE sequence = 3"),
        ("versions", "UPDATE entities SET version = version + 10"),
        ("versions", "UPDATE scopes SET head = 2"),
        ("clock", "UPDATE entities SET clock = json_set(clock, '$.x', 1)"),
        ("audit: the conflict of operation", "DELETE FROM conflicts"),
        ("a: effect: operation 2 is completed, and was applied 0 times", "DELETE FROM operations WHERE sequence = 2"),
        ("a: convergence", "UPDATE entities SET payload = '{\"n\":9}'"),
        ("b: history", "UPDATE scopes SET epoch = 'another'"),
    ];
    for (rule, damage) in cases {
        let mut scene = scene();
        assert!(Connection::open(scene.world.server.path()).unwrap().execute(damage, []).unwrap() > 0, "{damage}");
        let breaches = scene.judged();
        assert!(breaches.iter().any(|breach| breach.contains(rule)), "{rule}: {breaches:?}");
    }
}

#[test]
fn a_damaged_row_of_a_device_is_noticed_by_the_rule_it_breaks() {
    let cases = [
        (
            "a: durability: operation 1 was acknowledged, was pending and is gone",
            "DELETE FROM sync_queue WHERE sequence = 1",
        ),
        (
            "a: durability: operation 2 has another content",
            "UPDATE sync_queue SET payload = '{\"n\":8}' WHERE sequence = 2",
        ),
        ("a: conservation", "UPDATE counters SET completed_total = completed_total + 1"),
        ("a: fold", "UPDATE entities SET current = '{\"n\":8}' WHERE entity = 1"),
        ("a: convergence", "UPDATE entities SET current = '{\"n\":8}' WHERE entity = 1"),
    ];
    for (rule, damage) in cases {
        let mut scene = scene();
        let file = Connection::open(scene.devices[0].0.path()).unwrap();
        assert!(file.execute(damage, []).unwrap() > 0, "{damage}");
        drop(file);
        let breaches = scene.judged();
        assert!(breaches.iter().any(|breach| breach.contains(rule)), "{rule}: {breaches:?}");
    }
}

#[test]
fn what_was_seen_to_end_may_be_forgotten_once_enough_others_are_kept() {
    for (kept, breaches) in
        [(3, vec![]), (4, vec!["a: retention: operation 2 was forgotten while only 3 completed ones are kept"])]
    {
        let mut scene = scene();
        let (device, journal, _) = &mut scene.devices[0];
        let (name, path) = (device.name.as_str(), device.config.database.as_path());
        let mut file = LeftFile { name, path, shared_through: 0, journal, kept, restores: false, metrics: None };
        assert_eq!(file.look().unwrap(), Ok(()));
        Connection::open(path).unwrap().execute("DELETE FROM sync_queue WHERE sequence = 2", []).unwrap();
        let verdict = file.look().unwrap().map_err(|breach| format!("a: {breach}"));
        assert_eq!(verdict.err().into_iter().collect::<Vec<_>>(), breaches);
    }
}

#[test]
fn what_was_applied_twice_is_noticed_even_where_its_device_forgot_it() {
    let mut scene = scene();
    let twice = "INSERT INTO operations SELECT scope, idempotency_key || '#2', operation_id, device_id, sequence + 100, operation,
         entity_type, entity_id, payload_hash, verdict, error, conflict_id, decided_at FROM operations WHERE sequence = 2";
    Connection::open(scene.world.server.path()).unwrap().execute(twice, []).unwrap();
    Connection::open(scene.devices[0].0.path())
        .unwrap()
        .execute("DELETE FROM sync_queue WHERE sequence = 2", [])
        .unwrap();
    let breaches = scene.judged();
    assert!(breaches.iter().any(|breach| breach.ends_with("was applied 2 times")), "{breaches:?}");
}

#[test]
fn figures_that_differ_from_the_file_are_noticed() {
    let mut scene = scene();
    scene.devices[1].2.completed_total += 1;
    assert_eq!(scene.judged(), ["b: metrics: completed_total is said to be 2, and counted 1"]);
}

#[test]
fn what_nobody_cancelled_is_noticed_and_what_the_user_gave_up_is_not() {
    let mut world = World::new(2);
    let device = world.device("a");
    let mut journal = Journal::default();
    let mut transaction = device.begin_transaction().unwrap();
    transaction.create("pin", "p1", "{}").unwrap();
    transaction.create("pin", "p2", "{}").unwrap();
    let receipts = transaction.commit_queued().unwrap();
    device.cancel(&receipts[0].id).unwrap();
    let look = |journal: &mut Journal| {
        let (name, path, metrics) = ("a", device.path(), None);
        LeftFile { name, path, shared_through: 0, journal, kept: 100, restores: false, metrics }.look().unwrap()
    };
    assert_eq!(
        look(&mut journal),
        Err("conservation: operation 1 was cancelled (Some(\"user\")) by nobody".to_owned())
    );
    // With one of its members, the whole transaction.
    journal.give_up(&receipts[0].id);
    assert_eq!(look(&mut journal), Ok(()));
}
