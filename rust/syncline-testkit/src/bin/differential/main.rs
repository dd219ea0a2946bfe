//! Runs random streams against two endpoints and the model: `make differential`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]
#![allow(clippy::disallowed_methods, reason = "how long a run takes is measured on a real clock")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use syncline_testkit::contract::{EmbeddedHost, Host, PostgresHost};
use syncline_testkit::differential::{self, Counted, Difference, Ended};
use syncline_testkit::postgres::{Cluster, Database, Durability};

/// Tries to make a stream that shows a difference smaller.
const TRIES: u64 = 400;
/// Streams after which a host begins with an empty store, so that it does not grow.
const STREAMS_PER_STORE: u64 = 500;
/// Scopes of the tries of shrinking are numbered from here on.
const TRIED: u64 = 1 << 40;

/// The same random streams to the embedded endpoint and to another one, the reference model being the third judge.
///
/// Exit code 0: no difference. 1: there is one; its seed is printed, and the fewest steps that show it.
#[derive(Parser)]
#[command(name = "differential")]
struct Arguments {
    /// Seeds, as 1..1001 (the end is left out), or one
    #[arg(long, default_value = "1..1001", value_parser = seeds)]
    seeds: Range<u64>,
    /// The other endpoint; the model alone if none
    #[arg(long, value_enum, default_value_t = Other::Postgres)]
    with: Other,
    /// Threads; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many seconds, wherever it is then
    #[arg(long)]
    seconds: Option<u64>,
    /// Steps of one stream instead of seeds, as a difference prints them
    #[arg(long, value_delimiter = ',')]
    steps: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Other {
    Postgres,
    /// Postgres with every type registered to a table that others write too, and the model alone
    Tables,
    None,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text} is no seed"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

/// What all threads came to.
#[derive(Default)]
struct Summary {
    streams: u64,
    pushes: u64,
    operations: u64,
    words: BTreeMap<String, u64>,
    found: Option<(u64, Difference)>,
    failed: Option<String>,
}

impl Summary {
    fn add(&mut self, counted: Counted) {
        self.streams += 1;
        self.pushes += counted.pushes as u64;
        self.operations += counted.operations as u64;
        for (word, count) in counted.words {
            *self.words.entry(word).or_default() += count;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cluster = (arguments.with != Other::None).then(|| Cluster::start(Durability::None));
    if !arguments.steps.is_empty() {
        return one(&arguments, cluster.as_ref());
    }
    let threads = arguments.threads.or(thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let begun = Instant::now();
    let bar = ProgressBar::new(arguments.seeds.end.saturating_sub(arguments.seeds.start));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} streams, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // One after the other: the first makes the template of all.
    let databases: Vec<_> =
        (0..threads).map(|number| cluster.as_ref().map(|cluster| database(cluster, number))).collect();
    let (next, over, summary) = (AtomicU64::new(arguments.seeds.start), AtomicBool::new(false), Mutex::default());
    thread::scope(|scope| {
        for database in &databases {
            let (next, over, summary, bar, arguments) = (&next, &over, &summary, &bar, &arguments);
            scope.spawn(move || {
                let mut hosts = hosts(arguments.with, database.as_ref());
                let is_late =
                    || arguments.seconds.is_some_and(|seconds| begun.elapsed() > Duration::from_secs(seconds));
                while !over.load(Ordering::Relaxed) && !is_late() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        break;
                    }
                    stream(&mut hosts, seed, summary, over);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    report(&summary.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()), begun.elapsed())
}

fn database(cluster: &Cluster, number: usize) -> Database {
    cluster.database(&format!("differential_{number}"))
}

fn hosts(with: Other, database: Option<&Database>) -> Vec<Box<dyn Host>> {
    let taken = "the database takes connections";
    let embedded = || Box::new(EmbeddedHost::new().expect("SQLite opens in memory")) as Box<dyn Host>;
    let mut hosts: Vec<Box<dyn Host>> = match (with, database) {
        (Other::Tables, Some(database)) => {
            vec![Box::new(PostgresHost::with_tables(database, differential::TYPES).expect(taken))]
        }
        (Other::Postgres, Some(database)) => vec![embedded(), Box::new(PostgresHost::new(database).expect(taken))],
        _ => vec![embedded()],
    };
    reset(&mut hosts);
    hosts
}

fn reset(hosts: &mut [Box<dyn Host>]) {
    hosts.iter_mut().for_each(|host| host.reset(&differential::types()).expect("types are configured"));
}

fn stream(hosts: &mut [Box<dyn Host>], seed: u64, summary: &Mutex<Summary>, over: &AtomicBool) {
    if seed.is_multiple_of(STREAMS_PER_STORE) {
        reset(hosts);
    }
    let result = differential::run(hosts, seed);
    let found = match result {
        Ok(counted) => return summary.lock().expect("nobody panics while holding it").add(counted),
        Err(found) => found,
    };
    let is_first = !over.swap(true, Ordering::Relaxed);
    match found {
        Ended::Failed(error) => summary.lock().expect("nobody panics").failed = Some(format!("seed {seed}: {error}")),
        Ended::Different(difference) if is_first => {
            let smallest = differential::shrink(hosts, *difference, TRIED + seed * TRIES, TRIES);
            summary.lock().expect("nobody panics").found = Some((seed, smallest));
        }
        Ended::Different(_) => {}
    }
}

/// A stream given by its steps.
fn one(arguments: &Arguments, cluster: Option<&Cluster>) -> ExitCode {
    let database = cluster.map(|cluster| database(cluster, 0));
    let mut hosts = hosts(arguments.with, database.as_ref());
    match differential::run_steps(&mut hosts, 0, &arguments.steps) {
        Ok(counted) => {
            println!("{} pushes, {} operations: no difference", counted.pushes, counted.operations);
            ExitCode::SUCCESS
        }
        Err(Ended::Failed(error)) => {
            println!("{error}");
            ExitCode::FAILURE
        }
        Err(Ended::Different(difference)) => {
            println!("{}\n{}", difference.what, difference.exchange);
            ExitCode::FAILURE
        }
    }
}

fn report(summary: &Summary, elapsed: Duration) -> ExitCode {
    let rate = summary.streams as f64 / elapsed.as_secs_f64();
    println!(
        "{} streams, {} pushes, {} operations in {:.0} s ({rate:.0} streams/s)",
        summary.streams,
        summary.pushes,
        summary.operations,
        elapsed.as_secs_f64()
    );
    let words: Vec<_> = summary.words.iter().map(|(word, count)| format!("{word} {count}")).collect();
    println!("{}", words.join(", "));
    if let Some(why) = &summary.failed {
        println!("an endpoint failed: {why}");
        return ExitCode::FAILURE;
    }
    let Some((seed, difference)) = &summary.found else {
        println!("no difference");
        return ExitCode::SUCCESS;
    };
    let steps: Vec<_> = difference.steps.iter().map(u64::to_string).collect();
    println!("seed {seed} differs: {}\n{}", difference.what, difference.exchange);
    println!("in {} steps: --steps {}", steps.len(), steps.join(","));
    ExitCode::FAILURE
}
