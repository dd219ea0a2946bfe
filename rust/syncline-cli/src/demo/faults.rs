//! What may happen to an exchange on its way, drawn from a seed.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// What becomes of one exchange between a device and the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It passes.
    None,
    /// The request never reaches the endpoint.
    DropBefore,
    /// The endpoint has committed; its answer never reaches the device.
    DropAfter,
    /// It passes late.
    Delay(Duration),
    /// The answer breaks off in the middle.
    Truncate,
    /// Somebody answers 503 with `Retry-After: 1`: the endpoint (with its header) or a proxy before it (without).
    Unavailable { ours: bool },
    /// The connection breaks off in the middle of the request, on its way to the endpoint.
    CutRequest,
    /// The endpoint has committed; the connection is reset instead of an answer.
    Reset,
    /// A proxy answers with a page of its own; the endpoint hears nothing.
    Page(u16),
    /// An answer 200 is held back until the line is released or the device is gone.
    Hold,
}

/// How a line behaves when no fault is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything passes.
    Clear,
    /// About a third of the exchanges suffer.
    Flaky,
    /// About half of the exchanges suffer, from everything that there is.
    #[cfg_attr(not(feature = "chaos"), expect(dead_code, reason = "nothing in the demo's day is that bad"))]
    Storm,
    /// No connection can be made.
    Offline,
    /// No push gets its answer.
    Holding,
}

/// One line's luck: faults ordered for the next pushes, then the weather.
#[derive(Debug)]
pub(crate) struct Luck {
    pub(crate) weather: Weather,
    /// Of a hundred pushes, so many arrive twice.
    pub(crate) duplicates: u32,
    ordered: VecDeque<Fault>,
    /// Pushes that still get through before all are held.
    until_holding: Option<usize>,
    random: StdRng,
}

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            weather: Weather::Clear,
            duplicates: 0,
            ordered: VecDeque::new(),
            until_holding: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Orders a fault for the next push that has none yet.
    #[cfg(test)]
    pub(crate) fn order(&mut self, fault: Fault) {
        self.ordered.push_back(fault);
    }

    /// Holds every push once so many have got through.
    pub(crate) fn hold_after(&mut self, pushes: usize) {
        self.until_holding = Some(pushes);
    }

    /// A push got through, with its answer.
    pub(crate) fn push_passed(&mut self) {
        match &mut self.until_holding {
            Some(0) => {
                self.until_holding = None;
                self.weather = Weather::Holding;
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    /// Orders each kind of fault once, in an order drawn from the seed, so that no run goes without one of them.
    pub(crate) fn order_one_of_each(&mut self) {
        let mut kinds = [
            Fault::DropBefore,
            Fault::DropAfter,
            Fault::Delay(Duration::from_millis(120)),
            Fault::Truncate,
            Fault::Unavailable { ours: true },
            Fault::Unavailable { ours: false },
        ];
        for i in (1..kinds.len()).rev() {
            kinds.swap(i, self.random.random_range(0..=i));
        }
        self.ordered.extend(kinds);
    }

    /// Faults that were ordered and have not happened yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.ordered.len()
    }

    /// What happens to the next exchange.
    pub(crate) fn draw(&mut self, is_push: bool) -> Fault {
        if is_push && self.weather == Weather::Holding {
            return Fault::Hold;
        }
        if is_push && let Some(fault) = self.ordered.pop_front() {
            return fault;
        }
        match self.weather {
            Weather::Flaky => self.flaky(),
            Weather::Storm => self.storm(),
            _ => Fault::None,
        }
    }

    /// Whether the next push arrives twice. Draws nothing where none does: a seed means what it meant.
    pub(crate) fn draw_duplicate(&mut self) -> bool {
        self.duplicates > 0 && self.random.random_ratio(self.duplicates, 100)
    }

    fn storm(&mut self) -> Fault {
        match self.random.random_range(0..100) {
            0..7 => Fault::DropBefore,
            7..15 => Fault::DropAfter,
            15..21 => Fault::Truncate,
            21..26 => Fault::CutRequest,
            26..32 => Fault::Reset,
            32..37 => Fault::Page([200, 404, 502, 520][self.random.random_range(0..4)]),
            37..39 => Fault::Unavailable { ours: self.random.random() },
            39..41 => Fault::Hold,
            41..55 => Fault::Delay(Duration::from_millis(self.random.random_range(20..1_500))),
            _ => Fault::None,
        }
    }

    fn flaky(&mut self) -> Fault {
        match self.random.random_range(0..100) {
            0..6 => Fault::DropBefore,
            6..12 => Fault::DropAfter,
            12..16 => Fault::Truncate,
            16..17 => Fault::Unavailable { ours: true },
            17..18 => Fault::Unavailable { ours: false },
            18..33 => Fault::Delay(Duration::from_millis(self.random.random_range(20..200))),
            _ => Fault::None,
        }
    }
}

/// What happened on a line so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Requests that came in whole.
    pub(crate) requests: u64,
    /// Pushes that arrived twice.
    pub(crate) duplicated: u64,
    pub(crate) dropped_before: u64,
    /// … of exchanges that the endpoint answered with 200.
    pub(crate) dropped_after: u64,
    pub(crate) delayed: u64,
    pub(crate) truncated: u64,
    /// 503, the endpoint's and a proxy's.
    pub(crate) unavailable: u64,
    /// Connections refused while offline.
    pub(crate) refused: u64,
    pub(crate) held: u64,
    pub(crate) cut_requests: u64,
    pub(crate) resets: u64,
    /// A proxy's pages.
    pub(crate) pages: u64,
    /// The endpoint's answers 401.
    pub(crate) unauthorized: u64,
    /// The endpoint's answers 413.
    pub(crate) too_large: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.duplicated += other.duplicated;
        self.dropped_before += other.dropped_before;
        self.dropped_after += other.dropped_after;
        self.delayed += other.delayed;
        self.truncated += other.truncated;
        self.unavailable += other.unavailable;
        self.refused += other.refused;
        self.held += other.held;
        self.cut_requests += other.cut_requests;
        self.resets += other.resets;
        self.pages += other.pages;
        self.unauthorized += other.unauthorized;
        self.too_large += other.too_large;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_luck() {
        let draw = |seed| {
            let mut luck = Luck::new(seed);
            luck.weather = Weather::Flaky;
            luck.order_one_of_each();
            (0..200).map(|_| luck.draw(true)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn what_is_ordered_happens_to_pushes_first() {
        let mut luck = Luck::new(1);
        luck.order(Fault::Truncate);
        assert_eq!(luck.draw(false), Fault::None);
        assert_eq!((luck.draw(true), luck.draw(true)), (Fault::Truncate, Fault::None));
    }

    #[test]
    fn pushes_are_held_once_so_many_have_got_through() {
        let mut luck = Luck::new(1);
        luck.hold_after(1);
        luck.push_passed();
        assert_eq!(luck.draw(true), Fault::None);
        luck.push_passed();
        assert_eq!((luck.draw(true), luck.draw(true), luck.draw(false)), (Fault::Hold, Fault::Hold, Fault::None));
    }
}
