//! Names that stand in vectors for what nobody can foresee (`$epoch`, `$cursor1`) or what differs from run to run (`$scope`,
//! `$now`, `$t+5`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use syncline_protocol::Timestamp;

/// How far a host's clock that cannot be set may be from what is expected, in milliseconds.
const TOLERANCE_MILLIS: i64 = 60_000;

/// What the names of one vector stand for.
pub(super) struct Names {
    /// With their `$`.
    bound: BTreeMap<String, String>,
    /// `$t`
    begun: Timestamp,
    /// `$now`
    pub(super) now: Timestamp,
    /// Whether the host's clock shows what it was set to.
    pub(super) is_exact: bool,
}

impl Names {
    pub(super) fn new(begun: Timestamp, is_exact: bool) -> Self {
        Self { bound: BTreeMap::new(), begun, now: begun, is_exact }
    }

    pub(super) fn bind(&mut self, name: &str, text: &str) {
        self.bound.insert(name.to_owned(), text.to_owned());
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.bound.get(name).map(String::as_str)
    }

    /// So many seconds after the vector's beginning.
    pub(super) fn time(&self, seconds: f64) -> Timestamp {
        self.begun.plus_millis((seconds * 1000.0).round() as i64)
    }

    /// What `text` stands for, if it is a name that has a meaning by now.
    fn meaning(&self, text: &str) -> Option<String> {
        if text == "$now" {
            return Some(self.now.to_string());
        }
        match text.strip_prefix("$t").and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => Some(self.time(seconds).to_string()),
            None => self.get(text).map(str::to_owned),
        }
    }

    /// `value` with every name in it replaced.
    ///
    /// # Errors
    /// A name that stands for nothing yet: the vector is wrong.
    pub(super) fn fill(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) if is_name(text) => {
                Value::String(self.meaning(text).ok_or_else(|| format!("{text} stands for nothing yet"))?)
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let filled = members.iter().map(|(name, value)| Ok((name.clone(), self.fill(value)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// The same in the middle of a text.
    pub(super) fn fill_text(&self, text: &str) -> String {
        let mut names: Vec<_> = self.bound.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let now = ("$now".to_owned(), self.now.to_string());
        let all = names.into_iter().chain([(&now.0, &now.1)]);
        all.fold(text.to_owned(), |text, (name, meaning)| text.replace(name, meaning))
    }

    /// `expected` with every name replaced: by what it stands for, or, the first time, by what `real` has in its place.
    ///
    /// # Errors
    /// Two names for one thing.
    pub(super) fn learn(&mut self, expected: &Value, real: &Value) -> Result<Value, String> {
        match expected {
            Value::String(name) if name == "$whatever" => Ok(real.clone()),
            Value::String(name) if is_name(name) => self.learn_one(name, real),
            Value::Object(members) if members.contains_key("$count") => {
                let is_right = real.as_array().map(Vec::len) == members["$count"].as_u64().map(|count| count as usize);
                Ok(if is_right { real.clone() } else { expected.clone() })
            }
            Value::Array(items) => {
                let nothing = Value::Null;
                let learned = items.iter().enumerate().map(|(at, item)| {
                    let real = real.get(at).unwrap_or(&nothing);
                    self.learn(item, real)
                });
                Ok(Value::Array(learned.collect::<Result<_, _>>()?))
            }
            Value::Object(members) => {
                let nothing = Value::Null;
                let learned = members.iter().map(|(name, value)| {
                    let real = real.get(name).unwrap_or(&nothing);
                    Ok((name.clone(), self.learn(value, real)?))
                });
                Ok(Value::Object(learned.collect::<Result<Map<_, _>, String>>()?))
            }
            other => Ok(other.clone()),
        }
    }

    fn learn_one(&mut self, name: &str, real: &Value) -> Result<Value, String> {
        let is_text = real.as_str().is_some_and(|text| !text.is_empty());
        if name == "$any" && is_text {
            return Ok(real.clone());
        }
        if !self.is_exact && (name == "$now" || name.starts_with("$t")) && self.is_near(name, real) {
            return Ok(real.clone());
        }
        // Two cursors for one place may differ in text: the one heard last counts.
        let is_cursor = name.starts_with("$cursor");
        if let Some(meaning) = self.meaning(name).filter(|_| !is_cursor) {
            return Ok(Value::String(meaning));
        }
        let Some(text) = real.as_str().filter(|_| is_text) else {
            return Ok(Value::String(format!("a text for {name}")));
        };
        if let Some((other, _)) = self.bound.iter().find(|(_, known)| *known == text).filter(|_| !is_cursor) {
            return Err(format!("{name} is the same as {other}: {text}"));
        }
        self.bind(name, text);
        Ok(real.clone())
    }

    fn is_near(&self, name: &str, real: &Value) -> bool {
        let expected = self.meaning(name).and_then(|text| text.parse::<Timestamp>().ok());
        let real = real.as_str().and_then(|text| text.parse::<Timestamp>().ok());
        matches!((expected, real), (Some(a), Some(b)) if a.millis().abs_diff(b.millis()) <= TOLERANCE_MILLIS as u64)
    }
}

/// `$` and a name, or a time.
fn is_name(text: &str) -> bool {
    let rest = text.strip_prefix('$').unwrap_or_default();
    let is_time = rest.strip_prefix('t').is_some_and(|seconds| seconds.parse::<f64>().is_ok());
    is_time || !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
