//! Deciding the operations of a push (spec §4 rules 1 and 2, §5, §6): what it would do, on copies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Value, json};
use syncline_protocol::{OperationKind, Timestamp};

use super::request::{Operation, Push, group_at};
use super::rules::{Dispute, Intent, Ruling, rule_on};
use super::state::{Content, Fault, Lane, Record, Scope, Write};
use super::types::{Limits, Types};
use super::used::Used;
use super::values::fault_in;

/// What became of one operation.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) status: &'static str,
    pub(crate) first: Option<&'static str>,
    /// The dot under which it was applied, if that is another.
    pub(crate) foreign: Option<(String, u64)>,
    pub(crate) fault: Option<Fault>,
    /// As on the wire; a new one has no id yet.
    pub(crate) conflict: Option<Value>,
    /// Whether the verdict is to be stored.
    pub(crate) is_new: bool,
}

impl Outcome {
    fn new(status: &'static str) -> Self {
        Self { status, first: None, foreign: None, fault: None, conflict: None, is_new: true }
    }

    fn rejected(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::new("rejected") }
    }

    /// Whether the operation has effect, now or since long.
    pub(crate) fn has_effect(&self) -> bool {
        matches!(self.first.unwrap_or(self.status), "applied" | "merged")
    }
}

/// What a push would do.
pub(crate) struct Decided {
    /// By place in the push.
    pub(crate) outcomes: Vec<Outcome>,
    /// Each entity touched, in order of first touch, as it would be.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) records: BTreeMap<Lane, Option<Record>>,
    pub(crate) used: Used,
}

pub(crate) struct Batch<'a> {
    push: &'a Push,
    scope: &'a Scope,
    types: &'a Types,
    limits: &'a Limits,
    now: Timestamp,
    records: BTreeMap<Lane, Option<Record>>,
    outcomes: BTreeMap<usize, Outcome>,
    /// Lanes and operations that others may wait for in vain.
    stopped: BTreeSet<Lane>,
    without_effect: BTreeSet<&'a str>,
    /// Among the stopped lanes, those whose operation was applied under another dot.
    foreign: BTreeSet<Lane>,
    used: Used,
}

/// §4 rule 2: "n ≤ `forgotten_through`, (A, n) applied under another key, or S[A] > B[A]: another copy of A has written", for
/// a key that is not known and an operation that is not void: "nothing of it is applied". Gives the first reason.
pub(crate) fn fork(push: &Push, scope: &Scope) -> Option<&'static str> {
    let device = &push.head.device_id;
    let forgotten = scope.devices.get(device).map_or(0, |device| device.forgotten_through);
    let own = scope.verdicts.values().filter(|stored| stored.has_effect() && stored.device == *device);
    let applied: BTreeSet<u64> = own.map(|stored| stored.sequence).collect();
    push.operations.iter().filter(|it| !it.void && !scope.verdicts.contains_key(&it.idempotency_key)).find_map(|it| {
        let entity = scope.entities.get(&it.lane());
        let written = entity.and_then(|entity| entity.record.clock().get(device).copied()).unwrap_or(0);
        let seen = it.base().get(device).copied().unwrap_or(0);
        if it.sequence <= forgotten {
            Some("2: a sequence that was forgotten")
        } else if applied.contains(&it.sequence) {
            Some("2: a dot applied under another key")
        } else {
            (written > seen).then_some("2: a dot of its own that it has not seen")
        }
    })
}

impl<'a> Batch<'a> {
    pub(crate) fn new(push: &'a Push, scope: &'a Scope, types: &'a Types, limits: &'a Limits, now: Timestamp) -> Self {
        let (outcomes, stopped, without_effect) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let record = |lane: &Lane| scope.entities.get(lane).map(|entity| entity.record.clone());
        let records = push.operations.iter().map(Operation::lane).map(|lane| (lane.clone(), record(&lane))).collect();
        let (foreign, used) = (BTreeSet::new(), Used::default());
        Self { push, scope, types, limits, now, records, outcomes, stopped, without_effect, foreign, used }
    }

