//! After something broke: a process that died, a copy of this file, a server that went back in time.

use rusqlite::params;
use syncline_protocol::{Timestamp, planted};

use super::Store;
use super::row::QueueRow;
use super::transition::Why;
use crate::error::Result;
use crate::event::Notice;
use crate::operation::OperationStatus;

impl Store {
    /// Raises the term and returns to `pending` what older terms left. Only who holds the process lock may call this.
    pub(crate) fn begin_drain(&mut self, now: Timestamp) -> Result<u64> {
        self.write(|store| {
            store.conn.prepare_cached("UPDATE device SET term = term + 1")?.execute([])?;
            if !planted!(SkipRescue) {
                store.return_leases(now)?;
            }
            store.conn.prepare_cached("UPDATE sync_queue SET park = 0 WHERE park = -1")?.execute([])?;
            Ok(store.device()?.term)
        })
    }

    fn return_leases(&mut self, now: Timestamp) -> Result<()> {
        let left = QueueRow::select(&self.conn, "status = 'in_progress' ORDER BY sequence", [])?;
        for row in &left {
            self.transition(row, OperationStatus::Pending, Why::default(), now)?;
        }
        Ok(())
    }

    /// Notes that a new device id is due. It is taken once nothing is in flight.
    pub(crate) fn request_fork(&mut self) -> Result<()> {
        self.write(|store| {
            store.conn.prepare_cached("UPDATE device SET forked = 1")?.execute([])?;
            Ok(())
        })
    }

    /// Goes on as another device: another copy of this file has written under the old id. Sequences and keys stay, so
    /// what had arrived answers `already_processed`.
    pub(crate) fn fork(&mut self, device_id: &str, now: Timestamp) -> Result<()> {
        self.write(|store| {
            store.return_leases(now)?;
            let another = "UPDATE device SET device_id = ?1, mark = 0, forked = 0";
            let another = if planted!(ForkKeepsMark) { &another.replace("mark = 0, ", "") } else { another };
            store.conn.prepare_cached(another)?.execute([device_id])?;
            store.device_id = device_id.to_owned();
            store.uncommitted.notices.push(Notice::Forked { device_id: device_id.to_owned() });
            Ok(())
        })?;
        self.tail = None;
        Ok(())
    }

    /// The server lost history: takes its epoch and mark, returns the completed operations that are still kept to
    /// `pending`, and begins a reset. Tells how many were returned.
    pub(crate) fn server_went_back(&mut self, epoch: &str, mark: u64, now: Timestamp) -> Result<u64> {
        self.write(|store| {
            store
                .conn
                .prepare_cached(
                    "UPDATE device SET epoch = ?1, mark = ?2, retry_after_until = NULL, retry_after_ms = NULL",
                )?
                .execute(params![epoch, mark])?;
            let kept = if planted!(KeptNotReturned) { "status = 'none'" } else { "status = 'completed'" };
            let kept = QueueRow::select(&store.conn, &format!("{kept} ORDER BY sequence"), [])?;
            for row in &kept {
                store.transition(row, OperationStatus::Pending, Why::code("server_went_back"), now)?;
                store
                    .conn
                    .prepare_cached(
                        "UPDATE sync_queue SET decided = 0, dot_device = NULL, dot_sequence = NULL WHERE sequence = ?1",
                    )?
                    .execute([row.sequence])?;
            }
            // What this file applied counts again only once the server has said so again; pruned rows cannot be re-sent.
            store
                .conn
                .prepare_cached("UPDATE entities SET applied_clock = pruned_clock WHERE applied_clock <> pruned_clock")?
                .execute([])?;
            store.begin_reset()?;
            store.refold_all(kept.iter().map(|row| row.entity))?;
            let returned = kept.len() as u64;
            store.uncommitted.notices.push(Notice::ServerWentBack { returned });
            Ok(returned)
        })
    }

    /// Stores the endpoint's wish to be left alone, so that a restart keeps it; `None` forgets it.
    pub(crate) fn set_retry_after(&mut self, wait: Option<(Timestamp, u64)>) -> Result<()> {
        self.write(|store| {
            store
                .conn
                .prepare_cached("UPDATE device SET retry_after_until = ?1, retry_after_ms = ?2")?
                .execute(params![wait.map(|(until, _)| until.millis()), wait.map(|(_, ms)| ms)])?;
            Ok(())
        })
    }
}
