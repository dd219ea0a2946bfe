//! Syncline beside the plain programs it must not be much slower than, in one run on one machine: every figure is a ratio.
//!
//! `make bench`, or `cargo bench -p syncline-testkit --bench ratios -- [--quick] [--json] [NAME…]`. Machines are noisy: compare
//! ratios, not milliseconds, and run it twice.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on real threads")]

mod drain;
mod enqueue;
mod figure;
mod memory;
mod pull;
mod raw;
mod reads;
mod support;

use std::process::ExitCode;

pub(crate) use figure::{Figure, Goal};

/// How much work each benchmark does.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub rounds: usize,
    pub pending: usize,
    pub drained: usize,
    pub pulled: usize,
}

const FULL: Scale = Scale { rounds: 3_000, pending: 1_000_000, drained: 10_000, pulled: 100_000 };
const QUICK: Scale = Scale { rounds: 200, pending: 20_000, drained: 1_000, pulled: 5_000 };

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [child, path] = &args[..]
        && child == memory::CHILD
    {
        memory::child(path);
        return ExitCode::SUCCESS;
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--help") {
        println!("Usage: ratios [--quick] [--json] [enqueue|pending|drain|pull|reads]…");
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    let scale = if has("--quick") { QUICK } else { FULL };
    let mut figures = Vec::new();
    type Run = fn(Scale) -> Vec<Figure>;
    let runs: [(&str, Run); 5] = [
        ("enqueue", enqueue::run),
        ("pending", memory::run),
        ("drain", drain::run),
        ("pull", pull::run),
        ("reads", reads::run),
    ];
    for (name, run) in runs.into_iter().filter(|(name, _)| wanted(name)) {
        if !has("--json") {
            println!("{name} …");
        }
        figures.extend(run(scale));
    }
    if has("--json") {
        figure::print_json(&figures)
    } else {
        figure::print_table(&figures)
    }
    ExitCode::SUCCESS
}
