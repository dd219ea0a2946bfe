//! What a request may hold: limits, hostile bodies, fidelity of values, the form of answers (spec §6, §7).

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Guarantee;
use super::client::{Answer, Unusual};
use super::device::{Device, NOTHING, Op, Settled, push_body, same};
use super::outcome::{Evidence, Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "payload_fidelity",
        sentence: "Numbers, text and structure of a payload come back equal as JSON values",
        spec: "§3, §6",
        check: |world| Box::pin(payload_fidelity(world)),
    },
    Guarantee {
        id: "bad_payloads",
        sentence: "A payload that no device may send (NUL, lone surrogates, numbers out of range, too deep, too large, no object) is refused with a code and harms no other operation",
        spec: "§6, §7, §9.4",
        check: |world| Box::pin(bad_payloads(world)),
    },
    Guarantee {
        id: "too_much",
        sentence: "Too many operations, or a body over the limit, are refused with a code, and nothing of them is applied",
        spec: "§6, §7",
        check: |world| Box::pin(too_much(world)),
    },
    Guarantee {
        id: "bad_members",
        sentence: "Names, ids, counters and moments out of range are refused, and nothing of the push is applied",
        spec: "§6, §7",
        check: |world| Box::pin(bad_members(world)),
    },
    Guarantee {
        id: "hostile_bodies",
        sentence: "What is not a request at all (cut off, of other types, not UTF-8, nested without end) is refused with a 4xx, never a 5xx",
        spec: "§6",
        check: |world| Box::pin(hostile_bodies(world)),
    },
    Guarantee {
        id: "packed_bodies",
        sentence: "Bodies packed with gzip or zstd are taken; what only claims to be is refused",
        spec: "§6",
        check: |world| Box::pin(packed_bodies(world)),
    },
    Guarantee {
        id: "unknown_members",
        sentence: "Members that the endpoint does not know are ignored",
        spec: "§6",
        check: |world| Box::pin(unknown_members(world)),
    },
    Guarantee {
        id: "unsupported_protocol",
        sentence: "Another protocol number is refused (`unsupported_protocol`), whatever else the body holds",
        spec: "§6",
        check: |world| Box::pin(unsupported_protocol(world)),
    },
];

/// Judged over all answers of the run.
pub(super) const OVER_ALL: &[Guarantee] = &[
    Guarantee {
        id: "protocol_header",
        sentence: "Every answer, errors too, carries the header `syncline-protocol: 1`",
        spec: "§6",
        check: |world| Box::pin(async { none_of(&world.client.without_header, world, "every answer carried it") }),
    },
    Guarantee {
        id: "problem_form",
        sentence: "Every error is `application/problem+json` with a `code`",
        spec: "§6",
        check: |world| Box::pin(async { none_of(&world.client.out_of_form, world, "every error was one") }),
    },
    Guarantee {
        id: "no_defects",
        sentence: "Nothing that was sent made the endpoint answer with a defect (5xx)",
        spec: "§6",
        check: |world| Box::pin(async { none_of(&world.client.defects, world, "no answer was one") }),
    },
];

fn none_of(list: &Mutex<Vec<Evidence>>, world: &World, good: &str) -> Outcome {
    let list = list.lock().unwrap_or_else(PoisonError::into_inner);
    let requests = world.client.requests.load(std::sync::atomic::Ordering::Relaxed);
    match list.first() {
        None => Ok(format!("of {requests} requests, {good}")),
        Some(first) => {
            let what = format!("{} (and {} more)", first.what, list.len() - 1);
            Err(Trouble::Broken(Box::new(Evidence { what, ..first.clone() })))
        }
    }
}

async fn payload_fidelity(world: &World) -> Outcome {
    let text = concat!(
        r#"{"z":[1e300,-1e-300,0.1,9007199254740991,-9007199254740991,1.5,-0.0,5e-324,1e21,0.30000000000000004],"a":"ünï 漢字 😀 \u0001\u2028\"\\/","#,
        r#""empty":{},"list":[],"deep":{"b":[{"c":[null,true,false,""]}],"a":1},"":"no name","null":null,"#,
        r#""__proto__":{"x":1},"1":"number","é":"é","\u0065\u0301":"two characters"}"#
    );
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({})).payload(text);
    a.settle(&[&create]).await?.expect(&create, "applied")?;
    let repeated = a.settle(&[&create]).await?;
    repeated.expect_repeated(&create, "applied")?;
    let returned = repeated.member(&create, "record");
    repeated.require(same(&returned, &value), "the record of the answer differs from what was sent")?;
    world.expect_record(create.entity(), &value).await?;
    Ok("1e300, 5e-324, 0.1, ±(2^53 − 1), unicode, empty and nested values came back by push and pull".to_owned())
}

