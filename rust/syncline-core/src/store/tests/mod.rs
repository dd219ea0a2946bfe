//! The store by itself: its answers are made by hand, and after every step everything it keeps is held against plain counting.

mod consistency;
mod durability;
mod enqueue;
mod migrations;
mod properties;
mod reads;
mod verdicts;

use std::cell::Cell;
use std::collections::BTreeMap;

use syncline_protocol::{
    Clock, FirstStatus, Limits, OperationResult, PushResponse, Record, ResultError, Status, Timestamp,
};
use tempfile::TempDir;

use super::*;
use crate::config::{Durability, EntityType, Retention};
use crate::environment::Random;
use crate::operation::{NewOperation, OperationStatus, Receipt};

/// A device's store with time and ids of its own.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) store: Store,
    pub(super) now: Timestamp,
    pub(super) term: u64,
    ids: Cell<u64>,
    /// What the events said, to be held against the rows.
    pub(super) told: BTreeMap<u64, OperationStatus>,
}

/// Always draws the middle.
#[derive(Default)]
pub(super) struct Half;

impl Random for Half {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x80);
    }
}

pub(super) fn options(dir: &TempDir) -> StoreOptions {
    StoreOptions {
        path: dir.path().join("device.db"),
        vfs: None,
        user_id: "user".into(),
        scope: "team".into(),
        entity_types: BTreeMap::new(),
        pull_types: None,
        durability: Durability::Normal,
        retention: Retention::default(),
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut options = options(&dir);
        change(&mut options);
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut store = Store::open(options, "A", now).expect("opens");
        let term = store.begin_drain(now).expect("drains");
        Self { dir, store, now, term, ids: Cell::new(0), told: BTreeMap::new() }
    }

    pub(super) fn prepare(&self, operation: NewOperation) -> Prepared {
        self.try_prepare(operation).expect("a valid operation")
    }

    pub(super) fn try_prepare(&self, operation: NewOperation) -> Result<Prepared> {
        self.ids.set(self.ids.get() + 1);
        let settings = self.store.options.entity_type(&operation.entity_type);
        Prepared::new(operation, format!("op-{:04}", self.ids.get()), &settings)
    }

    pub(super) fn enqueue(&mut self, operation: NewOperation) -> Receipt {
        let prepared = self.prepare(operation);
        self.store.enqueue(&prepared, self.now).expect("enqueues")
    }

    pub(super) fn create(&mut self, id: &str, payload: &str) -> Receipt {
        self.enqueue(NewOperation::create("pin", id, payload))
    }

    pub(super) fn update(&mut self, id: &str, payload: &str) -> Receipt {
        self.enqueue(NewOperation::update("pin", id, payload))
    }

    pub(super) fn delete(&mut self, id: &str) -> Receipt {
        self.enqueue(NewOperation::delete("pin", id))
    }

    pub(super) fn group(&mut self, transaction: &str, operations: Vec<NewOperation>) -> Vec<Receipt> {
        let members: Vec<GroupMember> = operations
            .into_iter()
            .map(|operation| self.store.group_member(self.prepare(operation)).expect("a member"))
            .collect();
        self.store.commit_group(transaction, &members, self.now).expect("commits")
    }

    /// The value of a pin as text; "-" for none.
    pub(super) fn value(&self, id: &str) -> String {
        let row = self.store.find_entity("pin", id).expect("readable");
        row.and_then(|row| row.current).unwrap_or_else(|| "-".into())
    }

    pub(super) fn status(&self, receipt: &Receipt) -> OperationStatus {
        self.row(receipt.sequence).status
    }

    pub(super) fn row(&self, sequence: u64) -> row::QueueRow {
        row::QueueRow::find(&self.store.conn, sequence).expect("readable").expect("a row")
    }

    pub(super) fn claim(&mut self, sequences: &[u64]) -> ClaimedBatch {
        self.store.claim(self.term, sequences, self.now).expect("claims")
    }

    pub(super) fn settle(&mut self, batch: &ClaimedBatch, response: &PushResponse) -> Settled {
        let cursor = batch.device.cursor.clone();
        let answer = PushAnswer { term: self.term, sent: &batch.sent, sent_cursor: cursor.as_deref(), response };
        self.store.settle(&answer, self.now, &Half).expect("settles")
    }

    /// Claims and settles with the results given, in order; the rest is left out.
    pub(super) fn deliver(&mut self, sequences: &[u64], version: u64, results: Vec<OperationResult>) -> Settled {
        let batch = self.claim(sequences);
        let applied = (batch.sent.len() - results.len()) as u64;
        self.settle(&batch, &response(version, applied, results))
    }

    /// An empty first pull: the device has an epoch and a cursor at version 0.
    pub(super) fn pulled(mut self) -> Self {
        self.pull(Vec::new(), "c0", false);
        self
    }

    pub(super) fn pull(
        &mut self,
        changes: Vec<syncline_protocol::Change>,
        cursor: &str,
        has_more: bool,
    ) -> PageApplied {
        let device = self.store.device().expect("readable");
        let response = syncline_protocol::PullResponse {
            changes,
            cursor: cursor.into(),
            epoch: "e1".into(),
            has_more,
            reset: false,
        };
        let page = PullPage {
            sent_cursor: device.cursor.as_deref(),
            heard_version: device.heard_version,
            response: &response,
        };
        self.store.apply_page(&page, self.now).expect("applies")
    }

    /// Closes the file without a word, as a killed process does, and opens it again.
    pub(super) fn reopen(mut self) -> Self {
        self.assert_consistent();
        let Self { dir, store, now, ids, told, .. } = self;
        let options = store.options.clone();
        drop(store);
        let mut store = Store::open(options, "unused", now).expect("opens again");
        let term = store.begin_drain(now).expect("drains");
        Self { dir, store, now, term, ids, told }
    }
}

