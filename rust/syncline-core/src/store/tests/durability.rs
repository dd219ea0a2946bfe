//! What a damaged, foreign, newer, full or read-only file does: a clear error, and nothing lost.

use std::fs;

use super::*;
use crate::error::SynclineError;

fn open(options: &StoreOptions) -> Result<Store> {
    Store::open(options.clone(), "A", Timestamp::from_millis(1_700_000_000_000))
}

#[test]
fn a_file_belongs_to_one_user_and_one_scope() {
    let bench = Bench::new();
    let mut other = bench.store.options.clone();
    other.user_id = "somebody".into();
    assert_eq!(open(&other).err(), Some(SynclineError::WrongUser { what: "user" }));
    let mut other = bench.store.options.clone();
    other.scope = "other-team".into();
    assert_eq!(open(&other).err(), Some(SynclineError::WrongUser { what: "scope" }));
}

#[test]
fn what_enqueue_acknowledged_survives_the_process() {
    let mut bench = Bench::new();
    bench.create("e", r#"{"a":1}"#);
    bench.claim(&[1]);
    let bench = bench.reopen();
    assert_eq!(bench.value("e"), r#"{"a":1}"#);
    assert_eq!(bench.row(1).status, OperationStatus::Pending, "the lease went with its process");
}

#[test]
fn a_corrupt_file_is_set_aside_and_reported() {
    for damage in ["header", "page"] {
        let mut bench = Bench::new();
        bench.create("e", "{}");
        let Bench { dir, store, .. } = bench;
        let options = store.options.clone();
        drop(store);
        let mut bytes = fs::read(&options.path).unwrap();
        let at = if damage == "header" { 0..16 } else { 100..4096 };
        bytes[at].fill(0x5a);
        fs::write(&options.path, &bytes).unwrap();
        let Some(SynclineError::Corrupt { set_aside: Some(aside) }) = open(&options).err() else {
            panic!("{damage}: no report")
        };
        assert_eq!(fs::read(&aside).unwrap(), bytes, "kept as it was");
        let mut fresh = open(&options).unwrap();
        assert_eq!(fresh.tail().unwrap().next_sequence, 1);
        drop(dir);
    }
}

#[test]
fn damage_noticed_later_is_examined_at_the_next_open() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false));
    for n in 0..200 {
        bench.create(&format!("e{n}"), &format!("{{\"a\":\"{}\"}}", "x".repeat(500)));
    }
    let Bench { dir, store, .. } = bench;
    let options = store.options.clone();
    drop(store);
    let mut bytes = fs::read(&options.path).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages - 3) * 4096..(pages - 1) * 4096].fill(0x5a);
    fs::write(&options.path, &bytes).unwrap();
    let store = open(&options).expect("the damage is deep inside");
    drop(store);
    let _ = options.noticing::<()>(Err(SynclineError::Corrupt { set_aside: None }));
    assert!(matches!(open(&options).err(), Some(SynclineError::Corrupt { set_aside: Some(_) })));
    drop(dir);
}

#[test]
fn a_newer_file_is_refused_untouched() {
    let bench = Bench::new();
    let Bench { dir, store, .. } = bench;
    let options = store.options.clone();
    store.conn.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let before = fs::read(&options.path).unwrap();
    assert_eq!(open(&options).err(), Some(SynclineError::TooNew { found: 99, supported: 1 }));
    assert_eq!(fs::read(&options.path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no WAL was made");
}

#[test]
fn another_programs_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    let conn = rusqlite::Connection::open(&options.path).unwrap();
    conn.execute_batch("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')").unwrap();
    drop(conn);
    let before = fs::read(&options.path).unwrap();
    assert!(matches!(open(&options).err(), Some(SynclineError::InvalidConfig { field, .. }) if field == "database"));
    assert_eq!(fs::read(&options.path).unwrap(), before);
}

#[test]
fn a_full_disk_writes_nothing_and_says_so() {
    let mut bench = Bench::new();
    bench.create("e", "{}");
    let pages: u64 = bench.store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    bench.store.conn.pragma_update(None, "max_page_count", pages).unwrap();
    let big = bench.prepare(NewOperation::create("pin", "f", format!("{{\"a\":\"{}\"}}", "x".repeat(100_000))));
    assert_eq!(bench.store.enqueue(&big, bench.now).err(), Some(SynclineError::StorageFull));
    bench.assert_consistent();
    bench.store.conn.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(bench.store.enqueue(&big, bench.now).unwrap().sequence, 2, "and goes on when there is room");
    bench.assert_consistent();
}

#[test]
fn a_read_only_file_and_a_missing_folder_are_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut missing = options(&dir);
    missing.path = dir.path().join("nowhere/device.db");
    assert!(matches!(open(&missing).err(), Some(SynclineError::Storage { .. })));
    let options = options(&dir);
    drop(open(&options).unwrap());
    // Root may write to a file whose permissions say otherwise, so the connection itself is made read-only.
    let mut store = open(&options).unwrap();
    store.conn.pragma_update(None, "query_only", true).unwrap();
    let operation = Prepared::new(NewOperation::create("pin", "e", "{}"), "id".into(), &EntityType::default()).unwrap();
    let refused = store.enqueue(&operation, Timestamp::from_millis(0)).err();
    assert_eq!(refused, Some(SynclineError::Storage { detail: "the file is read-only".into() }));
}

#[test]
fn bad_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    type Change = fn(&mut StoreOptions);
    let cases: [(Change, &str); 5] = [
        (|o| o.user_id = String::new(), "user_id"),
        (|o| o.scope = "a\nb".into(), "scope"),
        (|o| o.pull_types = Some(vec!["Pin".into()]), "pull_types"),
        (|o| o.entity_types = settings(|pin| pin.max_attempts = 0), "entity_types.pin.max_attempts"),
        (
            |o| o.entity_types = settings(|pin| pin.indexed_paths = vec!["title".into()]),
            "entity_types.pin.indexed_paths",
        ),
    ];
    for (change, expected) in cases {
        let mut options = options(&dir);
        change(&mut options);
        let Some(SynclineError::InvalidConfig { field, .. }) = open(&options).err() else { panic!("{expected}") };
        assert_eq!(field, expected);
    }
}

/// Two connections, as of two processes: each sees the other's writes, and no sequence is given twice.
#[test]
fn two_connections_enqueue_side_by_side() {
    let mut bench = Bench::new();
    let mut other = open(&bench.store.options).unwrap();
    for n in 0..20 {
        let prepared = bench.prepare(NewOperation::create("pin", format!("e{n}"), r#"{"a":1}"#));
        let store = if n % 2 == 0 { &mut bench.store } else { &mut other };
        assert_eq!(store.enqueue(&prepared, bench.now).unwrap().sequence, n + 1);
    }
    let mut told = other.take_changes();
    bench.store.committed.operations.append(&mut told.operations);
    bench.store.committed.operations.sort_by_key(|event| event.sequence);
    bench.assert_consistent();
}
