//! Why an operation is not synced yet, in one sentence and one enum. Pure: facts and state in, explanation out.

use syncline_protocol::Timestamp;

use crate::explain::{Explanation, Waiting};
use crate::metrics::SyncState;
use crate::operation::{Operation, OperationStatus};
use crate::store::{BlockerFacts, ExplainFacts};

/// Explains an operation. `searching`: one bad operation is being searched among those that are held.
///
/// The order is that of [`Waiting`]: what ended first, then what is the operation's own, then what holds for all.
pub(crate) fn explain(facts: &ExplainFacts, state: &SyncState, searching: bool) -> Explanation {
    let found = ended(facts)
        .or_else(|| blocked(facts))
        .or_else(|| own(facts, searching))
        .unwrap_or_else(|| shared(facts, state));
    Explanation {
        operation_id: facts.operation.id.clone(),
        waiting: found.waiting,
        until: found.until,
        blocked_by: found.blocked_by,
        text: found.text,
    }
}

struct Found {
    waiting: Waiting,
    text: String,
    until: Option<Timestamp>,
    blocked_by: Option<String>,
}

fn found(waiting: Waiting, text: impl Into<String>) -> Option<Found> {
    Some(Found { waiting, text: text.into(), until: None, blocked_by: None })
}

fn ended(facts: &ExplainFacts) -> Option<Found> {
    let operation = &facts.operation;
    match operation.status {
        OperationStatus::Completed => found(Waiting::Completed, "It is on the server."),
        OperationStatus::Cancelled => {
            let reason = operation.reason.clone().unwrap_or_else(|| "user".into());
            let text = match reason.as_str() {
                "coalesced" => "It was folded into an earlier change that has not been sent yet.",
                "resolved" => "Its conflict was decided for the other side.",
                "discarded" => "It was discarded.",
                "observed" => "It was only observed: the old sync delivers it.",
                _ => "It was withdrawn.",
            };
            found(Waiting::Cancelled { reason }, text)
        }
        OperationStatus::Failed => {
            let code = operation.reason.clone().unwrap_or_else(|| "failed".into());
            let unknown = if facts.outcome_unknown { " It may have reached the server all the same." } else { "" };
            let text =
                format!("It failed: {}.{unknown} Retry or discard it.", why(&operation.message, &operation.reason));
            found(Waiting::Failed { code, outcome_unknown: facts.outcome_unknown }, text)
        }
        OperationStatus::Conflicted => {
            found(Waiting::Conflicted, "It conflicts with a change of somebody else, and the app must decide.")
        }
        OperationStatus::InProgress => found(Waiting::InFlight, "It is being sent."),
        OperationStatus::Pending => None,
    }
}

/// What stands before it. One that merely waits its turn goes together with it and blocks nothing.
fn blocked(facts: &ExplainFacts) -> Option<Found> {
    let relations = [
        (&facts.predecessor, Waiting::LaneBlocked, "an earlier change of the same"),
        (&facts.dependency, Waiting::DependencyBlocked, "a change it depends on, of a"),
        (&facts.member, Waiting::TransactionBlocked, "what holds up another part of its transaction, a change of a"),
    ];
    relations.into_iter().find_map(|(blocker, waiting, relation)| {
        let blocker = blocker.as_ref()?;
        let trouble = trouble(blocker)?;
        Some(Found {
            waiting,
            text: format!("Waits for {relation} {} {trouble}.", blocker.entity_type),
            until: None,
            blocked_by: Some(blocker.id.clone()),
        })
    })
}

fn trouble(blocker: &BlockerFacts) -> Option<String> {
    Some(match blocker.status {
        OperationStatus::Failed => format!("that was rejected: {}", why(&blocker.message, &blocker.reason)),
        OperationStatus::Conflicted => "that conflicts with somebody else's and must be decided".into(),
        OperationStatus::Pending | OperationStatus::InProgress if blocker.void => {
            "whose withdrawal the endpoint must confirm first".into()
        }
        OperationStatus::InProgress => "that is being sent".into(),
        OperationStatus::Pending => {
            let at = blocker.next_attempt_at?;
            match blocker.reason.as_deref() {
                Some("proxy_refused") => {
                    format!("that something on the way to the endpoint refuses; it is tried again at {at}")
                }
                _ => format!("that is tried again at {at}"),
            }
        }
        OperationStatus::Completed | OperationStatus::Cancelled => return None,
    })
}

/// What is about this operation alone.
fn own(facts: &ExplainFacts, searching: bool) -> Option<Found> {
    let operation = &facts.operation;
    if let Some(until) = operation.next_attempt_at {
        return Some(Found { until: Some(until), ..backoff(operation, until) });
    }
    if facts.held && searching {
        let text = "The endpoint refused a batch that it was in; the one to blame is being searched.";
        return found(Waiting::Bisecting, text);
    }
    if operation.void {
        return found(
            Waiting::Withdrawing,
            "It may have reached the server before it was withdrawn; the endpoint must confirm that.",
        );
    }
    None
}

fn backoff(operation: &Operation, until: Timestamp) -> Found {
    let reason = operation.reason.clone().unwrap_or_else(|| "retry".into());
    let (waiting, text) = if reason == "proxy_refused" {
        let text = format!(
            "Something on the way to the endpoint refuses it, while others pass. It is tried again at {until}."
        );
        (Waiting::ProxyRefused, text)
    } else {
        let why = why(&operation.message, &operation.reason);
        let text = format!(
            "It is tried again at {until}, after {} of {} attempts: {why}.",
            operation.attempts, operation.max_attempts
        );
        (Waiting::Backoff { reason }, text)
    };
    Found { waiting, text, until: None, blocked_by: None }
}

/// What holds for everything that waits.
fn shared(facts: &ExplainFacts, state: &SyncState) -> Found {
    let (waiting, text, until) = match state {
        SyncState::Paused => (Waiting::Paused, "Delivery is not started.".to_owned(), None),
        SyncState::Elsewhere => (Waiting::Elsewhere, "Another process delivers for this file.".into(), None),
        SyncState::Offline => (Waiting::Offline, "There is no network.".into(), None),
        SyncState::AuthRequired { reason } => {
            let text = format!("The endpoint wants another credential ({reason}). Nothing is lost.");
            (Waiting::AuthRequired { reason: reason.clone() }, text, None)
        }
        SyncState::UnsupportedProtocol { supported } => (Waiting::UnsupportedProtocol, unsupported(supported), None),
        SyncState::Backoff { until, reason } => {
            let text = format!("The connection waits until {until} ({reason}).");
            (Waiting::ConnectionBackoff { reason: reason.clone() }, text, Some(*until))
        }
        SyncState::Idle | SyncState::Syncing if !facts.epoch_known => {
            (Waiting::FirstPull, "This device pulls for the first time before it sends.".into(), None)
        }
        SyncState::Idle | SyncState::Syncing => (Waiting::Queued, "It is next in the queue.".into(), None),
    };
    Found { waiting, text, until, blocked_by: None }
}

fn unsupported(supported: &[u32]) -> String {
    let versions = supported.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let spoken = if versions.is_empty() { String::new() } else { format!(" (it speaks {versions})") };
    format!(
        "The endpoint does not speak protocol version {}{spoken}. Everything is kept, and sent when it does.",
        syncline_protocol::PROTOCOL
    )
}

fn why(message: &Option<String>, reason: &Option<String>) -> String {
    let text =
        message.as_deref().filter(|text| !text.is_empty()).or(reason.as_deref()).unwrap_or("no reason was given");
    text.trim_end_matches('.').to_owned()
}
