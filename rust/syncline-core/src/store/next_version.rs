//! A version of the file after the newest, which never ships: tests update apps to it. Only with the feature `teeth`.

use std::cell::Cell;

use super::open::{MIGRATIONS, Migration, SCHEMA_VERSION};

/// Gives every operation and every entity one more column, row by row, and builds an index anew.
const NEXT: Migration = Migration {
    version: SCHEMA_VERSION + 1,
    sql: "ALTER TABLE sync_queue ADD COLUMN note TEXT;
          UPDATE sync_queue SET note = id;
          DROP INDEX sync_queue_lane;
          CREATE INDEX sync_queue_lane ON sync_queue (entity, sequence) WHERE open = 1;
          ALTER TABLE entities ADD COLUMN note TEXT;
          UPDATE entities SET note = entity_id;",
};

const ALL: [Migration; MIGRATIONS.len() + 1] = {
    let mut all = [NEXT; MIGRATIONS.len() + 1];
    let mut at = 0;
    while at < MIGRATIONS.len() {
        all[at] = MIGRATIONS[at];
        at += 1;
    }
    all
};

thread_local! {
    static IS_NEXT: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread opens files as an app of the next version does, or of this one again.
pub fn open_as_next_version(is_next: bool) {
    IS_NEXT.set(is_next);
}

/// What an app on this thread knows.
pub(super) fn migrations() -> &'static [Migration] {
    if IS_NEXT.get() { &ALL } else { MIGRATIONS }
}
