//! Opening a file: who it belongs to, which version it has, and what to do when it is damaged.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction as SqlTransaction, TransactionBehavior, params};
use syncline_protocol::{Timestamp, planted};

use super::{Changes, Device, Store, StoreOptions, Tail, Tally};
use crate::config::Durability;
use crate::error::{Result, SynclineError};
use crate::store::json_path::JsonPath;

/// "SYNC": marks a file as ours in SQLite's header.
pub(super) const APPLICATION_ID: i32 = 0x5359_4e43;
/// Two connections that write and checkpoint at once can corrupt a file before this SQLite version.
const MIN_SQLITE: i32 = 3_051_003;
/// A checkpoint runs off the writer's path; this many pages of WAL make the writer do it after all.
const WAL_SAFETY_NET_PAGES: i64 = 16_000;

/// A step of the schema. Once released it is never edited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    pub version: u32,
    pub sql: &'static str,
}

/// The newest version that is known.
pub(super) const SCHEMA_VERSION: u32 = 1;

pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { version: SCHEMA_VERSION, sql: include_str!("../../migrations/0001_init.sql") }];

#[cfg(not(feature = "teeth"))]
fn migrations() -> &'static [Migration] {
    MIGRATIONS
}
#[cfg(feature = "teeth")]
use super::next_version::migrations;

impl Store {
    /// Opens the file, making or migrating it if need be. `new_device_id` is used only if it is made.
    pub(crate) fn open(options: StoreOptions, new_device_id: &str, now: Timestamp) -> Result<Self> {
        Self::open_with(options, new_device_id, now, migrations(), &mut |_| Ok(()))
    }

    /// As [`Store::open`], with the migrations given and a hook after each of their statements (tests stop there).
    pub(super) fn open_with(
        options: StoreOptions,
        new_device_id: &str,
        now: Timestamp,
        migrations: &[Migration],
        after_statement: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        check_options(&options)?;
        let supported = migrations.last().map_or(0, |migration| migration.version);
        if options.vfs.is_none() {
            check_header(&options.path, supported)?;
        }
        let opened = connect(&options, OpenFlags::default()).and_then(|conn| {
            check_version(&conn, supported)?;
            configure(&conn, options.durability)?;
            move_log(&conn);
            migrate(&conn, migrations, after_statement)?;
            if is_suspect(&options) {
                check_integrity(&conn)?;
            }
            claim_file(&conn, &options, new_device_id)?;
            declare_paths(&conn, &options)?;
            let device = read_device(&conn)?;
            Ok((conn, device))
        });
        match opened {
            Ok((conn, device)) => {
                clear_suspect(&options);
                Ok(Self {
                    conn,
                    options,
                    device_id: device.device_id,
                    tail: None,
                    tail_is_ours: false,
                    data_version: -1,
                    in_group: false,
                    uncommitted: Changes::default(),
                    tally: Tally::default(),
                    committed: Changes::default(),
                })
            }
            Err(SynclineError::Corrupt { .. }) if options.vfs.is_none() => {
                let set_aside = set_aside(&options.path, now);
                clear_suspect(&options);
                log::warn!("the database file is corrupt and was set aside");
                Err(SynclineError::Corrupt { set_aside })
            }
            Err(error) => Err(error),
        }
    }

    /// Where the device stands with the server.
    pub(crate) fn device(&self) -> Result<Device> {
        read_device(&self.conn)
    }

    /// See [`StoreOptions::noticing`].
    pub(crate) fn noticing<T>(&self, result: Result<T>) -> Result<T> {
        self.options.noticing(result)
    }

