//! What an answer does to the queue and the replica. Everything in it is settled in one transaction, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use rusqlite::params;
use syncline_protocol::{
    Clock, Conflict, Dot, FirstStatus, MAX_COUNTER, OperationResult, PushResponse, Record, ResultError, Status,
    Timestamp, planted,
};

use super::claim::SentOperation;
use super::entity::{EntityRow, Step, fold};
use super::give_back::short;
use super::row::{QueueRow, parse_record};
use super::transition::Why;
use super::{Device, Store};
use crate::environment::Random;
use crate::error::Result;
use crate::operation::OperationStatus;

/// An answer to a push, and what it answers.
pub(crate) struct PushAnswer<'a> {
    /// The lease under which the operations were sent.
    pub term: u64,
    pub sent: &'a [SentOperation],
    /// The cursor that the push carried.
    pub sent_cursor: Option<&'a str>,
    pub response: &'a PushResponse,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// All of it is settled. `more_to_pull`: the scope's head is beyond what the replica has.
    Done { counts: SettledCounts, more_to_pull: bool },
    /// It does not fit what was sent: nothing was written.
    Mismatch(&'static str),
}

/// How many operations of an answer ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SettledCounts {
    pub completed: u64,
    pub merged: u64,
    pub conflicted: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub put_off: u64,
}

impl AddAssign for SettledCounts {
    fn add_assign(&mut self, more: Self) {
        let Self { completed, merged, conflicted, failed, cancelled, put_off } = more;
        self.completed += completed;
        self.merged += merged;
        self.conflicted += conflicted;
        self.failed += failed;
        self.cancelled += cancelled;
        self.put_off += put_off;
    }
}

/// A decided operation, in the words of the queue.
enum Decision {
    Completed(Completion),
    Conflicted,
    Rejected(ResultError),
    Deferred,
    Retry(ResultError),
}

/// How an operation was applied.
struct Completion {
    verdict: &'static str,
    version: u64,
    dot: Dot,
    /// With this very answer the base has it, so that nothing has to fold it any more.
    in_base: bool,
}

impl Store {
    /// Settles an answer whose epoch and mark have been checked.
    pub(crate) fn settle(&mut self, answer: &PushAnswer<'_>, now: Timestamp, random: &dyn Random) -> Result<Settled> {
        let results = match match_results(answer) {
            Ok(results) => results,
            Err(why) => return Ok(Settled::Mismatch(why)),
        };
        let mut rows = Vec::with_capacity(answer.sent.len());
        for sent in answer.sent {
            match QueueRow::find(&self.conn, sent.sequence)? {
                Some(row)
                    if row.status == OperationStatus::InProgress
                        && (row.term == Some(answer.term) || planted!(ForgetTerm)) =>
                {
                    rows.push(row)
                }
                _ => return Ok(Settled::Mismatch("it answers an older lease")),
            }
        }
        if let Err(why) = check_left_out(answer.sent, &rows, &results) {
            return Ok(Settled::Mismatch(why));
        }
        self.write(|store| store.settle_rows(answer, &rows, &results, now, random))
    }

