//! Planted bugs: each must be caught from several starting seeds, and made small.

use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use syncline_protocol::teeth::{Bug, plant};
use syncline_testkit::simulation::hunt::{Found, Hunt, shrink};

use super::{Arguments, SHRINKING};

/// Between two starting seeds.
const APART: u64 = 1_000_000;

/// Hunts for every bug named, or all.
pub(crate) fn run(names: &[String], arguments: &Arguments, threads: usize) -> ExitCode {
    let mut bugs = Vec::new();
    for name in names {
        match Bug::parse(name) {
            Some(bug) => bugs.push(bug),
            None => {
                eprintln!("there is no planted bug by the name of {name}");
                return ExitCode::from(2);
            }
        }
    }
    if bugs.is_empty() {
        // The others show only where threads meet.
        bugs.extend(Bug::ALL.iter().filter(|bug| !bug.needs_threads()));
    }
    let begun = Instant::now();
    let over = || arguments.minutes.is_some_and(|minutes| begun.elapsed().as_secs_f64() > minutes * 60.0);
    let bar = ProgressBar::new(bugs.len() as u64 * arguments.starts);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    bar.set_style(style.expect("the template is valid"));
    let (mut uncaught, mut left) = (0, 0);
    for bug in &bugs {
        for start in 0..arguments.starts {
            if over() {
                left += 1;
                continue;
            }
            bar.set_message(bug.name());
            let line = match hunt(*bug, start, arguments, threads) {
                Some(found) => caught(*bug, &found, arguments.length),
                None => {
                    uncaught += 1;
                    format!("{:<28} NOT CAUGHT from seed {}", bug.name(), from(start, arguments))
                }
            };
            bar.suspend(|| println!("{line}"));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    println!(
        "{} bugs, {} starting seeds each: {uncaught} hunts in vain, {left} not begun",
        bugs.len(),
        arguments.starts
    );
    if uncaught > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn from(start: u64, arguments: &Arguments) -> u64 {
    arguments.seeds.start + start * APART
}

fn hunt(bug: Bug, start: u64, arguments: &Arguments, threads: usize) -> Option<Found> {
    let first = from(start, arguments);
    let hunt = Hunt {
        seeds: first..first + (arguments.seeds.end - arguments.seeds.start),
        length: arguments.length,
        threads,
        setup: &|| plant(Some(bug)),
        told: &|_, _| (),
        stop: &|| false,
    };
    hunt.run().1
}

fn caught(bug: Bug, found: &Found, length: usize) -> String {
    plant(Some(bug));
    let (plan, violation) = shrink(found, length, SHRINKING);
    plant(None);
    let what: String = violation.what.chars().take(90).collect();
    format!("{:<28} seed {:<9} {:>3} steps  {}", bug.name(), found.seed, plan.steps.len(), what.replace('\n', " "))
}
