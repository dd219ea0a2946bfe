//! The replica: an entity's base, its operations folded in, and what happens to it when either changes (spec §3).

use rusqlite::{OptionalExtension, params};
use syncline_protocol::{Clock, OperationKind, Record, Timestamp, planted};

use super::Store;
use super::row::{clock_text, parse_clock, parse_record};
use crate::error::Result;

/// A row of `entities`.
#[derive(Debug, Clone)]
pub(super) struct EntityRow {
    pub entity: i64,
    pub entity_type: String,
    pub entity_id: String,
    pub base: Option<Record>,
    pub base_clock: Clock,
    pub base_version: u64,
    pub base_confirmed: bool,
    /// As text: it is compared far more often than read.
    pub current: Option<String>,
    pub applied_clock: Clock,
    pub pruned_clock: Clock,
}

/// One step of a fold.
pub(super) struct Step<'a> {
    pub kind: OperationKind,
    pub payload: Option<&'a Record>,
}

/// Folds one operation onto a value: a create or update replaces the fields it names, an update needs something to stand on.
pub(super) fn fold(value: Option<Record>, step: &Step<'_>) -> Option<Record> {
    match step.kind {
        OperationKind::Delete => None,
        OperationKind::Update if value.is_none() => None,
        OperationKind::Create | OperationKind::Update => {
            let mut record = value.unwrap_or_default();
            if let Some(patch) = step.payload {
                record.apply(patch);
            }
            Some(record)
        }
    }
}

impl EntityRow {
    /// Makes this the base. [`Store::replace_base`] does so with what must be kept of the old one.
    pub(super) fn take_base(&mut self, record: Option<Record>, clock: Clock, version: u64) {
        self.base = record.map(Record::without_nulls);
        self.base_clock = clock;
        self.base_version = version;
        self.base_confirmed = true;
    }

    /// Whether what the server says at `version` is news (spec §3).
    pub(super) fn is_news(&self, version: u64) -> bool {
        version > self.base_version || planted!(BaseMovesBack) || (!self.base_confirmed && version > 0)
    }
}

impl Store {
    pub(super) fn entity(&self, entity: i64) -> Result<EntityRow> {
        let raw = self.conn.prepare_cached(SELECT_BY_ROW)?.query_row([entity], read_raw)?;
        raw.parse()
    }

    pub(super) fn find_entity(&self, entity_type: &str, entity_id: &str) -> Result<Option<EntityRow>> {
        let raw = self.conn.prepare_cached(SELECT_BY_ID)?.query_row([entity_type, entity_id], read_raw).optional()?;
        raw.map(RawEntity::parse).transpose()
    }

