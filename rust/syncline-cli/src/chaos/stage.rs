use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use serde_json::json;
use syncline_server::auth::Secret;

use crate::demo::DemoError;
use crate::demo::child::EndpointProcess;
use crate::demo::proxy::Line;
use crate::demo::report::Stopwatch;
use crate::output::thousands;
use crate::secret;

/// What everybody shares: the folder, the time, the way to the endpoint, and the counts.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    pub(super) secret: Secret,
    length: Duration,
    watch: Stopwatch,
    endpoint: Mutex<SocketAddr>,
    lines: Mutex<Vec<Arc<Line>>>,
    tally: Mutex<Tally>,
    /// Device ids that more than one file has used.
    pub(super) shared: Mutex<BTreeSet<String>>,
    log: Mutex<File>,
    progress: ProgressBar,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Tally {
    /// Operations that a device acknowledged.
    pub(super) acknowledged: u64,
    /// Asked for and refused, as to cancel what has ended.
    pub(super) refused: u64,
    pub(super) device_kills: u64,
    pub(super) endpoint_kills: u64,
    /// A second process on one file.
    pub(super) second_processes: u64,
    pub(super) copied_files: u64,
    pub(super) cancels: u64,
    pub(super) retries: u64,
    pub(super) discards: u64,
    pub(super) decisions: u64,
    pub(super) expired_tokens: u64,
}

impl Stage {
    pub(super) async fn set(
        folder: &Path,
        seed: u64,
        length: Duration,
        visible: bool,
    ) -> Result<(Self, EndpointProcess), DemoError> {
        std::fs::write(folder.join("types.json"), configuration().to_string())?;
        let endpoint = EndpointProcess::start(folder, None).await?;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let stage = Self {
            folder: folder.to_owned(),
            seed,
            secret: secret::read(&secret::path(&folder.join("endpoint.db")))?,
            length,
            watch: Stopwatch::start(),
            endpoint: Mutex::new(endpoint.address),
            lines: Mutex::default(),
            tally: Mutex::default(),
            shared: Mutex::default(),
            log: Mutex::new(File::create(folder.join("chaos.log"))?),
            progress: ProgressBar::with_draw_target(None, target),
        };
        Ok((stage, endpoint))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("endpoint.db")
    }

    pub(super) fn seconds(&self) -> f64 {
        self.watch.seconds()
    }

    /// How much of the time has passed: 1 at its end.
    pub(super) fn passed(&self) -> f64 {
        self.seconds() / self.length.as_secs_f64()
    }

    /// A line of the log.
    pub(super) fn note(&self, text: &str) {
        // A log that cannot be written is no reason to stop.
        let _ = writeln!(locked(&self.log), "{:9.3} {text}", self.seconds());
    }

    pub(super) fn count(&self, work: impl FnOnce(&mut Tally)) {
        let tally = {
            let mut tally = locked(&self.tally);
            work(&mut tally);
            *tally
        };
        self.progress.set_message(format!(
            "seed {}, {:.1} of {:.1} minutes: {} operations acknowledged, {} kills of devices, {} of the endpoint",
            self.seed,
            self.seconds() / 60.0,
            self.length.as_secs_f64() / 60.0,
            thousands(tally.acknowledged),
            tally.device_kills,
            tally.endpoint_kills
        ));
        self.progress.tick();
    }

    pub(super) fn tally(&self) -> Tally {
        *locked(&self.tally)
    }

    /// A line to the endpoint, wherever that is.
    pub(super) async fn line(&self, number: u64) -> Result<Arc<Line>, DemoError> {
        let address = *locked(&self.endpoint);
        let line = Arc::new(Line::open(address, self.seed.wrapping_add(number)).await?);
        locked(&self.lines).push(line.clone());
        // It may have moved meanwhile.
        line.set_endpoint(*locked(&self.endpoint));
        Ok(line)
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        locked(&self.lines)
    }

    /// The endpoint was started again.
    pub(super) fn endpoint_moved(&self, address: SocketAddr) {
        *locked(&self.endpoint) = address;
        self.lines().iter().for_each(|line| line.set_endpoint(address));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Small pushes, each rule once, and a schema that some writes break.
fn configuration() -> serde_json::Value {
    json!({
        "types": {
            "pin": { "conflict_rule": "last_writer_wins", "delete_rule": "update_wins" },
            "note": { "conflict_rule": "server_wins", "delete_rule": "delete_wins" },
            "form": {
                "conflict_rule": "manual",
                "schema": { "type": "object", "properties": { "cost": { "type": "number", "minimum": 0 } } },
            },
        },
        "limits": { "request": { "max_operations": 40 }, "requests_per_minute": 100_000, "burst": 10_000 },
    })
}
