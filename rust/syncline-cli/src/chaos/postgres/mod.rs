//! `syncline chaos-postgres`: what is promised of the endpoint on Postgres, held against real servers that die, fail over, are raced
//! and are probed. For tests only: it is in builds with the feature `chaos`.
//!
//! - `deaths`: the whole server is killed with SIGKILL while devices and a flood of pushes are at work, a tenth of them sent twice.
//! - `late`, `synchronous`: the primary is killed with the link to its standby frozen, and the standby takes over.
//! - `restore`: a dump of a while ago is restored, elsewhere or where it came from.
//! - `cursor`: writers wait between the number and the commit, and a reader follows at their heels.
//! - `scopes`: two users in two scopes use whatever is the other's.
//!
//! Where devices are at work, they are those of `chaos`, and so are the judges: what the database holds is copied into a file first.

mod cursor;
mod deaths;
mod failover;
mod flood;
mod losses;
mod probes;
mod report;
mod restore;
mod scopes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget};
use syncline_testkit::postgres::Database;
use syncline_testkit::server_copy;

use super::device::Device;
use super::stage::Stage;
use super::verdict::{self, Drained};
use crate::demo::checker::sabotage::{Sabotage, sabotage};
use crate::demo::{DemoError, make_empty};
use crate::failure::Failure;
use crate::output;
use report::{Outcome, PartReport, Report};

#[derive(Debug, Args)]
pub(crate) struct ChaosPostgresArgs {
    /// What to run, in this order; without it, everything. May be given more than once
    #[arg(long = "part", value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// A short sample: a few deaths, a failover and a restore of each kind, 20,000 rows, a few hundred probes
    #[arg(long)]
    sample: bool,
    /// Draws every choice that is ours; what the system does in between is its own. Without it: a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Print the report as JSON, and no progress
    #[arg(long)]
    json: bool,
    /// Keep all files in this folder, which must be empty or not exist; a run that fails keeps its files anyway
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Break something, to see that it is noticed. `hurry` is for `synchronous`, `skip` for `cursor`, `leak` for
    /// `scopes`, the others for the parts with devices
    #[arg(long, value_enum, value_name = "KIND")]
    sabotage: Option<Slip>,
}

/// What can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The whole server is killed, again and again.
    Deaths,
    /// A standby that lags takes over.
    Late,
    /// A standby that was waited for takes over.
    Synchronous,
    /// A dump of a while ago is restored.
    Restore,
    /// Numbers are drawn, and committed late.
    Cursor,
    /// Two scopes try to see each other.
    Scopes,
}

impl Part {
    const ALL: [Self; 6] = [Self::Deaths, Self::Late, Self::Synchronous, Self::Restore, Self::Cursor, Self::Scopes];

    fn name(self) -> &'static str {
        match self {
            Self::Deaths => "deaths",
            Self::Late => "late",
            Self::Synchronous => "synchronous",
            Self::Restore => "restore",
            Self::Cursor => "cursor",
            Self::Scopes => "scopes",
        }
    }
}

/// What to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Slip {
    /// The server forgets an operation that a device knows as completed.
    Lose,
    /// The server has applied one operation twice.
    Double,
    /// The server has applied two operations of a lane in the wrong order.
    Reorder,
    /// A device forgets a completed operation.
    Forget,
    /// A device's replica holds another value than the server.
    Diverge,
    /// Commits do not wait for the synchronous standby.
    Hurry,
    /// Versions come from a bare sequence.
    Skip,
    /// A token opens the other scope as well.
    Leak,
}

impl Slip {
    /// Of a file.
    fn sabotage(self) -> Option<Sabotage> {
        match self {
            Self::Lose => Some(Sabotage::Lose),
            Self::Double => Some(Sabotage::Double),
            Self::Reorder => Some(Sabotage::Reorder),
            Self::Forget => Some(Sabotage::Forget),
            Self::Diverge => Some(Sabotage::Diverge),
            Self::Hurry | Self::Skip | Self::Leak => None,
        }
    }
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    deaths: u64,
    failovers: u64,
    restores: u64,
    rows: u64,
    probes: u64,
}

const WHOLE: Sizes = Sizes { deaths: 100, failovers: 5, restores: 4, rows: 1_000_000, probes: 10_000 };
const SAMPLE: Sizes = Sizes { deaths: 6, failovers: 1, restores: 2, rows: 20_000, probes: 400 };

