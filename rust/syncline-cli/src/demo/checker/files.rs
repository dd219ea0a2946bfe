use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use serde_json::Value;

/// An operation as a device's queue holds it.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) sequence: u64,
    pub(crate) id: String,
    /// The key as last sent: `key#2` after a retry.
    pub(crate) key: String,
    pub(crate) kind: String,
    pub(crate) entity: Entity,
    pub(crate) payload: Option<Value>,
    pub(crate) transaction: Option<String>,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) field: Option<String>,
    /// The sequence it was folded into.
    pub(crate) survivor: Option<u64>,
    pub(crate) verdict: Option<String>,
    /// Under which device id and sequence the endpoint applied it.
    pub(crate) dot: (String, u64),
}

impl Operation {
    /// How a sentence names it.
    pub(crate) fn name(&self) -> String {
        format!("#{} ({} {} {})", self.sequence, self.kind, self.entity.0, self.entity.1)
    }
}

/// Type and id.
pub(crate) type Entity = (String, String);

/// A row of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Conflict {
    pub(crate) operation_id: String,
    pub(crate) entity: Entity,
    pub(crate) object: Value,
    /// How the app decided; on a device's row only.
    pub(crate) resolution: Option<String>,
}

impl Conflict {
    pub(crate) fn rule(&self) -> &str {
        self.object["rule"].as_str().unwrap_or_default()
    }
}

/// What the counters row says.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) in_progress: u64,
    pub(crate) failed: u64,
    pub(crate) conflicted: u64,
    pub(crate) completed: u64,
    pub(crate) cancelled: u64,
}

/// A device's file.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    pub(crate) name: String,
    pub(crate) device_id: String,
    pub(crate) operations: Vec<Operation>,
    pub(crate) counters: Counters,
    /// (operation, earlier operation) by sequence.
    pub(crate) dependencies: Vec<(u64, u64)>,
    pub(crate) conflicts: BTreeMap<String, Conflict>,
    /// The replica: what the app reads.
    pub(crate) records: BTreeMap<Entity, Value>,
}

impl DeviceFile {
    pub(super) fn read(name: &str, file: &Path) -> Result<Self, rusqlite::Error> {
        let db = open(file)?;
        let device_id: String = db.query_row("SELECT device_id FROM device", [], |row| row.get(0))?;
        let operations = all(
            &db,
            "SELECT q.*, e.entity_type, e.entity_id FROM sync_queue q JOIN entities e USING (entity) ORDER BY sequence",
            |row| operation(row, &device_id),
        )?;
        let counters = db
            .query_row("SELECT * FROM counters", [], |row| {
                Ok(Counters {
                    in_progress: row.get("in_progress")?,
                    failed: row.get("failed")?,
                    conflicted: row.get("conflicted")?,
                    completed: row.get("completed_total")?,
                    cancelled: row.get("cancelled_total")?,
                })
            })
            .optional()?
            .unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            operations,
            counters,
            dependencies: all(&db, "SELECT sequence, depends_on FROM dependencies", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?,
            conflicts: conflicts(&db, "SELECT *, resolution AS decision FROM conflicts")?,
            records: all(
                &db,
                "SELECT entity_type, entity_id, current FROM entities WHERE current IS NOT NULL",
                |row| Ok(((row.get(0)?, row.get(1)?), json(row.get(2)?))),
            )?
            .into_iter()
            .collect(),
            device_id,
        })
    }

    pub(crate) fn with_status<'a>(&'a self, status: &'a str) -> impl Iterator<Item = &'a Operation> {
        self.operations.iter().filter(move |operation| operation.status == status)
    }

    /// Ever enqueued: sequences have no gap and are never used twice.
    pub(crate) fn enqueued(&self) -> u64 {
        self.operations.last().map_or(0, |operation| operation.sequence)
    }
}

fn operation(row: &Row<'_>, device_id: &str) -> Result<Operation, rusqlite::Error> {
    let key: String = row.get("idempotency_key")?;
    let key_try: u64 = row.get("key_try")?;
    let sequence = row.get("sequence")?;
    let dot_device: Option<String> = row.get("dot_device")?;
    let dot_sequence: Option<u64> = row.get("dot_sequence")?;
    Ok(Operation {
        sequence,
        id: row.get("id")?,
        key: if key_try > 1 { format!("{key}#{key_try}") } else { key },
        kind: row.get("operation")?,
        entity: (row.get("entity_type")?, row.get("entity_id")?),
        payload: row.get::<_, Option<String>>("payload")?.map(json),
        transaction: row.get("transaction_id")?,
        status: row.get("status")?,
        reason: row.get("reason")?,
        message: row.get("message")?,
        field: row.get("field")?,
        survivor: row.get("survivor")?,
        verdict: row.get("verdict")?,
        dot: (dot_device.unwrap_or_else(|| device_id.to_owned()), dot_sequence.unwrap_or(sequence)),
    })
}

