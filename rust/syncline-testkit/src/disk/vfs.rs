//! SQLite's calls, brought to the disk that the path names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;
use sqlite_plugin::flags::{AccessFlags, CreateMode, LockLevel, OpenKind, OpenMode, OpenOpts, ShmLockMode};
use sqlite_plugin::vars;
use sqlite_plugin::vfs::{RegisterOpts, Vfs, VfsHandle, VfsResult, register_static};

use super::content::SECTOR;
use super::locks::{Holder, Regions, SharedIndex};
use super::state::State;
use super::{Disk, Failure};

/// Disks by number. Worlds run in parallel, and only an open, an access or a delete looks here: the shards keep them apart.
static DISKS: [Mutex<BTreeMap<u64, Weak<Inner>>>; 64] = [const { Mutex::new(BTreeMap::new()) }; 64];

/// A disk that is in the registry while anybody holds it.
pub(super) struct Inner {
    pub(super) number: u64,
    pub(super) state: Mutex<State>,
}

impl Inner {
    pub(super) fn register(number: u64, state: State) -> Arc<Self> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let name = CString::new(Disk::VFS).expect("a name without zeros");
            register_static(name, DiskVfs, RegisterOpts { make_default: false }).expect("SQLite takes one more VFS");
        });
        let inner = Arc::new(Self { number, state: Mutex::new(state) });
        shard(number).lock().insert(number, Arc::downgrade(&inner));
        inner
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        shard(self.number).lock().remove(&self.number);
    }
}

fn shard(number: u64) -> &'static Mutex<BTreeMap<u64, Weak<Inner>>> {
    &DISKS[number as usize % DISKS.len()]
}

/// Reads `/disk-12/process-3/a.db`.
fn find(path: &str) -> VfsResult<(Arc<Inner>, usize, &str)> {
    let parse = || {
        let (disk, rest) = path.strip_prefix("/disk-")?.split_once('/')?;
        let (process, name) = rest.strip_prefix("process-")?.split_once('/')?;
        let number = disk.parse().ok()?;
        let inner = shard(number).lock().get(&number)?.upgrade()?;
        Some((inner, process.parse().ok()?, name))
    };
    parse().ok_or(vars::SQLITE_CANTOPEN)
}

struct DiskVfs;

enum Handle {
    File(Open),
    /// What SQLite spills of a sort or of a statement. It has no name, and no disk outlives it.
    Temporary(Vec<u8>),
}

struct Open {
    disk: Arc<Inner>,
    file: usize,
    holder: Holder,
    /// SQLite's own VFS syncs the folder with the first sync of a journal or a WAL that it may have made.
    sync_folder: bool,
    read_only: bool,
    /// Keeps the memory that this connection has pointers into.
    regions: Option<Arc<Regions>>,
}

impl VfsHandle for Handle {
    fn readonly(&self) -> bool {
        matches!(self, Self::File(open) if open.read_only)
    }

    fn in_memory(&self) -> bool {
        false
    }
}

impl Open {
    fn lock_index(&mut self, offset: u32, count: u32, mode: ShmLockMode) -> VfsResult<()> {
        let mut state = self.disk.state.lock();
        state.alive(self.holder.process, vars::SQLITE_IOERR_SHMLOCK)?;
        let index = state.files[self.file].index.as_mut().ok_or(vars::SQLITE_IOERR_SHMLOCK)?;
        index.lock(self.holder, offset, count, mode)
    }

    fn map_index(&mut self, region: usize, size: usize, make: bool) -> VfsResult<Option<NonNull<u8>>> {
        let mut state = self.disk.state.lock();
        state.alive(self.holder.process, vars::SQLITE_IOERR_SHMMAP)?;
        let full = state.full;
        let index = state.files[self.file].index.get_or_insert_with(SharedIndex::default);
        let regions = self.regions.get_or_insert_with(|| {
            index.join(self.holder);
            Arc::clone(&index.regions)
        });
        let mapped = regions.map(region, size, make, full);
        state.counts.full += u64::from(mapped.is_err());
        mapped
    }

    fn unmap_index(&mut self) {
        let mut state = self.disk.state.lock();
        let index = &mut state.files[self.file].index;
        if index.as_mut().is_some_and(|index| !index.release(|other| *other == self.holder)) {
            *index = None;
        }
        self.regions = None;
    }

