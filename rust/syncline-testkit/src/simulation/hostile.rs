//! Answers that no honest endpoint gives. Whatever they say, nothing may be settled by them.

use serde_json::{Value, json};

use super::plan::Hostile;

/// The answer's body, tampered with. One that is no answer to a push or pull, or has nothing to tamper with in that way, becomes
/// an answer without its members.
pub(crate) fn tamper(how: Hostile, body: &[u8]) -> Vec<u8> {
    let Ok(mut answer) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    let tampered = if answer.get("results").is_some() {
        push(how, &mut answer)
    } else if answer.get("changes").is_some() {
        pull(how, &mut answer)
    } else {
        false
    };
    if !tampered {
        answer = json!({ "epoch": answer["epoch"] });
    }
    answer.to_string().into_bytes()
}

/// 2^53 and more is no counter (spec §6).
const HUGE: u64 = 1 << 60;

fn push(how: Hostile, answer: &mut Value) -> bool {
    let Some(results) = answer["results"].as_array_mut() else { return false };
    let stranger = |result: &Value| {
        let mut stranger = result.clone();
        stranger["id"] = json!("0190f000-0000-7000-8000-000000000000");
        stranger
    };
    match (how, results.first().cloned()) {
        (Hostile::WrongId, Some(first)) => results[0] = stranger(&first),
        (Hostile::NeverSent, Some(first)) => results.push(stranger(&first)),
        (Hostile::TwiceTold, Some(first)) => {
            if results.len() > 1 {
                results[1] = first;
            } else {
                results.push(first);
            }
        }
        (Hostile::UnknownVerdict, Some(_)) => results[0]["status"] = json!("approved"),
        (Hostile::WrongType, Some(_)) => results[0]["version"] = json!("seven"),
        (Hostile::HugeNumber, _) => answer["version"] = json!(HUGE),
        (Hostile::MissingField, _) => {
            answer.as_object_mut().map(|answer| answer.remove("version"));
        }
        (Hostile::WrongCount, _) => answer["applied"] = json!(answer["applied"].as_u64().unwrap_or(0) + 1),
        _ => return false,
    }
    true
}

fn pull(how: Hostile, answer: &mut Value) -> bool {
    let Some(changes) = answer["changes"].as_array_mut() else { return false };
    match (how, changes.first().cloned()) {
        (Hostile::TwiceTold, Some(first)) => changes.push(first),
        (Hostile::HugeNumber, Some(_)) => changes[0]["version"] = json!(HUGE),
        (Hostile::WrongId, Some(_)) => changes[0]["entity_id"] = json!("\u{0}"),
        (Hostile::UnknownVerdict | Hostile::WrongType, Some(_)) => changes[0]["record"] = json!([1, 2]),
        (Hostile::MissingField, _) => {
            answer.as_object_mut().map(|answer| answer.remove("cursor"));
        }
        _ => return false,
    }
    true
}
