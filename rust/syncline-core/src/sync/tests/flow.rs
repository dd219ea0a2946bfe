use super::*;
use crate::metrics::SyncState;

#[test]
fn batches_go_side_by_side_over_disjoint_lanes() {
    let (mut endpoint, mut rig) = ready(2);
    let first = rig.create("e");
    let one = rig.send();
    let second = rig.enqueue(NewOperation::update("pin", "e", r#"{"title":"y"}"#));
    let third = rig.create("other");
    let two = rig.send();
    assert_eq!((one.sequences(), two.sequences()), (vec![first.sequence], vec![third.sequence]));
    rig.create("third");
    assert!(rig.wait().is_some(), "no more than two");
    rig.take(&one, &mut endpoint);
    assert_eq!(rig.send().sequences(), [second.sequence, 4]);
}

#[test]
fn what_follows_a_withdrawal_waits_for_its_answer() {
    let (mut endpoint, mut rig) = ready(2);
    let first = rig.create("e");
    let sent = rig.send();
    rig.answer(&sent, Outcome::Abandoned);
    rig.store.cancel(&first.id, rig.now).unwrap();
    let second = rig.enqueue(NewOperation::create("pin", "e", r#"{"title":"y"}"#));
    let void = rig.send();
    assert_eq!((void.sequences(), &void.operations()[0]["void"]), (vec![first.sequence], &json!(true)));
    assert!(rig.wait().is_some());
    rig.take(&void, &mut endpoint);
    assert_eq!(rig.status(&first), OperationStatus::Cancelled);
    assert_eq!(rig.send().sequences(), [second.sequence]);
    assert_eq!(rig.driver.summary().cancelled, 1);
}

#[test]
fn a_withdrawn_transaction_of_one_lane_is_not_stuck_on_itself() {
    let (mut endpoint, mut rig) = ready(1);
    let group = rig.group(vec![NewOperation::create("pin", "e", "{}"), NewOperation::update("pin", "e", r#"{"a":1}"#)]);
    let sent = rig.send();
    rig.answer(&sent, Outcome::Abandoned);
    rig.store.cancel(&group[0].id, rig.now).unwrap();
    rig.run_with(&mut endpoint);
    for member in &group {
        assert_eq!(rig.status(member), OperationStatus::Cancelled);
    }
}

#[test]
fn a_failed_lane_holds_only_what_follows_and_parks_it_once() {
    let (mut endpoint, mut rig) = ready(1);
    let first = rig.enqueue(NewOperation::create("pin", "e", r#"{"n":0}"#).with_max_attempts(1));
    let sent = rig.send();
    rig.answer(&sent, problem(ProblemCode::TooDeep));
    let probe = rig.send();
    rig.take(&probe, &mut endpoint);
    assert_eq!(rig.status(&first), OperationStatus::Failed);
    for n in 1..1_200 {
        let update = NewOperation::update("pin", "e", format!(r#"{{"n":{n}}}"#)).after(&first);
        rig.enqueue(update);
    }
    let other = rig.create("other");
    rig.run_with(&mut endpoint);
    assert_eq!(rig.status(&other), OperationStatus::Completed);
    rig.store.retry(&first.id, rig.now).unwrap();
    let sent = rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 1_201);
    let order: Vec<u64> = sent.iter().flat_map(Sending::sequences).collect();
    assert!(order.is_sorted(), "lane order");
    assert!(sent.len() < 10, "{} requests", sent.len());
}

/// What waits for something that is itself in the way of something else must not be forgotten when the middle one goes.
#[test]
fn cancelling_one_that_waits_frees_what_waits_behind_it() {
    let (mut endpoint, mut rig) = ready(1);
    let root = rig.enqueue(NewOperation::create("pin", "root", "{}"));
    rig.run(
        |request| {
            if request.operations().is_empty() { endpoint.answer(request) } else { problem(ProblemCode::TooDeep) }
        },
    );
    assert_eq!(rig.status(&root), OperationStatus::Failed);
    let middle = rig.enqueue(NewOperation::create("pin", "e", "{}").after(&root));
    let behind = rig.enqueue(NewOperation::create("pin", "other", "{}"));
    let last = rig.enqueue(NewOperation::update("pin", "e", r#"{"a":1}"#).after(&behind));
    let far = rig.enqueue(NewOperation::create("pin", "far", "{}").after(&last));
    rig.run_with(&mut endpoint);
    assert_eq!(rig.status(&last), OperationStatus::Pending);
    rig.store.cancel(&middle.id, rig.now).unwrap();
    rig.run_with(&mut endpoint);
    assert_eq!(rig.status(&last), OperationStatus::Completed);
    assert_eq!(rig.status(&far), OperationStatus::Completed);
}

#[test]
fn a_dependent_that_failed_with_its_dependency_frees_its_lane_when_retried() {
    let (mut endpoint, mut rig) = ready(1);
    let root = rig.enqueue(NewOperation::create("pin", "root", "{}"));
    rig.run(
        |request| {
            if request.operations().is_empty() { endpoint.answer(request) } else { problem(ProblemCode::TooDeep) }
        },
    );
    let middle = rig.enqueue(NewOperation::create("pin", "m", "{}").after(&root));
    let dependent = rig.enqueue(NewOperation::create("pin", "e", "{}").after(&middle));
    let other = rig.create("other");
    let behind = rig.enqueue(NewOperation::update("pin", "e", r#"{"a":1}"#).after(&other));
    rig.run_with(&mut endpoint);
    rig.store.cancel(&middle.id, rig.now).unwrap();
    assert_eq!(rig.status(&dependent), OperationStatus::Failed);
    rig.run_with(&mut endpoint);
    rig.store.retry(&dependent.id, rig.now).unwrap();
    rig.run_with(&mut endpoint);
    assert_eq!(rig.status(&dependent), OperationStatus::Completed);
    assert_eq!(rig.status(&behind), OperationStatus::Completed);
}

#[test]
fn a_queue_larger_than_a_batch_is_drained_whole() {
    let (mut endpoint, mut rig) = ready(3);
    rig.create_many(1_700);
    let sent = rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 1_700);
    let sizes: Vec<usize> = sent.iter().map(|request| request.sequences().len()).filter(|size| *size > 0).collect();
    assert_eq!(sizes, [500, 500, 500, 200]);
    assert_eq!(rig.driver.state(rig.now), SyncState::Idle);
    assert!(rig.driver.is_at_rest());
}

#[test]
fn pulls_come_at_their_interval_and_follow_has_more() {
    let (mut endpoint, mut rig) = ready(1);
    assert_eq!(rig.wait(), Some(rig.now.plus_millis(60_000)));
    rig.advance(60_000);
    let pull = rig.send();
    endpoint.version = 1;
    rig.answer(&pull, ours(200, &endpoint.page(true)));
    let more = rig.send();
    assert_eq!((more.route, &more.body["cursor"]), (Route::Pull, &json!("c1")));
    endpoint.version = 2;
    rig.answer(&more, ours(200, &endpoint.page(false)));
    assert_eq!(rig.wait(), Some(rig.now.plus_millis(60_000)));
}

#[test]
fn an_endpoint_that_fails_on_pulls_does_not_stop_pushes() {
    let (mut endpoint, mut rig) = ready(1);
    rig.driver.nudge();
    rig.create_many(3);
    let sent = rig.run_for(30_000, |request| match request.route {
        Route::Pull => problem(ProblemCode::Internal),
        Route::Push => endpoint.answer(request),
    });
    assert_eq!(rig.completed(), 3);
    assert!(sent.len() < 10, "{} requests", sent.len());
}

#[test]
fn a_page_too_large_to_read_is_asked_for_in_parts() {
    let (_, mut rig) = ready(1);
    rig.driver.nudge();
    let pull = rig.send();
    rig.answer(&pull, Outcome::NoAnswer(crate::transport::TransportError::TooLarge));
    let smaller = rig.send();
    assert_eq!(smaller.body["limit"].as_u64().unwrap() * 2, pull.body["limit"].as_u64().unwrap());
}

#[test]
fn giving_up_returns_everything_and_drops_late_answers() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    let sent = rig.send();
    assert_eq!(rig.operation("op-1").status, OperationStatus::InProgress);
    rig.driver.abandon_all(&mut rig.store, rig.now, &rig.random).unwrap();
    assert_eq!(rig.operation("op-1").status, OperationStatus::Pending);
    let late = endpoint.answer(&sent);
    rig.answer(&sent, late);
    assert_eq!(rig.operation("op-1").status, OperationStatus::Pending);
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 1);
}

#[test]
fn paused_starts_nothing_and_takes_what_is_answered() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    let sent = rig.send();
    rig.driver.pause();
    rig.create("b");
    assert_eq!((rig.wait(), rig.driver.state(rig.now)), (None, SyncState::Paused));
    rig.take(&sent, &mut endpoint);
    assert_eq!(rig.completed(), 1);
    rig.driver.resume();
    assert_eq!(rig.send().sequences(), [2]);
}

#[test]
fn the_summary_counts_what_was_done() {
    let (mut endpoint, mut rig) = ready(1);
    let before = rig.driver.summary();
    rig.create_many(4);
    rig.run_with(&mut endpoint);
    let done = rig.driver.summary().since(&before);
    assert_eq!((done.completed, done.failed, done.requests), (4, 0, 1));
}
