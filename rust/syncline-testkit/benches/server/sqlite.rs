//! Pushes to the embedded endpoint, beside plain SQLite that writes the same rows: the same body read by serde, one transaction,
//! prepared statements, nothing looked up and nothing checked. The endpoint answers one request at a time, so there is one client.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use syncline_protocol::Timestamp;
use syncline_server::endpoint::types::Types;
use syncline_server::{Claims, Embedded, Endpoint as _, EndpointLimits, Request, SqliteStore, SystemRandom};

use crate::load::{Shape, Writer};
use crate::table::{self, Done, Line, find};
use crate::{Figure, Goal, Scale};

/// 2026-05-01T12:00:00Z
const NOON: i64 = 1_777_636_800_000;

pub(crate) fn run(scale: Scale, is_told: bool) -> Vec<Figure> {
    let folder = tempfile::tempdir().expect("a folder");
    check_same_rows(folder.path());
    let mut sides = [Side::ours(&folder.path().join("ours.db")), Side::plain(&folder.path().join("plain.db"))];
    if is_told {
        table::heading("Embedded SQLite", "bytes written to files");
    }
    let mut lines = Vec::new();
    for scopes in [1, 64] {
        for batch in [1, 50, 500] {
            let shape = Shape { batch, clients: 1, scopes };
            let line = measure(shape, scale, &mut sides);
            if is_told {
                table::line(&line);
            }
            lines.push(line);
        }
    }
    let worst = lines.iter().filter(|line| line.shape.batch > 1).min_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let worst = worst.expect("some lines");
    let gain = find(&lines, 500, 1, 1).ours.rate() / find(&lines, 1, 1, 1).ours.rate();
    vec![
        Figure {
            name: "embedded: pushes / plain SQLite, worst",
            value: worst.ratio(),
            unit: "×",
            goal: Goal::AtLeast(0.6),
            detail: worst.words(),
        },
        Figure {
            name: "embedded: batches of 500 / one call each",
            value: gain,
            unit: "×",
            goal: Goal::AtLeast(12.0),
            detail: find(&lines, 500, 1, 1).words(),
        },
    ]
}

enum Side {
    Ours(Box<Embedded<SqliteStore>>),
    Plain(Connection),
}

impl Side {
    fn ours(path: &Path) -> Self {
        let store = SqliteStore::open(path, None).expect("it opens");
        let types = Types::new(Default::default()).expect("no types");
        Self::Ours(Box::new(Embedded::new(store, types, EndpointLimits::default())))
    }

    /// The same file with the same settings, written by other means.
    fn plain(path: &Path) -> Self {
        drop(SqliteStore::open(path, None).expect("it opens"));
        let connection = Connection::open(path).expect("it opens");
        connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full").expect("SQLite");
        connection.set_prepared_statement_cache_capacity(32);
        Self::Plain(connection)
    }

    fn open(&mut self, writers: &mut [Writer]) {
        for writer in writers {
            match self {
                Self::Ours(endpoint) => {
                    let body = writer.pull();
                    let answer = ask(endpoint, Request::Pull(body.as_bytes()), &writer.scope);
                    writer.answered(&answer);
                }
                Self::Plain(connection) => {
                    let sql = "INSERT INTO scopes VALUES (?1, 0, 'epoch', 0)";
                    connection.execute(sql, [&writer.scope]).expect("a new scope");
                }
            }
        }
    }

    fn push(&mut self, writer: &mut Writer, body: &str) {
        match self {
            Self::Ours(endpoint) => {
                let answer = ask(endpoint, Request::Push(body.as_bytes()), &writer.scope);
                writer.answered(&answer);
            }
            Self::Plain(connection) => write(connection, body).expect("SQLite writes"),
        }
    }
}

fn ask(endpoint: &mut Embedded<SqliteStore>, request: Request<'_>, scope: &str) -> String {
    let claims = Claims::new("bench".into(), [scope.to_owned()].into());
    let answer = endpoint.handle(request, &claims, Timestamp::from_millis(NOON), &mut SystemRandom);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[derive(Deserialize)]
struct Push<'a> {
    user_id: &'a str,
    scope: &'a str,
    device_id: &'a str,
    #[serde(borrow)]
    operations: Vec<Operation<'a>>,
}

#[derive(Deserialize)]
struct Operation<'a> {
    id: &'a str,
    idempotency_key: &'a str,
    sequence: u64,
    operation: &'a str,
    entity_type: &'a str,
    entity_id: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

