//! What is told: a line per guarantee while it goes on, the evidence, the sum.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use super::Guarantee;
use super::outcome::{Evidence, Outcome, Trouble};
use crate::output::{BAD, GOOD, QUIET, STRONG, WAITS, styled, thousands};

/// Measures the run.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the command runs in real time")]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// What became of a guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Mark {
    Pass,
    Fail,
    Skipped,
}

/// A guarantee, judged.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    id: &'static str,
    sentence: &'static str,
    spec: &'static str,
    result: Mark,
    #[serde(flatten)]
    evidence: Evidence,
}

impl Finding {
    pub(super) fn of(guarantee: &Guarantee, outcome: Outcome) -> Self {
        let (result, evidence) = match outcome {
            Ok(seen) => (Mark::Pass, Evidence::of(seen)),
            Err(Trouble::Broken(evidence)) => (Mark::Fail, *evidence),
            Err(Trouble::Skipped(why)) => (Mark::Skipped, Evidence::of(why)),
        };
        Self { id: guarantee.id, sentence: guarantee.sentence, spec: guarantee.spec, result, evidence }
    }
}

/// Everything that is told at the end.
pub(super) struct Report {
    pub(super) endpoint: String,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) findings: Vec<Finding>,
    /// What is left of the run at the endpoint, in a sentence.
    pub(super) left: String,
}

impl Report {
    fn count(&self, mark: Mark) -> usize {
        self.findings.iter().filter(|finding| finding.result == mark).count()
    }

    pub(super) fn holds(&self) -> bool {
        self.count(Mark::Fail) == 0
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "endpoint": self.endpoint, "seed": self.seed, "seconds": self.seconds, "requests": self.requests,
            "holds": self.holds(), "passed": self.count(Mark::Pass), "failed": self.count(Mark::Fail),
            "skipped": self.count(Mark::Skipped), "guarantees": self.findings, "left": self.left,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text =
            format!("{}  seed {}\n\n", styled(STRONG, format_args!("Torture of {}", self.endpoint)), self.seed);
        for finding in &self.findings {
            let (style, word) = match finding.result {
                Mark::Pass => (GOOD, "PASS"),
                Mark::Fail => (BAD, "FAIL"),
                Mark::Skipped => (WAITS, "SKIPPED"),
            };
            let mark = styled(style, format_args!("{word:7}"));
            let spec = styled(QUIET, format_args!("({})", finding.spec));
            text += &format!("  {mark}  {}  {} {spec}\n", styled(STRONG, finding.id), finding.sentence);
            text += &format!("           {}\n", styled(QUIET, &finding.evidence.what));
            for (name, exchange) in [("sent", &finding.evidence.request), ("answer", &finding.evidence.answer)] {
                if let Some(exchange) = exchange.as_ref().filter(|_| finding.result == Mark::Fail) {
                    text += &format!("           {name:7}{}\n", styled(QUIET, exchange));
                }
            }
        }
        let sum = if self.holds() {
            styled(GOOD, "Every guarantee that was judged holds.")
        } else {
            styled(BAD, "Guarantees are broken.")
        };
        let counts = format!(
            "{} passed, {} failed, {} skipped; {} requests in {:.1} s",
            self.count(Mark::Pass),
            self.count(Mark::Fail),
            self.count(Mark::Skipped),
            thousands(self.requests),
            self.seconds
        );
        text + &format!("\n  {sum}  {counts}\n  {}\n", styled(QUIET, &self.left))
    }
}

/// A bar for people who wait; nothing unless standard error is a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(count: usize, visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target);
        if let Ok(style) = ProgressStyle::with_template("  {bar:32} {pos:>3} of {len}  {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn at(&self, id: &str) {
        self.0.set_message(id.to_owned());
    }

    pub(super) fn done(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
