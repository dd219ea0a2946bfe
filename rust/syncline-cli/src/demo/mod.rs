//! `syncline demo`: three devices of one team and an endpoint, each a process of its own, work through a day on real data
//! while the network between them misbehaves. A checker that shares no code with them reads their files and gives the verdict.

pub(crate) mod backend;
pub(crate) mod checker;
pub(crate) mod child;
pub(crate) mod control;
mod dataset;
pub(crate) mod device;
pub(crate) mod faults;
#[cfg(feature = "chaos")]
pub(crate) mod figures;
mod plan;
mod progress;
pub(crate) mod proxy;
pub(crate) mod report;
mod script;
pub(crate) mod team;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::Failure;
use crate::output;
use checker::sabotage::Sabotage;
use progress::Progress;
use report::Report;
use team::Team;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Draws the faults and the entities that the day is about; the same seed draws the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices of the team
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    devices: u8,
    /// Operations on the data: without it, one for each of the 3,376 airports and 10,000 reports; fewer take a part of them,
    /// more add follow-up visits. The scripted events come on top
    #[arg(long, value_parser = clap::value_parser!(u32).range(200..=200_000))]
    operations: Option<u32>,
    /// What the endpoint keeps its data in; a Postgres is private, and ends with the demo
    #[cfg(feature = "chaos")]
    #[arg(long, value_enum, default_value = "sqlite")]
    backend: backend::Kind,
    /// Print the report as JSON, and no progress
    #[arg(long)]
    json: bool,
    /// Keep all files in this folder, which must be empty or not exist
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Damage one row before the check, to see that the checker notices
    #[arg(long, value_enum, value_name = "KIND")]
    sabotage: Option<Sabotage>,
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("{0}")]
    Child(String),
    #[error("{0}")]
    Stuck(String),
    #[error("the demo's pipes or files failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("a process said something else than agreed: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the checker cannot read a file: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the data is damaged: {0}")]
    Data(#[from] csv::Error),
    #[cfg(feature = "chaos")]
    #[error("{0}")]
    Copy(#[from] syncline_testkit::server_copy::CopyError),
    #[cfg(feature = "chaos")]
    #[error("the database broke off: {0}")]
    Database(#[from] tokio_postgres::Error),
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the demo.
///
/// # Errors
/// A promise was broken, a scripted event did not happen, a process failed, or Ctrl-C.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let (folder, kept) = match &args.keep {
        Some(folder) => (folder.clone(), None),
        None => {
            let made = tempfile::Builder::new().prefix("syncline-demo-").tempdir()?;
            (made.path().to_owned(), Some(made))
        }
    };
    make_empty(&folder)?;
    let report = tokio::select! {
        // From the first moment on.
        biased;
        () = crate::interrupted() => return Err(Failure::Interrupted),
        report = day(&args, &folder) => report?,
    };
    if args.json {
        output::print_json(&report.json())?;
    } else {
        output::print(&report.text(args.keep.as_deref()))?;
    }
    drop(kept);
    if report.holds() { Ok(()) } else { Err(Failure::Broken) }
}

/// Makes a folder, or sees that it is empty.
///
/// # Errors
/// It holds something, or cannot be made.
pub(crate) fn make_empty(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
    let mut entries = std::fs::read_dir(folder).map_err(|error| Failure::file(folder, &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::File { path: folder.to_owned(), reason: "the folder is not empty".into() }),
    }
}

async fn day(args: &DemoArgs, folder: &Path) -> Result<Report, DemoError> {
    let watch = report::Stopwatch::start();
    let progress = Progress::new(!args.json);
    let plan = plan::Plan::new(args.operations.map(|count| count as usize), usize::from(args.devices), args.seed)?;
    progress.chapter("the endpoint and the devices start");
    #[cfg(feature = "chaos")]
    let backend = backend::Backend::start(args.backend)?;
    #[cfg(not(feature = "chaos"))]
    let backend = backend::Backend::Sqlite;
    let mut team = Team::assemble(folder, &plan, progress, backend).await?;
    let story = script::play(&mut team, &plan).await?;
    let (case, network) = team.disband().await?;
    if let Some(kind) = args.sabotage {
        checker::sabotage::sabotage(kind, &case)?;
    }
    let verdict = checker::check(&case)?;
    Ok(Report::new(args.seed, watch.seconds(), verdict, story, network))
}
