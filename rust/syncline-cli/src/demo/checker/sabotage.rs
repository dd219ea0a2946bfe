//! Damage on purpose: each kind alters one row of one file, and the checker must say so.

use clap::ValueEnum;
use rusqlite::Connection;

use super::Case;

/// What to break before the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// The server forgets an operation that a device knows as completed.
    Lose,
    /// The server has applied one operation twice.
    Double,
    /// The server has applied two operations of a lane in the wrong order.
    Reorder,
    /// A device forgets a completed operation.
    #[cfg(feature = "chaos")]
    Forget,
    /// A device's replica holds another value than the server.
    Diverge,
}

/// Alters one row.
///
/// # Errors
/// The file cannot be written, or holds no row of the kind.
pub(crate) fn sabotage(kind: Sabotage, case: &Case) -> Result<(), rusqlite::Error> {
    let file = match (kind, case.devices.first()) {
        (Sabotage::Diverge, Some(device)) => &device.file,
        #[cfg(feature = "chaos")]
        (Sabotage::Forget, Some(device)) => &device.file,
        _ => &case.server,
    };
    let sql = match kind {
        Sabotage::Lose => {
            "DELETE FROM operations WHERE rowid = (SELECT max(rowid) FROM operations WHERE verdict = 'applied')"
        }
        Sabotage::Double => {
            "INSERT INTO operations (scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type,
                 entity_id, payload_hash, verdict, decided_at)
             SELECT scope, idempotency_key || '#2', operation_id, device_id, sequence + 1000000, operation, entity_type,
                 entity_id, payload_hash, verdict, decided_at
             FROM operations WHERE verdict = 'applied' ORDER BY rowid DESC LIMIT 1"
        }
        // The later of two moves before all others.
        Sabotage::Reorder => {
            "UPDATE operations SET rowid = (SELECT min(rowid) FROM operations) - 1
             WHERE rowid = (SELECT later.rowid FROM operations later JOIN operations earlier
                 USING (scope, device_id, entity_type, entity_id)
                 WHERE earlier.sequence < later.sequence AND earlier.verdict = 'applied' AND later.verdict = 'applied' LIMIT 1)"
        }
        #[cfg(feature = "chaos")]
        Sabotage::Forget => {
            "DELETE FROM sync_queue WHERE sequence = (SELECT min(sequence) FROM sync_queue WHERE status = 'completed')"
        }
        Sabotage::Diverge => {
            "UPDATE entities SET current = json_set(current, '$.sabotaged', 1)
             WHERE entity = (SELECT min(entity) FROM entities WHERE current IS NOT NULL)"
        }
    };
    match Connection::open(file)?.execute(sql, [])? {
        1 => Ok(()),
        _ => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}
