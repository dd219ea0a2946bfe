//! `get`, and a filtered page of 50 out of 100,000, beside the same SQL by hand.

use std::sync::Arc;

use rusqlite::{Connection, params};
use serde_json::json;
use syncline_core::{Comparison, Durability, EntityType, ListQuery};

use crate::support::{Nowhere, config, entity_id, micros, open, operation, p50, ratio, timed};
use crate::{Figure, Goal, Scale};

pub(crate) fn run(scale: Scale) -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("device.db");
    let pins = EntityType { indexed_paths: vec!["$.title".into()], ..EntityType::default() };
    let manager = open(config(&path, Durability::Normal).entity_type("pin", pins), Arc::new(Nowhere));
    for first in (0..scale.pulled).step_by(1000) {
        manager.enqueue_all((first..first + 1000).map(operation)).expect("enqueues");
    }
    let raw = Connection::open(&path).expect("opens");
    // Synced, as most of a replica is: what still waits costs a look at its lane.
    raw.execute_batch(
        "UPDATE entities SET base = current, base_version = 1, open_operations = 0; DELETE FROM sync_queue; ANALYZE;",
    )
    .expect("settles");
    vec![gets(&manager, &raw, scale), lists(&manager, &raw, scale)]
}

fn gets(manager: &syncline_core::SyncManager, raw: &Connection, scale: Scale) -> Figure {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..scale.rounds * 3 {
        let id = entity_id(n * 7919 % scale.pulled);
        ours.push(timed(|| manager.get("pin", &id).expect("reads").expect("is there")).0);
        theirs.push(
            timed(|| {
                raw.prepare_cached(
                    "SELECT entity_type, entity_id, current, open_operations, last_synced_at, last_failed_sync_at, failure_reason
                     FROM entities WHERE entity_type = ?1 AND entity_id = ?2",
                )
                .and_then(|mut select| {
                    select.query_row(["pin", &id], |row| {
                        Ok((
                            row.get::<_, String>(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, String>(2)?,
                            row.get::<_, u64>(3)?,
                            row.get::<_, Option<i64>>(4)?,
                            row.get::<_, Option<i64>>(5)?,
                            row.get::<_, Option<String>>(6)?,
                        ))
                    })
                })
                .expect("reads")
            })
            .0,
        );
    }
    let (ours, theirs) = (p50(&mut ours), p50(&mut theirs));
    Figure {
        name: "get / the same SQL, p50",
        value: ratio(ours, theirs),
        unit: "×",
        goal: Goal::AtMost(1.5),
        detail: format!("{:.1} µs / {:.1} µs", micros(ours), micros(theirs)),
    }
}

fn lists(manager: &syncline_core::SyncManager, raw: &Connection, scale: Scale) -> Figure {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..scale.rounds {
        let from = format!("Valve {}", n * 31 % scale.pulled);
        let query = ListQuery {
            order_by: Some("$.title".into()),
            ..ListQuery::new("pin").filter("$.title", Comparison::GreaterOrEqual(json!(from)))
        };
        let (took, page) = timed(|| manager.list(&query).expect("reads"));
        ours.push(took);
        let (took, rows) = timed(|| {
            raw.prepare_cached(
                "SELECT entity_type, entity_id, current, open_operations, last_synced_at, last_failed_sync_at, failure_reason
                 FROM entities WHERE entity_type = 'pin' AND current IS NOT NULL AND json_extract(current, '$.\"title\"') >= ?1
                 ORDER BY json_extract(current, '$.\"title\"'), entity LIMIT 50",
            )
            .and_then(|mut select| {
                select
                    .query_map(params![from], |row| {
                        Ok((
                            row.get::<_, String>(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, String>(2)?,
                            row.get::<_, u64>(3)?,
                            row.get::<_, Option<i64>>(4)?,
                            row.get::<_, Option<i64>>(5)?,
                            row.get::<_, Option<String>>(6)?,
                        ))
                    })?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .expect("reads")
        });
        theirs.push(took);
        assert_eq!(page.entities.len(), rows.len());
    }
    let (ours, theirs) = (p50(&mut ours), p50(&mut theirs));
    Figure {
        name: "list of 50 by an indexed path / the same SQL, p50",
        value: ratio(ours, theirs),
        unit: "×",
        goal: Goal::AtMost(1.5),
        detail: format!("{:.0} µs / {:.0} µs", micros(ours), micros(theirs)),
    }
}
