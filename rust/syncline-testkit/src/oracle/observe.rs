//! What a device's file holds, as plain values: the only place of the oracle that speaks SQL, and it only says SELECT.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value};
use syncline_core::OperationStatus;

/// Everything in a device's file that a rule looks at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeviceState {
    pub(crate) device: DeviceRow,
    pub(crate) operations: BTreeMap<u64, OperationRow>,
    pub(crate) entities: BTreeMap<i64, EntityRow>,
    /// (operation, what it depends on)
    pub(crate) dependencies: BTreeSet<(u64, u64)>,
    pub(crate) ledger: Vec<LedgerRow>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeviceRow {
    pub(crate) device_id: String,
    pub(crate) scope: String,
    pub(crate) epoch: Option<String>,
    pub(crate) mark: u64,
    pub(crate) term: u64,
    pub(crate) cursor: Option<String>,
    pub(crate) cursor_version: u64,
    pub(crate) entity_types: Option<BTreeSet<String>>,
    pub(crate) reset: bool,
    pub(crate) retry_after_until: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OperationRow {
    pub(crate) sequence: u64,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) key_try: u32,
    pub(crate) entity: i64,
    pub(crate) kind: String,
    pub(crate) payload: Option<String>,
    pub(crate) before: String,
    pub(crate) base_clock: BTreeMap<String, u64>,
    pub(crate) timestamp: i64,
    pub(crate) enqueued_at: i64,
    pub(crate) transaction_id: Option<String>,
    pub(crate) status: OperationStatus,
    pub(crate) open: bool,
    pub(crate) claimed: bool,
    pub(crate) decided: bool,
    pub(crate) void: bool,
    pub(crate) held: bool,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    pub(crate) next_attempt_at: Option<i64>,
    pub(crate) backoff_ms: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) survivor: Option<u64>,
    pub(crate) verdict_version: Option<u64>,
    pub(crate) dot: Option<(String, u64)>,
    pub(crate) ended_at: Option<i64>,
}

impl OperationRow {
    /// Neither completed nor cancelled.
    pub(crate) fn is_unsettled(&self) -> bool {
        !matches!(self.status, OperationStatus::Completed | OperationStatus::Cancelled)
    }

    /// Waits, or is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.status, OperationStatus::Pending | OperationStatus::InProgress)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntityRow {
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) base: Option<String>,
    pub(crate) base_clock: BTreeMap<String, u64>,
    pub(crate) base_version: u64,
    pub(crate) base_confirmed: bool,
    pub(crate) current: Option<String>,
    pub(crate) open_operations: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LedgerRow {
    pub(crate) id: String,
    pub(crate) operation_id: String,
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) conflict: String,
    pub(crate) resolution: Option<String>,
    pub(crate) reopened_by: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counters {
    pub(crate) completed_total: u64,
    pub(crate) cancelled_total: u64,
    pub(crate) conflicts_detected: u64,
}

/// Reads a device's file.
pub(crate) fn device_state(file: &Connection) -> rusqlite::Result<DeviceState> {
    Ok(DeviceState {
        device: file
            .prepare_cached(
                "SELECT device_id, scope, epoch, mark, cursor_version, entity_types, reset,
                          retry_after_until, term, cursor
                   FROM device",
            )?
            .query_row([], device_row)?,
        operations: all(file, OPERATIONS, operation_row)?.into_iter().map(|row| (row.sequence, row)).collect(),
        entities: all(file, ENTITIES, |row| Ok((row.get(0)?, entity_row(row)?)))?.into_iter().collect(),
        dependencies: all(file, "SELECT sequence, depends_on FROM dependencies", |row| Ok((row.get(0)?, row.get(1)?)))?
            .into_iter()
            .collect(),
        ledger: all(file, LEDGER, ledger_row)?,
        counters: file
            .prepare_cached("SELECT completed_total, cancelled_total, conflicts_detected FROM counters")?
            .query_row([], |row| {
                Ok(Counters {
                    completed_total: row.get(0)?,
                    cancelled_total: row.get(1)?,
                    conflicts_detected: row.get(2)?,
                })
            })?,
    })
}

