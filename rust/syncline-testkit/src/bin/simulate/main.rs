//! Runs the simulator over seeds: `make simulate`, `make simulate-teeth`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]
#![allow(clippy::disallowed_methods, reason = "how long a run takes is measured on a real clock")]

mod report;
#[cfg(feature = "teeth")]
mod teeth;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use syncline_testkit::simulation::hunt::Hunt;

/// How long making a failing plan smaller may take.
const SHRINKING: Duration = Duration::from_secs(120);

/// Simulated worlds: whole devices and an endpoint with every fault there is, checked after every step.
///
/// Exit code 0: no rule was broken. 1: one was, or a planted bug was not caught, or the coverage asked for was not reached.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// Seeds, as 1..1001 (the end is left out), or one
    #[arg(long, default_value = "1..1001", value_parser = seeds, overrides_with = "seeds")]
    seeds: Range<u64>,
    /// Steps of each plan
    #[arg(long, default_value_t = 150)]
    length: usize,
    /// Threads; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many minutes, wherever it is then
    #[arg(long)]
    minutes: Option<f64>,
    /// Write "seed hash" of each life to this file, to be compared with another run
    #[arg(long)]
    hashes: Option<PathBuf>,
    /// Fail if a fault, transition or verdict came up less often
    #[arg(long, default_value_t = 0)]
    least: u64,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// Plant bugs, all or those named, and see that each is caught
    #[arg(long, num_args = 0.., value_name = "BUG")]
    teeth: Option<Vec<String>>,
    /// From how many starting seeds each planted bug must be caught
    #[arg(long, default_value_t = 3)]
    starts: u64,
    /// Write the table of planted bugs to this file, as Markdown
    #[arg(long)]
    table: Option<PathBuf>,
    /// Note each hunt for a planted bug in this file, and make none that is there already
    #[arg(long)]
    resume: Option<PathBuf>,
    /// How long making the plan of one planted bug smaller may take, in seconds
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Print the smallest plan found for each planted bug
    #[arg(long)]
    plans: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text} is no seed"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let threads = arguments.threads.or(thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    // A broken rule is told in its own words; the place of a panic that was caught helps nobody.
    std::panic::set_hook(Box::new(|_| {}));
    match &arguments.teeth {
        None => simulate(&arguments, threads),
        #[cfg(feature = "teeth")]
        Some(names) => teeth::run(names, &arguments, threads),
        #[cfg(not(feature = "teeth"))]
        Some(_) => {
            eprintln!("this build holds no planted bugs; `make simulate-teeth` builds one that does");
            ExitCode::from(2)
        }
    }
}

fn simulate(arguments: &Arguments, threads: usize) -> ExitCode {
    let begun = Instant::now();
    let bar = ProgressBar::new(arguments.seeds.end - arguments.seeds.start);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} worlds, {per_sec}, {eta} left");
    bar.set_style(style.expect("the template is valid"));
    let hashes = match arguments.hashes.as_ref().map(File::create).transpose() {
        Ok(file) => file.map(|file| Mutex::new(BufWriter::new(file))),
        Err(error) => {
            eprintln!("the file for the hashes cannot be written: {error}");
            return ExitCode::from(2);
        }
    };
    let hunt = Hunt {
        seeds: arguments.seeds.clone(),
        length: arguments.length,
        threads,
        setup: &|| (),
        told: &|seed, trace| {
            if let Some(file) = &hashes {
                let mut file = file.lock().expect("nobody panics while writing");
                writeln!(file, "{seed} {:016x}", trace.hash).expect("the file can be written");
            }
            bar.inc(1);
        },
        stop: &|| arguments.minutes.is_some_and(|minutes| begun.elapsed().as_secs_f64() > minutes * 60.0),
    };
    let (summary, found) = hunt.run();
    bar.finish_and_clear();
    let rare = report::summary(&summary, begun.elapsed(), arguments.least, arguments.json);
    match found {
        Some(found) => {
            report::violation(&found, arguments.length);
            ExitCode::FAILURE
        }
        None if rare => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    }
}
