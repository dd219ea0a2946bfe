//! A pull reads a range of one index, however long the history.

use serde_json::Value;
use syncline_testkit::plans::{history, plans, pull, scans};

/// Plans of plpgsql may change after five executions; each is looked at.
const TIMES: usize = 7;

#[test]
fn a_page_is_one_index_range_scan_at_any_length_of_history() {
    let database = crate::database("plans");
    let mut blocks = Vec::new();
    for (scope, records) in [("short", 3_000), ("long", 60_000)] {
        plans(&database, &history(scope, records));
        for after in [None, Some(1), Some(records / 2), Some(records - 1_001)] {
            // From the start, and with statistics, and without; the page's length is what a device asks for.
            let seen = plans(&database, &vec![pull(scope, after, 1_000); TIMES]);
            let pages: Vec<_> = seen.iter().filter(|plan| !scans(plan, "entities").is_empty()).collect();
            assert_eq!(pages.len(), TIMES, "one statement reads the page");
            blocks.push(pages.iter().map(|plan| check(plan)).max().unwrap());
        }
        crate::sql("plans", "ANALYZE syncline.entities");
    }
    let (short, long) = blocks.split_at(4);
    assert!(long.iter().max().unwrap() * 2 <= short.iter().min().unwrap() * 3, "blocks: {short:?}, {long:?}");
}

/// Gives how many blocks of the table and its index were read.
fn check(plan: &Value) -> u64 {
    let scans = scans(plan, "entities");
    assert_eq!(scans.len(), 1, "{plan:#}");
    let scan = scans[0];
    assert_eq!(
        (&scan["Node Type"], &scan["Index Name"]),
        (&"Index Scan".into(), &"entities_by_version".into()),
        "{plan:#}"
    );
    let condition = scan["Index Cond"].as_str().unwrap();
    assert!(condition.contains("scope =") && condition.contains("version >"), "{condition}");
    // One more than the page, to see whether there are more. Nothing was read and thrown away.
    assert_eq!((&scan["Actual Rows"], &scan["Actual Loops"]), (&1_001.into(), &1.into()), "{scan:#}");
    assert!(scan.get("Rows Removed by Filter").is_none_or(|removed| removed == 0), "{scan:#}");
    scan["Shared Hit Blocks"].as_u64().unwrap() + scan["Shared Read Blocks"].as_u64().unwrap()
}

/// The statement that pushes so many new records of a device, from the one with this number on.
fn push(scope: &str, first: usize, records: usize) -> String {
    format!(
        "SELECT syncline.serve('push', jsonb_build_object('protocol', 1, 'user_id', 'ada', 'scope', '{scope}', 'device_id', 'd',
           'epoch', (SELECT epoch FROM syncline.scopes WHERE scope = '{scope}'), 'sent_at', '2026-05-01T12:00:00Z', 'operations',
           (SELECT jsonb_agg(jsonb_build_object('id', 'o' || n, 'idempotency_key', 'k' || n, 'sequence', n, 'operation', 'create',
              'entity_type', 'pin', 'entity_id', 'e' || n, 'payload', '{{}}'::jsonb, 'timestamp', '2026-05-01T12:00:00Z') ORDER BY n)
            FROM generate_series({first}, {first} + {records} - 1) n))::text,
           jsonb_build_object('sub', 'ada', 'scope', '{scope}')::text)"
    )
}

/// What a push looks up costs one row at the most for each operation: in a new database, and where scopes were small when
/// statistics were made.
#[test]
fn a_push_looks_up_whole_keys_whatever_the_statistics_say() {
    let database = crate::database("lookups");
    let check = |scope: &str, first: usize| {
        let seen = plans(&database, &[push(scope, first, 200)]);
        let [load] = &seen.iter().filter(|plan| scans(plan, "conflicts").len() == 1).collect::<Vec<_>>()[..] else {
            panic!("one statement looks everything up: {seen:#?}")
        };
        for scan in ["entities", "operations"].iter().flat_map(|table| scans(load, table)) {
            let rows = scan["Actual Rows"].as_f64().unwrap() * scan["Actual Loops"].as_f64().unwrap();
            assert!(rows <= 200.0 && scan.get("Rows Removed by Filter").is_none(), "{scope} at {first}: {scan:#}");
        }
        assert_eq!(scans(load, "operations").len(), 2);
    };
    let mut statements = vec![pull("large", None, 1), push("large", 1, 400), push("large", 401, 400)];
    statements.extend((0..200).flat_map(|n| [pull(&format!("small-{n}"), None, 1), push(&format!("small-{n}"), 1, 3)]));
    plans(&database, &statements[..3]);
    check("large", 801);
    // Long, and never looked at by ANALYZE.
    crate::sql(
        "lookups",
        "INSERT INTO syncline.operations SELECT scope, 'x' || n, 'x' || n, device_id, 100000 + n, operation, entity_type, 'x' || n,
           content_hash, verdict, error, conflict_id, decided_at
         FROM syncline.operations, generate_series(1, 20000) n WHERE scope = 'large' AND sequence = 1",
    );
    check("large", 1_001);
    plans(&database, &statements[3..]);
    crate::sql("lookups", "DELETE FROM syncline.operations WHERE scope = 'large' AND sequence > 3; ANALYZE");
    for first in [1_201, 1_401, 1_601] {
        check("large", first);
    }
    // In one session, as in a pool: the plan of before goes on.
    plans(&database, &(0..8).map(|n| push("large", 2_001 + n * 200, 200)).collect::<Vec<_>>());
    check("large", 4_001);
}
