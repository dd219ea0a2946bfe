//! Who is to blame (spec §2). Sets of operations under suspicion wait here, held in the store, and are tried one at a time while
//! other lanes go on.
//!
//! A set gets here in two ways. Our endpoint *blamed* its batch: then an empty push shows whether the endpoint answers at all,
//! and if so the set is bisected until what is to blame stands alone. Or its batch met *silence*, no answer of our endpoint:
//! then it is sent again as it was, and only if it meets silence again while an empty push is answered, it is bisected likewise.
//! Nothing is ever charged before an empty push, sent after the accusation, was answered. Until then the accused stay leased;
//! all others in here are held.

use std::collections::{BTreeMap, VecDeque};

use syncline_protocol::planted;

use super::retry::Blame;

/// Silences in a row that make a set suspect.
const STRIKES: u32 = 2;

/// What a set is accused of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accusation {
    /// Our endpoint answered with this.
    Blamed(Blame),
    /// No answer of our endpoint, for this reason.
    Silent(&'static str),
}

/// Operations that are sent together until they are cleared. Units (an operation, or a transaction) are never split.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    units: Vec<Vec<u64>>,
    strikes: u32,
    /// An empty push must show whether it is the set or the connection.
    accused: Option<Accusation>,
    /// A part of a set that such a push did not clear.
    part: bool,
}

/// What follows when the empty push was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    /// This unit stands alone and is to blame.
    Charge(Vec<u64>, Accusation),
    /// These are searched on: their leases are over.
    Search(Vec<u64>),
}

/// What to send for the first set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// These operations.
    Send(Vec<u64>),
    /// An empty push.
    Probe,
}

/// All that is under suspicion.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    sets: VecDeque<Set>,
    trial_under_way: bool,
    /// Operations that stood alone and were charged, or wait for a proxy. They share no batch, so that they cost others nothing more;
    /// those that met silence are known for it.
    loners: BTreeMap<u64, bool>,
}

impl Suspects {
    /// Whether one bad operation is being searched among several.
    pub(crate) fn is_searching(&self) -> bool {
        self.sets.iter().any(|set| set.part || set.accused.is_some())
    }

    /// Whether `sequence` must share no batch.
    pub(crate) fn is_loner(&self, sequence: u64) -> bool {
        self.loners.contains_key(&sequence)
    }

    /// Our endpoint blamed a batch that was no trial.
    pub(crate) fn add_blamed(&mut self, units: Vec<Vec<u64>>, blame: Blame) {
        self.sets.push_back(Set { units, strikes: 0, accused: Some(Accusation::Blamed(blame)), part: false });
    }

    /// A batch that was no trial met silence. Returns whether it is accused: that was to be expected of it.
    pub(crate) fn add_silent(&mut self, units: Vec<Vec<u64>>, reason: &'static str) -> bool {
        let known = units.iter().flatten().any(|sequence| self.loners.get(sequence) == Some(&true));
        let accused = known.then_some(Accusation::Silent(reason));
        self.sets.push_back(Set { units, strikes: 1, accused, part: false });
        known
    }

    /// Something on the way refused a unit that stands alone, by its size.
    pub(crate) fn add_refused(&mut self, units: Vec<Vec<u64>>) {
        self.sets.push_back(Set { units, strikes: 1, accused: Some(Accusation::Silent("proxy_refused")), part: false });
    }

    /// The next trial, unless one is under way.
    pub(crate) fn next_trial(&self) -> Option<Trial> {
        let set = self.sets.front().filter(|_| !self.trial_under_way)?;
        Some(match set.accused {
            Some(_) => Trial::Probe,
            None => Trial::Send(set.units.concat()),
        })
    }

    /// The trial starts, with these units: others of the set have ended meanwhile, or wait for something else now.
    pub(crate) fn begin(&mut self, units: Option<Vec<Vec<u64>>>) {
        self.trial_under_way = true;
        if let (Some(units), Some(set)) = (units, self.sets.front_mut()) {
            set.units = units;
        }
    }

    /// The trial was answered, or given up.
    pub(crate) fn end(&mut self) {
        self.trial_under_way = false;
    }

    /// The first set is cleared, or nothing is left of it.
    pub(crate) fn clear(&mut self) {
        self.sets.pop_front();
    }

    /// The first set was blamed. Returns whether it is accused.
    pub(crate) fn blamed(&mut self, blame: Blame) -> bool {
        let Some(set) = self.sets.front_mut() else { return false };
        // An empty push has shown already that the endpoint answers. Before somebody is charged it must show so again.
        if set.part && set.units.len() > 1 {
            self.split(0);
            return false;
        }
        set.accused = Some(Accusation::Blamed(blame));
        true
    }

    /// The first set met silence. Returns whether it is accused.
    pub(crate) fn silent(&mut self, reason: &'static str) -> bool {
        let Some(set) = self.sets.front_mut() else { return false };
        set.strikes += 1;
        if set.strikes >= STRIKES && !planted!(SilenceWithoutSearch) {
            set.accused = Some(Accusation::Silent(reason));
        }
        set.accused.is_some()
    }

    /// The first set is too large.
    pub(crate) fn too_large(&mut self) {
        self.split(0);
    }

    /// The empty push failed too: it is the connection. The set is tried again as it is; returns those whose leases are over.
    pub(crate) fn probe_failed(&mut self) -> Vec<u64> {
        self.sets.front_mut().map_or_else(Vec::new, drop_charge)
    }

    /// No accusation can be followed up now. Returns those whose leases are over.
    pub(crate) fn adjourn(&mut self) -> Vec<u64> {
        self.sets.iter_mut().flat_map(drop_charge).collect()
    }

