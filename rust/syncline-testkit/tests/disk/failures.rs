//! Calls that fail, and a disk that is full.

use rusqlite::{Connection, ErrorCode};
use syncline_testkit::disk::{Disk, Failure};

use crate::{code, number, open, text};

const ROWS: &str = "INSERT INTO t SELECT randomblob(2000) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')";

fn table(disk: &Disk) -> Connection {
    let connection = open(&disk.process()).unwrap();
    connection.execute_batch("PRAGMA cache_size = 2; CREATE TABLE t (value)").unwrap();
    connection
}

/// A transaction and a checkpoint whose `after`-th call of a kind fails. False if none failed.
fn fail_at(failure: Failure, after: u64) -> bool {
    let disk = Disk::new(after);
    let connection = table(&disk);
    connection.execute_batch(ROWS).unwrap();
    disk.fail(failure, after);
    let outcomes = [connection.execute_batch(ROWS), connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")];
    let failed = disk.counts().failures.iter().sum::<u64>() == 1;
    for outcome in &outcomes {
        if let Err(error) = outcome {
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure), "{failure:?} {after}");
        }
    }
    assert_eq!(failed, outcomes.iter().any(Result::is_err), "{failure:?} {after}");
    disk.heal();
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").unwrap();
    }
    // As good as before.
    connection.execute_batch(ROWS).unwrap();
    let rows = 20 + 10 * i64::from(outcomes[0].is_ok());
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), rows, "{failure:?} {after}");
    drop(connection);
    disk.lose_power();
    let connection = open(&disk.process()).unwrap();
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), rows, "{failure:?} {after}");
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    failed
}

#[test]
fn a_call_that_fails_is_told_and_nothing_acknowledged_is_lost() {
    for (failure, at_least) in [(Failure::Write, 20), (Failure::Sync, 3), (Failure::Read, 1)] {
        let calls = (0..1000).find(|after| !fail_at(failure, *after)).expect("all calls have failed once");
        assert!(calls >= at_least, "{failure:?}: {calls}");
    }
}

#[test]
fn a_full_disk_is_told_and_lifted() {
    let disk = Disk::new(1);
    let connection = table(&disk);
    connection.execute_batch(ROWS).unwrap();
    disk.set_full(true);
    assert_eq!(code(connection.execute_batch(ROWS)), ErrorCode::DiskFull);
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 10);
    assert!(open(&disk.process()).is_ok_and(|other| number(&other, "SELECT count(*) FROM t") == 10));
    assert!(disk.counts().full > 0);
    disk.set_full(false);
    connection.execute_batch(ROWS).unwrap();
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 20);
}

#[test]
fn what_a_failed_sync_forgot_no_later_sync_brings_back() {
    let lost = (0..40).filter(|seed| {
        let disk = Disk::new(*seed);
        let connection = table(&disk);
        // Trusts the checkpoint's syncs alone. The second one says that all is well.
        connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
        connection.execute_batch(ROWS).unwrap();
        disk.fail(Failure::Sync, 0);
        assert_eq!(code(connection.execute_batch("PRAGMA wal_checkpoint")), ErrorCode::SystemIoFailure);
        let dying = disk.counts().calls;
        assert_eq!(number(&connection, "PRAGMA wal_checkpoint(NOOP)"), 0);
        assert_eq!(disk.counts().calls, dying);
        // The sync of a commit covers the whole WAL, but for what was forgotten.
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        drop_power(&disk, connection) < 11
    });
    assert!(lost.count() > 20);
}

fn drop_power(disk: &Disk, connection: Connection) -> i64 {
    disk.lose_power();
    drop(connection);
    let connection = open(&disk.process()).unwrap();
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap_or(0)
}