async fn bad_payloads(world: &World) -> Outcome {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(60), "]".repeat(60));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(600 * 1024));
    let cases = [
        ("a NUL character", r#"{"a":"x\u0000y"}"#),
        ("a NUL character in a name", r#"{"a\u0000":1}"#),
        ("a lone surrogate", r#"{"a":"\ud800"}"#),
        ("a lone surrogate in a name", r#"{"\udc00":1}"#),
        ("an integer of 2^53", r#"{"a":9007199254740992}"#),
        ("a number of 1e400", r#"{"a":-1e400}"#),
        ("an integer of 20 digits", r#"{"a":-12345678901234567890}"#),
        ("60 levels", &deep),
        ("600 KiB", &large),
        ("an array", "[1]"),
        ("a text", "\"x\""),
        ("a number", "1"),
    ];
    for (name, payload) in cases {
        let mut a = world.device();
        let poison = a.create(&world.name("e"), json!({})).payload(payload);
        let beside = a.create(&world.name("e"), json!({ "n": 1 }));
        let answer = a.push(&[&poison, &beside]).await?;
        if answer.status == 200 {
            let settled = Settled::of(answer, &[&poison, &beside])?;
            settled
                .expect(&poison, "rejected")
                .map_err(|_| settled.answer.broken(format!("{name} was not refused")))?;
            settled.require(!settled.error(&poison).is_empty(), format!("{name} was rejected without a code"))?;
            settled.expect(&beside, "applied")?;
        } else {
            answer.expect_refusal()?;
            world.expect_nothing(beside.entity()).await?;
        }
        world.expect_nothing(poison.entity()).await?;
    }
    Ok(format!("{} kinds of payload were refused; an operation beside each was not harmed", cases.len()))
}

async fn too_much(world: &World) -> Outcome {
    const MOST: u64 = 20_000;
    const MOST_BYTES: u64 = 64 * 1024 * 1024;
    let mut a = world.device();
    let limits = a.settle(NOTHING).await?.answer.body["limits"].clone();
    let limit = |name: &str, usual: u64, most: u64| {
        let told = limits[name].as_u64().unwrap_or(usual);
        if told <= most { Ok(told) } else { Err(Trouble::Skipped(format!("the endpoint's `{name}` is {told}"))) }
    };
    let (max_operations, max_bytes) = (limit("max_operations", 500, MOST)?, limit("max_bytes", 8 << 20, MOST_BYTES)?);
    let many: Vec<Op> = (0..=max_operations).map(|n| a.create(&world.name("e"), json!({ "n": n }))).collect();
    let answer = a.push(&many).await?;
    answer.expect_refusal()?;
    if !matches!(answer.code(), "too_many_operations" | "body_too_large") {
        return Err(answer.broken("expected too_many_operations"));
    }
    world.expect_nothing(many[0].entity()).await?;
    let create = a.create(&world.name("e"), json!({ "n": 1 }));
    let mut body = a.body(&[&create]);
    // Space around JSON is JSON too: only its size is wrong.
    body.resize(usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_add(1), b' ');
    a.send(body.clone()).await?.expect_problem("body_too_large")?;
    if !world.client.is_supabase() {
        let packed = gzip(&body);
        let unusual = Unusual { content_encoding: Some("gzip"), ..Unusual::default() };
        let answer = world.client.post_unusual("/v1/push", Some(&a.credential.token), packed, unusual).await?;
        answer.expect_problem("body_too_large")?;
    }
    world.expect_nothing(create.entity()).await?;
    let packed = if world.client.is_supabase() { "" } else { ", and as many packed small" };
    Ok(format!("{} operations, and {} bytes{packed}, were refused", max_operations + 1, max_bytes + 1))
}

/// One member of an operation, or of the envelope, that is out of range.
fn bad_member_cases() -> Vec<(bool, &'static str, Value)> {
    let (of_operation, of_envelope) = (true, false);
    let long = "x".repeat(129);
    let mut cases = vec![
        (of_operation, "sequence", json!(0)),
        (of_operation, "sequence", json!(1_u64 << 53)),
        (of_operation, "sequence", json!(-1)),
        (of_operation, "sequence", json!(1.5)),
        (of_operation, "sequence", json!("1")),
        (of_operation, "operation", json!("upsert")),
        (of_operation, "timestamp", json!("yesterday")),
        (of_operation, "timestamp", json!(0)),
        (of_operation, "base_clock", json!({ "a": -1 })),
        (of_operation, "base_clock", json!({ "a": 1_u64 << 53 })),
        (of_operation, "base_clock", json!([1])),
        (of_operation, "depends_on", json!("x")),
        (of_operation, "void", json!("yes")),
        (of_envelope, "mark", json!(1_u64 << 53)),
        (of_envelope, "mark", json!(-1)),
        (of_envelope, "mark", json!("1")),
        (of_envelope, "dry_run", json!(1)),
        (of_envelope, "forgotten_through", json!(1_u64 << 53)),
        (of_envelope, "sent_at", json!("now")),
        (of_envelope, "device_id", json!("")),
        (of_envelope, "device_id", json!(long)),
        (of_envelope, "device_id", json!(7)),
    ];
    for name in ["", "Pin", "a-b", "a b", "ä", "p\u{0}n", &"a".repeat(65)] {
        cases.push((of_operation, "entity_type", json!(name)));
    }
    for member in ["id", "idempotency_key", "entity_id", "transaction_id"] {
        for id in ["", &long, "a\u{0}b", "a\nb"] {
            cases.push((of_operation, member, json!(id)));
        }
        cases.push((of_operation, member, json!(1)));
    }
    cases
}

async fn bad_members(world: &World) -> Outcome {
    let cases = bad_member_cases();
    let mut beside = Vec::new();
    for chunk in cases.chunks(40) {
        // Another device now and then: an endpoint may count requests per device.
        let mut a = world.device();
        for (of_operation, member, value) in chunk {
            let good = a.create(&world.name("e"), json!({ "n": 1 }));
            let mut bad = a.create(&world.name("e"), json!({ "n": 2 }));
            let mut envelope = a.envelope();
            if *of_operation {
                bad = bad.set(member, value.clone());
            } else {
                envelope.insert((*member).to_owned(), value.clone());
            }
            let answer = a.send(push_body(&envelope, &[&good, &bad])).await?;
            expect_no_effect(&answer, &good, &bad, member)?;
            beside.push((good.entity().to_owned(), answer));
        }
    }
    for (entity, answer) in beside {
        if answer.status != 200 {
            world.expect_nothing(&entity).await.map_err(|_| answer.broken("a refused push was applied in part"))?;
        }
    }
    Ok(format!("{} members out of range were refused", cases.len()))
}

/// The request was refused, or at least the one operation.
fn expect_no_effect(answer: &Answer, good: &Op, bad: &Op, member: &str) -> Result<(), Trouble> {
    if answer.status == 200 {
        let refused = Settled::of(answer.clone(), &[good, bad]).is_ok_and(|settled| settled.status(bad) == "rejected");
        return if refused { Ok(()) } else { Err(answer.broken(format!("a bad `{member}` was taken"))) };
    }
    answer.expect_refusal()
}

async fn hostile_bodies(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "n": 1 }));
    let whole = a.body(&[&create]);
    let without = |member: &str| {
        let mut envelope = a.envelope();
        envelope.remove(member);
        push_body(&envelope, &[&create])
    };
    let mut bodies: Vec<Vec<u8>> =
        ["", "null", "[]", "1", "\"push\"", "{", "{}", "[{}]", "\u{feff}{}", "{\"protocol\":1}"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
    bodies.extend([whole.len() / 4, whole.len() / 2, whole.len() - 1].map(|end| whole[..end].to_vec()));
    bodies.extend(["protocol", "user_id", "scope", "device_id"].map(without));
    bodies.push([whole.as_slice(), b"}"].concat());
    bodies.push([whole.as_slice(), whole.as_slice()].concat());
    bodies.push(vec![0; 64]);
    bodies.push(vec![0xff, 0xfe, b'{', b'}']);
    let mut not_text = whole.clone();
    let middle = not_text.len() / 2;
    not_text[middle] = 0xc3;
    bodies.push(not_text);
    bodies.push("[".repeat(100_000).into_bytes());
    bodies.push("{\"operations\":".repeat(100_000).into_bytes());
    bodies.push(format!("{{\"protocol\":1,\"x\":{}", "[".repeat(100_000)).into_bytes());
    let count = bodies.len();
    for body in bodies {
        for path in ["/v1/push", "/v1/pull"] {
            world.client.post(path, Some(&a.credential.token), body.clone()).await?.expect_refusal()?;
        }
    }
    for operations in [json!({}), json!([null]), json!([[]]), json!([{}]), json!("x"), json!([1])] {
        let mut envelope = a.envelope();
        envelope.insert("operations".to_owned(), operations);
        a.send(Value::Object(envelope).to_string().into_bytes()).await?.expect_refusal()?;
    }
    let other_type = Unusual { content_type: Some("text/plain"), ..Unusual::default() };
    let answer =
        world.client.post_unusual("/v1/push", Some(&a.credential.token), b"hello".to_vec(), other_type).await?;
    answer.expect_refusal()?;
    world.expect_nothing(create.entity()).await?;
    Ok(format!("{count} bodies, each as a push and as a pull, were refused"))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// A zstd frame of one stored block (RFC 8878): magic, a header with the content's size, the block. Up to 64 KiB.
fn zstd_stored(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    // One segment; the size in four bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend(size.to_le_bytes());
    // The last block, stored.
    frame.extend(&(1 | size << 3).to_le_bytes()[..3]);
    frame.extend(body);
    frame
}

async fn packed_bodies(world: &World) -> Outcome {
    if world.client.is_supabase() {
        return Err(Trouble::Skipped("the Data API of Supabase takes bodies as they are".to_owned()));
    }
    let mut a = world.device();
    for (encoding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd_stored)] {
        let create = a.create(&world.name("e"), json!({ "packed": encoding }));
        let send = |body: Vec<u8>| {
            let unusual = Unusual { content_encoding: Some(encoding), ..Unusual::default() };
            world.client.post_unusual("/v1/push", Some(&world.user.token), body, unusual)
        };
        let answer = send(pack(&a.body(&[&create]))).await?;
        Settled::of(answer, &[&create])?.expect(&create, "applied")?;
        world.expect_record(create.entity(), &json!({ "packed": encoding })).await?;
        send(a.body(&[&create])).await?.expect_refusal()?;
        let mut cut = pack(&a.body(&[create]));
        cut.truncate(cut.len() / 2);
        send(cut).await?.expect_refusal()?;
    }
    Ok("gzip and zstd were taken; plain text by their name and frames cut short were refused".to_owned())
}

async fn unknown_members(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "n": 1 })).set("of_tomorrow", json!({ "x": [1] }));
    let answer = a.push_with(&[("of_tomorrow", json!([1, { "x": 2 }]))], &[&create]).await?;
    Settled::of(answer, &[&create])?.expect(&create, "applied")?;
    let mut body = a.pull_body(None, 1, None);
    body["of_tomorrow"] = json!("x");
    let page = a.ask(body).await?;
    if page.status != 200 {
        return Err(page.broken("a pull with a member of tomorrow is refused"));
    }
    world.expect_record(create.entity(), &json!({ "n": 1 })).await?;
    Ok("of a push, an operation and a pull".to_owned())
}

async fn unsupported_protocol(world: &World) -> Outcome {
    let a: Device<'_> = world.device();
    for path in ["/v1/push", "/v1/pull"] {
        let body = json!({ "protocol": 99, "something": "new" }).to_string().into_bytes();
        let answer = world.client.post(path, Some(&a.credential.token), body).await?;
        answer.expect_problem("unsupported_protocol")?;
        let speaks = answer.body["supported"].as_array().is_none_or(|list| list.contains(&json!(1)));
        if !speaks {
            return broken("`supported` does not list 1");
        }
    }
    Ok("protocol 99 was refused by push and pull".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_frame_has_the_form_of_the_standard() {
        // As `zstd` itself writes: magic, descriptor, four bytes of size, a block header of 1 + 2 * 0 + 8 * size.
        assert_eq!(zstd_stored(b"ab"), [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 2, 0, 0, 0, 17, 0, 0, b'a', b'b']);
    }
}
