//! The driver against the real store and an endpoint played by hand. Time stands still unless a test moves it.

mod blame;
mod connection;
mod flow;
mod history;
mod property;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use syncline_protocol::{Problem, ProblemCode, Timestamp};

use super::{Action, Driver, DriverSettings, Outcome};
use crate::config::{Durability, EntityType, Retention};
use crate::environment::Random;
use crate::operation::{NewOperation, Operation, OperationStatus, Receipt};
use crate::store::{Prepared, Reader, Store, StoreOptions};
use crate::transport::{CredentialReason, Dialect, Request, Response, Route};

/// Draws the highest number allowed, and never the same bytes twice.
#[derive(Default)]
pub(super) struct Highest(AtomicU64);

impl Random for Highest {
    fn fill(&self, bytes: &mut [u8]) {
        let seed = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = seed[index % 8] ^ index as u8;
        }
    }

    fn between(&self, _low: u64, high: u64) -> u64 {
        high
    }
}

/// A request that the driver wants sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) ticket: u64,
    pub(super) route: Route,
    pub(super) reason: CredentialReason,
    pub(super) body: Value,
}

impl Sending {
    /// The sequences that it carries.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.operations().iter().map(|operation| operation["sequence"].as_u64().unwrap()).collect()
    }

    pub(super) fn operations(&self) -> &[Value] {
        self.body["operations"].as_array().map_or(&[], Vec::as_slice)
    }

    pub(super) fn carries(&self, text: &str) -> bool {
        self.body.to_string().contains(text)
    }
}

