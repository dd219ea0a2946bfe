//! Conflicts through the front door: resolved, decided by a rule, and reopened.

use syncline_core::{EntityType, NewOperation, OperationStatus, Resolution, SynclineError};
use syncline_protocol::ConflictRule;
use syncline_testkit::{TestDevice, World};

/// Both write `title` without having seen the other; `b` is the later one to arrive.
fn disagree(world: &mut World, rule: ConflictRule) -> (TestDevice, TestDevice) {
    let open = |world: &mut World, name: &str| {
        let settings = EntityType { conflicts: Some(rule), ..EntityType::default() };
        let config = world.config(name).entity_type("pin", settings);
        world.device_with(name, config)
    };
    let (a, b) = (open(world, "a"), open(world, "b"));
    a.enqueue(NewOperation::create("pin", "p1", r#"{"title":"Leak"}"#)).unwrap();
    world.settle(&[&a, &b]);
    b.enqueue(NewOperation::update("pin", "p1", r#"{"title":"b's"}"#)).unwrap();
    world.advance_secs(1);
    a.enqueue(NewOperation::update("pin", "p1", r#"{"title":"a's"}"#)).unwrap();
    world.sync(&a);
    world.sync(&b);
    (a, b)
}

#[test]
fn a_manual_conflict_waits_for_the_app() {
    for (resolution, title) in [
        (Resolution::TakeLocal, "b's"),
        (Resolution::TakeRemote, "a's"),
        (Resolution::Merged(r#"{"title":"both"}"#.into()), "both"),
    ] {
        let mut world = World::new(1);
        let (a, b) = disagree(&mut world, ConflictRule::Manual);
        let waiting = b.conflicts(true, 10).unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!(b.status(&waiting[0].conflict.operation_id), OperationStatus::Conflicted);
        world.assert_invariants(&[&a, &b]);
        b.resolve_conflict(&waiting[0].conflict.id, resolution.clone()).unwrap();
        assert!(matches!(
            b.resolve_conflict(&waiting[0].conflict.id, resolution),
            Err(SynclineError::NotPossible { .. })
        ));
        world.settle(&[&b, &a]);
        assert_eq!(a.value("pin", "p1").unwrap()["title"], title);
        assert!(b.conflicts(true, 10).unwrap().is_empty());
    }
}

#[test]
fn a_value_that_lost_is_in_the_ledger_and_can_be_brought_back() {
    let mut world = World::new(2);
    let (a, b) = disagree(&mut world, ConflictRule::LastWriterWins);
    world.settle(&[&a, &b]);
    assert_eq!(b.value("pin", "p1").unwrap()["title"], "a's", "the later writer wins");
    let ledger = b.conflicts(false, 10).unwrap();
    let receipt = b.reopen_conflict(&ledger[0].conflict.id).unwrap();
    world.settle(&[&b, &a]);
    assert_eq!(a.value("pin", "p1").unwrap()["title"], "b's");
    assert_eq!(b.conflicts(false, 10).unwrap()[0].reopened_by.as_deref(), Some(receipt.id.as_str()));
    assert!(matches!(b.reopen_conflict("nothing"), Err(SynclineError::NotPossible { .. })));
}
