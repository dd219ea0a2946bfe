use syncline_core::SynclineError as CoreError;

/// What a caller must handle. `text` is a sentence for developers, in English; the variant is what programs go by. What happens to an
/// operation after it is queued is never an error: it is a state, an event and an explanation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[allow(missing_docs, reason = "`text` is the same everywhere")]
pub enum SynclineError {
    /// The call itself is wrong: fix it. Nothing was written.
    #[error("{text}")]
    InvalidOperation {
        /// The argument or payload path at fault, as `entity_type` or `payload.answers[2]`.
        field: String,
        text: String,
    },
    /// The configuration is wrong: fix it and open again.
    #[error("{text}")]
    InvalidConfig {
        /// The setting at fault.
        field: String,
        text: String,
    },
    /// The file belongs to another user or scope: open another file.
    #[error("{text}")]
    WrongUser {
        /// `user` or `scope`.
        what: String,
        text: String,
    },
    /// Another process drains this file. Enqueueing and reading still work.
    #[error("{text}")]
    Locked { text: String },
    /// There is no room on the device. Nothing was written; free space and call again.
    #[error("{text}")]
    StorageFull { text: String },
    /// The file cannot be read or written. Nothing was written.
    #[error("{text}")]
    Storage { text: String },
    /// The file is damaged and was set aside under a new name; opening again starts afresh.
    #[error("{text}")]
    Corrupt {
        /// Where it is now, if it could be moved.
        set_aside: Option<String>,
        text: String,
    },
    /// A newer version of the app wrote this file: update the app. The file is untouched.
    #[error("{text}")]
    TooNew { text: String },
    /// There is nothing by that id, or it is no longer in a state that allows the call.
    #[error("{text}")]
    NotPossible { text: String },
    /// The manager was closed, or the transaction has ended.
    #[error("{text}")]
    Closed { text: String },
    /// The time given was over. What was queued stays queued.
    #[error("{text}")]
    Timeout { text: String },
    /// A fault of Syncline's own. What was durable stays durable; please report the text.
    #[error("{text}")]
    Internal { text: String },
}

impl From<CoreError> for SynclineError {
    fn from(error: CoreError) -> Self {
        let text = error.to_string();
        match error {
            CoreError::InvalidOperation { field, .. } => Self::InvalidOperation { field, text },
            CoreError::InvalidConfig { field, .. } => Self::InvalidConfig { field, text },
            CoreError::WrongUser { what } => Self::WrongUser { what: what.to_owned(), text },
            CoreError::Locked => Self::Locked { text },
            CoreError::StorageFull => Self::StorageFull { text },
            CoreError::Storage { .. } => Self::Storage { text },
            CoreError::Corrupt { set_aside } => {
                Self::Corrupt { set_aside: set_aside.map(|path| path.to_string_lossy().into_owned()), text }
            }
            CoreError::TooNew { .. } => Self::TooNew { text },
            CoreError::NotPossible { .. } => Self::NotPossible { text },
            CoreError::Closed => Self::Closed { text },
            CoreError::Timeout => Self::Timeout { text },
        }
    }
}

impl SynclineError {
    pub(crate) fn config(field: impl Into<String>, detail: &str) -> Self {
        let field = field.into();
        CoreError::InvalidConfig { field, detail: detail.to_owned() }.into()
    }

    pub(crate) fn operation(field: impl Into<String>, detail: &str) -> Self {
        let field = field.into();
        CoreError::InvalidOperation { field, detail: detail.to_owned() }.into()
    }
}

/// What a listener or a logger threw. It is logged, and the events count as told.
#[derive(Debug, Clone, thiserror::Error, uniffi::Error)]
pub enum CallbackError {
    /// Its text.
    #[error("{reason}")]
    Threw {
        /// What it was.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for CallbackError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Threw { reason: error.reason }
    }
}
