//! Damaged files: whatever is in one, calls answer with a result or an error, and panic never; and once SQLite has met damage, the
//! next open examines the file.

use syncline_core::{ListQuery, NewOperation, OperationFilter, SynclineError};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, TestDevice, World};

fn damage(device: &mut TestDevice, statement: &str) {
    device.kill();
    let file = rusqlite::Connection::open(device.path()).unwrap();
    file.execute_batch(&format!("PRAGMA ignore_check_constraints = 1; {statement}")).unwrap();
}

#[test]
fn numbers_at_their_edge_are_no_panic() {
    const HIGHEST: &str = "9223372036854775807";
    const LOWEST: &str = "-9223372036854775808";
    let statements = [
        format!("UPDATE device SET latest_seen_ms = {HIGHEST}"),
        format!("UPDATE sync_queue SET bytes_through = {HIGHEST}"),
        format!("UPDATE counters SET bytes_ended = {LOWEST}"),
        format!("UPDATE counters SET failed = {HIGHEST}, completed_total = {HIGHEST}, cancelled_total = {LOWEST}"),
        "UPDATE sync_queue SET sequence = 0 WHERE sequence = 1".to_owned(),
        "UPDATE sync_queue SET attempts = 4294967295".to_owned(),
        "UPDATE counters SET latencies = '[18446744073709551615,1,18446744073709551615]'".to_owned(),
    ];
    for statement in statements {
        let mut world = World::new(1);
        let mut device = world.device("a");
        for id in ["p1", "p2"] {
            device.enqueue(NewOperation::create("pin", id, "{}")).unwrap();
        }
        damage(&mut device, &statement);
        if device.open().is_err() {
            continue;
        }
        let _ = (device.metrics(), device.operations(&OperationFilter::default()));
        let _ = device.enqueue(NewOperation::create("pin", "p3", "{}"));
        for fault in [Fault::problem(ProblemCode::Internal), Fault::DropAfter] {
            device.network.next_push(fault);
            let manager = device.manager();
            let _ = world.run(async move { manager.process_queue().await });
            world.advance_secs(600);
        }
        let _ = device.metrics();
    }
}

/// It was asked for again at once, without end: a request a moment, for nothing.
#[test]
fn an_answer_that_cannot_be_stored_is_not_asked_for_again_at_once() {
    let mut world = World::new(1);
    let mut device = world.device("a");
    world.sync(&device);
    device.enqueue(NewOperation::create("pin", "p1", "{}")).unwrap();
    damage(&mut device, "UPDATE counters SET completed_total = 9223372036854775807");
    device.open().unwrap();
    let before = device.network.sent();
    let manager = device.manager();
    let _ = world.run(async move { manager.process_queue().await });
    assert!(device.network.sent() <= before + 2, "{} requests", device.network.sent() - before);
}

/// A file that opens, and whose pages in the middle are damaged. `meet` must come upon them.
fn examined_after(meet: impl FnOnce(&World, &TestDevice)) {
    let mut world = World::new(1);
    let mut device = world.device("a");
    world.sync(&device);
    for n in 0..200 {
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(500));
        device.enqueue(NewOperation::create("pin", format!("p{n}"), payload)).unwrap();
    }
    damage(&mut device, "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(device.path()).unwrap();
    let pages = bytes.len() / 4096;
    bytes[pages / 2 * 4096..(pages - 1) * 4096].fill(0x5a);
    std::fs::write(device.path(), &bytes).unwrap();
    device.open().expect("nobody has read the damaged pages yet");
    meet(&world, &device);
    device.kill();
    let examined = device.open();
    assert!(matches!(examined, Err(SynclineError::Corrupt { set_aside: Some(_) })), "{examined:?}");
    device.open().expect("a new file");
}

#[test]
fn damage_that_a_read_meets_is_examined_at_the_next_open() {
    examined_after(|_, device| {
        let read = device.list(&ListQuery::new("pin")).map(|page| page.entities.len());
        assert_eq!(read, Err(SynclineError::Corrupt { set_aside: None }));
    });
}

#[test]
fn damage_that_delivery_meets_is_examined_at_the_next_open() {
    examined_after(|world, device| {
        let manager = device.manager();
        let delivered = world.run(async move { manager.process_queue().await }).map(drop);
        assert_eq!(delivered, Err(SynclineError::Corrupt { set_aside: None }));
    });
}
