//! Listeners: every change once and in order, and they may call back into the manager.

use std::sync::{Arc, Mutex};

use syncline_core::{NewOperation, OperationEvent, OperationStatus, SyncManager, SynclineError};
use syncline_testkit::{Fault, World};

type Heard<T> = Arc<Mutex<Vec<T>>>;

fn record<T: Send + 'static>() -> (Heard<T>, impl Fn(T) + Send + Sync + 'static) {
    let heard: Heard<T> = Arc::default();
    let inside = Arc::clone(&heard);
    (heard, move |news| inside.lock().unwrap().push(news))
}

fn pin(id: &str) -> NewOperation {
    NewOperation::create("pin", id, "{}")
}

#[test]
fn every_change_of_state_is_told_once_and_in_order() {
    use OperationStatus::{Completed, InProgress, Pending};
    let mut world = World::new(1);
    let device = world.device("a");
    let (heard, listener) = record::<OperationEvent>();
    device.add_operation_listener(listener).unwrap();
    device.enqueue(pin("p1")).unwrap();
    device.enqueue(pin("p2")).unwrap();
    assert!(heard.lock().unwrap().is_empty(), "never on the caller's stack");
    device.network.next_push(Fault::DropAfter);
    world.sync(&device);
    world.sync(&device);
    world.run_until_idle();
    let heard = heard.lock().unwrap();
    for sequence in [1, 2] {
        let steps: Vec<_> =
            heard.iter().filter(|event| event.sequence == sequence).map(|event| (event.from, event.to)).collect();
        assert_eq!(
            steps,
            [
                (None, Pending),
                (Some(Pending), InProgress),
                (Some(InProgress), Pending),
                (Some(Pending), InProgress),
                (Some(InProgress), Completed),
            ],
            "operation {sequence}"
        );
    }
}

#[test]
fn entities_and_metrics_are_told() {
    let mut world = World::new(2);
    let (a, b) = (world.device("a"), world.device("b"));
    a.enqueue(pin("p1")).unwrap();
    world.sync(&a);
    let (entities, listener) = record();
    b.add_entity_listener(listener).unwrap();
    let (metrics, listener) = record();
    b.add_metrics_listener(listener).unwrap();
    world.sync(&b);
    world.run_until_idle();
    let told = entities.lock().unwrap();
    assert!(told.iter().any(|change| (change.entity_type.as_str(), change.entity_id.as_str()) == ("pin", "p1")));
    drop(told);
    assert_eq!(metrics.lock().unwrap().last().cloned().unwrap(), b.metrics().unwrap());
}

/// A listener that uses the manager in every way, from within.
#[test]
fn a_listener_may_call_anything() {
    let mut world = World::new(3);
    let device = world.device("a");
    let manager: SyncManager = device.manager();
    let (heard, listener) = record::<OperationEvent>();
    device.add_operation_listener(listener).unwrap();
    let own_id = Arc::new(Mutex::new(None));
    let inside = Arc::clone(&own_id);
    let id = device
        .add_operation_listener(move |event| {
            assert_eq!(manager.operation(&event.id).unwrap().unwrap().sequence, event.sequence);
            manager.metrics().unwrap();
            manager.explain(&event.id).unwrap();
            if let Some(id) = inside.lock().unwrap().take() {
                manager.remove_listener(id);
                manager.enqueue(pin("from-within")).unwrap();
                manager.start().unwrap();
            }
        })
        .unwrap();
    *own_id.lock().unwrap() = Some(id);
    device.enqueue(pin("p1")).unwrap();
    world.run_until_idle();
    assert_eq!(device.metrics().unwrap().completed_total, 2);
    assert_eq!(heard.lock().unwrap().iter().filter(|event| event.to == OperationStatus::Completed).count(), 2);
    world.settle(&[&device]);
}

#[test]
fn a_listener_may_close_the_manager() {
    let mut world = World::new(4);
    let mut device = world.device("a");
    let manager = device.manager();
    let (heard, listener) = record::<OperationEvent>();
    device.add_operation_listener(move |_| manager.close()).unwrap();
    device.add_operation_listener(listener).unwrap();
    device.enqueue(pin("p1")).unwrap();
    world.run_until_idle();
    assert_eq!(heard.lock().unwrap().len(), 1, "what was due is still told");
    assert_eq!(device.enqueue(pin("p2")), Err(SynclineError::Closed));
    assert_eq!(device.add_operation_listener(|_| {}), Err(SynclineError::Closed));
    device.close();
    device.restart();
    assert_eq!(device.metrics().unwrap().enqueued_total, 1);
}

#[test]
fn a_listener_that_panics_stops_nobody() {
    let mut world = World::new(5);
    let device = world.device("a");
    device.add_operation_listener(|_| panic!("on purpose: a listener that panics")).unwrap();
    let (heard, listener) = record::<OperationEvent>();
    device.add_operation_listener(listener).unwrap();
    device.enqueue(pin("p1")).unwrap();
    world.sync(&device);
    world.run_until_idle();
    assert_eq!(heard.lock().unwrap().len(), 3);
    world.settle(&[&device]);
}
