use syncline_protocol::Timestamp;

/// Why an operation is not synced yet (or that it is), in one sentence and one enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The operation; after coalescing, the one it was folded into.
    pub operation_id: String,
    /// What it waits for.
    pub waiting: Waiting,
    /// Until when at the latest this reason lasts, if time alone ends it.
    pub until: Option<Timestamp>,
    /// The operation that stands in the way.
    pub blocked_by: Option<String>,
    /// One sentence for people; never a payload.
    pub text: String,
}

/// What an operation waits for. The first that applies, in this order, is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing: it is on the server.
    Completed,
    /// Nothing: it was withdrawn.
    Cancelled {
        /// Why, as a word: `user`, `discarded`, `coalesced`, `resolved`, `observed`.
        reason: String,
    },
    /// The user: retry or discard.
    Failed {
        /// Why, as a word.
        code: String,
        /// Whether it may have reached the server all the same.
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
    Backoff {
        /// Why it was put off, as a word.
        reason: String,
    },
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
    AuthRequired {
        /// What the endpoint said, as a word.
        reason: String,
    },
    /// An app or endpoint that speaks the other's protocol version.
    UnsupportedProtocol,
    /// The connection's backoff.
    ConnectionBackoff {
        /// Why, as a word.
        reason: String,
    },
    /// The first pull of this device, or of a server that went back in time.
    FirstPull,
    /// Its turn.
    Queued,
}

impl Waiting {
    /// The word in every language.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled { .. } => "cancelled",
            Self::Failed { .. } => "failed",
            Self::Conflicted => "conflicted",
            Self::InFlight => "in_flight",
            Self::LaneBlocked => "lane_blocked",
            Self::DependencyBlocked => "dependency_blocked",
            Self::TransactionBlocked => "transaction_blocked",
            Self::Backoff { .. } => "backoff",
            Self::ProxyRefused => "proxy_refused",
            Self::Bisecting => "bisecting",
            Self::Withdrawing => "withdrawing",
            Self::Paused => "paused",
            Self::Elsewhere => "elsewhere",
            Self::Offline => "offline",
            Self::AuthRequired { .. } => "auth_required",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::ConnectionBackoff { .. } => "connection_backoff",
            Self::FirstPull => "first_pull",
            Self::Queued => "queued",
        }
    }
}
