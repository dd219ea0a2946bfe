//! What the user may do to an operation: cancel, retry, discard. Every action takes the whole transaction (spec §2, §5).

use std::collections::BTreeSet;

use rusqlite::params;
use syncline_protocol::{Conflict, Timestamp, planted};

use super::Store;
use super::failure::unreadable;
use super::row::{QueueRow, clock_text, parse_clock};
use super::transition::Why;
use crate::conflict::ResolutionKind;
use crate::error::{Result, SynclineError};
use crate::operation::OperationStatus::{self, Cancelled, Completed, Conflicted, Failed, InProgress, Pending};

/// What signing out would leave behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unsent {
    /// Operations that have not ended.
    pub operations: u64,
    /// Those among them that may have reached the server.
    pub unknown_outcome: u64,
}

impl Store {
    /// Withdraws an operation that waits or is under way. One that may have left the device is withdrawn on the server
    /// first; until that answer it stays `pending` or `in_progress` with `void` set.
    pub(crate) fn cancel(&mut self, id: &str, now: Timestamp) -> Result<()> {
        self.write(|store| {
            let group = store.group_in(
                id,
                &[Pending, InProgress],
                "only an operation that waits or is under way can be cancelled",
            )?;
            store.withdraw(&group, "user", now)
        })
    }

    /// Gives up an operation that failed or is in conflict.
    pub(crate) fn discard(&mut self, id: &str, now: Timestamp) -> Result<()> {
        self.write(|store| {
            let group =
                store.group_in(id, &[Failed, Conflicted], "only a failed or conflicted operation can be discarded")?;
            for row in &group {
                store.settle_ledger(&row.id, ResolutionKind::Discarded, now)?;
                if row.status == Conflicted {
                    store.pass_on_their_clock(row)?;
                }
            }
            store.withdraw(&group, "discarded", now)
        })
    }

    /// Tries a failed operation again, its attempts counted anew. After a rejection it goes under a new key, because the
    /// old key's verdict is final.
    pub(crate) fn retry(&mut self, id: &str, now: Timestamp) -> Result<()> {
        self.write(|store| {
            let group =
                store.group_in(id, &[Failed], "only a failed operation can be retried; a conflict is resolved")?;
            for row in &group {
                store.drop_cancelled_dependencies(row)?;
                if row.reason.as_deref() == Some("conflict") {
                    if !planted!(RetryKeepsClock) {
                        store.see_their_clock(row)?;
                    }
                    store.settle_ledger(&row.id, ResolutionKind::TakeLocal, now)?;
                }
                store.make_pending_again(row, now)?;
            }
            store.refold_all(group.iter().map(|row| row.entity))
        })
    }

    /// Withdraws everything that has not ended; for signing out.
    pub(crate) fn discard_all(&mut self, now: Timestamp) -> Result<Unsent> {
        self.write(|store| {
            let open = QueueRow::select(
                &store.conn,
                "status IN ('pending', 'in_progress', 'failed', 'conflicted') AND void = 0 ORDER BY sequence",
                [],
            )?;
            for row in open.iter().filter(|row| matches!(row.status, Failed | Conflicted)) {
                store.settle_ledger(&row.id, ResolutionKind::Discarded, now)?;
            }
            store.withdraw(&open, "discarded", now)?;
            store.unsent()
        })
    }

