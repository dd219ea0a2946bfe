//! 2 effect, 4 isolation, 11 liveness.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline_core::{NewOperation, OperationStatus, Receipt, SyncState, Waiting};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, World};

use crate::*;

/// A hundred operations over a network that loses, doubles and delays, on a device that dies: each is decided once.
#[test]
fn inv02_every_completed_operation_was_decided_exactly_once() {
    let mut world = World::new(2);
    let (mut a, b) = (world.device("a"), world.device("b"));
    let mut receipts = Vec::new();
    for n in 0..100 {
        if n % 10 == 0 {
            a.restart();
            let mut faults = StdRng::seed_from_u64(n);
            a.network.script(move |_| fault(&mut faults));
            a.start().unwrap();
        }
        let payload = json!({ "n": n }).to_string();
        receipts.push(a.enqueue(NewOperation::create("pin", format!("e{n}"), payload)).unwrap());
        world.advance_secs(3);
    }
    clean_up(&world, &[&a]);
    a.stop().unwrap();
    world.settle(&[&a, &b]);
    assert!(receipts.iter().all(|receipt| a.status(&receipt.id) == OperationStatus::Completed));
    let decided = "SELECT count(*) || ' ' || count(DISTINCT operation_id) FROM operations WHERE verdict = 'applied'";
    assert_eq!(server_sql::<String>(&world, decided), "100 100");
    assert_eq!(server_sql::<i64>(&world, "SELECT head FROM scopes"), 100, "each took effect once");
    assert!(world.server.exchanges().len() > 30, "and that was not easy");
}

/// What was cancelled, refused or is in conflict has no effect; what was blamed with unknown outcome says so.
#[test]
fn inv02_what_is_not_completed_has_no_effect_or_says_that_it_may() {
    let mut world = World::new(22);
    let (a, b) = (world.device("a"), world.device("b"));
    world.sync(&a);
    let cancelled = a.enqueue(NewOperation::create("pin", "cancelled", "{}")).unwrap();
    a.cancel(&cancelled.id).unwrap();
    let refused = a.enqueue(NewOperation::update("pin", "refused", r#"{"f":1}"#)).unwrap();
    world.sync(&a);
    assert_eq!(a.explain(&refused.id).unwrap().waiting, failed("not_found", false));

    // Our endpoint breaks down on one operation after it has decided it.
    let unlucky = a.enqueue(NewOperation::create("pin", "unlucky", r#"{"unlucky":1}"#)).unwrap();
    a.network.script(|request| {
        let broken = String::from_utf8_lossy(&request.body).contains("unlucky");
        broken.then(|| Fault::problem(ProblemCode::Internal).after_commit())
    });
    a.start().unwrap();
    world.advance_secs(600);
    assert_eq!(a.explain(&unlucky.id).unwrap().waiting, failed("internal", true));
    world.sync(&b);
    assert_eq!(
        ["cancelled", "refused", "unlucky"].map(|id| b.value("pin", id)),
        [None, None, Some(json!({"unlucky":1}))]
    );
    world.assert_invariants(&[&a, &b]);
    a.network.heal();
    a.stop().unwrap();
    a.retry(&unlucky.id).unwrap();
    a.discard(&refused.id).unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(a.status(&unlucky.id), OperationStatus::Completed);
    assert_eq!(server_sql::<i64>(&world, "SELECT head FROM scopes"), 1, "once, for all the attempts");
}

fn failed(code: &str, outcome_unknown: bool) -> Waiting {
    Waiting::Failed { code: code.to_owned(), outcome_unknown }
}

/// One operation breaks our endpoint whenever it is in a batch: it is found at once, and all else goes on meanwhile.
#[test]
fn inv04_a_poison_operation_delays_no_other_lane_and_no_pull() {
    let mut world = World::new(4);
    let (a, b) = (world.device("a"), world.device("b"));
    b.enqueue(NewOperation::create("pin", "theirs", "{}")).unwrap();
    world.sync(&b);
    let receipts: Vec<Receipt> = (0..200)
        .map(|n| {
            let payload = if n == 77 { r#"{"poison":1}"# } else { "{}" };
            a.enqueue(NewOperation::create("pin", format!("e{n}"), payload)).unwrap()
        })
        .collect();
    let behind = a.enqueue(NewOperation::create("pin", "e300", "{}").after(&receipts[77])).unwrap();
    a.network.script(|request| {
        String::from_utf8_lossy(&request.body).contains("poison").then(|| Fault::problem(ProblemCode::Internal))
    });
    let began = world.steps.now_ms();
    a.start().unwrap();
    world.run_until_idle();
    let poison = &receipts[77];
    for receipt in receipts.iter().filter(|receipt| receipt.id != poison.id) {
        assert_eq!(a.status(&receipt.id), OperationStatus::Completed, "#{}", receipt.sequence);
    }
    assert!(a.value("pin", "theirs").is_some(), "pulled");
    assert_eq!(world.steps.now_ms(), began, "and no time has passed");
    assert_eq!(a.operation(&poison.id).unwrap().unwrap().attempts, 1);
    world.assert_invariants(&[&a, &b]);

    // It backs off by itself; new writes and changes of others do not notice.
    for n in 0..10 {
        world.advance_secs(30);
        let fresh = a.enqueue(NewOperation::create("pin", format!("fresh{n}"), "{}")).unwrap();
        world.run_until_idle();
        assert_eq!(a.status(&fresh.id), OperationStatus::Completed);
    }
    assert_eq!(a.explain(&poison.id).unwrap().waiting, failed("internal", true));
    assert_eq!(a.status(&behind.id), OperationStatus::Pending);
    assert_eq!(a.explain(&behind.id).unwrap().waiting, Waiting::DependencyBlocked);
    world.assert_invariants(&[&a, &b]);
    a.network.heal();
    a.retry(&poison.id).unwrap();
    a.stop().unwrap();
    world.settle(&[&a, &b]);
    assert_eq!(b.value("pin", "e300"), Some(json!({})));
}

/// Half an hour of faults of every kind; then they stop: all is delivered within the longest backoff, with no new write.
#[test]
fn inv11_the_queue_drains_once_faults_stop() {
    for number in 0..8 {
        say(number);
        let mut random = StdRng::seed_from_u64(number);
        let mut world = World::new(number);
        let (a, b) = (world.device("a"), world.device("b"));
        let mut faults = StdRng::seed_from_u64(seed(&mut random));
        a.network.script(move |_| fault(&mut faults).or(Some(Fault::Unreachable)));
        a.start().unwrap();
        let receipts: Vec<Receipt> = (0..60)
            .map(|n| {
                world.advance_secs(random.random_range(0..60));
                let id = format!("e{}", n % 20);
                a.enqueue(NewOperation::create("pin", id, json!({ "n": n }).to_string())).unwrap()
            })
            .collect();
        world.assert_invariants(&[&a]);
        a.network.heal();
        let held = a.network.held();
        // Five minutes of backoff, and a request that never gets an answer is given up after its timeout.
        world.advance(Duration::from_secs(300) + a.config.network.timeout);
        assert_eq!(a.state(), SyncState::Idle, "{held} were held");
        for receipt in &receipts {
            let status = a.status(&receipt.id);
            assert!(status.has_ended(), "{status}: {}", a.explain(&receipt.id).unwrap().text);
        }
        a.network.release_all();
        a.stop().unwrap();
        world.settle(&[&a, &b]);
        let last: Value = b.value("pin", "e19").unwrap();
        assert_eq!(last, json!({"n":59}));
    }
}
