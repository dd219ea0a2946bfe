//! A row of `sync_queue` as the store's own code uses it.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};
use syncline_protocol::{Clock, OperationKind, Record, planted};

use super::failure::unreadable;
use crate::error::{Result, SynclineError};
use crate::operation::OperationStatus;

/// What deciding about an operation takes. Texts that may be large are left to those who need them.
#[derive(Debug, Clone)]
pub(super) struct QueueRow {
    pub sequence: u64,
    pub id: String,
    pub entity: i64,
    pub kind: OperationKind,
    pub status: OperationStatus,
    pub open: bool,
    pub claimed: bool,
    pub decided: bool,
    pub void: bool,
    pub term: Option<u64>,
    pub attempts: u32,
    pub max_attempts: u32,
    pub waits: u32,
    pub transaction_id: Option<String>,
    pub survivor: Option<u64>,
    pub reason: Option<String>,
    pub key_try: u32,
    pub payload_bytes: i64,
    pub enqueued_at: i64,
}

const COLUMNS: &str =
    "sequence, id, entity, operation, status, open, claimed, decided, void, term, attempts, max_attempts,
    waits, transaction_id, survivor, reason, key_try, coalesce(length(CAST(payload AS BLOB)), 0), enqueued_at";

impl QueueRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let kind: String = row.get(3)?;
        let status: String = row.get(4)?;
        Ok(Self {
            sequence: row.get(0)?,
            id: row.get(1)?,
            entity: row.get(2)?,
            kind: OperationKind::parse(&kind).ok_or(rusqlite::Error::InvalidQuery)?,
            status: OperationStatus::parse(&status).ok_or(rusqlite::Error::InvalidQuery)?,
            open: row.get(5)?,
            claimed: row.get(6)?,
            decided: row.get(7)?,
            void: row.get(8)?,
            term: row.get(9)?,
            attempts: row.get(10)?,
            max_attempts: row.get(11)?,
            waits: row.get(12)?,
            transaction_id: row.get(13)?,
            survivor: row.get::<_, Option<u64>>(14)?.filter(|_| !planted!(CoalescedLeadsNowhere)),
            reason: row.get(15)?,
            key_try: row.get(16)?,
            payload_bytes: row.get(17)?,
            enqueued_at: row.get(18)?,
        })
    }

    /// The row with this sequence, if it is still there.
    pub(super) fn find(conn: &Connection, sequence: u64) -> Result<Option<Self>> {
        Ok(conn.prepare_cached(&BY_SEQUENCE)?.query_row([sequence], Self::read).optional()?)
    }

    /// The row with this operation id.
    pub(super) fn find_id(conn: &Connection, id: &str) -> Result<Option<Self>> {
        Ok(conn.prepare_cached(&BY_ID)?.query_row([id], Self::read).optional()?)
    }

    /// As [`QueueRow::find_id`], but an unknown id is the caller's mistake.
    pub(super) fn get_id(conn: &Connection, id: &str) -> Result<Self> {
        Self::find_id(conn, id)?.ok_or_else(|| SynclineError::not_possible("there is no operation with this id"))
    }

    /// Rows by a `WHERE` of this module's siblings (never of a caller); it says the order itself.
    pub(super) fn select(conn: &Connection, condition: &str, params: impl rusqlite::Params) -> Result<Vec<Self>> {
        let sql = format!("SELECT {COLUMNS} FROM sync_queue WHERE {condition}");
        let mut statement = conn.prepare_cached(&sql)?;
        let rows = statement.query_map(params, Self::read)?.collect::<rusqlite::Result<_>>()?;
        Ok(rows)
    }

    /// The operation and, if it belongs to a transaction, all other members.
    pub(super) fn group(&self, conn: &Connection) -> Result<Vec<Self>> {
        match &self.transaction_id {
            Some(transaction) => Self::select(conn, "transaction_id = ?1 ORDER BY sequence", [transaction]),
            None => Ok(vec![self.clone()]),
        }
    }
}

static BY_SEQUENCE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM sync_queue WHERE sequence = ?1"));
static BY_ID: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM sync_queue WHERE id = ?1"));

pub(super) fn parse_clock(text: &str) -> Result<Clock> {
    if text == "{}" {
        return Ok(Clock::new());
    }
    serde_json::from_str(text).map_err(|_| unreadable("a stored clock"))
}

pub(super) fn clock_text(clock: &Clock) -> String {
    serde_json::to_string(clock).unwrap_or_else(|_| "{}".into())
}

pub(super) fn parse_record(text: &str) -> Result<Record> {
    Record::parse(text).map_err(|_| unreadable("a stored record"))
}
