//! Decides the operations of one push, in memory: group by group, each all or none.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use syncline_protocol::{
    Conflict, Dot, FirstStatus, PushOperation, PushRequest, ResultError, Status, Timestamp, payload_hash, planted,
};

use super::judge::{Dispute, Intent, Judgement, judge};
use super::push::Settings;
use super::record::{ServerRecord, Write};
use super::types::result_error;
use super::{Failure, Random, new_id, validate};
use crate::store::{Entity, StoredOperation, Transaction};

/// A timestamp may be so far ahead of the server's clock, in milliseconds.
const MAX_AHEAD_MILLIS: i64 = 60_000;

/// An entity that the push touches, before it and by now.
pub(super) struct Touched {
    pub(super) entity_type: String,
    pub(super) entity_id: String,
    pub(super) before: Option<Entity>,
    pub(super) record: Option<ServerRecord>,
}

impl Touched {
    /// Whether payload, deletion, or any dot or timestamp differs from before the push.
    pub(super) fn is_changed(&self) -> bool {
        self.before.as_ref().map(|entity| &entity.record) != self.record.as_ref()
    }
}

/// What became of one operation.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) status: Status,
    /// `already_processed`: the stored verdict.
    pub(super) first: Option<FirstStatus>,
    /// The dot under which it was applied, if that is not the one it came with.
    pub(super) foreign: Option<Dot>,
    pub(super) error: Option<ResultError>,
    pub(super) conflict: Option<Conflict>,
    /// Whether the verdict is new, and therefore to be stored.
    pub(super) is_new: bool,
}

impl Outcome {
    fn new(status: Status) -> Self {
        Self { status, first: None, foreign: None, error: None, conflict: None, is_new: status.verdict().is_some() }
    }

    fn rejected(error: ResultError) -> Self {
        Self { error: Some(error), ..Self::new(Status::Rejected) }
    }

    /// Whether the operation has effect.
    pub(super) fn is_effective(&self) -> bool {
        self.status.verdict().or(self.first).is_some_and(FirstStatus::is_applied)
    }
}

/// A push in the making.
pub(super) struct Batch<'r> {
    request: &'r PushRequest,
    settings: Settings<'r>,
    now: Timestamp,
    /// The verdicts known before, with their ledger entries, by operation.
    known: Vec<Option<(StoredOperation, Option<Conflict>)>>,
    hashes: Vec<[u8; 32]>,
    /// Each operation's entity, as an index into `touched`.
    lane_of: Vec<usize>,
    pub(super) touched: Vec<Touched>,
    pub(super) outcomes: Vec<Outcome>,
    /// Lanes in which nothing more is looked at.
    blocked: BTreeSet<usize>,
    /// Operations without effect, by id.
    without_effect: BTreeSet<&'r str>,
}

impl<'r> Batch<'r> {
    /// Loads everything that the push may need.
    pub(super) fn load(
        transaction: &mut dyn Transaction,
        request: &'r PushRequest,
        settings: Settings<'r>,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let mut lanes = BTreeMap::new();
        let mut batch = Self {
            request,
            settings,
            now,
            known: Vec::new(),
            hashes: Vec::new(),
            lane_of: Vec::new(),
            touched: Vec::new(),
            outcomes: Vec::new(),
            blocked: BTreeSet::new(),
            without_effect: BTreeSet::new(),
        };
        for operation in &request.operations {
            let (entity_type, entity_id) = (&operation.entity_type, &operation.entity_id);
            let hashed = if planted!(HashWithoutEntity) { "" } else { entity_id };
            batch.hashes.push(payload_hash(operation.operation, entity_type, hashed, operation.payload.as_deref()));
            let known = transaction.operation(&operation.idempotency_key)?;
            let conflict_id = known.as_ref().and_then(|stored| stored.conflict_id.as_deref());
            let conflict = conflict_id.map(|id| transaction.conflict(id)).transpose()?.flatten();
            batch.known.push(known.map(|stored| (stored, conflict)));
            let lane = *lanes.entry((entity_type, entity_id)).or_insert(batch.touched.len());
            if lane == batch.touched.len() {
                let before = transaction.entity(entity_type, entity_id)?;
                let record = before.as_ref().map(|entity| entity.record.clone());
                let (entity_type, entity_id) = (entity_type.clone(), entity_id.clone());
                batch.touched.push(Touched { entity_type, entity_id, before, record });
            }
            batch.lane_of.push(lane);
        }
        Ok(batch)
    }