    fn settle_rows(
        &mut self,
        answer: &PushAnswer<'_>,
        rows: &[QueueRow],
        results: &[Option<&OperationResult>],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Settled> {
        let device = self.device()?;
        let response = answer.response;
        let mut counts = SettledCounts::default();
        let mut broken = BTreeSet::new();
        let mut cancelled = Vec::new();
        let mut applied: BTreeMap<i64, Clock> = BTreeMap::new();
        let mut lanes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate() {
            lanes.entry(row.entity).or_default().push(index);
        }
        for (row, result) in rows.iter().zip(results) {
            if let Some(conflict) = result.and_then(|result| result.conflict.as_ref()) {
                self.record_conflict(row, conflict, now)?;
            }
            let decision = decide(row, *result, response.version, &device);
            if let Decision::Completed(completion) = &decision {
                applied.entry(row.entity).or_default().add(&completion.dot);
            }
            let settled = self.settle_row(row, decision, now, random)?;
            if settled.failed > 0 {
                broken.extend(row.transaction_id.clone());
            }
            if settled.cancelled > 0 {
                cancelled.push(row);
            }
            counts += settled;
        }
        counts.failed += self.fail_rest(broken, now)?;
        // Only now: a dependent that was under way with it has its own result by now, and may be waiting again.
        for row in cancelled {
            self.after_cancel(row, now)?;
        }
        if planted!(AckOutsideTransaction) {
            self.run("COMMIT").and_then(|()| self.run("BEGIN IMMEDIATE"))?;
        }
        for (entity, members) in lanes {
            let mut entity = self.entity(entity)?;
            let left_out: Vec<&QueueRow> =
                members.iter().filter(|i| results[**i].is_none()).map(|i| &rows[*i]).collect();
            if !left_out.is_empty() {
                self.fold_left_out(&mut entity, &left_out, response.version, &device)?;
            }
            let told = members.iter().rev().find_map(|i| results[*i]);
            if let Some(result) = told.filter(|result| entity.is_news(result.version)) {
                let record = result.record.clone().filter(|_| !result.deleted);
                if result.deleted || record.is_some() {
                    self.replace_base(&mut entity, record, result.clock.clone(), result.version)?;
                }
            }
            if let Some(dots) = applied.get(&entity.entity) {
                entity.applied_clock.merge(dots);
            }
            self.close_reached(&entity, &device)?;
            self.refold(&mut entity)?;
        }
        self.take_standing(answer, &device, now)?;
        let cursor_version = self.device()?.cursor_version;
        self.advance_low_water()?;
        Ok(Settled::Done { counts, more_to_pull: response.version > cursor_version })
    }

    /// Moves one operation to where its decision puts it, and says where that is.
    fn settle_row(
        &mut self,
        row: &QueueRow,
        decision: Decision,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SettledCounts> {
        let mut counts = SettledCounts::default();
        match decision {
            Decision::Completed(completion) => {
                self.complete(row, &completion, now)?;
                counts.completed = 1;
                counts.merged = u64::from(completion.verdict == "merged");
            }
            Decision::Conflicted | Decision::Rejected(_) if row.void => {
                self.mark_decided(row)?;
                self.transition(row, OperationStatus::Cancelled, Why::code("user"), now)?;
                counts.cancelled = 1;
            }
            Decision::Conflicted if row.transaction_id.is_none() => {
                self.mark_decided(row)?;
                self.transition(row, OperationStatus::Conflicted, Why::code("conflict"), now)?;
                counts.conflicted = 1;
            }
            Decision::Conflicted => {
                let why = Why::told("conflict", "It conflicts with a change of somebody else.");
                self.fail(row, why, true, now)?;
                counts.failed = 1;
            }
            Decision::Rejected(error) => {
                let why = Why {
                    reason: Some(short(&error.code)),
                    message: Some(short(&error.message)),
                    field: error.field.as_deref().map(short),
                    culprit: error.culprit.as_deref().map(short),
                };
                self.fail(row, why, true, now)?;
                counts.failed = 1;
            }
            Decision::Deferred => {
                self.transition(row, OperationStatus::Pending, Why::code("deferred"), now)?;
                counts.put_off = 1;
            }
            Decision::Retry(error) if self.put_off(row, &error, now, random)? => counts.failed = 1,
            Decision::Retry(_) => counts.put_off = 1,
        }
        Ok(counts)
    }

    fn complete(&mut self, row: &QueueRow, completion: &Completion, now: Timestamp) -> Result<()> {
        let Completion { verdict, version, dot, in_base } = completion;
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET status = 'completed', term = NULL, decided = 1, void = 0, ended_at = ?2, verdict = ?3,
                        verdict_version = ?4, dot_device = ?5, dot_sequence = ?6, open = ?7
                 WHERE sequence = ?1 AND status = 'in_progress'",
            )?
            .execute(params![row.sequence, now.millis(), verdict, version, dot.device_id, dot.sequence, !in_base])?;
        self.note_transition(row, OperationStatus::Completed, None, now)?;
        self.note_outcome(row.entity, None, now)
    }

    /// The server left these out because they applied exactly as the device can compute (spec §3).
    fn fold_left_out(
        &mut self,
        entity: &mut EntityRow,
        rows: &[&QueueRow],
        version: u64,
        device: &Device,
    ) -> Result<()> {
        if device.reset || (entity.base_version >= version && !planted!(FoldLeftOutTwice)) {
            return Ok(());
        }
        let mut base = entity.base.take();
        for row in rows.iter().take(if planted!(FoldFirstLeftOut) { 1 } else { rows.len() }) {
            let payload: Option<String> = self
                .conn
                .prepare_cached("SELECT payload FROM sync_queue WHERE sequence = ?1")?
                .query_row([row.sequence], |found| found.get(0))?;
            let payload = payload.as_deref().map(parse_record).transpose()?;
            base = fold(base, &Step { kind: row.kind, payload: payload.as_ref() });
            entity.base_clock.add(&Dot::new(&device.device_id, row.sequence));
        }
        let clock = std::mem::take(&mut entity.base_clock);
        entity.take_base(base.map(Record::without_nulls), clock, version);
        Ok(())
    }

    /// Takes what has reached `base` out of the fold: completed operations whose verdict's version it has.
    pub(super) fn close_reached(&mut self, entity: &EntityRow, device: &Device) -> Result<()> {
        let reached = if !device.reset {
            entity.base_version.max(device.cursor_version)
        } else if entity.base_confirmed {
            entity.base_version
        } else {
            return Ok(());
        };
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET open = 0
                 WHERE entity = ?1 AND open = 1 AND status = 'completed' AND verdict_version <= ?2",
            )?
            .execute(params![entity.entity, reached])?;
        Ok(())
    }

