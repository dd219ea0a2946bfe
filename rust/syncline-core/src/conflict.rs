use syncline_protocol::{Conflict, Timestamp};

/// How the app decides a `manual` conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// This device's value stands: the operation is sent again as one that has seen theirs.
    TakeLocal,
    /// Theirs stands: the operation is cancelled.
    TakeRemote,
    /// This value stands (JSON text of an object with the fields to write); sent as one that has seen theirs.
    Merged(String),
}

/// How a conflict was decided, as the ledger keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolutionKind {
    /// See [`Resolution::TakeLocal`].
    TakeLocal,
    /// See [`Resolution::TakeRemote`].
    TakeRemote,
    /// See [`Resolution::Merged`].
    Merged,
    /// The operation was discarded.
    Discarded,
}

impl ResolutionKind {
    /// The word in SQL and in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TakeLocal => "take_local",
            Self::TakeRemote => "take_remote",
            Self::Merged => "merged",
            Self::Discarded => "discarded",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::TakeLocal, Self::TakeRemote, Self::Merged, Self::Discarded]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A row of the device's ledger.
#[derive(Debug, Clone)]
pub struct ConflictEntry {
    /// What met, with every value: base, ours and theirs.
    pub conflict: Conflict,
    /// The sequence of the operation that met the conflict.
    pub sequence: u64,
    /// When this device heard of it.
    pub detected_at: Timestamp,
    /// How the app decided; none for a rule's decision, or while the app has not.
    pub resolution: Option<ResolutionKind>,
    /// When the app decided.
    pub resolved_at: Option<Timestamp>,
    /// The operation that restored the losing value, if one did.
    pub reopened_by: Option<String>,
}
