//! Direct writes to registered tables (spec §5): each row that differs from its record becomes a write of the server's, with a
//! version, the dot (`server`, version) and a base that covers everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_protocol::Timestamp;

use super::Model;
use super::state::{Entity, Lane, Record, Scope, Write};
use super::values::same;

impl Model {
    /// Takes in what somebody else wrote since the last request: rows, or none where one was deleted. They are taken up type by type,
    /// in the order of `types`, and in a type in the order in which they were first written.
    pub fn write_directly(&mut self, scope: &str, writes: &[(Lane, Option<Value>)], types: &[&str], now: Timestamp) {
        let scope = self.scopes.entry(scope.to_owned()).or_default();
        let mut rows: Vec<(Lane, Option<Value>)> = Vec::new();
        for (lane, row) in writes {
            let is_live = || scope.entities.get(lane).is_some_and(|entity| entity.record.deleted.is_none());
            match rows.iter_mut().find(|(known, _)| known == lane) {
                Some(known) => known.1 = row.clone(),
                // Nobody notices a deletion of nothing.
                None if row.is_none() && !is_live() => {}
                None => rows.push((lane.clone(), row.clone())),
            }
        }
        rows.sort_by_key(|((entity_type, _), _)| types.iter().position(|name| name == entity_type));
        for (lane, row) in &rows {
            take_up(scope, lane, row.as_ref(), now.millis());
        }
    }
}

fn take_up(scope: &mut Scope, lane: &Lane, row: Option<&Value>, now: i64) {
    let known = scope.entities.get(lane).map(|entity| &entity.record);
    let (version, at) = (scope.head + 1, known.map_or(now, |record| now.max(record.changed_at() + 1)));
    let by = Write { device: "server".to_owned(), sequence: version, at };
    let fields: Option<BTreeMap<String, Value>> = row
        .map(|row| row.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect());
    let live = known.filter(|record| record.deleted.is_none());
    let record = match (live, fields) {
        (None, None) => return,
        (None, Some(fields)) => Record::create(&fields, &by),
        (Some(record), None) => Record { deleted: Some(by), ..record.clone() },
        (Some(record), Some(fields)) => {
            let mut changed = record.clone();
            let names: BTreeSet<&String> = record.fields.keys().chain(fields.keys()).collect();
            for name in names {
                let (old, new) = (record.fields.get(name).map(|field| &field.value), fields.get(name));
                let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
                if !same(old, new) {
                    changed.set(name, new, &by);
                }
            }
            if !changed.differs_from(record) {
                return;
            }
            changed
        }
    };
    scope.head = version;
    scope.entities.insert(lane.clone(), Entity { record, version, stored_at: now });
}
