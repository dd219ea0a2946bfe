//! Why an operation waits, derived from the file and the state of delivery by the oracle itself, to be held against `explain`.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{Explanation, OperationStatus, SyncState};

use super::observe::{DeviceState, OperationRow};
use super::{Verdict, hold};

/// `told` must give a reason that holds, name who stands in the way, and give no moment that has passed.
pub(crate) fn check(file: &File<'_>, row: &OperationRow, delivery: &SyncState, told: &Explanation) -> Verdict {
    let word = told.waiting.as_str();
    let expected = file.reasons(row, delivery);
    hold!(
        expected.contains(word),
        "explain: operation {} ({}) is said to wait for {word}, and waits for {expected:?}; its lane is {:?}; told: {}",
        row.sequence,
        row.status,
        file.lane_of(row),
        told.text
    );
    if let Some(blocker) = &told.blocked_by {
        let named = file.state.operations.values().find(|other| other.id == *blocker);
        hold!(
            named.is_some_and(|other| other.is_unsettled() && other.sequence != row.sequence),
            "explain: what stands in the way of operation {} has ended or is none",
            row.sequence
        );
    }
    hold!(told.text.ends_with('.'), "explain: the text about operation {} is no sentence", row.sequence);
    Ok(())
}

/// A file, at a moment.
pub(crate) struct File<'a> {
    state: &'a DeviceState,
    now_ms: i64,
    /// What has not ended of each entity's lane, in order.
    lanes: BTreeMap<i64, Vec<&'a OperationRow>>,
    groups: BTreeMap<&'a str, Vec<&'a OperationRow>>,
    /// Those that wait for others.
    blocked: BTreeSet<u64>,
}

impl<'a> File<'a> {
    pub(crate) fn new(state: &'a DeviceState, now_ms: i64) -> Self {
        let (lanes, groups) = (BTreeMap::new(), BTreeMap::new());
        let mut file = Self { state, now_ms, lanes, groups, blocked: BTreeSet::new() };
        for row in state.operations.values() {
            if row.is_unsettled() {
                file.lanes.entry(row.entity).or_default().push(row);
            }
            if let Some(id) = &row.transaction_id {
                file.groups.entry(id).or_default().push(row);
            }
        }
        // Earlier ones hold up later ones; members of a transaction each other.
        loop {
            let pending = file.lanes.values().flatten().filter(|row| row.status == OperationStatus::Pending);
            let more: Vec<u64> = pending
                .filter(|row| !file.blocked.contains(&row.sequence))
                .filter(|row| [file.lane(row), file.dependency(row), file.member(row)] != [Blocked::No; 3])
                .map(|row| row.sequence)
                .collect();
            if more.is_empty() {
                return file;
            }
            file.blocked.extend(more);
        }
    }

