//! `syncline inspect`: a look into a device's file, also while an app works on it, or at the tables of a database. It only reads.

mod json;
mod tables;
mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use syncline_core::{ConflictEntry, Explanation, Inspection, Operation, SynclineError};
use syncline_protocol::Timestamp;

use crate::failure::Failure;
use crate::output;

/// Rows of one kind that are shown at the most.
const MOST: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The device's SQLite file
    #[arg(required_unless_present = "postgres")]
    file: Option<PathBuf>,
    /// Look at a database's registered tables instead, and what is wrong with them: `postgresql://…`, or `host=… user=…`; without a
    /// value, what SYNCLINE_POSTGRES says. As the role that brought in the migrations. Ends with 1 if anything is found
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "",
        conflicts_with_all = ["file", "operation", "conflict", "conflicts"])]
    postgres: Option<String>,
    /// Show one operation, with the reason why it is not synced: its id, the beginning of it, or its sequence
    #[arg(long, value_name = "ID", conflicts_with_all = ["conflict", "conflicts"])]
    operation: Option<String>,
    /// Show one conflict with all its values: its id, its entity's or its operation's, or the beginning of one
    #[arg(long, value_name = "ID", conflicts_with = "conflicts")]
    conflict: Option<String>,
    /// Show the whole ledger of conflicts, those that were decided too
    #[arg(long)]
    conflicts: bool,
    /// Print JSON, with timestamps beside ages
    #[arg(long)]
    json: bool,
}

/// Runs `syncline inspect`.
///
/// # Errors
/// The file is missing, is not a device's file, or there is nothing by that id; or of a database, what it answers, and any finding.
pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    if let Some(url) = &args.postgres {
        let tables = tables::read(url)?;
        show(args.json, || tables::json(&tables), || tables::text(&tables))?;
        return tables::verdict(&tables);
    }
    let file = args.file.unwrap_or_default();
    std::fs::metadata(&file).map_err(|error| Failure::file(&file, &error))?;
    let look = Look { now: Timestamp::from_millis(output::now()), file: &file };
    let inspection = Inspection::open(&file).map_err(|error| look.failure(error))?;
    if let Some(id) = &args.operation {
        let (operation, why) = look.operation(&inspection, id)?;
        let json = || json::explained(&operation, &why, look.now);
        return show(args.json, json, || text::explained(&look, &operation, &why));
    }
    if let Some(id) = &args.conflict {
        let entry = look.conflict(&inspection, id)?;
        return show(args.json, || json::conflict(&entry, look.now), || text::conflict(&look, &entry));
    }
    if args.conflicts {
        let entries = inspection.conflicts(false, MOST).map_err(|error| look.failure(error))?;
        let json = || entries.iter().map(|entry| json::conflict(entry, look.now)).collect();
        return show(args.json, json, || text::ledger(&look, &entries));
    }
    let overview = look.overview(&inspection).map_err(|error| look.failure(error))?;
    show(args.json, || json::overview(&overview, look.now), || text::overview(&look, &overview))
}

fn show(as_json: bool, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if as_json {
        output::print_json(&json())?;
    } else {
        output::print(&text())?;
    }
    Ok(())
}

/// Which file, and when.
pub(crate) struct Look<'a> {
    pub(crate) now: Timestamp,
    pub(crate) file: &'a Path,
}

/// What is shown when nothing in particular was asked for.
pub(crate) struct Overview {
    pub(crate) device: syncline_core::InspectedDevice,
    pub(crate) metrics: syncline_core::QueueMetrics,
    pub(crate) troubled: Vec<syncline_core::Troubled>,
    pub(crate) undecided: Vec<ConflictEntry>,
}

impl Look<'_> {
    fn overview(&self, inspection: &Inspection) -> Result<Overview, SynclineError> {
        Ok(Overview {
            device: inspection.device()?,
            metrics: inspection.metrics(self.now)?,
            troubled: inspection.troubled(MOST)?,
            undecided: inspection.conflicts(true, MOST)?,
        })
    }

    fn operation(&self, inspection: &Inspection, id: &str) -> Result<(Operation, Explanation), Failure> {
        let found = inspection.find_operations(id).map_err(|error| self.failure(error))?;
        let operation = match found.as_slice() {
            [] => return Err(Failure::NotFound(format!("there is no operation {id}, or it was pruned"))),
            [one] => one.clone(),
            several => return Err(Failure::NotFound(format!("{} operations begin with {id}", several.len()))),
        };
        let why = inspection.explain(&operation.id, self.now).map_err(|error| self.failure(error))?;
        why.map(|why| (operation, why)).ok_or_else(|| Failure::NotFound(format!("there is no operation {id} any more")))
    }

    fn conflict(&self, inspection: &Inspection, id: &str) -> Result<ConflictEntry, Failure> {
        let entries = inspection.conflicts(false, MOST).map_err(|error| self.failure(error))?;
        let names = |entry: &ConflictEntry| {
            let conflict = &entry.conflict;
            [&conflict.id, &conflict.entity_id, &conflict.operation_id].into_iter().any(|name| name.starts_with(id))
        };
        // The newest: of several on one entity it is the one that matters.
        let found = entries.into_iter().find(names);
        found.ok_or_else(|| Failure::NotFound(format!("there is no conflict {id} in the ledger")))
    }

    fn failure(&self, error: SynclineError) -> Failure {
        let path = self.file.to_owned();
        match error {
            SynclineError::TooNew { found, supported } => Failure::Newer { path, found, supported },
            SynclineError::Corrupt { .. } => {
                Failure::NotOurs { path, reason: "not a SQLite database, or damaged".into() }
            }
            SynclineError::InvalidConfig { detail, .. } => Failure::NotOurs { path, reason: detail },
            other => Failure::File { path, reason: other.to_string() },
        }
    }
}
