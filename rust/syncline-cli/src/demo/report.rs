//! The demo's report: what happened, what was promised, and whether the promises hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::checker::{Check, DeviceFile, ServerFile, Verdict};
use super::faults::Counts;
use super::script::Story;
use crate::output::{BAD, GOOD, QUIET, STRONG, WAITS, short, styled, thousands};

/// Measures the day.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the demo runs in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Everything that is told at the end.
pub(crate) struct Report {
    seed: u64,
    seconds: f64,
    verdict: Verdict,
    story: Story,
    network: Counts,
    events: Vec<Event>,
}

/// Something that the script arranges, and how often it was seen to happen.
#[derive(Debug, Serialize)]
struct Event {
    what: &'static str,
    times: u64,
}

/// One device in figures, counted in its file.
#[derive(Debug, Serialize)]
struct Figures {
    device: String,
    enqueued: u64,
    delivered: u64,
    merged: u64,
    conflicts: u64,
    failed: u64,
    cancelled: u64,
    queue: u64,
}

impl Report {
    pub(crate) fn new(seed: u64, seconds: f64, verdict: Verdict, story: Story, network: Counts) -> Self {
        let events = events(&verdict, &story, &network);
        Self { seed, seconds, verdict, story, network, events }
    }

    /// Whether every promise was kept and every scripted event happened.
    pub(crate) fn holds(&self) -> bool {
        self.verdict.holds() && self.events.iter().all(|event| event.times > 0) && self.story.lost_by_kill == 0
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "holds": self.holds(),
            "seed": self.seed,
            "seconds": (self.seconds * 100.0).round() / 100.0,
            "devices": self.verdict.devices.iter().map(figures).collect::<Vec<_>>(),
            "failed": self.verdict.devices.iter().flat_map(failures).collect::<Vec<_>>(),
            "network": self.network,
            "story": self.story,
            "events": self.events,
            "ledger": ledger(&self.verdict),
            "replicas": self.verdict.hashes.iter().cloned().collect::<BTreeMap<_, _>>(),
            "checks": self.verdict.checks.iter().map(check_json).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self, kept: Option<&Path>) -> String {
        let mut text = self.device_table();
        text += &self.failures_text();
        text += &self.ledger_text();
        text += &self.network_text();
        text += &self.events_text();
        text += &self.promises_text();
        text += &self.closing(kept);
        text
    }

    fn device_table(&self) -> String {
        let header = "  device     enqueued  delivered  merged  conflicts  failed  cancelled   queue";
        let mut text = format!("\n{}\n", styled(STRONG, header));
        for device in &self.verdict.devices {
            let row = figures(device);
            text += &format!(
                "  {:9} {:>9}  {:>9}  {:>6}  {:>9}  {:>6}  {:>9}  {:>6}",
                row.device,
                thousands(row.enqueued),
                thousands(row.delivered),
                thousands(row.merged),
                thousands(row.conflicts),
                thousands(row.failed),
                thousands(row.cancelled),
                thousands(row.queue),
            );
            if row.device == self.story.killed {
                let lost = match self.story.lost_by_kill {
                    0 => styled(GOOD, "nothing lost"),
                    lost => styled(BAD, format_args!("{} lost", thousands(lost))),
                };
                text += &format!("    killed at {}, reopened, {lost}", thousands(self.story.killed_at));
            }
            text.push('\n');
        }
        text
    }

    fn failures_text(&self) -> String {
        let rows: Vec<Failed> = self.verdict.devices.iter().flat_map(failures).collect();
        let lines = rows.iter().map(|row| {
            let field = row.field.as_ref().map(|field| format!(" ({field})")).unwrap_or_default();
            let message = row.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            format!("{} {} rejected, {}{field}{message}", row.device, row.operation, styled(WAITS, &row.reason))
        });
        section("failed", lines)
    }

