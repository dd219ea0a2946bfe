//! The demo's verdict. It reads the SQLite files with plain SQL and shares no code with the device's core or the endpoint: what
//! they believe of themselves proves nothing here.
//!
//! Each promise is checked on its own and says, per breach, one sentence that names the device, the operation and the entity.

mod conservation;
mod effect;
mod files;
mod ledger;
mod order;
mod replica;
pub(crate) mod sabotage;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use files::{DeviceFile, Operation, ServerFile};

/// What is to be judged.
pub(crate) struct Case {
    pub(crate) server: PathBuf,
    pub(crate) scope: String,
    pub(crate) devices: Vec<CaseDevice>,
}

/// One device: its file, and the ids of the operations that it acknowledged to its caller.
pub(crate) struct CaseDevice {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) acknowledged: BTreeSet<String>,
}

/// One promise and how it was kept.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What was promised.
    pub(crate) promise: &'static str,
    /// How much of it was seen, for people.
    pub(crate) figure: String,
    /// Each breach in a sentence.
    pub(crate) breaches: Vec<String>,
}

impl Check {
    pub(crate) fn holds(&self) -> bool {
        self.breaches.is_empty()
    }
}

/// Everything that was read and found.
pub(crate) struct Verdict {
    pub(crate) checks: Vec<Check>,
    pub(crate) devices: Vec<DeviceFile>,
    pub(crate) server: ServerFile,
    /// Who holds what: the server, then each device, with the hash of its records.
    pub(crate) hashes: Vec<(String, String)>,
}

impl Verdict {
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }
}

/// Reads the files and checks every promise.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn check(case: &Case) -> Result<Verdict, rusqlite::Error> {
    let server = ServerFile::read(&case.server, &case.scope)?;
    let devices = case
        .devices
        .iter()
        .map(|device| DeviceFile::read(&device.name, &device.file))
        .collect::<Result<Vec<_>, _>>()?;
    let acknowledged: Vec<&BTreeSet<String>> = case.devices.iter().map(|device| &device.acknowledged).collect();
    Ok(judge(devices, server, &acknowledged))
}

fn judge(devices: Vec<DeviceFile>, server: ServerFile, acknowledged: &[&BTreeSet<String>]) -> Verdict {
    let checks = vec![
        conservation::check(&devices, acknowledged),
        effect::exactly_once(&devices, &server),
        effect::no_stray_effect(&devices, &server),
        effect::values(&devices, &server),
        order::lanes(&devices, &server),
        order::transactions(&devices, &server),
        ledger::check(&devices, &server),
        replica::check(&devices, &server),
    ];
    let hashes = replica::hashes(&devices, &server);
    Verdict { checks, devices, server, hashes }
}
