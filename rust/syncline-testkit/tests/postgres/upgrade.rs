//! A populated dump of the migrations as they are is restored, on the version that tests are run on, and upgraded by a migration that only
//! tests have, while pushes and pulls arrive. The dump is Debian's version's, so that on a later one the server is upgraded as well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use syncline_server::{Answer, PostgresConfig, PostgresEndpoint};
use syncline_testkit::contract::{Outcome, PostgresHost, Vector, folder, load, run_one};
use syncline_testkit::postgres::{Cluster, Database, Durability, debian, find_binaries};

use crate::together::{OPERATIONS, ask, body, epoch, open, push};

const WRITERS: usize = 4;
/// Pushes of each writer before the upgrade, and after it.
const PUSHES: usize = 15;
const NEXT: &str = include_str!("next.sql");
/// The columns that the first set has, in an order of their own: what an upgrade leaves alone.
const CONTENT: &str = "
    SELECT md5(string_agg(t.line, E'\\n' ORDER BY t.line)) FROM (
      SELECT (s.scope, s.head, s.purged_through)::text AS line FROM syncline.scopes s WHERE s.scope <> 'team'
      UNION ALL SELECT (d.scope, d.device_id, d.user_id, d.mark, d.forgotten_through)::text FROM syncline.devices d WHERE d.scope <> 'team'
      UNION ALL SELECT (e.scope, e.entity_type, e.entity_id, e.version, e.payload, e.fields, e.created, e.deleted, e.clock, e.stored_at)::text
        FROM syncline.entities e WHERE e.scope <> 'team'
      UNION ALL SELECT (o.scope, o.idempotency_key, o.operation_id, o.device_id, o.sequence, o.content_hash, o.verdict, o.error)::text
        FROM syncline.operations o WHERE o.scope <> 'team'
      UNION ALL SELECT (c.scope, c.id, c.conflict)::text FROM syncline.conflicts c
      UNION ALL SELECT (g.*)::text FROM public.gauges g) t";

#[test]
fn a_populated_dump_is_upgraded_while_pushes_arrive() {
    let vectors = load(&folder()).unwrap();
    let (dump, content) = populated(&vectors);
    let cluster = Cluster::start(Durability::None);
    let database = cluster.restore("upgraded", &dump);
    assert_eq!(cluster.sql("upgraded", CONTENT), content, "restored as it was dumped");
    assert_eq!(
        cluster.sql("upgraded", "SELECT count(*) > 400 AND count(DISTINCT scope) > 100 FROM syncline.operations"),
        "t"
    );

    let endpoint = open(database.url());
    let epoch = epoch(&endpoint);
    let (pushed, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let versions = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (endpoint, epoch, pushed, is_over) = (&endpoint, &epoch, &pushed, &is_over);
            scope.spawn(move || {
                let mut turn = 0;
                while !is_over.load(Ordering::SeqCst) {
                    until_decided(|| push(endpoint, epoch, &format!("w{writer}"), turn * OPERATIONS + 1));
                    turn += 1;
                    pushed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Also when the upgrade fails: nobody would end otherwise.
        let over = Over(&is_over);
        let reader = scope.spawn(|| follow(&endpoint, &epoch, &is_over));
        wait_for(&pushed, WRITERS * PUSHES);
        cluster.sql("upgraded", &format!("BEGIN;\n{NEXT}\nCOMMIT;"));
        wait_for(&pushed, pushed.load(Ordering::SeqCst) + WRITERS * PUSHES);
        drop(over);
        reader.join().unwrap()
    });

    let all = pushed.load(Ordering::SeqCst) * OPERATIONS;
    assert_eq!(versions, (1..=all as u64).collect::<Vec<_>>(), "nothing skipped, nothing twice");
    let of =
        |what: &str| cluster.sql("upgraded", &format!("SELECT {what} FROM syncline.operations WHERE scope = 'team'"));
    assert_eq!(of("count(*)"), all.to_string());
    assert_eq!(
        of("count(*) FILTER (WHERE by_version = 'first') > 0 AND count(*) FILTER (WHERE by_version = 'next') > 0"),
        "t"
    );
    assert_eq!(cluster.sql("upgraded", CONTENT), content, "what nobody touched is as it was");
    refused_by_the_old_version(&cluster, &database);
    everything_holds_afterwards(&cluster, &database, &vectors);
}

/// A database of the first set with whatever the vectors leave, and a registered table with rows of both sides; its dump and content.
fn populated(vectors: &[Vector]) -> (String, String) {
    let has_all = |folder: &std::path::PathBuf| folder.join("pg_dump").exists();
    let binaries =
        find_binaries().into_iter().chain(debian()).find(has_all).expect("pg_dump comes with Debian's version");
    let cluster = Cluster::start_of(binaries, Durability::None, &[]);
    let database = cluster.database("first");
    let mut host = PostgresHost::new(&database).unwrap();
    for (number, vector) in vectors.iter().enumerate() {
        assert!(!matches!(run_one(&mut host, vector, number as u64), Outcome::Failed(_)), "{}", vector.title());
    }
    host.endpoint().configure_types("{}").unwrap();
    cluster.sql(
        "first",
        "CREATE TABLE public.gauges (scope text NOT NULL, id text NOT NULL, place text NOT NULL, level int CHECK (level >= 0),
           clock jsonb, PRIMARY KEY (scope, id));
         INSERT INTO public.gauges SELECT 'rivers', 'g' || n, 'place ' || n, n FROM generate_series(1, 40) n;
         SELECT syncline.register_table('gauge', 'public.gauges');
         UPDATE public.gauges SET level = level + 1 WHERE id < 'g2'",
    );
    (cluster.dump("first"), cluster.sql("first", CONTENT))
}

/// Says that it is over, when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A lock that is waited for too long is 503, and asks to come again.
fn until_decided(mut ask: impl FnMut() -> Answer) -> Value {
    loop {
        let answer = ask();
        if answer.status != 503 {
            return body(&answer);
        }
    }
}

fn wait_for(pushed: &AtomicUsize, count: usize) {
    while pushed.load(Ordering::SeqCst) < count {
        thread::yield_now();
    }
}

/// The versions that a device meets which follows its cursor.
fn follow(endpoint: &PostgresEndpoint, epoch: &Value, is_over: &AtomicBool) -> Vec<u64> {
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let was_over = is_over.load(Ordering::SeqCst);
        let members = json!({"device_id": "r", "epoch": epoch, "cursor": cursor, "limit": 50});
        let page = until_decided(|| ask(endpoint, "pull", members.clone()));
        let before = seen.len();
        seen.extend(page["changes"].as_array().unwrap().iter().map(|change| change["version"].as_u64().unwrap()));
        cursor = page["cursor"].clone();
        if was_over && seen.len() == before && page["has_more"] == false {
            return seen;
        }
    }
}

