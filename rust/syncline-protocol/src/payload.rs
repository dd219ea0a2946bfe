use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::OperationKind;
use crate::limits::{MAX_DEPTH, MAX_PAYLOAD_BYTES};

/// A payload as the queue keeps and sends it: canonical JSON text (RFC 8785) of an object within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(String);

impl Payload {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Why a payload is refused. `path` names the member, as `$.answers.q4[2]`; no value is ever repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct InvalidPayload {
    /// Where, as a JSON path from the payload's root `$`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// The canonical form of a payload given as JSON text. The client does this once, at enqueue, and sends that text unchanged.
///
/// # Errors
/// What spec §6 refuses: no object, text that is not JSON, NUL or lone surrogates, numbers that a double cannot hold or
/// integers outside ±(2⁵³ − 1), a name given twice, depth over [`MAX_DEPTH`], canonical size over [`MAX_PAYLOAD_BYTES`].
pub fn canonical_payload(text: &str) -> Result<Payload, InvalidPayload> {
    let value = check_payload(text)?;
    let canonical = serde_json_canonicalizer::to_string(&value)
        .map_err(|error| InvalidPayload { path: "$".into(), reason: error.to_string() })?;
    if canonical.len() > MAX_PAYLOAD_BYTES {
        return Err(InvalidPayload { path: "$".into(), reason: format!("larger than {MAX_PAYLOAD_BYTES} bytes") });
    }
    Ok(Payload(canonical))
}

/// Checks everything that [`canonical_payload`] checks, on text that must stay as it is: what an endpoint does on arrival.
pub fn check_payload(text: &str) -> Result<Value, InvalidPayload> {
    if text.len() > 2 * MAX_PAYLOAD_BYTES {
        return Err(InvalidPayload { path: "$".into(), reason: format!("larger than {MAX_PAYLOAD_BYTES} bytes") });
    }
    let mut path = Path::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { path: &mut path }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    let value = value.map_err(|error| InvalidPayload { path: path.text(), reason: without_position(&error) })?;
    if !value.is_object() {
        return Err(InvalidPayload { path: "$".into(), reason: "is not an object".into() });
    }
    Ok(value)
}

/// What the server keeps of a key's content: SHA-256 over operation, entity type, entity id and the payload's text as received.
/// An absent payload counts as `null`. Every part is preceded by its length, so that no two contents share a preimage.
pub fn payload_hash(kind: OperationKind, entity_type: &str, entity_id: &str, payload: Option<&RawValue>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [kind.as_str(), entity_type, entity_id, payload.map_or("null", RawValue::get)] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// serde_json ends its messages with a position in the text and may quote a part of it; neither helps, and a value must not leak.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or("is not JSON");
    if error.is_data() || text.contains("surrogate") || text.contains("number out of range") {
        text.to_owned()
    } else {
        format!("is not JSON ({text})")
    }
}

#[derive(Default)]
struct Path {
    steps: Vec<String>,
}

impl Path {
    fn text(&self) -> String {
        format!("${}", self.steps.concat())
    }
}

/// Reads one value into `serde_json::Value`, refusing what the canonical form would have to alter.
struct Node<'p> {
    path: &'p mut Path,
}

impl Node<'_> {
    fn nested<T, E: serde::de::Error>(
        &mut self,
        step: String,
        read: impl FnOnce(Node<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.path.steps.push(step);
        if self.path.steps.len() > MAX_DEPTH {
            return Err(E::custom(format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let value = read(Node { path: self.path })?;
        self.path.steps.pop();
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

const MAX_INTEGER: u64 = (1 << 53) - 1;
const OUT_OF_RANGE: &str = "is an integer beyond 2^53 - 1 (send it as text)";

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_INTEGER { Err(E::custom(OUT_OF_RANGE)) } else { Ok(value.into()) }
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_INTEGER { Err(E::custom(OUT_OF_RANGE)) } else { Ok(value.into()) }
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // RFC 8785 writes these without an exponent, as integers that a reader may not keep exact.
        if value.fract() == 0.0 && (MAX_INTEGER as f64) < value.abs() && value.abs() < 1e21 {
            return Err(E::custom(OUT_OF_RANGE));
        }
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("is not a finite number"))
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') { Err(E::custom("holds a NUL character")) } else { Ok(value.into()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = self.nested(format!("[{}]", list.len()), |node| items.next_element_seed(node))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut seen = BTreeSet::new();
        let mut object = serde_json::Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = self.nested(format!(".{name}"), |node| {
                if name.contains('\0') {
                    return Err(A::Error::custom("has a NUL character in its name"));
                }
                if !seen.insert(name.clone()) {
                    return Err(A::Error::custom("is given twice"));
                }
                members.next_value_seed(node)
            })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> (String, String) {
        let error = canonical_payload(text).expect_err(text);
        (error.path, error.reason)
    }

    #[test]
    fn canonical_form_sorts_names_and_settles_notation() {
        let payload = canonical_payload(r#" {"b" : 1.0, "a": [1e2, -0, "\u00e4"], "c": 1e21} "#).unwrap();
        assert_eq!(payload.as_str(), r#"{"a":[100,0,"ä"],"b":1,"c":1e+21}"#);
    }

    #[test]
    fn refusals_name_the_member() {
        assert_eq!(refused("[1]").1, "is not an object");
        assert_eq!(refused("7").1, "is not an object");
        assert!(refused("{\"a\":").1.starts_with("is not JSON"));
        assert!(refused("{} x").1.starts_with("is not JSON"));
        assert_eq!(refused(r#"{"a":{"b":[0,"x\u0000"]}}"#), ("$.a.b[1]".into(), "holds a NUL character".into()));
        assert_eq!(refused(r#"{"n":9007199254740992}"#).0, "$.n");
        assert_eq!(refused(r#"{"n":-9007199254740992}"#).0, "$.n");
        assert_eq!(refused(r#"{"n":123456789012345678901}"#).0, "$.n");
        assert_eq!(refused(r#"{"n":1e16}"#).0, "$.n");
        assert_eq!(refused(r#"{"n":1e400}"#).0, "$.n");
        assert_eq!(refused(r#"{"a":1,"a":2}"#), ("$.a".into(), "is given twice".into()));
        assert_eq!(refused(r#"{"a":"\ud800"}"#).0, "$.a");
        assert!(canonical_payload(r#"{"n":9007199254740991,"f":0.1,"big":1e300}"#).is_ok());
    }

    #[test]
    fn depth_and_size_have_limits() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(canonical_payload(&nested(MAX_DEPTH)).is_ok());
        assert!(refused(&nested(MAX_DEPTH + 1)).1.contains("deeper"));
        assert!(refused(&"[".repeat(60_000)).1.contains("deeper"));
        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(canonical_payload(&sized(MAX_PAYLOAD_BYTES)).is_ok());
        assert!(refused(&sized(MAX_PAYLOAD_BYTES + 1)).1.contains("larger"));
    }

    #[test]
    fn no_value_is_repeated_in_an_error() {
        for text in [r#"{"a":"secret\u0000"}"#, r#"{"a":secret}"#, r#"{"a":"secret\ud800"}"#] {
            assert!(!refused(text).1.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_hash_covers_operation_and_entity() {
        let payload = RawValue::from_string("{}".into()).unwrap();
        let one = payload_hash(OperationKind::Create, "pin", "e1", Some(&payload));
        assert_ne!(one, payload_hash(OperationKind::Create, "pin", "e2", Some(&payload)));
        assert_ne!(one, payload_hash(OperationKind::Update, "pin", "e1", Some(&payload)));
        assert_ne!(one, payload_hash(OperationKind::Create, "pine", "1", Some(&payload)));
        assert_ne!(one, payload_hash(OperationKind::Create, "pin", "e1", None));
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixpoint(numbers in prop::collection::vec(-1e15f64..1e15, 0..5), text in "\\PC{0,20}") {
            let source = serde_json::json!({ "n": numbers, "t": text }).to_string();
            let once = canonical_payload(&source).unwrap();
            prop_assert_eq!(canonical_payload(once.as_str()).unwrap(), once);
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = canonical_payload(&text);
        }
    }
}
