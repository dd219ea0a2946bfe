//! Operations go out and come in.

use syncline_ffi::{
    CommitOutcome, OperationAction, OperationFilter, OperationStatus, Resolution, SignOutMode, SyncEvent, SyncState,
    SyncStatus, SynclineError, Waiting,
};

use crate::app::{Listener, Served, config, create, open, update, wait};

fn filter(statuses: Vec<OperationStatus>) -> OperationFilter {
    OperationFilter { statuses, entity_type: None, entity_id: None, after: 0, limit: 100 }
}

#[test]
fn what_is_written_offline_is_here_now_and_there_later() {
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start();
        let listener = Listener::good("ada");
        let sync = open(config(folder.path(), "a", &served.url, "ada"), &listener);

        let receipts = sync
            .enqueue(vec![create("pin", "p1", r#"{"title":"Leak"}"#), create("pin", "p2", r#"{"title":"Crack"}"#)])
            .unwrap();
        let pin = sync.get("pin".into(), "p1".into()).unwrap().unwrap();
        assert_eq!((pin.value.as_deref(), pin.sync_status), (Some(r#"{"title":"Leak"}"#), SyncStatus::Pending));
        let why = sync.explain(receipts[0].id.clone()).unwrap();
        assert_eq!(why.waiting, Waiting::Paused);
        assert_eq!((sync.metrics().unwrap().pending, sync.metrics().unwrap().state), (2, SyncState::Paused));

        let summary = sync.process_queue().await.unwrap();
        assert_eq!((summary.completed, summary.failed), (2, 0));
        let done = sync.wait_for(receipts[1].id.clone(), 10_000).await.unwrap();
        assert_eq!(done.status, OperationStatus::Completed);
        assert_eq!(sync.get("pin".into(), "p1".into()).unwrap().unwrap().sync_status, SyncStatus::Synced);

        let settled = |events: &[SyncEvent]| {
            let done =
                |event: &&SyncEvent| matches!(event, SyncEvent::Operation { to: OperationStatus::Completed, .. });
            events.iter().filter(done).count() == 2
        };
        let events = listener.until("both completions", settled);
        for receipt in &receipts {
            let steps: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    SyncEvent::Operation { id, from, to, .. } if *id == receipt.id => Some((*from, *to)),
                    _ => None,
                })
                .collect();
            use OperationStatus::{Completed, InProgress, Pending};
            assert_eq!(steps, [(None, Pending), (Some(Pending), InProgress), (Some(InProgress), Completed)]);
        }

        // Another device of the team sees them.
        let other = open(config(folder.path(), "b", &served.url, "bob"), &Listener::good("bob"));
        assert_eq!(other.process_queue().await.unwrap().pulled, 2);
        let changes = other.changes_since(0, 100).unwrap();
        assert_eq!(changes.entities.iter().map(|pin| pin.entity_id.as_str()).collect::<Vec<_>>(), ["p1", "p2"]);
        assert!(other.changes_since(changes.cursor, 100).unwrap().entities.is_empty());
        other.close().unwrap();
        sync.close().unwrap();
    });
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start();
        let sync = open(config(folder.path(), "a", &served.url, "ada"), &Listener::good("ada"));

        let transaction = sync.begin_transaction().unwrap();
        transaction.add(create("pin", "p1", r#"{"n":1}"#)).unwrap();
        assert!(sync.get("pin".into(), "p1".into()).unwrap().is_none(), "nothing is written before the commit");
        transaction.rollback().unwrap();
        transaction.rollback().unwrap();
        let ended = transaction.add(create("pin", "p1", "{}"));
        assert!(matches!(ended, Err(SynclineError::Closed { .. })), "{ended:?}");

        let transaction = sync.begin_transaction().unwrap();
        transaction.add(create("pin", "p1", r#"{"n":1}"#)).unwrap();
        let wrong = transaction.add(create("pin", "p2", "[]"));
        assert!(matches!(wrong, Err(SynclineError::InvalidOperation { field, .. }) if field == "payload"));
        transaction.add(create("pin", "p2", r#"{"n":2}"#)).unwrap();
        match transaction.commit_now(20_000).await.unwrap() {
            CommitOutcome::Applied { receipts } => assert_eq!(receipts.len(), 2),
            other => panic!("{other:?}"),
        }

        // The server refuses one member: none takes effect, and all say why.
        let transaction = sync.begin_transaction().unwrap();
        transaction.add(create("pin", "p3", r#"{"n":3}"#)).unwrap();
        transaction.add(update("pin", "never-made", r#"{"n":4}"#)).unwrap();
        let CommitOutcome::Failed { receipts, culprit, reason, .. } = transaction.commit_now(20_000).await.unwrap()
        else {
            panic!("it was applied")
        };
        assert_eq!((culprit, reason.as_str()), (receipts[1].id.clone(), "not_found"));
        assert_eq!(sync.operations(filter(vec![OperationStatus::Failed])).unwrap().len(), 2);
        sync.act(receipts[0].id.clone(), OperationAction::Discard).unwrap();
        assert!(sync.operations(filter(vec![OperationStatus::Failed])).unwrap().is_empty(), "one gives up all");
        sync.close().unwrap();
    });
}

#[test]
fn a_conflict_waits_for_the_app() {
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start();
        let a = open(config(folder.path(), "a", &served.url, "ada"), &Listener::good("ada"));
        let b = open(config(folder.path(), "b", &served.url, "bob"), &Listener::good("bob"));
        a.enqueue(vec![create("form", "f1", r#"{"answer":"?"}"#)]).unwrap();
        a.process_queue().await.unwrap();
        b.process_queue().await.unwrap();
        a.enqueue(vec![update("form", "f1", r#"{"answer":"leaks"}"#)]).unwrap();
        b.enqueue(vec![update("form", "f1", r#"{"answer":"ok"}"#)]).unwrap();
        a.process_queue().await.unwrap();
        assert_eq!(b.process_queue().await.unwrap().conflicts, 1);

        let conflicts = b.conflicts(true, 10).unwrap();
        let conflict = &conflicts[0];
        let field = &conflict.fields[0];
        assert_eq!((conflict.rule.as_str(), field.name.as_str(), field.winner.as_str()), ("manual", "answer", "none"));
        assert_eq!(field.base.as_deref(), Some(r#""?""#));
        assert_eq!((field.ours.as_deref(), field.theirs.as_deref()), (Some(r#""ok""#), Some(r#""leaks""#)));
        assert_eq!(b.explain(conflict.operation_id.clone()).unwrap().waiting, Waiting::Conflicted);

        let value = r#"{"answer":"ok, but leaks"}"#;
        b.resolve_conflict(conflict.operation_id.clone(), Resolution::Merged { value: value.into() }).unwrap();
        b.process_queue().await.unwrap();
        a.process_queue().await.unwrap();
        assert!(b.conflicts(true, 10).unwrap().is_empty());
        assert_eq!(b.conflicts(false, 10).unwrap()[0].resolution.as_deref(), Some("merged"));
        for sync in [&a, &b] {
            assert_eq!(sync.get("form".into(), "f1".into()).unwrap().unwrap().value.as_deref(), Some(value));
        }
        let again = b.resolve_conflict(conflict.operation_id.clone(), Resolution::TakeLocal);
        assert!(matches!(again, Err(SynclineError::NotPossible { .. })), "{again:?}");
        a.close().unwrap();
        b.close().unwrap();
    });
}

#[test]
fn a_window_in_the_background_ends_and_signing_out_says_what_it_leaves() {
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start();
        let sync = open(config(folder.path(), "a", &served.url, "ada"), &Listener::good("ada"));
        sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap();
        let run = sync.run_background(10_000).await.unwrap();
        assert!(run.finished && run.summary.completed == 1);
        sync.enqueue(vec![create("pin", "p2", "{}")]).unwrap();
        assert_eq!(sync.unsent().unwrap().unsent, 1);
        assert_eq!(sync.sign_out(SignOutMode::Flush { timeout_ms: 10_000 }).await.unwrap().unsent, 0);
        assert!(matches!(sync.metrics(), Err(SynclineError::Closed { .. })));
    });
}
