//! The JSON paths that apps filter by, as `$.title` or `$.answers.q4[0]`, and the SQL they become.

use sha2::{Digest, Sha256};

/// A checked path. Only what has been checked gets into SQL text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath {
    literal: String,
}

impl JsonPath {
    /// Reads `$` followed by `.name` and `[index]` steps. A name is letters, digits, `_` and `-`, of any script.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut literal = String::from("$");
        if rest.is_empty() || text.len() > 512 {
            return None;
        }
        while !rest.is_empty() {
            if let Some(step) = rest.strip_prefix('.') {
                let end = step.find(['.', '[']).unwrap_or(step.len());
                let name = &step[..end];
                if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
                    return None;
                }
                literal.push_str(&format!(".\"{name}\""));
                rest = &step[end..];
            } else {
                let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
                let index: u32 = index.parse().ok()?;
                literal.push_str(&format!("[{index}]"));
                rest = after;
            }
        }
        Some(Self { literal })
    }

    /// The value at the path, as an SQL expression over `current`. The text is the same wherever it is used, or SQLite would
    /// not recognise the index.
    pub(super) fn expression(&self) -> String {
        format!("json_extract(current, '{}')", self.literal)
    }

    pub(super) fn index_name(&self, entity_type: &str) -> String {
        let digest = Sha256::digest(self.literal.as_bytes());
        let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("entities_path_{entity_type}_{short}")
    }

    /// `entity_type` must have been checked to be a name.
    pub(super) fn index_sql(&self, entity_type: &str) -> String {
        format!(
            "CREATE INDEX \"{}\" ON entities ({}, entity) WHERE entity_type = '{entity_type}' AND current IS NOT NULL",
            self.index_name(entity_type),
            self.expression(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path() {
        let expression = |text| JsonPath::parse(text).map(|path| path.expression());
        assert_eq!(expression("$.title").as_deref(), Some("json_extract(current, '$.\"title\"')"));
        assert_eq!(
            expression("$.a-b.größe[3].c").as_deref(),
            Some("json_extract(current, '$.\"a-b\".\"größe\"[3].\"c\"')")
        );
        for bad in
            ["", "$", "title", "$.", "$..a", "$[x]", "$[-1]", "$.a'b", "$.a\"b", "$.a b", "$[1", "$.a;", "$[#-1]"]
        {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
