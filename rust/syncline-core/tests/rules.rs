//! Rules of the specification that no scenario elsewhere shows by the way (docs/spec-map.md).

use std::time::Duration;

use syncline_core::{EntityType, NewOperation, OperationStatus, Retention};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, World};

fn create(entity: &str) -> NewOperation {
    NewOperation::create("pin", entity, r#"{"f":"first"}"#)
}

#[test]
fn a_dependency_that_was_folded_away_leads_to_the_survivor() {
    let mut world = World::new(1);
    let device = world.device("a");
    let survivor = device.enqueue(create("e")).unwrap();
    let folded = device.enqueue(NewOperation::update("pin", "e", r#"{"f":"second"}"#)).unwrap();
    assert_eq!(device.status(&folded.id), OperationStatus::Cancelled);
    let dependent = device.enqueue(create("other").after(&folded)).unwrap();
    assert_eq!(device.status(&dependent.id), OperationStatus::Pending);
    world.settle(&[&device]);
    for receipt in [&survivor, &dependent] {
        assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
    }
}

#[test]
fn a_dependency_folded_away_afterwards_fails_nobody() {
    let mut world = World::new(2);
    let device = world.device("a");
    device.enqueue(create("e")).unwrap();
    world.sync(&device);
    let first = device.enqueue(NewOperation::update("pin", "e", r#"{"f":1}"#)).unwrap();
    let dependent = device.enqueue(create("other").after(&first)).unwrap();
    device.enqueue(NewOperation::update("pin", "e", r#"{"f":2}"#)).unwrap();
    assert_eq!(device.status(&dependent.id), OperationStatus::Pending);
    world.settle(&[&device]);
    assert_eq!(device.status(&dependent.id), OperationStatus::Completed);
}

#[test]
fn a_dependency_that_was_pruned_counts_as_completed() {
    let mut world = World::new(3);
    let mut config = world.config("a");
    config.retention = Retention { age: Duration::ZERO, count: 0 };
    let device = world.device_with("a", config);
    let old = device.enqueue(create("e")).unwrap();
    world.sync(&device);
    device.enqueue(create("newer")).unwrap(); // the queue's last row is never pruned
    for _ in 0..3 {
        world.advance_secs(3_600);
        world.sync(&device);
    }
    assert_eq!(device.operation(&old.id).unwrap(), None, "it was pruned");
    let dependent = device.enqueue(create("other").after(&old)).unwrap();
    world.settle(&[&device]);
    assert_eq!(device.status(&dependent.id), OperationStatus::Completed);
}

#[test]
fn an_update_with_nothing_to_fold_on_gives_no_entity() {
    let mut world = World::new(4);
    let device = world.device("a");
    device.enqueue(NewOperation::update("pin", "nowhere", r#"{"f":1}"#)).unwrap();
    assert_eq!(device.value("pin", "nowhere"), None);
}

#[test]
fn folding_keeps_what_the_older_operation_saw_before() {
    let mut world = World::new(5);
    let settings = EntityType { send_before: true, ..EntityType::default() };
    let config = world.config("a").entity_type("pin", settings);
    let (a, b) = (world.device_with("a", config), world.device("b"));
    a.enqueue(create("e")).unwrap();
    world.settle(&[&a, &b]);
    a.enqueue(NewOperation::update("pin", "e", r#"{"f":"mine"}"#)).unwrap();
    a.enqueue(NewOperation::update("pin", "e", r#"{"f":"mine after all"}"#)).unwrap();
    b.enqueue(NewOperation::update("pin", "e", r#"{"f":"theirs"}"#)).unwrap();
    world.sync(&b);
    world.sync(&a);
    let row = &a.conflicts(false, 1).unwrap()[0].conflict;
    let text = |value: &Option<Box<serde_json::value::RawValue>>| value.as_ref().map(|value| value.get().to_owned());
    assert_eq!(text(&row.fields["f"].base).as_deref(), Some(r#""first""#));
    assert_eq!(text(&row.fields["f"].ours).as_deref(), Some(r#""mine after all""#));
    world.settle(&[&a, &b]);
}

#[test]
fn a_users_retry_starts_the_count_of_attempts_anew() {
    let mut world = World::new(6);
    let device = world.device("a");
    world.sync(&device);
    let poison = device.enqueue(create("e").with_max_attempts(1)).unwrap();
    device.network.script(|request| {
        let carries_something = String::from_utf8_lossy(&request.body).contains("idempotency_key");
        carries_something.then(|| Fault::problem(ProblemCode::Internal))
    });
    world.sync(&device);
    assert_eq!(device.status(&poison.id), OperationStatus::Failed);
    assert_eq!(device.operation(&poison.id).unwrap().unwrap().attempts, 1);
    device.network.heal();
    device.retry(&poison.id).unwrap();
    assert_eq!(device.operation(&poison.id).unwrap().unwrap().attempts, 0);
    world.settle(&[&device]);
    assert_eq!(device.status(&poison.id), OperationStatus::Completed);
}
