//! The verdict on files that real processes left behind: the rules that worlds are held to, and what the app was told.
//! Every process must have ended, with nothing left to deliver.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;

use rusqlite::{Connection, Result, params};

use crate::check::{self, Subject};

/// A device's file, and what its app was told and did.
pub struct LeftFile<'a> {
    /// For sentences.
    pub name: &'a str,
    /// The file.
    pub path: &'a Path,
    /// Operations up to this sequence are in the file of a copy as well.
    pub shared_through: u64,
    /// Ids of the operations that `enqueue` and its like acknowledged.
    pub acknowledged: &'a BTreeSet<String>,
    /// Ids of those that were seen to have ended: these may be forgotten by now.
    pub ended: &'a BTreeSet<String>,
    /// Ids of those that the user cancelled, discarded or let go for theirs: nobody else may.
    pub given_up: &'a BTreeSet<String>,
}

/// Holds every rule of spec §9 that files can show against them. `shared`: device ids that more than one file has used.
/// Gives a sentence per breach; each begins with the device, where it is about one, and the name of the rule.
///
/// # Errors
/// SQLite's.
pub fn judge(server: &Path, shared: &[String], files: &[LeftFile<'_>]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let indexed = folder.path().join("server.db");
    copy_with_indexes(server, &indexed)?;
    // What concerns the server alone is found once per device.
    let mut breaches = BTreeSet::new();
    for file in files {
        let name = file.name;
        breaches.extend(told(file)?.into_iter().map(|breach| format!("{name}: {breach}")));
        let subject = [Subject { name, path: file.path, shared_through: file.shared_through, metrics: None }];
        breaches.extend(caught(|| check::invariants(&indexed, shared, &subject)));
        breaches.extend(caught(|| check::drained(&subject)));
        breaches.extend(caught(|| check::converged(&indexed, &subject)));
        breaches.extend(caught(|| check::one_history(&indexed, &subject)));
    }
    breaches.extend(applied_twice(&indexed, files)?);
    Ok(breaches.into_iter().collect())
}

/// The rules are assertions, which worlds stop at. Here the first that fails becomes a sentence.
fn caught(rules: impl FnOnce()) -> Option<String> {
    let loud = take_hook();
    set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(rules));
    set_hook(loud);
    let panic = result.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).or(Some("a rule broke off".into()))
}

/// The rules join every operation with every other; worlds are small, these files are not.
fn copy_with_indexes(server: &Path, copy: &Path) -> Result<()> {
    Connection::open(server)?.execute("VACUUM INTO ?1", params![copy.to_string_lossy()])?;
    Connection::open(copy)?.execute_batch(
        "CREATE INDEX by_operation ON operations (operation_id);
         CREATE INDEX by_key ON operations (idempotency_key);
         CREATE INDEX by_lane ON operations (scope, device_id, entity_type, entity_id, sequence);
         ANALYZE",
    )
}

/// Durability: what was acknowledged is there, or was seen to end. Conservation: nobody but the user gives an operation up.
fn told(file: &LeftFile<'_>) -> Result<Vec<String>> {
    let db = Connection::open(file.path)?;
    let mut statement = db.prepare("SELECT id, sequence, status, reason, transaction_id FROM sync_queue")?;
    let rows = statement.query_map([], |row| {
        let ended: (String, Option<String>) = (row.get(2)?, row.get(3)?);
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, ended, row.get::<_, Option<String>>(4)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let here: BTreeSet<&String> = rows.iter().map(|(id, ..)| id).collect();
    let lost = file.acknowledged.iter().filter(|id| !here.contains(id) && !file.ended.contains(*id));
    let mut breaches: Vec<String> = lost
        .map(|id| format!("durability: operation {id} was acknowledged, was not seen to end, and is gone"))
        .collect();
    // Giving up one member gives up its transaction.
    let groups: BTreeSet<&String> =
        rows.iter().filter(|(id, ..)| file.given_up.contains(id)).filter_map(|(.., group)| group.as_ref()).collect();
    for (id, sequence, (status, reason), group) in &rows {
        let by_user = file.given_up.contains(id) || group.as_ref().is_some_and(|group| groups.contains(group));
        let allowed = match reason.as_deref() {
            Some("coalesced") => true,
            Some("user" | "discarded" | "resolved") => by_user,
            _ => false,
        };
        if status == "cancelled" && !allowed {
            breaches.push(format!("conservation: operation {sequence} was cancelled ({reason:?}) by nobody"));
        }
    }
    Ok(breaches)
}

/// Effect, with no device asked: also of operations that a device has forgotten.
fn applied_twice(server: &Path, files: &[LeftFile<'_>]) -> Result<Vec<String>> {
    let mut shared = BTreeSet::new();
    for file in files {
        let db = Connection::open(file.path)?;
        let mut statement = db.prepare("SELECT id FROM sync_queue WHERE sequence <= ?1")?;
        let ids = statement.query_map([file.shared_through], |row| row.get::<_, String>(0))?;
        shared.extend(ids.collect::<Result<Vec<_>>>()?);
    }
    let db = Connection::open(server)?;
    let mut statement = db.prepare(
        "SELECT operation_id, count(*) FROM operations WHERE verdict IN ('applied', 'merged')
         GROUP BY operation_id HAVING count(*) > 1",
    )?;
    let twice = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let twice = twice.collect::<Result<BTreeMap<_, _>>>()?.into_iter().filter(|(id, _)| !shared.contains(id));
    Ok(twice.map(|(id, times)| format!("effect: operation {id} was applied {times} times")).collect())
}
