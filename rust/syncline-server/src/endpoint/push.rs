use std::collections::BTreeMap;

use syncline_protocol::{
    MAX_RECORDS_BYTES, OperationResult, Problem, ProblemCode, PushRequest, PushResponse, Record, Status, Timestamp,
    planted,
};

use super::cursor::Cursor;
use super::decide::{Batch, Outcome, Touched};
use super::history::{Seen, open_scope};
use super::record::text_len;
use super::types::Types;
use super::{EndpointLimits, Failure, Random};
use crate::store::{DeviceRow, Entity, ScopeRow, Storage, Transaction};

/// What the operator has set.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) types: &'a Types,
    pub(super) limits: &'a EndpointLimits,
}

/// Decides a push and writes it, in one database transaction (spec §6).
pub(super) fn push(
    store: &mut dyn Storage,
    request: &PushRequest,
    settings: Settings<'_>,
    now: Timestamp,
    random: &mut dyn Random,
) -> Result<PushResponse, Failure> {
    let mut transaction = store.transaction(&request.scope)?;
    let stored = transaction.device(&request.device_id)?;
    if stored.as_ref().is_some_and(|device| device.user_id != request.user_id) {
        return Err(Problem::new(ProblemCode::WrongDevice).into());
    }
    let new = || DeviceRow { user_id: request.user_id.clone(), mark: 0, forgotten_through: 0 };
    let mut device = stored.unwrap_or_else(new);
    let cursor = request.cursor.as_deref().and_then(Cursor::decode);
    let epoch = request.epoch.as_deref();
    let seen = Seen { epoch, mark: request.mark, cursor: cursor.as_ref(), may_be_new: false };
    let (row, mut transaction) = open_scope(transaction, &request.scope, device.mark, &seen, now, random)?;

    let mut batch = Batch::load(&mut *transaction, request, settings, now)?;
    if batch.is_forked(&mut *transaction, device.forgotten_through)? {
        return Err(Problem::new(ProblemCode::DeviceForked).into());
    }
    batch.decide(random);
    let cursor = cursor.filter(|cursor| cursor.is_of(&request.scope, &row));
    let mark = if request.dry_run {
        None
    } else {
        device.mark += u64::from(!(planted!(EmptyPushUncounted) && request.operations.is_empty()));
        device.forgotten_through = device.forgotten_through.max(request.forgotten_through);
        transaction.put_device(&request.device_id, &device)?;
        write(&mut *transaction, &batch, &row, now)?;
        transaction.commit()?;
        Some(device.mark)
    };
    Ok(Answering { request, batch: &batch, row: &row, cursor, mark }.answer(now, settings.limits))
}

/// The version of each changed entity after the push, by its index in `touched`: dense, in order of first touch.
fn new_versions(batch: &Batch<'_>, head: u64) -> BTreeMap<usize, u64> {
    let changed = batch.touched.iter().enumerate().filter(|(_, touched)| touched.is_changed());
    changed.map(|(lane, _)| lane).zip(head + 1..).collect()
}

/// Writes what the push changed and decided.
fn write(transaction: &mut dyn Transaction, batch: &Batch<'_>, row: &ScopeRow, now: Timestamp) -> Result<(), Failure> {
    let versions = new_versions(batch, row.head);
    for (lane, version) in &versions {
        let touched = &batch.touched[*lane];
        let record = touched.record.clone().expect("no rule turns a record into none");
        let (entity_type, entity_id) = (touched.entity_type.clone(), touched.entity_id.clone());
        transaction.put_entity(&Entity { entity_type, entity_id, version: *version, stored_at: now, record })?;
    }
    for conflict in
        batch.outcomes.iter().filter(|outcome| outcome.is_new).filter_map(|outcome| outcome.conflict.as_ref())
    {
        if !planted!(NoLedgerRow) {
            transaction.put_conflict(conflict)?;
        }
    }
    for verdict in batch.verdicts() {
        transaction.put_operation(&verdict)?;
    }
    if !versions.is_empty() {
        let raised = if planted!(VersionPerOperation) { batch.outcomes.len() } else { versions.len() };
        transaction.put_scope(&ScopeRow { head: row.head + raised as u64, ..row.clone() })?;
    }
    Ok(())
}

