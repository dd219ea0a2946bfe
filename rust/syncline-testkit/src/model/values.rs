//! JSON values: when two are the same, what may not be one, and where an answer differs from the expected one.

use serde_json::{Map, Value};

/// docs/protocol.md: "values are compared as JSON values, null and absent being one". Numbers are doubles, however written.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The same for whole records, of which a member that is `null` does not exist.
pub(crate) fn same_object(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let at = |object: &Map<String, Value>, name: &str| object.get(name).cloned().unwrap_or_default();
    a.keys().chain(b.keys()).all(|name| same(&at(a, name), &at(b, name)))
}

/// Where a payload holds what §6 refuses ("NUL and lone surrogates in text, numbers outside IEEE double or integers outside
/// ±(2⁵³ − 1), depth over 32"), as a path. Text that is no JSON value, lone surrogates among them, is refused by who reads it;
/// a name given twice is not seen here.
pub(crate) fn fault_in(value: &Value, path: &str, depth: usize) -> Option<String> {
    const MOST: f64 = 9_007_199_254_740_991.0;
    let found = || Some(path.to_owned());
    match value {
        Value::String(text) if text.contains('\0') => found(),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            // From 1e21 on, a number's canonical text (RFC 8785) is no integer's.
            let is_integer = number.fract() == 0.0 && number.abs() < 1e21;
            if is_integer && number.abs() > MOST || !number.is_finite() { found() } else { None }
        }
        // What is too deep is named by its first member.
        Value::Array(items) if depth > MAX_DEPTH && items.is_empty() => found(),
        Value::Object(members) if depth > MAX_DEPTH && members.is_empty() => found(),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
            let path = format!("{path}[{at}]");
            if depth > MAX_DEPTH { Some(path) } else { fault_in(item, &path, depth + 1) }
        }),
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let path = format!("{path}.{name}");
            let is_bad = depth > MAX_DEPTH || name.contains('\0');
            if is_bad { Some(path) } else { fault_in(member, &path, depth + 1) }
        }),
        _ => None,
    }
}

/// §6: "depth over 32" is refused.
const MAX_DEPTH: usize = 32;

/// Where `real` differs from `expected`. "Members at their default may be left out"; sentences for people are not compared.
pub(crate) fn differs(path: &str, expected: &Value, real: &Value) -> Result<(), String> {
    match (expected, real) {
        (Value::Object(expected), Value::Object(real)) => members(path, expected, real),
        (Value::Array(expected), Value::Array(real)) if expected.len() == real.len() => {
            let mut pairs = expected.iter().zip(real).enumerate();
            pairs.try_for_each(|(at, (expected, real))| differs(&format!("{path}[{at}]"), expected, real))
        }
        _ if same(expected, real) || is_default(expected) && is_default(real) => Ok(()),
        _ => Err(format!("{path} is {real}, not {expected}")),
    }
}

fn members(path: &str, expected: &Map<String, Value>, real: &Map<String, Value>) -> Result<(), String> {
    for name in expected.keys().chain(real.keys().filter(|name| !expected.contains_key(*name))) {
        let (path, null) = (format!("{path}.{name}"), Value::Null);
        let (expected, real) = (expected.get(name).unwrap_or(&null), real.get(name).unwrap_or(&null));
        match name.as_str() {
            "message" | "title" | "detail" => {}
            // The app's own values: nothing in them is a default, and no name is ours.
            "record" | "base" | "ours" | "theirs" if same(expected, real) => {}
            "record" | "base" | "ours" | "theirs" => return Err(format!("{path} is {real}, not {expected}")),
            "fields" => by_name(&path, expected, real)?,
            _ => differs(&path, expected, real)?,
        }
    }
    Ok(())
}

/// A conflict's fields: the names are the app's.
fn by_name(path: &str, expected: &Value, real: &Value) -> Result<(), String> {
    let empty = Map::new();
    let (expected, real) = (expected.as_object().unwrap_or(&empty), real.as_object().unwrap_or(&empty));
    if !expected.keys().eq(real.keys()) {
        let (expected, real) = (expected.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
        return Err(format!("{path} are {real:?}, not {expected:?}"));
    }
    expected.iter().try_for_each(|(name, field)| differs(&format!("{path}.{name}"), field, &real[name]))
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}
