//! What a run came to, for people and for programs.

use std::time::Duration;

use serde_json::json;
use syncline_testkit::simulation::coverage::expected;
use syncline_testkit::simulation::hunt::{Found, Summary, shrink};

/// Prints the summary. Returns whether something expected came up less often than `least`.
pub(crate) fn summary(summary: &Summary, took: Duration, least: u64, as_json: bool) -> bool {
    let count = |kind: &'static str, name: &str| summary.counts.get(&(kind, name.to_owned())).copied().unwrap_or(0);
    let counted = expected().map(|(kind, name)| (kind, name, count(kind, name)));
    let rare: Vec<(&str, &str, u64)> = counted.filter(|(_, _, count)| *count < least).collect();
    let speed_up = summary.elapsed.as_secs_f64() / took.as_secs_f64().max(0.001);
    if as_json {
        let counts: Vec<_> = summary
            .counts
            .iter()
            .map(|((kind, name), count)| json!({ "kind": kind, "name": name, "count": count }))
            .collect();
        println!(
            "{}",
            json!({ "runs": summary.runs, "full_runs": summary.full_runs, "operations": summary.operations,
                "requests": summary.requests, "virtual_hours": summary.elapsed.as_secs() / 3600,
                "seconds": took.as_secs_f64(), "speed_up": speed_up, "counts": counts, "rare": rare })
        );
        return !rare.is_empty();
    }
    println!(
        "{} worlds ({} of them full: 100 operations, a pull, 5 faults), {} operations, {} requests, {} virtual hours in {:.0} s: \
         {speed_up:.0} times real time",
        summary.runs,
        summary.full_runs,
        summary.operations,
        summary.requests,
        summary.elapsed.as_secs() / 3600,
        took.as_secs_f64()
    );
    let mut last = "";
    for ((kind, name), count) in &summary.counts {
        if *kind != last {
            println!("\n{kind}");
            last = kind;
        }
        println!("  {count:>10}  {name}");
    }
    for (kind, name, count) in &rare {
        println!("too rare: {kind} {name}, {count} of {least}");
    }
    !rare.is_empty()
}

/// Prints what broke, the smallest plan found that breaks it, and how to see it again.
pub(crate) fn violation(found: &Found, length: usize) {
    let Found { seed, violation } = found;
    println!("\nseed {seed}, after step {} of {length}: {}", violation.step, violation.what);
    let (plan, violation) = shrink(found, length, super::SHRINKING);
    println!("made smaller: {}\n{:?}", violation.what, plan.setting);
    println!("{}", plan.lines());
    println!("replay: make simulate SEEDS={seed}");
}