pub(super) fn response(version: u64, applied: u64, results: Vec<OperationResult>) -> PushResponse {
    PushResponse {
        applied,
        results,
        version,
        cursor: None,
        epoch: "e1".into(),
        mark: Some(1),
        server_time: Timestamp::from_millis(1_700_000_000_000),
        limits: Limits::default(),
    }
}

pub(super) fn result(sent: &SentOperation, status: Status) -> OperationResult {
    named_result(&sent.id, status)
}

pub(super) fn named_result(id: &str, status: Status) -> OperationResult {
    OperationResult {
        id: id.to_owned(),
        status,
        first: None,
        device_id: None,
        sequence: None,
        version: 0,
        clock: Clock::new(),
        deleted: true,
        record: None,
        conflict: None,
        error: None,
    }
}

pub(super) fn rejected(id: &str, code: &str) -> OperationResult {
    OperationResult {
        error: Some(ResultError {
            code: code.into(),
            message: "No.".into(),
            field: None,
            culprit: None,
            retry_after_ms: None,
        }),
        ..named_result(id, Status::Rejected)
    }
}

pub(super) fn with_record(mut result: OperationResult, version: u64, record: &str, clock: Clock) -> OperationResult {
    result.version = version;
    result.deleted = false;
    result.record = Some(Record::parse(record).expect("a record"));
    result.clock = clock;
    result
}

pub(super) fn already(id: &str, first: FirstStatus) -> OperationResult {
    OperationResult { first: Some(first), ..named_result(id, Status::AlreadyProcessed) }
}

pub(super) fn change(id: &str, version: u64, record: Option<&str>, clock: Clock) -> syncline_protocol::Change {
    syncline_protocol::Change {
        entity_type: "pin".into(),
        entity_id: id.into(),
        version,
        record: record.map(|text| Record::parse(text).expect("a record")),
        deleted: record.is_none(),
        clock,
        changed_at: Timestamp::from_millis(1_600_000_000_000),
    }
}

pub(super) fn clock(dots: &[(&str, u64)]) -> Clock {
    dots.iter().map(|(device, sequence)| syncline_protocol::Dot::new(*device, *sequence)).collect()
}

pub(super) fn settings(change: impl FnOnce(&mut EntityType)) -> BTreeMap<String, EntityType> {
    let mut settings = EntityType::default();
    change(&mut settings);
    [("pin".to_owned(), settings)].into()
}
