//! A real device in a world of its own, with something of everything in its queue.

use syncline_core::{NewOperation, QueueMetrics};
use syncline_testkit::{TestDevice, World};

/// A world and its device `a`: one record that the endpoint knows, and four operations that wait, two of them a transaction.
pub fn waiting() -> (World, TestDevice, Vec<String>) {
    let mut world = World::new(1);
    let device = world.device("a");
    let known = NewOperation::create("pin", "known", r#"{"title":"Leak","n":1}"#);
    device.enqueue(known).expect("the operation is good");
    world.sync(&device);
    let mut ids = Vec::new();
    for operation in [
        NewOperation::update("pin", "known", r#"{"title":"Crack"}"#),
        NewOperation::create("pin", "fresh-one", r#"{"a":[1]}"#),
    ] {
        ids.push(device.enqueue(operation).expect("the operation is good").id);
    }
    let mut transaction = device.begin_transaction().expect("the device is open");
    transaction.create("note", "n1", r#"{"text":"x"}"#).expect("the operation is good");
    transaction.delete("pin", "known").expect("the operation is good");
    ids.extend(transaction.commit_queued().expect("the transaction is good").into_iter().map(|receipt| receipt.id));
    (world, device, ids)
}

/// Every operation is in exactly one state.
///
/// # Panics
/// If one was lost, or counted twice.
pub fn assert_conservation(metrics: &QueueMetrics) {
    let QueueMetrics { pending, in_progress, failed, conflicted, completed_total, cancelled_total, .. } = metrics;
    let counted = pending + in_progress + failed + conflicted + completed_total + cancelled_total;
    assert_eq!(metrics.enqueued_total, counted, "{metrics:?}");
}
