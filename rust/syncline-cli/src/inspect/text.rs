//! What `inspect` prints for people.

use serde_json::value::RawValue;
use syncline_core::{ConflictEntry, Explanation, Operation, OperationStatus, SyncState, Troubled};
use syncline_protocol::{FieldConflict, Timestamp, Winner};

use super::{Look, Overview};
use crate::output::{BAD, GOOD, QUIET, STRONG, WAITS, age, duration, short, styled, thousands};

/// Lines of one kind in the overview; the rest is counted.
const SHOWN: usize = 5;

impl Look<'_> {
    fn age(&self, moment: Timestamp) -> String {
        age(moment.millis(), self.now.millis())
    }

    fn next(&self, arguments: &str) -> String {
        styled(QUIET, format_args!("syncline inspect {} {arguments}", self.file.display()))
    }
}

fn line(title: &str, text: impl std::fmt::Display) -> String {
    format!("  {} {text}\n", styled(STRONG, format_args!("{title:10}")))
}

pub(super) fn overview(look: &Look<'_>, overview: &Overview) -> String {
    let (device, metrics) = (&overview.device, &overview.metrics);
    let mut queue = vec![format!("{} waiting", thousands(metrics.pending + metrics.in_progress))];
    if metrics.failed > 0 {
        queue.push(styled(BAD, format_args!("{} failed", thousands(metrics.failed))));
    }
    if metrics.conflicted > 0 {
        let noun = if metrics.conflicted == 1 { "conflict" } else { "conflicts" };
        queue.push(styled(WAITS, format_args!("{} {noun}", thousands(metrics.conflicted))));
    }
    let oldest = metrics
        .oldest_pending_age_ms
        .map_or(String::new(), |age| format!("        oldest {}", duration(i64::try_from(age).unwrap_or(i64::MAX))));
    let mut text = line("queue", format_args!("{}{oldest}", queue.join(" · ")));
    text += &line("state", state(look, overview));
    text += &line(
        "so far",
        format_args!(
            "{} enqueued · {} delivered · {} cancelled        half of them within {}, 95 % within {}",
            thousands(metrics.enqueued_total),
            thousands(metrics.completed_total),
            thousands(metrics.cancelled_total),
            duration(metrics.p50_sync_latency_ms as i64),
            duration(metrics.p95_sync_latency_ms as i64),
        ),
    );
    text += &line(
        "owner",
        format_args!("user {}, scope {}, device {}", device.user_id, device.scope, short(&device.device_id)),
    );
    text += &lines("blocked", &overview.troubled, blocked);
    text += &lines("conflicts", &overview.undecided, |entry| {
        let id = short_argument(&entry.conflict.entity_id);
        format!("{}      {}", conflict_line(entry), look.next(&format!("--conflict {id}")))
    });
    text += &next_step(look, overview);
    text
}

fn state(look: &Look<'_>, overview: &Overview) -> String {
    let state = match &overview.metrics.state {
        SyncState::Backoff { until, .. } => {
            styled(WAITS, format_args!("waits: the endpoint asked for no request before {}", look.age(*until)))
        }
        SyncState::Syncing => "syncing, or stopped in the middle of it".to_owned(),
        _ if overview.device.in_reset && !overview.device.has_pulled => "never pulled".to_owned(),
        _ if overview.device.in_reset => "pulls everything from the start".to_owned(),
        _ => "nothing under way".to_owned(),
    };
    let heard = match overview.metrics.last_successful_sync {
        Some(moment) => format!("last sync {}", look.age(moment)),
        None => "never synced".to_owned(),
    };
    format!("{state}        {heard}")
}

/// A titled list, cut after a few lines.
fn lines<T>(title: &str, rows: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().take(SHOWN).enumerate() {
        text += &line(if index == 0 { title } else { "" }, show(row));
    }
    if rows.len() > SHOWN {
        text += &line("", styled(QUIET, format_args!("and {} more", thousands((rows.len() - SHOWN) as u64))));
    }
    text
}

fn blocked(troubled: &Troubled) -> String {
    let operation = &troubled.operation;
    let what = match operation.status {
        OperationStatus::Conflicted => styled(WAITS, "in conflict"),
        _ => styled(BAD, "failed"),
    };
    let behind = match troubled.behind {
        0 => "holds up nothing".to_owned(),
        behind => format!("holds {} behind it", thousands(behind)),
    };
    format!(
        "{} {}: #{} {what}{} {behind}",
        operation.entity_type,
        short(&operation.entity_id),
        operation.sequence,
        why(operation)
    )
}

/// The reason in brackets, with the field at fault.
fn why(operation: &Operation) -> String {
    let reason = operation.message.as_ref().or(operation.reason.as_ref());
    match (&operation.field, reason) {
        (Some(field), Some(reason)) => format!(" ({field}: {reason})"),
        (None, Some(reason)) => format!(" ({reason})"),
        _ => String::new(),
    }
}

fn next_step(look: &Look<'_>, overview: &Overview) -> String {
    let arguments = match (overview.undecided.first(), overview.troubled.first()) {
        (Some(entry), _) => format!("--conflict {}", short_argument(&entry.conflict.entity_id)),
        (None, Some(troubled)) => format!("--operation {}", troubled.operation.sequence),
        (None, None) if overview.metrics.conflicts_detected > 0 => "--conflicts".to_owned(),
        (None, None) if overview.metrics.enqueued_total > 0 => {
            format!("--operation {}", overview.metrics.enqueued_total)
        }
        (None, None) => "--json".to_owned(),
    };
    format!("\n  {}  {}\n", styled(QUIET, "Next:"), look.next(&arguments))
}

