//! Whoever asks for a credential is never a thread of the core's that waits.

use std::time::Instant;

use syncline_ffi::{CredentialReason, OperationStatus, SyncEvent, SyncManager, SyncState, SynclineError};

use crate::app::{Listener, Served, config, create, open, token, wait};

#[test]
fn a_refused_token_is_asked_for_again() {
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start();
        let listener = Listener::with_tokens([Some(token("ada", -600)), Some(token("ada", 600))]);
        let sync = open(config(folder.path(), "a", &served.url, "ada"), &listener);
        sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap();
        assert_eq!(sync.process_queue().await.unwrap().completed, 1);
        assert_eq!(listener.asked(), [CredentialReason::First, CredentialReason::Refresh]);
        // The good one is kept: nobody is asked again.
        sync.enqueue(vec![create("pin", "p2", "{}")]).unwrap();
        assert_eq!(sync.process_queue().await.unwrap().completed, 1);
        assert_eq!(listener.asked().len(), 2);
        sync.close().unwrap();
    });
}

#[test]
fn without_a_credential_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start();
    let listener = Listener::with_tokens([None]);
    let sync = open(config(folder.path(), "a", &served.url, "ada"), &listener);
    let receipt = sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap().remove(0);
    sync.start().unwrap();
    listener.until("that a credential is wanted", |events| {
        events.iter().any(|event| matches!(event, SyncEvent::AuthRequired { .. }))
    });
    let waits = |state: SyncState| matches!(state, SyncState::AuthRequired { reason } if reason == "no_credential");
    assert!(waits(sync.metrics().unwrap().state));
    assert_eq!(sync.operation(receipt.id.clone()).unwrap().unwrap().attempts, 0);

    // The user has signed in: a token of the app's own accord.
    sync.provide_credential(0, Some(token("ada", 600)), None).unwrap();
    wait(sync.process_queue()).unwrap();
    assert_eq!(wait(sync.wait_for(receipt.id, 20_000)).unwrap().status, OperationStatus::Completed);
    let unasked = sync.provide_credential(77, Some("x".into()), None);
    assert!(matches!(unasked, Err(SynclineError::NotPossible { text }) if text.contains("77")));
    sync.close().unwrap();
}

#[test]
fn nobody_to_ask_ends_at_once_and_charges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start();
    let sync = SyncManager::open(config(folder.path(), "a", &served.url, "ada"), None).unwrap();
    let receipt = sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap().remove(0);
    let begun = Instant::now();
    assert_eq!(wait(sync.run_background(60_000)).unwrap().summary.completed, 0);
    assert!(begun.elapsed().as_secs() < 20, "it waited for nobody");
    let left = sync.operation(receipt.id).unwrap().unwrap();
    assert_eq!((left.status, left.attempts), (OperationStatus::Pending, 0));
    // The last token, which a job has found in the platform's safe.
    sync.provide_credential(0, Some(token("ada", 600)), None).unwrap();
    assert_eq!(wait(sync.run_background(60_000)).unwrap().summary.completed, 1);
    sync.close().unwrap();
}
