//! Files of released versions keep opening, and a migration that dies half-way leaves the file as it was.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::error::SynclineError;
use crate::store::open::Migration;

/// What version 2 might do: rebuild the queue with one more column. For these tests only.
const NEXT: Migration = Migration {
    version: 2,
    sql: "CREATE TABLE sync_queue_new AS SELECT *, 'x' AS note FROM sync_queue;
          DROP TABLE sync_queue;
          ALTER TABLE sync_queue_new RENAME TO sync_queue;
          CREATE UNIQUE INDEX sync_queue_sequence ON sync_queue (sequence);
          CREATE INDEX sync_queue_lane ON sync_queue (entity, sequence) WHERE open = 1;
          UPDATE sync_queue SET note = id;",
};
const FIRST: Migration = Migration { version: 1, sql: include_str!("../../../migrations/0001_init.sql") };
const STATEMENTS: usize = 6;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/device-v1.db")
}

fn copy_of_fixture() -> (TempDir, StoreOptions) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = options(&dir);
    fs::copy(fixture(), &options.path).expect("the frozen file is in the repository");
    (dir, options)
}

/// Every table of version 1, row by row.
fn contents(conn: &rusqlite::Connection) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["device", "entities", "sync_queue", "dependencies", "conflicts", "counters"] {
        let columns: Vec<String> = conn
            .prepare(&format!("SELECT name FROM pragma_table_info('{table}') WHERE name <> 'note'"))
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(|name| name.unwrap())
            .collect();
        let sql = format!("SELECT json_array(quote({})) FROM {table} ORDER BY 1", columns.join("), quote("));
        let mut statement = conn.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        all.extend(rows.map(|row| format!("{table} {}", row.unwrap())));
    }
    all
}

fn open_next(options: &StoreOptions, stop_after: Option<usize>) -> crate::error::Result<Store> {
    let mut hook = |statement| {
        if Some(statement) == stop_after { Err(SynclineError::Closed) } else { Ok(()) }
    };
    Store::open_with(options.clone(), "A", Timestamp::from_millis(0), &[FIRST, NEXT], &mut hook)
}

#[test]
fn the_frozen_file_of_version_1_holds_every_state_and_opens() {
    let (_dir, options) = copy_of_fixture();
    let before = contents(&rusqlite::Connection::open(&options.path).unwrap());
    let store = Store::open(options, "unused", Timestamp::from_millis(1_700_000_000_000)).unwrap();
    assert_eq!(contents(&store.conn), before, "opening changes nothing");
    for state in [
        "status = 'pending' AND claimed = 0 AND park IS NULL",
        "status = 'pending' AND void = 1",
        "status = 'pending' AND park > 0",
        "status = 'pending' AND next_attempt_at IS NOT NULL",
        "status = 'pending' AND key_try = 2",
        "status = 'in_progress' AND void = 0",
        "status = 'in_progress' AND void = 1",
        "status = 'completed' AND open = 0",
        "status = 'completed' AND open = 1",
        "status = 'failed' AND decided = 1",
        "status = 'failed' AND claimed = 1 AND decided = 0",
        "status = 'conflicted'",
        "status = 'cancelled' AND survivor IS NOT NULL",
        "status = 'cancelled' AND reason = 'user'",
        "transaction_id IS NOT NULL",
        "dot_device <> (SELECT device_id FROM device)",
        "sequence IN (SELECT sequence FROM dependencies)",
    ] {
        let sql = format!("SELECT count(*) FROM sync_queue WHERE {state}");
        let rows: u64 = store.conn.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert!(rows > 0, "the file has no operation with {state}");
    }
    let device = store.device().unwrap();
    assert!(device.reset && device.forked && device.retry_after.is_some(), "half-done reset, fork, Retry-After");
    let unconfirmed: u64 =
        store.conn.query_row("SELECT count(*) FROM entities WHERE base_confirmed = 0", [], |row| row.get(0)).unwrap();
    assert!(unconfirmed > 0);
}

/// The migrations of a released version are never edited: what they make today is what the frozen file has.
#[test]
fn the_schema_of_version_1_is_the_frozen_one() {
    let schema = |path: &std::path::Path| -> Vec<String> {
        let conn = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT coalesce(sql, name) FROM sqlite_schema WHERE name NOT LIKE 'entities_path_%' ORDER BY name";
        conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(|text| text.unwrap()).collect()
    };
    let (_dir, frozen) = copy_of_fixture();
    let fresh = Bench::new();
    assert_eq!(schema(&fresh.store.options.path), schema(&frozen.path));
}

