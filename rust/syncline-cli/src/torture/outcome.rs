//! What a check says.

use serde::Serialize;

/// What was seen: a sentence, and the request and the answer that show it, in short. Never a token.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Evidence {
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<String>,
}

impl Evidence {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), request: None, answer: None }
    }
}

/// Why a guarantee was not seen to hold.
#[derive(Debug)]
pub(super) enum Trouble {
    Broken(Box<Evidence>),
    /// It cannot be judged here, and why.
    Skipped(String),
}

/// What a check found: a sentence about what was seen, or why not.
pub(super) type Outcome = Result<String, Trouble>;

/// The guarantee is broken; there is no single answer that shows it.
pub(super) fn broken<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Broken(Box::new(Evidence::of(what))))
}