    /// Every word that is true of `row`. More than one only where the planner has not looked at the queue yet.
    fn reasons(&self, row: &OperationRow, delivery: &SyncState) -> BTreeSet<&'static str> {
        let mut words = BTreeSet::new();
        match row.status {
            OperationStatus::Completed => return [("completed")].into(),
            OperationStatus::Cancelled => return [("cancelled")].into(),
            OperationStatus::Failed => return [("failed")].into(),
            OperationStatus::Conflicted => return [("conflicted")].into(),
            OperationStatus::InProgress => return [("in_flight")].into(),
            OperationStatus::Pending => {}
        }
        // What comes before its own group in the lane holds it up as much as what holds up the group.
        let before = row
            .transaction_id
            .as_ref()
            .and_then(|_| self.ahead(row).iter().rev().copied().find(|other| !same_group(row, other)));
        if before.is_some_and(|other| self.holds_up(other) != Blocked::No) {
            words.insert("lane_blocked");
        }
        for (blocked, word) in [
            (self.lane(row), "lane_blocked"),
            (self.dependency(row), "dependency_blocked"),
            (self.member(row), "transaction_blocked"),
        ] {
            match blocked {
                Blocked::No => {}
                Blocked::Indirectly => {
                    words.insert(word);
                }
                Blocked::Directly => {
                    words.insert(word);
                    return words;
                }
            }
        }
        words.insert(match row {
            OperationRow { reason: Some(reason), .. } if self.waits(row) && reason == "proxy_refused" => {
                "proxy_refused"
            }
            _ if self.waits(row) => "backoff",
            OperationRow { void: true, .. } => "withdrawing",
            _ => shared(self.state, delivery),
        });
        if row.held {
            words.insert("bisecting");
        }
        words
    }

    /// What has not ended before it in its lane.
    fn ahead(&self, row: &OperationRow) -> &[&'a OperationRow] {
        let lane = self.lanes.get(&row.entity).map_or(&[][..], Vec::as_slice);
        &lane[..lane.partition_point(|other| other.sequence < row.sequence)]
    }

    /// How `other` holds up what comes after it.
    fn holds_up(&self, other: &OperationRow) -> Blocked {
        match other.status {
            OperationStatus::Failed | OperationStatus::Conflicted | OperationStatus::InProgress => Blocked::Directly,
            OperationStatus::Pending if other.void || self.waits(other) => Blocked::Directly,
            OperationStatus::Pending if self.blocked.contains(&other.sequence) => Blocked::Indirectly,
            _ => Blocked::No,
        }
    }

    /// The nearest earlier operation of the lane that has not ended.
    fn lane(&self, row: &OperationRow) -> Blocked {
        let nearest = self.ahead(row).last();
        nearest.filter(|other| !same_group(row, other)).map_or(Blocked::No, |other| self.holds_up(other))
    }

    /// The first dependency that has not ended. A withdrawal needs none.
    fn dependency(&self, row: &OperationRow) -> Blocked {
        if row.void {
            return Blocked::No;
        }
        let depends_on = self.state.dependencies.range((row.sequence, 0)..(row.sequence + 1, 0));
        let open =
            depends_on.filter_map(|(_, earlier)| self.state.operations.get(earlier)).find(|other| other.is_unsettled());
        open.filter(|other| !same_group(row, other)).map_or(Blocked::No, |other| self.holds_up(other))
    }

    fn member(&self, row: &OperationRow) -> Blocked {
        let Some(group) = row.transaction_id.as_deref().and_then(|id| self.groups.get(id)) else { return Blocked::No };
        let others = group.iter().filter(|other| other.sequence != row.sequence);
        let blocked: Vec<Blocked> = others.flat_map(|other| [self.lane(other), self.dependency(other)]).collect();
        match blocked {
            all if all.contains(&Blocked::Directly) => Blocked::Directly,
            all if all.contains(&Blocked::Indirectly) => Blocked::Indirectly,
            _ => Blocked::No,
        }
    }

    /// What is open in the lane, for people.
    fn lane_of(&self, row: &OperationRow) -> Vec<(u64, &'static str, bool, Option<&String>)> {
        let lane = self.lanes.get(&row.entity).into_iter().flatten();
        lane.map(|other| (other.sequence, other.status.as_str(), other.void, other.transaction_id.as_ref())).collect()
    }

    /// Has a wait of its own that is not over.
    fn waits(&self, row: &OperationRow) -> bool {
        row.next_attempt_at.is_some_and(|at| at > self.now_ms)
    }
}

/// What holds for everything that waits.
fn shared(state: &DeviceState, delivery: &SyncState) -> &'static str {
    match delivery {
        SyncState::Paused => "paused",
        SyncState::Elsewhere => "elsewhere",
        SyncState::Offline => "offline",
        SyncState::AuthRequired { .. } => "auth_required",
        SyncState::UnsupportedProtocol { .. } => "unsupported_protocol",
        SyncState::Backoff { .. } => "connection_backoff",
        SyncState::Idle | SyncState::Syncing if state.device.epoch.is_none() => "first_pull",
        SyncState::Idle | SyncState::Syncing => "queued",
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Blocked {
    No,
    /// By one that waits for something of its own.
    Indirectly,
    Directly,
}

fn same_group(row: &OperationRow, other: &OperationRow) -> bool {
    row.transaction_id.is_some() && row.transaction_id == other.transaction_id
}
