//! The verdict on files that real processes left behind, or have open: the oracle's, as for simulated worlds.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Result};
use syncline_core::QueueMetrics;

use crate::oracle::effects::{ServerView, check_drained};
use crate::oracle::journal::Journal;
use crate::oracle::observe::{DeviceState, device_state};
use crate::oracle::queue::{self, Allowances};
use crate::oracle::{Verdict, server};
use crate::server_state::{read_effects, read_state};

/// A device's file, and what its app was told and did.
pub struct LeftFile<'a> {
    /// For sentences.
    pub name: &'a str,
    /// The file.
    pub path: &'a Path,
    /// Operations up to this sequence are in the file of a copy as well; 0: there is none.
    pub shared_through: u64,
    /// What the app was told and did.
    pub journal: &'a mut Journal,
    /// How many completed operations are kept whatever their age.
    pub kept: u64,
    /// The server went back in time: what it lost was sent again.
    pub restores: bool,
    /// What the manager said last, with nothing waiting.
    pub metrics: Option<&'a QueueMetrics>,
}

impl LeftFile<'_> {
    /// Holds what must be true at every moment against the file, which may be in use. `journal` learns what has ended, which the
    /// device may forget.
    ///
    /// # Errors
    /// SQLite's.
    pub fn look(&mut self) -> Result<Verdict> {
        let state = read_device(self.path)?;
        Ok(self.alone(&state).into_iter().next().map_or(Ok(()), Err))
    }

    /// What broke of the rules about one file.
    fn alone(&mut self, state: &DeviceState) -> Vec<String> {
        let allowed = Allowances { copied: self.shared_through > 0, restores: self.restores };
        [queue::check(state, allowed), self.journal.check(state, self.kept)]
            .into_iter()
            .filter_map(Verdict::err)
            .collect()
    }

    /// What broke once everything has been delivered.
    fn in_the_end(&mut self, state: &DeviceState, server: Option<&ServerView<'_>>) -> Vec<String> {
        let mut breaches = self.alone(state);
        // Nothing waits, so that the moment does not matter.
        breaches.extend(self.metrics.and_then(|said| queue::metrics(state, said, 0).err()));
        breaches.extend(check_drained(state, |_| false).err());
        match server {
            Some(server) => breaches.extend(
                [
                    server.check_history(state),
                    server.check_effects(state, self.shared_through, self.shared_through > 0),
                    server.check_converged(state),
                ]
                .into_iter()
                .filter_map(Verdict::err),
            ),
            None => breaches.push("history: the server has never heard of its scope".to_owned()),
        }
        breaches
    }
}

/// Holds every rule of spec §9 that files can show against them. Every process must have ended, with nothing left to deliver.
/// `shared`: device ids that more than one file has used. Gives a sentence per rule that broke; each begins with the device, where
/// it is about one, and the name of the rule.
///
/// # Errors
/// SQLite's.
pub fn judge(server: &Path, shared: &BTreeSet<String>, files: &mut [LeftFile<'_>]) -> Result<Vec<String>> {
    let file = Connection::open(server)?;
    let (stored, effects) = (read_state(&file)?, read_effects(&file)?);
    let states = files.iter().map(|file| read_device(file.path)).collect::<Result<Vec<_>>>()?;
    let mut breaches: Vec<String> = server::check(&stored, &effects, shared).err().into_iter().collect();
    let views = stored.scopes.keys().filter_map(|scope| ServerView::of(&stored, scope));
    let in_copies: BTreeSet<&str> = states
        .iter()
        .zip(&*files)
        .flat_map(|(state, file)| state.operations.range(..=file.shared_through))
        .map(|(_, row)| row.id.as_str())
        .collect();
    breaches.extend(views.filter_map(|view| view.check_once(&in_copies).err()));
    for (file, state) in files.iter_mut().zip(&states) {
        let view = ServerView::of(&stored, &state.device.scope);
        breaches
            .extend(file.in_the_end(state, view.as_ref()).into_iter().map(|breach| format!("{}: {breach}", file.name)));
    }
    Ok(breaches)
}

/// As of one moment, and leaving no trace: closing tidies nothing up.
fn read_device(path: &Path) -> Result<DeviceState> {
    let file = Connection::open(path)?;
    file.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let moment = file.unchecked_transaction()?;
    device_state(&moment)
}