    /// Closes whatever the pull's cursor has passed. Not during a reset (spec §3).
    pub(super) fn close_through(&mut self, cursor_version: u64) -> Result<()> {
        let entities: Vec<i64> = self
            .conn
            .prepare_cached(
                "SELECT DISTINCT entity FROM sync_queue WHERE status = 'completed' AND open = 1 AND verdict_version <= ?1",
            )?
            .query_map([cursor_version], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        if entities.is_empty() {
            return Ok(());
        }
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET open = 0 WHERE status = 'completed' AND open = 1 AND verdict_version <= ?1",
            )?
            .execute([cursor_version])?;
        self.refold_all(entities)
    }

    fn take_standing(&mut self, answer: &PushAnswer<'_>, device: &Device, now: Timestamp) -> Result<()> {
        let response = answer.response;
        if let Some(mark) = response.mark {
            self.conn.prepare_cached("UPDATE device SET mark = max(mark, ?1)")?.execute([mark])?;
        }
        self.note_synced(now);
        let unmoved = !device.reset && device.cursor.as_deref() == answer.sent_cursor;
        let still_there = unmoved || planted!(TakeAnyCursor);
        if let Some(cursor) = response.cursor.as_ref().filter(|_| still_there && answer.sent_cursor.is_some()) {
            self.conn
                .prepare_cached("UPDATE device SET cursor = ?1, cursor_version = max(cursor_version, ?2)")?
                .execute(params![cursor, response.version])?;
            self.close_through(response.version)?;
        }
        Ok(())
    }

    /// Writes the ledger row. A repeated verdict repeats its conflict; the row is the same one.
    fn record_conflict(&mut self, row: &QueueRow, conflict: &Conflict, now: Timestamp) -> Result<()> {
        let before: String = self
            .conn
            .prepare_cached("SELECT before FROM sync_queue WHERE sequence = ?1")?
            .query_row([row.sequence], |found| found.get(0))?;
        let before = parse_record(&before)?;
        let mut conflict = conflict.clone();
        for (name, field) in &mut conflict.fields {
            if field.base.is_none() {
                field.base = before.get(name).map(ToOwned::to_owned);
            }
        }
        let text = serde_json::to_string(&conflict).map_err(|_| super::failure::unreadable("a conflict"))?;
        let added = self
            .conn
            .prepare_cached(
                "INSERT OR IGNORE INTO conflicts (id, operation_id, sequence, entity_type, entity_id, conflict, detected_at)
                 SELECT ?1, ?2, ?3, entity_type, entity_id, ?4, ?5 FROM entities WHERE entity = ?6",
            )?
            .execute(params![conflict.id, row.id, row.sequence, text, now.millis(), row.entity])?;
        if added == 1 || planted!(ConflictCountedTwice) {
            self.note_conflict();
        }
        Ok(())
    }
}

