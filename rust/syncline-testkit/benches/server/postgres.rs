//! Pushes to Postgres, beside `plain.sql`: a database of each kind in one cluster, the same bodies, the same driver.

use std::time::{Duration, Instant};

use syncline_testkit::postgres::{Cluster, Database, Durability};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};

use crate::load::{Shape, Writer};
use crate::table::{self, Done, Line, find};
use crate::{Figure, Goal, Scale};

const SERVE: &str = "SELECT status, body FROM syncline.serve($1, $2, $3)";
const PLAIN: &str = "SELECT 200, plain.push($2::text::json)::text WHERE $1 = 'push' AND $3 <> ''";
/// One checkpoint for all: otherwise some lines would pay for the pages that others wrote.
const SETTINGS: [&str; 4] =
    ["shared_buffers=512MB", "max_wal_size=16GB", "checkpoint_timeout=1h", "wal_compression=off"];
const BATCHES: [usize; 3] = [1, 50, 500];

/// A database, and the statement that pushes to it.
struct Side {
    database: Database,
    push: &'static str,
}

pub(crate) fn run(scale: Scale, is_told: bool) -> Vec<Figure> {
    let cluster = Cluster::start_with(Durability::Full, &SETTINGS);
    let ours = Side { database: cluster.database("ours"), push: SERVE };
    let plain = Side { database: cluster.database("plain"), push: PLAIN };
    cluster.sql("plain", include_str!("plain.sql"));
    let runtime = Runtime::new().expect("threads");
    runtime.block_on(check_same_rows(&cluster, &ours, &plain));
    if is_told {
        table::heading("Postgres", "WAL bytes");
    }
    let mut lines = Vec::new();
    for (clients, scopes) in [(1, 1), (1, 64), (8, 1), (8, 64)] {
        for batch in BATCHES {
            let shape = Shape { batch, clients, scopes };
            let line = runtime.block_on(measure(shape, scale, &ours, &plain));
            if is_told {
                table::line(&line);
            }
            lines.push(line);
        }
    }
    figures(&lines)
}

fn figures(lines: &[Line]) -> Vec<Figure> {
    let against_single = |batch, scopes| {
        let (line, single) = (find(lines, batch, 1, scopes), find(lines, 1, 1, scopes));
        let detail = format!("{:.0}/s / {:.0}/s, {scopes} scope(s)", line.ours.rate(), single.ours.rate());
        (line.ours.rate() / single.ours.rate(), detail)
    };
    let worst = |found: Vec<(f64, String)>| found.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("some lines");
    let batched = lines.iter().filter(|line| line.shape.batch > 1);
    let hot =
        batched.clone().filter(|line| line.shape.scopes == 1).max_by(|a, b| a.ours.rate().total_cmp(&b.ours.rate()));
    let hot = hot.expect("some lines");
    let figure = |name, (value, detail): (f64, String), goal| Figure {
        name,
        value,
        unit: "×",
        goal: Goal::AtLeast(goal),
        detail,
    };
    vec![
        figure(
            "batches of 500 / one call each, worst",
            worst(vec![against_single(500, 1), against_single(500, 64)]),
            12.0,
        ),
        figure(
            "batches of 50 / one call each, worst",
            worst(vec![against_single(50, 1), against_single(50, 64)]),
            12.0,
        ),
        figure(
            "pushes / plain set-based SQL, worst",
            worst(batched.map(|line| (line.ratio(), line.words())).collect()),
            0.6,
        ),
        figure("one hot scope / plain set-based SQL, best", (hot.ratio(), hot.words()), 0.4),
    ]
}

async fn connect(side: &Side) -> (Client, Statement) {
    let (client, connection) = tokio_postgres::connect(side.database.url(), NoTls).await.expect("the cluster runs");
    tokio::spawn(connection);
    let statement = client.prepare(side.push).await.expect("the function is there");
    (client, statement)
}

