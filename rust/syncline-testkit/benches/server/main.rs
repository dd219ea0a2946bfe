//! The endpoints beside plain programs that write the same rows and check nothing, in one run on one machine.
//!
//! `make bench-server`, or `cargo bench -p syncline-testkit --bench server -- [--quick] [--json] [postgres|pages|sqlite]…`. Clients
//! and server share the machine, as they share it with the plain program: compare ratios, and run it twice.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on real threads")]

#[path = "../ratios/figure.rs"]
mod figure;
mod load;
mod pages;
mod postgres;
mod sqlite;
mod table;

use std::process::ExitCode;
use std::time::Duration;

pub(crate) use figure::{Figure, Goal};

/// How much work each benchmark does.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Both sides take turns, so that a slow moment of the machine hits both.
    pub turns: usize,
    pub turn: Duration,
    pub short_history: usize,
    pub long_history: usize,
}

const FULL: Scale = Scale { turns: 4, turn: Duration::from_secs(2), short_history: 2_000, long_history: 500_000 };
const QUICK: Scale = Scale { turns: 1, turn: Duration::from_millis(250), short_history: 2_000, long_history: 20_000 };

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--help") {
        println!("Usage: server [--quick] [--json] [postgres|pages|sqlite]…");
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let scale = if has("--quick") { QUICK } else { FULL };
    type Run = fn(Scale, bool) -> Vec<Figure>;
    let runs: [(&str, Run); 3] = [("postgres", postgres::run), ("pages", pages::run), ("sqlite", sqlite::run)];
    let mut figures = Vec::new();
    for (_, run) in runs.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name)) {
        figures.extend(run(scale, !has("--json")));
    }
    if has("--json") {
        figure::print_json(&figures)
    } else {
        figure::print_table(&figures)
    }
    ExitCode::SUCCESS
}
