//! Raw pushes, as many as go, in a scope of their own: a load under which the server dies, and a ledger of what it acknowledged.
//!
//! What a pusher sends follows from its sequence numbers alone, so it can send any of it again: a batch that got no answer, a tenth
//! of those that did, and everything when the server went back in time.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::super::stage::Stage;
use crate::demo::DemoError;
use crate::demo::proxy;
use crate::demo::report::Stopwatch;
use crate::demo::team::pause;
use crate::secret;

const SCOPE: &str = "flood";
const OPERATIONS: u64 = 40;
/// An answer that takes longer is as good as none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A batch that is not decided by then never will be.
const PATIENCE_SECONDS: f64 = 120.0;
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Who pushes, and how long each waits before it goes on with something new.
pub(super) struct Flood {
    pushers: Vec<Pusher>,
    pace: Duration,
}

struct Pusher {
    name: String,
    token: String,
    /// Everything up to this sequence was acknowledged, in one history or another.
    acknowledged: AtomicU64,
    repeated: AtomicU64,
    sent_again: AtomicU64,
}

impl Flood {
    pub(super) fn new(stage: &Stage, count: u64, pace: Duration) -> Self {
        let pusher = |number| {
            let name = format!("pusher-{number}");
            let token = secret::token(&stage.secret, &name, SCOPE, TOKEN_SECONDS);
            Pusher {
                name,
                token,
                acknowledged: AtomicU64::new(0),
                repeated: AtomicU64::new(0),
                sent_again: AtomicU64::new(0),
            }
        };
        Self { pushers: (1..=count).map(pusher).collect(), pace }
    }

    /// Pushes until the time has passed.
    pub(super) async fn live(&self, stage: &Stage) -> Result<(), DemoError> {
        try_join_all(self.pushers.iter().map(|pusher| pusher.live(stage, self.pace))).await.map(drop)
    }

