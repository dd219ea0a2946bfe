//! 5 convergence, 6 atomicity, 7 audit.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline_core::{Config, EntityType, NewOperation, OperationStatus};
use syncline_protocol::{ConflictRule, DeleteRule};
use syncline_testkit::{TestDevice, World};

use crate::*;

/// Three devices write the same few entities, in every way and under faults: in the end all equal the server.
#[test]
fn inv05_replicas_converge() {
    for number in 0..6 {
        say(number);
        let mut random = StdRng::seed_from_u64(1000 + number);
        let mut world = World::new(number);
        world.steps.shuffle(seed(&mut random));
        let devices = ["a", "b", "c"].map(|name| {
            let rule = [
                ConflictRule::LastWriterWins,
                ConflictRule::Manual,
                ConflictRule::ServerWins,
                ConflictRule::ClientWins,
            ][random.random_range(0..4)];
            let settings = EntityType { conflicts: Some(rule), coalesce: random.random(), ..EntityType::default() };
            let config = world.config(name).entity_type("pin", settings);
            let device = world.device_with(name, config);
            let mut faults = StdRng::seed_from_u64(seed(&mut random));
            device.network.script(move |_| fault(&mut faults));
            device
        });
        for _ in 0..150 {
            let device = &devices[random.random_range(0..3)];
            match random.random_range(0..4) {
                0 => {
                    device.start().unwrap();
                    world.advance_secs(random.random_range(0..20));
                    device.stop().unwrap();
                }
                1 => device.clock.shift(random.random_range(-60_000..60_000)),
                _ => act(device, &mut random),
            }
        }
        let all = devices.each_ref();
        clean_up(&world, &all);
        world.settle(&all);
        let entities: i64 = devices[0].sql("SELECT count(*) FROM entities WHERE current IS NOT NULL");
        assert!(entities > 0, "there is something to compare");
    }
}

/// The server goes back in time, untold or told, and one device is a copy of another's file, while all three write under faults:
/// in the end all equal the server, and nothing that somebody still kept is lost.
#[test]
fn inv05_replicas_converge_after_restores_and_copies() {
    for number in 0..6 {
        say(number);
        let mut random = StdRng::seed_from_u64(2000 + number);
        let mut world = World::new(number);
        world.steps.shuffle(seed(&mut random));
        // What one copy folds away, or is refused and gives up, may arrive from the other: what they share never is, here.
        let unfolded = EntityType { coalesce: false, ..EntityType::default() };
        let config = world.config("a").entity_type("pin", unfolded);
        let (a, b) = (world.device_with("a", config), world.device("b"));
        for _ in 0..15 {
            write(&a, &mut random, 3);
            write(&b, &mut random, 5);
            world.advance_secs(u64::from(random.random_range(0..10) == 0));
        }
        world.sync(&a);
        (0..5).for_each(|_| write(&a, &mut random, 3));
        let copy = world.copy(&a, "copy");
        let all = [&a, &b, &copy];
        for device in all {
            let mut faults = StdRng::seed_from_u64(seed(&mut random));
            device.network.script(move |_| fault(&mut faults));
        }
        let mut lasting = Vec::new();
        for round in 0..4 {
            let before = world.path(&format!("before{round}.db"));
            world.server.snapshot(&before);
            for n in 0..20 {
                let device = all[random.random_range(0..3)];
                let id = format!("{round}-{n}");
                device.enqueue(NewOperation::create("pin", &id, "{}")).unwrap();
                lasting.push(id);
                write(device, &mut random, 5);
                device.start().unwrap();
                world.advance_secs(random.random_range(0..20));
                device.stop().unwrap();
            }
            world.server.restore(&before, true);
        }
        clean_up(&world, &all);
        world.settle(&all);
        for id in lasting {
            assert_eq!(b.value("pin", &id), Some(json!({})), "{id}");
        }
    }
}

