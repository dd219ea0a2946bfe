//! How large a batch may be. It shrinks when somebody says so and grows again while answers are quick.

use syncline_protocol::{Limits, MAX_BATCH_TARGET_BYTES, MAX_OPERATIONS};

use super::planner::Room;

/// An answer within this time invites a larger batch.
pub(crate) const QUICK_MS: i64 = 2_000;
const LEAST_BYTES: usize = 1_024;

/// The size of the next batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchSize {
    room: Room,
    /// What the endpoint said last that it takes, and what a client aims at.
    limits: Room,
    /// Less than what was refused on this network.
    below_refused: Room,
}

const MOST: Room = Room { operations: MAX_OPERATIONS, bytes: MAX_BATCH_TARGET_BYTES };

impl Default for BatchSize {
    fn default() -> Self {
        Self { room: MOST, limits: MOST, below_refused: Room::UNBOUNDED }
    }
}

impl BatchSize {
    /// The room of the next batch.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// A batch of this size was refused as too large. Half of it is tried next, and its size is not reached again.
    pub(crate) fn refused(&mut self, sent: Room, limits: Option<Limits>) {
        match limits {
            Some(limits) if !fits(sent, limits) => self.limit(limits),
            _ => {
                let below = Room { operations: sent.operations.saturating_sub(1), bytes: sent.bytes.saturating_sub(1) };
                self.below_refused = least(self.below_refused, below);
                self.slow(sent);
            }
        }
    }

    /// A batch of this size took too long: half of it next, without a lasting limit.
    pub(crate) fn slow(&mut self, sent: Room) {
        self.room = least(self.room, Room { operations: sent.operations / 2, bytes: sent.bytes / 2 });
    }

    /// The endpoint says what it takes.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.limits = least(MOST, to_room(limits));
        self.room = least(self.room, self.limits);
    }

    /// An answer was quick.
    pub(crate) fn quick(&mut self) {
        let grown = |now: usize| now.saturating_add(now / 4 + 1);
        let grown = Room { operations: grown(self.room.operations), bytes: grown(self.room.bytes) };
        self.room = least(least(grown, self.limits), self.below_refused);
    }

    /// Another network: what a proxy of the last one refused need not be refused here.
    pub(crate) fn forget(&mut self) {
        self.below_refused = Room::UNBOUNDED;
        self.room = self.limits;
    }
}

fn fits(sent: Room, limits: Limits) -> bool {
    let limits = to_room(limits);
    sent.operations <= limits.operations && sent.bytes <= limits.bytes
}

fn least(a: Room, b: Room) -> Room {
    Room { operations: a.operations.min(b.operations).max(1), bytes: a.bytes.min(b.bytes).max(LEAST_BYTES) }
}

fn to_room(limits: Limits) -> Room {
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    Room { operations: size(limits.max_operations), bytes: size(limits.max_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_size_is_halved_and_not_reached_again() {
        let mut size = BatchSize::default();
        size.refused(Room { operations: 400, bytes: 80_000 }, None);
        assert_eq!(size.room(), Room { operations: 200, bytes: 40_000 });
        for _ in 0..50 {
            size.quick();
        }
        assert_eq!(size.room(), Room { operations: 399, bytes: 79_999 });
        size.forget();
        assert_eq!(size.room(), Room { operations: MAX_OPERATIONS, bytes: MAX_BATCH_TARGET_BYTES });
    }

    #[test]
    fn limits_are_taken_at_their_word() {
        let mut size = BatchSize::default();
        size.refused(Room { operations: 500, bytes: 9_000 }, Some(Limits { max_operations: 100, max_bytes: 8 << 20 }));
        assert_eq!(size.room(), Room { operations: 100, bytes: MAX_BATCH_TARGET_BYTES });
        size.limit(Limits { max_operations: 20, max_bytes: 4_096 });
        size.quick();
        assert_eq!(size.room(), Room { operations: 20, bytes: 4_096 });
        size.limit(Limits::default());
        for _ in 0..50 {
            size.quick();
        }
        assert_eq!(size.room(), MOST, "an endpoint may take more again");
    }

    #[test]
    fn it_never_falls_to_nothing() {
        let mut size = BatchSize::default();
        size.refused(Room { operations: 1, bytes: 10 }, Some(Limits { max_operations: 0, max_bytes: 0 }));
        assert_eq!(size.room(), Room { operations: 1, bytes: LEAST_BYTES });
    }
}
