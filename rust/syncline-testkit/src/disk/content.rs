//! The bytes of one file, and what of them has not reached the disk for good.

use rand::RngExt;
use rand::rngs::StdRng;

/// What a disk writes at once, if nothing goes wrong.
pub(super) const SECTOR: usize = 512;
/// A torn sector is cut between words, as memory and buses move them. SQLite's checksums and salts are whole words of its files,
/// so that what survives never hangs on which salt SQLite drew.
const WORD: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// The disk holds what a read gives.
    Clean,
    /// Written since the last sync.
    Unsynced,
    /// Cut off since the last sync, and not written again.
    Cut,
    /// A failed sync forgot it: a read gives it until power is lost, and no later sync writes it.
    Forgotten,
}

struct Unsynced {
    sector: u32,
    /// Where `before` keeps what the disk holds; zeros if none.
    before: Option<u32>,
}

/// How much of what was in flight arrives when power is lost.
#[derive(Clone, Copy)]
pub(super) enum Arrival {
    Nothing,
    Everything,
    /// Each sector on its own: one in eight is torn, of the others so many in a hundred survive.
    Some(u32),
}

/// What became of unsynced sectors.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) survived: u64,
    pub(super) vanished: u64,
    pub(super) torn: u64,
}

/// Bytes as a read gives them, with a way back to what the disk holds.
#[derive(Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    /// By sector; those beyond its end are clean.
    fates: Vec<Fate>,
    /// Every sector that is not clean, in the order of the first write.
    unsynced: Vec<Unsynced>,
    before: Vec<[u8; SECTOR]>,
    durable_len: usize,
    /// The longest that the file was since the last sync.
    longest: usize,
    /// The shortest that it was cut to since the last sync.
    cut: Option<usize>,
}

