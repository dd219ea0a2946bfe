//! The invariants of the specification (§9), one test or more for each, on whole devices and the real endpoint. The testkit
//! checks most of them at the end of every other scenario too; here each has the schedule that tries it hardest.

mod delivery;
mod privacy;
mod queue;
mod replicas;
mod tenancy;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline_core::{NewOperation, Operation, OperationFilter, OperationStatus, Resolution};
use syncline_testkit::{Fault, TestDevice, World};

/// One value by plain SQL on the server's file.
fn server_sql<T: rusqlite::types::FromSql>(world: &World, statement: &str) -> T {
    let file = rusqlite::Connection::open(world.server.path()).unwrap();
    file.query_row(statement, [], |row| row.get(0)).unwrap()
}

/// Something an app may do. Refusals are part of it.
fn act(device: &TestDevice, random: &mut StdRng) {
    let id = format!("e{}", random.random_range(0..4));
    let field = ["f", "g"][random.random_range(0..2)];
    let payload = json!({ field: random.random_range(0..100) }).to_string();
    let known = device.operations(&OperationFilter { limit: 1000, ..OperationFilter::default() }).unwrap();
    let some = (!known.is_empty()).then(|| known[random.random_range(0..known.len())].id.clone());
    match (random.random_range(0..11), some) {
        (0..3, _) => drop(device.enqueue(NewOperation::update("pin", id, payload)).unwrap()),
        (3..5, _) => drop(device.enqueue(NewOperation::create("pin", id, payload)).unwrap()),
        (5, _) => drop(device.enqueue(NewOperation::delete("pin", id)).unwrap()),
        (6, _) => {
            let mut transaction = device.begin_transaction().unwrap();
            transaction.create("pin", &id, &payload).unwrap().update("pin", "e0", &payload).unwrap();
            transaction.commit_queued().unwrap();
        }
        (7, Some(some)) => drop(device.cancel(&some)),
        (8, Some(some)) => drop(device.retry(&some)),
        (9, Some(some)) => drop(device.discard(&some)),
        (10, Some(some)) => drop(device.resolve_conflict(&some, Resolution::TakeLocal)),
        _ => {}
    }
}

/// A fault that leaves the connection to blame, or nobody.
fn fault(random: &mut StdRng) -> Option<Fault> {
    match random.random_range(0..10) {
        0 => Some(Fault::DropBefore),
        1 => Some(Fault::DropAfter),
        2 => Some(Fault::Duplicate),
        3 => Some(Fault::HoldRequest),
        4 => Some(Fault::HoldAnswer),
        5 => Some(Fault::proxy(502, "<html>Bad gateway</html>").after_commit()),
        6 => Some(Fault::ours(503, "{}").retry_after("20")),
        _ => None,
    }
}

/// Ends what a random life left over, so that the replicas can be compared. Nothing may wait then, or it would wait for ever.
fn clean_up(world: &World, devices: &[&TestDevice]) {
    for device in devices {
        device.network.heal();
        device.network.release_all();
    }
    // One refusal may hide another behind it, in its lane or its transaction.
    for _ in 0..40 {
        if devices.iter().all(|device| open_operations(device).is_empty()) {
            break;
        }
        world.advance_secs(600);
        for device in devices {
            world.sync(device);
            for operation in open_operations(device) {
                if matches!(operation.status, OperationStatus::Failed | OperationStatus::Conflicted) {
                    // A member of a group that was discarded with an earlier one is refused.
                    drop(device.discard(&operation.id));
                }
            }
        }
    }
    for device in devices {
        let left: Vec<String> =
            open_operations(device).iter().map(|operation| device.explain(&operation.id).unwrap().text).collect();
        assert!(left.is_empty(), "{}: {left:#?}", device.name);
    }
}

fn open_operations(device: &TestDevice) -> Vec<Operation> {
    let open = OperationStatus::ALL.into_iter().filter(|status| !status.has_ended()).collect();
    device.operations(&OperationFilter { statuses: open, limit: 1000, ..OperationFilter::default() }).unwrap()
}

/// What the server's ledger and a device's say of a field, over all rows: (ours, theirs, winner).
fn ledger_values(device: &TestDevice, field: &str) -> Vec<(Value, Value, String)> {
    let text = |value: &Option<Box<serde_json::value::RawValue>>| match value {
        Some(value) => serde_json::from_str(value.get()).unwrap(),
        None => Value::Null,
    };
    let rows = device.conflicts(false, 100).unwrap();
    let fields = rows.iter().filter_map(|row| row.conflict.fields.get(field));
    fields
        .map(|field| {
            let winner = serde_json::to_value(field.winner).unwrap();
            (text(&field.ours), text(&field.theirs), winner.as_str().unwrap().to_owned())
        })
        .collect()
}

/// Names the seed at work, in case the test fails.
#[expect(clippy::print_stdout, reason = "shown only when the test fails")]
fn say(seed: u64) {
    println!("seed {seed}");
}

/// A seed of its own for each thing that is drawn.
fn seed(random: &mut StdRng) -> u64 {
    random.random()
}
