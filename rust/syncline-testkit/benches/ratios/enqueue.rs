//! `enqueue` beside a raw insert, one after the other in turn, so that a slow moment of the machine hits both.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use syncline_core::{Durability, SyncManager};

use crate::raw::{Raw, Row};
use crate::support::{Nowhere, config, micros, open, operation, p50, ratio, timed};
use crate::{Figure, Goal, Scale};

pub(crate) fn run(scale: Scale) -> Vec<Figure> {
    let (normal, _) = alone(scale, Durability::Normal);
    let (full, raw_p50) = alone(scale, Durability::Full);
    vec![normal, full, together(scale, raw_p50)]
}

fn alone(scale: Scale, durability: Durability) -> (Figure, Duration) {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = open(config(&dir.path().join("device.db"), durability), Arc::new(Nowhere));
    let raw = Raw::open(&dir.path().join("raw.db"), durability);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..scale.rounds {
        let next = operation(n);
        ours.push(timed(|| manager.enqueue(next).expect("enqueues")).0);
        let row = Row::new(n);
        theirs.push(timed(|| raw.insert(&row)).0);
    }
    let (ours, theirs) = (p50(&mut ours[scale.rounds / 10..]), p50(&mut theirs[scale.rounds / 10..]));
    let (name, goal) = match durability {
        Durability::Normal => ("enqueue / raw insert, p50, NORMAL", 1.25),
        Durability::Full => ("enqueue / raw insert, p50, FULL", 1.10),
    };
    let detail = format!("{:.0} µs / {:.0} µs", micros(ours), micros(theirs));
    (Figure { name, value: ratio(ours, theirs), unit: "×", goal: Goal::AtMost(goal), detail }, theirs)
}

fn together(scale: Scale, raw_p50: Duration) -> Figure {
    const CALLERS: usize = 8;
    let dir = tempfile::tempdir().expect("a folder");
    let manager = open(config(&dir.path().join("device.db"), Durability::Full), Arc::new(Nowhere));
    let each = scale.rounds;
    let (took, ()) = timed(|| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let manager: SyncManager = manager.clone();
                thread::spawn(move || {
                    for n in 0..each {
                        manager.enqueue(operation(n * CALLERS + caller)).expect("enqueues");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("no panic");
        }
    });
    let per_second = (CALLERS * each) as f64 / took.as_secs_f64();
    let raw_per_second = 1.0 / raw_p50.as_secs_f64();
    Figure {
        name: "8 callers / raw single inserts, FULL",
        value: per_second / raw_per_second,
        unit: "×",
        goal: Goal::AtLeast(4.0),
        detail: format!("{per_second:.0}/s / {raw_per_second:.0}/s"),
    }
}
