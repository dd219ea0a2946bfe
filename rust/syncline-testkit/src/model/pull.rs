//! Pulls (spec §6).

use serde_json::{Value, json};
use syncline_protocol::Timestamp;

use super::Model;
use super::request::Pull;
use super::state::{Cursor, Entity, Lane};
use super::types::MOST_RECORD_BYTES;
use super::values::differs;

impl Model {
    /// Compares a page with what it should be. `cursor`: what the given text stands for, if it was ever given out.
    pub(super) fn page(&mut self, pull: &Pull, cursor: Option<Cursor>, answer: &Value) -> Result<(), String> {
        let scope = &self.scopes[&pull.head.scope];
        let types = pull.entity_types.clone().map(|mut types| {
            types.sort();
            types.dedup();
            types
        });
        // "`reset: true` (the cursor is older than the tombstone horizon, or of another scope or type filter)".
        let usable = cursor.filter(|cursor| {
            cursor.scope == pull.head.scope
                && Some(&cursor.epoch) == scope.epoch.as_ref()
                && cursor.types == types
                && scope.horizon <= cursor.version.max(cursor.horizon)
        });
        let after = usable.as_ref().map_or(0, |cursor| cursor.version);
        // "Changes come in order of version, each entity once, in its last version".
        let is_wanted = |lane: &Lane| types.as_ref().is_none_or(|types| types.contains(&lane.0));
        let newer = scope.entities.iter().filter(|(lane, entity)| entity.version > after && is_wanted(lane));
        let mut changes: Vec<(&Lane, &Entity)> = newer.collect();
        changes.sort_by_key(|(_, entity)| entity.version);
        let all = changes.len();
        changes.truncate(pull.limit.min(1000) as usize);
        // About 1 MiB of records in a page: where it ends then is the endpoint's choice, after the first.
        let size = |entity: &Entity| entity.record.visible().map_or(0, |record| record.to_string().len());
        if changes.iter().map(|(_, entity)| size(entity)).sum::<usize>() > MOST_RECORD_BYTES * 99 / 100 {
            let real = answer["changes"].as_array().map_or(0, Vec::len);
            changes.truncate(real.max(1));
        }
        let has_more = changes.len() < all;
        let version = match changes.last() {
            Some((_, last)) if has_more => last.version,
            _ => scope.head,
        };
        let expected = json!({
            "changes": changes.into_iter().map(change).collect::<Vec<_>>(), "cursor": answer["cursor"],
            "epoch": scope.epoch, "has_more": has_more, "reset": pull.head.cursor.is_some() && usable.is_none(),
        });
        let epoch = scope.epoch.clone().unwrap_or_default();
        let here = Cursor { scope: pull.head.scope.clone(), epoch, version, horizon: scope.horizon, types };
        differs("answer", &expected, answer)?;
        self.heard.cursor(&answer["cursor"], here)
    }
}

fn change(((entity_type, entity_id), entity): (&Lane, &Entity)) -> Value {
    let record = &entity.record;
    json!({
        "entity_type": entity_type, "entity_id": entity_id, "version": entity.version, "record": record.visible(),
        "deleted": record.deleted.is_some(), "clock": record.clock(),
        "changed_at": Timestamp::from_millis(record.changed_at()),
    })
}