/// A device of which every step is the test's.
pub(super) struct Rig {
    pub(super) store: Store,
    pub(super) driver: Driver,
    pub(super) now: Timestamp,
    pub(super) random: Highest,
    options: StoreOptions,
    made: u64,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new(max_in_flight: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            path: folder.path().join("device.db"),
            vfs: None,
            user_id: "user".into(),
            scope: "team".into(),
            entity_types: BTreeMap::new(),
            pull_types: None,
            durability: Durability::Normal,
            retention: Retention::default(),
        };
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut store = Store::open(options.clone(), "device-a", now).unwrap();
        let mut driver = driver(max_in_flight);
        driver.start(&mut store, now).unwrap();
        Self { store, driver, now, random: Highest::default(), options, made: 0, _folder: folder }
    }

    /// The process dies and comes back.
    pub(super) fn restart(&mut self) {
        self.store = Store::open(self.options.clone(), "unused", self.now).unwrap();
        self.driver = driver(2);
        self.driver.start(&mut self.store, self.now).unwrap();
    }

    pub(super) fn enqueue(&mut self, operation: NewOperation) -> Receipt {
        self.made += 1;
        let prepared = Prepared::new(operation, format!("op-{}", self.made), &EntityType::default()).unwrap();
        self.store.enqueue(&prepared, self.now).unwrap()
    }

    /// Creates an entity of its own.
    pub(super) fn create(&mut self, entity: &str) -> Receipt {
        self.enqueue(NewOperation::create("pin", entity, r#"{"title":"x"}"#))
    }

    /// Creates `count` entities and returns the first sequence.
    pub(super) fn create_many(&mut self, count: u64) -> u64 {
        let first = self.create("e0").sequence;
        (1..count).for_each(|n| drop(self.create(&format!("e{n}"))));
        first
    }

    pub(super) fn group(&mut self, operations: Vec<NewOperation>) -> Vec<Receipt> {
        let mut members = Vec::new();
        for operation in operations {
            self.made += 1;
            let prepared = Prepared::new(operation, format!("op-{}", self.made), &EntityType::default()).unwrap();
            members.push(self.store.group_member(prepared).unwrap());
        }
        self.store.commit_group(&format!("tx-{}", self.made), &members, self.now).unwrap()
    }

    pub(super) fn next(&mut self) -> Action {
        self.driver.next(&mut self.store, self.now, &self.random).unwrap()
    }

    /// The next request, which there must be.
    pub(super) fn send(&mut self) -> Sending {
        match self.next() {
            Action::Send { ticket, request, reason } => sending(ticket, &request, reason),
            wait => panic!("nothing to send: {wait:?}"),
        }
    }

    /// Until when the driver waits; it must have nothing to send.
    pub(super) fn wait(&mut self) -> Option<Timestamp> {
        match self.next() {
            Action::Wait { until } => until,
            send => panic!("something to send: {send:?}"),
        }
    }

    pub(super) fn answer(&mut self, sent: &Sending, outcome: Outcome) {
        self.driver.answered(&mut self.store, sent.ticket, outcome, self.now, &self.random).unwrap();
    }

    /// The endpoint answers.
    pub(super) fn take(&mut self, sent: &Sending, endpoint: &mut Endpoint) {
        let answer = endpoint.answer(sent);
        self.answer(sent, answer);
    }

    pub(super) fn advance(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
    }

    /// Sends and answers until nothing can start without time passing. Returns what was sent.
    pub(super) fn run(&mut self, mut endpoint: impl FnMut(&Sending) -> Outcome) -> Vec<Sending> {
        let (mut open, mut done) = (VecDeque::new(), Vec::new());
        for _ in 0..10_000 {
            match self.next() {
                Action::Send { ticket, request, reason } => open.push_back(sending(ticket, &request, reason)),
                Action::Wait { until } => match open.pop_front() {
                    Some(sent) => {
                        let outcome = endpoint(&sent);
                        self.answer(&sent, outcome);
                        done.push(sent);
                    }
                    None if until.is_some_and(|until| until <= self.now) => {}
                    None => return done,
                },
            }
        }
        panic!("it never comes to rest");
    }

    /// As [`Rig::run`], with an endpoint that answers everything.
    pub(super) fn run_with(&mut self, endpoint: &mut Endpoint) -> Vec<Sending> {
        self.run(|request| endpoint.answer(request))
    }

    /// As [`Rig::run`], over `millis` of time in which nothing else happens.
    pub(super) fn run_for(&mut self, millis: i64, mut endpoint: impl FnMut(&Sending) -> Outcome) -> Vec<Sending> {
        let end = self.now.plus_millis(millis);
        let mut done = Vec::new();
        loop {
            done.extend(self.run(&mut endpoint));
            match self.wait() {
                Some(until) if until <= end => self.now = until.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        done
    }

    pub(super) fn operation(&self, id: &str) -> Operation {
        Reader::open(&self.options).unwrap().operation(id).unwrap().unwrap()
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(&self.options).unwrap()
    }

    pub(super) fn status(&self, receipt: &Receipt) -> OperationStatus {
        self.operation(&receipt.id).status
    }

    /// How many operations are in each state, conservation included.
    pub(super) fn completed(&self) -> u64 {
        let metrics = self.reader().metrics(self.driver.state(self.now), self.now).unwrap();
        let sum = metrics.completed_total + metrics.cancelled_total + metrics.pending + metrics.in_progress;
        assert_eq!(metrics.enqueued_total, sum + metrics.failed + metrics.conflicted, "conservation");
        metrics.completed_total
    }
}

/// A device that has pulled and has nothing to do, and its endpoint.
pub(super) fn ready(max_in_flight: usize) -> (Endpoint, Rig) {
    let (mut endpoint, mut rig) = (Endpoint::default(), Rig::new(max_in_flight));
    rig.run_with(&mut endpoint);
    (endpoint, rig)
}

fn driver(max_in_flight: usize) -> Driver {
    Driver::new(DriverSettings { max_in_flight, pull_interval: Duration::from_secs(60) })
}

fn sending(ticket: u64, request: &Request, reason: CredentialReason) -> Sending {
    Sending { ticket, route: request.route, reason, body: serde_json::from_slice(&request.body).unwrap() }
}

/// An endpoint that applies everything once.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) epoch: &'static str,
    pub(super) mark: u64,
    pub(super) version: u64,
    /// The stored verdict under each key.
    pub(super) verdicts: BTreeMap<String, &'static str>,
    /// What was applied, as (entity, sequence), in order.
    pub(super) applied: Vec<(String, u64)>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { epoch: "e1", mark: 0, version: 0, verdicts: BTreeMap::new(), applied: Vec::new() }
    }
}

impl Endpoint {
    pub(super) fn answer(&mut self, sent: &Sending) -> Outcome {
        match sent.route {
            Route::Push => self.push(sent),
            Route::Pull => ours(200, &self.page(false)),
        }
    }

    pub(super) fn page(&self, has_more: bool) -> Value {
        json!({"changes": [], "cursor": format!("c{}", self.version), "epoch": self.epoch, "has_more": has_more})
    }

    fn push(&mut self, sent: &Sending) -> Outcome {
        self.mark += 1;
        self.version += sent.operations().len() as u64;
        let entity = |operation: &Value| operation["entity_id"].as_str().unwrap().to_owned();
        let known = |operation: &&Value| {
            operation["void"] == true || self.verdicts.contains_key(operation["idempotency_key"].as_str().unwrap())
        };
        // Of one entity, all results are left out or none.
        let told: BTreeSet<String> = sent.operations().iter().filter(known).map(entity).collect();
        let judged: Vec<Value> = sent.operations().iter().map(|operation| self.judge(operation)).collect();
        let results: Vec<&Value> = sent
            .operations()
            .iter()
            .zip(&judged)
            .filter(|(operation, _)| told.contains(&entity(operation)))
            .map(|(_, result)| result)
            .collect();
        ours(
            200,
            &json!({"applied": judged.len() - results.len(), "results": results, "version": self.version,
                "cursor": format!("c{}", self.version), "epoch": self.epoch, "mark": self.mark,
                "server_time": "2027-01-01T00:00:00.000Z"}),
        )
    }

    fn judge(&mut self, operation: &Value) -> Value {
        let key = operation["idempotency_key"].as_str().unwrap().to_owned();
        let first = self.verdicts.get(&key).copied();
        let verdict = first.unwrap_or(if operation["void"] == true { "rejected" } else { "applied" });
        if first.is_none() {
            self.verdicts.insert(key, verdict);
            if verdict == "applied" {
                self.applied
                    .push((operation["entity_id"].as_str().unwrap().into(), operation["sequence"].as_u64().unwrap()));
            }
        }
        let status = if first.is_some() { "already_processed" } else { verdict };
        json!({"id": operation["id"], "status": status, "first": first, "version": self.version,
            "error": {"code": "voided", "message": "It was withdrawn."}})
    }
}

/// An answer of our endpoint.
pub(super) fn ours(status: u16, body: &Value) -> Outcome {
    Outcome::Answered(Response {
        status,
        protocol: Some("1".into()),
        retry_after: None,
        body: body.to_string().into_bytes(),
        dialect: Dialect::Syncline,
    })
}

/// A problem of our endpoint.
pub(super) fn problem(code: ProblemCode) -> Outcome {
    ours(code.status(), &serde_json::to_value(Problem::new(code)).unwrap())
}

/// Somebody else's answer.
pub(super) fn theirs(status: u16) -> Outcome {
    Outcome::Answered(Response {
        status,
        protocol: None,
        retry_after: None,
        body: b"<html>".to_vec(),
        dialect: Dialect::Syncline,
    })
}

/// PostgREST's error object, in the Supabase dialect.
pub(super) fn postgrest(status: u16, code: &str) -> Outcome {
    let body = json!({"code": code, "details": null, "hint": null, "message": "no"}).to_string().into_bytes();
    Outcome::Answered(Response { status, protocol: None, retry_after: None, body, dialect: Dialect::Supabase })
}

/// With a `Retry-After`.
pub(super) fn retry_after(outcome: Outcome, text: &str) -> Outcome {
    match outcome {
        Outcome::Answered(response) => Outcome::Answered(Response { retry_after: Some(text.into()), ..response }),
        other => other,
    }
}
