//! Connections of one and of several processes on one file.

use rusqlite::ErrorCode;
use syncline_testkit::disk::Disk;

use crate::{code, number, open, text};

#[test]
fn all_connections_of_a_wal_see_what_was_committed_and_one_at_a_time_writes() {
    let disk = Disk::new(1);
    let (app, extension) = (disk.process(), disk.process());
    let (writer, reader, other) = (open(&app).unwrap(), open(&app).unwrap(), open(&extension).unwrap());
    assert_eq!(text(&other, "PRAGMA journal_mode"), "wal");
    writer.execute_batch("CREATE TABLE t (n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(code(other.execute_batch("BEGIN IMMEDIATE")), ErrorCode::DatabaseBusy);
    assert_eq!(code(reader.execute_batch("BEGIN IMMEDIATE")), ErrorCode::DatabaseBusy);
    assert_eq!(number(&other, "SELECT count(*) FROM t"), 0);

    // A reader keeps its moment, and holds back a checkpoint that wants the whole WAL.
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM t"), 0);
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&other, "SELECT count(*) FROM t"), 1);
    assert_eq!(number(&reader, "SELECT count(*) FROM t"), 0);
    assert_eq!(number(&other, "PRAGMA wal_checkpoint(TRUNCATE)"), 1, "busy");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&other, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);

    other.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    for connection in [&writer, &reader, &other] {
        assert_eq!(number(connection, "SELECT sum(n) FROM t"), 3);
    }
    drop((writer, reader, other));
    assert_eq!(number(&open(&disk.process()).unwrap(), "SELECT sum(n) FROM t"), 3);
}

#[test]
fn a_rollback_journal_locks_as_sqlite_says() {
    let disk = Disk::new(1);
    let (one, two) = (open(&disk.process()).unwrap(), open(&disk.process()).unwrap());
    drop(two);
    one.execute_batch("PRAGMA journal_mode = DELETE; CREATE TABLE t (n)").unwrap();
    let process = disk.process();
    let two =
        rusqlite::Connection::open_with_flags_and_vfs(process.path("a.db"), rusqlite::OpenFlags::default(), Disk::VFS)
            .unwrap();
    two.busy_timeout(std::time::Duration::ZERO).unwrap();
    two.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&two, "SELECT count(*) FROM t"), 0);
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(code(two.execute_batch("INSERT INTO t VALUES (2)")), ErrorCode::DatabaseBusy);
    assert_eq!(code(one.execute_batch("COMMIT")), ErrorCode::DatabaseBusy, "somebody reads");
    two.execute_batch("ROLLBACK").unwrap();
    assert_eq!(code(two.execute_batch("SELECT * FROM t")), ErrorCode::DatabaseBusy, "somebody waits to write");
    one.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&two, "SELECT sum(n) FROM t"), 1);
}

#[test]
fn a_killed_process_frees_its_locks_and_loses_what_it_had_not_committed() {
    let disk = Disk::new(1);
    let (app, extension) = (disk.process(), disk.process());
    let (dying, other) = (open(&app).unwrap(), open(&extension).unwrap());
    dying.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)").unwrap();
    // More than a page cache of two pages holds, so that the WAL has frames of it already.
    dying.execute_batch("PRAGMA cache_size = 2; BEGIN IMMEDIATE; INSERT INTO t SELECT randomblob(3000) FROM t, json_each('[1,2,3,4,5,6,7,8,9]')").unwrap();
    app.kill();
    assert!(app.is_dead() && !extension.is_dead());
    assert_eq!(code(dying.execute_batch("COMMIT")), ErrorCode::SystemIoFailure);
    let changes = disk.changes("a.db");
    drop(dying);
    assert!(open(&app).is_err());
    assert_eq!(disk.changes("a.db"), changes, "the dead write nothing");

    other.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert!(disk.changes("a.db") > changes);
    assert_eq!(number(&other, "SELECT sum(n) FROM t"), 3);
    assert_eq!(text(&other, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_copy_is_the_file_and_its_wal() {
    let (disk, other) = (Disk::new(1), Disk::new(2));
    let process = disk.process();
    let connection = open(&process).unwrap();
    connection.execute_batch("CREATE TABLE t (n); PRAGMA wal_checkpoint; INSERT INTO t VALUES (7)").unwrap();
    disk.copy_to("a.db", &other, "a.db");
    connection.execute_batch("INSERT INTO t VALUES (8)").unwrap();
    other.lose_power();
    assert_eq!(number(&open(&other.process()).unwrap(), "SELECT sum(n) FROM t"), 7);
}

#[test]
fn a_disk_that_nobody_holds_is_gone() {
    let disk = Disk::new(1);
    let process = disk.process();
    let path = process.path("a.db");
    let connection = open(&process).unwrap();
    drop((disk, process));
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    drop(connection);
    let again = rusqlite::Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), Disk::VFS);
    assert_eq!(code(again), ErrorCode::CannotOpen);
}
