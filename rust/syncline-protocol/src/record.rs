use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// An entity's fields, each with the JSON text it was written with. A field that is `null` does not exist.
///
/// Also the form of a payload: a patch whose members replace whole fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record(BTreeMap<String, Box<RawValue>>);

impl Record {
    /// A record without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a JSON object.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The value of a field; `None` if absent or `null`.
    pub fn get(&self, field: &str) -> Option<&RawValue> {
        self.0.get(field).map(Box::as_ref).filter(|value| !is_null(value))
    }

    /// Sets a field, or removes it when `value` is `None` or `null`.
    pub fn set(&mut self, field: &str, value: Option<&RawValue>) {
        match value {
            Some(value) if !is_null(value) => {
                self.0.insert(field.to_owned(), value.to_owned());
            }
            _ => {
                self.0.remove(field);
            }
        }
    }

    /// Folds a patch in: each member replaces that field whole, `null` removes it.
    pub fn apply(&mut self, patch: &Record) {
        for (field, value) in &patch.0 {
            self.set(field, Some(value));
        }
    }

    /// Folds a later patch into this one: like [`Record::apply`], but a `null` stays, because it must still remove the field.
    pub fn merge_patch(&mut self, later: &Record) {
        for (field, value) in &later.0 {
            self.0.insert(field.clone(), value.clone());
        }
    }

    /// The members as written, `null` ones too.
    pub fn members(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(field, value)| (field.as_str(), value.as_ref()))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This record without its `null` members.
    #[must_use]
    pub fn without_nulls(mut self) -> Self {
        self.0.retain(|_, value| !is_null(value));
        self
    }

    /// Whether two field values are the same: `null` and absent are one, and notation does not count.
    pub fn same_value(a: Option<&RawValue>, b: Option<&RawValue>) -> bool {
        match (a.filter(|v| !is_null(v)), b.filter(|v| !is_null(v))) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                a.get() == b.get() || matches!((canonical(a), canonical(b)), (Some(a), Some(b)) if a == b)
            }
            _ => false,
        }
    }
}

/// RFC 8785: `2.0` and `2` are one number, members have one order.
fn canonical(value: &RawValue) -> Option<String> {
    let value = serde_json::from_str::<Value>(value.get()).ok()?;
    serde_json_canonicalizer::to_string(&value).ok()
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().chain(other.0.keys()).all(|field| Record::same_value(self.get(field), other.get(field)))
    }
}

/// The JSON text.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record::parse(text).unwrap()
    }

    #[test]
    fn a_patch_replaces_whole_fields_and_null_removes() {
        let mut current = record(r#"{"a":{"x":1,"y":2},"b":1,"c":1}"#);
        current.apply(&record(r#"{"a":{"z":3},"b":null,"d":4}"#));
        assert_eq!(current.to_string(), r#"{"a":{"z":3},"c":1,"d":4}"#);
    }

    #[test]
    fn folding_patches_keeps_the_null_that_removes() {
        let mut patch = record(r#"{"a":1,"b":2}"#);
        patch.merge_patch(&record(r#"{"a":null}"#));
        assert_eq!(patch.to_string(), r#"{"a":null,"b":2}"#);
    }

    #[test]
    fn null_and_absent_are_one_and_notation_does_not_count() {
        assert_eq!(record(r#"{"a":null,"b":1.0}"#), record(r#"{"b":1}"#));
        assert_eq!(record(r#"{"o":{"x":1,"y":2}}"#), record(r#"{"o":{"y":2, "x":1}}"#));
        assert_ne!(record(r#"{"a":1}"#), record(r#"{"a":2}"#));
    }

    #[test]
    fn a_value_keeps_its_text() {
        assert_eq!(record(r#"{"n":1e+21}"#).to_string(), r#"{"n":1e+21}"#);
    }
}
