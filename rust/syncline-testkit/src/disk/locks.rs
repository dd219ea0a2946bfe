//! Who holds which lock: on a file, and on the WAL's index that the connections of a file share.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlite_plugin::flags::{LockLevel, ShmLockMode};
use sqlite_plugin::vars;

/// An open file of a process.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Holder {
    pub(super) handle: u64,
    pub(super) process: usize,
}

/// The locks on one file. A handle that is not listed holds none.
#[derive(Default)]
pub(super) struct FileLocks {
    held: Vec<(Holder, LockLevel)>,
}

impl FileLocks {
    /// Raises a handle's lock, by the rules of SQLite's own file locks.
    pub(super) fn lock(&mut self, holder: Holder, wanted: LockLevel) -> Result<(), i32> {
        let others = self.held.iter().filter(|(other, _)| *other != holder).map(|(_, level)| *level).max();
        let others = others.unwrap_or(LockLevel::Unlocked);
        let own = self.level(holder);
        if own >= wanted {
            return Ok(());
        }
        let granted = match wanted {
            LockLevel::Shared => others < LockLevel::Pending,
            _ => others < LockLevel::Reserved,
        };
        if !granted {
            return Err(vars::SQLITE_BUSY);
        }
        if wanted == LockLevel::Exclusive && others >= LockLevel::Shared {
            // Nobody new may read, so that the readers there are end some day.
            self.set(holder, LockLevel::Pending);
            return Err(vars::SQLITE_BUSY);
        }
        self.set(holder, wanted);
        Ok(())
    }

    pub(super) fn unlock(&mut self, holder: Holder, left: LockLevel) {
        if self.level(holder) > left {
            self.set(holder, left);
        }
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.held.iter().any(|(_, level)| *level >= LockLevel::Reserved)
    }

    pub(super) fn release(&mut self, gone: impl Fn(&Holder) -> bool) {
        self.held.retain(|(holder, _)| !gone(holder));
    }

    fn level(&self, holder: Holder) -> LockLevel {
        self.held.iter().find(|(other, _)| *other == holder).map_or(LockLevel::Unlocked, |(_, level)| *level)
    }

    fn set(&mut self, holder: Holder, level: LockLevel) {
        match self.held.iter_mut().find(|(other, _)| *other == holder) {
            Some((_, held)) => *held = level,
            None => self.held.push((holder, level)),
        }
    }
}

/// Memory that all connections of a file share. A region never moves, and lives for as long as any of them may look at it.
#[derive(Default)]
pub(super) struct Regions {
    /// Words, since SQLite lays structures over it.
    regions: Mutex<Vec<Box<[u64]>>>,
}

impl Regions {
    /// The start of a region, made with zeros if need be and wanted. `Err` if it would have to be made and may not.
    pub(super) fn map(
        &self,
        index: usize,
        bytes: usize,
        make: bool,
        full: bool,
    ) -> Result<Option<std::ptr::NonNull<u8>>, i32> {
        let mut regions = self.regions.lock();
        if regions.len() <= index {
            if !make {
                return Ok(None);
            }
            if full {
                return Err(vars::SQLITE_IOERR_SHMSIZE);
            }
            regions.resize_with(index + 1, || vec![0; bytes.div_ceil(size_of::<u64>())].into_boxed_slice());
        }
        Ok(Some(std::ptr::NonNull::from(&mut *regions[index]).cast()))
    }
}

struct IndexHolder {
    holder: Holder,
    shared: u32,
    exclusive: u32,
}

/// The WAL's index of one file, while any living connection has it.
#[derive(Default)]
pub(super) struct SharedIndex {
    pub(super) regions: Arc<Regions>,
    holders: Vec<IndexHolder>,
}

impl SharedIndex {
    pub(super) fn join(&mut self, holder: Holder) {
        self.holders.push(IndexHolder { holder, shared: 0, exclusive: 0 });
    }

    /// Takes or gives back the locks of a range. Nobody waits: what cannot be had is busy.
    pub(super) fn lock(&mut self, holder: Holder, offset: u32, count: u32, mode: ShmLockMode) -> Result<(), i32> {
        let mask = ((1u32 << count) - 1) << offset;
        let (mut shared, mut exclusive, mut own) = (0, 0, None);
        for held in &mut self.holders {
            if held.holder == holder {
                own = Some(held);
            } else {
                shared |= held.shared;
                exclusive |= held.exclusive;
            }
        }
        let own = own.ok_or(vars::SQLITE_IOERR_SHMLOCK)?;
        match mode {
            ShmLockMode::UnlockShared => own.shared &= !mask,
            ShmLockMode::UnlockExclusive => own.exclusive &= !mask,
            ShmLockMode::LockShared if exclusive & mask == 0 => own.shared |= mask,
            ShmLockMode::LockExclusive if (shared | exclusive) & mask == 0 => own.exclusive |= mask,
            ShmLockMode::LockShared | ShmLockMode::LockExclusive => return Err(vars::SQLITE_BUSY),
        }
        Ok(())
    }

    /// Gives whether anybody is left.
    pub(super) fn release(&mut self, gone: impl Fn(&Holder) -> bool) -> bool {
        self.holders.retain(|held| !gone(&held.holder));
        !self.holders.is_empty()
    }
}