impl Content {
    /// A file whose bytes are all on the disk.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes, durable_len: len, longest: len, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives how many bytes there were.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let there = self.bytes.get(offset..).unwrap_or_default();
        let count = there.len().min(into.len());
        into[..count].copy_from_slice(&there[..count]);
        count
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.touch(offset, offset + data.len(), Fate::Unsynced);
        if offset > self.bytes.len() {
            self.bytes.resize(offset, 0);
        }
        let (over, beyond) = data.split_at(data.len().min(self.bytes.len() - offset));
        self.bytes[offset..offset + over.len()].copy_from_slice(over);
        self.bytes.extend_from_slice(beyond);
        self.longest = self.longest.max(self.bytes.len());
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.touch(len, self.bytes.len(), Fate::Cut);
            self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
        }
        self.bytes.resize(len, 0);
        self.longest = self.longest.max(len);
    }

    /// Keeps what the disk holds of the sectors of a range that is about to change.
    fn touch(&mut self, from: usize, to: usize, change: Fate) {
        let sectors = from / SECTOR..to.div_ceil(SECTOR);
        if self.fates.len() < sectors.end {
            self.fates.resize(sectors.end, Fate::Clean);
        }
        for sector in sectors {
            let fate = &mut self.fates[sector];
            if *fate == Fate::Clean {
                let there = self.bytes.get(sector * SECTOR..).unwrap_or_default();
                let there = &there[..there.len().min(SECTOR)];
                let before = (!there.is_empty()).then(|| {
                    let mut kept = [0; SECTOR];
                    kept[..there.len()].copy_from_slice(there);
                    self.before.push(kept);
                    self.before.len() as u32 - 1
                });
                self.unsynced.push(Unsynced { sector: sector as u32, before });
            }
            // A sector that is cut in its middle keeps the fate of what is left of it.
            if change == Fate::Unsynced || *fate == Fate::Clean || sector * SECTOR >= from {
                *fate = change;
            }
        }
    }

    /// All that was written is on the disk, but for what a failed sync forgot.
    pub(super) fn sync(&mut self) {
        self.clean(|fate| *fate != Fate::Forgotten);
        self.synced_length();
    }

    /// A sync that fails: of every sector, and of the length, nobody knows whether the disk has it, and no later sync will
    /// see to it, as on Linux, which marks the pages clean all the same.
    pub(super) fn fail_sync(&mut self, random: &mut StdRng) {
        let length_arrives = random.random_bool(0.5);
        self.clean(|fate| match fate {
            Fate::Cut => length_arrives,
            Fate::Unsynced if random.random_bool(0.5) => true,
            _ => {
                *fate = Fate::Forgotten;
                false
            }
        });
        if length_arrives {
            self.synced_length();
        }
    }

    fn clean(&mut self, mut arrives: impl FnMut(&mut Fate) -> bool) {
        let fates = &mut self.fates;
        self.unsynced.retain(|unsynced| {
            let fate = &mut fates[unsynced.sector as usize];
            let arrived = arrives(fate);
            if arrived {
                *fate = Fate::Clean;
            }
            !arrived
        });
        if self.unsynced.is_empty() {
            self.before.clear();
        }
    }

    fn synced_length(&mut self) {
        self.cut_before();
        self.durable_len = self.bytes.len();
        self.longest = self.durable_len;
    }

    /// The cut is on the disk: what it cut off no sector can go back to.
    fn cut_before(&mut self) {
        let Some(cut) = self.cut.take() else { return };
        for unsynced in &self.unsynced {
            if let Some(before) = unsynced.before {
                let kept = cut.saturating_sub(unsynced.sector as usize * SECTOR).min(SECTOR);
                self.before[before as usize][kept..].fill(0);
            }
        }
    }

    /// Leaves what the disk holds after power was lost. Each unsynced sector fares on its own, and so does the length.
    ///
    /// A file grows as its sectors do, and may stop on the way. But it is cut at once or not at all: file systems keep lengths
    /// in their own journal, and SQLite relies on it when it truncates a WAL that it has done with.
    pub(super) fn lose_power(&mut self, arrival: Arrival, random: &mut StdRng) -> Losses {
        let mut losses = Losses::default();
        let is_cut = match arrival {
            Arrival::Nothing => false,
            Arrival::Everything => true,
            Arrival::Some(_) => random.random_bool(0.5),
        };
        let lengths = match self.cut {
            Some(_) if !is_cut => (self.durable_len, self.longest),
            Some(cut) => (cut, self.bytes.len()),
            None => (self.durable_len, self.bytes.len()),
        };
        let len = match (arrival, random.random_range(0..3)) {
            (Arrival::Nothing, _) | (Arrival::Some(_), 0) => lengths.0,
            (Arrival::Everything, _) | (Arrival::Some(_), 1) => lengths.1,
            (Arrival::Some(_), _) => random.random_range(lengths.0..=lengths.1),
        };
        if is_cut {
            self.cut_before();
        }
        let sectors = self.unsynced.iter().map(|unsynced| unsynced.sector as usize + 1).max().unwrap_or(0);
        self.bytes.resize(self.longest.max(len).max(sectors * SECTOR), 0);
        for Unsynced { sector, before } in std::mem::take(&mut self.unsynced) {
            let start = sector as usize * SECTOR;
            let now = &mut self.bytes[start..start + SECTOR];
            let old = before.map_or(&[0; SECTOR], |at| &self.before[at as usize]);
            let (survives, torn) = match (self.fates[sector as usize], arrival) {
                (Fate::Forgotten, _) | (_, Arrival::Nothing) => (false, false),
                (_, Arrival::Everything) => (true, false),
                (Fate::Cut, _) => (is_cut, false),
                (_, Arrival::Some(percent)) => (random.random_range(0..100) < percent, random.random_ratio(1, 8)),
            };
            if torn {
                let cut = random.random_range(1..SECTOR / WORD) * WORD;
                let lost = if random.random_bool(0.5) { cut..SECTOR } else { 0..cut };
                now[lost.clone()].copy_from_slice(&old[lost]);
                losses.torn += 1;
            } else if survives {
                losses.survived += 1;
            } else {
                now.copy_from_slice(old);
                losses.vanished += 1;
            }
        }
        self.bytes.truncate(len);
        self.fates.clear();
        self.before.clear();
        self.cut = None;
        self.synced_length();
        losses
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    /// A file as a plain list of what each byte may be after a power loss; beyond its end it is zeros.
    struct Model {
        now: Vec<u8>,
        may_be: Vec<BTreeSet<u8>>,
        failed: bool,
        lengths: BTreeSet<usize>,
    }

    const LONGEST: usize = 3 * SECTOR;

    impl Model {
        fn wrote(&mut self) {
            self.lengths.insert(self.now.len());
            for (at, may_be) in self.may_be.iter_mut().enumerate() {
                may_be.insert(self.now.get(at).copied().unwrap_or(0));
            }
        }

        fn certain(&mut self) {
            self.lengths.clear();
            self.may_be.iter_mut().for_each(BTreeSet::clear);
            self.wrote();
        }
    }

    fn step(content: &mut Content, model: &mut Model, random: &mut StdRng) {
        match random.random_range(0..10) {
            0..6 => {
                let offset = random.random_range(0..LONGEST);
                let data: Vec<u8> = vec![random.random(); random.random_range(0..=(LONGEST - offset).min(700))];
                content.write(offset, &data);
                if !data.is_empty() {
                    model.now.resize(model.now.len().max(offset + data.len()), 0);
                    model.now[offset..offset + data.len()].copy_from_slice(&data);
                }
                model.wrote();
            }
            6 => {
                let len = random.random_range(0..LONGEST);
                content.truncate(len);
                model.now.resize(len, 0);
                model.wrote();
            }
            7 => {
                content.fail_sync(random);
                model.failed = true;
            }
            _ => {
                content.sync();
                if !model.failed {
                    model.certain();
                }
            }
        }
    }

    #[test]
    fn a_byte_is_what_was_synced_or_what_was_written_since() {
        let (mut certain, mut torn) = (0, 0);
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut content = Content::default();
            let zero = BTreeSet::from([0]);
            let mut model =
                Model { now: vec![], may_be: vec![zero; LONGEST], failed: false, lengths: BTreeSet::from([0]) };
            for _ in 0..3 {
                for _ in 0..random.random_range(0..12) {
                    step(&mut content, &mut model, &mut random);
                    assert_eq!(content.bytes(), model.now, "seed {seed}: a read gives what was written last");
                }
                let arrival = [Arrival::Nothing, Arrival::Everything, Arrival::Some(50)][random.random_range(0..3)];
                torn += content.lose_power(arrival, &mut random).torn;
                let (shortest, longest) = (model.lengths.first().unwrap(), model.lengths.last().unwrap());
                assert!((shortest..=longest).contains(&&content.len()), "seed {seed}: {}", content.len());
                for (at, byte) in content.bytes().iter().enumerate() {
                    let may_be = &model.may_be[at];
                    assert!(may_be.contains(byte) || (*byte == 0 && may_be.len() > 1), "seed {seed}: byte {at}");
                    certain += u64::from(may_be.len() == 1 && *byte != 0);
                }
                model.now = content.bytes().to_vec();
                model.failed = false;
                model.certain();
            }
        }
        assert!(certain > 20_000 && torn > 20, "{certain} certain bytes, {torn} torn sectors");
    }
}
