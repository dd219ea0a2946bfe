use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One write in the history of an entity: the `sequence`-th operation of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The device that wrote.
    pub device_id: String,
    /// The operation's sequence on that device.
    pub sequence: u64,
}

impl Dot {
    /// The dot (`device_id`, `sequence`).
    pub fn new(device_id: impl Into<String>, sequence: u64) -> Self {
        Self { device_id: device_id.into(), sequence }
    }
}

/// A vector clock: per device, the highest sequence that has been seen. A device that is absent counts as 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clock(BTreeMap<String, u64>);

/// How two clocks relate. There is no fifth answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOrder {
    /// Both have seen the same writes.
    Equal,
    /// The left one has seen less, and nothing that the right one has not.
    Before,
    /// The left one has seen more, and everything that the right one has.
    After,
    /// Each has seen something that the other has not.
    Concurrent,
}

impl Clock {
    /// A clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The highest sequence of `device_id` that this clock has seen, 0 for none.
    pub fn get(&self, device_id: &str) -> u64 {
        self.0.get(device_id).copied().unwrap_or(0)
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this clock has seen the write `dot`.
    pub fn covers(&self, dot: &Dot) -> bool {
        self.get(&dot.device_id) >= dot.sequence
    }

    /// Whether this clock has seen everything that `other` has.
    pub fn covers_clock(&self, other: &Clock) -> bool {
        other.0.iter().all(|(device, sequence)| self.get(device) >= *sequence)
    }

    /// Takes a dot in: the entry of its device becomes the maximum. Sequence 0 means "nothing" and leaves no entry.
    pub fn add(&mut self, dot: &Dot) {
        self.raise(&dot.device_id, dot.sequence);
    }

    /// The pointwise maximum with `other`, in place.
    pub fn merge(&mut self, other: &Clock) {
        for (device, sequence) in &other.0 {
            self.raise(device, *sequence);
        }
    }

    /// Compares what the two clocks have seen.
    pub fn compare(&self, other: &Clock) -> ClockOrder {
        match (self.covers_clock(other), other.covers_clock(self)) {
            (true, true) => ClockOrder::Equal,
            (true, false) => ClockOrder::After,
            (false, true) => ClockOrder::Before,
            (false, false) => ClockOrder::Concurrent,
        }
    }

    /// The entries, by device id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(device, sequence)| (device.as_str(), *sequence))
    }

    fn raise(&mut self, device_id: &str, sequence: u64) {
        if sequence > self.get(device_id) {
            self.0.insert(device_id.to_owned(), sequence);
        }
    }
}

impl FromIterator<Dot> for Clock {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut clock = Self::new();
        for dot in dots {
            clock.add(&dot);
        }
        clock
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock() -> impl Strategy<Value = Clock> {
        prop::collection::vec(("[A-D]", 0u64..5), 0..5)
            .prop_map(|dots| dots.into_iter().map(|(device, sequence)| Dot::new(device, sequence)).collect())
    }

    fn merged(a: &Clock, b: &Clock) -> Clock {
        let mut clock = a.clone();
        clock.merge(b);
        clock
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in clock(), b in clock(), c in clock()) {
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert!(merged(&a, &b).covers_clock(&a) && merged(&a, &b).covers_clock(&b));
        }

        #[test]
        fn comparison_has_four_answers_that_mirror_each_other(a in clock(), b in clock()) {
            let mirrored = match b.compare(&a) {
                ClockOrder::Before => ClockOrder::After,
                ClockOrder::After => ClockOrder::Before,
                same => same,
            };
            prop_assert_eq!(a.compare(&b), mirrored);
            prop_assert_eq!(a.compare(&b) == ClockOrder::Equal, a == b);
        }
    }

    #[test]
    fn sequence_zero_leaves_no_entry() {
        let clock: Clock = [Dot::new("A", 0)].into_iter().collect();
        assert!(clock.is_empty());
        assert!(clock.covers(&Dot::new("A", 0)));
    }
}