    pub(super) fn figures(&self) -> [(&'static str, u64); 3] {
        let sum =
            |of: fn(&Pusher) -> &AtomicU64| self.pushers.iter().map(|pusher| of(pusher).load(Ordering::SeqCst)).sum();
        [
            ("operations of the flood", sum(|pusher| &pusher.acknowledged)),
            ("pushes of the flood sent twice", sum(|pusher| &pusher.repeated)),
            ("operations of the flood sent again after a failover", sum(|pusher| &pusher.sent_again)),
        ]
    }

    /// Who was told of how much.
    pub(super) fn acknowledged(&self) -> Vec<(&str, u64)> {
        self.pushers.iter().map(|pusher| (pusher.name.as_str(), pusher.acknowledged.load(Ordering::SeqCst))).collect()
    }

    /// Everything that was acknowledged is in the server's file, once, and nothing else is.
    pub(super) fn judge(&self, server: &Path) -> Result<Vec<String>, rusqlite::Error> {
        let server = Connection::open(server)?;
        let mut breaches = Vec::new();
        let mut all = 0;
        for (name, acknowledged) in self.acknowledged() {
            all += acknowledged;
            let mut rows = server.prepare(
                "SELECT sequence FROM operations WHERE scope = ? AND device_id = ? AND verdict = 'applied' ORDER BY sequence",
            )?;
            let applied: Vec<u64> = rows.query_map([SCOPE, name], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let once: BTreeSet<u64> = applied.iter().copied().collect();
            if once.len() != applied.len() {
                breaches.push(format!("flood: {} operations of {name} were applied twice", applied.len() - once.len()));
            }
            let lost: Vec<u64> = (1..=acknowledged).filter(|sequence| !once.contains(sequence)).collect();
            if let Some(first) = lost.first() {
                breaches.push(format!(
                    "flood: {} of {acknowledged} operations of {name} were acknowledged and are lost, first {first}",
                    lost.len()
                ));
            }
            if once.last().is_some_and(|last| *last > acknowledged) {
                breaches.push(format!("flood: the server has operations of {name} that were never acknowledged"));
            }
        }
        // Each creates an entity of its own: whatever took effect twice would have raised the head twice.
        let (head, entities): (u64, u64) = server.query_row(
            "SELECT head, (SELECT count(*) FROM entities e WHERE e.scope = s.scope) FROM scopes s WHERE scope = ?",
            [SCOPE],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if (head, entities) != (all, all) {
            breaches.push(format!(
                "flood: {all} entities were created, the server has {entities}, and its head is at {head}"
            ));
        }
        Ok(breaches)
    }
}

/// What the endpoint made of a batch.
enum Heard {
    Decided(Value),
    /// Another history: its epoch, and the mark in it.
    Behind(String, u64),
    /// Nothing that decides.
    Nothing,
}

impl Pusher {
    async fn live(&self, stage: &Stage, pace: Duration) -> Result<(), DemoError> {
        let mut random =
            StdRng::seed_from_u64(stage.seed ^ self.name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)));
        let (mut epoch, mut mark, mut next) = (String::new(), 0, 1);
        let mut watch = Stopwatch::start();
        // Whatever was sent must be decided before the end, in whichever history that is.
        let mut reached = 0;
        while stage.passed() < 1.0 || next <= reached {
            reached = reached.max(next + OPERATIONS - 1);
            match self.push(stage, next, &epoch, mark).await? {
                Heard::Decided(answer) => {
                    self.check(&answer, false)?;
                    mark = answer["mark"].as_u64().unwrap_or(mark);
                    if next + OPERATIONS - 1 <= self.acknowledged.load(Ordering::SeqCst) {
                        self.sent_again.fetch_add(OPERATIONS, Ordering::SeqCst);
                    }
                    if random.random_ratio(1, 10)
                        && let Heard::Decided(answer) = self.push(stage, next, &epoch, mark).await?
                    {
                        self.check(&answer, true)?;
                        mark = answer["mark"].as_u64().unwrap_or(mark);
                        self.repeated.fetch_add(1, Ordering::SeqCst);
                    }
                    next += OPERATIONS;
                    watch = Stopwatch::start();
                    if self.acknowledged.fetch_max(next - 1, Ordering::SeqCst) < next {
                        pause(pace).await;
                    }
                }
                Heard::Behind(theirs, of_mine) => {
                    stage.note(&format!("{} hears of another history, and begins anew", self.name));
                    (epoch, mark, next) = (theirs, of_mine, 1);
                }
                Heard::Nothing if watch.seconds() > PATIENCE_SECONDS => {
                    return Err(DemoError::Stuck(format!("{} got no answer for {PATIENCE_SECONDS} s", self.name)));
                }
                Heard::Nothing => pause(Duration::from_millis(random.random_range(20..200))).await,
            }
        }
        Ok(())
    }

    async fn push(&self, stage: &Stage, first: u64, epoch: &str, mark: u64) -> Result<Heard, DemoError> {
        let name = &self.name;
        let operation = |sequence| {
            json!({
                "id": format!("{name}-{sequence}"), "idempotency_key": format!("{name}/{sequence}"), "sequence": sequence,
                "operation": "create", "entity_type": "pin", "entity_id": format!("{name}-{sequence}"),
                "payload": { "number": sequence, "by": name }, "timestamp": "2026-11-01T00:00:00.000Z",
            })
        };
        let operations: Vec<Value> = (first..first + OPERATIONS).map(operation).collect();
        let body = json!({
            "protocol": 1, "user_id": name, "scope": SCOPE, "device_id": name, "mark": mark, "operations": operations,
            "epoch": if epoch.is_empty() { "of-nothing-yet" } else { epoch }, "sent_at": "2026-11-01T00:00:00.000Z",
        });
        let asked = proxy::post(stage.endpoint(), "/v1/push", &self.token, body.to_string());
        let Ok(Ok((status, body))) = tokio::time::timeout(TIMEOUT, asked).await else { return Ok(Heard::Nothing) };
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else { return Ok(Heard::Nothing) };
        match (status, answer["code"].as_str()) {
            (200, _) => Ok(Heard::Decided(answer)),
            (_, Some("server_behind")) => {
                let epoch = answer["epoch"].as_str().unwrap_or_default().to_owned();
                Ok(Heard::Behind(epoch, answer["mark"].as_u64().unwrap_or(0)))
            }
            // 500: for a moment there was no such database.
            (429 | 500 | 503, _) => Ok(Heard::Nothing),
            _ => Err(DemoError::Child(format!("{name} was refused: {status} {answer}"))),
        }
    }

    /// Every operation was applied, once; with `again`, before.
    fn check(&self, answer: &Value, again: bool) -> Result<(), DemoError> {
        let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
        let left_out = answer["applied"].as_u64().unwrap_or(0);
        let is_known = |result: &Value| result["status"] == "already_processed" && result["first"] == "applied";
        let good = results.iter().all(|result| is_known(result) || (result["status"] == "applied" && !again));
        let adds_up = left_out + results.len() as u64 == OPERATIONS && (left_out == 0 || !again);
        if good && adds_up {
            return Ok(());
        }
        Err(DemoError::Child(format!("{}, sent twice: {again}, was answered {answer}", self.name)))
    }
}
