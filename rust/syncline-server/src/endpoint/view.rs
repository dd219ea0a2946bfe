//! Reading a scope from outside: for tests and the command line.

use syncline_protocol::Conflict;

use super::Embedded;
use crate::store::{DeviceRow, Entity, Storage, StorageError, StoredOperation};

impl<S: Storage> Embedded<S> {
    /// The scope's head version; 0 if it was never used.
    ///
    /// # Errors
    /// The store's.
    pub fn head(&mut self, scope: &str) -> Result<u64, StorageError> {
        Ok(self.store.transaction(scope)?.scope()?.map_or(0, |row| row.head))
    }

    /// The scope's epoch.
    ///
    /// # Errors
    /// The store's.
    pub fn epoch(&mut self, scope: &str) -> Result<Option<String>, StorageError> {
        Ok(self.store.transaction(scope)?.scope()?.map(|row| row.epoch))
    }

    /// A device of the scope.
    ///
    /// # Errors
    /// The store's.
    pub fn device(&mut self, scope: &str, device_id: &str) -> Result<Option<DeviceRow>, StorageError> {
        self.store.transaction(scope)?.device(device_id)
    }

    /// The verdict stored under a key.
    ///
    /// # Errors
    /// The store's.
    pub fn operation(&mut self, scope: &str, key: &str) -> Result<Option<StoredOperation>, StorageError> {
        self.store.transaction(scope)?.operation(key)
    }

    /// Every entity of the scope, tombstones too, by type and id.
    ///
    /// # Errors
    /// The store's.
    pub fn entities(&mut self, scope: &str) -> Result<Vec<Entity>, StorageError> {
        let mut entities = Vec::new();
        self.store.transaction(scope)?.changes(0, None, &mut |entity| {
            entities.push(entity);
            true
        })?;
        entities.sort_by(|a, b| (&a.entity_type, &a.entity_id).cmp(&(&b.entity_type, &b.entity_id)));
        Ok(entities)
    }

    /// The scope's ledger, oldest entry first.
    ///
    /// # Errors
    /// The store's.
    pub fn ledger(&mut self, scope: &str) -> Result<Vec<Conflict>, StorageError> {
        self.store.ledger(scope)
    }

    /// The scopes that the file holds, by name.
    ///
    /// # Errors
    /// The store's.
    pub fn scopes(&mut self) -> Result<Vec<String>, StorageError> {
        self.store.scopes()
    }

    /// [`replica_hash`] over the scope's live entities.
    ///
    /// # Errors
    /// The store's.
    pub fn hash(&mut self, scope: &str) -> Result<String, StorageError> {
        let entities = self.entities(scope)?;
        let live = entities.iter().filter_map(|entity| {
            let record = entity.record.visible()?;
            Some((entity.entity_type.as_str(), entity.entity_id.as_str(), record.to_string()))
        });
        Ok(replica_hash(live))
    }
}

/// SHA-256, lower-case hex, over the live entities as `type NUL id NUL canonical JSON LF`, sorted by type and id: what a
/// device and the server compare to say that they hold the same.
pub fn replica_hash<'a>(live: impl Iterator<Item = (&'a str, &'a str, String)>) -> String {
    use sha2::{Digest, Sha256};
    let mut live: Vec<_> = live.collect();
    live.sort();
    let mut hash = Sha256::new();
    for (entity_type, entity_id, record) in live {
        let canonical = serde_json::from_str::<serde_json::Value>(&record)
            .ok()
            .and_then(|value| serde_json_canonicalizer::to_string(&value).ok())
            .unwrap_or(record);
        hash.update(format!("{entity_type}\0{entity_id}\0{canonical}\n"));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
