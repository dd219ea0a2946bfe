//! Transactions: all or none, whatever happens on the way.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_core::{OperationStatus, ResolutionKind};
use syncline_testkit::{Fault, World};

use crate::*;

fn commit(world: &World, device: &TestDevice, members: &[NewOperation]) -> Vec<Receipt> {
    world.advance_secs(1);
    let mut transaction = device.begin_transaction().unwrap();
    for member in members {
        transaction.add(member.clone()).unwrap();
    }
    transaction.commit_queued().unwrap()
}

/// A `manual` entity in a transaction conflicts; the user retries: the group takes the clock that the app saw, and applies.
#[test]
fn ce22_retrying_a_group_overcomes_its_conflict() {
    let mut world = World::new(22);
    let config = manual(&world, "a");
    let (a, b) = (world.device_with("a", config), world.device("b"));
    create(&world, &b, "e", r#"{"f":0}"#);
    world.settle(&[&b, &a]);
    update(&world, &b, "e", r#"{"f":1}"#);
    world.sync(&b);
    let group =
        commit(&world, &a, &[NewOperation::create("form", "x", "{}"), NewOperation::update("pin", "e", r#"{"f":2}"#)]);
    let group: Vec<_> = group.iter().collect();
    world.sync(&a);
    assert_status(&a, &group, OperationStatus::Failed);
    assert_eq!(a.operation(&group[1].id).unwrap().unwrap().reason.as_deref(), Some("conflict"));
    world.sync(&b);
    assert_eq!(b.value("form", "x"), None, "nothing of it was applied");
    world.assert_invariants(&[&a, &b]);

    a.retry(&group[0].id).unwrap();
    world.settle(&[&a, &b]);
    assert_status(&a, &group, OperationStatus::Completed);
    assert_eq!((value(&b, "e"), b.value("form", "x")), (json!({"f":2}), Some(json!({}))));
    let rows = a.conflicts(false, 10).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].resolution, Some(ResolutionKind::TakeLocal));
}

/// {#1 e0, #2 e1} queued as one; cancel #1: both are withdrawn, sent before or not, applied before or not.
#[test]
fn ce23_every_action_takes_the_whole_group() {
    for (fault, ended) in [
        (None, OperationStatus::Cancelled),
        (Some(Fault::HoldRequest), OperationStatus::Cancelled),
        (Some(Fault::HoldAnswer), OperationStatus::Completed),
    ] {
        let mut world = World::new(23);
        let (mut a, b) = (world.device("a"), world.device("b"));
        world.sync(&a);
        let group =
            commit(&world, &a, &[NewOperation::create("pin", "e0", "{}"), NewOperation::create("pin", "e1", "{}")]);
        if let Some(fault) = fault {
            sent_before_a_crash(&world, &mut a, fault);
        }
        a.cancel(&group[0].id).unwrap();
        assert_eq!((value(&a, "e0"), value(&a, "e1")), (Value::Null, Value::Null));
        world.assert_invariants(&[&a]);
        world.settle(&[&a, &b]);
        assert_status(&a, &group.iter().collect::<Vec<_>>(), ended);
        a.network.release_all();
        world.settle(&[&a, &b]);
        let there = if ended == OperationStatus::Completed { json!({}) } else { Value::Null };
        assert_eq!((value(&b, "e0"), value(&b, "e1")), (there.clone(), there));
    }
}

/// A pull page of 1 ends between two members: half is visible until `has_more` is false, then all.
#[test]
fn ce25_a_page_may_split_a_transaction_until_the_pull_is_through() {
    let mut world = World::new(25);
    let (a, b) = (world.device("a"), world.device("b"));
    world.settle(&[&a, &b]);
    commit(&world, &a, &[NewOperation::create("pin", "e0", "{}"), NewOperation::create("pin", "e1", "{}")]);
    world.sync(&a);

    // Pulls without an answer shrink B's pages to one change.
    b.network.script(|_| Some(Fault::HoldAnswer));
    b.start().unwrap();
    world.advance_secs(3 * 3600);
    let sizes: Vec<u64> =
        world.server.exchanges().iter().filter_map(|exchange| exchange.request["limit"].as_u64()).collect();
    assert_eq!(sizes.last(), Some(&1), "{sizes:?}");
    b.stop().unwrap();
    b.network.release_all();
    let passed = AtomicBool::new(false);
    b.network.script(move |_| passed.swap(true, Ordering::Relaxed).then_some(Fault::HoldRequest));
    b.start().unwrap();
    pull_beside(&world, &b);
    let page = world.server.exchanges().pop().unwrap();
    assert_eq!((page.route, &page.answer["has_more"]), (Route::Pull, &json!(true)));
    assert_eq!((value(&b, "e0"), value(&b, "e1")), (json!({}), Value::Null));
    b.network.heal();
    b.network.release_all();
    world.run_until_idle();
    assert_eq!(world.server.exchanges().pop().unwrap().answer["has_more"], false);
    assert_eq!((value(&b, "e0"), value(&b, "e1")), (json!({}), json!({})));
    b.stop().unwrap();
    world.settle(&[&a, &b]);
}

/// A member is added to a transaction; a pull arrives; commit: the pulled value counts as not seen.
#[test]
fn ce32_a_members_clock_is_taken_when_it_is_added() {
    let mut world = World::new(32);
    let config = manual(&world, "a");
    let (a, b) = (world.device_with("a", config), world.device("b"));
    create(&world, &b, "e", r#"{"f":0}"#);
    world.settle(&[&b, &a]);
    let mut transaction = a.begin_transaction().unwrap();
    transaction.update("pin", "e", r#"{"f":"mine"}"#).unwrap().create("form", "x", "{}").unwrap();
    update(&world, &b, "e", r#"{"f":"theirs"}"#);
    world.sync(&b);
    world.sync(&a);
    assert_eq!(value(&a, "e"), json!({"f":"theirs"}));
    let group = transaction.commit_queued().unwrap();
    world.sync(&a);
    assert_status(&a, &group.iter().collect::<Vec<_>>(), OperationStatus::Failed);
    let rows = a.conflicts(true, 10).unwrap();
    let field = &rows[0].conflict.fields["f"];
    let text = |value: &Option<Box<serde_json::value::RawValue>>| value.as_ref().map(|value| value.get().to_owned());
    assert_eq!(
        [text(&field.base), text(&field.ours), text(&field.theirs)].map(Option::unwrap),
        ["0", "\"mine\"", "\"theirs\""],
        "what it had seen when it was added, and both values"
    );
    a.discard(&group[0].id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!((value(&a, "e"), a.value("form", "x")), (json!({"f":"theirs"}), None));
}

/// A group fails and is discarded; its delayed first request arrives when it would apply: it meets its members' refusals.
#[test]
fn ce33_a_discarded_group_stays_refused() {
    let mut world = World::new(33);
    let (mut a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    let group =
        commit(&world, &a, &[NewOperation::create("form", "x", "{}"), NewOperation::update("pin", "e", r#"{"f":1}"#)]);
    let group: Vec<_> = group.iter().collect();
    sent_before_a_crash(&world, &mut a, Fault::HoldRequest);
    world.sync(&a);
    assert_status(&a, &group, OperationStatus::Failed);
    a.discard(&group[1].id).unwrap();
    assert_status(&a, &group, OperationStatus::Cancelled);
    create(&world, &b, "e", r#"{"f":0}"#);
    world.sync(&b);
    a.network.release();
    assert_eq!(statuses(&pushes(&world, &a).pop().unwrap().1), ["already_processed", "already_processed"]);
    world.settle(&[&a, &b]);
    assert_eq!((value(&b, "e"), b.value("form", "x")), (json!({"f":0}), None));
}
