//! Operations whose delivery decided nothing: back to `pending`, at once or after a wait, or `failed` when that was enough.

use std::collections::BTreeSet;

use rusqlite::params;
use syncline_protocol::{ResultError, Timestamp, planted};

use super::Store;
use super::row::QueueRow;
use super::settle::SettledCounts;
use super::transition::Why;
use crate::environment::Random;
use crate::error::Result;
use crate::operation::OperationStatus;
use crate::sync::retry::operation_backoff;

/// Returns one operation whose delivery brought no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GiveBack {
    pub sequence: u64,
    pub how: How,
}

/// In which way an operation is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// Pending, ready again, nothing charged.
    Ready,
    /// Pending, held until the driver claims it by name.
    Held,
    /// Pending with its own backoff, nothing charged.
    Wait { reason: String, message: Option<String> },
    /// An attempt: pending with its own backoff, or failed when that was the last one.
    Charge { reason: String, message: Option<String> },
    /// Failed at once. The server may have applied it all the same.
    Fail { reason: String, message: Option<String> },
}

impl Store {
    /// Fails an operation. `decided`: the server stored a verdict, so a retry needs a new key.
    pub(super) fn fail(&mut self, row: &QueueRow, why: Why, decided: bool, now: Timestamp) -> Result<()> {
        if decided {
            self.mark_decided(row)?;
        }
        let told = why.message.clone().or_else(|| why.reason.clone()).unwrap_or_default();
        self.transition(row, OperationStatus::Failed, why, now)?;
        self.note_outcome(row.entity, Some(&told), now)
    }

    pub(super) fn mark_decided(&mut self, row: &QueueRow) -> Result<()> {
        self.conn.prepare_cached("UPDATE sync_queue SET decided = 1 WHERE sequence = ?1")?.execute([row.sequence])?;
        Ok(())
    }

    /// A verdict `retry`: an attempt, unless the server says when to come back. Tells whether that was the last attempt.
    pub(super) fn put_off(
        &mut self,
        row: &QueueRow,
        error: &ResultError,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<bool> {
        let why = Why::told(&short(&error.code), short(&error.message));
        match error.retry_after_ms {
            Some(wait) => {
                self.transition(row, OperationStatus::Pending, why, now)?;
                self.back_off(row, wait.min(60 * 60 * 1000), false, now)?;
                Ok(false)
            }
            None => self.charge(row, why, now, random),
        }
    }

    /// Counts an attempt. Tells whether it was the last one.
    fn charge(&mut self, row: &QueueRow, why: Why, now: Timestamp, random: &dyn Random) -> Result<bool> {
        if row.attempts.saturating_add(1) >= row.max_attempts && !row.void {
            self.conn
                .prepare_cached("UPDATE sync_queue SET attempts = attempts + 1 WHERE sequence = ?1")?
                .execute([row.sequence])?;
            if planted!(BudgetEndsInCancel) {
                self.transition(row, OperationStatus::Cancelled, why, now)?;
                return Ok(true);
            }
            self.fail(row, why, false, now)?;
            return Ok(true);
        }
        self.transition(row, OperationStatus::Pending, why, now)?;
        self.back_off(row, operation_backoff(row.waits, random), true, now)?;
        Ok(false)
    }

    /// A transaction of which a member has failed fails as a whole (spec §5), also when only that member's attempts are used up.
    /// Returns how many others that were.
    pub(super) fn fail_rest(&mut self, transactions: BTreeSet<String>, now: Timestamp) -> Result<u64> {
        let mut failed = 0;
        for transaction in transactions.into_iter().filter(|_| !planted!(GroupFailsInPart)) {
            let rest = QueueRow::select(
                &self.conn,
                "transaction_id = ?1 AND status = 'pending' AND void = 0 ORDER BY sequence",
                [transaction],
            )?;
            for row in &rest {
                let why = Why::told("transaction_failed", "Another operation of its transaction failed.");
                self.fail(row, why, false, now)?;
                failed += 1;
            }
            self.refold_all(rest.iter().map(|row| row.entity))?;
        }
        Ok(failed)
    }

    fn back_off(&mut self, row: &QueueRow, wait: u64, charged: bool, now: Timestamp) -> Result<()> {
        let until = now.plus_millis(i64::try_from(wait).unwrap_or(i64::MAX));
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET next_attempt_at = ?2, backoff_ms = ?3, waits = waits + 1, attempts = attempts + ?4
                 WHERE sequence = ?1",
            )?
            .execute(params![row.sequence, until.millis(), wait, charged])?;
        Ok(())
    }

    /// Returns operations that got no verdict. Those whose lease is no longer this one are left alone.
    pub(crate) fn give_back(
        &mut self,
        term: u64,
        returns: &[GiveBack],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SettledCounts> {
        self.write(|store| {
            let mut counts = SettledCounts::default();
            let mut touched = BTreeSet::new();
            let mut broken = BTreeSet::new();
            for GiveBack { sequence, how } in returns {
                let Some(row) = QueueRow::find(&store.conn, *sequence)? else { continue };
                if row.status != OperationStatus::InProgress || (row.term != Some(term) && !planted!(ForgetTerm)) {
                    continue;
                }
                touched.insert(row.entity);
                let failed = store.give_back_row(&row, how, now, random)?;
                counts.failed += u64::from(failed);
                counts.put_off += u64::from(!failed);
                if failed {
                    broken.extend(row.transaction_id);
                }
            }
            counts.failed += store.fail_rest(broken, now)?;
            store.refold_all(touched)?;
            Ok(counts)
        })
    }

    fn give_back_row(&mut self, row: &QueueRow, how: &How, now: Timestamp, random: &dyn Random) -> Result<bool> {
        let why = |reason: &String, message: &Option<String>| Why {
            reason: Some(short(reason)),
            message: message.as_deref().map(short),
            ..Why::default()
        };
        match how {
            How::Ready => self.transition(row, OperationStatus::Pending, Why::default(), now)?,
            How::Held => {
                self.transition(row, OperationStatus::Pending, Why::default(), now)?;
                self.conn
                    .prepare_cached("UPDATE sync_queue SET park = -1 WHERE sequence = ?1")?
                    .execute([row.sequence])?;
            }
            How::Charge { reason, message } if !row.void => return self.charge(row, why(reason, message), now, random),
            How::Fail { reason, message } if !row.void => {
                self.fail(row, why(reason, message), false, now)?;
                return Ok(true);
            }
            // A withdrawal has to be confirmed some day: it waits, however often it is refused.
            How::Wait { reason, message } | How::Charge { reason, message } | How::Fail { reason, message } => {
                self.transition(row, OperationStatus::Pending, why(reason, message), now)?;
                self.back_off(row, operation_backoff(row.waits, random), false, now)?;
            }
        }
        Ok(false)
    }
}

/// What comes from outside is stored only up to a sensible length.
pub(super) fn short(text: &str) -> String {
    text.chars().take(500).collect()
}