/// A write of one of a few entities: a deletion, a creation or, with `kinds` above 3, an update.
fn write(device: &TestDevice, random: &mut StdRng, kinds: u32) {
    let id = format!("e{}", random.random_range(0..4));
    let field = ["f", "g"][random.random_range(0..2)];
    let payload = json!({ field: random.random_range(0..100) }).to_string();
    let operation = match random.random_range(0..kinds) {
        0 => NewOperation::delete("pin", id),
        1 | 2 => NewOperation::create("pin", id, payload),
        _ => NewOperation::update("pin", id, payload),
    };
    device.enqueue(operation).unwrap();
}

/// A transaction of three, its device dying after every step on the way: whoever reads sees all of it or nothing.
#[test]
fn inv06_a_transaction_is_seen_whole_or_not_at_all() {
    let mut seen = [0, 0];
    for steps in 0.. {
        let mut world = World::new(6);
        let (mut a, b) = (world.device("a"), world.device("b"));
        world.settle(&[&a, &b]);
        let mut transaction = a.begin_transaction().unwrap();
        for id in ["e0", "e1", "e2"] {
            transaction.create("pin", id, "{}").unwrap();
        }
        assert_eq!(members(&a), 0, "nothing before the commit");
        transaction.commit_queued().unwrap();
        a.start().unwrap();
        let ended = (0..steps).any(|_| !world.steps.step());
        a.kill();
        world.sync(&b);
        let there = members(&b);
        assert!([0, 3].contains(&there), "after {steps} steps: {there}");
        seen[usize::from(there == 3)] += 1;
        assert_eq!(there, server_sql::<i64>(&world, "SELECT count(*) FROM entities"));
        a.restart();
        assert_eq!(members(&a), 3, "durable here");
        world.assert_invariants(&[&a, &b]);
        world.settle(&[&a, &b]);
        assert_eq!(members(&b), 3);
        if ended {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 1), "deaths before and after the server decided: {seen:?}");
}

fn members(device: &TestDevice) -> i64 {
    ["e0", "e1", "e2"].iter().filter(|id| device.value("pin", id).is_some()).count() as i64
}

fn with_rule(world: &World, rule: ConflictRule, deletes: DeleteRule) -> Config {
    let settings = EntityType { conflicts: Some(rule), deletes: Some(deletes), ..EntityType::default() };
    world.config("a").entity_type("pin", settings)
}

