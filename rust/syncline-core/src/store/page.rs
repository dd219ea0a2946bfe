//! A page of the pull: changes, cursor and what follows from them, in one transaction (spec §3, §6).

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};
use syncline_protocol::{Change, MAX_COUNTER, PullResponse, Timestamp, check_entity_id, check_name, planted};

use super::Store;
use super::open::UNCONFIRM_ALL;
use super::row::clock_text;
use crate::error::Result;

/// An answer to a pull, and what it answers.
pub(crate) struct PullPage<'a> {
    /// The cursor that the pull carried.
    pub sent_cursor: Option<&'a str>,
    /// [`Device::heard_version`] when the pull was sent: an answer without more to come has reached it.
    pub heard_version: u64,
    pub response: &'a PullResponse,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageApplied {
    /// It is in the replica, and its cursor stored.
    Taken { changes: u64, has_more: bool },
    /// The cursor it answers is no longer the device's: it was dropped.
    Stale,
    /// It cannot be right: nothing was written.
    Invalid(&'static str),
}

impl Store {
    /// Takes a page whose epoch has been checked.
    pub(crate) fn apply_page(&mut self, page: &PullPage<'_>, now: Timestamp) -> Result<PageApplied> {
        if let Err(why) = check_page(page.response) {
            return Ok(PageApplied::Invalid(why));
        }
        self.write(|store| {
            let device = store.device()?;
            if device.cursor.as_deref() != page.sent_cursor {
                return Ok(PageApplied::Stale);
            }
            if page.response.reset || (page.sent_cursor.is_none() && !device.reset) {
                store.begin_reset()?;
            }
            // In a reset most entities are new, or at least not to be looked at first.
            let fresh = device.reset || page.response.reset;
            if planted!(CursorBeforePage) {
                store.advance_cursor(page)?;
                store.run("COMMIT").and_then(|()| store.run("BEGIN IMMEDIATE"))?;
            }
            for change in &page.response.changes {
                store.take_change(change, fresh)?;
            }
            store.advance_cursor(page)?;
            if !page.response.has_more {
                store.end_reset()?;
            }
            let device = store.device()?;
            if !device.reset {
                store.close_through(device.cursor_version)?;
            }
            store.note_synced(now);
            Ok(PageApplied::Taken { changes: page.response.changes.len() as u64, has_more: page.response.has_more })
        })
    }

    /// Every base becomes unconfirmed: the server will say again which of them still hold.
    pub(super) fn begin_reset(&mut self) -> Result<()> {
        self.conn.prepare_cached("UPDATE device SET reset = 1, cursor = NULL, cursor_version = 0")?.execute([])?;
        if !planted!(ResetKeepsBases) {
            self.conn.prepare_cached(UNCONFIRM_ALL)?.execute([])?;
        }
        Ok(())
    }

    /// Drops the bases that the server no longer knows. Operations stay.
    fn end_reset(&mut self) -> Result<()> {
        let ended = self.conn.prepare_cached("UPDATE device SET reset = 0 WHERE reset = 1")?.execute([])?;
        if ended == 0 {
            return Ok(());
        }
        let dropped: Vec<i64> = self
            .conn
            .prepare_cached("SELECT entity FROM entities WHERE base_confirmed = 0")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let drop = "UPDATE entities SET base = NULL, base_clock = '{}', base_version = 0, base_confirmed = 1 WHERE base_confirmed = 0";
        let drop = if planted!(DroppedBaseKeepsVersion) { &drop.replace("base_version = 0,", "") } else { drop };
        self.conn.prepare_cached(drop)?.execute([])?;
        self.refold_all(dropped.into_iter().filter(|_| !planted!(ResetKeepsCurrent)))
    }

    fn advance_cursor(&mut self, page: &PullPage<'_>) -> Result<()> {
        let response = page.response;
        let mut version = response.changes.last().map_or(0, |change| change.version);
        if !response.has_more {
            version = version.max(page.heard_version);
        }
        let latest = response.changes.iter().map(|change| change.changed_at.millis()).max();
        let latest = latest.filter(|_| !planted!(ForgetSeenTimes)).unwrap_or(0);
        self.conn
            .prepare_cached(
                "UPDATE device SET cursor = ?1, cursor_version = max(cursor_version, ?2), epoch = ?3,
                        latest_seen_ms = max(latest_seen_ms, ?4)",
            )?
            .execute(params![response.cursor, version, response.epoch, latest])?;
        if let Some(tail) = &mut self.tail {
            tail.latest_ms = tail.latest_ms.max(latest);
        }
        Ok(())
    }

