//! The plain program: the same rows in the same tables on an equal connection, with nothing of what makes them safe to sync.

use std::path::Path;

use rusqlite::{Connection, params};
use syncline_core::Durability;

use crate::support::{entity_id, payload};

pub(crate) struct Raw {
    pub conn: Connection,
}

/// Everything of a row that a program could have at hand before it begins to write.
pub(crate) struct Row {
    pub n: i64,
    pub id: String,
    pub key: String,
    pub entity_id: String,
    pub payload: String,
}

impl Row {
    pub(crate) fn new(n: usize) -> Self {
        // A key as the core derives it: spread evenly, 64 characters.
        let spread = (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        Self {
            n: n as i64 + 1,
            id: format!("0197a2b1-{n:08x}-7000-8000-000000000001"),
            key: format!("{spread:032x}{:032x}", !spread),
            entity_id: entity_id(n),
            payload: payload(n),
        }
    }
}

impl Raw {
    pub(crate) fn open(path: &Path, durability: Durability) -> Self {
        let conn = Connection::open(path).expect("opens");
        conn.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
        conn.pragma_update(None, "synchronous", synchronous).expect("synchronous");
        conn.pragma_update(None, "cache_size", -4096).expect("cache");
        conn.pragma_update(None, "foreign_keys", false).expect("foreign keys");
        conn.pragma_update(None, "wal_autocheckpoint", 16_000).expect("checkpoint");
        conn.execute_batch(include_str!("../../../syncline-core/migrations/0001_init.sql")).expect("the schema");
        Self { conn }
    }

    /// One operation and its entity, in one transaction.
    pub(crate) fn insert(&self, row: &Row) {
        self.run("BEGIN IMMEDIATE");
        self.conn
            .prepare_cached(
                "INSERT INTO entities (entity, entity_type, entity_id, current, open_operations, change)
                 VALUES (?1, 'pin', ?2, ?3, 1, ?1)",
            )
            .and_then(|mut insert| insert.execute(params![row.n, row.entity_id, row.payload]))
            .expect("inserts");
        self.conn
            .prepare_cached(
                "INSERT INTO sync_queue (sequence, id, idempotency_key, content_hash, entity, operation, payload, before,
                    base_clock, timestamp, enqueued_at, max_attempts, bytes_through, status)
                 VALUES (?1, ?2, ?3, ?4, ?1, 'create', ?5, '{}', '{}', ?6, ?6, 3, ?6, 'pending')",
            )
            .and_then(|mut insert| {
                insert.execute(params![row.n, row.id, row.key, [7u8; 32], row.payload, 1_700_000_000_000i64])
            })
            .expect("inserts");
        self.run("COMMIT");
    }

    pub(crate) fn run(&self, sql: &str) {
        self.conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])).expect(sql);
    }
}
