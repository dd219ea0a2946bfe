//! Whether an answer is the expected one.

use serde_json::{Map, Value, json};
use syncline_core::transport::Route;
use syncline_protocol::MAX_RECORDS_BYTES;
use syncline_server::contract;

use super::body::{Written, repeat};
use super::host::{Ability, Answered, Dialect, Host};
use super::names::Names;
use super::vector::{Expected, Step};
use crate::model::values::differs;

/// Texts shorter than this stand in sentences by chance.
const LEAST_QUOTED: usize = 5;

/// Compares an answer with what a step expects, and learns the names in it. Gives the body.
///
/// # Errors
/// The first difference.
pub(super) fn check(
    host: &dyn Host,
    names: &mut Names,
    step: &Step,
    written: &Written,
    answered: &Answered,
) -> Result<Value, String> {
    let text = String::from_utf8_lossy(&answered.body);
    let real: Value =
        serde_json::from_str(&text).map_err(|error| format!("HTTP {}, and {error} in {text}", answered.status))?;
    let dialect = host.dialect();
    let other = step.or.as_ref().filter(|problem| real["code"] == problem["code"]);
    match other.map_or(step.expected(dialect), Expected::Problem) {
        Expected::Effect => effect(answered.status, &real)?,
        Expected::Answer(expected) => {
            status(200, answered, &real)?;
            let expected = names.learn(&complete(written, expected)?, &real)?;
            differs("answer", &expected, &real)?;
        }
        // What PostgREST says has a code and no more that is ours.
        Expected::Problem(expected) if dialect == Dialect::Rpc && step.rpc.is_some() => {
            status(expected["status"].as_u64().unwrap_or_default() as u16, answered, &real)?;
            differs("code", &expected["code"], &real["code"])?;
        }
        Expected::Problem(expected) => {
            status(expected["status"].as_u64().unwrap_or_default() as u16, answered, &real)?;
            let expected = names.learn(expected, &real)?;
            differs("problem", &expected, &real)?;
        }
    }
    if dialect == Dialect::Syncline {
        form(written.route, answered, &real)?;
    }
    if host.abilities().contains(&Ability::Http) && answered.headers.get("syncline-protocol") != Some(&"1".to_owned()) {
        return Err(format!("the protocol's header is {:?}", answered.headers.get("syncline-protocol")));
    }
    quotes_nothing(written, &real)?;
    room(&real)?;
    match step.holds.iter().find(|held| !text.contains(held.as_str())) {
        Some(missing) => Err(format!("the body does not hold {missing}: {text}")),
        None => Ok(real),
    }
}

fn status(expected: u16, answered: &Answered, real: &Value) -> Result<(), String> {
    if answered.status == expected {
        return Ok(());
    }
    Err(format!("HTTP {}, not {expected}: {real}", answered.status))
}

fn effect(status: u16, real: &Value) -> Result<(), String> {
    let none = Vec::new();
    let results = real["results"].as_array().unwrap_or(&none);
    if status == 200 && results.iter().all(|result| result["status"] == "applied" || result["status"] == "merged") {
        return Ok(());
    }
    Err(format!("what should take effect does not: HTTP {status} {real}"))
}

/// The OpenAPI document's schema, and the media type.
fn form(route: Route, answered: &Answered, real: &Value) -> Result<(), String> {
    let path = if route == Route::Push { "/v1/push" } else { "/v1/pull" };
    contract::validate_answer(path, answered.status, real).map_err(|differences| differences.join("; "))?;
    let expected = if answered.status == 200 { "application/json" } else { "application/problem+json" };
    let media = answered.headers.get("content-type").map_or("none", String::as_str);
    if media.split(';').next() == Some(expected) {
        return Ok(());
    }
    Err(format!("the content type is {media}, not {expected}"))
}

/// What every answer has, where the vector does not say otherwise.
fn complete(written: &Written, expected: &Value) -> Result<Value, String> {
    let mut whole = match written.route {
        Route::Push => json!({
            "epoch": "$epoch", "server_time": "$now", "limits": { "max_operations": 500, "max_bytes": 8_388_608 },
        }),
        Route::Pull => json!({ "epoch": "$epoch", "cursor": "$cursor" }),
    };
    for (name, value) in expected.as_object().ok_or("an answer is an object")? {
        whole[name] = match name.as_str() {
            "results" => each(value, |result| of_operation(written, result))?,
            "changes" if value.is_array() => each(value, of_entity)?,
            _ => value.clone(),
        };
    }
    repeated(whole)
}