fn write(connection: &mut Connection, body: &str) -> rusqlite::Result<()> {
    let push: Push<'_> = serde_json::from_str(body).expect("our own body");
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let (scope, device) = (push.scope, push.device_id);
    let mut head: u64 =
        transaction.prepare_cached("SELECT head FROM scopes WHERE scope = ?1")?.query_row([scope], |row| row.get(0))?;
    for operation in &push.operations {
        head += 1;
        let write = format!(r#"["{device}",{},{NOON}]"#, operation.sequence);
        let clock = format!(r#"{{"{device}":{}}}"#, operation.sequence);
        if operation.operation == "create" {
            let sql = "INSERT INTO entities (scope, entity_type, entity_id, version, deleted, payload, clock, fields, created_by, deleted_by, stored_at)
                       VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, '{}', ?7, NULL, ?8)";
            let values = params![
                scope,
                operation.entity_type,
                operation.entity_id,
                head,
                operation.payload.get(),
                clock,
                write,
                NOON
            ];
            transaction.prepare_cached(sql)?.execute(values)?;
        } else {
            let fields = format!(r#"{{"note":{write},"state":{write}}}"#);
            let sql = "UPDATE entities SET version = ?4, payload = json_patch(payload, ?5), clock = ?6, fields = json_patch(fields, ?7),
                         stored_at = ?8 WHERE scope = ?1 AND entity_type = ?2 AND entity_id = ?3";
            let values = params![
                scope,
                operation.entity_type,
                operation.entity_id,
                head,
                operation.payload.get(),
                clock,
                fields,
                NOON
            ];
            transaction.prepare_cached(sql)?.execute(values)?;
        }
        let sql =
            "INSERT INTO operations VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, zeroblob(32), 'applied', NULL, NULL, ?9)";
        transaction.prepare_cached(sql)?.execute(params![
            scope,
            operation.idempotency_key,
            operation.id,
            device,
            operation.sequence,
            operation.operation,
            operation.entity_type,
            operation.entity_id,
            NOON
        ])?;
    }
    transaction.prepare_cached("UPDATE scopes SET head = ?2 WHERE scope = ?1")?.execute(params![scope, head])?;
    let sql =
        "INSERT INTO devices VALUES (?1, ?2, ?3, 1, 0) ON CONFLICT (scope, device_id) DO UPDATE SET mark = mark + 1";
    transaction.prepare_cached(sql)?.execute([scope, device, push.user_id])?;
    transaction.commit()
}

fn measure(shape: Shape, scale: Scale, sides: &mut [Side; 2]) -> Line {
    let prefix = format!("s{}-{}", shape.batch, shape.scopes);
    let mut writers = [shape.writers(&prefix).concat(), shape.writers(&prefix).concat()];
    let mut done = [Done::default(), Done::default()];
    for (side, writers) in sides.iter_mut().zip(&mut writers) {
        side.open(writers);
    }
    for _ in 0..scale.turns {
        for ((side, writers), done) in sides.iter_mut().zip(&mut writers).zip(&mut done) {
            done.add(turn(side, writers, shape.batch, scale.turn));
        }
    }
    let [ours, plain] = done;
    Line { shape, ours, plain }
}

fn turn(side: &mut Side, writers: &mut [Writer], batch: usize, turn: Duration) -> Done {
    let (before, begun, mut pushes) = (written(), Instant::now(), 0);
    while begun.elapsed() < turn {
        writers.rotate_left(1);
        let body = writers[0].push(batch);
        side.push(&mut writers[0], &body);
        pushes += 1;
    }
    Done { operations: pushes * batch, took: begun.elapsed(), bytes: written() - before }
}

/// What this process has given to the system to write; 0 where the system does not say.
fn written() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn check_same_rows(folder: &Path) {
    let shown: Vec<String> = ["ours", "plain"]
        .map(|name| {
            let path = folder.join(format!("check-{name}.db"));
            let mut side = if name == "ours" { Side::ours(&path) } else { Side::plain(&path) };
            let mut writers = [Writer::new("check".into(), "device".into())];
            side.open(&mut writers);
            for batch in [3, 8, 1, 1] {
                let body = writers[0].push(batch);
                side.push(&mut writers[0], &body);
            }
            drop(side);
            rows(&path)
        })
        .into();
    assert!(shown[0].lines().count() > 20, "{}", shown[0]);
    assert_eq!(shown[0], shown[1], "the plain program writes something else");
}

/// Everything but epoch and hash; JSON by its value.
fn rows(path: &Path) -> String {
    let connection = Connection::open(path).expect("it opens");
    let mut shown = String::new();
    for sql in [
        "SELECT json_array(entity_type, entity_id, version, deleted, json(payload), json(clock), json(fields), json(created_by), stored_at)
           FROM entities ORDER BY version",
        "SELECT json_array(idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id, verdict, decided_at)
           FROM operations ORDER BY sequence",
        "SELECT json_array(scope, device_id, user_id, mark, forgotten_through) FROM devices",
        "SELECT json_array(scope, head) FROM scopes",
    ] {
        let mut statement = connection.prepare(sql).expect("SQLite");
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).expect("SQLite");
        for text in texts {
            let value: Value = serde_json::from_str(&text.expect("SQLite")).expect("JSON");
            shown += &format!("{value}\n");
        }
    }
    shown
}