    fn ledger_text(&self) -> String {
        let rows = ledger(&self.verdict);
        let lines = rows.iter().map(|row| {
            let fields: Vec<String> = row
                .fields
                .iter()
                .map(|(field, [ours, theirs, winner])| {
                    let winner = match winner.as_str() {
                        "ours" | "theirs" => format!("{winner} won"),
                        _ => "the app decides".to_owned(),
                    };
                    format!("{field}: ours {ours} · theirs {theirs} · {winner}")
                })
                .collect();
            let resolved = row.resolution.as_ref().map(|word| format!(" → {word}")).unwrap_or_default();
            format!(
                "{} {} {}  {}{resolved}",
                styled(WAITS, &row.rule),
                row.entity_type,
                row.entity_id,
                fields.join("; ")
            )
        });
        section("ledger", lines)
    }

    fn network_text(&self) -> String {
        let n = &self.network;
        let line = format!(
            "{} requests: {} dropped before, {} after the commit, {} truncated, {} × 503, {} delayed, {} refused while offline, {} × 413, {} × 401",
            thousands(n.requests),
            n.dropped_before,
            n.dropped_after,
            n.truncated,
            n.unavailable,
            n.delayed,
            n.refused,
            n.too_large,
            n.unauthorized,
        );
        section("network", [line].into_iter())
    }

    fn events_text(&self) -> String {
        let missing = self.events.iter().filter(|event| event.times == 0);
        let lines = missing.map(|event| styled(BAD, format_args!("never happened: {}", event.what)));
        let seen = self.events.iter().filter(|event| event.times > 0).count();
        let all = format!("{seen} of {} scripted events happened", self.events.len());
        let said = format!("asked why: {}", styled(QUIET, format_args!("“{}”", self.story.explanation)));
        section("script", [all].into_iter().chain(lines).chain([said]))
    }

    fn promises_text(&self) -> String {
        let mut lines = Vec::new();
        for check in &self.verdict.checks {
            let style = if check.holds() { GOOD } else { BAD };
            lines.push(format!("{:78} {}", check.promise, styled(style, &check.figure)));
            lines.extend(check.breaches.iter().take(5).map(|breach| format!("  {}", styled(BAD, breach))));
            if check.breaches.len() > 5 {
                lines.push(format!("  {}", styled(BAD, format_args!("and {} more", check.breaches.len() - 5))));
            }
        }
        section("promise", lines.into_iter())
    }

    fn closing(&self, kept: Option<&Path>) -> String {
        let operations: u64 = self.verdict.devices.iter().map(DeviceFile::enqueued).sum();
        let summary = format!(
            "  {} operations, {} of them by single calls, in {:.1} s; seed {}",
            thousands(operations),
            thousands(self.story.singles),
            self.seconds,
            self.seed
        );
        let verdict =
            if self.holds() { styled(GOOD, "All promises hold.") } else { styled(BAD, "Promises are broken.") };
        let next = match kept {
            Some(folder) => format!("syncline inspect {}/{}.db", folder.display(), self.story.killed),
            None => "syncline demo --keep FOLDER, then syncline inspect a device's file".to_owned(),
        };
        format!("\n{summary}\n  {verdict}\n{}\n", styled(QUIET, format_args!("  Next:  {next}")))
    }
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for (index, line) in lines.enumerate() {
        // Padded first, so that the invisible style does not count.
        let title = if index == 0 { styled(STRONG, format_args!("{title:9}")) } else { " ".repeat(9) };
        text += &format!("  {title} {line}\n");
    }
    text
}

fn check_json(check: &Check) -> Value {
    json!({ "promise": check.promise, "holds": check.holds(), "figure": check.figure, "breaches": check.breaches })
}

fn figures(device: &DeviceFile) -> Figures {
    let rows = |status: &str| device.with_status(status).count() as u64;
    Figures {
        device: device.name.clone(),
        enqueued: device.enqueued(),
        delivered: device.counters.completed,
        merged: device.operations.iter().filter(|row| row.verdict.as_deref() == Some("merged")).count() as u64,
        conflicts: device.conflicts.len() as u64,
        failed: rows("failed"),
        cancelled: device.counters.cancelled,
        queue: rows("pending") + rows("in_progress"),
    }
}

#[derive(Debug, Serialize)]
struct Failed {
    device: String,
    operation: String,
    reason: String,
    field: Option<String>,
    message: Option<String>,
}