    /// What has not ended, and what of it may have reached the server.
    pub(crate) fn unsent(&self) -> Result<Unsent> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT count(*), coalesce(sum(claimed = 1 AND decided = 0), 0) FROM sync_queue
                 WHERE status IN ('pending', 'in_progress', 'failed', 'conflicted')",
            )?
            .query_row([], |row| Ok(Unsent { operations: row.get(0)?, unknown_outcome: row.get(1)? }))?)
    }

    /// An operation and its transaction, all of whose members must be in one of these states.
    fn group_in(&self, id: &str, states: &[OperationStatus], otherwise: &str) -> Result<Vec<QueueRow>> {
        let row = QueueRow::get_id(&self.conn, id)?;
        if row.survivor.is_some() {
            return Err(SynclineError::not_possible("the operation was folded into an earlier one of its entity"));
        }
        let mut group = if planted!(ActOnOneMember) { vec![row.clone()] } else { row.group(&self.conn)? };
        // A copy of this file may have delivered the very same write under the same key: the rest must not wait for it.
        group.retain(|member| member.sequence == row.sequence || member.status != Completed);
        if group.iter().any(|member| !states.contains(&member.status)) {
            return Err(SynclineError::not_possible(otherwise));
        }
        Ok(group)
    }

    /// Ends operations, or has the server confirm that they have no effect.
    fn withdraw(&mut self, rows: &[QueueRow], reason: &str, now: Timestamp) -> Result<()> {
        for row in rows.iter().filter(|row| !row.void) {
            // A dependent may have failed on account of an earlier row of this very list.
            let Some(row) = QueueRow::find(&self.conn, row.sequence)? else { continue };
            if row.claimed && !row.decided && !planted!(CancelClaimed) {
                self.void(&row, now)?;
            } else if row.status != Cancelled {
                self.transition(&row, Cancelled, Why::code(reason), now)?;
                self.after_cancel(&row, now)?;
            }
        }
        self.refold_all(rows.iter().map(|row| row.entity))
    }

    /// Leaves the fold at once; the server is asked to forget it (or to say that it was too late).
    fn void(&mut self, row: &QueueRow, now: Timestamp) -> Result<()> {
        let parked_on = self.parked_on(row.sequence)?;
        if row.status != InProgress && row.status != Pending {
            self.transition(row, Pending, Why::default(), now)?;
        }
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET void = 1, waits = 0, next_attempt_at = NULL, backoff_ms = NULL,
                        park = CASE status WHEN 'pending' THEN 0 END
                 WHERE sequence = ?1",
            )?
            .execute([row.sequence])?;
        // It may go before that root ends. What waits through it is parked on the same root, and must wait for its answer now.
        if let Some(root) = parked_on {
            self.release(root)?;
        }
        Ok(())
    }

    /// What a cancelled operation means for others: its dependents fail (with their transactions), its lane goes on.
    pub(super) fn after_cancel(&mut self, row: &QueueRow, now: Timestamp) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE sync_queue SET park = 0 WHERE entity = ?1 AND open = 1 AND sequence > ?2 AND park > 0",
            )?
            .execute(params![row.entity, row.sequence])?;
        let dependents: Vec<u64> = self
            .conn
            .prepare_cached("SELECT sequence FROM dependencies WHERE depends_on = ?1")?
            .query_map([row.sequence], |found| found.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut touched = BTreeSet::new();
        for sequence in dependents {
            let Some(dependent) = QueueRow::find(&self.conn, sequence)? else { continue };
            for member in dependent.group(&self.conn)? {
                if member.status == Pending && !member.void && !planted!(SendDependent) {
                    let why = Why::told("dependency_cancelled", "An operation that it depends on was cancelled.");
                    self.fail(&member, why, false, now)?;
                    touched.insert(member.entity);
                }
            }
        }
        self.refold_all(touched)
    }

    /// `pending` again, counted anew; under a new key if the server has stored a verdict for the old one.
    pub(super) fn make_pending_again(&mut self, row: &QueueRow, now: Timestamp) -> Result<()> {
        self.transition(row, Pending, Why::default(), now)?;
        let anew = "UPDATE sync_queue SET attempts = 0, waits = 0, key_try = key_try + decided,
                 claimed = CASE decided WHEN 1 THEN 0 ELSE claimed END, decided = 0
             WHERE sequence = ?1";
        let anew = if planted!(AttemptsNotReset) { &anew.replace("attempts = 0, ", "") } else { anew };
        self.conn.prepare_cached(anew)?.execute([row.sequence])?;
        Ok(())
    }

    fn drop_cancelled_dependencies(&mut self, row: &QueueRow) -> Result<()> {
        self.conn
            .prepare_cached(
                "DELETE FROM dependencies WHERE sequence = ?1
                 AND depends_on IN (SELECT sequence FROM sync_queue WHERE status = 'cancelled')",
            )?
            .execute([row.sequence])?;
        Ok(())
    }

    /// The clock that the app saw when it looked at the conflict: the ledger row's, never a later one.
    pub(super) fn see_their_clock(&mut self, row: &QueueRow) -> Result<Option<Conflict>> {
        let Some(mut conflict) = self.latest_conflict(&row.id)? else { return Ok(None) };
        if planted!(ResolveWithBase) {
            conflict.their_clock.merge(&self.entity(row.entity)?.base_clock);
        }
        self.add_to_base_clock(row.sequence, &conflict)?;
        Ok(Some(conflict))
    }

    /// What waits behind a resolved operation has seen theirs as well.
    pub(super) fn pass_on_their_clock(&mut self, row: &QueueRow) -> Result<()> {
        let Some(conflict) = self.latest_conflict(&row.id)? else { return Ok(()) };
        let behind: Vec<u64> = self
            .conn
            .prepare_cached(
                "SELECT sequence FROM sync_queue WHERE entity = ?1 AND open = 1 AND sequence > ?2 AND status <> 'completed'",
            )?
            .query_map(params![row.entity, row.sequence], |found| found.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for sequence in behind {
            self.add_to_base_clock(sequence, &conflict)?;
        }
        Ok(())
    }

    fn add_to_base_clock(&mut self, sequence: u64, conflict: &Conflict) -> Result<()> {
        let text: String = self
            .conn
            .prepare_cached("SELECT base_clock FROM sync_queue WHERE sequence = ?1")?
            .query_row([sequence], |row| row.get(0))?;
        let mut clock = parse_clock(&text)?;
        clock.merge(&conflict.their_clock);
        self.conn
            .prepare_cached("UPDATE sync_queue SET base_clock = ?2 WHERE sequence = ?1")?
            .execute(params![sequence, clock_text(&clock)])?;
        Ok(())
    }

    pub(super) fn latest_conflict(&self, operation_id: &str) -> Result<Option<Conflict>> {
        let text: Option<String> = self
            .conn
            .prepare_cached(
                // By the order in which they came: the wall clock may have been set back in between.
                "SELECT conflict FROM conflicts WHERE operation_id = ?1 ORDER BY rowid DESC LIMIT 1",
            )?
            .query_map([operation_id], |row| row.get(0))?
            .next()
            .transpose()?;
        text.map(|text| serde_json::from_str(&text).map_err(|_| unreadable("a ledger row"))).transpose()
    }

    pub(super) fn settle_ledger(&mut self, operation_id: &str, kind: ResolutionKind, now: Timestamp) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE conflicts SET resolution = ?2, resolved_at = ?3
                 WHERE operation_id = ?1 AND resolution IS NULL AND json_extract(conflict, '$.result') = 'conflict'",
            )?
            .execute(params![operation_id, kind.as_str(), now.millis()])?;
        Ok(())
    }
}
