use serde::{Deserialize, Serialize};

/// Counters, sequences and versions stay below 2⁵³, so that every JSON reader keeps them exact.
pub const MAX_COUNTER: u64 = (1 << 53) - 1;
/// Nesting of a payload: the payload object itself is level 1.
pub const MAX_DEPTH: usize = 32;
/// Characters of an entity type, of `[a-z0-9_]`.
pub const MAX_NAME_CHARS: usize = 64;
/// Characters of an entity id, a device id, an operation id or an idempotency key.
pub const MAX_ID_CHARS: usize = 128;
/// Bytes of one payload's canonical text.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// Operations of one push.
pub const MAX_OPERATIONS: usize = 500;
/// Bytes of a request's JSON before compression, and of an answer's after.
pub const MAX_INFLATED_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of JSON that a client aims at for one batch.
pub const MAX_BATCH_TARGET_BYTES: usize = 1024 * 1024;
/// Bytes of records in one answer to a push; what passes it is left to the pull.
pub const MAX_RECORDS_BYTES: usize = 1024 * 1024;
/// Operations of one transaction.
pub const MAX_TRANSACTION_OPERATIONS: usize = 100;
/// Bytes of one transaction's `operations` text.
pub const MAX_TRANSACTION_BYTES: usize = 1024 * 1024;

/// What an endpoint takes in one push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Operations in one push.
    pub max_operations: u64,
    /// Bytes of JSON before compression.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_operations: MAX_OPERATIONS as u64, max_bytes: MAX_INFLATED_BYTES as u64 }
    }
}

/// Whether `name` may be an entity type: 1 to 64 characters of `[a-z0-9_]`.
pub fn check_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether `id` may be an id or a key: 1 to 128 characters, none of them a control character.
pub fn check_entity_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= MAX_ID_CHARS && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids() {
        assert!(check_name("pin_2"));
        for bad in ["", "Pin", "a-b", "ä", &"a".repeat(65)] {
            assert!(!check_name(bad), "{bad}");
        }
        assert!(check_entity_id("ä".repeat(128).as_str()));
        for bad in ["", "a\0b", "a\nb", &"a".repeat(129)] {
            assert!(!check_entity_id(bad), "{bad:?}");
        }
    }
}