    /// The value of an entity with its open operations folded in, in lane order.
    pub(super) fn folded(&self, row: &EntityRow) -> Result<Option<Record>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT operation, payload FROM sync_queue
             WHERE entity = ?1 AND open = 1 AND void = 0 AND status <> 'failed' ORDER BY sequence",
        )?;
        let mut operations = statement.query([row.entity])?;
        let mut value = row.base.clone();
        while let Some(operation) = operations.next()? {
            let kind: String = operation.get(0)?;
            let payload =
                operation.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?.map(parse_record).transpose()?;
            let kind = OperationKind::parse(&kind).ok_or(rusqlite::Error::InvalidQuery)?;
            value = fold(value, &Step { kind, payload: payload.as_ref() });
        }
        Ok(value)
    }

    /// Folds anew and stores base and current. Tells of a change if `current` differs.
    pub(super) fn refold(&mut self, row: &mut EntityRow) -> Result<()> {
        let current = self.folded(row)?.map(|record| record.to_string());
        self.store_entity(row, current)
    }

    /// Stores base and the `current` given. Tells of a change if `current` differs.
    pub(super) fn store_entity(&mut self, row: &mut EntityRow, current: Option<String>) -> Result<()> {
        let change = if current == row.current { None } else { Some(self.next_change()?) };
        self.conn
            .prepare_cached(
                "UPDATE entities SET base = ?2, base_clock = ?3, base_version = ?4, base_confirmed = ?5, current = ?6,
                        applied_clock = ?7, change = coalesce(?8, change)
                 WHERE entity = ?1",
            )?
            .execute(params![
                row.entity,
                row.base.as_ref().map(Record::to_string),
                clock_text(&row.base_clock),
                row.base_version,
                row.base_confirmed,
                current,
                clock_text(&row.applied_clock),
                change,
            ])?;
        row.current = current;
        self.note_entity(&row.entity_type, &row.entity_id);
        Ok(())
    }

    /// Folds the entities of these rows anew.
    pub(super) fn refold_all(&mut self, entities: impl IntoIterator<Item = i64>) -> Result<()> {
        let entities: std::collections::BTreeSet<i64> = entities.into_iter().collect();
        for entity in entities {
            let mut row = self.entity(entity)?;
            self.refold(&mut row)?;
        }
        Ok(())
    }

    /// Takes what the server says as the new base. Updates that meet a deletion keep the whole old value in `before`: resolved
    /// in the app's favour, they bring it to life again (spec §4, rule 7).
    pub(super) fn replace_base(
        &mut self,
        row: &mut EntityRow,
        record: Option<Record>,
        clock: Clock,
        version: u64,
    ) -> Result<()> {
        if let (Some(base), None) = (&row.base, &record) {
            let updates: Vec<(u64, String)> = self
                .conn
                .prepare_cached(
                    "SELECT sequence, before FROM sync_queue
                     WHERE entity = ?1 AND open = 1 AND operation = 'update' AND status <> 'completed'",
                )?
                .query_map([row.entity], |found| Ok((found.get(0)?, found.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (sequence, before) in updates {
                let mut whole = base.clone();
                whole.apply(&parse_record(&before)?);
                self.conn
                    .prepare_cached("UPDATE sync_queue SET before = ?2 WHERE sequence = ?1")?
                    .execute(params![sequence, whole.to_string()])?;
            }
        }
        row.take_base(record, clock, version);
        Ok(())
    }

    pub(super) fn note_outcome(&mut self, entity: i64, failure: Option<&str>, now: Timestamp) -> Result<()> {
        let sql = match failure {
            None => "UPDATE entities SET last_synced_at = ?2, failure_reason = ?3 WHERE entity = ?1",
            Some(_) => "UPDATE entities SET last_failed_sync_at = ?2, failure_reason = ?3 WHERE entity = ?1",
        };
        self.conn.prepare_cached(sql)?.execute(params![entity, now.millis(), failure])?;
        Ok(())
    }
}

const SELECT_BY_ROW: &str =
    "SELECT entity, entity_type, entity_id, base, base_clock, base_version, base_confirmed, current,
        applied_clock, pruned_clock FROM entities WHERE entity = ?1";
const SELECT_BY_ID: &str =
    "SELECT entity, entity_type, entity_id, base, base_clock, base_version, base_confirmed, current,
        applied_clock, pruned_clock FROM entities WHERE entity_type = ?1 AND entity_id = ?2";

struct RawEntity {
    row: EntityRow,
    base: Option<String>,
    clocks: [String; 3],
}

fn read_raw(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawEntity> {
    Ok(RawEntity {
        row: EntityRow {
            entity: row.get(0)?,
            entity_type: row.get(1)?,
            entity_id: row.get(2)?,
            base: None,
            base_clock: Clock::new(),
            base_version: row.get(5)?,
            base_confirmed: row.get(6)?,
            current: row.get(7)?,
            applied_clock: Clock::new(),
            pruned_clock: Clock::new(),
        },
        base: row.get(3)?,
        clocks: [row.get(4)?, row.get(8)?, row.get(9)?],
    })
}

impl RawEntity {
    fn parse(self) -> Result<EntityRow> {
        let mut row = self.row;
        row.base = self.base.as_deref().map(parse_record).transpose()?;
        row.base_clock = parse_clock(&self.clocks[0])?;
        row.applied_clock = parse_clock(&self.clocks[1])?;
        row.pruned_clock = parse_clock(&self.clocks[2])?;
        Ok(row)
    }
}
