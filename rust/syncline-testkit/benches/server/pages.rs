//! A page of 1,000 changes, at a short and at a long history: its plan, and how long a pull takes.

use std::time::{Duration, Instant};

use serde_json::Value;
use syncline_testkit::plans::{history, plans, pull, scans};
use syncline_testkit::postgres::{Cluster, Database, Durability};
use tokio_postgres::NoTls;

use crate::{Figure, Goal, Scale};

const PULLS: usize = 40;

/// What was seen of one history.
struct Page {
    scans: usize,
    blocks: u64,
    took: Duration,
}

pub(crate) fn run(scale: Scale, is_told: bool) -> Vec<Figure> {
    let cluster = Cluster::start(Durability::Full);
    let database = cluster.database("pages");
    if is_told {
        println!("\nA page of 1,000 changes from the middle of a history");
    }
    let [short, long] = [("short", scale.short_history), ("long", scale.long_history)]
        .map(|(scope, records)| page(&database, scope, records, is_told));
    let ratio = long.took.as_secs_f64() / short.took.as_secs_f64();
    let millis = |page: &Page| page.took.as_secs_f64() * 1e3;
    let histories = format!("{} / {} records", scale.long_history, scale.short_history);
    vec![
        Figure {
            name: "a page of 1,000: scans of the changes",
            value: long.scans.max(short.scans) as f64,
            unit: "",
            goal: Goal::AtMost(1.0),
            detail: format!("an index range scan; {} / {} blocks at {histories}", long.blocks, short.blocks),
        },
        Figure {
            name: "a page of 1,000: long / short history, p50",
            value: ratio,
            unit: "×",
            goal: Goal::AtMost(1.25),
            detail: format!("{:.1} ms / {:.1} ms at {histories}", millis(&long), millis(&short)),
        },
    ]
}

fn page(database: &Database, scope: &str, records: usize, is_told: bool) -> Page {
    plans(database, &history(scope, records));
    let statement = pull(scope, Some(records / 2), 1_000);
    let seen = plans(database, std::slice::from_ref(&statement));
    let reading: Vec<&Value> = seen.iter().flat_map(|plan| scans(plan, "entities")).collect();
    let is_range = |scan: &&&Value| scan["Index Name"] == "entities_by_version" && scan["Node Type"] == "Index Scan";
    assert_eq!(reading.iter().filter(is_range).count(), reading.len(), "{reading:#?}");
    let blocks = |scan: &Value| {
        ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|name| scan[name].as_u64()).sum::<u64>()
    };
    let blocks = reading.iter().map(|scan| blocks(scan)).sum();
    if is_told {
        for scan in &reading {
            println!(
                "{records:>9} records: {} using {} on entities, Index Cond: {}, rows {}, {blocks} blocks",
                scan["Node Type"].as_str().unwrap_or_default(),
                scan["Index Name"].as_str().unwrap_or_default(),
                scan["Index Cond"].as_str().unwrap_or_default(),
                scan["Actual Rows"],
            );
        }
    }
    Page { scans: reading.len(), blocks, took: p50(database, &statement) }
}

fn p50(database: &Database, statement: &str) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut samples = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.expect("the cluster runs");
        tokio::spawn(connection);
        let mut samples = Vec::new();
        for _ in 0..PULLS {
            let begun = Instant::now();
            client.query(statement, &[]).await.expect("the database answers");
            samples.push(begun.elapsed());
        }
        samples
    });
    samples.sort_unstable();
    samples[PULLS / 2]
}
