//! Why an operation is not synced yet, in one sentence and one enum. Pure: facts and state in, explanation out.

use syncline_protocol::{Timestamp, planted};

use crate::explain::{Explanation, Waiting};
use crate::metrics::SyncState;
use crate::operation::{Operation, OperationStatus};
use crate::store::{BlockerFacts, ExplainFacts};

/// Explains an operation. `searching`: one bad operation is being searched among those that are held.
///
/// The order is that of [`Waiting`]: what ended first, then what is the operation's own, then what holds for all.
pub(crate) fn explain(facts: &ExplainFacts, state: &SyncState, searching: bool) -> Explanation {
    let found = ended(facts)
        .or_else(|| blocked(facts).filter(|_| !planted!(ExplainForgetsLane)))
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
    let relations = facts
        .predecessor
        .iter()
        .map(|blocker| (blocker, Waiting::LaneBlocked, "an earlier change of the same"))
        .chain(facts.dependencies.iter().map(|it| (it, Waiting::DependencyBlocked, "a change it depends on, of a")))
        .chain(facts.members.iter().map(|it| {
            (it, Waiting::TransactionBlocked, "what holds up another part of its transaction, a change of a")
        }));
    let mut troubled = relations.filter_map(|relation| trouble(relation.0).map(|trouble| (relation, trouble)));
    troubled.next().map(|((blocker, waiting, relation), trouble)| Found {
        waiting,
        text: format!("Waits for {relation} {} {trouble}.", blocker.entity_type),
        until: None,
        blocked_by: Some(blocker.id.clone()),
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
        OperationStatus::Pending if blocker.behind.is_some() => {
            let root = blocker.behind.as_deref()?;
            format!("that waits for a change of a {} {}", root.entity_type, trouble(root)?)
        }
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

#[cfg(test)]
mod tests {
    use syncline_protocol::OperationKind;

    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn facts(status: OperationStatus) -> ExplainFacts {
        let operation = Operation {
            sequence: 5,
            id: "op-5".into(),
            idempotency_key: "k".into(),
            kind: OperationKind::Update,
            entity_type: "pin".into(),
            entity_id: "e".into(),
            payload: Some(r#"{"title":"SECRET"}"#.into()),
            timestamp: AT,
            enqueued_at: AT,
            transaction_id: None,
            status,
            void: false,
            attempts: 1,
            max_attempts: 3,
            next_attempt_at: None,
            reason: None,
            message: None,
            field: None,
            coalesced_into: None,
            ended_at: None,
        };
        ExplainFacts {
            operation,
            held: false,
            outcome_unknown: false,
            predecessor: None,
            dependencies: Vec::new(),
            members: Vec::new(),
            epoch_known: true,
        }
    }

    fn blocker(status: OperationStatus) -> BlockerFacts {
        BlockerFacts {
            id: "op-1".into(),
            sequence: 1,
            kind: OperationKind::Create,
            entity_type: "pin".into(),
            status,
            void: false,
            reason: Some("invalid_value".into()),
            message: Some("title is longer than 80.".into()),
            next_attempt_at: None,
            behind: None,
        }
    }

    fn explained(facts: &ExplainFacts) -> Explanation {
        let explanation = explain(facts, &SyncState::Idle, false);
        assert!(!explanation.text.contains("SECRET") && explanation.text.ends_with('.'), "{}", explanation.text);
        explanation
    }

    #[test]
    fn a_rejected_predecessor_is_named_with_its_reason() {
        let mut facts = facts(OperationStatus::Pending);
        facts.predecessor = Some(blocker(OperationStatus::Failed));
        let explanation = explained(&facts);
        assert_eq!(
            explanation.text,
            "Waits for an earlier change of the same pin that was rejected: title is longer than 80."
        );
        assert_eq!((explanation.waiting, explanation.blocked_by.as_deref()), (Waiting::LaneBlocked, Some("op-1")));
    }

    #[test]
    fn one_that_merely_waits_its_turn_blocks_nothing() {
        let mut facts = facts(OperationStatus::Pending);
        facts.predecessor = Some(blocker(OperationStatus::Pending));
        assert_eq!(explain(&facts, &SyncState::Offline, false).waiting, Waiting::Offline);
        facts.predecessor.as_mut().unwrap().next_attempt_at = Some(AT);
        assert_eq!(explained(&facts).waiting, Waiting::LaneBlocked);
        let root = BlockerFacts { entity_type: "form".into(), ..blocker(OperationStatus::Failed) };
        facts.predecessor = Some(BlockerFacts { behind: Some(Box::new(root)), ..blocker(OperationStatus::Pending) });
        assert_eq!(
            explained(&facts).text,
            "Waits for an earlier change of the same pin that waits for a change of a form that was rejected: title is longer than 80."
        );
        facts.predecessor = None;
        facts.dependencies =
            vec![blocker(OperationStatus::Pending), BlockerFacts { void: true, ..blocker(OperationStatus::Pending) }];
        assert_eq!(explained(&facts).waiting, Waiting::DependencyBlocked);
        facts.dependencies.clear();
        facts.members = vec![blocker(OperationStatus::Pending), blocker(OperationStatus::Conflicted)];
        assert_eq!(explained(&facts).waiting, Waiting::TransactionBlocked);
    }

    #[test]
    fn what_ended_says_how() {
        let mut failed = facts(OperationStatus::Failed);
        failed.operation.reason = Some("internal".into());
        failed.outcome_unknown = true;
        let explanation = explained(&failed);
        assert_eq!(explanation.waiting, Waiting::Failed { code: "internal".into(), outcome_unknown: true });
        assert!(explanation.text.contains("may have reached the server"));
        for (reason, word) in [
            ("coalesced", "folded"),
            ("resolved", "other side"),
            ("discarded", "discarded"),
            ("user", "withdrawn"),
            ("observed", "old sync"),
        ] {
            let mut cancelled = facts(OperationStatus::Cancelled);
            cancelled.operation.reason = Some(reason.into());
            assert!(explained(&cancelled).text.contains(word), "{reason}");
        }
        assert_eq!(explained(&facts(OperationStatus::Completed)).waiting, Waiting::Completed);
        assert_eq!(explained(&facts(OperationStatus::Conflicted)).waiting, Waiting::Conflicted);
        assert_eq!(explained(&facts(OperationStatus::InProgress)).waiting, Waiting::InFlight);
    }

    #[test]
    fn its_own_wait_comes_before_what_holds_for_all() {
        let mut waiting = facts(OperationStatus::Pending);
        waiting.operation.next_attempt_at = Some(AT);
        waiting.operation.reason = Some("internal".into());
        let explanation = explain(&waiting, &SyncState::Offline, false);
        assert_eq!(
            (explanation.waiting, explanation.until),
            (Waiting::Backoff { reason: "internal".into() }, Some(AT))
        );
        waiting.operation.reason = Some("proxy_refused".into());
        assert_eq!(explained(&waiting).waiting, Waiting::ProxyRefused);
        let mut held = facts(OperationStatus::Pending);
        held.held = true;
        assert_eq!(explain(&held, &SyncState::Syncing, true).waiting, Waiting::Bisecting);
        assert_eq!(explain(&held, &SyncState::Syncing, false).waiting, Waiting::Queued, "it only goes again as it was");
        let mut void = facts(OperationStatus::Pending);
        void.operation.void = true;
        assert_eq!(explained(&void).waiting, Waiting::Withdrawing);
    }

    #[test]
    fn every_state_has_its_sentence() {
        let table = [
            (SyncState::Paused, "paused"),
            (SyncState::Elsewhere, "elsewhere"),
            (SyncState::Offline, "offline"),
            (SyncState::AuthRequired { reason: "wrong_user".into() }, "auth_required"),
            (SyncState::UnsupportedProtocol { supported: vec![2, 3] }, "unsupported_protocol"),
            (SyncState::Backoff { until: AT, reason: "timeout".into() }, "connection_backoff"),
            (SyncState::Idle, "queued"),
            (SyncState::Syncing, "queued"),
        ];
        let pending = facts(OperationStatus::Pending);
        for (state, word) in table {
            let explanation = explain(&pending, &state, false);
            assert_eq!(explanation.waiting.as_str(), word);
            assert!(explanation.text.ends_with('.'), "{}", explanation.text);
            assert_eq!(explanation.until, matches!(state, SyncState::Backoff { .. }).then_some(AT));
        }
        let new = ExplainFacts { epoch_known: false, ..facts(OperationStatus::Pending) };
        assert_eq!(explained(&new).waiting, Waiting::FirstPull);
    }
}
