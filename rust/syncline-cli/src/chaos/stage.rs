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
use tokio::sync::Notify;

use crate::demo::DemoError;
use crate::demo::backend::Postgres;
use crate::demo::child::EndpointProcess;
use crate::demo::proxy::Line;
use crate::demo::report::Stopwatch;
use crate::output::thousands;
use crate::secret;

/// Of a hundred pushes to a database that dies, so many arrive twice.
const DUPLICATES: u32 = 10;

/// What everybody shares: the folder, the time, the way to the endpoint, and the counts.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    pub(super) secret: Secret,
    pub(super) length: Length,
    /// The database may come back without what was acknowledged last.
    pub(super) restores: bool,
    /// A short run: once the faults have stopped, nobody waits for a backoff to end.
    pub(super) is_short: bool,
    watch: Stopwatch,
    endpoint: Mutex<SocketAddr>,
    /// Where the endpoint's database is, unless it is a file.
    database: Mutex<Option<String>>,
    /// The database is elsewhere now.
    pub(super) database_moved: Notify,
    lines: Mutex<Vec<Arc<Line>>>,
    tally: Mutex<Tally>,
    /// Device ids that more than one file has used.
    pub(super) shared: Mutex<BTreeSet<String>>,
    log: Mutex<File>,
    progress: ProgressBar,
}

/// How long everybody is at work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Time(Duration),
    /// Until the database died so often.
    Deaths(u64),
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
    /// Deaths of the whole database server.
    pub(super) database_kills: u64,
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
        length: Length,
        postgres: Option<&Postgres>,
        visible: bool,
    ) -> Result<(Self, EndpointProcess), DemoError> {
        let configuration = match postgres {
            Some(postgres) => postgres.configure(configuration()),
            None => configuration(),
        };
        std::fs::write(folder.join("types.json"), configuration.to_string())?;
        let database = postgres.map(|postgres| postgres.database.url().to_owned());
        let endpoint = EndpointProcess::start(folder, database.as_deref()).await?;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let stage = Self {
            folder: folder.to_owned(),
            seed,
            secret: secret::read(&secret::path(&folder.join("endpoint.db")))?,
            length,
            restores: false,
            is_short: false,
            watch: Stopwatch::start(),
            endpoint: Mutex::new(endpoint.address),
            database: Mutex::new(database),
            database_moved: Notify::new(),
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
        match self.length {
            Length::Time(length) => self.seconds() / length.as_secs_f64(),
            Length::Deaths(deaths) => self.tally().database_kills as f64 / deaths as f64,
        }
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
        let so_far = match self.length {
            Length::Time(length) => {
                format!("{:.1} of {:.1} minutes", self.seconds() / 60.0, length.as_secs_f64() / 60.0)
            }
            Length::Deaths(deaths) => format!("{} of {deaths} deaths of the database", tally.database_kills),
        };
        self.progress.set_message(format!(
            "seed {}, {so_far}: {} operations acknowledged, {} kills of devices, {} of the endpoint",
            self.seed,
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
        let line = Arc::new(Line::open(self.endpoint(), self.seed.wrapping_add(number)).await?);
        if matches!(self.length, Length::Deaths(_)) {
            line.set_duplicates(DUPLICATES);
        }
        locked(&self.lines).push(line.clone());
        // It may have moved meanwhile.
        line.set_endpoint(self.endpoint());
        Ok(line)
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        locked(&self.lines)
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        *locked(&self.endpoint)
    }

    pub(super) fn database(&self) -> Option<String> {
        locked(&self.database).clone()
    }

    /// The endpoint is to be started again, on another database.
    pub(super) fn move_database(&self, url: &str) {
        *locked(&self.database) = Some(url.to_owned());
        self.database_moved.notify_one();
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
pub(super) fn configuration() -> serde_json::Value {
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