/// A decided push, to be answered.
struct Answering<'a> {
    request: &'a PushRequest,
    batch: &'a Batch<'a>,
    /// The scope before the push.
    row: &'a ScopeRow,
    /// The device's cursor, if it counts here.
    cursor: Option<Cursor>,
    /// None for a dry run: after it, everything is as it was.
    mark: Option<u64>,
}

impl Answering<'_> {
    fn answer(self, now: Timestamp, limits: &EndpointLimits) -> PushResponse {
        let versions = if self.mark.is_some() { new_versions(self.batch, self.row.head) } else { BTreeMap::new() };
        let head = self.row.head + versions.len() as u64;
        let left_out = self.left_out();
        let mut results = Vec::new();
        let mut applied = 0;
        let mut room = Room { left: MAX_RECORDS_BYTES, is_short: false };
        for (index, outcome) in self.batch.outcomes.iter().enumerate() {
            let (lane, touched) = self.batch.touched_by(index);
            if left_out[lane] {
                applied += 1;
            } else {
                results.push(self.result(index, outcome, touched, versions.get(&lane).copied(), &mut room));
            }
        }
        let at_head = |cursor: &Cursor| self.mark.is_some() && !room.is_short && cursor.version == self.row.head;
        let after = ScopeRow { head, ..self.row.clone() };
        let cursor = self.cursor.filter(at_head);
        PushResponse {
            applied,
            results,
            version: head,
            cursor: cursor.map(|cursor| Cursor::at(&cursor.scope, &after, head, cursor.entity_types.clone()).encode()),
            epoch: after.epoch,
            mark: self.mark,
            server_time: now,
            limits: limits.wire(),
        }
    }

    /// Per entity, whether the device can compute the record, so that its results need not be told.
    fn left_out(&self) -> Vec<bool> {
        let computable = |touched: &Touched| match (&touched.before, &self.cursor) {
            (None, _) => true,
            (Some(before), Some(cursor)) => {
                (before.version <= cursor.version || planted!(LeftOutBeyondCursor))
                    && cursor.includes(&before.entity_type)
            }
            (Some(_), None) => false,
        };
        let mut left_out: Vec<bool> = self.batch.touched.iter().map(computable).collect();
        for (index, outcome) in self.batch.outcomes.iter().enumerate() {
            if outcome.status != Status::Applied {
                left_out[self.batch.touched_by(index).0] = false;
            }
        }
        left_out
    }

    fn result(
        &self,
        index: usize,
        outcome: &Outcome,
        touched: &Touched,
        new_version: Option<u64>,
        room: &mut Room,
    ) -> OperationResult {
        let before = touched.before.as_ref();
        let record = if self.mark.is_some() { touched.record.as_ref() } else { before.map(|entity| &entity.record) };
        OperationResult {
            id: self.request.operations[index].id.clone(),
            status: outcome.status,
            first: outcome.first,
            device_id: outcome.foreign.as_ref().map(|dot| dot.device_id.clone()),
            sequence: outcome.foreign.as_ref().map(|dot| dot.sequence),
            version: new_version.or(before.map(|entity| entity.version)).unwrap_or(0),
            clock: record.map(|record| record.clock()).unwrap_or_default(),
            deleted: record.is_none_or(|record| record.deleted.is_some()),
            record: record.and_then(|record| record.visible()).filter(|record| room.takes(record)).cloned(),
            conflict: outcome.conflict.clone(),
            error: outcome.error.clone(),
        }
    }
}

/// How many bytes of records an answer still takes; the pull brings what does not fit.
struct Room {
    left: usize,
    is_short: bool,
}

impl Room {
    fn takes(&mut self, record: &Record) -> bool {
        let bytes = text_len(record);
        self.is_short |= bytes > self.left;
        let fits = bytes <= self.left;
        self.left -= if fits { bytes } else { 0 };
        fits
    }
}
