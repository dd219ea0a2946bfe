//! The migrations of `supabase/`, brought in by the server where nobody uses Supabase's command line. Both keep their record in
//! the same table, in the same form.

use deadpool_postgres::Object;

use super::{StorageError, storage};

/// One file of `supabase/migrations`.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// `20261128000100`
    pub version: &'static str,
    /// `syncline_schema`
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../../../supabase/migrations/", $version, "_", $name, ".sql")),
        }
    };
}

/// In order; a released one is never edited.
pub const MIGRATIONS: [Migration; 21] = [
    migration!("20261128000100", "syncline_schema"),
    migration!("20261128000200", "syncline_values"),
    migration!("20261128000300", "syncline_claims"),
    migration!("20261128000400", "syncline_payloads"),
    migration!("20261128000420", "syncline_request"),
    migration!("20261128000440", "syncline_operations"),
    migration!("20261128000500", "syncline_judge"),
    migration!("20261128000550", "syncline_schemas"),
    migration!("20261128000580", "syncline_history"),
    migration!("20261128000600", "syncline_batch"),
    migration!("20261128000620", "syncline_decide"),
    migration!("20261128000640", "syncline_push"),
    migration!("20261128000650", "syncline_tables"),
    migration!("20261128000652", "syncline_generate"),
    migration!("20261128000654", "syncline_checks"),
    migration!("20261128000656", "syncline_register"),
    migration!("20261128000660", "syncline_capture"),
    migration!("20261128000670", "syncline_apply"),
    migration!("20261128000700", "syncline_pull"),
    migration!("20261128000800", "syncline_maintenance"),
    migration!("20261128000900", "syncline_api"),
];

/// The record, as Supabase's command line makes it.
const RECORD: &str = "
    CREATE SCHEMA IF NOT EXISTS supabase_migrations;
    CREATE TABLE IF NOT EXISTS supabase_migrations.schema_migrations (version text NOT NULL PRIMARY KEY);
    ALTER TABLE supabase_migrations.schema_migrations ADD COLUMN IF NOT EXISTS statements text[];
    ALTER TABLE supabase_migrations.schema_migrations ADD COLUMN IF NOT EXISTS name text;";
/// Two servers may start at once; the first one migrates, the other waits and finds nothing to do.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtext('syncline migrations'))";
/// Bringing in a migration may take longer than a request.
const PATIENCE: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";

/// Brings in the migrations that are missing, all or none. A database that had none reads scopes from `scope_claim` then.
pub(super) async fn bring_in(client: &mut Object, scope_claim: &str) -> Result<(), StorageError> {
    let transaction = client.transaction().await.map_err(storage)?;
    transaction.batch_execute(PATIENCE).await.map_err(storage)?;
    transaction.execute(ONE_AT_A_TIME, &[]).await.map_err(storage)?;
    transaction.batch_execute(RECORD).await.map_err(storage)?;
    let rows =
        transaction.query("SELECT version FROM supabase_migrations.schema_migrations", &[]).await.map_err(storage)?;
    let present: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for migration in MIGRATIONS.iter().filter(|migration| present.iter().all(|version| version != migration.version)) {
        transaction
            .batch_execute(migration.sql)
            .await
            .map_err(|error| StorageError::Refused(format!("migration {}: {}", migration.version, message(&error))))?;
        transaction
            .execute(
                "INSERT INTO supabase_migrations.schema_migrations (version, name) VALUES ($1, $2)",
                &[&migration.version, &migration.name],
            )
            .await
            .map_err(storage)?;
        log::info!("migration {} {}", migration.version, migration.name);
    }
    if present.iter().all(|version| version != MIGRATIONS[0].version) {
        transaction.execute("UPDATE syncline.settings SET scope_claim = $1", &[&scope_claim]).await.map_err(storage)?;
    }
    transaction.commit().await.map_err(storage)
}

/// Refuses a database that does not have exactly our migrations.
pub(super) async fn check(client: &Object) -> Result<(), StorageError> {
    let record = "SELECT to_regclass('supabase_migrations.schema_migrations') IS NOT NULL";
    let has_record: bool = client.query_one(record, &[]).await.map_err(storage)?.get(0);
    let mut present = Vec::new();
    if has_record {
        let ours = "SELECT version FROM supabase_migrations.schema_migrations WHERE name LIKE 'syncline\\_%'";
        present = client.query(ours, &[]).await.map_err(storage)?.iter().map(|row| row.get::<_, String>(0)).collect();
    }
    if let Some(unknown) = present.iter().find(|version| MIGRATIONS.iter().all(|known| known.version != **version)) {
        return Err(StorageError::Refused(format!(
            "the database has Syncline's migration {unknown}, which this version does not know: use a newer one"
        )));
    }
    match MIGRATIONS.iter().find(|migration| present.iter().all(|version| version != migration.version)) {
        None => Ok(()),
        Some(missing) => Err(StorageError::Refused(format!(
            "the database lacks Syncline's migration {}: start once with --migrate, or use `supabase db push`",
            missing.version
        ))),
    }
}

/// A message of the database about our own text: it holds no value of an app.
fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| "no connection".to_owned(), |error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../supabase/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("_syncline_"))
            .collect();
        files.sort();
        let known: Vec<_> =
            MIGRATIONS.iter().map(|migration| format!("{}_{}.sql", migration.version, migration.name)).collect();
        assert_eq!(files, known);
    }
}