/// Two devices write one field unseen, under each rule: the ledgers of device and server have both values and the winner, and
/// the losing one can be brought back.
#[test]
fn inv07_every_overwritten_value_is_in_the_ledger() {
    for (rule, winner) in [
        (ConflictRule::LastWriterWins, "ours"),
        (ConflictRule::ClientWins, "ours"),
        (ConflictRule::ServerWins, "theirs"),
        (ConflictRule::Manual, "none"),
    ] {
        let mut world = World::new(7);
        let config = with_rule(&world, rule, DeleteRule::UpdateWins);
        let (a, b) = (world.device_with("a", config), world.device("b"));
        a.enqueue(NewOperation::create("pin", "e", r#"{"f":"old","g":"old"}"#)).unwrap();
        world.settle(&[&a, &b]);
        world.advance_secs(1);
        b.enqueue(NewOperation::update("pin", "e", r#"{"f":"theirs","g":"same"}"#)).unwrap();
        world.sync(&b);
        world.advance_secs(1);
        let receipt = a.enqueue(NewOperation::update("pin", "e", r#"{"f":"ours","g":"same"}"#)).unwrap();
        world.sync(&a);
        assert_eq!(ledger_values(&a, "f"), [(json!("ours"), json!("theirs"), winner.to_owned())], "{rule:?}");
        assert_eq!(ledger_values(&a, "g"), [], "equal values are no conflict");
        let field =
            "SELECT json_extract(conflict, '$.fields.f.ours') || ' ' || json_extract(conflict, '$.fields.f.theirs')
                     FROM conflicts";
        assert_eq!(server_sql::<String>(&world, field), "ours theirs");
        world.assert_invariants(&[&a, &b]);
        if rule == ConflictRule::Manual {
            assert_eq!(a.status(&receipt.id), OperationStatus::Conflicted);
            a.discard(&receipt.id).unwrap();
        }
        world.settle(&[&a, &b]);
        let loser = if winner == "ours" { "theirs" } else { "ours" };
        assert_ne!(b.value("pin", "e").unwrap()["f"], loser);
        world.advance_secs(1);
        let row = a.conflicts(false, 1).unwrap().remove(0);
        a.reopen_conflict(&row.conflict.id).unwrap();
        world.settle(&[&a, &b]);
        assert_eq!(b.value("pin", "e").unwrap()["f"], loser, "{rule:?}");
    }
}

/// A `manual` conflict that the app has decided is reopened: the value that it decided against comes back. Where it gave a value
/// of its own, nothing can be brought back.
#[test]
fn inv07_what_the_app_decided_can_be_reopened() {
    for (resolution, after, reopened) in [
        (Resolution::TakeLocal, "ours", Some("theirs")),
        (Resolution::TakeRemote, "theirs", Some("ours")),
        (Resolution::Merged(r#"{"f":"both"}"#.into()), "both", None),
    ] {
        let mut world = World::new(777);
        let config = with_rule(&world, ConflictRule::Manual, DeleteRule::UpdateWins);
        let (a, b) = (world.device_with("a", config), world.device("b"));
        a.enqueue(NewOperation::create("pin", "e", r#"{"f":"old"}"#)).unwrap();
        world.settle(&[&a, &b]);
        b.enqueue(NewOperation::update("pin", "e", r#"{"f":"theirs"}"#)).unwrap();
        world.sync(&b);
        let receipt = a.enqueue(NewOperation::update("pin", "e", r#"{"f":"ours"}"#)).unwrap();
        world.sync(&a);
        let row = a.conflicts(true, 1).unwrap().remove(0).conflict.id;
        assert!(a.reopen_conflict(&row).is_err(), "still to be decided");
        a.resolve_conflict(&receipt.id, resolution).unwrap();
        world.settle(&[&a, &b]);
        assert_eq!(b.value("pin", "e"), Some(json!({ "f": after })));
        assert_eq!(a.reopen_conflict(&row).is_ok(), reopened.is_some());
        world.settle(&[&a, &b]);
        assert_eq!(b.value("pin", "e"), Some(json!({ "f": reopened.unwrap_or(after) })));
    }
}

/// A deletion meets a write that it has not seen, under both rules and both orders: a row says what was lost.
#[test]
fn inv07_a_deletion_that_meets_a_write_is_in_the_ledger() {
    for rule in [DeleteRule::UpdateWins, DeleteRule::DeleteWins] {
        for a_deletes in [true, false] {
            let mut world = World::new(77);
            let config = with_rule(&world, ConflictRule::LastWriterWins, rule);
            let (a, b) = (world.device_with("a", config), world.device("b"));
            a.enqueue(NewOperation::create("pin", "e", r#"{"f":"old"}"#)).unwrap();
            world.settle(&[&a, &b]);
            world.advance_secs(1);
            let delete = NewOperation::delete("pin", "e");
            let write = NewOperation::update("pin", "e", r#"{"f":"new"}"#);
            let (mine, theirs) = if a_deletes { (delete, write) } else { (write, delete) };
            b.enqueue(theirs).unwrap();
            world.sync(&b);
            a.enqueue(mine).unwrap();
            world.settle(&[&a, &b]);
            let lives = rule == DeleteRule::UpdateWins;
            assert_eq!(b.value("pin", "e"), lives.then(|| json!({"f":"new"})), "{rule:?}, a deletes: {a_deletes}");
            let values: Vec<[Value; 2]> =
                ledger_values(&a, "f").into_iter().map(|(ours, theirs, _)| [ours, theirs]).collect();
            assert_eq!(values.len(), 1, "{rule:?}, a deletes: {a_deletes}");
            assert!(values[0].contains(&json!("new")), "{values:?}");
            // Brought back, what lost is what is there.
            world.advance_secs(1);
            let row = a.conflicts(false, 1).unwrap().remove(0);
            a.reopen_conflict(&row.conflict.id).unwrap();
            world.settle(&[&a, &b]);
            assert_eq!(b.value("pin", "e"), (!lives).then(|| json!({"f":"new"})), "{rule:?}, a deletes: {a_deletes}");
        }
    }
}
