//! What all checks share: the endpoint, the credentials, fresh names, the run's clock, and a reader that follows the scope.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use tokio::sync::Mutex;

use super::client::{Answer, Client, Credential};
use super::device::{Device, Op, millis, same};
use super::outcome::{Trouble, broken};
use crate::output;

/// Changes in a page of the run's own reader.
const PAGE: u64 = 500;
/// The run's own writes are dated so long ago: no clamp, and no device's clock, comes into their way.
const PAST_MILLIS: i64 = 60 * 60 * 1000;

/// One run against one endpoint.
pub(super) struct World {
    pub(super) client: Client,
    pub(super) user: Credential,
    /// Somebody else in another scope.
    pub(super) other: Option<Credential>,
    /// Somebody else in the same scope.
    pub(super) mate: Option<Credential>,
    pub(super) entity_type: String,
    /// How often what depends on luck is tried.
    pub(super) rounds: usize,
    /// Whether the epoch of the scope must stay.
    pub(super) keep_epoch: bool,
    /// Begins every id and key of this run.
    pub(super) prefix: String,
    epoch: StdMutex<Option<String>>,
    /// The endpoint's clock less ours, in milliseconds.
    offset: AtomicI64,
    started: i64,
    names: AtomicU64,
    ticks: AtomicI64,
    reader: Mutex<Reader>,
}

/// What the scope holds of the run's entity type, as pulled so far.
#[derive(Default)]
struct Reader {
    cursor: Option<String>,
    changes: BTreeMap<String, Value>,
}

/// Whom a run is made for.
pub(super) struct People {
    pub(super) user: Credential,
    pub(super) other: Option<Credential>,
    pub(super) mate: Option<Credential>,
}

impl World {
    pub(super) fn new(client: Client, people: People, entity_type: String, seed: u64, rounds: usize) -> Self {
        let prefix: u64 = StdRng::seed_from_u64(seed).random();
        let (user, other, mate) = (people.user, people.other, people.mate);
        Self {
            client,
            user,
            other,
            mate,
            entity_type,
            rounds,
            keep_epoch: false,
            prefix: format!("t{:012x}", prefix >> 16),
            epoch: StdMutex::new(None),
            offset: AtomicI64::new(0),
            started: output::now(),
            names: AtomicU64::new(0),
            ticks: AtomicI64::new(0),
            reader: Mutex::default(),
        }
    }

    /// Learns the epoch, the endpoint's clock and the scope's head, and sees that the endpoint takes plain records.
    ///
    /// # Errors
    /// Why the run cannot begin.
    pub(super) async fn begin(&self) -> Result<(), Trouble> {
        let mut device = self.device();
        let answer = device.ask(device.pull_body(None, 1, None)).await?;
        let Some(epoch) = answer.body["epoch"].as_str().filter(|_| answer.status == 200) else {
            return Err(answer.broken("a pull is not answered with a page"));
        };
        self.set_epoch(epoch);
        device.epoch = Some(epoch.to_owned());
        let entity = self.name("e");
        let create = device.create(&entity, json!({ "title": "begin" }));
        let answer = device.push(&[&create]).await?;
        let settled = super::device::Settled::of(answer, &[&create])?;
        if settled.status(&create) == "already_processed" {
            return Err(settled.answer.broken("this seed was used at this endpoint before; take another one"));
        }
        if settled.status(&create) != "applied" {
            let what = format!("the entity type {} does not take plain records; see --entity-type", self.entity_type);
            return Err(settled.answer.broken(what));
        }
        if let Some(time) = millis(&settled.answer.body["server_time"]) {
            self.offset.store(time - output::now(), Ordering::Relaxed);
        }
        self.follow().await
    }

    /// A fresh id or key. Later ones sort after earlier ones.
    pub(super) fn name(&self, kind: &str) -> String {
        format!("{}-{:05}-{kind}", self.prefix, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A fresh device of the user.
    pub(super) fn device(&self) -> Device<'_> {
        self.device_of(&self.user)
    }

    /// A fresh device of somebody who shares the user's scope.
    pub(super) fn device_of(&self, credential: &Credential) -> Device<'_> {
        Device::new(self, credential.clone(), self.name("d"), self.epoch())
    }

    pub(super) fn epoch(&self) -> Option<String> {
        self.epoch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Goes on in another history: what was pulled belongs to the old one.
    pub(super) async fn restart(&self, epoch: &str) {
        self.set_epoch(epoch);
        *self.reader.lock().await = Reader::default();
    }

    fn set_epoch(&self, epoch: &str) {
        *self.epoch.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(epoch.to_owned());
    }

    /// The endpoint's time, as far as known.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(output::now() + self.offset.load(Ordering::Relaxed))
    }

