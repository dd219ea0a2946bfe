//! What the app on a device does, and what the oracle must remember of it.

use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use syncline_core::{NetworkStatus, Operation, OperationFilter, OperationStatus, Receipt, SyncManager, SynclineError};

use super::{Watched, storage};
use crate::oracle::changes::Clock as VectorClock;
use crate::oracle::observe::{OperationRow, base_clock};
use crate::oracle::{Verdict, hold};
use crate::simulation::life::failed;
use crate::simulation::plan::{Intent, Step};
use crate::simulation::user::{act, asked, operation, write};
use crate::world::{TestDevice, World};

impl Watched {
    pub(in crate::simulation) fn in_states(&self, statuses: &[OperationStatus]) -> Vec<Operation> {
        let filter = OperationFilter { statuses: statuses.to_vec(), limit: 1_000, ..OperationFilter::default() };
        // A disk that fails lists nothing; the next look does.
        if self.signed_out { Vec::new() } else { self.device.operations(&filter).unwrap_or_default() }
    }

    pub(in crate::simulation) fn give_up(&mut self, id: &str) {
        self.journal.give_up(id);
    }

    pub(in crate::simulation) fn resolve(&mut self, id: &str) {
        self.journal.resolve(id);
    }

    /// It goes again on what the app saw, with all of its transaction.
    pub(in crate::simulation) fn note_resolved(&mut self, id: &str) {
        let state = self.state.as_ref().expect("looked at");
        let Some(row) = state.operations.values().find(|row| row.id == id) else { return };
        let group = |other: &&OperationRow| row.transaction_id.is_some() && other.transaction_id == row.transaction_id;
        self.changes.resolved(id);
        state.operations.values().filter(group).for_each(|member| self.changes.resolved(&member.id));
    }