    /// The state of the queue's end, read anew if another connection has written since.
    pub(super) fn tail(&mut self) -> Result<Tail> {
        // Once a transaction holds the write lock nobody else writes: one look is enough for all of it.
        if let Some(tail) = self.tail.filter(|_| self.tail_is_ours) {
            return Ok(tail);
        }
        let version: i64 = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if let Some(tail) = self.tail.filter(|_| version == self.data_version) {
            self.tail_is_ours = !self.conn.is_autocommit();
            return Ok(tail);
        }
        let (last, bytes_through, timestamp): (u64, u64, i64) = self
            .conn
            .prepare_cached("SELECT sequence, bytes_through, timestamp FROM sync_queue ORDER BY sequence DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?
            .unwrap_or_default();
        let last_change: Option<u64> =
            self.conn.prepare_cached("SELECT max(change) FROM entities")?.query_row([], |row| row.get(0))?;
        let seen: i64 =
            self.conn.prepare_cached("SELECT latest_seen_ms FROM device")?.query_row([], |row| row.get(0))?;
        self.device_id = self.conn.prepare_cached("SELECT device_id FROM device")?.query_row([], |row| row.get(0))?;
        let tail = Tail {
            next_sequence: last + 1,
            bytes_through,
            next_change: last_change.unwrap_or(0) + 1,
            latest_ms: if planted!(ForgetOwnTimes) { seen } else { seen.max(timestamp) },
        };
        self.tail = Some(tail);
        self.tail_is_ours = !self.conn.is_autocommit();
        self.data_version = version;
        Ok(tail)
    }

    /// Takes the next place in the change feed.
    pub(super) fn next_change(&mut self) -> Result<u64> {
        let mut tail = self.tail()?;
        let change = tail.next_change;
        tail.next_change += 1;
        self.tail = Some(tail);
        Ok(change)
    }
}

/// A connection as every part of the core wants it.
pub(super) fn connect(options: &StoreOptions, flags: OpenFlags) -> Result<Connection> {
    if rusqlite::version_number() < MIN_SQLITE {
        return Err(SynclineError::Storage { detail: format!("SQLite {} is too old", rusqlite::version()) });
    }
    let conn = match &options.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&options.path, flags, vfs.as_str())?,
        None => Connection::open_with_flags(&options.path, flags)?,
    };
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(128);
    conn.pragma_update(None, "cache_size", -4096)?;
    // Without it SQLite plans a statement anew whenever a value is bound that a partial index might depend on.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

pub(super) fn read_device(conn: &Connection) -> Result<Device> {
    let device = conn
        .prepare_cached(
            "SELECT device_id, user_id, scope, term, epoch, mark, cursor, cursor_version, entity_types, reset, forked,
                    retry_after_until, retry_after_ms,
                    (SELECT max(verdict_version) FROM sync_queue WHERE status = 'completed' AND open = 1)
             FROM device",
        )?
        .query_row([], |row| {
            let until: Option<i64> = row.get(11)?;
            let wait: Option<u64> = row.get(12)?;
            let types: Option<String> = row.get(8)?;
            Ok(Device {
                device_id: row.get(0)?,
                user_id: row.get(1)?,
                scope: row.get(2)?,
                term: row.get(3)?,
                epoch: row.get(4)?,
                mark: row.get(5)?,
                cursor: row.get(6)?,
                cursor_version: row.get(7)?,
                entity_types: types.and_then(|text| serde_json::from_str(&text).ok()),
                reset: row.get(9)?,
                forked: row.get(10)?,
                retry_after: until.zip(wait).map(|(until, wait)| (Timestamp::from_millis(until), wait)),
                heard_version: row.get::<_, Option<u64>>(13)?.unwrap_or(0),
            })
        })?;
    Ok(device)
}

fn check_options(options: &StoreOptions) -> Result<()> {
    let invalid = |field: String, detail: &str| Err(SynclineError::InvalidConfig { field, detail: detail.into() });
    for (field, id) in [("user_id", &options.user_id), ("scope", &options.scope)] {
        if !syncline_protocol::check_entity_id(id) {
            return invalid(field.into(), "must have 1 to 128 characters, none of them a control character");
        }
    }
    for (name, settings) in &options.entity_types {
        if !syncline_protocol::check_name(name) {
            return invalid(format!("entity_types.{name}"), "must have 1 to 64 characters of a-z, 0-9 and _");
        }
        if !(1..=100).contains(&settings.max_attempts) {
            return invalid(format!("entity_types.{name}.max_attempts"), "must be 1 to 100");
        }
        for path in &settings.indexed_paths {
            if JsonPath::parse(path).is_none() {
                return invalid(format!("entity_types.{name}.indexed_paths"), "holds a path that is not like $.a.b[0]");
            }
        }
    }
    for name in options.pull_types.iter().flatten() {
        if !syncline_protocol::check_name(name) {
            return invalid("pull_types".into(), "must have 1 to 64 characters of a-z, 0-9 and _ each");
        }
    }
    Ok(())
}