fn failures(device: &DeviceFile) -> Vec<Failed> {
    let row = |operation: &super::checker::Operation| Failed {
        device: device.name.clone(),
        operation: operation.name(),
        reason: operation.reason.clone().unwrap_or_default(),
        field: operation.field.clone(),
        message: operation.message.clone(),
    };
    device.with_status("failed").map(row).collect()
}

#[derive(Debug, Serialize)]
struct LedgerRow {
    id: String,
    rule: String,
    entity_type: String,
    entity_id: String,
    /// Ours, theirs, winner.
    fields: BTreeMap<String, [String; 3]>,
    resolution: Option<String>,
}

fn ledger(verdict: &Verdict) -> Vec<LedgerRow> {
    let resolution = |id: &str| verdict.devices.iter().find_map(|device| device.conflicts.get(id)?.resolution.clone());
    let rows = verdict.server.conflicts.iter().map(|(id, conflict)| LedgerRow {
        id: id.clone(),
        rule: conflict.rule().to_owned(),
        entity_type: conflict.entity.0.clone(),
        entity_id: conflict.entity.1.clone(),
        fields: conflict.object["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, sides)| (field.clone(), ["ours", "theirs", "winner"].map(|side| value_text(&sides[side]))))
            .collect(),
        resolution: resolution(id),
    });
    rows.collect()
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) if text == "ours" || text == "theirs" || text == "none" => text.clone(),
        other => {
            let text = other.to_string();
            if text.chars().count() > 40 { short(&text) } else { text }
        }
    }
}

/// What the script arranged, as it is seen in the files and on the lines.
fn events(verdict: &Verdict, story: &Story, network: &Counts) -> Vec<Event> {
    let server: &ServerFile = &verdict.server;
    let rule = |rules: &[&str]| server.conflicts.values().filter(|row| rules.contains(&row.rule())).count() as u64;
    let merges =
        server.decided.iter().filter(|row| row.verdict == "merged" && row.conflict_id.is_none()).count() as u64;
    let failed = |reason: &str, grouped: bool| {
        let rows = verdict.devices.iter().flat_map(|device| device.with_status("failed"));
        rows.filter(|row| row.reason.as_deref() == Some(reason) && row.transaction.is_some() == grouped).count() as u64
    };
    let event = |what, times| Event { what, times };
    vec![
        event("written offline", story.written_offline),
        event("a request dropped before the server saw it", network.dropped_before),
        event("an answer dropped after the commit", network.dropped_after),
        event("an answer delayed", network.delayed),
        event("an answer truncated", network.truncated),
        event("503 with Retry-After", network.unavailable),
        event("no network at all", network.refused),
        event("a token expired and was refreshed", network.unauthorized.min(story.refreshes)),
        event("two devices edit one pin: a merge", merges),
        event("two devices edit one field of a pin: a true conflict", rule(&["last_writer_wins"])),
        event("two devices edit one form: a conflict the app resolved", rule(&["manual"]).min(story.resolved)),
        event("a delete against an update", rule(&["update_wins", "delete_wins"])),
        event("a transaction that the server refuses", failed("transaction_failed", true)),
        event("a poison form", failed("invalid_value", false)),
        event("a device killed in mid-drain", story.killed_in_flight),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(story: Story, network: Counts) -> Report {
        let server = ServerFile { decided: vec![], by_key: [].into(), conflicts: [].into(), entities: [].into() };
        let verdict = Verdict { checks: vec![], devices: vec![], server, hashes: vec![] };
        Report::new(1, 1.0, verdict, story, network)
    }

    #[test]
    fn an_event_that_never_happened_breaks_the_day() {
        let network = Counts { dropped_after: 3, ..Counts::default() };
        let report = report(Story { killed_in_flight: 7, ..Story::default() }, network);
        assert!(report.verdict.holds() && !report.holds());
        let text = report.text(None);
        assert!(text.contains("never happened: a poison form"), "{text}");
        assert!(!text.contains("never happened: a device killed"), "{text}");
        assert!(!text.contains("never happened: an answer dropped"), "{text}");
        assert!(text.contains("2 of 15 scripted events happened") && text.contains("Promises are broken."), "{text}");
    }
}
