//! What goes next (spec §2, lane order). Pure: candidates in, one batch and the operations that must wait out.

use std::collections::BTreeMap;

use syncline_protocol::planted;

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
        let others = taken.parked.values().next().copied().filter(|_| planted!(ParkEveryone));
        if let Some(root) = taken.blocker(unit).or(others) {
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
    !planted!(SplitGroup) && a.transaction_id.is_some() && a.transaction_id == b.transaction_id
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
            let predecessor = candidate.predecessor.iter().filter(|_| !planted!(IgnoreLane));
            for blocker in predecessor.chain(&candidate.dependencies) {
                let inside = unit.iter().any(|member| {
                    member.sequence == blocker.sequence
                        && member.sequence < candidate.sequence
                        && (!member.void || candidate.void)
                });
                let before = self.batch.get(&blocker.sequence).is_some_and(|void| !void || planted!(SendBehindVoid));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { operations: 500, bytes: 1 << 20 };

    fn candidate(sequence: u64) -> Candidate {
        Candidate {
            sequence,
            entity: i64::try_from(sequence).unwrap(),
            transaction_id: None,
            bytes: 100,
            void: false,
            predecessor: None,
            dependencies: Vec::new(),
        }
    }

    fn blocker(sequence: u64) -> Blocker {
        Blocker { sequence, void: false, parked_on: None }
    }

    fn after(sequence: u64, predecessor: u64) -> Candidate {
        Candidate { predecessor: Some(blocker(predecessor)), ..candidate(sequence) }
    }

    fn never(_: u64) -> bool {
        false
    }

    #[test]
    fn a_lane_goes_together_and_in_order() {
        let plan = plan(vec![after(2, 1), candidate(1), after(3, 2)], ROOM, never);
        assert_eq!(plan.batch, [[1], [2], [3]]);
        assert!(plan.parks.is_empty());
    }

    #[test]
    fn what_is_blocked_is_parked_on_the_root() {
        let parked = Blocker { parked_on: Some(3), ..blocker(8) };
        let list = vec![after(5, 4), after(6, 5), Candidate { dependencies: vec![parked], ..candidate(9) }];
        let plan = plan(list, ROOM, never);
        assert!(plan.batch.is_empty());
        assert_eq!(plan.parks, [(5, 4), (6, 4), (9, 3)].map(|(sequence, on)| Park { sequence, on }));
    }

    #[test]
    fn nothing_of_its_lane_follows_a_withdrawal_in_the_batch() {
        let void = Candidate { void: true, ..candidate(1) };
        let behind = Candidate { predecessor: Some(Blocker { void: true, ..blocker(1) }), ..candidate(2) };
        let plan = plan(vec![void, behind, after(3, 2), candidate(4)], ROOM, never);
        assert_eq!(plan.batch, [[1], [4]]);
        assert_eq!(plan.parks, [(2, 1), (3, 1)].map(|(sequence, on)| Park { sequence, on }));
    }

    #[test]
    fn a_transaction_goes_whole_or_waits_whole() {
        let member = |sequence| Candidate { transaction_id: Some("t".into()), ..candidate(sequence) };
        let blocked = Candidate { transaction_id: Some("t".into()), ..after(3, 1) };
        let list = vec![member(2), blocked, member(4), candidate(5)];
        let waits = plan(list.clone(), ROOM, never);
        assert_eq!(waits.batch, [[5]]);
        assert_eq!(waits.parks, [2, 3, 4].map(|sequence| Park { sequence, on: 1 }));
        let goes = plan(list.into_iter().chain([candidate(1)]).collect(), ROOM, never);
        assert_eq!(goes.batch, [vec![1], vec![2, 3, 4], vec![5]]);
    }

    #[test]
    fn what_is_above_the_batch_size_goes_alone() {
        let small = Room { operations: 2, bytes: 1_000 };
        let large = Candidate { bytes: 5_000, ..candidate(2) };
        let first = plan(vec![candidate(1), large.clone(), candidate(3)], small, never);
        assert_eq!((first.batch, first.stopped_at), (vec![vec![1]], Some(2)));
        let second = plan(vec![large, candidate(3)], small, never);
        assert_eq!((second.batch, second.stopped_at), (vec![vec![2]], Some(3)));
        let member = |sequence| Candidate { transaction_id: Some("t".into()), ..candidate(sequence) };
        let group = plan((1..=9).map(member).chain([candidate(10)]).collect(), small, never);
        assert_eq!((group.batch, group.stopped_at), (vec![(1..=9).collect()], Some(10)));
    }

    #[test]
    fn a_loner_shares_no_batch() {
        let list = vec![candidate(1), candidate(2), candidate(3)];
        let loner = |sequence| sequence == 2;
        assert_eq!(plan(list.clone(), ROOM, loner).batch, [[1]]);
        let second = plan(list[1..].to_vec(), ROOM, loner);
        assert_eq!((second.batch, second.stopped_at), (vec![vec![2]], Some(3)));
    }

    /// A queue at random: lanes, dependencies, transactions, withdrawals; some of it is settled and not in the list.
    fn queues() -> impl Strategy<Value = (Vec<Candidate>, BTreeSet<u64>)> {
        let row = (0i64..6, 0u8..10, any::<bool>(), prop::option::weighted(0.3, 1u64..40), 0u8..4, 0usize..3_000);
        prop::collection::vec(row, 1..40).prop_map(|rows| {
            let (mut list, mut last, mut absent) = (Vec::new(), BTreeMap::<i64, Blocker>::new(), BTreeSet::new());
            let mut open: BTreeMap<u64, Blocker> = BTreeMap::new();
            for (index, (entity, mood, same_group, depends, away, bytes)) in rows.into_iter().enumerate() {
                let sequence = index as u64 + 1;
                let void = mood == 0;
                let group = (mood > 6).then(|| format!("t{}", if same_group { sequence / 3 } else { sequence }));
                let dependencies = depends.and_then(|on| open.get(&on).cloned()).into_iter().collect();
                let predecessor = last.get(&entity).cloned();
                let mine = Blocker { sequence, void, parked_on: None };
                last.insert(entity, mine.clone());
                open.insert(sequence, mine);
                // In flight, failed, or waiting by time: in the way, but no candidate.
                if away == 0 && group.is_none() {
                    absent.insert(sequence);
                    continue;
                }
                list.push(Candidate {
                    sequence,
                    entity,
                    transaction_id: group,
                    bytes,
                    void,
                    predecessor,
                    dependencies,
                });
            }
            (list, absent)
        })
    }

    proptest! {
        #[test]
        fn no_plan_breaks_an_order((list, absent) in queues(), operations in 1usize..50, bytes in 500usize..50_000, lone in 0u64..40) {
            let room = Room { operations, bytes };
            let plan = plan(list.clone(), room, |sequence| sequence == lone);
            let batch: Vec<u64> = plan.batch.concat();
            prop_assert!(batch.is_sorted());
            let known: BTreeMap<u64, &Candidate> = list.iter().map(|candidate| (candidate.sequence, candidate)).collect();
            for (place, sequence) in batch.iter().enumerate() {
                let candidate = known[sequence];
                for blocker in candidate.predecessor.iter().chain(&candidate.dependencies) {
                    let before = batch[..place].contains(&blocker.sequence);
                    let together = candidate.transaction_id.is_some()
                        && known.get(&blocker.sequence).is_some_and(|b| b.transaction_id == candidate.transaction_id);
                    prop_assert!(before, "{sequence} without {}", blocker.sequence);
                    prop_assert!(!blocker.void || (together && candidate.void), "{sequence} beside a withdrawal");
                }
            }
            // Units are whole, fit or are alone, and every candidate before the stop is dealt with once.
            for group in list.iter().filter_map(|candidate| candidate.transaction_id.as_ref()) {
                let consecutive = list.chunk_by(same_unit).filter(|unit| unit[0].transaction_id.as_ref() == Some(group));
                for unit in consecutive {
                    let taken = unit.iter().filter(|member| batch.contains(&member.sequence)).count();
                    prop_assert!(taken == 0 || taken == unit.len());
                }
            }
            prop_assert!(plan.batch.len() == 1 || (batch.len() <= operations && plan.bytes <= bytes));
            prop_assert!(!batch.contains(&lone) || plan.batch.len() == 1);
            let parked: BTreeSet<u64> = plan.parks.iter().map(|park| park.sequence).collect();
            for candidate in &list {
                let dealt = batch.contains(&candidate.sequence) != parked.contains(&candidate.sequence);
                prop_assert_eq!(dealt, plan.stopped_at.is_none_or(|stop| candidate.sequence < stop));
            }
            // Whatever is parked waits for one that is not parked in this very plan: no cycle, nothing forgotten.
            for park in &plan.parks {
                let root = u64::try_from(park.on).unwrap();
                prop_assert!(root < park.sequence || known[&park.sequence].transaction_id.is_some());
                prop_assert!(!parked.contains(&root));
                prop_assert!(absent.contains(&root) || batch.contains(&root));
            }
            // Isolation: what nothing stands in the way of is never parked.
            for candidate in list.iter().filter(|c| c.predecessor.is_none() && c.dependencies.is_empty() && c.transaction_id.is_none()) {
                prop_assert!(!parked.contains(&candidate.sequence));
            }
        }
    }
}
