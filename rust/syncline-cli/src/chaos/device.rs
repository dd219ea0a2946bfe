use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::stage::{Stage, Tally, locked};
use super::writes::{Author, decision};
use crate::demo::DemoError;
use crate::demo::child::DeviceProcess;
use crate::demo::control::{Command, Decision, Reply, Troubles};
use crate::demo::faults::Weather;
use crate::demo::proxy::Line;
use crate::demo::team::{SCOPE, pause};
use crate::secret;

/// An answer that takes longer is as good as none.
pub(super) const TIMEOUT_SECONDS: u64 = 3;
/// The device that forgets keeps what ended so long.
const KEEP_SECONDS: u64 = 60;
/// Longer than any run.
const FOR_EVER_SECONDS: u64 = 30 * 24 * 60 * 60;
const TOKEN_SECONDS: i64 = 8 * 24 * 60 * 60;

/// What the app of one file was told, and what its user gave up.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    pub(super) acknowledged: BTreeSet<String>,
    pub(super) ended: BTreeSet<String>,
    pub(super) given_up: BTreeSet<String>,
    /// The newest few, to be cancelled.
    recent: Vec<String>,
}

/// A file, the process on it, and its way to the endpoint.
pub(super) struct Device {
    pub(super) name: String,
    user: String,
    pub(super) file: PathBuf,
    pub(super) line: Arc<Line>,
    /// What the platform said last.
    online: bool,
    /// None while it is down.
    process: Option<DeviceProcess>,
    pub(super) journal: Journal,
    /// Operations up to this sequence are in the file of a copy as well.
    pub(super) shared_through: u64,
    pub(super) forgets: bool,
    author: Author,
    pub(super) random: StdRng,
}

impl Device {
    /// A new file, and a process on it.
    pub(super) async fn new(stage: &Stage, name: &str, forgets: bool) -> Result<Self, DemoError> {
        Self::on(stage, name, &format!("user-of-{name}"), forgets, Journal::default()).await
    }

    async fn on(stage: &Stage, name: &str, user: &str, forgets: bool, journal: Journal) -> Result<Self, DemoError> {
        let number = name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let mut device = Self {
            name: name.to_owned(),
            user: user.to_owned(),
            file: stage.folder.join(format!("{name}.db")),
            line: stage.line(number).await?,
            online: true,
            process: None,
            journal,
            shared_through: 0,
            forgets,
            author: Author::new(name),
            random: StdRng::seed_from_u64(stage.seed.wrapping_add(number)),
        };
        device.start(stage).await?;
        Ok(device)
    }

    /// Starts a process on the file and gives it a token.
    pub(super) async fn process(&self, stage: &Stage) -> Result<DeviceProcess, DemoError> {
        let keep = if self.forgets { KEEP_SECONDS } else { FOR_EVER_SECONDS };
        let [timeout, keep] = [TIMEOUT_SECONDS, keep].map(|seconds| seconds.to_string());
        let more = ["--timeout-seconds", &timeout, "--pull-seconds", "5", "--keep-seconds", &keep];
        let process = DeviceProcess::start_with(&self.name, &self.file, &self.line.url(), &self.user, SCOPE, &more)?;
        let (at_hand, fresh) = (self.token(stage, TOKEN_SECONDS), self.token(stage, TOKEN_SECONDS));
        let () = process.ask(Command::Tokens { at_hand, fresh }).await?;
        let () = process.ask(Command::Network { online: true }).await?;
        Ok(process)
    }

    fn token(&self, stage: &Stage, seconds: i64) -> String {
        secret::token(&stage.secret, &self.user, SCOPE, seconds)
    }

    pub(super) async fn start(&mut self, stage: &Stage) -> Result<(), DemoError> {
        self.process = Some(self.process(stage).await?);
        self.online = true;
        Ok(())
    }

    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    pub(super) fn here(&self) -> Result<&DeviceProcess, DemoError> {
        self.process.as_ref().ok_or_else(|| DemoError::Child(format!("{} is down", self.name)))
    }

    /// SIGKILL while it writes, and a new process on the file.
    pub(super) async fn kill(&mut self, stage: &Stage) -> Result<(), DemoError> {
        let call = self.call();
        let wait = Duration::from_micros(self.random.random_range(0..6_000));
        let process = self.process.take().ok_or_else(|| DemoError::Child(format!("{} is down", self.name)))?;
        let killing = async {
            pause(wait).await;
            process.kill().await
        };
        let (reply, killed) = tokio::join!(process.try_ask(call), killing);
        killed?;
        // It may have come so far as to acknowledge.
        if let Ok(reply) = reply {
            self.told(stage, reply)?;
        }
        stage.count(|tally| tally.device_kills += 1);
        stage.note(&format!("{} is killed", self.name));
        Ok(())
    }

    /// One call that writes.
    pub(super) fn call(&mut self) -> Command {
        let (writes, how) = self.author.call(&mut self.random);
        Command::Enqueue { writes, how }
    }

    pub(super) async fn write(&mut self, stage: &Stage) -> Result<(), DemoError> {
        let call = self.call();
        let reply = self.here()?.try_ask(call).await?;
        self.told(stage, reply)
    }

    /// A process, its own or a second one, has answered a call that writes. There is none that it may refuse.
    pub(super) fn told(&mut self, stage: &Stage, reply: Reply) -> Result<(), DemoError> {
        match reply {
            Ok(ids) => self.acknowledge(stage, ids),
            Err(text) => Err(DemoError::Child(format!("{} refused a write: {text}", self.name))),
        }
    }