async fn send(client: &Client, statement: &Statement, path: &str, body: &str, scope: &str) -> String {
    let claims = format!(r#"{{"sub": "bench", "scope": ["{scope}"], "role": "authenticated"}}"#);
    let row = client.query_one(statement, &[&path, &body, &claims]).await.expect("the database answers");
    let (status, body): (i32, String) = (row.get(0), row.get(1));
    assert_eq!(status, 200, "{body}");
    body
}

/// Every writer pulls once: that makes its scope, on both sides.
async fn open(side: &Side, writers: &mut [Vec<Writer>]) {
    let (client, _) = connect(side).await;
    let serve = client.prepare(SERVE).await.expect("the migrations are in");
    for writer in writers.iter_mut().flatten() {
        let answer = send(&client, &serve, "pull", &writer.pull(), &writer.scope).await;
        writer.answered(&answer);
    }
}

/// A client: a connection of its own, kept as a server keeps it in its pool.
struct Worker {
    client: Client,
    statement: Statement,
    writers: Vec<Writer>,
}

/// The clients of one side. Each has pushed once to each connection: a session's first call makes its plans.
async fn staff(side: &Side, shape: Shape) -> Vec<Worker> {
    let mut writers = shape.writers(&format!("s{}-{}-{}", shape.batch, shape.clients, shape.scopes));
    open(side, &mut writers).await;
    let mut workers = Vec::new();
    for writers in writers {
        let (client, statement) = connect(side).await;
        let mut worker = Worker { client, statement, writers };
        worker.push(shape.batch).await;
        workers.push(worker);
    }
    workers
}

impl Worker {
    async fn push(&mut self, batch: usize) {
        self.writers.rotate_left(1);
        let writer = &mut self.writers[0];
        let body = writer.push(batch);
        let answer = send(&self.client, &self.statement, "push", &body, &writer.scope).await;
        writer.answered(&answer);
    }
}

async fn measure(shape: Shape, scale: Scale, ours: &Side, plain: &Side) -> Line {
    let mut line = Line { shape, ours: Done::default(), plain: Done::default() };
    let (mut our_workers, mut plain_workers) = (staff(ours, shape).await, staff(plain, shape).await);
    for _ in 0..scale.turns {
        line.ours.add(turn(ours, &mut our_workers, shape.batch, scale.turn).await);
        line.plain.add(turn(plain, &mut plain_workers, shape.batch, scale.turn).await);
    }
    line
}

/// All clients push for a while, one request after the other.
async fn turn(side: &Side, workers: &mut Vec<Worker>, batch: usize, turn: Duration) -> Done {
    let (observer, _) = connect(side).await;
    let before = written(&observer).await;
    let begun = Instant::now();
    let work = |mut worker: Worker| async move {
        let mut pushes = 0;
        while begun.elapsed() < turn {
            worker.push(batch).await;
            pushes += 1;
        }
        (pushes, worker)
    };
    let tasks: Vec<_> = std::mem::take(workers).into_iter().map(|worker| tokio::spawn(work(worker))).collect();
    let mut pushes = 0;
    for task in tasks {
        let (own, worker) = task.await.expect("no panic");
        pushes += own;
        workers.push(worker);
    }
    Done { operations: pushes * batch, took: begun.elapsed(), bytes: written(&observer).await - before }
}

async fn written(client: &Client) -> u64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    let bytes: i64 = client.query_one(sql, &[]).await.expect("the database answers").get(0);
    bytes as u64
}

/// The plain program is only worth comparing with if it leaves the same rows; but for the hash, which it makes its own way, and
/// the moments.
async fn check_same_rows(cluster: &Cluster, ours: &Side, plain: &Side) {
    let mut shown = Vec::new();
    for side in [ours, plain] {
        let mut writers = vec![vec![Writer::new("check".into(), "device".into())]];
        open(side, &mut writers).await;
        let (client, statement) = connect(side).await;
        for batch in [3, 8, 1, 1] {
            let body = writers[0][0].push(batch);
            send(&client, &statement, "push", &body, "check").await;
        }
        let name = if side.push == SERVE { "ours" } else { "plain" };
        shown.push(cluster.sql(
            name,
            "SELECT to_jsonb(e) - 'stored_at' FROM syncline.entities e ORDER BY version;
             SELECT to_jsonb(o) - 'content_hash' - 'decided_at' FROM syncline.operations o ORDER BY sequence;
             SELECT to_jsonb(d) FROM syncline.devices d; SELECT scope, head FROM syncline.scopes;",
        ));
    }
    assert!(shown[0].lines().count() > 20, "{}", shown[0]);
    assert_eq!(shown[0], shown[1], "the plain program writes something else");
}
