//! Whether what a store holds is what the model holds.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::{Map, Value};

use super::answer::fault_on_the_wire;
use super::state::{Entity, Lane, Record, Scope, StoredVerdict, Write};
use super::values::{differs, same_object};
use super::{Model, state};

/// Everything that a store holds, by scope.
#[derive(Debug, Clone, Default)]
pub struct ServerState {
    /// By scope.
    pub scopes: BTreeMap<String, ServerScope>,
}

/// One scope as stored.
#[derive(Debug, Clone, Default)]
pub struct ServerScope {
    /// The highest version given out.
    pub head: u64,
    /// The name of its history.
    pub epoch: String,
    /// Tombstones up to this version may be gone.
    pub purged_through: u64,
    /// By device id.
    pub devices: BTreeMap<String, ServerDevice>,
    /// By type and id.
    pub entities: BTreeMap<Lane, ServerEntity>,
    /// By idempotency key.
    pub operations: BTreeMap<String, ServerOperation>,
    /// The ledger as on the wire, by id.
    pub conflicts: BTreeMap<String, Value>,
}

/// A device as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDevice {
    /// Whose it is.
    pub user_id: String,
    /// How many of its pushes were committed.
    pub mark: u64,
    /// It never again sends a sequence up to this one.
    pub forgotten_through: u64,
}

/// Device, sequence, milliseconds since 1970.
pub type StoredWrite = (String, u64, i64);

/// An entity as stored.
#[derive(Debug, Clone)]
pub struct ServerEntity {
    /// Its version.
    pub version: u64,
    /// The record; a tombstone's last one.
    pub payload: Value,
    /// Per device the highest dot.
    pub clock: BTreeMap<String, u64>,
    /// What last set a field, where that is not the create.
    pub fields: BTreeMap<String, StoredWrite>,
    /// The create.
    pub created_by: StoredWrite,
    /// The delete.
    pub deleted_by: Option<StoredWrite>,
    /// When it got its version, in milliseconds since 1970.
    pub stored_at: i64,
}

/// A verdict as stored under its key.
#[derive(Debug, Clone)]
pub struct ServerOperation {
    /// The operation's id.
    pub operation_id: String,
    /// The device of its dot.
    pub device_id: String,
    /// The sequence of its dot.
    pub sequence: u64,
    /// `create`, `update` or `delete`.
    pub operation: String,
    /// Entity type and id.
    pub lane: Lane,
    /// `applied`, `merged`, `conflict` or `rejected`.
    pub verdict: String,
    /// As on the wire.
    pub error: Value,
    /// The ledger row.
    pub conflict_id: Option<String>,
    /// When, in milliseconds since 1970.
    pub decided_at: i64,
}

impl Model {
    /// Compares everything with what a store holds.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, stored: &ServerState) -> Result<(), String> {
        pairs("scope", &self.scopes, &stored.scopes, |_, ours, theirs| {
            equal("head", &ours.head, &theirs.head)?;
            match &ours.epoch {
                Some(epoch) => equal("epoch", epoch, &theirs.epoch)?,
                None if self.heard.epochs.contains(&theirs.epoch) => return Err("the epoch was not renewed".to_owned()),
                None => {}
            }
            equal("purged_through", &ours.horizon, &theirs.purged_through)?;
            pairs("device", &ours.devices, &theirs.devices, |_, ours, theirs| device(ours, theirs))?;
            pairs("entity", &ours.entities, &theirs.entities, |_, ours, theirs| entity(ours, theirs))?;
            pairs("key", &ours.verdicts, &theirs.operations, |_, ours, theirs| verdict(ours, theirs))?;
            pairs("conflict", &ours.ledger, &theirs.conflicts, |_, ours, theirs| differs("row", ours, theirs))?;
            self.unique(ours)
        })
    }

    /// §7: "(device, sequence) unique among applied ones".
    fn unique(&self, scope: &Scope) -> Result<(), String> {
        let mut seen = std::collections::BTreeSet::new();
        let mut applied = scope.verdicts.values().filter(|stored| stored.has_effect());
        match applied.find(|stored| !seen.insert((&stored.device, stored.sequence))) {
            Some(twice) => Err(format!("({}, {}) was applied twice", twice.device, twice.sequence)),
            None => Ok(()),
        }
    }
}

fn pairs<K: Ord + Debug, A, B>(
    what: &str,
    ours: &BTreeMap<K, A>,
    theirs: &BTreeMap<K, B>,
    same: impl Fn(&K, &A, &B) -> Result<(), String>,
) -> Result<(), String> {
    if let Some(missing) = ours.keys().find(|key| !theirs.contains_key(key)) {
        return Err(format!("{what} {missing:?} is not stored"));
    }
    if let Some(added) = theirs.keys().find(|key| !ours.contains_key(key)) {
        return Err(format!("{what} {added:?} is stored and should not be"));
    }
    let mut both = ours.iter().zip(theirs.values());
    both.try_for_each(|((key, a), b)| same(key, a, b).map_err(|why| format!("{what} {key:?}: {why}")))
}

fn equal<T: PartialEq + Debug>(what: &str, ours: &T, theirs: &T) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what} is stored as {theirs:?}, not {ours:?}")) }
}

fn device(ours: &state::Device, theirs: &ServerDevice) -> Result<(), String> {
    let (user_id, mark, forgotten_through) = (ours.user.clone(), ours.mark, ours.forgotten_through);
    equal("the row", &ServerDevice { user_id, mark, forgotten_through }, theirs)
}

fn entity(ours: &Entity, theirs: &ServerEntity) -> Result<(), String> {
    let record = &ours.record;
    equal("version", &ours.version, &theirs.version)?;
    equal("stored_at", &ours.stored_at, &theirs.stored_at)?;
    equal("created_by", &stored(&record.created), &theirs.created_by)?;
    equal("deleted_by", &record.deleted.as_ref().map(stored), &theirs.deleted_by)?;
    equal("clock", &record.clock(), &theirs.clock)?;
    if !same_object(&record.payload(), &theirs.payload) {
        return Err(format!("payload is stored as {}, not {}", theirs.payload, record.payload()));
    }
    let none = Map::new();
    let names = theirs.payload.as_object().unwrap_or(&none).keys().chain(theirs.fields.keys());
    names.chain(record.fields.keys()).try_for_each(|name| setter(record, name, theirs))
}

/// §4: "a field without its own counts as set by the record's create".
fn setter(ours: &Record, name: &str, theirs: &ServerEntity) -> Result<(), String> {
    let theirs = theirs.fields.get(name).unwrap_or(&theirs.created_by);
    equal(&format!("the last setter of {name}"), &stored(ours.setter(name)), theirs)
}

fn stored(write: &Write) -> StoredWrite {
    (write.device.clone(), write.sequence, write.at)
}

fn verdict(ours: &StoredVerdict, theirs: &ServerOperation) -> Result<(), String> {
    equal("operation_id", &ours.operation_id, &theirs.operation_id)?;
    equal("device_id", &ours.device, &theirs.device_id)?;
    equal("sequence", &ours.sequence, &theirs.sequence)?;
    equal("operation", &ours.content.operation.as_str(), &theirs.operation.as_str())?;
    equal("entity", &ours.content.lane, &theirs.lane)?;
    equal("verdict", &ours.verdict, &theirs.verdict.as_str())?;
    equal("conflict_id", &ours.conflict, &theirs.conflict_id)?;
    equal("decided_at", &ours.decided_at, &theirs.decided_at)?;
    let fault = ours.fault.as_ref().map_or(Value::Null, fault_on_the_wire);
    differs("error", &fault, &theirs.error)
}