/// Pairs each sent operation with its result; `None` for one that was left out. Refuses an answer that does not fit.
fn match_results<'a>(answer: &PushAnswer<'a>) -> std::result::Result<Vec<Option<&'a OperationResult>>, &'static str> {
    let response = answer.response;
    let adds_up = response.applied as u128 + response.results.len() as u128 == answer.sent.len() as u128;
    if !adds_up && !planted!(ForgedCount) {
        return Err("it does not account for every operation sent");
    }
    if response.version > MAX_COUNTER || response.mark.is_some_and(|mark| mark > MAX_COUNTER) {
        return Err("a counter is out of range");
    }
    let mut by_id: BTreeMap<&str, &OperationResult> = BTreeMap::new();
    for result in &response.results {
        if by_id.insert(&result.id, result).is_some() {
            return Err("it answers an operation twice");
        }
        if result.version > response.version || result.sequence.is_some_and(|sequence| sequence > MAX_COUNTER) {
            return Err("a result's counter is out of range");
        }
        if result.status == Status::AlreadyProcessed && result.first.is_none() {
            return Err("a repeated verdict does not say which");
        }
        let verdict = result.first.or(result.status.verdict());
        if verdict == Some(FirstStatus::Conflict) && result.conflict.is_none() {
            return Err("a conflict has no ledger entry");
        }
    }
    let results = answer.sent.iter().map(|sent| by_id.remove(sent.id.as_str())).collect();
    if by_id.is_empty() || planted!(UnknownVerdictSettles) {
        Ok(results)
    } else {
        Err("it answers an operation that was not sent")
    }
}

/// The results of an entity are left out all or none; what was sent as a withdrawal is never left out.
fn check_left_out(
    sent: &[SentOperation],
    rows: &[QueueRow],
    results: &[Option<&OperationResult>],
) -> std::result::Result<(), &'static str> {
    let mut told: BTreeMap<i64, bool> = BTreeMap::new();
    for ((sent, row), result) in sent.iter().zip(rows).zip(results) {
        if result.is_none() && sent.void {
            return Err("it leaves out a withdrawal");
        }
        if *told.entry(row.entity).or_insert(result.is_some()) != result.is_some() {
            return Err("it leaves out a part of an entity's results");
        }
    }
    Ok(())
}

/// `head`: the version at the top of the answer, which stands for what it left out.
fn decide(row: &QueueRow, result: Option<&OperationResult>, head: u64, device: &Device) -> Decision {
    let own = Dot::new(&device.device_id, row.sequence);
    let completed = |verdict, dot, in_base| {
        let version = result.map_or(head, |result| result.version);
        Decision::Completed(Completion { verdict, version, dot, in_base })
    };
    let Some(result) = result else { return completed("applied", own, !device.reset) };
    let error = || {
        result.error.clone().unwrap_or_else(|| ResultError {
            code: "unspecified".into(),
            message: "The endpoint gave no reason.".into(),
            field: None,
            culprit: None,
            retry_after_ms: None,
        })
    };
    let verdict = match result.status {
        Status::AlreadyProcessed => result.first,
        status => status.verdict(),
    };
    match verdict {
        Some(first @ (FirstStatus::Applied | FirstStatus::Merged)) => {
            let dot = match (&result.device_id, result.sequence) {
                (Some(device_id), Some(sequence)) => Dot::new(device_id, sequence),
                _ => own,
            };
            let verdict = if first == FirstStatus::Merged { "merged" } else { "applied" };
            let in_base = !device.reset && (result.deleted || result.record.is_some());
            completed(verdict, dot, in_base)
        }
        Some(FirstStatus::Conflict) => Decision::Conflicted,
        Some(FirstStatus::Rejected) => Decision::Rejected(error()),
        None if result.status == Status::Retry => Decision::Retry(error()),
        None if planted!(IgnoreDeferred) => completed("applied", own, false),
        None => Decision::Deferred,
    }
}