fn refused_by_the_old_version(cluster: &Cluster, database: &Database) {
    let why = PostgresEndpoint::open(&PostgresConfig::new(database.url()), true).map(drop).unwrap_err().to_string();
    assert!(why.contains("20990101000000, which this version does not know"), "{why}");
    // From here on this test is the version that knows it.
    cluster.sql("upgraded", "DELETE FROM supabase_migrations.schema_migrations WHERE version = '20990101000000'");
}

/// Every vector, in scopes that the populating ones had not; and the registered table, both ways.
fn everything_holds_afterwards(cluster: &Cluster, database: &Database, vectors: &[Vector]) {
    let mut host = PostgresHost::new(database).unwrap();
    let failed: Vec<_> = vectors
        .iter()
        .enumerate()
        .filter_map(|(number, vector)| match run_one(&mut host, vector, 10_000 + number as u64) {
            Outcome::Failed(why) => Some(format!("{}\n    {why}", vector.title())),
            _ => None,
        })
        .collect();
    assert!(failed.is_empty(), "{} vectors fail after the upgrade:\n{}", failed.len(), failed.join("\n"));
    host.endpoint().configure_types("{}").unwrap();

    let endpoint = open(database.url());
    let asked = |path: &str, mut members: Value| {
        (members["scope"], members["device_id"]) = (json!("rivers"), json!("d"));
        crate::together::ask_in(&endpoint, "rivers", path, members)
    };
    let page = body(&asked("pull", json!({})));
    assert_eq!(
        page["changes"].as_array().unwrap().len(),
        40,
        "rows that were written directly before the dump reach devices"
    );
    let update = json!({"id": "o", "idempotency_key": "k", "sequence": 1, "operation": "update", "entity_type": "gauge", "entity_id": "g7",
        "payload": {"level": 77}, "base_clock": {"server": 1_000_000}, "timestamp": "2026-05-01T12:00:00Z"});
    body(&asked("push", json!({"epoch": page["epoch"], "operations": [update]})));
    assert_eq!(cluster.sql("upgraded", "SELECT level FROM public.gauges WHERE id = 'g7'"), "77");
}
