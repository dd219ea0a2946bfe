//! The process dies: at every moment at which something is on the way. Whoever opens the file next goes on from there.

use syncline_core::NewOperation;
use syncline_testkit::{Fault, TestDevice, World};

fn write(device: &TestDevice, round: usize) {
    for n in 0..4 {
        let payload = format!(r#"{{"round":{round}}}"#);
        let operation = if round == 0 { NewOperation::create } else { NewOperation::update };
        device.enqueue(operation("pin", &format!("p{n}"), &payload)).unwrap();
    }
    let mut transaction = device.begin_transaction().unwrap();
    transaction.create("form", &format!("f{round}-1"), "{}").unwrap();
    transaction.create("form", &format!("f{round}-2"), "{}").unwrap();
    transaction.commit_queued().unwrap();
}

/// Kills after every number of steps that a round can take, until one round comes to its end.
#[test]
fn a_kill_after_any_step_loses_and_doubles_nothing() {
    let mut deaths = 0;
    for steps in 0.. {
        let mut world = World::new(1);
        let mut device = world.device("a");
        let witness = world.device("b");
        write(&device, 0);
        world.sync(&device);
        write(&device, 1);
        device.start().unwrap();
        let ended = (0..steps).any(|_| !world.steps.step());
        deaths += 1;
        device.kill();
        world.assert_invariants(&[&device, &witness]);
        device.restart();
        world.settle(&[&device, &witness]);
        assert_eq!(witness.value("pin", "p0").unwrap()["round"], 1);
        if ended {
            break;
        }
    }
    assert!(deaths > 10, "a round takes some steps: {deaths}");
}

#[test]
fn a_kill_while_a_request_or_an_answer_is_on_the_way() {
    for fault in [Fault::HoldRequest, Fault::HoldAnswer] {
        let mut world = World::new(2);
        let mut device = world.device("a");
        write(&device, 0);
        world.sync(&device);
        write(&device, 1);
        device.network.script(move |_| Some(fault.clone()));
        device.start().unwrap();
        world.run_until_idle();
        assert!(device.network.held() > 0);
        device.kill();
        assert!(!device.lock.is_held(), "the system frees it");
        world.assert_invariants(&[&device]);

        // Its request arrives after it died, and again when it is sent anew.
        device.network.heal();
        device.network.release_all();
        world.assert_invariants(&[&device]);
        device.restart();
        world.settle(&[&device]);
    }
}

#[test]
fn a_second_process_takes_over_from_one_that_died() {
    let mut world = World::new(3);
    let mut app = world.device("app");
    let extension = world.process(&app, "extension");
    write(&app, 0);
    app.network.script(|_| Some(Fault::HoldRequest));
    app.start().unwrap();
    extension.start().unwrap();
    world.run_until_idle();
    assert_eq!(extension.state(), syncline_core::SyncState::Elsewhere);
    write(&extension, 1);
    app.kill();
    world.advance_secs(6);
    let metrics = extension.metrics().unwrap();
    assert_eq!((metrics.pending, metrics.in_progress), (0, 0), "{metrics:?}");
    app.network.heal();
    app.network.release_all();
    app.restart();
    extension.stop().unwrap();
    world.settle(&[&app]);
}

/// Some file systems forget locks: then two processes drain for a while, and the fence of terms holds alone.
#[test]
fn who_has_lost_the_lock_takes_it_again_once_it_is_free() {
    let mut world = World::new(4);
    let app = world.device("app");
    let mut extension = world.process(&app, "extension");
    app.start().unwrap();
    world.run_until_idle();
    app.lock.steal();
    extension.start().unwrap();
    write(&extension, 0);
    world.run_until_idle();
    assert_eq!(extension.metrics().unwrap().pending, 0, "the thief drains");
    extension.kill();

    write(&app, 1);
    world.advance_secs(121);
    assert_eq!(app.metrics().unwrap().pending, 0, "and then the first one again");
    world.settle(&[&app]);
}
