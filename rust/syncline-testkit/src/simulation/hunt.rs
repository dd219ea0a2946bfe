//! Living the plans of many seeds on all cores, and making the first that fails small.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::coverage::Counts;
use super::life::{Trace, Violation, live, live_steps};
use super::plan::Plan;

/// Plans that may be tried to make one smaller.
const TRIES: usize = 3_000;
/// A life counts with so many operations …
const LEAST_OPERATIONS: u64 = 100;
/// … so many faults that hit something …
const LEAST_FAULTS: u64 = 5;

/// What a hunt came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Lives.
    pub runs: u64,
    /// Those among them that count: with 2 to 5 devices, at least 100 operations, a pull, and 5 faults.
    pub full_runs: u64,
    /// Operations recorded on devices.
    pub operations: u64,
    /// Requests that arrived at an endpoint.
    pub requests: u64,
    /// Virtual time.
    pub elapsed: Duration,
    /// What was come across, and how often.
    pub counts: Counts,
}

impl Summary {
    fn add(&mut self, trace: Trace) {
        let count =
            |kind: &str| trace.counts.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum::<u64>();
        let pulls = trace.counts.get(&("request", "pull".to_owned())).copied().unwrap_or(0);
        let full = trace.operations >= LEAST_OPERATIONS && pulls > 0 && count("fault") >= LEAST_FAULTS;
        self.runs += 1;
        self.full_runs += u64::from(full);
        self.operations += trace.operations;
        self.requests += trace.requests as u64;
        self.elapsed += trace.elapsed;
        for (name, count) in trace.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }
}

/// A life that broke a rule.
#[derive(Debug, Clone)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What broke.
    pub violation: Violation,
}

/// What to hunt for.
pub struct Hunt<'a> {
    /// Seeds, each of which draws a plan.
    pub seeds: Range<u64>,
    /// Steps of each plan.
    pub length: usize,
    /// Threads to use.
    pub threads: usize,
    /// Runs first on each thread.
    pub setup: &'a (dyn Fn() + Sync),
    /// Hears of every life.
    pub told: &'a (dyn Fn(u64, &Trace) + Sync),
    /// Whether to stop before the last seed.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

impl Hunt<'_> {
    /// Lives the plans of all seeds until one breaks a rule.
    pub fn run(&self) -> (Summary, Option<Found>) {
        let (next, over) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let (summary, found) = (Mutex::new(Summary::default()), Mutex::new(None));
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    (self.setup)();
                    while !over.load(Ordering::Relaxed) && !(self.stop)() {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.seeds.end {
                            break;
                        }
                        match live(&Plan::draw(seed, self.length)) {
                            Ok(trace) => {
                                (self.told)(seed, &trace);
                                summary.lock().add(trace);
                            }
                            Err(violation) => {
                                over.store(true, Ordering::Relaxed);
                                keep_lowest(&mut found.lock(), Found { seed, violation });
                            }
                        }
                    }
                });
            }
        });
        (summary.into_inner(), found.into_inner())
    }
}

/// Two threads may find something at once: the lowest seed is told.
fn keep_lowest(found: &mut Option<Found>, other: Found) {
    if found.as_ref().is_none_or(|found| other.seed < found.seed) {
        *found = Some(other);
    }
}

/// The first of `seeds` whose plan breaks a rule, on this thread alone, unless `stop` says so before.
pub fn first(seeds: Range<u64>, length: usize, stop: impl Fn() -> bool) -> Option<Found> {
    seeds
        .take_while(|_| !stop())
        .find_map(|seed| live(&Plan::draw(seed, length)).err().map(|violation| Found { seed, violation }))
}

/// The smallest plan found that breaks the same rule within `patience`, and what it breaks.
#[allow(clippy::disallowed_methods, reason = "how long a person waits is measured on a real clock")]
pub fn shrink(found: &Found, length: usize, patience: Duration) -> (Plan, Violation) {
    let (rule, begun) = (found.violation.rule(), Instant::now());
    let mut violation = found.violation.clone();
    let early = violation.step < Plan::draw(found.seed, length).steps.len();
    let mut breaks = |plan: &Plan| {
        // What was found on the way is looked for on the way: the end of a life takes long.
        let broken = match begun.elapsed() < patience {
            true if early => live_steps(plan).err(),
            true => live(plan).err(),
            false => None,
        };
        let same = broken.filter(|broken| broken.rule() == rule);
        if let Some(same) = &same {
            violation = same.clone();
        }
        same.is_some()
    };
    let mut plan = Plan::draw(found.seed, length);
    // What would have come after it does not matter.
    let mut broken_off = plan.clone();
    broken_off.steps.truncate(found.violation.step + 1);
    if broken_off.steps.len() < plan.steps.len() && breaks(&broken_off) {
        plan = broken_off;
    }
    let plan = plan.shrink(TRIES, breaks);
    (plan, violation)
}
