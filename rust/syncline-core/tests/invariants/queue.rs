//! 1 conservation, 3 order, 8 durability.

use std::fs;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use syncline_core::{Durability, NewOperation, OperationStatus, Retention};
use syncline_testkit::World;

use crate::*;

/// A long life of writes, withdrawals, retries, faults, deaths and copies of requests that come late: the books balance after
/// every single action, and at its end everybody agrees.
#[test]
fn inv01_conservation_holds_after_every_action() {
    for number in 0..6 {
        say(number);
        let mut random = StdRng::seed_from_u64(number);
        let mut world = World::new(number);
        world.steps.shuffle(seed(&mut random));
        let mut devices = ["a", "b"].map(|name| world.device(name));
        for device in &devices {
            let mut faults = StdRng::seed_from_u64(seed(&mut random));
            device.network.script(move |_| fault(&mut faults));
            device.start().unwrap();
        }
        for _ in 0..120 {
            let at = random.random_range(0..devices.len());
            match random.random_range(0..10) {
                0..6 => act(&devices[at], &mut random),
                6 => world.advance_secs(random.random_range(0..60)),
                7 => {
                    let steps = random.random_range(0..40);
                    let _idle = (0..steps).any(|_| !world.steps.step());
                }
                8 => devices[at].network.release_all(),
                _ => {
                    devices[at].restart();
                    devices[at].start().unwrap();
                }
            }
            world.assert_invariants(&[&devices[0], &devices[1]]);
        }
        for device in &devices {
            device.stop().unwrap();
        }
        clean_up(&world, &[&devices[0], &devices[1]]);
        world.settle(&[&devices[0], &devices[1]]);
        let metrics = devices.each_ref().map(|device| device.metrics().unwrap());
        assert!(
            metrics.iter().all(|metrics| metrics.completed_total > 0 && metrics.cancelled_total > 0),
            "{metrics:?}"
        );
    }
}

/// Forty writes of one field in one lane, over a network that loses, doubles and delays: the server sees them in order, and
/// the last one stands.
#[test]
fn inv03_order_holds_within_a_lane() {
    let mut world = World::new(3);
    let mut config = world.config("a");
    config.entity_types.insert("pin".into(), syncline_core::EntityType { coalesce: false, ..Default::default() });
    let (a, b) = (world.device_with("a", config), world.device("b"));
    let mut faults = StdRng::seed_from_u64(3);
    a.network.script(move |_| fault(&mut faults));
    a.start().unwrap();
    a.enqueue(NewOperation::create("pin", "e", r#"{"n":0}"#)).unwrap();
    for n in 1..40 {
        a.enqueue(NewOperation::update("pin", "e", json!({ "n": n }).to_string())).unwrap();
        world.advance_secs(7);
        if n % 10 == 0 {
            a.network.release_all();
        }
    }
    clean_up(&world, &[&a]);
    a.stop().unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(b.value("pin", "e").unwrap(), json!({"n":39}));
    let order: String = server_sql(
        &world,
        "SELECT group_concat(sequence) FROM (SELECT sequence FROM operations WHERE verdict = 'applied' ORDER BY rowid)",
    );
    let wanted: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(order, wanted.join(","));
}

/// No sequence is used twice: not after cancelling, pruning and dying.
#[test]
fn inv03_no_sequence_is_used_twice() {
    let mut world = World::new(33);
    let mut config = world.config("a");
    config.retention = Retention { age: std::time::Duration::ZERO, count: 0 };
    let mut a = world.device_with("a", config);
    let mut last = 0;
    for n in 0..20 {
        let receipt = a.enqueue(NewOperation::create("pin", format!("e{n}"), "{}")).unwrap();
        assert!(receipt.sequence > last, "{} after {last}", receipt.sequence);
        last = receipt.sequence;
        match n % 4 {
            0 => a.cancel(&receipt.id).unwrap(),
            1 => {
                world.sync(&a);
            }
            2 => a.restart(),
            _ => last = a.enqueue(NewOperation::delete("pin", format!("e{n}"))).unwrap().sequence,
        }
        world.assert_invariants(&[&a]);
    }
    assert!(a.sql::<i64>("SELECT count(*) FROM sync_queue") < 20, "some were pruned");
    world.settle(&[&a]);
}

/// What `enqueue` has acknowledged is in the files as they lie on the disk, while the app is still running.
#[test]
fn inv08_what_was_acknowledged_is_on_the_disk() {
    let mut world = World::new(8);
    let mut config = world.config("a");
    config.durability = Durability::Full;
    let a = world.device_with("a", config);
    for round in 0..10 {
        let receipt =
            a.enqueue(NewOperation::create("pin", format!("e{round}"), json!({ "n": round }).to_string())).unwrap();
        let mut transaction = a.begin_transaction().unwrap();
        transaction.create("form", &format!("x{round}"), "{}").unwrap();
        let group = transaction.commit_queued().unwrap();

        // As after a power loss: the file and its log, without what only the process knew.
        let config = world.config(&format!("found{round}"));
        for suffix in ["", "-wal"] {
            let part = |path: &std::path::Path| format!("{}{suffix}", path.display());
            fs::copy(part(a.path()), part(&config.database)).unwrap();
        }
        let found = world.device_with(&format!("found{round}"), config);
        for id in [&receipt.id, &group[0].id] {
            assert_eq!(found.status(id), OperationStatus::Pending);
        }
        assert_eq!(found.value("pin", &format!("e{round}")), Some(json!({ "n": round })));
        world.assert_invariants(&[&found]);
        found.close();
    }
}
