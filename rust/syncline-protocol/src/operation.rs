use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operation intends for its entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Bring the entity into being. On one that exists, an update of the fields named.
    Create,
    /// Replace the fields named in the payload.
    Update,
    /// Remove the entity.
    Delete,
}

impl OperationKind {
    /// The word on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The kind for a word of the wire or of SQL.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "create" => Some(Self::Create),
            "update" => Some(Self::Update),
            "delete" => Some(Self::Delete),
            _ => None,
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