/// An operation that the endpoint has decided.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    /// Its place in the order in which the endpoint decided.
    pub(crate) place: i64,
    pub(crate) key: String,
    pub(crate) operation_id: String,
    pub(crate) device_id: String,
    pub(crate) sequence: u64,
    pub(crate) kind: String,
    pub(crate) entity: Entity,
    pub(crate) verdict: String,
    pub(crate) conflict_id: Option<String>,
}

impl Decided {
    /// Whether it has effect.
    pub(crate) fn applied(&self) -> bool {
        matches!(self.verdict.as_str(), "applied" | "merged")
    }
}

/// An entity of the endpoint.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) record: Value,
    pub(crate) deleted: bool,
    /// Per field the device and sequence that last set it.
    pub(crate) set_by: BTreeMap<String, (String, u64)>,
    pub(crate) created_by: (String, u64),
}

/// The endpoint's file, one scope of it.
#[derive(Debug)]
pub(crate) struct ServerFile {
    /// In the order in which they were decided.
    pub(crate) decided: Vec<Decided>,
    pub(crate) by_key: HashMap<String, usize>,
    pub(crate) conflicts: BTreeMap<String, Conflict>,
    pub(crate) entities: BTreeMap<Entity, Stored>,
}

impl ServerFile {
    pub(super) fn read(file: &Path, scope: &str) -> Result<Self, rusqlite::Error> {
        let db = open(file)?;
        let scope = scope.replace('\'', "''");
        let sql = format!("SELECT rowid AS place, * FROM operations WHERE scope = '{scope}' ORDER BY rowid");
        let decided: Vec<Decided> = all(&db, &sql, |row| {
            Ok(Decided {
                place: row.get("place")?,
                key: row.get("idempotency_key")?,
                operation_id: row.get("operation_id")?,
                device_id: row.get("device_id")?,
                sequence: row.get("sequence")?,
                kind: row.get("operation")?,
                entity: (row.get("entity_type")?, row.get("entity_id")?),
                verdict: row.get("verdict")?,
                conflict_id: row.get("conflict_id")?,
            })
        })?;
        let sql = format!("SELECT * FROM entities WHERE scope = '{scope}'");
        let entities = all(&db, &sql, |row| Ok(((row.get("entity_type")?, row.get("entity_id")?), stored(row)?)))?;
        let sql = format!("SELECT *, NULL AS decision FROM conflicts WHERE scope = '{scope}'");
        Ok(Self {
            by_key: decided.iter().enumerate().map(|(index, row)| (row.key.clone(), index)).collect(),
            decided,
            conflicts: conflicts(&db, &sql)?,
            entities: entities.into_iter().collect(),
        })
    }

    /// What was decided under a key.
    pub(crate) fn decision(&self, key: &str) -> Option<&Decided> {
        self.by_key.get(key).map(|index| &self.decided[*index])
    }

    pub(crate) fn applied(&self) -> impl Iterator<Item = &Decided> {
        self.decided.iter().filter(|row| row.applied())
    }
}

fn stored(row: &Row<'_>) -> Result<Stored, rusqlite::Error> {
    let fields = json(row.get("fields")?);
    let fields = fields.as_object().into_iter().flatten();
    Ok(Stored {
        record: json(row.get("payload")?),
        deleted: row.get("deleted")?,
        set_by: fields.map(|(field, triple)| (field.clone(), dot(triple))).collect(),
        created_by: dot(&json(row.get("created_by")?)),
    })
}

fn dot(triple: &Value) -> (String, u64) {
    (triple[0].as_str().unwrap_or_default().to_owned(), triple[1].as_u64().unwrap_or_default())
}

fn conflicts(db: &Connection, sql: &str) -> Result<BTreeMap<String, Conflict>, rusqlite::Error> {
    let rows = all(db, sql, |row| {
        let conflict = Conflict {
            operation_id: row.get("operation_id")?,
            entity: (row.get("entity_type")?, row.get("entity_id")?),
            object: json(row.get("conflict")?),
            resolution: row.get("decision")?,
        };
        Ok((row.get("id")?, conflict))
    })?;
    Ok(rows.into_iter().collect())
}

/// Opened so that nothing can be written, and closed as the last connection to leave: no WAL stays behind.
fn open(file: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn all<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Vec<T>, rusqlite::Error> {
    db.prepare(sql)?.query_map([], read)?.collect()
}

/// Text that is not JSON becomes `null`, which equals nothing that was written.
fn json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or_default()
}
