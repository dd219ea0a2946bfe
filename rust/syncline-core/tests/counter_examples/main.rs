//! The schedules that broke earlier or simpler rules, each on whole devices and the real endpoint. The number is the line in the
//! list of counter-examples; 37 belongs to the modes for migration.

mod answers;
mod conflicts;
mod copies;
mod folding;
mod lanes;
mod restores;
mod transactions;
mod withdrawn;

use std::sync::Arc;

use serde_json::Value;
use syncline_core::transport::Route;
use syncline_core::{Config, EntityType, NetworkStatus, NewOperation, Notice, OperationStatus, Receipt};
use syncline_protocol::ConflictRule;
use syncline_testkit::{Fault, TestDevice, World};

/// A second later on every clock, then the operation.
fn enqueue(world: &World, device: &TestDevice, operation: NewOperation) -> Receipt {
    world.advance_secs(1);
    device.enqueue(operation).unwrap()
}

fn create(world: &World, device: &TestDevice, id: &str, payload: &str) -> Receipt {
    enqueue(world, device, NewOperation::create("pin", id, payload))
}

fn update(world: &World, device: &TestDevice, id: &str, payload: &str) -> Receipt {
    enqueue(world, device, NewOperation::update("pin", id, payload))
}

fn delete(world: &World, device: &TestDevice, id: &str) -> Receipt {
    enqueue(world, device, NewOperation::delete("pin", id))
}

/// A configuration in which no operation folds into another.
fn unfolded(world: &World, name: &str) -> Config {
    world.config(name).entity_type("pin", EntityType { coalesce: false, ..EntityType::default() })
}

/// A configuration in which the app decides every conflict of `pin`.
fn manual(world: &World, name: &str) -> Config {
    let settings = EntityType { conflicts: Some(ConflictRule::Manual), ..EntityType::default() };
    world.config(name).entity_type("pin", settings)
}

/// One entity's value on a device, `null` if there is none.
fn value(device: &TestDevice, id: &str) -> Value {
    device.value("pin", id).unwrap_or(Value::Null)
}

fn assert_status(device: &TestDevice, receipts: &[&Receipt], status: OperationStatus) {
    for receipt in receipts {
        assert_eq!(device.status(&receipt.id), status, "#{}: {:?}", receipt.sequence, device.operation(&receipt.id));
    }
}

/// The first push waits on the way, decided or not, with no pull beside it; then the process dies and opens the file again.
fn sent_before_a_crash(world: &World, device: &mut TestDevice, fault: Fault) {
    let mut sent = false;
    device.network.script(move |request| match request.route {
        Route::Push => {
            sent = true;
            Some(fault.clone())
        }
        Route::Pull => sent.then_some(Fault::Unreachable),
    });
    device.start().unwrap();
    world.run_until_idle();
    assert_eq!(device.network.held(), 1, "the push is on the way");
    device.network.heal();
    device.restart();
}

/// Pulls, while a push is on the way.
fn pull_beside(world: &World, device: &TestDevice) {
    device.network_changed(NetworkStatus::Online { metered: false }).unwrap();
    world.run_until_idle();
}

/// No push of this device arrives, until its network is healed.
fn cut_pushes(device: &TestDevice) {
    device.network.script(|request| (request.route == Route::Push).then_some(Fault::Unreachable));
}

/// The operations of each push that arrived from a device, and what each was answered.
fn pushes(world: &World, device: &TestDevice) -> Vec<(Vec<Value>, Value)> {
    let arrived = world.server.exchanges().into_iter();
    arrived
        .filter(|exchange| exchange.device == device.name && exchange.route == Route::Push)
        .map(|exchange| (exchange.request["operations"].as_array().cloned().unwrap_or_default(), exchange.answer))
        .collect()
}

/// The statuses in an answer to a push.
fn statuses(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    results.iter().map(|result| result["status"].as_str().unwrap_or_default().to_owned()).collect()
}

fn device_id(device: &TestDevice) -> String {
    device.sql("SELECT device_id FROM device")
}

/// What a device is told about its file as a whole.
fn notices(device: &TestDevice) -> Arc<std::sync::Mutex<Vec<Notice>>> {
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let inside = Arc::clone(&heard);
    device.add_notice_listener(move |notice| inside.lock().unwrap().push(notice)).unwrap();
    heard
}

/// How many conflicts a device's ledger holds.
fn ledger(device: &TestDevice) -> usize {
    device.conflicts(false, 100).unwrap().len()
}
