use syncline_protocol::Timestamp;

use super::{Embedded, Random, new_id};
use crate::store::{Storage, StorageError};

/// Days that a verdict is kept after its device has forgotten the operation.
pub const KEYS_KEPT_DAYS: i64 = 90;
/// Days that a tombstone is kept. A device that has not pulled for longer starts anew (`reset`).
pub const TOMBSTONES_KEPT_DAYS: i64 = 180;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// What [`Embedded::purge`] dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Verdicts.
    pub operations: u64,
    /// Tombstones.
    pub tombstones: u64,
}

impl<S: Storage> Embedded<S> {
    /// Gives every scope a new epoch: the operator says that the file was restored from a backup.
    ///
    /// # Errors
    /// The store's; then no epoch has changed.
    pub fn renew_epochs(&mut self, now: Timestamp, random: &mut dyn Random) -> Result<(), StorageError> {
        self.store.renew_epochs(&mut || new_id(now, random))
    }

    /// Drops what nobody can ask for any more in one scope: verdicts that are [`KEYS_KEPT_DAYS`] old and forgotten by their
    /// device, and tombstones that are [`TOMBSTONES_KEPT_DAYS`] old. Cursors older than those tombstones get a `reset`.
    ///
    /// # Errors
    /// The store's.
    pub fn purge(&mut self, scope: &str, now: Timestamp) -> Result<Purged, StorageError> {
        let mut transaction = self.store.transaction(scope)?;
        let Some(mut row) = transaction.scope()? else { return Ok(Purged::default()) };
        let operations = transaction.purge_operations(now.plus_millis(-KEYS_KEPT_DAYS * DAY_MILLIS))?;
        let (tombstones, through) =
            transaction.purge_tombstones(now.plus_millis(-TOMBSTONES_KEPT_DAYS * DAY_MILLIS))?;
        if through > row.purged_through {
            row.purged_through = through;
            transaction.put_scope(&row)?;
        }
        transaction.commit()?;
        Ok(Purged { operations, tombstones })
    }
}
