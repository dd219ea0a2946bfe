//! Offline and back: nothing is lost, nothing waits longer than it must, and the waiting survives a restart.

use std::time::Duration;

use syncline_core::{NetworkStatus, NewOperation, OperationStatus, SyncState, Waiting};
use syncline_testkit::{Fault, World};

const ONLINE: NetworkStatus = NetworkStatus::Online { metered: false };

fn pin(n: usize) -> NewOperation {
    NewOperation::create("pin", format!("p{n}"), format!(r#"{{"n":{n}}}"#))
}

#[test]
fn what_was_written_offline_is_delivered_when_the_network_is_back() {
    let mut world = World::new(1);
    let device = world.device("a");
    device.start().unwrap();
    device.network_changed(NetworkStatus::Offline).unwrap();
    world.run_until_idle();
    for n in 0..20 {
        device.enqueue(pin(n)).unwrap();
    }
    world.advance_secs(3600);
    assert_eq!(device.state(), SyncState::Offline);
    assert_eq!((device.network.sent(), device.metrics().unwrap().pending), (0, 20));

    device.network_changed(ONLINE).unwrap();
    world.run_until_idle();
    let metrics = device.metrics().unwrap();
    assert_eq!((metrics.pending, metrics.completed_total, metrics.state), (0, 20, SyncState::Idle));
    world.settle(&[&device]);
}

#[test]
fn a_local_write_is_sent_at_once_while_the_background_runs() {
    let mut world = World::new(2);
    let device = world.device("a");
    device.start().unwrap();
    world.run_until_idle();
    let receipt = device.enqueue(pin(1)).unwrap();
    world.run_until_idle();
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
    world.settle(&[&device]);
}

#[test]
fn the_backoff_ends_by_itself_with_no_new_write() {
    let mut world = World::new(3);
    let device = world.device("a");
    device.start().unwrap();
    world.run_until_idle();
    device.network.cut();
    let receipt = device.enqueue(pin(1)).unwrap();
    world.advance_secs(600);
    let tries = device.network.sent();
    assert!((3..200).contains(&tries), "{tries} tries in ten minutes");
    assert!(matches!(device.state(), SyncState::Backoff { .. }), "{:?}", device.state());
    let operation = device.operation(&receipt.id).unwrap().unwrap();
    assert_eq!((operation.status, operation.attempts), (OperationStatus::Pending, 0), "being offline charges nothing");

    device.network.heal();
    world.advance_secs(300);
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
    world.settle(&[&device]);
}

#[test]
fn a_reported_network_skips_the_backoff() {
    let mut world = World::new(4);
    let device = world.device("a");
    device.start().unwrap();
    device.network.cut();
    let receipt = device.enqueue(pin(1)).unwrap();
    world.advance_secs(600);
    device.network.heal();
    device.network_changed(ONLINE).unwrap();
    world.run_until_idle();
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
}

#[test]
fn retry_after_outlives_a_restart_and_the_users_impatience() {
    let mut world = World::new(5);
    let mut device = world.device("a");
    let receipt = device.enqueue(pin(1)).unwrap();
    device.network.next(Fault::ours(503, "{}").retry_after("120"));
    world.sync(&device);
    let sent = device.network.sent();
    device.restart();
    world.sync(&device);
    device.network_changed(ONLINE).unwrap();
    world.sync(&device);
    assert_eq!(device.network.sent(), sent, "nothing was sent before the time");

    device.start().unwrap();
    world.run_until_idle();
    let explanation = device.explain(&receipt.id).unwrap();
    assert!(
        matches!(&explanation.waiting, Waiting::ConnectionBackoff { reason } if reason == "retry_after"),
        "{explanation:?}"
    );
    world.advance_secs(119);
    assert_eq!(device.network.sent(), sent);
    world.advance_secs(2);
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
}

#[test]
fn a_request_without_an_answer_is_given_up_in_time() {
    let mut world = World::new(6);
    let device = world.device("a");
    world.sync(&device);
    let receipt = device.enqueue(pin(1)).unwrap();
    device.network.next_push(Fault::HoldAnswer);
    device.start().unwrap();
    world.run_until_idle();
    assert_eq!(device.status(&receipt.id), OperationStatus::InProgress);
    world.advance(device.config.network.timeout + Duration::from_secs(300));
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed, "tried again, and known");
    device.network.release_all();
    world.settle(&[&device]);
}

#[test]
fn sign_in_is_asked_for_and_nothing_is_lost() {
    let mut world = World::new(7);
    let device = world.device("a");
    let receipt = device.enqueue(pin(1)).unwrap();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let inside = heard.clone();
    device.add_auth_listener(move |reason| inside.lock().unwrap().push(reason)).unwrap();
    device.start().unwrap();
    device.credentials.set(None);
    world.run_until_idle();
    assert_eq!(device.state(), SyncState::AuthRequired { reason: "no_credential".into() });
    assert_eq!(*heard.lock().unwrap(), ["no_credential"]);
    assert_eq!(device.operation(&receipt.id).unwrap().unwrap().attempts, 0);

    device.credentials.set(Some(syncline_testkit::TOKEN));
    world.sync(&device);
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
    world.settle(&[&device]);
}

#[test]
fn a_provider_that_panics_or_fails_stops_nothing_for_good() {
    let mut world = World::new(8);
    let device = world.device("a");
    let receipt = device.enqueue(pin(1)).unwrap();
    device.network.script(|_| panic!("on purpose: a transport that panics"));
    device.start().unwrap();
    world.run_until_idle();
    assert!(matches!(device.state(), SyncState::Backoff { .. }), "{:?}", device.state());
    device.network.heal();
    device.credentials.fail("the keychain is locked");
    world.advance_secs(600);
    assert!(matches!(device.state(), SyncState::AuthRequired { .. }), "{:?}", device.state());
    device.credentials.set(Some(syncline_testkit::TOKEN));
    world.advance_secs(600);
    assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
}