    /// Takes one change as base, if it is news, and folds again. `fresh`: the entity is probably not known yet.
    fn take_change(&mut self, change: &Change, fresh: bool) -> Result<()> {
        if fresh && self.insert_change(change)? {
            return Ok(());
        }
        let Some((entity, version, confirmed, quiet)) = self.standing(change)? else {
            self.insert_change(change)?;
            return Ok(());
        };
        if change.version <= version && confirmed {
            return Ok(());
        }
        let record = change.record.clone().filter(|_| !change.deleted);
        if quiet {
            // Nothing to fold: current is base.
            let text = record.map(|record| record.without_nulls().to_string());
            let change_number = self.next_change()?;
            self.conn
                .prepare_cached(
                    "UPDATE entities SET base = ?2, base_clock = ?3, base_version = ?4, base_confirmed = 1,
                            change = CASE WHEN current IS ?2 THEN change ELSE ?5 END, current = ?2
                     WHERE entity = ?1",
                )?
                .execute(params![entity, text, clock_text(&change.clock), change.version, change_number])?;
            self.note_entity(&change.entity_type, &change.entity_id);
            return Ok(());
        }
        if planted!(SkipBusyEntities) {
            return Ok(());
        }
        let device = self.device()?;
        let mut row = self.entity(entity)?;
        self.replace_base(&mut row, record, change.clock.clone(), change.version)?;
        self.close_reached(&row, &device)?;
        self.refold(&mut row)
    }

    /// The entity's row, its base's version, whether that is confirmed, and whether no open operation is folded onto it.
    fn standing(&self, change: &Change) -> Result<Option<(i64, u64, bool, bool)>> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT entity, base_version, base_confirmed,
                        NOT EXISTS (SELECT 1 FROM sync_queue q WHERE q.entity = e.entity AND q.open = 1)
                 FROM entities e WHERE entity_type = ?1 AND entity_id = ?2",
            )?
            .query_row([&change.entity_type, &change.entity_id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?)
    }

    fn insert_change(&mut self, change: &Change) -> Result<bool> {
        let text = change.record.clone().filter(|_| !change.deleted).map(|record| record.without_nulls().to_string());
        let number = self.next_change()?;
        let inserted = self
            .conn
            .prepare_cached(
                "INSERT INTO entities (entity_type, entity_id, base, base_clock, base_version, current, change)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?3, ?6) ON CONFLICT (entity_type, entity_id) DO NOTHING",
            )?
            .execute(params![
                change.entity_type,
                change.entity_id,
                text,
                clock_text(&change.clock),
                change.version,
                number,
            ])?;
        if inserted == 1 {
            self.note_entity(&change.entity_type, &change.entity_id);
        }
        Ok(inserted == 1)
    }
}

/// A page that no endpoint of this protocol sends is refused whole, before anything is written.
fn check_page(response: &PullResponse) -> std::result::Result<(), &'static str> {
    if response.cursor.is_empty()
        || response.cursor.len() > 8192
        || response.epoch.is_empty()
        || response.epoch.len() > 512
    {
        return Err("its cursor or epoch is missing or too long");
    }
    let mut entities = BTreeSet::new();
    let mut version = 0;
    for change in &response.changes {
        if change.version <= version || change.version > MAX_COUNTER {
            return Err("its versions are not in order");
        }
        version = change.version;
        if !check_name(&change.entity_type) || !check_entity_id(&change.entity_id) {
            return Err("an entity's type or id is not valid");
        }
        if !change.deleted && change.record.is_none() {
            return Err("a change has no record");
        }
        if change.clock.iter().any(|(_, sequence)| sequence > MAX_COUNTER) {
            return Err("a clock is out of range");
        }
        if !entities.insert((&change.entity_type, &change.entity_id)) {
            return Err("it names an entity twice");
        }
    }
    Ok(())
}