/// Reads SQLite's header by hand, so that a file of somebody else or of a newer app is not touched at all.
pub(super) fn check_header(path: &Path, supported: u32) -> Result<()> {
    let mut header = [0u8; 100];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {}
        Err(_) => return Ok(()), // missing or shorter than a header: SQLite says what that means
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Ok(());
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    check_identity(number(60), number(68) as i32, supported)
}

fn check_identity(user_version: u32, application_id: i32, supported: u32) -> Result<()> {
    if application_id != 0 && application_id != APPLICATION_ID {
        let detail = "is a database of another program".into();
        return Err(SynclineError::InvalidConfig { field: "database".into(), detail });
    }
    if application_id == APPLICATION_ID && user_version > supported {
        return Err(SynclineError::TooNew { found: user_version, supported });
    }
    Ok(())
}

/// As [`check_header`], but of the newest committed state, the WAL included.
pub(super) fn check_version(conn: &Connection, supported: u32) -> Result<()> {
    let user_version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application_id: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    check_identity(user_version, application_id, supported)?;
    let tables: u64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id == 0 && tables > 0 {
        let detail = "is a database of another program".into();
        return Err(SynclineError::InvalidConfig { field: "database".into(), detail });
    }
    Ok(())
}

fn configure(conn: &Connection, durability: Durability) -> Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
    conn.pragma_update(None, "synchronous", if planted!(SynchronousOff) { "OFF" } else { synchronous })?;
    if cfg!(target_vendor = "apple") {
        conn.pragma_update(None, "fullfsync", durability == Durability::Full)?;
        conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    }
    conn.pragma_update(None, "wal_autocheckpoint", WAL_SAFETY_NET_PAGES)?;
    conn.pragma_update(None, "foreign_keys", false)?; // entities are never deleted; the lookup would cost every enqueue
    Ok(())
}

/// Takes on what an earlier process left in the WAL. If a flush failed in that process, the system may show its last frames and have
/// lost them: what is written behind them would be lost with them, so they are moved into the file first; and a loss of power would
/// let what is left of the old log cover that again, so a new one is begun before anybody is shown anything (ADR 17).
fn move_log(conn: &Connection) {
    if planted!(LogNotMoved) {
        return;
    }
    let frames = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
    if let Err(error) = frames.and_then(|frames| if frames > 0 { begin_log(conn) } else { Ok(()) }) {
        log::warn!("the write-ahead log of an earlier process stays where it is: {}", SynclineError::from(error));
    }
}

