//! The device core itself, over its own HTTP, against the functions in a real Postgres.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason, Token};
use syncline_core::{Config, NewOperation, OperationFilter, OperationStatus, SyncManager, SyncState};

use crate::stage::{KEY, NOW, Stage, token};

/// Gives one token first, and another one when that was refused.
struct Session {
    first: String,
    refreshed: AtomicUsize,
}

impl Session {
    fn new(first: String) -> Arc<Self> {
        Arc::new(Self { first, refreshed: AtomicUsize::new(0) })
    }
}

fn good() -> String {
    token(json!({ "sub": "ada", "role": "authenticated" }))
}

impl CredentialProvider for Session {
    fn token(&self, reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        let token = match reason {
            CredentialReason::First => self.first.clone(),
            CredentialReason::Refresh => {
                self.refreshed.fetch_add(1, Ordering::Relaxed);
                good()
            }
        };
        Box::pin(async { Ok(Some(Token(token))) })
    }
}

/// A device of ada, whose scope has her name: the default of the migrations.
fn device(stage: &Stage, folder: &Path, name: &str, session: &Arc<Session>) -> SyncManager {
    let config = Config::new(folder.join(name), stage.endpoint(KEY), "ada", "ada");
    open(config, session)
}

fn open(config: Config, session: &Arc<Session>) -> SyncManager {
    let sync = SyncManager::open_system(config, session.clone()).unwrap();
    sync.start().unwrap();
    sync
}

#[tokio::test]
async fn two_devices_meet_in_the_database() {
    let stage = Stage::new("devices").await;
    stage.migrate().await;
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(good());
    let (a, b) = (device(&stage, folder.path(), "a.db", &session), device(&stage, folder.path(), "b.db", &session));
    for n in 0..120 {
        a.enqueue(NewOperation::create("pin", format!("p{n}"), format!(r#"{{"title":"Leak {n}","n":1.5}}"#))).unwrap();
    }
    let summary = a.process_queue().await.unwrap();
    let first = &a.operations(&OperationFilter::default()).unwrap()[0];
    assert_eq!(summary.completed, 120, "{} {summary:?}", a.explain(&first.id).unwrap().text);
    b.process_queue().await.unwrap();
    b.enqueue(NewOperation::update("pin", "p7", r#"{"title":"Fixed"}"#)).unwrap();
    assert_eq!(b.process_queue().await.unwrap().completed, 1);
    a.process_queue().await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&a.get("pin", "p7").unwrap().unwrap().value.unwrap()).unwrap();
    assert_eq!(seen, json!({ "title": "Fixed", "n": 1.5 }));
    assert_eq!(stage.sql("select head from syncline.scopes where scope = 'ada'"), "121");
}

#[tokio::test]
async fn an_expired_token_is_asked_for_afresh_once() {
    let stage = Stage::new("expired").await;
    stage.migrate().await;
    let folder = tempfile::tempdir().unwrap();
    let expired = token(json!({ "sub": "ada", "role": "authenticated", "exp": NOW - 60 }));
    let session = Session::new(expired);
    let a = device(&stage, folder.path(), "a.db", &session);
    let receipt = a.enqueue(NewOperation::create("pin", "p", "{}")).unwrap();
    a.process_queue().await.unwrap();
    assert_eq!(a.operation(&receipt.id).unwrap().unwrap().status, OperationStatus::Completed);
    // Each request starts with the token at hand, and is asked once afresh.
    assert!(session.refreshed.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn before_the_migrations_it_says_what_is_missing_and_goes_on_after_them() {
    let stage = Stage::new("before").await;
    let folder = tempfile::tempdir().unwrap();
    let a = device(&stage, folder.path(), "a.db", &Session::new(good()));
    let receipt = a.enqueue(NewOperation::create("pin", "p", "{}")).unwrap();
    a.process_queue().await.unwrap();
    match a.state() {
        SyncState::Backoff { reason, .. } => assert_eq!(reason, "function_not_found"),
        other => panic!("{other:?}"),
    }
    let waiting = a.operation(&receipt.id).unwrap().unwrap();
    assert_eq!((waiting.status, waiting.attempts), (OperationStatus::Pending, 0));
    stage.migrate().await;
    assert_eq!(a.process_queue().await.unwrap().completed, 1);
}

#[tokio::test]
async fn a_scope_that_the_token_does_not_open_needs_the_app() {
    let stage = Stage::new("foreign_scope").await;
    stage.migrate().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("a.db"), stage.endpoint(KEY), "ada", "team-1");
    let a = open(config, &Session::new(good()));
    a.enqueue(NewOperation::create("pin", "p", "{}")).unwrap();
    a.process_queue().await.unwrap();
    assert_eq!(a.state(), SyncState::AuthRequired { reason: "wrong_scope".into() });
}

#[tokio::test]
async fn a_wrong_key_is_a_stranger_in_the_way_and_costs_nothing() {
    let stage = Stage::new("wrong_key").await;
    stage.migrate().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("a.db"), stage.endpoint("sb_publishable_other"), "ada", "ada");
    let a = open(config, &Session::new(good()));
    let receipt = a.enqueue(NewOperation::create("pin", "p", "{}")).unwrap();
    a.process_queue().await.unwrap();
    assert!(matches!(a.state(), SyncState::Backoff { reason, .. } if reason == "not_our_endpoint"));
    assert_eq!(a.operation(&receipt.id).unwrap().unwrap().attempts, 0);
}
