//! Making the body of a request out of a step: what is left out, shorthands, and texts that are kept as they are.

use serde_json::{Map, Value, json};
use syncline_core::transport::Route;

use super::names::Names;
use super::vector::Step;

/// A request as written in a vector.
pub(super) struct Written {
    pub(super) route: Route,
    pub(super) body: Vec<u8>,
    /// The body before texts were put in; null if the vector gives it as a text.
    pub(super) members: Value,
}

/// What a device says of itself where the vector does not.
pub(super) struct Knows {
    /// The highest mark that it was answered.
    pub(super) mark: u64,
}

/// Makes the body.
///
/// # Errors
/// The vector is wrong.
pub(super) fn write(step: &Step, names: &Names, knows: impl Fn(&str) -> Knows) -> Result<Written, String> {
    let (route, device) = match (step.members.get("push"), step.members.get("pull")) {
        (Some(device), None) => (Route::Push, device),
        (None, Some(device)) => (Route::Pull, device),
        _ => return Err("a step is a push or a pull".to_owned()),
    };
    let device = device.as_str().ok_or("a device has a name")?;
    if let Some(text) = &step.text {
        let body = repeat(&names.fill_text(text))?.into_bytes();
        return Ok(Written { route, body, members: Value::Null });
    }
    if let Some(hex) = &step.hex {
        return Ok(Written { route, body: bytes(hex)?, members: Value::Null });
    }
    let mut texts = Vec::new();
    let mut members = usual(route, device, knows(device));
    for (name, value) in
        step.members.iter().filter(|(name, _)| !["push", "pull", "operations"].contains(&name.as_str()))
    {
        members.insert(name.clone(), value.clone());
    }
    if let Some(operations) = step.members.get("operations") {
        let operations = operations.as_array().ok_or("operations are an array")?;
        let all = operations.iter().map(|operation| expand(operation, device, names, &mut texts));
        let all: Vec<Vec<Value>> = all.collect::<Result<_, _>>()?;
        members.insert("operations".to_owned(), Value::Array(all.concat()));
    }
    members.retain(|_, value| value != "$absent");
    let members = names.fill(&Value::Object(members))?;
    let text = texts.iter().enumerate().fold(members.to_string(), |text, (at, kept)| text.replace(&slot(at), kept));
    Ok(Written { route, body: repeat(&text)?.into_bytes(), members })
}

fn usual(route: Route, device: &str, knows: Knows) -> Map<String, Value> {
    let mut members = json!({
        "protocol": 1, "user_id": "ada", "scope": "$scope", "device_id": device, "epoch": "$epoch", "mark": knows.mark,
    });
    match route {
        Route::Push => members["sent_at"] = json!("$now"),
        Route::Pull => members["limit"] = json!(1000),
    }
    members.as_object().cloned().unwrap_or_default()
}

/// One operation of a vector, or as many as `times` says, as on the wire.
fn expand(operation: &Value, device: &str, names: &Names, texts: &mut Vec<String>) -> Result<Vec<Value>, String> {
    let written = operation.as_object().ok_or("an operation is an object")?;
    let first = written.get("n").and_then(Value::as_u64).ok_or("an operation has a number n")?;
    let times = written.get("times").and_then(Value::as_u64).unwrap_or(1);
    (first..first + times).map(|n| one(written, n, device, names, texts)).collect()
}

fn one(
    written: &Map<String, Value>,
    n: u64,
    device: &str,
    names: &Names,
    texts: &mut Vec<String>,
) -> Result<Value, String> {
    let numbered = |text: &str| text.replace("$n", &n.to_string());
    let mut operation = json!({
        "id": format!("{device}-{n}"), "idempotency_key": format!("key-{device}-{n}"), "sequence": n,
        "timestamp": names.time(n as f64),
    });
    for (name, value) in written {
        match name.as_str() {
            "n" | "times" => {}
            "create" | "update" | "delete" => {
                let entity = value.as_str().and_then(|entity| entity.split_once('/'));
                let (entity_type, entity_id) = entity.ok_or("an entity is type/id")?;
                operation["operation"] = json!(name);
                operation["entity_type"] = json!(numbered(entity_type));
                operation["entity_id"] = json!(numbered(entity_id));
            }
            "base" => operation["base_clock"] = value.clone(),
            "at" => operation["timestamp"] = json!(names.time(value.as_f64().ok_or("at is in seconds")?)),
            "payload_text" | "before_text" => {
                operation[name.trim_end_matches("_text")] = json!(slot(texts.len()).trim_matches('"'));
                texts.push(value.as_str().ok_or("a text is a text")?.to_owned());
            }
            _ => operation[name] = value.as_str().map_or_else(|| value.clone(), |text| json!(numbered(text))),
        }
    }
    let members = operation.as_object_mut().ok_or("an operation is an object")?;
    members.retain(|_, value| value != "$absent");
    Ok(operation)
}

/// Where a text goes, quotes included.
fn slot(at: usize) -> String {
    format!("\"\u{e000}{at}\u{e000}\"")
}

/// `$repeat(piece,count)` as often as it says, a piece being anything without `$`.
pub(super) fn repeat(text: &str) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("$repeat(") {
        let wrong = || "$repeat(piece,count)".to_owned();
        let end = after
            .match_indices(')')
            .find_map(|(end, _)| {
                let (piece, count) = after[..end].rsplit_once(',')?;
                Some((end, piece.repeat(count.parse().ok()?)))
            })
            .ok_or_else(wrong)?;
        done.push_str(before);
        done.push_str(&end.1);
        rest = &after[end.0 + 1..];
    }
    done.push_str(rest);
    Ok(done)
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16));
    pairs.collect::<Result<_, _>>().map_err(|_| "hex is pairs of digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_repeated_in_place() {
        assert_eq!(repeat("a$repeat(xy,3)b$repeat(],2)").unwrap(), "axyxyxyb]]");
        assert_eq!(repeat("$repeat({\"a\":,2)1$repeat(},2)").unwrap(), "{\"a\":{\"a\":1}}");
        assert_eq!(repeat("none").unwrap(), "none");
        assert!(repeat("$repeat(x").is_err());
    }

    #[test]
    fn hex_is_read_pair_by_pair() {
        assert_eq!(bytes("7b ff 7d").unwrap(), [0x7b, 0xff, 0x7d]);
        assert!(bytes("7g").is_err());
    }
}