    pub(crate) fn decide(mut self) -> Decided {
        let mut at = 0;
        while at < self.push.operations.len() {
            let end = at + group_at(&self.push.operations, at).len();
            self.decide_group(at..end);
            at = end;
        }
        let mut lanes = Vec::new();
        for lane in self.push.operations.iter().map(Operation::lane) {
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        Decided { outcomes: self.outcomes.into_values().collect(), lanes, records: self.records, used: self.used }
    }

    fn settle(&mut self, at: usize, outcome: Outcome) {
        let operation = &self.push.operations[at];
        // Rule 1: applied under another dot, "what follows in the lane in this batch is `deferred`".
        if !outcome.has_effect() || outcome.foreign.is_some() {
            self.stopped.insert(operation.lane());
        }
        if outcome.foreign.is_some() {
            self.foreign.insert(operation.lane());
        }
        if outcome.first.is_some() {
            self.used.note(match outcome.foreign {
                None => "1: a known key, its verdict repeated",
                Some(_) => "1: a known key, applied under another dot",
            });
        }
        if !outcome.has_effect() {
            self.without_effect.insert(&operation.id);
        }
        self.outcomes.insert(at, outcome);
    }

    /// §5: "on the server all or none". What was decided before is repeated.
    fn decide_group(&mut self, group: Range<usize>) {
        let (mut undecided, mut culprit) = (Vec::new(), None);
        for at in group {
            match self.known(at) {
                None => undecided.push(at),
                Some(outcome) => {
                    culprit = culprit.or((!outcome.has_effect()).then_some(at));
                    self.settle(at, outcome);
                }
            }
        }
        let Some(&first) = undecided.first() else { return };
        if self.push.operations[first].void {
            // §6: "stores an unknown key as `rejected` (`voided`) and applies nothing".
            undecided.into_iter().for_each(|at| self.settle(at, Outcome::rejected(Fault::new("voided"))));
        } else if let Some(culprit) = culprit {
            self.fail(&undecided, culprit, None);
        } else if undecided.iter().any(|at| self.must_wait(*at)) {
            // §5: "if one member is `deferred` or `retry`, all are, and nothing is stored".
            if undecided.iter().any(|at| self.foreign.contains(&self.push.operations[*at].lane())) {
                self.used.note("1: what follows that is deferred");
            }
            let deferred = Outcome { is_new: false, ..Outcome::new("deferred") };
            undecided.into_iter().for_each(|at| self.settle(at, deferred.clone()));
        } else {
            self.apply_all(&undecided);
        }
    }

    fn apply_all(&mut self, members: &[usize]) {
        let lanes = members.iter().map(|at| self.push.operations[*at].lane());
        let saved: Vec<_> = lanes.map(|lane| (lane.clone(), self.records[&lane].clone())).collect();
        let mut outcomes = Vec::new();
        for &at in members {
            let outcome = self.apply(at);
            if !outcome.has_effect() {
                self.records.extend(saved);
                return self.fail(members, at, Some(outcome));
            }
            outcomes.push(outcome);
        }
        members.iter().zip(outcomes).for_each(|(at, outcome)| self.settle(*at, outcome));
    }

    /// §5: "the culprit is answered under its own code or with its `conflict`, every other member not yet decided as
    /// `rejected` with `transaction_failed` and `error.culprit` (the operation's id)".
    fn fail(&mut self, members: &[usize], culprit: usize, mut own: Option<Outcome>) {
        let name = Some(self.push.operations[culprit].id.clone());
        let failed = Outcome::rejected(Fault { culprit: name, ..Fault::new("transaction_failed") });
        for &at in members {
            let own = if at == culprit { own.take() } else { None };
            self.settle(at, own.unwrap_or_else(|| failed.clone()));
        }
    }

    /// §4 rule 1; §6: "same key, other payload (of a `void` too) → `rejected` with `idempotency_key_reused` … not stored".
    fn known(&self, at: usize) -> Option<Outcome> {
        let operation = &self.push.operations[at];
        let stored = self.scope.verdicts.get(&operation.idempotency_key)?;
        if stored.content != content(operation) {
            let reused = Outcome::rejected(Fault::new("idempotency_key_reused"));
            return Some(Outcome { is_new: false, ..reused });
        }
        let is_own = stored.device == self.push.head.device_id && stored.sequence == operation.sequence;
        Some(Outcome {
            status: "already_processed",
            first: Some(stored.verdict),
            foreign: (stored.has_effect() && !is_own).then(|| (stored.device.clone(), stored.sequence)),
            fault: stored.fault.clone(),
            conflict: stored.conflict.as_ref().map(|id| self.scope.ledger[id].clone()),
            is_new: false,
        })
    }

    /// §6: "an earlier one of its lane or a dependency in this batch was not applied".
    fn must_wait(&self, at: usize) -> bool {
        let operation = &self.push.operations[at];
        let dependencies = &operation.depends_on;
        self.stopped.contains(&operation.lane())
            || dependencies.iter().any(|id| self.without_effect.contains(id.as_str()))
    }

    fn apply(&mut self, at: usize) -> Outcome {
        let push = self.push;
        let operation = &push.operations[at];
        let patch = match patch_of(operation, self.limits) {
            Ok(patch) => patch,
            Err(fault) => return Outcome::rejected(fault),
        };
        // §4: "the server clamps it on arrival to its own time + 60 s".
        let at_most = self.now.millis() + 60_000;
        let millis = operation.timestamp.millis().min(at_most);
        let write = Write { device: self.push.head.device_id.clone(), sequence: operation.sequence, at: millis };
        let (base, before, lane) = (operation.base(), before_of(operation), operation.lane());
        let kind = operation.operation;
        let intent = Intent { operation: kind, patch: &patch, before: before.as_ref(), base: &base, write: &write };
        let current = self.records[&lane].clone();
        match rule_on(current.as_ref(), &intent, self.types.rules(operation), &mut self.used) {
            Ruling::Rejected(code) => Outcome::rejected(Fault::new(code)),
            Ruling::Conflict(dispute) => {
                let conflict = self.ledger_row(operation, &intent, current.as_ref(), dispute, "conflict");
                Outcome { conflict: Some(conflict), ..Outcome::new("conflict") }
            }
            Ruling::Takes(status, next, dispute) => {
                let is_changed = match (&current, &next) {
                    (Some(current), Some(next)) => next.differs_from(current),
                    (current, next) => current.is_some() != next.is_some(),
                };
                let result = next.as_ref().filter(|_| is_changed).and_then(Record::visible);
                if let Some(fault) = result.and_then(|record| self.types.fault(&lane.0, &record)) {
                    return Outcome::rejected(fault);
                }
                let conflict =
                    dispute.map(|dispute| self.ledger_row(operation, &intent, current.as_ref(), dispute, "merged"));
                self.records.insert(lane, next);
                Outcome { conflict, ..Outcome::new(status) }
            }
        }
    }

    /// §4 rule 7: "id, rule, result, both clocks, who, when, and per field …", but for the id.
    fn ledger_row(
        &mut self,
        operation: &Operation,
        intent: &Intent<'_>,
        theirs: Option<&Record>,
        dispute: Dispute,
        result: &str,
    ) -> Value {
        let is_told = dispute.fields.values().any(|field| !field["base"].is_null());
        self.used.note(if is_told { "7: a row with base" } else { "7: a row without base" });
        // docs/protocol.md: "the operation's (its own dot included) and the record's, when they met".
        let mut ours = intent.base.clone();
        let own = ours.entry(self.push.head.device_id.clone()).or_default();
        *own = operation.sequence.max(*own);
        let (entity_type, entity_id) = operation.lane();
        json!({
            "rule": dispute.rule, "result": result, "fields": dispute.fields, "our_clock": ours,
            "their_clock": theirs.map(Record::clock), "their_deleted": theirs.is_some_and(|it| it.deleted.is_some()),
            "operation_id": operation.id, "operation": operation.operation, "entity_type": entity_type,
            "entity_id": entity_id, "device_id": self.push.head.device_id, "user_id": self.push.head.user_id,
            "decided_at": self.now,
        })
    }
}

/// What the hash of §6 is over.
pub(crate) fn content(operation: &Operation) -> Content {
    let payload = operation.payload.as_ref().map_or("null", |text| text.get()).to_owned();
    Content { operation: operation.operation, lane: operation.lane(), payload }
}

/// What the operation writes; a delete nothing. §6: "refused … with the field named".
fn patch_of(operation: &Operation, limits: &Limits) -> Result<BTreeMap<String, Value>, Fault> {
    if operation.operation == OperationKind::Delete {
        return Ok(BTreeMap::new());
    }
    let root = |code| Fault::of_field(code, "$");
    let text = operation.payload.as_ref().ok_or_else(|| root("invalid_value"))?.get();
    if text.len() as u64 > limits.max_payload_bytes {
        return Err(root("payload_too_large"));
    }
    let unreadable = Fault { learns_field: true, ..Fault::new("invalid_value") };
    let value: Value = serde_json::from_str(text).map_err(|_| unreadable)?;
    // The fault deepest inside is told first, also of what is no object at all.
    if let Some(path) = fault_in(&value, "$", 1) {
        return Err(Fault::of_field("invalid_value", path));
    }
    let Value::Object(members) = value else { return Err(root("invalid_value")) };
    Ok(members.into_iter().collect())
}

/// `before`, if it could be a payload; what could not be one costs the ledger its `base` and nothing else.
fn before_of(operation: &Operation) -> Option<BTreeMap<String, Value>> {
    let text = serde_json::to_string(operation.before.as_ref()?).ok()?;
    let value: Value = serde_json::from_str(&text).ok().filter(|value| fault_in(value, "$", 1).is_none())?;
    value.as_object().map(|members| members.clone().into_iter().collect())
}