    fn write(&self, offset: usize, data: &[u8]) -> VfsResult<usize> {
        let mut state = self.disk.state.lock();
        let state = &mut *state;
        state.begin(self.holder.process, vars::SQLITE_IOERR_WRITE)?;
        state.changed(self.file);
        if state.fails(Failure::Write) {
            let half = rand::RngExt::random_range(&mut state.random, 0..=data.len());
            state.files[self.file].content.write(offset, &data[..half]);
            return Err(vars::SQLITE_IOERR_WRITE);
        }
        let content = &mut state.files[self.file].content;
        if state.full && offset + data.len() > content.len() {
            let fits = content.len().saturating_sub(offset);
            content.write(offset, &data[..fits]);
            state.counts.full += 1;
            return Err(vars::SQLITE_FULL);
        }
        content.write(offset, data);
        Ok(data.len())
    }

    fn sync(&mut self) -> VfsResult<()> {
        let mut state = self.disk.state.lock();
        let state = &mut *state;
        state.begin(self.holder.process, vars::SQLITE_IOERR_FSYNC)?;
        if state.fails(Failure::Sync) {
            state.files[self.file].content.fail_sync(&mut state.random);
            return Err(vars::SQLITE_IOERR_FSYNC);
        }
        if state.lies {
            return Ok(());
        }
        state.files[self.file].content.sync();
        if std::mem::take(&mut self.sync_folder) {
            state.sync_folder();
        }
        Ok(())
    }
}

impl Vfs for DiskVfs {
    type Handle = Handle;

