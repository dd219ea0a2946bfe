//! The verdict on files that were left behind: what is good passes, and each damage is named.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::NewOperation;
use syncline_testkit::World;
use syncline_testkit::files::{LeftFile, judge};

/// Two devices that agree with the server; then `damage`, done to (the first one's file, the server's). It gives the rows it hit.
fn breaches_after(damage: impl FnOnce(&Connection, &Connection) -> usize) -> Vec<String> {
    breaches(&[], damage)
}

/// The first device was seen to have ended its operations of the sequences `seen`.
fn breaches(seen: &[usize], damage: impl FnOnce(&Connection, &Connection) -> usize) -> Vec<String> {
    let mut world = World::new(1);
    let (a, b) = (world.device("a"), world.device("b"));
    let write = |n: usize| a.enqueue(NewOperation::create("pin", format!("p{n}"), r#"{"title":"Leak"}"#)).unwrap().id;
    let ids: Vec<String> = (1..=3).map(write).collect();
    world.settle(&[&a, &b]);
    let server = world.server.path();
    assert_eq!(damage(&Connection::open(a.path()).unwrap(), &Connection::open(&server).unwrap()), 1);
    let ended = seen.iter().map(|sequence| ids[sequence - 1].clone()).collect();
    let (acknowledged, none) = (BTreeSet::from_iter(ids), BTreeSet::new());
    let left = |name, path, acknowledged| LeftFile {
        name,
        path,
        shared_through: 0,
        acknowledged,
        ended: &ended,
        given_up: &none,
    };
    judge(&server, &[], &[left("a", a.path(), &acknowledged), left("b", b.path(), &none)]).unwrap()
}

fn only(mut breaches: Vec<String>) -> String {
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    breaches.remove(0)
}

#[test]
fn files_that_agree_break_no_rule() {
    assert_eq!(breaches_after(|_, _| 1), Vec::<String>::new());
}

const FORGET: &str = "DELETE FROM sync_queue WHERE sequence = 1";

#[test]
fn an_acknowledged_operation_that_is_gone_is_missed() {
    let breach = only(breaches_after(|device, _| device.execute(FORGET, []).unwrap()));
    assert!(breach.starts_with("a: durability: ") && breach.ends_with("was not seen to end, and is gone"), "{breach}");
}

#[test]
fn one_that_was_seen_to_end_may_be_forgotten() {
    let breaches = breaches(&[1], |device, _| device.execute(FORGET, []).unwrap());
    assert_eq!(breaches, Vec::<String>::new());
}

#[test]
fn an_operation_applied_twice_is_found_even_where_its_device_forgot_it() {
    let twice =
        "INSERT INTO operations (scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type,
             entity_id, payload_hash, verdict, decided_at)
         SELECT scope, idempotency_key || '#2', operation_id, device_id, sequence + 1000000, operation, entity_type,
             entity_id, payload_hash, verdict, decided_at
         FROM operations WHERE sequence = 2";
    let breaches = breaches_after(|device, server| {
        device.execute("DELETE FROM sync_queue WHERE sequence = 2", []).unwrap();
        server.execute(twice, []).unwrap()
    });
    assert!(breaches.iter().any(|breach| breach.ends_with("was applied 2 times")), "{breaches:?}");
}

#[test]
fn a_cancel_that_nobody_asked_for_is_found() {
    let cancel = "UPDATE sync_queue SET status = 'cancelled', reason = 'user', verdict = NULL WHERE sequence = 2";
    let breaches = breaches_after(|device, _| device.execute(cancel, []).unwrap());
    let nobody = "a: conservation: operation 2 was cancelled (Some(\"user\")) by nobody";
    assert!(breaches.iter().any(|breach| breach == nobody), "{breaches:?}");
}

#[test]
fn a_replica_that_differs_is_named_by_the_entity() {
    let differ =
        "UPDATE entities SET base = json_set(base, '$.title', 'Wet'), current = json_set(current, '$.title', 'Wet')
                  WHERE entity_id = 'p2'";
    let breach = only(breaches_after(|device, _| device.execute(differ, []).unwrap()));
    assert!(breach.starts_with("a: convergence: (\"pin\", \"p2\") is "), "{breach}");
}
