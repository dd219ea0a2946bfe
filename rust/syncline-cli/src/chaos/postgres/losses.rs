//! What a database that took over has never heard of, although somebody was told that it was applied.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result};
use syncline_testkit::postgres::Cluster;

use super::super::stage::Stage;
use super::flood::Flood;
use crate::demo::DemoError;
use crate::demo::team::SCOPE;

/// Operations.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    pub(super) of_devices: u64,
    pub(super) of_flood: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.of_devices += other.of_devices;
        self.of_flood += other.of_flood;
    }
}

/// How many operations that devices, and the flood, believe applied are not in a database.
pub(super) fn missing(
    stage: &Stage,
    cluster: &Cluster,
    database: &str,
    flood: &Flood,
) -> std::result::Result<Losses, DemoError> {
    let keys = format!("SELECT idempotency_key FROM syncline.operations WHERE scope = '{SCOPE}'");
    let here = cluster.sql(database, &keys);
    let here: BTreeSet<&str> = here.lines().collect();
    let mut completed = BTreeSet::new();
    for entry in std::fs::read_dir(&stage.folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".db") && name.contains("device-") {
            completed.extend(completed_keys(&path)?);
        }
    }
    let of_devices = completed.iter().filter(|key| !here.contains(key.as_str())).count() as u64;
    let mut of_flood = 0;
    for (name, acknowledged) in flood.acknowledged() {
        let statement = format!(
            "SELECT count(*) FROM syncline.operations
             WHERE scope = 'flood' AND device_id = '{name}' AND sequence <= {acknowledged}"
        );
        of_flood += acknowledged - cluster.sql(database, &statement).parse::<u64>().unwrap_or(0);
    }
    Ok(Losses { of_devices, of_flood })
}

/// The keys under which a device, which is at work, knows its operations as applied.
fn completed_keys(file: &Path) -> Result<Vec<String>> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.pragma_update(None, "query_only", true)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let mut rows = db.prepare(
        "SELECT idempotency_key || CASE WHEN key_try > 1 THEN '#' || key_try ELSE '' END FROM sync_queue
         WHERE status = 'completed' AND verdict IN ('applied', 'merged')",
    )?;
    rows.query_map([], |row| row.get(0))?.collect()
}