    fn acknowledge(&mut self, stage: &Stage, ids: serde_json::Value) -> Result<(), DemoError> {
        let ids: Vec<String> = serde_json::from_value(ids)?;
        stage.count(|tally| tally.acknowledged += ids.len() as u64);
        self.journal.recent.extend(ids.iter().cloned());
        let surplus = self.journal.recent.len().saturating_sub(20);
        self.journal.recent.drain(..surplus);
        self.journal.acknowledged.extend(ids);
        Ok(())
    }

    /// The user changes their mind about one of the latest.
    pub(super) async fn cancel(&mut self, stage: &Stage) -> Result<(), DemoError> {
        if self.journal.recent.is_empty() {
            return Ok(());
        }
        let operation = self.journal.recent[self.random.random_range(0..self.journal.recent.len())].clone();
        self.journal.given_up.insert(operation.clone());
        self.request(stage, Command::Cancel { operation }, |tally| &mut tally.cancels).await
    }

    /// The user sees to some of what failed or conflicts. `resolute`: tries nothing again. Gives how much there was.
    pub(super) async fn tend(&mut self, stage: &Stage, resolute: bool) -> Result<usize, DemoError> {
        let Troubles { failed, conflicts } = self.ask(Command::Troubles).await?;
        let all = failed.len() + conflicts.len();
        for operation in failed {
            if !resolute && self.random.random() {
                self.request(stage, Command::Retry { operation }, |tally| &mut tally.retries).await?;
            } else {
                self.journal.given_up.insert(operation.clone());
                self.request(stage, Command::Discard { operation }, |tally| &mut tally.discards).await?;
            }
        }
        for (conflict, operation) in conflicts {
            let decision = if resolute { Decision::Remote } else { decision(&mut self.random) };
            if decision == Decision::Remote {
                self.journal.given_up.insert(operation);
            }
            self.request(stage, Command::Decide { conflict, decision }, |tally| &mut tally.decisions).await?;
        }
        Ok(all)
    }

    /// The platform reports a network, or none.
    pub(super) async fn set_online(&mut self, online: bool) -> Result<(), DemoError> {
        self.online = online;
        self.ask(Command::Network { online }).await
    }

    /// The faults stop. A network is reported only where there was none: a backoff must end by itself.
    pub(super) async fn heal(&mut self) -> Result<(), DemoError> {
        self.line.set_weather(Weather::Clear);
        self.line.release();
        if self.online { Ok(()) } else { self.set_online(true).await }
    }

    /// Its token ends; a good one is there for the asking.
    pub(super) async fn let_token_expire(&self, stage: &Stage) -> Result<(), DemoError> {
        stage.count(|tally| tally.expired_tokens += 1);
        let (at_hand, fresh) = (self.token(stage, -3_600), self.token(stage, TOKEN_SECONDS));
        self.ask(Command::Tokens { at_hand, fresh }).await
    }

    pub(super) async fn ask<T: DeserializeOwned>(&self, command: Command) -> Result<T, DemoError> {
        self.here()?.ask(command).await
    }

    /// Asks for something that may be too late by now, and counts what was done.
    async fn request(
        &self,
        stage: &Stage,
        command: Command,
        counter: fn(&mut Tally) -> &mut u64,
    ) -> Result<(), DemoError> {
        match self.here()?.try_ask(command).await? {
            Ok(_) => stage.count(|tally| *counter(tally) += 1),
            Err(text) => {
                stage.count(|tally| tally.refused += 1);
                stage.note(&format!("{}: {text}", self.name));
            }
        }
        Ok(())
    }

    /// Remembers what has ended, before the device may forget it.
    pub(super) fn look(&mut self) -> Result<(), DemoError> {
        let db = Connection::open(&self.file)?;
        let mut statement = db.prepare("SELECT id FROM sync_queue WHERE status IN ('completed', 'cancelled')")?;
        for id in statement.query_map([], |row| row.get(0))? {
            self.journal.ended.insert(id?);
        }
        Ok(())
    }

    /// A restored backup: the file as it is, without its process, goes on as another device of the same user.
    pub(super) async fn copy(&mut self, stage: &Stage) -> Result<Self, DemoError> {
        if self.random.random() {
            self.kill(stage).await?;
        } else {
            self.stop().await?;
        }
        let name = format!("copy-of-{}", self.name);
        for suffix in ["", "-wal"] {
            let beside = |name: &str| stage.folder.join(format!("{name}.db{suffix}"));
            if beside(&self.name).exists() {
                std::fs::copy(beside(&self.name), beside(&name))?;
            }
        }
        let db = Connection::open(&self.file)?;
        let (device_id, last): (String, u64) = db.query_row(
            "SELECT device_id, (SELECT coalesce(max(sequence), 0) FROM sync_queue) FROM device",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        drop(db);
        locked(&stage.shared).push(device_id);
        let mut copy = Self::on(stage, &name, &self.user, self.forgets, self.journal.clone()).await?;
        (self.shared_through, copy.shared_through) = (last, last);
        self.start(stage).await?;
        stage.count(|tally| tally.copied_files += 1);
        stage.note(&format!("the file of {} is copied at operation {last}", self.name));
        Ok(copy)
    }
}
