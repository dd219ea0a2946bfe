//! The checks can fail, and the steps are what they say.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use syncline_core::NewOperation;
use syncline_core::environment::{Clock, Runtime};
use syncline_testkit::{ManualClock, Steps, TestDevice, World};

/// Two devices that agree, then one row of one file changed behind their backs. Gives what the check says.
fn sabotage(server: bool, statement: &str) -> String {
    let mut world = World::new(1);
    let (a, b) = (world.device("a"), world.device("b"));
    for n in 0..3 {
        a.enqueue(NewOperation::create("pin", format!("p{n}"), r#"{"n":1}"#)).unwrap();
        world.sync(&a);
        a.enqueue(NewOperation::update("pin", format!("p{n}"), r#"{"n":2}"#)).unwrap();
    }
    world.settle(&[&a, &b]);
    let path = if server { world.server.path() } else { a.path().to_owned() };
    let changed = rusqlite::Connection::open(path).unwrap().execute(statement, []).unwrap();
    assert!(changed > 0, "the sabotage did something");
    let failed = catch_unwind(AssertUnwindSafe(|| check(&world, &[&a, &b])));
    let said = failed.expect_err("the check passes what is wrong");
    said.downcast_ref::<String>().expect("a message").clone()
}

fn check(world: &World, devices: &[&TestDevice]) {
    world.settle(devices);
}

#[test]
fn what_is_lost_doubled_reordered_or_diverged_is_found() {
    let lost = sabotage(true, "DELETE FROM operations WHERE sequence = 3");
    assert!(lost.contains("effect: operation 3 is completed, and was applied 0 times"), "{lost}");
    let doubled = sabotage(
        true,
        "INSERT INTO operations SELECT scope, 'other', operation_id, 'x', sequence, operation, entity_type, entity_id,
         payload_hash, verdict, error, conflict_id, decided_at FROM operations WHERE sequence = 3",
    );
    assert!(doubled.contains("effect: operation 3 is completed, and was applied 2 times"), "{doubled}");
    let reordered = sabotage(true, "UPDATE operations SET sequence = 99 WHERE sequence = 1");
    assert!(reordered.contains("order: ") && reordered.contains("was applied after a later one"), "{reordered}");
    let diverged =
        sabotage(false, r#"UPDATE entities SET current = '{"n":7}', base = '{"n":7}' WHERE entity_id = 'p1'"#);
    assert!(diverged.contains("convergence: ") && diverged.contains("p1"), "{diverged}");
    let miscounted = sabotage(false, "UPDATE counters SET completed_total = completed_total + 1");
    assert!(miscounted.contains("conservation"), "{miscounted}");
}

#[test]
fn timers_fire_in_order_and_only_when_time_passes() {
    let steps = Steps::default();
    let (runtime, clock) = (steps.owner(), ManualClock::new(&steps));
    let beginning = clock.now();
    let sleep = |ms| runtime.sleep(Duration::from_millis(ms));
    let (late, early) = (sleep(20), sleep(10));
    let late = steps.start({
        let clock = clock.clone();
        async move {
            late.await;
            clock.now().millis()
        }
    });
    let early = steps.start({
        let clock = clock.clone();
        async move {
            early.await;
            clock.now().millis()
        }
    });
    steps.run_until_idle();
    assert_eq!((early.take(), late.take()), (None, None));
    steps.advance(Duration::from_millis(15));
    assert_eq!((early.take(), late.take()), (Some(beginning.millis() + 10), None));
    steps.advance(Duration::from_millis(15));
    assert_eq!(late.take(), Some(beginning.millis() + 20), "it ends at its own time, not at the end of the advance");
    assert_eq!(clock.now(), beginning.plus_millis(30));
    clock.shift(-1_000);
    assert_eq!(clock.now(), beginning.plus_millis(-970));
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.steps.shuffle(seed);
        let a = world.device("a");
        a.start().unwrap();
        let ids: Vec<_> =
            (0..5).map(|n| a.enqueue(NewOperation::create("pin", format!("p{n}"), "{}")).unwrap().id).collect();
        world.run_until_idle();
        world.settle(&[&a]);
        (ids, a.network.sent(), world.server.exchanges().iter().map(|e| e.request.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
