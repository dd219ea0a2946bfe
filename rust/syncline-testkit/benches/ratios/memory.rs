//! A queue of a million: what an enqueue, the metrics and the process's memory cost then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::{Durability, OperationFilter, SyncManager};

use crate::support::{Nowhere, config, micros, open, operation, p50, ratio, timed};
use crate::{Figure, Goal, Scale};

/// The argument that makes this program measure the memory of one process that opens a file.
pub(crate) const CHILD: &str = "--memory-child";

pub(crate) fn run(scale: Scale) -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let (full, empty) = (dir.path().join("full.db"), dir.path().join("empty.db"));
    let manager = open(config(&full, Durability::Normal), Arc::new(Nowhere));
    for first in (0..scale.pending).step_by(1000) {
        manager.enqueue_all((first..first + 1000).map(operation)).expect("enqueues");
    }
    manager.close();
    drop(manager);
    let with_many = open(config(&full, Durability::Normal), Arc::new(Nowhere));
    let with_none = open(config(&empty, Durability::Normal), Arc::new(Nowhere));
    let (mut many, mut none) = (Vec::new(), Vec::new());
    for n in 0..scale.rounds {
        let (a, b) = (operation(scale.pending + n), operation(n));
        many.push(timed(|| with_many.enqueue(a).expect("enqueues")).0);
        none.push(timed(|| with_none.enqueue(b).expect("enqueues")).0);
    }
    let (many, none) = (p50(&mut many), p50(&mut none));
    let metrics = metrics(&with_many, scale.rounds);
    for manager in [with_many, with_none] {
        manager.close();
    }
    let (idle, loaded) = (resident(&empty), resident(&full));
    vec![
        Figure {
            name: "enqueue at 1,000,000 pending / at none, p50",
            value: ratio(many, none),
            unit: "×",
            goal: Goal::AtMost(1.15),
            detail: format!("{:.0} µs / {:.0} µs at {} pending", micros(many), micros(none), scale.pending),
        },
        Figure {
            name: "metrics() at 1,000,000 pending",
            value: micros(metrics) / 1000.0,
            unit: "ms",
            goal: Goal::AtMost(0.1),
            detail: "p50".into(),
        },
        Figure {
            name: "memory at 1,000,000 pending above idle",
            value: loaded - idle,
            unit: "MiB",
            goal: Goal::AtMost(16.0),
            detail: format!("{loaded:.1} MiB / {idle:.1} MiB resident, a process each, after a drain without network"),
        },
    ]
}

fn metrics(manager: &SyncManager, rounds: usize) -> Duration {
    let mut samples: Vec<_> = (0..rounds).map(|_| timed(|| manager.metrics().expect("reads")).0).collect();
    p50(&mut samples)
}

/// Memory of a process of its own that opens the file, enqueues, looks around and tries to drain it.
fn resident(file: &Path) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program).arg(CHILD).arg(file).output().expect("runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

pub(crate) fn child(path: &str) {
    let manager = open(config(Path::new(path), Durability::Normal), Arc::new(Nowhere));
    for n in 0..1000 {
        manager.enqueue(operation(100_000_000 + n)).expect("enqueues");
    }
    manager.metrics().expect("reads");
    manager.operations(&OperationFilter { limit: 1000, ..OperationFilter::default() }).expect("reads");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(manager.process_queue()).expect("tries");
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|line| line.split_whitespace().next());
    println!("{}", kib.and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0);
}