#[test]
fn a_migration_killed_after_any_statement_leaves_the_file_as_it_was() {
    for stop in 0..STATEMENTS {
        let (_dir, options) = copy_of_fixture();
        let before = contents(&rusqlite::Connection::open(&options.path).unwrap());
        assert_eq!(open_next(&options, Some(stop)).err(), Some(SynclineError::Closed));
        // Reopened by the old app: nothing has happened.
        let old = Store::open(options.clone(), "A", Timestamp::from_millis(0)).unwrap();
        assert_eq!(contents(&old.conn), before, "killed after statement {stop}");
        drop(old);
        // And by the new one: it goes through, and every value is still there.
        let new = open_next(&options, None).unwrap();
        assert_eq!(contents(&new.conn), before);
        let moved: u64 =
            new.conn.query_row("SELECT count(*) FROM sync_queue WHERE note = id", [], |row| row.get(0)).unwrap();
        assert!(moved > 10);
        drop(new);
        assert_eq!(
            Store::open(options, "A", Timestamp::from_millis(0)).err(),
            Some(SynclineError::TooNew { found: 2, supported: 1 })
        );
    }
}

/// Builds a file of version 1 that holds every state. With `SYNCLINE_FREEZE=1` it becomes the frozen one: once, by hand,
/// before the version was released.
#[test]
fn a_file_with_every_state_can_be_built() {
    let mut bench = Bench::with(|options| options.retention.count = 0).pulled();
    bench.pull(
        vec![
            change("kept", 1, Some(r#"{"f":0,"title":"Valve"}"#), clock(&[("B", 1)])),
            change("dropped", 2, Some(r#"{"f":0}"#), clock(&[("B", 2)])),
            change("dead", 3, None, clock(&[("B", 3)])),
        ],
        "c3",
        false,
    );
    let done = bench.create("done", r#"{"n":1}"#);
    bench.deliver(&[done.sequence], 4, Vec::new());
    let unfolded = bench.create("unfolded", r#"{"n":1}"#);
    let batch = bench.claim(&[unfolded.sequence]);
    let mut silent = result(&batch.sent[0], Status::Merged);
    (silent.version, silent.deleted) = (9, false);
    bench.settle(&batch, &response(9, 0, vec![silent]));
    let failed = bench.update("kept", r#"{"f":1}"#);
    bench.deliver(&[failed.sequence], 9, vec![rejected(&failed.id, "invalid_value")]);
    bench.update("kept", r#"{"f":2}"#);
    bench.store.park(&[Park { sequence: failed.sequence + 1, on: failed.sequence as i64 }]).unwrap();
    let blamed = bench.create("blamed", "{}");
    bench.claim(&[blamed.sequence]);
    let how = How::Fail { reason: "internal".into(), message: Some("The endpoint failed on it.".into()) };
    bench.store.give_back(bench.term, &[GiveBack { sequence: blamed.sequence, how }], bench.now, &Half).unwrap();
    let waiting = bench.create("waiting", "{}");
    bench.claim(&[waiting.sequence]);
    let how = How::Wait { reason: "proxy_refused".into(), message: None };
    bench.store.give_back(bench.term, &[GiveBack { sequence: waiting.sequence, how }], bench.now, &Half).unwrap();
    let conflict = bench.update("dropped", r#"{"f":1}"#);
    bench.claim(&[conflict.sequence]);
    let sent = SentOperation { sequence: conflict.sequence, id: conflict.id.clone(), void: false };
    let ledger = super::verdicts::conflicted(&conflict.id, "2", clock(&[("B", 4)]));
    let batch = ClaimedBatch {
        operations: Vec::new(),
        sent: vec![sent],
        device: bench.store.device().unwrap(),
        forgotten_through: 0,
    };
    bench.settle(&batch, &response(9, 0, vec![ledger]));
    let again = bench.create("again", "{}");
    bench.deliver(&[again.sequence], 9, vec![rejected(&again.id, "invalid_value")]);
    bench.store.retry(&again.id, bench.now).unwrap();
    for entity in ["void-waiting", "void-flying"] {
        let void = bench.create(entity, "{}");
        bench.claim(&[void.sequence]);
        if entity == "void-waiting" {
            let back = GiveBack { sequence: void.sequence, how: How::Ready };
            bench.store.give_back(bench.term, &[back], bench.now, &Half).unwrap();
        }
        bench.store.cancel(&void.id, bench.now).unwrap();
    }
    let folded = bench.create("folded", r#"{"n":1}"#);
    bench.update("folded", r#"{"n":2}"#);
    let cancelled = bench.create("cancelled", "{}");
    bench.store.cancel(&cancelled.id, bench.now).unwrap();
    bench.enqueue(NewOperation::create("form", "dependent", "{}").after(&folded));
    bench.group("transaction", vec![NewOperation::create("pin", "m1", "{}"), NewOperation::create("pin", "m2", "{}")]);
    bench.store.set_retry_after(Some((bench.now.plus_millis(60_000), 60_000))).unwrap();
    let flying = bench.create("flying", "{}");
    bench.claim(&[flying.sequence]);
    bench.store.write(Store::begin_reset).unwrap();
    bench.pull(vec![change("kept", 3, Some(r#"{"f":0}"#), clock(&[("B", 1)]))], "c3b", true);
    bench.store.conn.execute("UPDATE device SET device_id = 'A2', forked = 1", []).unwrap();
    bench.assert_consistent();
    bench.store.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    if std::env::var_os("SYNCLINE_FREEZE").is_some() {
        fs::create_dir_all(fixture().parent().unwrap()).unwrap();
        fs::copy(&bench.store.options.path, fixture()).unwrap();
    }
}
