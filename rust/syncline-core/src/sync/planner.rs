//! What goes next (spec §2, lane order). Pure: candidates in, one batch and the operations that must wait out.

use std::collections::BTreeMap;

use crate::store::{Blocker, Candidate, Park};

/// JSON around a payload: names, ids, clock, timestamp.
const OVERHEAD_BYTES: usize = 400;

/// How much one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Operations.
    pub(crate) operations: usize,
    /// Bytes of JSON, estimated.
    pub(crate) bytes: usize,
}

impl Room {
    /// Takes whatever comes.
    pub(crate) const UNBOUNDED: Self = Self { operations: usize::MAX, bytes: usize::MAX };
}

/// What became of the candidates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Goes now, in sequence order, as units that are never split: an operation, or a transaction.
    pub(crate) batch: Vec<Vec<u64>>,
    /// Estimated bytes of the batch.
    pub(crate) bytes: usize,
    /// Must wait, and for which operation.
    pub(crate) parks: Vec<Park>,
    /// The first operation for which there was no room: it and what follows were not looked at.
    pub(crate) stopped_at: Option<u64>,
}

/// Fills one batch. `alone`: whether an operation was in trouble before and shares no batch.
pub(crate) fn plan(mut candidates: Vec<Candidate>, room: Room, alone: impl Fn(u64) -> bool) -> Plan {
    candidates.sort_by_key(|candidate| candidate.sequence);
    let mut plan = Plan::default();
    let mut taken = Taken::default();
    for unit in candidates.chunk_by(same_unit) {
        if let Some(root) = taken.blocker(unit) {
            for candidate in unit {
                taken.parked.insert(candidate.sequence, root);
                plan.parks.push(park(candidate.sequence, root));
            }
            continue;
        }
        let bytes = unit.iter().map(|candidate| candidate.bytes + OVERHEAD_BYTES).sum::<usize>();
        let fits = taken.batch.len() + unit.len() <= room.operations && plan.bytes.saturating_add(bytes) <= room.bytes;
        let lonely = unit.iter().any(|candidate| alone(candidate.sequence));
        if !plan.batch.is_empty() && (!fits || lonely || taken.lonely) {
            plan.stopped_at = Some(unit[0].sequence);
            break;
        }
        taken.lonely = lonely;
        plan.bytes += bytes;
        plan.batch.push(unit.iter().map(|candidate| candidate.sequence).collect());
        taken.batch.extend(unit.iter().map(|candidate| (candidate.sequence, candidate.void)));
    }
    plan
}

fn same_unit(a: &Candidate, b: &Candidate) -> bool {
    a.transaction_id.is_some() && a.transaction_id == b.transaction_id
}

fn park(sequence: u64, on: u64) -> Park {
    Park { sequence, on: i64::try_from(on).expect("sequences stay below 2^53") }
}

#[derive(Default)]
struct Taken {
    /// Operations of the batch, and whether each is void.
    batch: BTreeMap<u64, bool>,
    /// What was parked in this pass, and on what.
    parked: BTreeMap<u64, u64>,
    /// The batch holds one that shares it with none.
    lonely: bool,
}

impl Taken {
    /// The operation at the root of what `unit` must wait for. One that is void blocks even from within the batch, since what
    /// follows depends on its answer; only among the members of one withdrawn transaction there is nothing to depend on.
    fn blocker(&self, unit: &[Candidate]) -> Option<u64> {
        for candidate in unit {
            for blocker in candidate.predecessor.iter().chain(&candidate.dependencies) {
                let inside = unit.iter().any(|member| {
                    member.sequence == blocker.sequence
                        && member.sequence < candidate.sequence
                        && (!member.void || candidate.void)
                });
                let before = self.batch.get(&blocker.sequence) == Some(&false);
                if !inside && !before {
                    return Some(self.root(blocker));
                }
            }
        }
        None
    }

    fn root(&self, blocker: &Blocker) -> u64 {
        self.parked.get(&blocker.sequence).copied().or(blocker.parked_on).unwrap_or(blocker.sequence)
    }
}