/// The record that a column's text holds.
pub(crate) fn record(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("records are JSON objects")
}

fn all<T>(file: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    file.prepare_cached(sql)?.query_map([], read)?.collect()
}

fn device_row(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    let types: Option<String> = row.get(5)?;
    Ok(DeviceRow {
        device_id: row.get(0)?,
        scope: row.get(1)?,
        epoch: row.get(2)?,
        mark: row.get(3)?,
        cursor_version: row.get(4)?,
        entity_types: types.map(|text| serde_json::from_str(&text).expect("a list of names")),
        reset: row.get(6)?,
        retry_after_until: row.get(7)?,
        term: row.get(8)?,
        cursor: row.get(9)?,
    })
}

const OPERATIONS: &str =
    "SELECT sequence, id, idempotency_key, key_try, entity, operation, payload, timestamp, enqueued_at, transaction_id, status,
            open, claimed, decided, void, park IS -1, attempts, max_attempts, next_attempt_at, backoff_ms, reason, survivor,
            verdict_version, ended_at, before, base_clock, dot_device, dot_sequence
     FROM sync_queue";

fn operation_row(row: &Row<'_>) -> rusqlite::Result<OperationRow> {
    let dot = row.get::<_, Option<String>>(26)?.zip(row.get(27)?);
    let status: String = row.get(10)?;
    Ok(OperationRow {
        sequence: row.get(0)?,
        id: row.get(1)?,
        key: row.get(2)?,
        key_try: row.get(3)?,
        entity: row.get(4)?,
        kind: row.get(5)?,
        payload: row.get(6)?,
        timestamp: row.get(7)?,
        enqueued_at: row.get(8)?,
        transaction_id: row.get(9)?,
        status: OperationStatus::parse(&status).expect("a status"),
        open: row.get(11)?,
        claimed: row.get(12)?,
        decided: row.get(13)?,
        void: row.get(14)?,
        held: row.get(15)?,
        attempts: row.get(16)?,
        max_attempts: row.get(17)?,
        next_attempt_at: row.get(18)?,
        backoff_ms: row.get(19)?,
        reason: row.get(20)?,
        survivor: row.get(21)?,
        verdict_version: row.get(22)?,
        ended_at: row.get(23)?,
        before: row.get(24)?,
        base_clock: clock(row, 25)?,
        dot,
    })
}

const ENTITIES: &str =
    "SELECT entity, entity_type, entity_id, base, base_version, base_confirmed, current, open_operations, base_clock
     FROM entities";

fn entity_row(row: &Row<'_>) -> rusqlite::Result<EntityRow> {
    Ok(EntityRow {
        entity_type: row.get(1)?,
        entity_id: row.get(2)?,
        base: row.get(3)?,
        base_clock: clock(row, 8)?,
        base_version: row.get(4)?,
        base_confirmed: row.get(5)?,
        current: row.get(6)?,
        open_operations: row.get(7)?,
    })
}

const LEDGER: &str =
    "SELECT id, operation_id, entity_type, entity_id, conflict, resolution, reopened_by FROM conflicts ORDER BY rowid";

fn ledger_row(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    Ok(LedgerRow {
        id: row.get(0)?,
        operation_id: row.get(1)?,
        entity_type: row.get(2)?,
        entity_id: row.get(3)?,
        conflict: row.get(4)?,
        resolution: row.get(5)?,
        reopened_by: row.get(6)?,
    })
}

/// The clock of an entity's base at this moment; empty if the server never spoke of it.
pub(crate) fn base_clock(file: &Connection, entity_type: &str, id: &str) -> rusqlite::Result<BTreeMap<String, u64>> {
    file.prepare_cached("SELECT base_clock FROM entities WHERE entity_type = ?1 AND entity_id = ?2")?
        .query_row([entity_type, id], |row| clock(row, 0))
        .optional()
        .map(Option::unwrap_or_default)
}

fn clock(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeMap<String, u64>> {
    Ok(serde_json::from_str(row.get_ref(column)?.as_str()?).expect("clocks are JSON"))
}