    /// Whether another copy of this device has written (spec §4, rule 2): judged for the whole push, before anything applies.
    pub(super) fn is_forked(&self, transaction: &mut dyn Transaction, forgotten_through: u64) -> Result<bool, Failure> {
        let device = &self.request.device_id;
        for (index, operation) in self.request.operations.iter().enumerate() {
            if operation.void || self.known[index].is_some() {
                continue;
            }
            let record = &self.touched[self.lane_of[index]].record;
            let written = record.as_ref().map_or(0, |record| record.clock().get(device));
            if operation.sequence <= forgotten_through
                || written > operation.base_clock.get(device)
                || (!planted!(TwinSequence) && transaction.applied(device, operation.sequence)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decides every operation.
    pub(super) fn decide(&mut self, random: &mut dyn Random) {
        for group in validate::groups(&self.request.operations) {
            let start = self.outcomes.len();
            let range = start..start + group.len();
            let outcomes = self.decide_group(range.clone(), random);
            for (index, outcome) in range.zip(outcomes) {
                self.note(index, &outcome);
                self.outcomes.push(outcome);
            }
        }
    }

    /// The entity of the operation at `index`.
    pub(super) fn touched_by(&self, index: usize) -> (usize, &Touched) {
        (self.lane_of[index], &self.touched[self.lane_of[index]])
    }

    /// The rows to store for the verdicts that are new.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = StoredOperation> {
        self.request.operations.iter().zip(&self.outcomes).enumerate().filter_map(|(index, (operation, outcome))| {
            let verdict = outcome.status.verdict().filter(|_| outcome.is_new)?;
            let is_lost = match verdict {
                FirstStatus::Rejected if operation.void => planted!(VoidNotStored),
                FirstStatus::Rejected if operation.transaction_id.is_some() => planted!(GroupRefusalNotStored),
                FirstStatus::Rejected => planted!(RejectionNotStored),
                FirstStatus::Merged => planted!(MergedNotStored),
                FirstStatus::Applied | FirstStatus::Conflict => false,
            };
            if is_lost {
                return None;
            }
            Some(StoredOperation {
                key: operation.idempotency_key.clone(),
                operation_id: operation.id.clone(),
                device_id: self.request.device_id.clone(),
                sequence: operation.sequence,
                kind: operation.operation,
                entity_type: operation.entity_type.clone(),
                entity_id: operation.entity_id.clone(),
                hash: self.hashes[index],
                verdict,
                error: outcome.error.clone(),
                conflict_id: outcome.conflict.as_ref().map(|conflict| conflict.id.clone()),
                decided_at: self.now,
            })
        })
    }

    /// Remembers what an outcome means for what follows.
    fn note(&mut self, index: usize, outcome: &Outcome) {
        if !outcome.is_effective() {
            self.without_effect.insert(&self.request.operations[index].id);
        }
        if !outcome.is_effective() || outcome.foreign.is_some() {
            self.blocked.insert(self.lane_of[index]);
        }
    }

    /// Decides the members of a transaction, or one operation: what is known is repeated, the rest is all or none.
    fn decide_group(&mut self, group: Range<usize>, random: &mut dyn Random) -> Vec<Outcome> {
        let repeated: Vec<Option<Outcome>> = group.clone().map(|index| self.repeat(index)).collect();
        let undecided: Vec<usize> =
            group.clone().zip(&repeated).filter(|(_, outcome)| outcome.is_none()).map(|(index, _)| index).collect();
        let culprit = group.clone().zip(&repeated).find_map(|(index, outcome)| match outcome {
            Some(outcome) if !outcome.is_effective() => Some(index),
            _ => None,
        });
        for (index, outcome) in group.clone().zip(&repeated) {
            if let Some(outcome) = outcome {
                self.note(index, outcome);
            }
        }
        let mut decided = if self.request.operations[group.start].void {
            let error = result_error("voided", "the operation was withdrawn before it arrived".into(), None);
            undecided.iter().map(|_| Outcome::rejected(error.clone())).collect()
        } else if let Some(culprit) = culprit {
            self.failed_with(&undecided, culprit, None)
        } else if undecided.iter().any(|index| self.must_wait(*index)) {
            undecided.iter().map(|_| Outcome::new(Status::Deferred)).collect()
        } else {
            self.apply(&undecided, random)
        }
        .into_iter();
        repeated.into_iter().filter_map(|outcome| outcome.or_else(|| decided.next())).collect()
    }

    /// The outcome of an operation whose key is known (spec §4, rule 1).
    fn repeat(&self, index: usize) -> Option<Outcome> {
        let (stored, conflict) = self.known[index].as_ref()?;
        if stored.hash != self.hashes[index] && !planted!(HashNotCompared) {
            let message = "the idempotency key was used for another operation".into();
            let error = result_error("idempotency_key_reused", message, None);
            return Some(Outcome { is_new: false, ..Outcome::rejected(error) });
        }
        let dot = Dot::new(stored.device_id.clone(), stored.sequence);
        let own = Dot::new(self.request.device_id.clone(), self.request.operations[index].sequence);
        Some(Outcome {
            first: Some(stored.verdict),
            foreign: (stored.verdict.is_applied() && dot != own && !planted!(OwnDotForForeign)).then_some(dot),
            error: stored.error.clone(),
            conflict: conflict.clone(),
            ..Outcome::new(Status::AlreadyProcessed)
        })
    }

    fn must_wait(&self, index: usize) -> bool {
        (self.blocked.contains(&self.lane_of[index]) && !planted!(BlockedLaneGoesOn))
            || self.request.operations[index].depends_on.iter().any(|id| self.without_effect.contains(id.as_str()))
    }

    /// Judges the members in order. If one fails, all that the others did is undone.
    fn apply(&mut self, members: &[usize], random: &mut dyn Random) -> Vec<Outcome> {
        let saved: Vec<_> = members
            .iter()
            .map(|index| (self.lane_of[*index], self.touched[self.lane_of[*index]].record.clone()))
            .collect();
        let mut outcomes = Vec::with_capacity(members.len());
        for &index in members {
            let outcome = self.apply_one(index, random);
            if !outcome.is_effective() {
                for (lane, record) in saved.into_iter().filter(|_| !planted!(KeepsHalf)) {
                    self.touched[lane].record = record;
                }
                return self.failed_with(members, index, Some(outcome));
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Every member fails because of `culprit`, which itself has `outcome`.
    fn failed_with(&self, members: &[usize], culprit: usize, outcome: Option<Outcome>) -> Vec<Outcome> {
        let error = ResultError {
            culprit: Some(self.request.operations[culprit].id.clone()),
            ..result_error("transaction_failed", "another operation of the transaction failed".into(), None)
        };
        let of = |index: &usize| match &outcome {
            Some(outcome) if *index == culprit => outcome.clone(),
            _ => Outcome::rejected(error.clone()),
        };
        members.iter().map(of).collect()
    }

    fn apply_one(&mut self, index: usize, random: &mut dyn Random) -> Outcome {
        let operation = &self.request.operations[index];
        let patch = match validate::patch(operation, self.settings.limits) {
            Ok(patch) => patch,
            Err(error) => return Outcome::rejected(error),
        };
        let base = validate::base_clock(operation);
        let clamped = operation.timestamp.min(self.now.plus_millis(MAX_AHEAD_MILLIS));
        let at = if planted!(NoClamp) { operation.timestamp } else { clamped };
        let dot = Dot::new(self.request.device_id.clone(), operation.sequence);
        let write = Write { dot, at };
        let before = validate::before(operation);
        let intent = Intent { kind: operation.operation, patch: &patch, before, base: &base, write };
        let rules = self.settings.types.rules(&operation.entity_type, (operation.conflict_rule, operation.delete_rule));
        let current = &self.touched[self.lane_of[index]].record;
        match judge(current.as_ref(), &intent, rules) {
            Judgement::NotFound => Outcome::rejected(result_error("not_found", "there is no such entity".into(), None)),
            Judgement::Gone => Outcome::rejected(result_error("gone", "the entity was deleted".into(), None)),
            Judgement::Conflict(dispute) => Outcome {
                conflict: Some(self.ledger_entry(operation, &intent, current.as_ref(), dispute, random)),
                ..Outcome::new(Status::Conflict)
            },
            Judgement::Accepted { record, merged, dispute } => {
                let payload = record.as_ref().filter(|_| record != *current).and_then(ServerRecord::visible);
                if let Some(Err(error)) =
                    payload.map(|payload| self.settings.types.check(&operation.entity_type, payload))
                {
                    return Outcome::rejected(error);
                }
                let entry = |dispute| self.ledger_entry(operation, &intent, current.as_ref(), dispute, random);
                let conflict = dispute.map(entry);
                self.touched[self.lane_of[index]].record = record;
                Outcome { conflict, ..Outcome::new(if merged { Status::Merged } else { Status::Applied }) }
            }
        }
    }

    fn ledger_entry(
        &self,
        operation: &PushOperation,
        intent: &Intent<'_>,
        theirs: Option<&ServerRecord>,
        dispute: Dispute,
        random: &mut dyn Random,
    ) -> Conflict {
        let mut our_clock = intent.base.clone();
        our_clock.add(&intent.write.dot);
        Conflict {
            id: new_id(self.now, random),
            rule: dispute.rule.to_owned(),
            result: dispute.result,
            entity_type: operation.entity_type.clone(),
            entity_id: operation.entity_id.clone(),
            operation_id: operation.id.clone(),
            operation: operation.operation,
            device_id: self.request.device_id.clone(),
            user_id: self.request.user_id.clone(),
            our_clock,
            their_clock: theirs.map(ServerRecord::clock).unwrap_or_default(),
            their_deleted: dispute.their_deleted,
            decided_at: self.now,
            fields: dispute.fields,
        }
    }
}
