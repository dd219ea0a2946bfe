//! What happens in a random world, as data: drawn from a seed, run by [`crate::worlds`], and made smaller when it fails.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One thing that happens. Numbers that name something (`device`, `which`) count modulo what there is, so that a plan stays
/// a plan when steps are left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Step {
    /// The user writes.
    Write { device: u8, intent: Intent, depends: bool },
    /// The user writes several things as one.
    Group { device: u8, members: Vec<Intent> },
    /// The user decides about an operation that waits, failed or conflicts.
    Act { device: u8, action: Action, which: u8 },
    /// Something happens to the device's next request.
    Next { device: u8, fault: Mishap },
    /// Something happens to every request of the device that carries the payload `poison`, until the end.
    Poison { device: u8, wall: Wall },
    /// Something that was held arrives; the newest first, or the oldest.
    Release { device: u8, newest: bool },
    /// An old request arrives once more.
    Stray { which: u16 },
    /// `process_queue` is called; nobody waits for it.
    Process { device: u8 },
    /// Background processing begins or ends.
    Background { device: u8, on: bool },
    /// The platform reports a network, or none.
    Online { device: u8, on: bool },
    /// Some of what is ready happens.
    Some { steps: u8 },
    /// All that needs no time happens.
    Idle,
    /// Time passes.
    Pass { seconds: u16 },
    /// The process dies and is opened again.
    Kill { device: u8 },
    /// A device's file is copied to a new device.
    Copy { device: u8 },
    /// A device's clock is set.
    Jump { device: u8, seconds: i32 },
    /// The server's file is copied.
    Snapshot,
    /// The last copy of the server's file takes its place, and the operator says so.
    Restore,
}

/// A write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Which kind.
    pub kind: Kind,
    /// Of [`crate::worlds::TYPES`].
    pub entity_type: u8,
    /// One of few, so that devices meet.
    pub entity: u8,
    /// One of few.
    pub field: u8,
    /// What to write; see [`Intent::payload`].
    pub value: u8,
}

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A create.
    Create,
    /// An update.
    Update,
    /// A delete.
    Delete,
}

impl Intent {
    /// JSON text: 0 removes the field, 9 is the poison, the rest are numbers.
    pub fn payload(self) -> String {
        let field = self.field;
        match self.value {
            0 => format!(r#"{{"f{field}":null}}"#),
            9 => format!(r#"{{"f{field}":"poison"}}"#),
            value => format!(r#"{{"f{field}":{value}}}"#),
        }
    }
}

/// What a user does about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Withdraws it.
    Cancel,
    /// Tries it again.
    Retry,
    /// Gives it up.
    Discard,
    /// Resolves: the own value stands.
    TakeLocal,
    /// Resolves: theirs stands.
    TakeRemote,
    /// Resolves: another value stands.
    Merged,
    /// Brings back what lost in a ledger entry.
    Reopen,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// It finds no way.
    Unreachable,
    /// It is lost.
    LostBefore,
    /// Its answer is lost.
    LostAfter,
    /// It waits on the way.
    HeldRequest,
    /// Its answer waits on the way.
    HeldAnswer,
    /// It arrives twice.
    Twice,
    /// Its answer is cut off.
    Truncated,
    /// A captive portal answers.
    Portal,
    /// A proxy answers: nobody here.
    ProxyNotFound,
    /// A proxy answers: nobody behind.
    ProxyBadGateway,
    /// A proxy answers after our endpoint has decided.
    ProxyAfter,
    /// Our endpoint wants a fresh credential.
    Unauthorized,
    /// Our endpoint wants another credential.
    Forbidden,
    /// Our endpoint finds it too large.
    TooLarge,
    /// Something on the way finds it too large.
    ProxyTooLarge,
    /// Our endpoint is asked too often.
    TooMany,
    /// Our endpoint cannot answer for two minutes.
    Unavailable,
    /// Our endpoint fails.
    Internal,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Unreachable,
        Self::LostBefore,
        Self::LostAfter,
        Self::HeldRequest,
        Self::HeldAnswer,
        Self::Twice,
        Self::Truncated,
        Self::Portal,
        Self::ProxyNotFound,
        Self::ProxyBadGateway,
        Self::ProxyAfter,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooLarge,
        Self::ProxyTooLarge,
        Self::TooMany,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// Who dislikes one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wall {
    /// Our endpoint fails on it.
    Endpoint,
    /// A firewall answers for our endpoint.
    Firewall,
}

/// A random life, as steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Decides ids, jitter, the order of steps, and how the world is set up.
    pub seed: u64,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Plan {
    /// A plan of `length` steps. Which kinds of trouble it has is drawn first: with all of them at once, few would go far.
    pub fn draw(seed: u64, length: usize) -> Self {
        let mut draw = Draw(StdRng::seed_from_u64(seed));
        let trouble = Trouble {
            faults: draw.one_in(4, 3),
            deaths: draw.one_in(2, 1),
            copies: draw.one_in(4, 1),
            restores: draw.one_in(4, 1),
            jumps: draw.one_in(3, 1),
            walls: draw.one_in(3, 1),
        };
        let steps = (0..length).map(|_| draw.step(trouble)).collect();
        Self { seed, steps }
    }

    /// The smallest plan found that still fails: parts are left out, ever smaller ones, for as long as `fails` says yes.
    /// Tries at most `tries` plans.
    #[must_use]
    pub fn shrink(&self, mut tries: usize, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut best = self.clone();
        let mut part = best.steps.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            let mut shrunk = false;
            while at < best.steps.len() {
                if tries == 0 {
                    return best;
                }
                tries -= 1;
                let mut smaller = best.clone();
                smaller.steps.drain(at..(at + part).min(best.steps.len()));
                if fails(&smaller) {
                    best = smaller;
                    shrunk = true;
                } else {
                    at += part;
                }
            }
            part = if shrunk && part == 1 { 1 } else { part / 2 };
        }
        best
    }
}

/// Which kinds of trouble a plan has.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    faults: bool,
    deaths: bool,
    copies: bool,
    restores: bool,
    jumps: bool,
    walls: bool,
}

