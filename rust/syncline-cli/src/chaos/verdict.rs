//! The end: the faults stop, everything drains, and the files are judged.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use syncline_testkit::files::{self, LeftFile};

use super::device::{Device, TIMEOUT_SECONDS};
use super::stage::{Stage, locked};
use crate::demo::DemoError;
use crate::demo::checker::{Case, CaseDevice};
use crate::demo::control::{Command, Status};
use crate::demo::report::Stopwatch;
use crate::demo::team::{SCOPE, pause};

/// Spec §9.11: the longest backoff and two round trips. What was in a user's hands meanwhile gets the same again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5 * 60);
const PATIENCE: Duration = Duration::from_secs(2 * (LONGEST_BACKOFF.as_secs() + 2 * TIMEOUT_SECONDS));
const GLANCE: Duration = Duration::from_millis(200);

/// How long it took until nothing waited any more.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Drained {
    pub(super) seconds: f64,
    /// Waiting when the faults stopped.
    pub(super) operations: u64,
}

/// The faults stop: waits until nothing is left to deliver or to decide, then has everybody pull.
///
/// # Errors
/// Something is stuck.
pub(super) async fn drain(devices: &mut [Device], stage: &Stage) -> Result<Drained, DemoError> {
    stage.note("the faults stop");
    let watch = Stopwatch::start();
    for device in &mut *devices {
        device.heal(stage).await?;
    }
    let statuses: Vec<Status> = try_join_all(devices.iter().map(|device| device.ask(Command::Status))).await?;
    let operations = statuses.iter().map(Status::waiting).sum();
    while let Some(waiting) = waits(devices, stage, &watch).await? {
        if watch.seconds() > PATIENCE.as_secs_f64() {
            return Err(DemoError::Stuck(format!("the queues did not drain: {waiting}")));
        }
        pause(GLANCE).await;
    }
    let seconds = watch.seconds();
    stage.note(&format!("drained after {seconds:.1} s"));
    try_join_all(devices.iter().map(|device| device.ask::<()>(Command::Sync))).await?;
    for device in devices {
        device.figures = Some(device.ask(Command::Metrics).await?);
    }
    Ok(Drained { seconds, operations })
}

/// Who still waits, with how much; the user sees to what is theirs to decide.
async fn waits(devices: &mut [Device], stage: &Stage, watch: &Stopwatch) -> Result<Option<String>, DemoError> {
    let mut waiting = Vec::new();
    // Trying again what fails for good would not end.
    let resolute = watch.seconds() > 5.0;
    for device in devices {
        device.look(stage)?;
        let troubles = device.tend(stage, resolute).await?;
        let status: Status = device.ask(Command::Status).await?;
        if troubles > 0 || status.waiting() + status.failed + status.conflicted > 0 {
            waiting.push(format!("{} is {} with {} to deliver", device.name, status.state, status.waiting()));
        }
    }
    Ok((!waiting.is_empty()).then(|| waiting.join("; ")))
}

/// What the demo's sabotage needs.
pub(super) fn case(devices: &[Device], stage: &Stage) -> Case {
    let each = devices.iter().map(|device| CaseDevice {
        name: device.name.clone(),
        file: device.file.clone(),
        acknowledged: BTreeSet::new(),
    });
    Case { server: stage.data(), scope: SCOPE.to_owned(), devices: each.collect() }
}

/// Holds the oracle's rules against the files. Every process must have ended.
pub(super) fn judge(devices: &mut [Device], stage: &Stage) -> Result<Vec<String>, DemoError> {
    let at_work: Vec<String> = devices
        .iter()
        .filter_map(|device| Some(format!("{} at work: {}", device.name, device.breach.as_ref()?)))
        .collect();
    let mut files: Vec<LeftFile<'_>> = devices.iter_mut().map(Device::left_file).collect();
    let shared = locked(&stage.shared).clone();
    let breaches = files::judge(&stage.data(), &shared, &mut files)?;
    breaches.iter().for_each(|breach| stage.note(breach));
    Ok(at_work.into_iter().chain(breaches).collect())
}
