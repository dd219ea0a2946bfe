//! A file looked at from outside, for tools: nothing is written, migrated, set aside or locked.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};
use syncline_protocol::Timestamp;

use super::open::{APPLICATION_ID, SCHEMA_VERSION, check_header, check_version, read_device};
use super::read::{OPERATION_COLUMNS, Reader, read_operation};
use crate::conflict::ConflictEntry;
use crate::error::{Result, SynclineError};
use crate::explain::Explanation;
use crate::metrics::{QueueMetrics, SyncState};
use crate::operation::Operation;
use crate::query::OperationFilter;
use crate::sync;

/// A database file opened to be looked at, also while an app works on it. It only ever reads.
pub struct Inspection {
    reader: Reader,
}

/// Whose the file is, and where it stands with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedDevice {
    /// The device's id.
    pub device_id: String,
    /// The user it belongs to.
    pub user_id: String,
    /// The scope it belongs to.
    pub scope: String,
    /// Whether it has pulled at least once.
    pub has_pulled: bool,
    /// Whether it is pulling everything from the start.
    pub in_reset: bool,
    /// The endpoint asked for no request before this moment.
    pub retry_after: Option<Timestamp>,
}

/// An operation that needs somebody, and how many wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Troubled {
    /// The operation: failed or conflicted.
    pub operation: Operation,
    /// Operations that wait for it, as far as they have been looked at.
    pub behind: u64,
}

impl Inspection {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `Storage` if it cannot be opened; `Corrupt` if it is no SQLite file (it stays where it is); `InvalidConfig` if it is a
    /// database of another program; `TooNew`.
    pub fn open(path: &Path) -> Result<Self> {
        check_header(path, SCHEMA_VERSION)?;
        // Without a WAL nothing newer is waiting beside the file, and opening it as unchanging leaves no files behind.
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = if Path::new(&wal).exists() {
            Connection::open_with_flags(path, flags)?
        } else {
            Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?
        };
        conn.busy_timeout(std::time::Duration::from_secs(2))?;
        check_version(&conn, SCHEMA_VERSION)?;
        let application_id: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if application_id != APPLICATION_ID {
            let detail = "is not a Syncline database".into();
            return Err(SynclineError::InvalidConfig { field: "database".into(), detail });
        }
        Ok(Self { reader: Reader::over(conn) })
    }

    /// Whose the file is.
    ///
    /// # Errors
    /// `Storage`.
    pub fn device(&self) -> Result<InspectedDevice> {
        let device = read_device(self.reader.connection())?;
        Ok(InspectedDevice {
            device_id: device.device_id,
            user_id: device.user_id,
            scope: device.scope,
            has_pulled: device.epoch.is_some(),
            in_reset: device.reset,
            retry_after: device.retry_after.map(|(until, _)| until),
        })
    }

    /// How the queue stands. The state is what the file can tell: whether something is under way, or must wait.
    ///
    /// # Errors
    /// `Storage`.
    pub fn metrics(&self, now: Timestamp) -> Result<QueueMetrics> {
        let mut metrics = self.reader.metrics(SyncState::Idle, now)?;
        metrics.state = self.state(metrics.in_progress, now)?;
        Ok(metrics)
    }

    /// Operations in sequence order.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit that is not 1 to 1,000; `Storage`.
    pub fn operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        self.reader.operations(filter)
    }

    /// The operations that a text may mean: the one with this sequence (`#911` or `911`), or all whose id starts so, at most 10.
    ///
    /// # Errors
    /// `Storage`.
    pub fn find_operations(&self, text: &str) -> Result<Vec<Operation>> {
        let number: i64 = text.trim_start_matches('#').parse().unwrap_or(0);
        let sql = format!(
            "SELECT {OPERATION_COLUMNS} WHERE q.sequence = ?1 OR (?2 <> '' AND substr(q.id, 1, length(?2)) = ?2) LIMIT 10"
        );
        let mut statement = self.reader.connection().prepare(&sql)?;
        let found = statement.query_map(params![number, text], read_operation)?.collect::<rusqlite::Result<_>>()?;
        Ok(found)
    }

    /// What failed or conflicts, the oldest first, up to `limit`.
    ///
    /// # Errors
    /// `Storage`.
    pub fn troubled(&self, limit: usize) -> Result<Vec<Troubled>> {
        let conn = self.reader.connection();
        let sql = format!(
            "SELECT {OPERATION_COLUMNS} WHERE q.status IN ('failed', 'conflicted') ORDER BY q.status, q.sequence LIMIT ?1"
        );
        let operations: Vec<Operation> =
            conn.prepare(&sql)?.query_map([limit], read_operation)?.collect::<rusqlite::Result<_>>()?;
        let mut behind = conn.prepare(
            "SELECT count(*) FROM sync_queue
             WHERE status = 'pending' AND (park = ?1 OR (open = 1 AND sequence > ?1
                AND entity = (SELECT entity FROM sync_queue WHERE sequence = ?1)))",
        )?;
        let count = |operation: Operation| {
            Ok(Troubled { behind: behind.query_row([operation.sequence], |row| row.get(0))?, operation })
        };
        operations.into_iter().map(count).collect()
    }

    /// The ledger of conflicts, newest first, up to `limit` (1 to 1,000). `undecided`: only those that wait for the app.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit out of range; `Storage`.
    pub fn conflicts(&self, undecided: bool, limit: usize) -> Result<Vec<ConflictEntry>> {
        self.reader.conflicts(undecided, limit)
    }

    /// Why an operation is not synced, as far as the file tells; `None` if it is unknown or was pruned.
    ///
    /// # Errors
    /// `Storage`.
    pub fn explain(&self, id: &str, now: Timestamp) -> Result<Option<Explanation>> {
        let state = self.state(0, now)?;
        Ok(self.reader.facts(id)?.map(|facts| sync::explain(&facts.at(now), &state, false)))
    }

    fn state(&self, in_progress: u64, now: Timestamp) -> Result<SyncState> {
        Ok(match self.device()?.retry_after {
            Some(until) if until > now => SyncState::Backoff { until, reason: "retry_after".into() },
            _ if in_progress > 0 => SyncState::Syncing,
            _ => SyncState::Idle,
        })
    }
}

fn immutable_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let escaped: String = absolute
        .to_string_lossy()
        .bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("file:{escaped}?immutable=1")
}