struct Draw(StdRng);

impl Draw {
    fn below(&mut self, end: u8) -> u8 {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, all: u8, good: u8) -> bool {
        self.below(all) < good
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.random_range(0..values.len())]
    }

    fn step(&mut self, trouble: Trouble) -> Step {
        loop {
            let device = self.below(12);
            let step = match self.below(100) {
                0..24 => Step::Write { device, intent: self.intent(), depends: self.one_in(5, 1) },
                24..29 => {
                    let count = 1 + self.below(4);
                    Step::Group { device, members: (0..count).map(|_| self.intent()).collect() }
                }
                29..39 => Step::Act { device, action: self.action(), which: self.below(255) },
                39..53 if trouble.faults => Step::Next { device, fault: self.of(&Mishap::ALL) },
                53..57 if trouble.faults => Step::Release { device, newest: self.one_in(3, 1) },
                57..59 if trouble.faults => Step::Stray { which: self.0.random_range(0..1000) },
                59..60 if trouble.walls => Step::Poison { device, wall: self.of(&[Wall::Endpoint, Wall::Firewall]) },
                60..68 => Step::Process { device },
                68..72 => Step::Background { device, on: self.one_in(3, 2) },
                72..74 => Step::Online { device, on: self.one_in(2, 1) },
                74..82 => Step::Some { steps: 1 + self.below(12) },
                82..88 => Step::Idle,
                88..93 => Step::Pass { seconds: self.of(&[1, 2, 5, 20, 31, 70, 200, 1200]) },
                93..96 if trouble.deaths => Step::Kill { device },
                96..97 if trouble.copies => Step::Copy { device },
                97..98 if trouble.jumps => {
                    Step::Jump { device, seconds: self.of(&[-90_000, -3600, -5, 5, 3600, 90_000]) }
                }
                98..99 if trouble.restores => Step::Snapshot,
                99..100 if trouble.restores => Step::Restore,
                _ => continue,
            };
            return step;
        }
    }

    fn intent(&mut self) -> Intent {
        Intent {
            kind: self.of(&[Kind::Create, Kind::Create, Kind::Update, Kind::Update, Kind::Update, Kind::Delete]),
            entity_type: self.below(crate::worlds::TYPES.len() as u8),
            entity: self.below(3),
            field: self.below(3),
            value: self.below(10),
        }
    }

    fn action(&mut self) -> Action {
        use Action::{Cancel, Discard, Merged, Reopen, Retry, TakeLocal, TakeRemote};
        self.of(&[Cancel, Cancel, Cancel, Retry, Retry, Discard, TakeLocal, TakeLocal, TakeRemote, Merged, Reopen])
    }
}
