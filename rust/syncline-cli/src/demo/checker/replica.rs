use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::files::Entity;
use super::{Check, DeviceFile, ServerFile};

/// Every replica equals the server.
pub(super) fn check(devices: &[DeviceFile], server: &ServerFile) -> Check {
    let hashes = hashes(devices, server);
    let server_hash = &hashes[0].1;
    let mut breaches = Vec::new();
    for (device, (name, hash)) in devices.iter().zip(&hashes[1..]) {
        if hash != server_hash {
            let example = first_difference(&device.records, &live(server));
            breaches.push(format!("{name}: its replica differs from the server{example} ({})", brief(hash)));
        }
    }
    let figure = format!("{} × {} of {}", brief(server_hash), hashes.len() - breaches.len(), hashes.len());
    Check { promise: "replicas equal the server", figure, breaches }
}

/// The hash of what each holds: the server first, then the devices.
pub(super) fn hashes(devices: &[DeviceFile], server: &ServerFile) -> Vec<(String, String)> {
    let of_server = ("server".to_owned(), hash(live(server).into_iter()));
    let of_devices = devices.iter().map(|device| (device.name.clone(), hash(device.records.iter())));
    [of_server].into_iter().chain(of_devices).collect()
}

fn brief(hash: &str) -> String {
    format!("{}…{}", &hash[..4], &hash[62..])
}

/// Over the canonical JSON of each live record, by type and id.
fn hash<'a>(records: impl Iterator<Item = (&'a Entity, &'a Value)>) -> String {
    let mut hasher = Sha256::new();
    for ((entity_type, entity_id), record) in records {
        let mut line = String::new();
        canonical(&serde_json::json!([entity_type, entity_id]), &mut line);
        canonical(record, &mut line);
        hasher.update(line.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What lives on the server, by type and id.
fn live(server: &ServerFile) -> Vec<(&Entity, &Value)> {
    server.entities.iter().filter(|(_, entity)| !entity.deleted).map(|(name, entity)| (name, &entity.record)).collect()
}

fn first_difference(replica: &BTreeMap<Entity, Value>, server: &[(&Entity, &Value)]) -> String {
    let text = |record: &Value| {
        let mut text = String::new();
        canonical(record, &mut text);
        text
    };
    let differs =
        |(name, record): &&(&Entity, &Value)| replica.get(*name).is_none_or(|mine| text(mine) != text(record));
    let only_here = || replica.keys().find(|name| !server.iter().any(|(other, _)| other == name));
    match server.iter().find(differs).map(|(name, _)| *name).or_else(only_here) {
        Some((entity_type, entity_id)) => format!(", first in {entity_type} {entity_id}"),
        None => String::new(),
    }
}

/// JSON with sorted members, no blanks, and no member that is `null`.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().filter(|(_, member)| !member.is_null()).collect();
            let mut separator = '{';
            for (name, member) in sorted {
                out.push(separator);
                separator = ',';
                canonical(&Value::String(name.clone()), out);
                out.push(':');
                canonical(member, out);
            }
            out.push_str(if separator == '{' { "{}" } else { "}" });
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Number(number) => {
            let _ = write!(out, "{}", number.as_f64().unwrap_or(f64::NAN));
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation_and_order_do_not_count_but_values_do() {
        let hash_of = |text: &str| {
            let name = ("pin".to_owned(), "1".to_owned());
            hash([(&name, &serde_json::from_str(text).unwrap())].into_iter())
        };
        assert_eq!(hash_of(r#"{"a":1.0,"b":{"y":2,"x":[]},"c":null}"#), hash_of(r#"{"b":{"x":[],"y":2},"a":1}"#));
        assert_ne!(hash_of(r#"{"a":1}"#), hash_of(r#"{"a":2}"#));
        assert_ne!(hash_of(r#"{"a":[null]}"#), hash_of(r#"{"a":[]}"#));
    }
}
