//! All of one disk: its folder, its files, its processes, and what is about to go wrong.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_plugin::vars;

use super::content::{Arrival, Content};
use super::locks::{FileLocks, Holder, SharedIndex};
use super::{Counts, Failure};

/// A process, as the disk sees it.
#[derive(Default)]
pub(super) struct Life {
    pub(super) dead: bool,
    /// So many calls that change something until it dies.
    pub(super) calls_left: Option<u64>,
}

#[derive(Default)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) locks: FileLocks,
    pub(super) index: Option<SharedIndex>,
    handles: u32,
    /// Where `changes` counts for it.
    database: usize,
}

pub(super) struct State {
    pub(super) random: StdRng,
    /// Never shrinks: handles know their file by its place.
    pub(super) files: Vec<File>,
    pub(super) processes: Vec<Life>,
    /// By kind: so many calls succeed before one fails.
    pub(super) failures: [Option<u64>; 3],
    pub(super) full: bool,
    pub(super) lies: bool,
    pub(super) counts: Counts,
    /// The folder as processes see it, and as the disk holds it.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    databases: BTreeMap<String, usize>,
    changes: Vec<u64>,
    next_handle: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            files: Vec::new(),
            processes: Vec::new(),
            failures: [None; 3],
            full: false,
            lies: false,
            counts: Counts::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            databases: BTreeMap::new(),
            changes: Vec::new(),
            next_handle: 0,
        }
    }

    pub(super) fn alive(&self, process: usize, error: i32) -> Result<(), i32> {
        if self.processes.get(process).is_some_and(|life| !life.dead) { Ok(()) } else { Err(error) }
    }

    /// Begins a call that changes something: the last moment to die before it.
    pub(super) fn begin(&mut self, process: usize, error: i32) -> Result<(), i32> {
        self.alive(process, error)?;
        match &mut self.processes[process].calls_left {
            Some(0) => {
                self.kill(process);
                return Err(error);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.calls += 1;
        Ok(())
    }

    /// Whether this call is the one that fails.
    pub(super) fn fails(&mut self, failure: Failure) -> bool {
        let left = &mut self.failures[failure as usize];
        match left {
            None => false,
            Some(0) => {
                *left = None;
                self.counts.failures[failure as usize] += 1;
                true
            }
            Some(calls) => {
                *calls -= 1;
                false
            }
        }
    }

    pub(super) fn kill(&mut self, process: usize) {
        self.processes[process].dead = true;
        self.release(|holder| holder.process == process);
    }

    fn release(&mut self, gone: impl Fn(&Holder) -> bool) {
        for file in &mut self.files {
            file.release(&gone);
        }
    }

    pub(super) fn file(&self, name: &str) -> Option<&File> {
        self.names.get(name).map(|file| &self.files[*file])
    }

    pub(super) fn changes(&self, database: &str) -> u64 {
        self.databases.get(database).map_or(0, |at| self.changes[*at])
    }

    pub(super) fn changed(&mut self, file: usize) {
        self.changes[self.files[file].database] += 1;
    }

    /// Opens a file, made if need be and wanted. Gives its place and the handle's number.
    pub(super) fn open(&mut self, name: &str, create: bool, must_create: bool) -> Result<(usize, u64), i32> {
        let file = match self.names.get(name) {
            Some(_) if must_create => return Err(vars::SQLITE_CANTOPEN),
            Some(file) => *file,
            None if create => self.create(name, Content::default()),
            None => return Err(vars::SQLITE_CANTOPEN),
        };
        self.files[file].handles += 1;
        self.next_handle += 1;
        Ok((file, self.next_handle))
    }

    pub(super) fn close(&mut self, file: usize, holder: Holder) {
        self.files[file].release(&|other| *other == holder);
        self.files[file].handles -= 1;
        self.forget_unreachable();
    }

    /// Takes a name out of the folder. Only a later sync of the folder makes that durable: SQLite asks for one with a delete
    /// under `synchronous=EXTRA` alone, which nobody uses here.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), i32> {
        let file = self.names.remove(name).ok_or(vars::SQLITE_IOERR_DELETE_NOENT)?;
        self.changed(file);
        self.forget_unreachable();
        Ok(())
    }

    /// Puts a file in place, on the disk for good.
    pub(super) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let file = self.create(name, Content::durable(bytes));
        self.durable_names.insert(name.to_owned(), file);
        self.changed(file);
    }

    fn create(&mut self, name: &str, content: Content) -> usize {
        let database = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-journal")).unwrap_or(name);
        let database = match self.databases.get(database) {
            Some(at) => *at,
            None => {
                self.changes.push(0);
                self.databases.insert(database.to_owned(), self.changes.len() - 1);
                self.changes.len() - 1
            }
        };
        self.files.push(File { content, database, ..File::default() });
        self.names.insert(name.to_owned(), self.files.len() - 1);
        self.files.len() - 1
    }

    pub(super) fn sync_folder(&mut self) {
        if self.durable_names != self.names {
            self.durable_names.clone_from(&self.names);
            self.forget_unreachable();
        }
    }

    /// Frees the bytes of files that no name and no handle leads to.
    fn forget_unreachable(&mut self) {
        for (at, file) in self.files.iter_mut().enumerate() {
            let named = || self.names.values().chain(self.durable_names.values()).any(|named| *named == at);
            if file.handles == 0 && file.content.len() > 0 && !named() {
                file.content = Content::default();
            }
        }
    }

    pub(super) fn lose_power(&mut self) {
        self.counts.power_losses += 1;
        for life in &mut self.processes {
            life.dead = true;
        }
        self.release(|_| true);
        let arrival = match self.random.random_range(0..8) {
            0 => Arrival::Nothing,
            1 => Arrival::Everything,
            kind => Arrival::Some([20, 50, 80][kind % 3]),
        };
        self.settle_names(arrival);
        for at in 0..self.files.len() {
            if !self.names.values().any(|named| *named == at) {
                self.files[at].content = Content::default();
                continue;
            }
            let losses = self.files[at].content.lose_power(arrival, &mut self.random);
            self.counts.survived += losses.survived;
            self.counts.vanished += losses.vanished;
            self.counts.torn += losses.torn;
            self.changed(at);
        }
    }

    /// Each name on its own leads to where it led before or after the creates and deletes that were not synced.
    fn settle_names(&mut self, arrival: Arrival) {
        let before = std::mem::take(&mut self.durable_names);
        let after = std::mem::take(&mut self.names);
        for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
            let (old, new) = (before.get(name), after.get(name));
            let arrives = old == new
                || match arrival {
                    Arrival::Nothing => false,
                    Arrival::Everything => true,
                    Arrival::Some(percent) => {
                        let arrives = self.random.random_range(0..100) < percent;
                        self.counts.names_survived += u64::from(arrives);
                        self.counts.names_vanished += u64::from(!arrives);
                        arrives
                    }
                };
            if let Some(file) = if arrives { new } else { old } {
                self.names.insert(name.clone(), *file);
            }
        }
        self.durable_names.clone_from(&self.names);
    }
}

impl File {
    fn release(&mut self, gone: &impl Fn(&Holder) -> bool) {
        self.locks.release(gone);
        if self.index.as_mut().is_some_and(|index| !index.release(gone)) {
            self.index = None;
        }
    }
}
