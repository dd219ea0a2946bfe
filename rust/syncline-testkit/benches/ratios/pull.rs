//! A pull of 100,000 changes, killed and resumed once, beside a plain program that writes the same rows.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use serde_json::{Value, json};
use syncline_core::Durability;
use syncline_core::transport::{BoxFuture, Dialect, Request, Response, Route, Token, Transport, TransportError};

use crate::raw::Raw;
use crate::support::{config, entity_id, open, payload, timed};
use crate::{Figure, Goal, Scale};

const PAGE: usize = 1000;
const CLOCK: &str = r#"{"B":7}"#;

/// Serves pages that were written before the clock started.
struct Pages {
    pages: Vec<Vec<u8>>,
    until: usize,
}

impl Transport for Pages {
    fn send(&self, request: Request, _: Token) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            assert_eq!(request.route, Route::Pull);
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            let page: usize = body["cursor"].as_str().map_or(0, |cursor| cursor.parse().expect("a page"));
            if page >= self.until {
                return Err(TransportError::Broken("killed here".into()));
            }
            let (protocol, body) = (Some("1".into()), self.pages[page].clone());
            Ok(Response { status: 200, protocol, retry_after: None, body, dialect: Dialect::Syncline })
        })
    }
}

pub(crate) fn run(scale: Scale) -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let pages = pages(scale.pulled);
    let last = pages.len();
    let path = dir.path().join("device.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut ours = Duration::ZERO;
    for until in [last / 2, last] {
        let manager = open(config(&path, Durability::Normal), Arc::new(Pages { pages: pages.clone(), until }));
        ours += timed(|| runtime.block_on(manager.process_queue()).expect("pulls")).0;
        // Dropped without a word, in the middle of the pull the first time.
        drop(manager);
    }
    let found = rusqlite::Connection::open(&path)
        .and_then(|conn| conn.query_row("SELECT count(*) FROM entities WHERE base IS NOT NULL", [], |row| row.get(0)));
    assert_eq!(found, Ok(scale.pulled), "every change is there");
    let raw = Raw::open(&dir.path().join("raw.db"), Durability::Normal);
    let rows: Vec<_> = (0..scale.pulled).map(|n| (entity_id(n), payload(n))).collect();
    let theirs = timed(|| plain(&raw, &rows)).0;
    vec![Figure {
        name: "pull of 100,000 / plain writes, speed",
        value: theirs.as_secs_f64() / ours.as_secs_f64(),
        unit: "×",
        goal: Goal::AtLeast(0.5),
        detail: format!(
            "{:.0} ms / {:.0} ms for {}",
            ours.as_secs_f64() * 1e3,
            theirs.as_secs_f64() * 1e3,
            scale.pulled
        ),
    }]
}

fn pages(count: usize) -> Vec<Vec<u8>> {
    let last = count.div_ceil(PAGE);
    (0..last)
        .map(|page| {
            let changes: Vec<String> = (page * PAGE..((page + 1) * PAGE).min(count))
                .map(|n| {
                    format!(
                        r#"{{"entity_type":"pin","entity_id":"{}","version":{},"record":{},"deleted":false,"clock":{CLOCK},"changed_at":"2026-01-01T00:00:00.000Z"}}"#,
                        entity_id(n),
                        n + 1,
                        payload(n)
                    )
                })
                .collect();
            let rest = json!({ "cursor": (page + 1).to_string(), "epoch": "e", "has_more": page + 1 < last, "reset": false });
            format!(r#"{{"changes":[{}],{}"#, changes.join(","), &rest.to_string()[1..]).into_bytes()
        })
        .collect()
}

/// The same rows with the same page in one transaction, as an upsert, because a change may be of an entity that is there.
fn plain(raw: &Raw, rows: &[(String, String)]) {
    for (page, rows) in rows.chunks(PAGE).enumerate() {
        raw.run("BEGIN IMMEDIATE");
        for (n, (id, record)) in rows.iter().enumerate() {
            let n = (page * PAGE + n + 1) as i64;
            raw.conn
                .prepare_cached(
                    "INSERT INTO entities (entity_type, entity_id, base, base_clock, base_version, current, change)
                     VALUES ('pin', ?1, ?2, ?3, ?4, ?2, ?4) ON CONFLICT (entity_type, entity_id) DO UPDATE SET
                     base = excluded.base, base_clock = excluded.base_clock, base_version = excluded.base_version,
                     current = excluded.current, change = excluded.change",
                )
                .and_then(|mut upsert| upsert.execute(params![id, record, CLOCK, n]))
                .expect("writes");
        }
        raw.run("COMMIT");
    }
}