fn each(values: &Value, make: impl Fn(&Map<String, Value>) -> Result<Value, String>) -> Result<Value, String> {
    let values = values.as_array().ok_or("it is an array")?;
    let made = values.iter().map(|value| make(value.as_object().ok_or("it is an object")?));
    Ok(Value::Array(made.collect::<Result<_, _>>()?))
}

/// A result; its conflict says of the operation what the request says.
fn of_operation(written: &Written, result: &Map<String, Value>) -> Result<Value, String> {
    let mut result = Value::Object(result.clone());
    let Some(given) = result.get("conflict").and_then(Value::as_object).cloned() else { return Ok(result) };
    let none = Vec::new();
    let operations = written.members["operations"].as_array().unwrap_or(&none);
    let operation = operations.iter().find(|operation| operation["id"] == result["id"]);
    let operation = operation.ok_or_else(|| format!("there is no operation {}", result["id"]))?;
    let mut conflict = json!({
        "id": "$any", "result": "merged", "decided_at": "$now", "operation_id": operation["id"],
        "operation": operation["operation"], "entity_type": operation["entity_type"],
        "entity_id": operation["entity_id"], "device_id": written.members["device_id"],
        "user_id": written.members["user_id"],
    });
    for (name, value) in given {
        conflict[name] = value;
    }
    result["conflict"] = conflict;
    Ok(result)
}

/// A change, its entity written as type/id.
fn of_entity(change: &Map<String, Value>) -> Result<Value, String> {
    let mut change = change.clone();
    if let Some(entity) = change.remove("entity") {
        let (entity_type, entity_id) =
            entity.as_str().and_then(|entity| entity.split_once('/')).ok_or("an entity is type/id")?;
        change.insert("entity_type".to_owned(), json!(entity_type));
        change.insert("entity_id".to_owned(), json!(entity_id));
    }
    Ok(Value::Object(change))
}

/// With every `$repeat(…)` in it written out.
pub(super) fn repeated(value: Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(repeat(&text)?),
        Value::Array(items) => Value::Array(items.into_iter().map(repeated).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            let made = members.into_iter().map(|(name, value)| Ok((name, repeated(value)?)));
            Value::Object(made.collect::<Result<_, String>>()?)
        }
        other => other,
    })
}

/// docs/protocol.md: records of 1 MiB in one answer, or of one entity.
fn room(real: &Value) -> Result<(), String> {
    let told = real["results"].as_array().or(real["changes"].as_array());
    let records = told.into_iter().flatten().map(|one| &one["record"]).filter(|record| record.is_object());
    let sizes: Vec<usize> = records.map(|record| record.to_string().len()).collect();
    let bytes = sizes.iter().sum::<usize>();
    // Where bytes are counted a little differently, a little more may pass.
    if sizes.len() > 1 && bytes > MAX_RECORDS_BYTES * 101 / 100 {
        return Err(format!("the answer carries {bytes} bytes of records"));
    }
    Ok(())
}

/// §9: "no payload … in a log line, an error text".
fn quotes_nothing(written: &Written, real: &Value) -> Result<(), String> {
    let mut values = Vec::new();
    for operation in written.members["operations"].as_array().into_iter().flatten() {
        texts_of(&operation["payload"], &mut values);
        texts_of(&operation["before"], &mut values);
    }
    let mut sentences = Vec::new();
    sentences_of(real, &mut sentences);
    let quoted = sentences.iter().find(|sentence| values.iter().any(|value| sentence.contains(value)));
    quoted.map_or(Ok(()), |sentence| Err(format!("a value is quoted in: {sentence}")))
}

fn texts_of<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) if text.len() >= LEAST_QUOTED => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, found)),
        Value::Object(members) => members.values().for_each(|member| texts_of(member, found)),
        _ => {}
    }
}

fn sentences_of<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| sentences_of(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("message" | "detail" | "title", Value::String(text)) => found.push(text),
                    ("record" | "fields", _) => {}
                    (_, member) => sentences_of(member, found),
                }
            }
        }
        _ => {}
    }
}
