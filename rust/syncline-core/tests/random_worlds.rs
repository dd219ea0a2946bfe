//! Random lives of two to five whole devices over the endpoint, through every fault there is. A life that breaks an invariant
//! is made smaller and printed, with the line that runs it again.
//!
//! ```sh
//! SYNCLINE_SEED=17 cargo test -p syncline-core --test random_worlds           # one life
//! SYNCLINE_SEEDS=1000..2000 cargo test -p syncline-core --test random_worlds  # many
//! ```

use std::ops::Range;

use syncline_testkit::plan::Plan;
use syncline_testkit::worlds::run_plan;

/// Steps of a life.
const LENGTH: usize = 120;
/// Lives that every run of the tests sees.
const FIXED: Range<u64> = 1..121;
/// Plans that may be tried to make one smaller.
const TRIES: usize = 400;

fn seeds() -> Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("SYNCLINE_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("SYNCLINE_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("SYNCLINE_SEEDS is as 1..100");
            number(from)..number(to)
        }
        Err(_) => FIXED,
    }
}

/// The invariant's name: what the message says before its first number.
fn name(what: &str) -> String {
    what.chars().take_while(|c| !c.is_ascii_digit() && *c != '[').collect()
}

#[test]
fn every_life_ends_in_agreement() {
    let mut operations = 0;
    for seed in seeds() {
        let plan = Plan::draw(seed, LENGTH);
        let violation = match run_plan(&plan) {
            Ok(trace) => {
                operations += trace.operations;
                continue;
            }
            Err(violation) => violation,
        };
        let same = |other: &Plan| run_plan(other).is_err_and(|other| name(&other.what) == name(&violation.what));
        let small = plan.shrink(TRIES, same);
        let found = run_plan(&small).expect_err("the smaller plan fails as well");
        let steps: Vec<String> = small.steps.iter().map(|step| format!("    {step:?}")).collect();
        panic!(
            "seed {seed}, after step {} of {LENGTH}: {}\nmade smaller: {}\n{}\nreplay: SYNCLINE_SEED={seed} cargo test -p \
             syncline-core --test random_worlds",
            violation.step,
            violation.what,
            found.what,
            steps.join(",\n"),
        );
    }
    assert!(operations > 0, "somebody wrote something");
}

#[test]
fn the_same_plan_lives_the_same_life() {
    for seed in [3, 8] {
        let plan = Plan::draw(seed, LENGTH);
        assert_eq!(plan, Plan::draw(seed, LENGTH));
        let life = run_plan(&plan);
        assert_eq!(life, run_plan(&plan), "seed {seed}");
        assert_ne!(life, run_plan(&Plan { seed: seed + 100, ..plan }), "another seed is another life");
    }
}

#[test]
fn a_failing_plan_is_made_smaller() {
    use syncline_testkit::plan::Step;
    let plan = Plan::draw(1, LENGTH);
    let needed = [&plan.steps[10], &plan.steps[70]];
    let small = plan.shrink(TRIES, |plan| needed.iter().all(|step| plan.steps.contains(step)));
    assert_eq!(small.steps, needed.map(Step::clone));
}
