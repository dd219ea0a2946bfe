use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde::de::DeserializeOwned;
use syncline_core::{Receipt, Retention};
use syncline_testkit::files::LeftFile;
use syncline_testkit::{Asked, Journal};

use super::stage::{Stage, Tally, locked};
use super::writes::{Author, decision};
use crate::demo::DemoError;
use crate::demo::child::DeviceProcess;
use crate::demo::control::{Acknowledged, Command, Decision, How, Kind, Reply, Troubles, Write};
use crate::demo::faults::Weather;
use crate::demo::figures::Figures;
use crate::demo::proxy::Line;
use crate::demo::report::Stopwatch;
use crate::demo::team::{SCOPE, pause};
use crate::secret;

/// An answer that takes longer is as good as none.
pub(super) const TIMEOUT_SECONDS: u64 = 3;
/// The device that forgets keeps what ended so long.
const KEEP_SECONDS: u64 = 120;
/// It is looked at several times meanwhile, so that nothing ends and is forgotten unseen.
const LOOK_EVERY_SECONDS: f64 = 20.0;
/// Longer than any run.
const FOR_EVER_SECONDS: u64 = 30 * 24 * 60 * 60;
const TOKEN_SECONDS: i64 = 8 * 24 * 60 * 60;

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
    /// What its app was told, and what its user gave up.
    pub(super) journal: Journal,
    /// The newest few operations, to be cancelled.
    recent: Vec<String>,
    looked_at: Stopwatch,
    /// What broke while it was at work.
    pub(super) breach: Option<String>,
    /// What its manager counts, in the end.
    pub(super) figures: Option<Figures>,
    /// Operations up to this sequence are in the file of a copy as well.
    pub(super) shared_through: u64,
    pub(super) forgets: bool,
    /// The database may come back without what was acknowledged last.
    restores: bool,
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
            recent: Vec::new(),
            looked_at: Stopwatch::start(),
            breach: None,
            figures: None,
            shared_through: 0,
            forgets,
            restores: stage.restores,
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
        let (writes, how) = self.call();
        let call = Command::Enqueue { writes: writes.clone(), how };
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
            self.told(stage, &writes, reply)?;
        }
        stage.count(|tally| tally.device_kills += 1);
        stage.note(&format!("{} is killed", self.name));
        Ok(())
    }

    /// What the app writes next.
    pub(super) fn call(&mut self) -> (Vec<Write>, How) {
        self.author.call(&mut self.random)
    }

    pub(super) async fn write(&mut self, stage: &Stage) -> Result<(), DemoError> {
        let (writes, how) = self.call();
        let reply = self.here()?.try_ask(Command::Enqueue { writes: writes.clone(), how }).await?;
        self.told(stage, &writes, reply)
    }

    /// A process, its own or a second one, has answered a call that writes. There is none that it may refuse.
    pub(super) fn told(&mut self, stage: &Stage, writes: &[Write], reply: Reply) -> Result<(), DemoError> {
        let acknowledged = reply.map_err(|text| DemoError::Child(format!("{} refused a write: {text}", self.name)))?;
        let acknowledged: Vec<Acknowledged> = serde_json::from_value(acknowledged)?;
        stage.count(|tally| tally.acknowledged += acknowledged.len() as u64);
        for (Acknowledged { id, sequence }, write) in acknowledged.into_iter().zip(writes) {
            self.recent.push(id.clone());
            self.journal.acknowledge(&Receipt { id, sequence, duplicate: false }, asked(write));
        }
        let surplus = self.recent.len().saturating_sub(20);
        self.recent.drain(..surplus);
        Ok(())
    }

    /// The user changes their mind about one of the latest.
    pub(super) async fn cancel(&mut self, stage: &Stage) -> Result<(), DemoError> {
        if self.recent.is_empty() {
            return Ok(());
        }
        let operation = self.recent[self.random.random_range(0..self.recent.len())].clone();
        self.journal.give_up(&operation);
        self.request(stage, Command::Cancel { operation }, |tally| &mut tally.cancels).await
    }

    /// The user sees to some of what failed or conflicts. `resolute`: tries nothing again. Gives how much there was.
    pub(super) async fn tend(&mut self, stage: &Stage, resolute: bool) -> Result<usize, DemoError> {
        let Troubles { failed, conflicts } = self.ask(Command::Troubles).await?;
        let all = failed.len() + conflicts.len();
        for operation in failed {
            if !resolute && self.random.random() {
                self.journal.resolve(&operation);
                self.request(stage, Command::Retry { operation }, |tally| &mut tally.retries).await?;
            } else {
                self.journal.give_up(&operation);
                self.request(stage, Command::Discard { operation }, |tally| &mut tally.discards).await?;
            }
        }
        for (conflict, operation) in conflicts {
            let decision = if resolute { Decision::Remote } else { decision(&mut self.random) };
            match decision {
                Decision::Remote => self.journal.give_up(&operation),
                _ => self.journal.resolve(&operation),
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
    pub(super) async fn heal(&mut self, stage: &Stage) -> Result<(), DemoError> {
        self.line.set_weather(Weather::Clear);
        self.line.release();
        if self.online && !stage.is_short { Ok(()) } else { self.set_online(true).await }
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

    /// Remembers what has ended, before the device may forget it, and holds against the file what must be true at every moment.
    pub(super) fn look(&mut self, stage: &Stage) -> Result<(), DemoError> {
        if !self.forgets || self.breach.is_some() || self.looked_at.seconds() < LOOK_EVERY_SECONDS {
            return Ok(());
        }
        self.looked_at = Stopwatch::start();
        self.breach = self.left_file().look()?.err();
        if let Some(breach) = &self.breach {
            stage.note(&format!("{}: {breach}", self.name));
        }
        Ok(())
    }

    /// The file and all that is known of it, to be judged.
    pub(super) fn left_file(&mut self) -> LeftFile<'_> {
        LeftFile {
            name: &self.name,
            path: &self.file,
            shared_through: self.shared_through,
            journal: &mut self.journal,
            kept: if self.restores { 0 } else { Retention::default().count },
            restores: self.restores,
            metrics: self.figures.as_ref().map(|figures| &figures.0),
        }
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
        locked(&stage.shared).insert(device_id);
        let mut copy = Self::on(stage, &name, &self.user, self.forgets, self.journal.clone()).await?;
        (self.shared_through, copy.shared_through) = (last, last);
        self.start(stage).await?;
        stage.count(|tally| tally.copied_files += 1);
        stage.note(&format!("the file of {} is copied at operation {last}", self.name));
        Ok(copy)
    }
}

/// As it is recorded. The text of these payloads is canonical as it is.
fn asked(write: &Write) -> Asked {
    let kind = match write.kind {
        Kind::Create => "create",
        Kind::Update => "update",
        Kind::Delete => "delete",
    };
    let payload = write.payload.as_ref().map(serde_json::Value::to_string);
    Asked { kind, entity_type: write.entity_type.clone(), entity_id: write.entity_id.clone(), payload }
}