    fn canonical_path<'a>(&self, path: Cow<'a, str>) -> VfsResult<Cow<'a, str>> {
        Ok(path)
    }

    fn open(&self, path: Option<&str>, opts: OpenOpts) -> VfsResult<Handle> {
        let Some(path) = path else { return Ok(Handle::Temporary(Vec::new())) };
        let (disk, process, name) = find(path)?;
        let (create, must_create) = match opts.mode() {
            OpenMode::ReadOnly => (false, false),
            OpenMode::ReadWrite { create } => (create != CreateMode::None, create == CreateMode::MustCreate),
        };
        let mut state = disk.state.lock();
        state.alive(process, vars::SQLITE_IOERR)?;
        let (file, handle) = state.open(name, create, must_create)?;
        drop(state);
        let journal = matches!(opts.kind(), OpenKind::MainJournal | OpenKind::SuperJournal | OpenKind::Wal);
        Ok(Handle::File(Open {
            disk,
            file,
            holder: Holder { handle, process },
            sync_folder: create && journal,
            read_only: opts.mode().is_readonly(),
            regions: None,
        }))
    }

    fn delete(&self, path: &str) -> VfsResult<()> {
        let (disk, process, name) = find(path)?;
        let mut state = disk.state.lock();
        state.begin(process, vars::SQLITE_IOERR_DELETE)?;
        state.delete(name)
    }

    fn access(&self, path: &str, flags: AccessFlags) -> VfsResult<bool> {
        let (disk, process, name) = find(path)?;
        let state = disk.state.lock();
        state.alive(process, vars::SQLITE_IOERR_ACCESS)?;
        // To SQLite an empty file is none, as its own VFS says.
        Ok(state.file(name).is_some_and(|file| flags != AccessFlags::Exists || file.content.len() > 0))
    }

    fn file_size(&self, handle: &mut Handle) -> VfsResult<usize> {
        match handle {
            Handle::Temporary(bytes) => Ok(bytes.len()),
            Handle::File(open) => {
                let state = open.disk.state.lock();
                state.alive(open.holder.process, vars::SQLITE_IOERR_FSTAT)?;
                Ok(state.files[open.file].content.len())
            }
        }
    }

    fn truncate(&self, handle: &mut Handle, size: usize) -> VfsResult<()> {
        match handle {
            Handle::Temporary(bytes) => bytes.truncate(size),
            Handle::File(open) => {
                let mut state = open.disk.state.lock();
                state.begin(open.holder.process, vars::SQLITE_IOERR_TRUNCATE)?;
                state.changed(open.file);
                state.files[open.file].content.truncate(size);
            }
        }
        Ok(())
    }

    fn write(&self, handle: &mut Handle, offset: usize, data: &[u8]) -> VfsResult<usize> {
        match handle {
            Handle::Temporary(bytes) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset..end].copy_from_slice(data);
                Ok(data.len())
            }
            Handle::File(open) => open.write(offset, data),
        }
    }

    fn read(&self, handle: &mut Handle, offset: usize, data: &mut [u8]) -> VfsResult<usize> {
        match handle {
            Handle::Temporary(bytes) => {
                let there = bytes.get(offset..).unwrap_or_default();
                let count = there.len().min(data.len());
                data[..count].copy_from_slice(&there[..count]);
                Ok(count)
            }
            Handle::File(open) => {
                let mut state = open.disk.state.lock();
                state.alive(open.holder.process, vars::SQLITE_IOERR_READ)?;
                if state.fails(Failure::Read) {
                    return Err(vars::SQLITE_IOERR_READ);
                }
                Ok(state.files[open.file].content.read(offset, data))
            }
        }
    }

    fn lock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        let Handle::File(open) = handle else { return Ok(()) };
        let mut state = open.disk.state.lock();
        state.alive(open.holder.process, vars::SQLITE_IOERR_LOCK)?;
        state.files[open.file].locks.lock(open.holder, level)
    }

    fn unlock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        let Handle::File(open) = handle else { return Ok(()) };
        let mut state = open.disk.state.lock();
        state.alive(open.holder.process, vars::SQLITE_IOERR_UNLOCK)?;
        state.files[open.file].locks.unlock(open.holder, level);
        Ok(())
    }

    fn check_reserved_lock(&self, handle: &mut Handle) -> VfsResult<bool> {
        let Handle::File(open) = handle else { return Ok(false) };
        let state = open.disk.state.lock();
        state.alive(open.holder.process, vars::SQLITE_IOERR_CHECKRESERVEDLOCK)?;
        Ok(state.files[open.file].locks.is_reserved())
    }

    fn sync(&self, handle: &mut Handle) -> VfsResult<()> {
        match handle {
            Handle::Temporary(_) => Ok(()),
            Handle::File(open) => open.sync(),
        }
    }

    fn close(&self, handle: Handle) -> VfsResult<()> {
        if let Handle::File(open) = handle {
            open.disk.state.lock().close(open.file, open.holder);
        }
        Ok(())
    }

    fn sector_size(&self, _: &mut Handle) -> VfsResult<i32> {
        Ok(SECTOR as i32)
    }

    /// No promise but one. Writes are not atomic, not in order, and a file may grow before its bytes arrive. But a torn sector
    /// mixes what was there with what was written, so bytes that nobody wrote stay what they were: powersafe overwrite, which
    /// SQLite's own VFS promises on phones and servers as well.
    ///
    /// A torn sector does no harm to a WAL, whose frames are checksummed: it ends before the torn one, which no sync has
    /// covered yet. It does none to the database file: a checkpoint writes there only after it synced the WAL, and forgets the
    /// WAL only after it synced the file; until then the whole page is written anew from the WAL.
    fn device_characteristics(&self, _: &mut Handle) -> VfsResult<i32> {
        Ok(vars::SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    }

    fn shm_map(&self, handle: &mut Handle, region: usize, size: usize, make: bool) -> VfsResult<Option<NonNull<u8>>> {
        match handle {
            Handle::Temporary(_) => Err(vars::SQLITE_IOERR_SHMMAP),
            Handle::File(open) => open.map_index(region, size, make),
        }
    }

    fn shm_lock(&self, handle: &mut Handle, offset: u32, count: u32, mode: ShmLockMode) -> VfsResult<()> {
        match handle {
            Handle::Temporary(_) => Err(vars::SQLITE_IOERR_SHMLOCK),
            Handle::File(open) => open.lock_index(offset, count, mode),
        }
    }

    fn shm_barrier(&self, _: &mut Handle) {
        fence(Ordering::SeqCst);
    }

    fn shm_unmap(&self, handle: &mut Handle, _delete: bool) -> VfsResult<()> {
        if let Handle::File(open) = handle {
            open.unmap_index();
        }
        Ok(())
    }
}
