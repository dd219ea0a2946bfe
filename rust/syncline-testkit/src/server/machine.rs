//! The endpoint's machine, in a world on disks, and what is looked up there.

use std::path::PathBuf;
use std::sync::Arc;

use syncline_core::transport::Route;
use syncline_server::EndpointLimits;

use super::{Exchange, Place, TestServer};
use crate::disk::Failure;
use crate::model::ServerState;
use crate::server_state::{StoredEffect, read_effects, read_state};
use crate::simulation::coverage::Coverage;

impl TestServer {
    /// Its process dies before the call to the disk after so many more; then, perhaps, its machine loses power.
    pub(crate) fn die_after(&self, calls: u64, power: bool) {
        if let Place::Disk { process, loses_power, .. } = &mut self.inner.lock().place {
            process.die_after(calls);
            *loses_power |= power;
        }
    }

    /// One call of its disk fails.
    pub(crate) fn fail_disk(&self, failure: Failure, after: u64) {
        if let Place::Disk { disk, .. } = &self.inner.lock().place {
            disk.fail(failure, after);
        }
    }

    pub(crate) fn set_full(&self, full: bool) {
        if let Place::Disk { disk, .. } = &self.inner.lock().place {
            disk.set_full(full);
        }
    }

    /// No death is to come any more, and the disk works.
    pub(crate) fn heal(&self) {
        if let Place::Disk { process, loses_power, disk, .. } = &mut self.inner.lock().place {
            process.die_after(u64::MAX);
            *loses_power = false;
            disk.heal();
        }
    }

    /// Raised by every write to the file.
    pub(crate) fn changes(&self) -> u64 {
        self.inner.lock().changes()
    }

    /// What the file holds.
    pub(crate) fn state(&self) -> rusqlite::Result<Arc<ServerState>> {
        self.inner.lock().state()
    }

    /// Hands out everything that arrived so far.
    pub(crate) fn with_exchanges<T>(&self, look: impl FnOnce(&[Exchange]) -> T) -> T {
        look(&self.inner.lock().exchanges)
    }

    /// The same, and what took effect, in order.
    pub(crate) fn stored(&self) -> (ServerState, Vec<StoredEffect>) {
        let file = &self.inner.lock().file;
        let both = read_state(file).and_then(|state| Ok((state, read_effects(file)?)));
        both.expect("the server's file can be read")
    }

    /// Where a snapshot goes.
    pub(crate) fn snapshot_path(&self, number: u32) -> PathBuf {
        match &self.inner.lock().place {
            Place::Disk { backups, .. } => backups.process().path(&format!("snapshot-{number}.db")),
            Place::Folder(path) => path.with_extension(format!("snapshot-{number}")),
        }
    }

    /// Whether it was ever restored.
    pub(crate) fn went_back(&self) -> bool {
        self.inner.lock().restores > 0
    }

    /// The first difference from the OpenAPI document or the model.
    pub(crate) fn first_violation(&self) -> Option<String> {
        self.inner.lock().violations.first().cloned()
    }

    /// Takes at most so many operations in one push.
    pub(crate) fn limit_operations(&self, max_operations: u64) {
        self.set_limits(EndpointLimits { max_operations, ..EndpointLimits::default() });
    }

    /// Adds what happened here to the table.
    pub(crate) fn count(&self, coverage: &Coverage) {
        let inner = self.inner.lock();
        coverage.add("fault", "the server died", inner.deaths);
        if let Place::Disk { disk, .. } = &inner.place {
            let counts = disk.counts();
            for (name, count) in [
                ("the endpoint's write failed", counts.failures[Failure::Write as usize]),
                ("the endpoint's flush failed", counts.failures[Failure::Sync as usize]),
                ("the endpoint's disk full", counts.full),
            ] {
                coverage.add("fault", name, count);
            }
        }
        for (rule, count) in inner.model.rules() {
            coverage.add("rule", *rule, *count);
        }
        for exchange in &inner.exchanges {
            for result in exchange.answer["results"].as_array().into_iter().flatten() {
                coverage.note("verdict", result["status"].as_str().unwrap_or_default());
            }
            let left_out = exchange.answer["applied"].as_u64().unwrap_or(0);
            coverage.add("verdict", "applied, left out", left_out);
            if let Some(code) = exchange.answer["code"].as_str() {
                coverage.note("problem", code);
            }
            coverage.note("request", if exchange.route == Route::Push { "push" } else { "pull" });
        }
    }
}
