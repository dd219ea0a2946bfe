use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use syncline_protocol::MAX_COUNTER;

use crate::store::ScopeRow;

/// How far a device has pulled. Opaque text on the wire; it gives no access, so it is not signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The scope it belongs to.
    #[serde(rename = "s")]
    pub(super) scope: String,
    /// The history that `version` counts in.
    #[serde(rename = "e")]
    pub(super) epoch: String,
    /// Everything up to here has been pulled.
    #[serde(rename = "v")]
    pub(super) version: u64,
    /// The tombstone horizon when the device last pulled: what was purged by then, it need not hear of.
    #[serde(rename = "p")]
    pub(super) purged_through: u64,
    /// The type filter, sorted and each type once; none means all types.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) entity_types: Option<Vec<String>>,
}

/// The longest text worth decoding: a filter of 256 names, and some.
const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Its format; another one is not understood, which a device hears as `reset`.
const FORMAT: char = '1';

impl Cursor {
    /// The cursor in scope `scope` at `version`, as things stand.
    pub(super) fn at(scope: &str, row: &ScopeRow, version: u64, entity_types: Option<Vec<String>>) -> Self {
        let (epoch, purged_through) = (row.epoch.clone(), row.purged_through);
        Self { scope: scope.to_owned(), epoch, version, purged_through, entity_types }
    }

    /// The text on the wire.
    pub(super) fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a struct of texts and numbers is JSON");
        format!("{FORMAT}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads the text of the wire; `None` if it is not one of ours.
    pub(super) fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(FORMAT)?).ok()?;
        let cursor: Self = serde_json::from_slice(&json).ok()?;
        (cursor.version <= MAX_COUNTER).then_some(cursor)
    }

    /// Whether it counts in this scope's present history.
    pub(super) fn is_of(&self, scope: &str, row: &ScopeRow) -> bool {
        self.scope == scope && self.epoch == row.epoch
    }

    /// Whether tombstones that the device has not pulled are gone.
    pub(super) fn is_behind_horizon(&self, row: &ScopeRow) -> bool {
        row.purged_through > self.version.max(self.purged_through)
    }

    /// Whether entities of this type are pulled with it.
    pub(super) fn includes(&self, entity_type: &str) -> bool {
        self.entity_types.as_ref().is_none_or(|types| types.iter().any(|name| name == entity_type))
    }
}

/// A type filter in its one form: sorted, each type once.
pub(super) fn normal_filter(entity_types: Option<Vec<String>>) -> Option<Vec<String>> {
    entity_types.map(|mut types| {
        types.sort();
        types.dedup();
        types
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ScopeRow {
        ScopeRow { head: 9, epoch: "e".into(), purged_through: 4 }
    }

    #[test]
    fn text_and_back() {
        let cursor =
            Cursor::at("team", &row(), 7, normal_filter(Some(vec!["pin".into(), "form".into(), "pin".into()])));
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor.clone()));
        assert_eq!(cursor.entity_types.as_deref(), Some(&["form".to_owned(), "pin".to_owned()][..]));
        assert!(cursor.includes("pin") && !cursor.includes("team"));
    }

    #[test]
    fn what_is_not_ours_is_not_understood() {
        let text = Cursor::at("team", &row(), 7, None).encode();
        for bad in
            ["", "1", "2e30", "garbage", &text[..text.len() - 2], &text.replacen('1', "2", 1), &"1".repeat(40_000)]
        {
            assert_eq!(Cursor::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pull_from_the_start_is_not_behind_a_horizon_that_it_began_with() {
        let mut cursor = Cursor::at("team", &row(), 2, None);
        assert!(!cursor.is_behind_horizon(&row()));
        assert!(cursor.is_behind_horizon(&ScopeRow { purged_through: 6, ..row() }));
        cursor.version = 6;
        assert!(!cursor.is_behind_horizon(&ScopeRow { purged_through: 6, ..row() }));
    }
}
