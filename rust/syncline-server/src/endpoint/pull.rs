use syncline_protocol::{
    Change, MAX_RECORDS_BYTES, Problem, ProblemCode, PullRequest, PullResponse, Timestamp, planted,
};

use super::cursor::{Cursor, normal_filter};
use super::history::{Seen, open_scope};
use super::record::text_len;
use super::{Failure, Random};
use crate::store::{Entity, Storage};

/// Changes in one page, at most.
pub(super) const MAX_PAGE: u64 = 1000;

/// One page of what changed (spec §6). Writes nothing but a scope's first row, or a new epoch.
pub(super) fn pull(
    store: &mut dyn Storage,
    request: PullRequest,
    now: Timestamp,
    random: &mut dyn Random,
) -> Result<PullResponse, Failure> {
    let filter = normal_filter(request.entity_types);
    let given = request.cursor.as_deref();
    let cursor = given.and_then(Cursor::decode);
    let mut transaction = store.transaction(&request.scope)?;
    let device = transaction.device(&request.device_id)?;
    if device.as_ref().is_some_and(|device| device.user_id != request.user_id) {
        return Err(Problem::new(ProblemCode::WrongDevice).into());
    }
    let seen = Seen { epoch: request.epoch.as_deref(), mark: request.mark, cursor: cursor.as_ref(), may_be_new: true };
    let known_mark = device.map_or(0, |device| device.mark);
    let (row, mut transaction) = open_scope(transaction, &request.scope, known_mark, &seen, now, random)?;
    let usable = cursor.filter(|cursor| {
        cursor.is_of(&request.scope, &row) && cursor.entity_types == filter && !cursor.is_behind_horizon(&row)
    });
    let after = usable.as_ref().map_or(0, |cursor| cursor.version);
    let mut page = Page::new(request.limit.min(MAX_PAGE));
    transaction.changes(after, filter.as_deref(), &mut |entity| page.take(entity))?;
    transaction.commit()?;
    let version = if page.full && !planted!(CursorAtHead) { page.last_version } else { row.head };
    Ok(PullResponse {
        changes: page.changes,
        cursor: Cursor::at(&request.scope, &row, version, filter).encode(),
        epoch: row.epoch,
        has_more: page.full && !planted!(NoMoreTooEarly),
        reset: given.is_some() && usable.is_none(),
    })
}

/// The changes taken so far. A page always holds at least one, however large.
struct Page {
    changes: Vec<Change>,
    limit: u64,
    bytes: usize,
    last_version: u64,
    full: bool,
}

impl Page {
    fn new(limit: u64) -> Self {
        Self { changes: Vec::new(), limit, bytes: 0, last_version: 0, full: false }
    }

    /// Takes a change, or says that the page is full.
    fn take(&mut self, entity: Entity) -> bool {
        let record = entity.record.visible();
        let bytes = record.map_or(0, text_len);
        let fits = (self.changes.len() as u64) < self.limit && self.bytes + bytes <= MAX_RECORDS_BYTES;
        if !fits && !self.changes.is_empty() {
            self.full = true;
            return false;
        }
        self.bytes += bytes;
        self.last_version = entity.version;
        self.changes.push(Change {
            version: entity.version,
            deleted: entity.record.deleted.is_some(),
            clock: entity.record.clock(),
            changed_at: entity.record.changed_at(),
            record: record.cloned(),
            entity_type: entity.entity_type,
            entity_id: entity.entity_id,
        });
        true
    }
}