/// Writes, and changes nothing.
fn begin_log(conn: &Connection) -> rusqlite::Result<()> {
    let transaction = SqlTransaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// Each migration is one transaction: a process that dies in it leaves the file as it was.
fn migrate(
    conn: &Connection,
    migrations: &[Migration],
    after_statement: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let current: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut statement = 0;
    for migration in migrations.iter().filter(|migration| migration.version > current) {
        conn.execute_batch("BEGIN EXCLUSIVE")?;
        // Another process may have migrated while this one waited for the lock.
        let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found >= migration.version {
            conn.execute_batch("ROLLBACK")?;
            continue;
        }
        let mut batch = rusqlite::Batch::new(conn, migration.sql);
        while let Some(mut step) = batch.next()? {
            step.raw_execute()?;
            after_statement(statement)?;
            statement += 1;
        }
        conn.pragma_update(None, "user_version", migration.version)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.execute_batch("COMMIT")?;
    }
    Ok(())
}

/// Makes the file this user's, or refuses if it is another's.
fn claim_file(conn: &Connection, options: &StoreOptions, new_device_id: &str) -> Result<()> {
    let owner: Option<(String, String)> =
        conn.query_row("SELECT user_id, scope FROM device", [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let types = options.pull_types.as_ref().map(|types| {
        let mut types = types.clone();
        types.sort();
        types.dedup();
        serde_json::json!(types).to_string()
    });
    match owner {
        Some((user_id, _)) if user_id != options.user_id => Err(SynclineError::WrongUser { what: "user" }),
        Some((_, scope)) if scope != options.scope => Err(SynclineError::WrongUser { what: "scope" }),
        Some(_) => {
            // Another filter makes the cursor useless: the next pull is a reset.
            conn.execute(
                "UPDATE device SET entity_types = ?1, cursor = NULL, cursor_version = 0, reset = 1 WHERE entity_types IS NOT ?1",
                [&types],
            )
            .and_then(|changed| if changed > 0 { conn.execute(UNCONFIRM_ALL, []) } else { Ok(0) })?;
            Ok(())
        }
        None => {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            conn.execute(
                "INSERT OR IGNORE INTO device (id, user_id, scope, device_id, entity_types) VALUES (1, ?1, ?2, ?3, ?4)",
                params![options.user_id, options.scope, new_device_id, types],
            )?;
            conn.execute("INSERT OR IGNORE INTO counters (id) VALUES (1)", [])?;
            conn.execute_batch("COMMIT")?;
            Ok(())
        }
    }
}

pub(super) const UNCONFIRM_ALL: &str =
    "UPDATE entities SET base_confirmed = 0 WHERE base_confirmed = 1 AND base_version > 0";

/// One index per declared JSON path; those no longer declared are dropped.
fn declare_paths(conn: &Connection, options: &StoreOptions) -> Result<()> {
    let mut wanted = std::collections::BTreeMap::new();
    for (entity_type, settings) in &options.entity_types {
        for path in settings.indexed_paths.iter().filter_map(|path| JsonPath::parse(path)) {
            wanted.insert(path.index_name(entity_type), path.index_sql(entity_type));
        }
    }
    let existing: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'entities\\_path\\_%' ESCAPE '\\'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for name in existing.iter().filter(|name| !wanted.contains_key(*name)) {
        conn.execute_batch(&format!("DROP INDEX \"{}\"", name.replace('"', "\"\"")))?;
    }
    for (_, sql) in wanted.iter().filter(|(name, _)| !existing.contains(name)) {
        conn.execute_batch(sql)?;
    }
    Ok(())
}

fn check_integrity(conn: &Connection) -> Result<()> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(SynclineError::Corrupt { set_aside: None }) }
}

impl StoreOptions {
    /// If `result` is that SQLite met damage, has the next open examine the whole file before it trusts it.
    pub(crate) fn noticing<T>(&self, result: Result<T>) -> Result<T> {
        if self.vfs.is_none() && matches!(result, Err(SynclineError::Corrupt { .. })) {
            let _ = File::create(suspect_marker(&self.path));
        }
        result
    }
}

fn suspect_marker(path: &Path) -> PathBuf {
    with_suffix(path, "-suspect")
}

fn is_suspect(options: &StoreOptions) -> bool {
    options.vfs.is_none() && suspect_marker(&options.path).exists()
}

fn clear_suspect(options: &StoreOptions) {
    if options.vfs.is_none() {
        let _ = std::fs::remove_file(suspect_marker(&options.path));
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Moves a damaged file and its WAL out of the way. `None` if the file system refuses; then the file is still where it was.
fn set_aside(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let target = with_suffix(path, &format!(".corrupt-{}", now.millis()));
    std::fs::rename(path, &target).ok()?;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::rename(with_suffix(path, suffix), with_suffix(&target, suffix));
    }
    Some(target)
}

/// Moves what the WAL holds into the file, off the writer's path.
pub(crate) struct Checkpointer {
    conn: Connection,
}

impl Checkpointer {
    /// A connection of its own.
    pub(crate) fn open(options: &StoreOptions) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = connect(options, flags)?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(Self { conn })
    }

    /// Moves what it can without disturbing anyone.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }
}