/// The beginning of an id that is a good argument.
fn short_argument(id: &str) -> &str {
    if id.contains([' ', '\'', '"', '$']) { "ID" } else { id }
}

pub(super) fn explained(look: &Look<'_>, operation: &Operation, why: &Explanation) -> String {
    let style = match operation.status {
        OperationStatus::Completed => GOOD,
        OperationStatus::Failed => BAD,
        OperationStatus::Cancelled => QUIET,
        _ => WAITS,
    };
    let status = if operation.void { format!("{}, withdrawn", operation.status) } else { operation.status.to_string() };
    let mut text = line(
        &format!("#{}", operation.sequence),
        format_args!(
            "{} {} {}        {}",
            operation.kind,
            operation.entity_type,
            operation.entity_id,
            styled(style, status)
        ),
    );
    text += &line("why", &why.text);
    if let Some(until) = why.until {
        text += &line("until", look.age(until));
    }
    if let Some(blocker) = &why.blocked_by {
        text += &line("blocked by", format_args!("{blocker}      {}", look.next(&format!("--operation {blocker}"))));
    }
    if let Some(reason) = &operation.reason {
        let field = operation.field.as_ref().map(|field| format!(" in {field}")).unwrap_or_default();
        text += &line("reason", format_args!("{reason}{field}"));
    }
    if let Some(transaction) = &operation.transaction_id {
        text += &line("part of", format_args!("transaction {transaction}"));
    }
    text += &line("enqueued", look.age(operation.enqueued_at));
    if let Some(ended) = operation.ended_at {
        text += &line("ended", look.age(ended));
    }
    text += &line("attempts", format_args!("{} of {}", operation.attempts, operation.max_attempts));
    text += &line("id", &operation.id);
    if let Some(payload) = &operation.payload {
        text += &line("payload", payload);
    }
    text + &format!(
        "\n  {}  {}\n",
        styled(QUIET, "Next:"),
        look.next(&format!("--operation {} --json", operation.sequence))
    )
}

pub(super) fn conflict(look: &Look<'_>, entry: &ConflictEntry) -> String {
    let conflict = &entry.conflict;
    let mut text = line(
        &conflict.entity_type,
        format_args!("{}        {} {}", conflict.entity_id, styled(WAITS, &conflict.rule), look.age(entry.detected_at)),
    );
    for (field, sides) in &conflict.fields {
        text += &line("field", styled(STRONG, field));
        for (name, value, wins) in [
            ("  base", &sides.base, false),
            ("  mine", &sides.ours, sides.winner == Winner::Ours),
            ("  theirs", &sides.theirs, sides.winner == Winner::Theirs),
        ] {
            let won = if wins { styled(GOOD, "   stands") } else { String::new() };
            text += &line(name, format_args!("{}{won}", value_text(value.as_deref())));
        }
    }
    if conflict.their_deleted {
        text += &line("theirs", "had deleted the entity");
    }
    text += &line("operation", format_args!("#{} {}", entry.sequence, conflict.operation));
    let decided = match (entry.resolution, entry.resolved_at) {
        (Some(kind), Some(at)) => format!("{} {}", styled(GOOD, kind.as_str()), look.age(at)),
        _ if is_undecided(entry) => styled(WAITS, "the app must decide"),
        _ => "by the rule".to_owned(),
    };
    text += &line("decided", decided);
    text + &format!("\n  {}  {}\n", styled(QUIET, "Next:"), look.next(&format!("--operation {}", entry.sequence)))
}

pub(super) fn ledger(look: &Look<'_>, entries: &[ConflictEntry]) -> String {
    if entries.is_empty() {
        return line("conflicts", "none, ever");
    }
    let mut text = String::new();
    for entry in entries {
        let decided = match entry.resolution {
            Some(kind) => kind.as_str(),
            None if is_undecided(entry) => "undecided",
            None => "by the rule",
        };
        text += &line(
            &entry.conflict.rule,
            format_args!("{}      {decided}, {}", conflict_line(entry), look.age(entry.detected_at)),
        );
    }
    let first = short_argument(&entries[0].conflict.id);
    text + &format!("\n  {}  {}\n", styled(QUIET, "Next:"), look.next(&format!("--conflict {first}")))
}

fn is_undecided(entry: &ConflictEntry) -> bool {
    entry.resolution.is_none() && entry.conflict.fields.values().any(|sides| sides.winner == Winner::None)
}

fn conflict_line(entry: &ConflictEntry) -> String {
    let conflict = &entry.conflict;
    let fields = conflict.fields.iter().take(2).map(|(field, sides)| field_line(field, sides));
    let more = if conflict.fields.len() > 2 { format!("; {} more", conflict.fields.len() - 2) } else { String::new() };
    format!("{} {}: {}{more}", conflict.entity_type, short(&conflict.entity_id), fields.collect::<Vec<_>>().join("; "))
}

fn field_line(field: &str, sides: &FieldConflict) -> String {
    format!("{field}   mine {} · theirs {}", brief(sides.ours.as_deref()), brief(sides.theirs.as_deref()))
}

fn value_text(value: Option<&RawValue>) -> &str {
    value.map_or("nothing", RawValue::get)
}

/// A value, cut to what a line can hold.
fn brief(value: Option<&RawValue>) -> String {
    let text = value_text(value);
    match text.char_indices().nth(32) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
