use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::{BAD, GOOD, STRONG, styled, thousands};

/// What a part came to.
pub(super) struct Outcome {
    /// What was done, and how often.
    pub(super) figures: Vec<(&'static str, u64)>,
    /// Each breach in a sentence.
    pub(super) breaches: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct PartReport {
    part: &'static str,
    holds: bool,
    seconds: f64,
    #[serde(serialize_with = "as_object")]
    figures: Vec<(&'static str, u64)>,
    breaches: Vec<String>,
}

fn as_object<S: serde::Serializer>(figures: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let members = figures.iter().map(|(what, count)| (what.replace([' ', '-'], "_"), Value::from(*count)));
    members.collect::<Map<String, Value>>().serialize(serializer)
}

impl PartReport {
    pub(super) fn new(part: &'static str, seconds: f64, outcome: Outcome) -> Self {
        let Outcome { figures, breaches } = outcome;
        Self { part, holds: breaches.is_empty(), seconds: rounded(seconds), figures, breaches }
    }
}

/// Everything that is told at the end.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) holds: bool,
    seed: u64,
    seconds: f64,
    parts: Vec<PartReport>,
}

impl Report {
    pub(super) fn new(seed: u64, seconds: f64, parts: Vec<PartReport>) -> Self {
        Self { holds: parts.iter().all(|part| part.holds), seed, seconds: rounded(seconds), parts }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let heading = styled(STRONG, "Chaos on Postgres");
        let mut text = format!("  {heading}   seed {}   {:.1} minutes\n", self.seed, self.seconds / 60.0);
        for part in &self.parts {
            let _ = writeln!(text, "\n  {}   {:.0} s", styled(STRONG, part.part), part.seconds);
            for (what, count) in &part.figures {
                let _ = writeln!(text, "  {:>12}  {what}", thousands(*count));
            }
            for breach in &part.breaches {
                let _ = writeln!(text, "  {} {breach}", styled(BAD, "✗"));
            }
            let verdict = if part.holds { styled(GOOD, "holds") } else { styled(BAD, "is broken") };
            let _ = writeln!(text, "  {:>12}  {verdict}", "");
        }
        let closing =
            if self.holds { styled(GOOD, "Every promise is kept.") } else { styled(BAD, "Promises are broken.") };
        let _ = writeln!(text, "\n  {closing}");
        text
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
