//! The disk in memory: it must behave as a disk, and break as one.

mod failures;
mod lives;
mod manager;
mod sharing;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use syncline_testkit::disk::{Disk, Process};

/// A connection that never waits.
fn open(process: &Process) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(process.path("a.db"), OpenFlags::default(), Disk::VFS)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn code<T: std::fmt::Debug>(result: rusqlite::Result<T>) -> ErrorCode {
    result.expect_err("this fails").sqlite_error_code().expect("an error of SQLite's own")
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}

fn text(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}