    /// A moment of the run's past, always the same one for the same number.
    pub(super) fn past(&self, millis: i64) -> Timestamp {
        let start = self.started + self.offset.load(Ordering::Relaxed) - PAST_MILLIS;
        Timestamp::from_millis(start + millis)
    }

    /// The next moment of the run's past.
    pub(super) fn tick(&self) -> Timestamp {
        self.past(self.ticks.fetch_add(1, Ordering::Relaxed))
    }

    /// Follows the scope to its head, or, after an epoch was renewed, from the start again.
    async fn follow(&self) -> Result<(), Trouble> {
        let mut reader = self.reader.lock().await;
        let device = self.device();
        loop {
            let page = device.page(reader.cursor.as_deref(), PAGE).await?;
            if page.body["reset"] == true {
                reader.changes.clear();
            }
            for change in page.body["changes"].as_array().into_iter().flatten() {
                let id = change["entity_id"].as_str().unwrap_or_default();
                if id.starts_with(&self.prefix) {
                    reader.changes.insert(id.to_owned(), change.clone());
                }
            }
            reader.cursor = page.body["cursor"].as_str().map(str::to_owned);
            if page.body["has_more"] != true {
                return Ok(());
            }
        }
    }

    /// A cursor at the head, for the run's entity type.
    pub(super) async fn head(&self) -> Result<String, Trouble> {
        self.follow().await?;
        let reader = self.reader.lock().await;
        Ok(reader.cursor.clone().unwrap_or_default())
    }

    /// The entity's last change, as pulled; none if there never was one.
    pub(super) async fn see(&self, entity: &str) -> Result<Option<Value>, Trouble> {
        self.follow().await?;
        Ok(self.reader.lock().await.changes.get(entity).cloned())
    }

    /// Holds if the entity's record is this one.
    pub(super) async fn expect_record(&self, entity: &str, record: &Value) -> Result<Value, Trouble> {
        let change = self.see(entity).await?.unwrap_or(Value::Null);
        if same(&change["record"], record) && change["deleted"] != true {
            return Ok(change);
        }
        broken(format!("a pull of {entity} gives {} instead of {record}", change["record"]))
    }

    /// Holds if the entity was never there.
    pub(super) async fn expect_nothing(&self, entity: &str) -> Result<(), Trouble> {
        match self.see(entity).await? {
            None => Ok(()),
            Some(change) => broken(format!("a pull gives {entity}, which nothing made: {}", change["record"])),
        }
    }

    /// Holds if the entity is deleted, or never was.
    pub(super) async fn expect_deleted(&self, entity: &str) -> Result<(), Trouble> {
        match self.see(entity).await? {
            Some(change) if change["deleted"] != true => {
                broken(format!("{entity} is not deleted: {}", change["record"]))
            }
            _ => Ok(()),
        }
    }

    /// A live record, and the device that made it.
    pub(super) async fn record(&self, payload: Value) -> Result<(Device<'_>, Op), Trouble> {
        let mut device = self.device();
        let create = device.create(&self.name("e"), payload);
        device.settle(&[&create]).await?.expect(&create, "applied")?;
        Ok((device, create))
    }

    /// Deletes what the run has made and left. How many entities were left, and how many deletes did not apply.
    pub(super) async fn clean_up(&self) -> Result<(usize, usize), Trouble> {
        self.follow().await?;
        let left: Vec<Value> =
            self.reader.lock().await.changes.values().filter(|change| change["deleted"] != true).cloned().collect();
        let mut device = self.device();
        let mut refused = 0;
        for batch in left.chunks(100) {
            let delete = |change: &Value| {
                let entity = change["entity_id"].as_str().unwrap_or_default();
                device
                    .delete(entity)
                    .set("base_clock", change["clock"].clone())
                    .set("timestamp", self.now().to_string())
            };
            let deletes: Vec<Op> = batch.iter().map(delete).collect();
            let settled = device.settle(&deletes).await?;
            refused += deletes.iter().filter(|delete| settled.status(delete) != "applied").count();
        }
        Ok((left.len(), refused))
    }

    /// Holds if the answer to a push of the user tells an epoch, and takes it.
    pub(super) fn take_epoch(&self, answer: &Answer) -> Result<String, Trouble> {
        match answer.body["epoch"].as_str() {
            Some(epoch) if !epoch.is_empty() => Ok(epoch.to_owned()),
            _ => Err(answer.broken("the answer names no epoch")),
        }
    }
}
