use syncline_core as core;

/// Why an operation is not synced yet (or that it is), in one sentence and one enum.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Explanation {
    /// The operation; after coalescing, the one it was folded into.
    pub operation_id: String,
    /// What it waits for.
    pub waiting: Waiting,
    /// Until when at the latest this reason lasts, if time alone ends it.
    pub until_ms: Option<i64>,
    /// The operation that stands in the way.
    pub blocked_by: Option<String>,
    /// One sentence for people; never a payload.
    pub text: String,
}

/// What an operation waits for. Reasons are words.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "the enum says what reasons are")]
pub enum Waiting {
    /// Nothing: it is on the server.
    Completed,
    /// Nothing: it was withdrawn (`user`, `discarded`, `coalesced`, `resolved`, `observed`).
    Cancelled { reason: String },
    /// The user: retry or discard.
    Failed {
        reason: String,
        /// It may have reached the server all the same.
        outcome_unknown: bool,
    },
    /// The app: resolve the conflict.
    Conflicted,
    /// An answer: it is under way.
    InFlight,
    /// An earlier change of the same entity.
    LaneBlocked,
    /// An operation it depends on.
    DependencyBlocked,
    /// Another member of its transaction.
    TransactionBlocked,
    /// Its own backoff.
    Backoff { reason: String },
    /// A proxy or firewall on the way refuses it, while others pass.
    ProxyRefused,
    /// One bad operation is being searched among several.
    Bisecting,
    /// Its withdrawal must be confirmed by the endpoint.
    Withdrawing,
    /// Delivery to be started.
    Paused,
    /// The other process that drains this file.
    Elsewhere,
    /// A network.
    Offline,
    /// A credential.
    AuthRequired { reason: String },
    /// An app or endpoint that speaks the other's protocol version.
    UnsupportedProtocol,
    /// The connection's backoff.
    ConnectionBackoff { reason: String },
    /// The first pull of this device, or of a server that went back in time.
    FirstPull,
    /// Its turn.
    Queued,
}

impl From<core::Waiting> for Waiting {
    fn from(waiting: core::Waiting) -> Self {
        use core::Waiting as Core;
        match waiting {
            Core::Completed => Self::Completed,
            Core::Cancelled { reason } => Self::Cancelled { reason },
            Core::Failed { code, outcome_unknown } => Self::Failed { reason: code, outcome_unknown },
            Core::Conflicted => Self::Conflicted,
            Core::InFlight => Self::InFlight,
            Core::LaneBlocked => Self::LaneBlocked,
            Core::DependencyBlocked => Self::DependencyBlocked,
            Core::TransactionBlocked => Self::TransactionBlocked,
            Core::Backoff { reason } => Self::Backoff { reason },
            Core::ProxyRefused => Self::ProxyRefused,
            Core::Bisecting => Self::Bisecting,
            Core::Withdrawing => Self::Withdrawing,
            Core::Paused => Self::Paused,
            Core::Elsewhere => Self::Elsewhere,
            Core::Offline => Self::Offline,
            Core::AuthRequired { reason } => Self::AuthRequired { reason },
            Core::UnsupportedProtocol => Self::UnsupportedProtocol,
            Core::ConnectionBackoff { reason } => Self::ConnectionBackoff { reason },
            Core::FirstPull => Self::FirstPull,
            Core::Queued => Self::Queued,
        }
    }
}

impl From<core::Explanation> for Explanation {
    fn from(explanation: core::Explanation) -> Self {
        Self {
            operation_id: explanation.operation_id,
            waiting: explanation.waiting.into(),
            until_ms: explanation.until.map(|until| until.millis()),
            blocked_by: explanation.blocked_by,
            text: explanation.text,
        }
    }
}