/// What a part is told.
struct Scene<'a> {
    folder: &'a Path,
    seed: u64,
    sizes: Sizes,
    is_sample: bool,
    slip: Option<Slip>,
    visible: bool,
}

/// Runs the parts.
///
/// # Errors
/// A promise is broken, something got stuck, a process died by itself, or Ctrl-C.
pub(crate) async fn run(args: ChaosPostgresArgs) -> Result<(), Failure> {
    let (folder, made) = match &args.keep {
        Some(folder) => (folder.clone(), None),
        None => {
            let made = tempfile::Builder::new().prefix("syncline-chaos-").tempdir()?;
            (made.path().to_owned(), Some(made))
        }
    };
    make_empty(&folder)?;
    // Evidence; what was sabotaged is none.
    let keep = || made.filter(|_| args.sabotage.is_none()).map(tempfile::TempDir::keep);
    let seed = args.seed.unwrap_or_else(rand::random);
    let played = tokio::select! {
        biased;
        () = crate::interrupted() => return Err(Failure::Interrupted),
        played = play(&args, seed, &folder) => played,
    };
    let report = match played {
        Ok(report) => report,
        Err(error) => {
            keep();
            return Err(Failure::Failed(format!("{error} (seed {seed}; the files are in {})", folder.display())));
        }
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    if report.holds {
        return Ok(());
    }
    if keep().is_some() {
        log::error!("the files are in {}", folder.display());
    }
    Err(Failure::Chaos)
}

async fn play(args: &ChaosPostgresArgs, seed: u64, folder: &Path) -> Result<Report, DemoError> {
    let watch = crate::demo::report::Stopwatch::start();
    let mut parts = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| args.parts.is_empty() || args.parts.contains(part)) {
        let folder = folder.join(part.name());
        std::fs::create_dir(&folder)?;
        let sizes = if args.sample { SAMPLE } else { WHOLE };
        let (slip, visible) = (args.sabotage, !args.json);
        let scene = Scene { folder: &folder, seed, sizes, is_sample: args.sample, slip, visible };
        let before = watch.seconds();
        let outcome = match part {
            Part::Deaths => deaths::run(&scene).await,
            Part::Late => failover::run(&scene, false).await,
            Part::Synchronous => failover::run(&scene, true).await,
            Part::Restore => restore::run(&scene).await,
            Part::Cursor => cursor::run(&scene).await,
            Part::Scopes => scopes::run(&scene).await,
        };
        parts.push(PartReport::new(part.name(), watch.seconds() - before, outcome?));
    }
    Ok(Report::new(seed, watch.seconds(), parts))
}

/// What was done by the devices, and what is broken once their faults have stopped: everything drains, what the database holds is
/// copied, and the files are judged.
async fn judge(
    scene: &Scene<'_>,
    stage: &Stage,
    devices: &mut [Device],
    drained: Drained,
    database: &Database,
) -> Result<Outcome, DemoError> {
    server_copy::copy(database, &stage.data()).await?;
    if let Some(kind) = scene.slip.and_then(Slip::sabotage) {
        sabotage(kind, &verdict::case(devices, stage))?;
    }
    let breaches = verdict::judge(devices, stage)?;
    let network = stage.lines().iter().fold(crate::demo::faults::Counts::default(), |mut sum, line| {
        sum += line.counts();
        sum
    });
    let tally = stage.tally();
    let figures = vec![
        ("operations of devices", tally.acknowledged),
        ("devices killed", tally.device_kills),
        ("endpoint killed", tally.endpoint_kills),
        ("requests of devices", network.requests),
        ("pushes of devices sent twice", network.duplicated),
        ("operations waited when the faults stopped", drained.operations),
    ];
    Ok(Outcome { figures, breaches })
}

/// Work that waits for other processes, on a thread of its own.
#[expect(clippy::disallowed_methods, reason = "everything else goes on meanwhile")]
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DemoError> {
    let gone = |error| DemoError::Child(format!("the keeper of the database gave up: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(gone)
}

/// A line that says how far it is, until it is dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new(scene: &Scene<'_>) -> Self {
        let target = if scene.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    fn tell(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