    /// A call of the app. What is not possible now is refused with that word; a disk that fails, with one of its own, and only
    /// when it did fail.
    pub(in crate::simulation) fn call<T>(
        &mut self,
        second: bool,
        call: impl FnOnce(&TestDevice) -> syncline_core::Result<T>,
    ) -> Result<Option<T>, String> {
        if self.signed_out {
            return Ok(None);
        }
        self.touched = true;
        let device = self.second.as_ref().filter(|_| second).unwrap_or(&self.device);
        let failures = device.disk_failures();
        let result = call(device);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(SynclineError::NotPossible { .. } | SynclineError::Locked | SynclineError::Timeout) => Ok(None),
            Err(SynclineError::Storage { .. }) if device.is_dead() || device.disk_failures() > failures => Ok(None),
            Err(SynclineError::StorageFull) if device.is_dead() || device.is_full() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// What an app does.
    pub(super) fn use_app(&mut self, world: &World, step: &Step, second: bool) -> Verdict {
        match step {
            Step::Write { intent, depends, .. } => {
                let after = self.receipts.last().filter(|_| *depends).cloned();
                let receipt = self.call(second, |device| write(device, *intent, after.as_ref()))?;
                self.note_own(receipt.into_iter().collect(), &[*intent])?;
            }
            Step::Keyed { intent, key, .. } => {
                let keyed = operation(*intent).with_key(format!("key-{key}"));
                let receipt = self.call(second, |device| match device.enqueue(keyed) {
                    // The key is another operation's.
                    Err(SynclineError::InvalidOperation { field, .. }) if field == "idempotency_key" => Ok(None),
                    other => other.map(Some),
                })?;
                self.note(receipt.flatten().into_iter().collect(), &[*intent]);
            }
            Step::Import { intents, .. } => {
                let all: Vec<_> = intents.iter().copied().map(operation).collect();
                let receipts = self.call(second, |device| device.enqueue_all(all))?;
                self.note_own(receipts.unwrap_or_default(), intents)?;
            }
            Step::Group { members, now: false, .. } => {
                let receipts = self.call(second, |device| group(device, members))?;
                self.note_own(receipts.unwrap_or_default(), members)?;
            }
            Step::SlowGroup { members, pause, .. } => {
                let pause = || {
                    (0..*pause).for_each(|_| {
                        world.steps.step();
                    });
                };
                let clocks = Mutex::new(Vec::new());
                let file = self.device.reader().map_err(storage)?;
                let asked = |member: &Intent| clocks.lock().push(base_of(&file, *member));
                let receipts = self.call(second, |device| slow_group(device, members, asked, pause))?;
                let receipts = receipts.unwrap_or_default();
                let clocks = clocks.into_inner().into_iter().collect::<rusqlite::Result<Vec<_>>>().map_err(storage)?;
                let written: Vec<_> = receipts.iter().map(|receipt| receipt.sequence).zip(clocks).collect();
                self.note_own(receipts, members)?;
                written.into_iter().for_each(|(sequence, clock)| self.changes.enqueued(sequence, Some(clock)));
            }
            Step::Group { members, now: true, .. } => {
                let manager = self.manager(second);
                let members: Vec<_> = members.iter().copied().map(operation).collect();
                self.calls.push(world.start(commit_now(manager, members)));
            }
            Step::Act { action, which, .. } => act(self, second, *action, usize::from(*which))?,
            Step::Process { .. } => {
                let manager = self.manager(second);
                self.calls.push(world.start(async move { drop(manager.process_queue().await) }));
            }
            Step::Window { seconds, .. } => {
                let (manager, deadline) = (self.manager(second), Duration::from_secs(u64::from(*seconds)));
                self.calls.push(world.start(async move { drop(manager.run_background(deadline).await) }));
            }
            Step::Background { on, .. } => {
                let first = !second || self.second.is_none();
                let done = self.call(second, |device| if *on { device.start() } else { device.stop() })?;
                if first && done.is_some() {
                    self.processing = *on;
                }
            }
            Step::Online { on, .. } => {
                let status = if *on { NetworkStatus::Online { metered: false } } else { NetworkStatus::Offline };
                let first = !second || self.second.is_none();
                if self.call(second, |device| device.network_changed(status))?.is_some() && first {
                    self.online = *on;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn manager(&self, second: bool) -> SyncManager {
        self.second.as_ref().filter(|_| second).unwrap_or(&self.device).manager()
    }

    /// What was written under no key of the app's own is never the same as something before.
    pub(super) fn note_own(&mut self, receipts: Vec<Receipt>, intents: &[Intent]) -> Verdict {
        for receipt in &receipts {
            hold!(!receipt.duplicate, "keys: operation {} has the key of an earlier one", receipt.sequence);
        }
        self.note(receipts, intents);
        Ok(())
    }

    pub(super) fn note(&mut self, receipts: Vec<Receipt>, intents: &[Intent]) {
        for receipt in receipts.iter().filter(|receipt| !receipt.duplicate) {
            self.changes.enqueued(receipt.sequence, None);
        }
        for (receipt, intent) in receipts.iter().zip(intents) {
            self.journal.acknowledge(receipt, asked(*intent));
        }
        self.receipts.extend(receipts);
    }
}

fn group(device: &TestDevice, members: &[Intent]) -> syncline_core::Result<Vec<Receipt>> {
    slow_group(device, members, |_| (), || ())
}

/// As [`group`], with time between the members; `asked` hears of each before it is added.
fn slow_group(
    device: &TestDevice,
    members: &[Intent],
    asked: impl Fn(&Intent),
    pause: impl Fn(),
) -> syncline_core::Result<Vec<Receipt>> {
    let mut transaction = device.begin_transaction()?;
    for member in members {
        asked(member);
        transaction.add(operation(*member))?;
        pause();
    }
    transaction.commit_queued()
}

fn base_of(file: &Connection, intent: Intent) -> rusqlite::Result<VectorClock> {
    let asked = asked(intent);
    base_clock(file, &asked.entity_type, &asked.entity_id)
}

async fn commit_now(manager: SyncManager, members: Vec<syncline_core::NewOperation>) {
    let Ok(mut transaction) = manager.begin_transaction() else { return };
    for member in members {
        if transaction.add(member).is_err() {
            return;
        }
    }
    drop(transaction.commit_now(Duration::from_secs(30)).await);
}