    /// The empty push was answered.
    pub(crate) fn probe_passed(&mut self) -> Option<Sentence> {
        let set = self.sets.front_mut()?;
        let accusation = set.accused.take()?;
        let all = set.units.concat();
        if set.units.len() == 1 {
            self.sets.pop_front();
            return Some(Sentence::Charge(all, accusation));
        }
        // Silence is only ever judged twice; a part starts with the strike that its whole has earned.
        self.split(u32::from(matches!(accusation, Accusation::Silent(_))));
        Some(Sentence::Search(all))
    }

    /// These share no batch from now on.
    pub(crate) fn isolate(&mut self, unit: &[u64], silent: bool) {
        self.loners.extend(unit.iter().map(|sequence| (*sequence, silent)));
    }

    /// These have been answered, or have failed.
    pub(crate) fn acquit(&mut self, units: &[Vec<u64>]) {
        for sequence in units.iter().flatten() {
            self.loners.remove(sequence);
        }
    }

    fn split(&mut self, strikes: u32) {
        let Some(mut set) = self.sets.pop_front() else { return };
        let behind = set.units.split_off(set.units.len().div_ceil(2));
        for units in [behind, set.units] {
            if !units.is_empty() {
                self.sets.push_front(Set { units, strikes, accused: None, part: true });
            }
        }
    }
}

fn drop_charge(set: &mut Set) -> Vec<u64> {
    set.accused.take().map_or_else(Vec::new, |_| set.units.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame() -> Blame {
        Blame { reason: "internal".into(), message: "no".into(), attempt: true }
    }

    fn singles(range: std::ops::Range<u64>) -> Vec<Vec<u64>> {
        range.map(|sequence| vec![sequence]).collect()
    }

    /// Plays a search to its end; `bad` blames every batch it is in. Returns who was charged, and the requests it took.
    fn search(units: Vec<Vec<u64>>, bad: &[u64]) -> (Vec<u64>, usize) {
        let mut suspects = Suspects::default();
        suspects.add_blamed(units, blame());
        let (mut charged, mut requests) = (Vec::new(), 1);
        while let Some(trial) = suspects.next_trial() {
            requests += 1;
            suspects.begin(None);
            suspects.end();
            match trial {
                Trial::Probe => {
                    if let Some(Sentence::Charge(unit, _)) = suspects.probe_passed() {
                        charged.extend(unit);
                    }
                }
                Trial::Send(sent) if sent.iter().any(|sequence| bad.contains(sequence)) => {
                    suspects.blamed(blame());
                }
                Trial::Send(_) => suspects.clear(),
            }
        }
        (charged, requests)
    }

    #[test]
    fn the_culprit_is_found_among_any_number_and_nobody_else_is_charged() {
        for n in 1..=130u64 {
            for bad in [0, n / 3, n - 1] {
                let (charged, requests) = search(singles(0..n), &[bad]);
                assert_eq!(charged, [bad]);
                let bound = 2 * (n as f64).log2().ceil() as usize + 3;
                assert!(requests <= bound, "{requests} requests for {n}");
            }
        }
    }

    #[test]
    fn several_culprits_are_found_in_one_search() {
        assert_eq!(search(singles(0..100), &[3, 4, 77]).0, [3, 4, 77]);
    }

    #[test]
    fn a_transaction_is_never_split() {
        assert_eq!(search(vec![vec![1], vec![2, 3, 4], vec![5]], &[3]).0, [2, 3, 4]);
    }

    #[test]
    fn silence_counts_only_when_it_repeats_and_an_empty_push_is_answered() {
        let mut suspects = Suspects::default();
        assert!(!suspects.add_silent(singles(0..2), "not_our_endpoint"));
        assert_eq!(suspects.next_trial(), Some(Trial::Send(vec![0, 1])));
        assert!(!suspects.is_searching());
        assert!(suspects.silent("not_our_endpoint"));
        assert_eq!(suspects.next_trial(), Some(Trial::Probe));
        assert_eq!(suspects.probe_failed(), [0, 1]);
        assert_eq!(suspects.next_trial(), Some(Trial::Send(vec![0, 1])), "as it was");
        assert!(suspects.silent("not_our_endpoint"));
        assert_eq!(suspects.probe_passed(), Some(Sentence::Search(vec![0, 1])));
        assert_eq!(suspects.next_trial(), Some(Trial::Send(vec![0])));
        suspects.clear();
        assert!(suspects.silent("not_our_endpoint"));
        assert_eq!(suspects.probe_passed(), Some(Sentence::Charge(vec![1], Accusation::Silent("not_our_endpoint"))));
        assert_eq!(suspects.next_trial(), None);
    }

    #[test]
    fn one_known_for_silence_is_suspect_at_once() {
        let mut suspects = Suspects::default();
        suspects.isolate(&[7], true);
        assert!(suspects.is_loner(7));
        assert!(suspects.add_silent(vec![vec![7]], "not_our_endpoint"));
        assert_eq!(suspects.next_trial(), Some(Trial::Probe));
        suspects.acquit(&[vec![7]]);
        assert!(!suspects.is_loner(7));
    }

    #[test]
    fn one_trial_at_a_time() {
        let mut suspects = Suspects::default();
        suspects.add_blamed(singles(0..2), blame());
        suspects.add_blamed(singles(2..4), blame());
        suspects.begin(None);
        assert_eq!(suspects.next_trial(), None);
        suspects.end();
        assert_eq!(suspects.next_trial(), Some(Trial::Probe));
    }
}
