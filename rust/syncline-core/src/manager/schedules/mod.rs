//! The shipped code of the manager under chosen schedules: at every lock, wait and signal shuttle decides who goes on. A scenario
//! runs under many schedules; one that ends in a failed assertion, a deadlock or without an end fails the test.
//!
//! Schedules come in rounds. A round is a seed: half of its schedules pick anybody at every point, half follow priorities that
//! change at a few points (PCT), which finds what needs one thread to stand still for long. A failure names its round, and how
//! to run it alone.

mod lease;
mod listeners;
mod outside;
mod waiting;
mod writer;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};
use syncline_protocol::teeth::{Bug, plant};

/// Half of them of each kind.
const PER_ROUND: usize = 100;
/// Points at which PCT changes its mind: a bug that needs so many is found sooner or later.
const CHANGES: usize = 4;
/// No scenario takes nearly so many; one that does never ends.
const MOST_STEPS: usize = 100_000;
/// How many schedules of each scenario, instead of its own number.
const SCHEDULES: &str = "SYNCLINE_SCHEDULES";
/// Only the round with this seed.
const ROUND: &str = "SYNCLINE_SCHEDULES_ROUND";

/// Runs `scenario` under `schedules` schedules, or as many as the environment asks for.
fn explore(schedules: usize, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let asked = |name| std::env::var(name).ok().map(|text: String| text.parse().expect("a number"));
    let rounds = asked(SCHEDULES).unwrap_or(schedules).div_ceil(PER_ROUND) as u64;
    let seeds = asked(ROUND).map_or(1..=rounds, |seed| seed as u64..=seed as u64);
    let ran = seeds.clone().count() * PER_ROUND;
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| round(seed, scenario.clone()))) {
            report(&format!("FAILED in round {seed}; to run that round alone:"));
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            report(&format!("{ROUND}={seed} cargo test -p syncline-core --features shuttle --lib {test}"));
            resume_unwind(panic);
        }
    }
    report(&format!("{ran} schedules"));
}

/// Plants `bug` and gives the message of the first failure within `schedules` schedules.
fn first_failure(bug: Bug, schedules: usize, scenario: impl Fn() + Clone + Send + Sync + 'static) -> Option<String> {
    plant(Some(bug));
    let found = (1..=schedules.div_ceil(PER_ROUND) as u64).find_map(|seed| {
        catch_unwind(AssertUnwindSafe(|| round(seed, scenario.clone()))).err().map(|panic| (seed, panic))
    });
    plant(None);
    let (seed, panic) = found?;
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    report(&format!("{} found in round {seed} of {PER_ROUND} schedules", bug.name()));
    Some(message)
}

fn round(seed: u64, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    // SQLite, serde and debug builds want more than a coroutine usually has.
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    let half = PER_ROUND / 2;
    Runner::new(RandomScheduler::new_from_seed(seed, half), config.clone()).run(scenario.clone());
    Runner::new(PctScheduler::new_from_seed(seed, CHANGES, half), config).run(scenario);
}

/// A line for whoever runs the tests: past libtest, which keeps what a test prints when it passes.
fn report(line: &str) {
    let test = std::thread::current().name().unwrap_or_default().replace("manager::schedules::", "");
    let _ = writeln!(std::io::stderr(), "{test:<70} {line}");
}
