//! Simulated worlds: two to five whole devices and an endpoint, every fault there is, the oracle after every step. A few lives here;
//! `make simulate` lives many. What it found lives on below, as the plan that showed it.
//!
//! ```sh
//! SYNCLINE_SEED=17 cargo test -p syncline-core --test simulation            # one life
//! SYNCLINE_SEEDS=1000..2000 cargo test -p syncline-core --test simulation   # many
//! ```

use std::ops::Range;
use std::time::Duration;

use syncline_testkit::simulation::hunt::{Found, shrink};
use syncline_testkit::simulation::life::live;
use syncline_testkit::simulation::plan::{DiskCall, Intent, Kind, Mishap, Plan, Setting, Step, Wall};

/// Steps of a life.
const LENGTH: usize = 150;
/// Lives that every run of the tests sees.
const FIXED: Range<u64> = 1..13;
/// How long making a failing plan smaller may take.
const SHRINKING: Duration = Duration::from_secs(120);

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

#[test]
fn every_life_ends_in_agreement() {
    let mut operations = 0;
    for seed in seeds() {
        match live(&Plan::draw(seed, LENGTH)) {
            Ok(trace) => operations += trace.operations,
            Err(violation) => {
                let what = violation.what.clone();
                let (small, found) = shrink(&Found { seed, violation }, LENGTH, SHRINKING);
                panic!(
                    "seed {seed}: {what}\nmade smaller: {}\n{small:#?}\nreplay: SYNCLINE_SEED={seed} cargo test -p syncline-core \
                     --test simulation",
                    found.what
                );
            }
        }
    }
    assert!(operations > 0, "somebody wrote something");
}

#[test]
fn the_same_plan_lives_the_same_life() {
    for seed in [3, 8] {
        let plan = Plan::draw(seed, LENGTH);
        assert_eq!(plan, Plan::draw(seed, LENGTH));
        let life = live(&plan);
        assert_eq!(life, live(&plan), "seed {seed}");
        assert_ne!(life, live(&Plan { seed: seed + 100, ..plan }), "another seed is another life");
    }
}

#[test]
fn a_failing_plan_is_made_smaller() {
    let plan = Plan::draw(1, LENGTH);
    let once = |step: &&Step| plan.steps.iter().filter(|other| other == step).count() == 1;
    let needed: Vec<Step> = plan.steps.iter().filter(once).step_by(20).take(3).cloned().collect();
    let small = plan.shrink(1_000, |plan| needed.iter().all(|step| plan.steps.contains(step)));
    assert_eq!((needed.len(), small.steps), (3, needed));
}

fn setting(devices: u8) -> Setting {
    Setting {
        devices,
        forgetful: false,
        coalesce: true,
        send_before: false,
        filtered: false,
        small_batches: false,
        hasty_forms: false,
        short_pages: false,
        restores: false,
        untold_restores: false,
    }
}

fn intent(kind: Kind, entity_type: u8, entity: u8, field: u8, value: u8) -> Intent {
    Intent { kind, entity_type, entity, field, value }
}

fn write(device: u8, intent: Intent) -> Step {
    Step::Write { device, intent, depends: false }
}

fn holds(seed: u64, setting: Setting, steps: Vec<Step>) {
    let plan = Plan { seed, setting, steps };
    if let Err(violation) = live(&plan) {
        panic!("after step {}: {}", violation.step, violation.what);
    }
}

/// `explain` went on naming a wait of the operation's own while delivery was stopped and the wait was over.
#[test]
fn a_wait_that_is_over_is_no_reason() {
    use Kind::Update;
    let steps = vec![
        Step::Poison { device: 1, wall: Wall::Endpoint },
        write(17, intent(Update, 4, 2, 1, 9)),
        Step::Process { device: 21 },
        Step::Pass { seconds: 1200 },
    ];
    holds(2, setting(4), steps);
}

/// A full disk on which not even the WAL's index can grow was called a failure of the storage.
#[test]
fn a_disk_without_room_for_the_logs_index_is_full() {
    use Kind::Update;
    let steps = vec![
        Step::DiskFull { device: 151, on: true },
        Step::PowerLoss { device: 15, after: 0 },
        write(13, intent(Update, 5, 1, 1, 4)),
    ];
    holds(28, setting(2), steps);
}

/// A flush failed, the process died, the next one found the frames in the system's memory and wrote behind them; then the power
/// went, and what was acknowledged went with what had never been flushed.
#[test]
fn what_follows_a_failed_flush_outlives_a_loss_of_power() {
    use Kind::{Create, Delete, Update};
    let steps = vec![
        Step::Kill { device: 22, after: 0 },
        Step::DiskFails { device: 1, call: DiskCall::Sync, after: 0 },
        write(135, intent(Create, 1, 1, 0, 4)),
        write(138, intent(Update, 5, 0, 2, 2)),
        Step::Update { device: 19, after: 26 },
        Step::PowerLoss { device: 22, after: 23 },
        Step::Import {
            device: 13,
            intents: vec![
                intent(Update, 5, 2, 2, 5),
                intent(Create, 2, 0, 1, 1),
                intent(Create, 2, 1, 1, 2),
                intent(Update, 0, 2, 1, 3),
            ],
        },
        write(16, intent(Delete, 0, 1, 2, 4)),
    ];
    for seed in 840..860 {
        holds(seed, Setting { coalesce: false, ..setting(3) }, steps.clone());
    }
}

/// The endpoint's flush failed, its process died, and the next one showed devices what it found in the system's memory. Then the power
/// went, and the old log covered what the file had: the endpoint had gone back, and nobody could know.
#[test]
fn an_endpoint_shows_nothing_that_a_loss_of_power_takes_back() {
    use Kind::{Create, Update};
    let dies = |power| Step::ServerDies { after: 0, power };
    for after in 0..4 {
        let steps = vec![
            write(0, intent(Create, 0, 0, 0, 1)),
            Step::Process { device: 0 },
            Step::Idle,
            Step::ServerDiskFails { call: DiskCall::Sync, after },
            write(0, intent(Update, 0, 0, 1, 2)),
            Step::Process { device: 0 },
            Step::Idle,
            dies(false),
            Step::Process { device: 1 },
            Step::Idle,
            Step::Pass { seconds: 70 },
            dies(true),
            write(1, intent(Create, 0, 1, 0, 1)),
            Step::Process { device: 1 },
            Step::Idle,
        ];
        for seed in 1..40 {
            holds(seed, setting(2), steps.clone());
        }
    }
}

/// An answer that could not be stored on a full disk was asked for again at once, without end.
#[test]
fn a_full_disk_does_not_have_the_endpoint_asked_without_end() {
    let steps = vec![
        Step::Process { device: 0 },
        Step::Some { steps: 3 },
        Step::DiskFull { device: 0, on: true },
        Step::Background { device: 0, on: true },
        Step::Next { device: 0, fault: Mishap::Twice },
        Step::Pass { seconds: 1200 },
    ];
    for seed in 1..20 {
        holds(seed, setting(2), steps.clone());
    }
}
