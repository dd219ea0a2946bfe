//! The embedded file: durable, refused when it is not ours, left untouched when it is newer.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use syncline_server::store::{Storage, StorageError};
use syncline_server::{SqliteStore, replica_hash};

use crate::world::{World, op};

fn open(path: &Path) -> World {
    World::over(SqliteStore::open(path, None).unwrap(), json!({}))
}

#[test]
fn what_was_answered_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    let create = op("A", 1, "create", "e", json!({"f": 1, "z": null}), json!({}));
    let update = op("B", 9, "update", "e", json!({"f": 2}), json!({}));
    let (entities, ledger, epoch) = {
        let mut world = open(&path);
        world.push("A", vec![create.clone()]);
        world.push("B", vec![update.clone()]);
        (world.endpoint.entities("team").unwrap(), world.endpoint.ledger("team").unwrap(), world.epoch())
    };
    let mut world = open(&path);
    assert_eq!(world.endpoint.entities("team").unwrap(), entities);
    assert_eq!(
        serde_json::to_value(world.endpoint.ledger("team").unwrap()).unwrap(),
        serde_json::to_value(ledger).unwrap()
    );
    assert_eq!((world.epoch(), world.endpoint.scopes().unwrap()), (epoch, vec!["team".to_owned()]));
    assert_eq!(world.status("B", update), "already_processed");
    assert_eq!(world.endpoint.device("team", "A").unwrap().unwrap().mark, 1);
}

#[test]
fn the_file_is_in_wal_and_opens_on_a_named_vfs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    drop(SqliteStore::open(&path, Some("unix-excl")).unwrap());
    assert!(SqliteStore::open(&path, Some("no-such-vfs")).is_err());
    let connection = Connection::open(&path).unwrap();
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

fn bytes_after_refusal(path: &Path) -> Vec<u8> {
    let refused = SqliteStore::open(path, None).map(|_| ());
    assert!(matches!(refused, Err(StorageError::Refused(_))), "{refused:?}");
    std::fs::read(path).unwrap()
}

#[test]
fn a_newer_file_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    open(&path).push("A", vec![op("A", 1, "create", "e", json!({}), json!({}))]);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(bytes_after_refusal(&path), before);
}

#[test]
fn a_file_of_something_else_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a); INSERT INTO mine VALUES (1)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(bytes_after_refusal(&path), before);
    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database, but long enough to be looked at as one".repeat(100)).unwrap();
    assert!(SqliteStore::open(&text, None).is_err());
}

#[test]
fn a_locked_file_is_unavailable_and_not_a_defect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    drop(open(&path));
    let mut store = SqliteStore::open(&path, None).unwrap();
    store.set_patience(std::time::Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.transaction("team").map(|_| ()), Err(StorageError::Unavailable(_))));
    let mut world = World::over(store, json!({}));
    let pull = json!({"protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "limit": 1});
    let claims = syncline_server::Claims::new("ada".into(), ["team".to_owned()].into());
    let request = pull.to_string();
    let request = syncline_server::Request::Pull(request.as_bytes());
    let answer = syncline_server::Endpoint::handle(&mut world.endpoint, request, &claims, world.now, &mut world.random);
    assert_eq!((answer.status, answer.retry_after), (503, Some(1)));
}

#[test]
fn a_transaction_that_is_dropped_leaves_no_trace() {
    let mut store = SqliteStore::open_in_memory().unwrap();
    let row = syncline_server::store::ScopeRow { head: 0, epoch: "e".into(), purged_through: 0 };
    store.transaction("team").unwrap().put_scope(&row).unwrap();
    assert_eq!(store.transaction("team").unwrap().scope().unwrap(), None);
}

#[test]
fn the_hash_does_not_depend_on_order_or_notation() {
    let one = [("pin", "a", r#"{"x":1.0,"y":2}"#.to_owned()), ("pin", "b", "{}".to_owned())];
    let other = [("pin", "b", "{}".to_owned()), ("pin", "a", r#"{"y":2,"x":1}"#.to_owned())];
    assert_eq!(replica_hash(one.clone().into_iter()), replica_hash(other.into_iter()));
    let less = one.into_iter().take(1);
    assert_ne!(replica_hash(less), replica_hash(std::iter::empty()));
}
