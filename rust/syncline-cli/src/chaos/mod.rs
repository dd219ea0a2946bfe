//! `syncline chaos`: device processes and an endpoint process work over a network that misbehaves, and are killed at random,
//! unattended. Then the faults stop, everything must drain, and the oracle judges the files, by the rules that simulated worlds are
//! held to. For tests only: it is in builds with the feature `chaos`.
//!
//! The processes, the proxy and what is said to a device are the demo's.

mod device;
mod endpoint;
mod life;
pub(crate) mod postgres;
mod report;
mod stage;
mod verdict;
mod writes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use crate::demo::checker::sabotage::{Sabotage, sabotage};
use crate::demo::child::EndpointProcess;
use crate::demo::{DemoError, make_empty};
use crate::failure::Failure;
use crate::output;
use device::Device;
use report::Report;
use stage::{Length, Stage};
use verdict::Drained;

#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How long everything is at work; draining comes on top
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Draws every choice that is ours; what the system does in between is its own. Without it: a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Devices; one more begins as a copy of the first one's file
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=8))]
    devices: u8,
    /// Print the report as JSON, and no progress
    #[arg(long)]
    json: bool,
    /// Keep all files in this folder, which must be empty or not exist; a run that fails keeps its files anyway
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Damage one row before the check, to see that the rules notice
    #[arg(long, value_enum, value_name = "KIND")]
    sabotage: Option<Sabotage>,
}

/// Runs chaos.
///
/// # Errors
/// A rule was broken, the queues did not drain, a process died by itself, or Ctrl-C.
pub(crate) async fn run(args: ChaosArgs) -> Result<(), Failure> {
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
    let ended = tokio::select! {
        ended = play(&args, seed, &folder) => ended,
        () = crate::interrupted() => return Err(Failure::Interrupted),
    };
    let report = match ended {
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

async fn play(args: &ChaosArgs, seed: u64, folder: &Path) -> Result<Report, DemoError> {
    let length = Length::Time(Duration::from_secs_f64(args.minutes.clamp(0.1, 7.0 * 24.0 * 60.0) * 60.0));
    let (stage, endpoint) = Stage::set(folder, seed, length, None, !args.json).await?;
    let (mut devices, endpoint) = live(&stage, endpoint, args.devices).await?;
    let drained = end(&stage, &mut devices, endpoint).await?;
    if let Some(kind) = args.sabotage {
        sabotage(kind, &verdict::case(&devices, &stage))?;
    }
    let breaches = verdict::judge(&mut devices, &stage)?;
    Ok(Report::new(&stage, &devices, drained, breaches))
}

/// Everybody is at work until the time has passed.
async fn live(
    stage: &Stage,
    endpoint: EndpointProcess,
    count: u8,
) -> Result<(Vec<Device>, EndpointProcess), DemoError> {
    stage.note(&format!("chaos for {:?} with seed {}", stage.length, stage.seed));
    let (hand_over, copy) = oneshot::channel();
    let mut hand_over = Some(hand_over);
    let mut lives = Vec::new();
    for index in 0..count {
        // The last one forgets early, so that forgetting is seen too.
        let forgets = index + 1 == count;
        let device = Device::new(stage, &format!("device-{}", index + 1), forgets).await?;
        lives.push(life::live(device, stage, hand_over.take()));
    }
    let of_copy = async {
        match copy.await {
            Ok(device) => life::live(device, stage, None).await.map(Some),
            Err(_) => Ok(None),
        }
    };
    let (devices, copy, endpoint) = tokio::try_join!(try_join_all(lives), of_copy, endpoint::live(endpoint, stage))?;
    Ok((devices.into_iter().chain(copy).collect(), endpoint))
}

/// The faults stop, everything drains, and every process ends.
async fn end(stage: &Stage, devices: &mut [Device], endpoint: EndpointProcess) -> Result<Drained, DemoError> {
    let drained = verdict::drain(devices, stage).await?;
    for device in devices {
        device.stop().await?;
    }
    endpoint.stop().await?;
    Ok(drained)
}
