//! The invariants of spec §9 that two kinds of files can show, by plain SQL: nothing of core or server is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;
use syncline_core::QueueMetrics;

pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
    /// Operations up to this sequence are in the file of a copy as well: "after a copied file, an intent that one copy
    /// cancelled, folded further or retried may arrive from the other copy as well" (docs, counter-examples).
    pub(crate) shared_through: u64,
    pub(crate) metrics: Option<QueueMetrics>,
}

/// `shared`: device ids that more than one file has used.
pub(crate) fn invariants(server: &Path, shared: &[String], devices: &[Subject<'_>]) {
    let server = open(server);
    let make_shared = "CREATE TEMP TABLE shared AS SELECT value AS device_id FROM json_each(?1)";
    server.execute(make_shared, [Value::from(shared).to_string()]).expect("the table is made");
    no_rows(&server, "order: the server applied a lane out of order", ORDER);
    for device in devices {
        let file = open(device.path);
        conservation(&file, device);
        for (what, sql) in DEVICE_RULES {
            no_rows(&file, &format!("{}: {what}", device.name), sql);
        }
        attach(&file, &server);
        let owned = format!(
            "CREATE TEMP VIEW owned AS SELECT * FROM main.sync_queue WHERE sequence > {}",
            device.shared_through
        );
        file.execute(&owned, []).expect("the view is made");
        if same_history(&file) {
            for (what, sql) in EFFECT_RULES {
                no_rows(&file, &format!("{}: {what}", device.name), sql);
            }
        }
    }
}

/// Invariant 1.
fn conservation(file: &Connection, device: &Subject<'_>) {
    let count = |status: &str| number(file, &format!("SELECT count(*) FROM sync_queue WHERE status = '{status}'"));
    let total = |column: &str| number(file, &format!("SELECT {column} FROM counters"));
    let enqueued = number(file, "SELECT coalesce(max(sequence), 0) FROM sync_queue");
    let rows = number(file, "SELECT count(*) FROM sync_queue");
    let open = ["pending", "in_progress", "failed", "conflicted"].map(count);
    let (completed, cancelled) = (total("completed_total"), total("cancelled_total"));
    let name = device.name;
    assert_eq!(enqueued, open.iter().sum::<i64>() + completed + cancelled, "{name}: conservation");
    assert_eq!(
        enqueued - rows,
        completed - count("completed") + cancelled - count("cancelled"),
        "{name}: conservation: only ended operations are pruned"
    );
    let Some(metrics) = &device.metrics else { return };
    let said = [metrics.pending, metrics.in_progress, metrics.failed, metrics.conflicted];
    assert_eq!(said.map(|count| count as i64), open, "{name}: metrics: pending, in_progress, failed, conflicted");
    let totals = [metrics.enqueued_total, metrics.completed_total, metrics.cancelled_total, metrics.queue_length];
    assert_eq!(
        totals.map(|count| count as i64),
        [enqueued, completed, cancelled, open.iter().sum()],
        "{name}: metrics: enqueued, completed, cancelled, queue_length"
    );
}

/// What a device's file must show by itself.
const DEVICE_RULES: &[(&str, &str)] = &[
    (
        "atomicity: a transaction is half completed",
        "SELECT transaction_id FROM sync_queue WHERE transaction_id IS NOT NULL GROUP BY transaction_id
         HAVING sum(status = 'completed') NOT IN (0, count(*)) AND sum(status = 'cancelled' AND reason = 'coalesced') = 0",
    ),
    (
        "fold: an entity without open operations differs from its base",
        "SELECT entity_id FROM entities WHERE current IS NOT base AND base_confirmed = 1
         AND NOT EXISTS (SELECT 1 FROM sync_queue q WHERE q.entity = entities.entity AND q.open = 1)",
    ),
    (
        "audit: a conflicted operation has no undecided ledger row",
        "SELECT sequence FROM sync_queue q WHERE status = 'conflicted'
         AND NOT EXISTS (SELECT 1 FROM conflicts c WHERE c.operation_id = q.id AND c.resolution IS NULL)",
    ),
    (
        "audit: the count of conflicts differs from the ledger",
        "SELECT conflicts_detected FROM counters WHERE conflicts_detected <> (SELECT count(*) FROM conflicts)",
    ),
];

/// Invariant 3: rowids are in the order of the decisions. Until a copy of a file is known to be one, two lanes go by one name.
const ORDER: &str = "SELECT a.scope, a.entity_id, a.sequence, b.sequence FROM operations a JOIN operations b
     USING (scope, device_id, entity_type, entity_id)
     WHERE a.sequence < b.sequence AND a.rowid > b.rowid AND device_id NOT IN (SELECT device_id FROM shared)
     AND a.verdict IN ('applied', 'merged') AND b.verdict IN ('applied', 'merged')";

/// Invariants 2 and 7, between a device's file (`main`) and the server's (`server`).
const EFFECT_RULES: &[(&str, &str)] = &[
    (
        // By key as well: two copies of a file that write the same within one millisecond make the same key, and one effect.
        "effect: a completed operation was not applied exactly once",
        "SELECT q.sequence FROM owned q WHERE q.status = 'completed' AND
         (SELECT count(*) FROM server.operations o WHERE o.verdict IN ('applied', 'merged')
          AND (o.operation_id = q.id OR o.idempotency_key IN (q.idempotency_key, q.idempotency_key || '#' || q.key_try))
          AND (o.entity_type, o.entity_id) = (SELECT entity_type, entity_id FROM entities e WHERE e.entity = q.entity)
          AND o.scope = (SELECT scope FROM device)) <> 1",
    ),
    (
        "effect: a cancelled operation was applied",
        "SELECT q.sequence FROM owned q JOIN server.operations o ON o.operation_id = q.id
         WHERE q.status = 'cancelled' AND o.verdict IN ('applied', 'merged')",
    ),
    (
        "effect: a failed or conflicted operation was applied and does not say so",
        "SELECT q.sequence FROM owned q JOIN server.operations o ON o.operation_id = q.id
         WHERE q.status IN ('failed', 'conflicted') AND o.verdict IN ('applied', 'merged') AND q.decided = 1",
    ),
    (
        "atomicity: the server applied half a transaction",
        "SELECT q.transaction_id FROM owned q LEFT JOIN server.operations o
         ON o.operation_id = q.id AND o.verdict IN ('applied', 'merged')
         WHERE q.transaction_id IS NOT NULL AND q.survivor IS NULL GROUP BY q.transaction_id
         HAVING count(o.operation_id) NOT IN (0, count(*))",
    ),
    (
        "audit: a conflict that the server recorded is not in the device's ledger",
        "SELECT c.id FROM server.conflicts c JOIN owned q ON q.id = c.operation_id
         WHERE (q.status IN ('conflicted', 'completed') OR (q.status = 'failed' AND q.decided = 1))
         AND NOT EXISTS (SELECT 1 FROM main.conflicts mine WHERE mine.id = c.id)",
    ),
    (
        // Null and absent are one: where a deletion and the removal of a field meet, neither side has a value. Two writes of
        // one field differ, so one of them has.
        "audit: a conflict's values are not in the ledger",
        "SELECT c.id FROM server.conflicts c, json_each(c.conflict, '$.fields') f
         WHERE json_extract(f.value, '$.winner') IS NULL OR
         (coalesce(json_type(f.value, '$.ours'), 'null') = 'null' AND coalesce(json_type(f.value, '$.theirs'), 'null') = 'null'
          AND coalesce(json_extract(c.conflict, '$.their_deleted'), 0) = 0
          AND json_extract(c.conflict, '$.operation') <> 'delete')",
    ),
];

/// Whether the device knows the server's present history; until it has heard of another one, the two cannot be compared.
fn same_history(file: &Connection) -> bool {
    number(
        file,
        "SELECT count(*) FROM device d JOIN server.scopes s ON s.scope = d.scope AND s.epoch = d.epoch
         WHERE d.mark <= (SELECT coalesce(max(v.mark), 0) FROM server.devices v
                          WHERE v.scope = d.scope AND v.device_id = d.device_id)",
    ) == 1
}

/// The devices have heard of the server's present history: nothing was left uncompared.
pub(crate) fn one_history(server: &Path, devices: &[Subject<'_>]) {
    let server = open(server);
    for device in devices {
        let file = open(device.path);
        attach(&file, &server);
        assert!(same_history(&file), "{}: history: it does not know the server's", device.name);
    }
}

/// Invariant 11: what still waits has one that failed or conflicts before it in its lane, among its dependencies or in its group.
pub(crate) fn drained(devices: &[Subject<'_>]) {
    for device in devices {
        no_rows(&open(device.path), &format!("{}: liveness: nothing stands in the way of", device.name), STUCK);
    }
}

const STUCK: &str = "WITH RECURSIVE blocked (sequence) AS (
         SELECT sequence FROM sync_queue WHERE status IN ('failed', 'conflicted')
         UNION
         SELECT q.sequence FROM blocked b JOIN sync_queue p ON p.sequence = b.sequence JOIN sync_queue q
         ON (q.entity = p.entity AND q.sequence > p.sequence) OR q.transaction_id = p.transaction_id OR EXISTS (
             SELECT 1 FROM dependencies d LEFT JOIN sync_queue folded ON folded.sequence = d.depends_on
             WHERE d.sequence = q.sequence AND p.sequence IN (d.depends_on, folded.survivor))
         WHERE q.status IN ('pending', 'in_progress'))
     SELECT sequence FROM sync_queue
     WHERE status IN ('pending', 'in_progress') AND sequence NOT IN (SELECT sequence FROM blocked)";

/// Invariant 5.
pub(crate) fn converged(server: &Path, devices: &[Subject<'_>]) {
    let server = open(server);
    for device in devices {
        let file = open(device.path);
        let waiting = number(&file, "SELECT count(*) FROM sync_queue WHERE status NOT IN ('completed', 'cancelled')");
        assert_eq!(waiting, 0, "{}: convergence: operations still wait", device.name);
        let scope: String = file.query_row("SELECT scope FROM device", [], |row| row.get(0)).expect("one device row");
        let types: Option<String> =
            file.query_row("SELECT entity_types FROM device", [], |row| row.get(0)).expect("one device row");
        let wanted = |entity_type: &str| {
            let types: Option<Vec<String>> = types.as_deref().and_then(|text| serde_json::from_str(text).ok());
            types.is_none_or(|types| types.iter().any(|name| name == entity_type))
        };
        let here = live(&file, "SELECT entity_type, entity_id, current FROM entities WHERE current IS NOT NULL", []);
        let mut there = live(
            &server,
            "SELECT entity_type, entity_id, payload FROM entities WHERE deleted = 0 AND scope = ?1",
            [scope],
        );
        there.retain(|(entity_type, _), _| wanted(entity_type));
        let here: BTreeMap<_, _> = here.into_iter().filter(|((entity_type, _), _)| wanted(entity_type)).collect();
        let entities: BTreeSet<_> = here.keys().chain(there.keys()).collect();
        for entity in entities {
            let (mine, theirs) = (here.get(entity), there.get(entity));
            let name = device.name;
            assert!(mine == theirs, "{name}: convergence: {entity:?} is {mine:?} here and {theirs:?} on the server");
        }
    }
}

type Live = BTreeMap<(String, String), Value>;

fn live<P: rusqlite::Params>(file: &Connection, sql: &str, params: P) -> Live {
    let mut statement = file.prepare(sql).expect("the table is there");
    let rows = statement
        .query_map(params, |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, String>(2)?)))
        .expect("the table can be read");
    rows.map(|row| row.expect("a row"))
        .map(|(key, text)| (key, serde_json::from_str(&text).expect("records are JSON")))
        .collect()
}

fn open(path: &Path) -> Connection {
    Connection::open(path).expect("the file opens")
}

fn attach(file: &Connection, server: &Connection) {
    let path = server.path().expect("the server has a file");
    file.execute("ATTACH ?1 AS server", [path]).expect("the server's file opens");
}

fn number(file: &Connection, sql: &str) -> i64 {
    file.query_row(sql, [], |row| row.get(0)).expect(sql)
}

fn no_rows(file: &Connection, what: &str, sql: &str) {
    let mut statement = file.prepare(sql).expect(sql);
    let found: Vec<String> = statement
        .query_map([], |row| row.get::<_, rusqlite::types::Value>(0))
        .expect(sql)
        .map(|value| format!("{:?}", value.expect("a row")))
        .collect();
    assert!(found.is_empty(), "{what}: {found:?}");
}
