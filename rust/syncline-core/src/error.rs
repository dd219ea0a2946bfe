use std::path::PathBuf;

/// What a caller of Syncline must handle. Each variant says what can be done about it.
///
/// What happens to an operation *after* it is queued is never an error: it is a state, an event and an explanation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SynclineError {
    /// The call itself is wrong, for example a name out of the allowed characters: fix the call. Nothing was written.
    #[error("invalid operation: {field} {detail}")]
    InvalidOperation {
        /// The argument or payload path at fault, as `entity_type` or `payload.answers[2]`.
        field: String,
        /// What is wrong with it; never its value.
        detail: String,
    },
    /// The configuration is wrong: fix it and open again.
    #[error("invalid configuration: {field} {detail}")]
    InvalidConfig {
        /// The setting at fault.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file belongs to another user or scope: open another file.
    #[error("the database file belongs to another {what}")]
    WrongUser {
        /// `user` or `scope`.
        what: &'static str,
    },
    /// Another process drains this file. Enqueueing and reading still work.
    #[error("another process is syncing this file")]
    Locked,
    /// There is no room on the device. Nothing was written; free space and call again.
    #[error("the device's storage is full")]
    StorageFull,
    /// The file cannot be read or written, for example because it is read-only. Nothing was written.
    #[error("the storage failed: {detail}")]
    Storage {
        /// What the system said; never a payload.
        detail: String,
    },
    /// The file is damaged. It was set aside under a new name and nothing of it was deleted; opening again starts afresh.
    #[error("the database file is corrupt")]
    Corrupt {
        /// Where the damaged file is now, if it could be moved.
        set_aside: Option<PathBuf>,
    },
    /// A newer version of the app wrote this file: update the app. The file is untouched.
    #[error("the database file has version {found}; this library reads up to {supported}")]
    TooNew {
        /// The file's version.
        found: u32,
        /// The newest one this library reads.
        supported: u32,
    },
    /// There is nothing by that id, or it is no longer in a state that allows the call.
    #[error("{what}")]
    NotPossible {
        /// Why, in a sentence.
        what: String,
    },
    /// The manager was closed.
    #[error("the sync manager is closed")]
    Closed,
    /// The time given was over. What was queued stays queued.
    #[error("the time given was over")]
    Timeout,
}

impl SynclineError {
    /// A word for programs that stays the same over releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidOperation { .. } => "invalid_operation",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::WrongUser { .. } => "wrong_user",
            Self::Locked => "locked",
            Self::StorageFull => "storage_full",
            Self::Storage { .. } => "storage",
            Self::Corrupt { .. } => "corrupt",
            Self::TooNew { .. } => "too_new",
            Self::NotPossible { .. } => "not_possible",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::InvalidOperation { field: field.into(), detail: detail.into() }
    }

    pub(crate) fn not_possible(what: impl Into<String>) -> Self {
        Self::NotPossible { what: what.into() }
    }
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, SynclineError>;
