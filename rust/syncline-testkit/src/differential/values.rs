//! Payloads: few names and few values, so that writers meet; texts that mean the same; what must be refused.

use rand::RngExt;
use rand::rngs::StdRng;

const NAMES: &[&str] = &["a", "b", "c", "", "é", "__proto__", "a b"];
/// Among them pairs that are equal as JSON and differ in text.
const GOOD: &[&str] = &[
    "1",
    "1.0",
    "2",
    "100",
    "1e2",
    "1E2",
    "-0",
    "0",
    "0.1",
    "9007199254740991",
    "-9007199254740991",
    "1e21",
    "5e-324",
    "1.7976931348623157e308",
    "true",
    "false",
    "null",
    r#""""#,
    r#""x""#,
    r#""ä""#,
    r#""\u00e4""#,
    r#""\ud83d\ude00""#,
    r#""😀""#,
    r#""a\nb\u0001""#,
    "{}",
    "[]",
    r#"{"x":1,"y":[1,2]}"#,
    r#"{"y":[1.0,2],"x":1}"#,
    r#"{"x":null}"#,
    "[ 1 , 2 ]",
    "[1,2]",
    r#"{"":{"":[]}}"#,
    "123.456e-7",
    "10000000000000000e-1",
];
/// No name with NUL: not every endpoint can name it as the field at fault.
const BAD: &[&str] = &[
    "9007199254740992",
    "-9007199254740993",
    "1e16",
    "1e400",
    "-1e200000",
    r#""\u0000""#,
    r#""\ud800""#,
    r#""\udc00x""#,
    "123456789012345678901",
    r#"[{"x":"y\u0000"}]"#,
];
const NO_OBJECT: &[&str] = &["7", "[]", "null", r#""{}""#, "[1]", "true"];

pub(super) fn pick<'t, T>(random: &mut StdRng, from: &'t [T]) -> &'t T {
    &from[random.random_range(0..from.len())]
}

/// The text of a payload, of which one in `rarity` must be refused.
pub(super) fn payload(random: &mut StdRng, rarity: u32) -> String {
    let is_bad = random.random_range(0..rarity) == 0;
    if is_bad && random.random_range(0..4) == 0 {
        return (*pick(random, NO_OBJECT)).to_owned();
    }
    if is_bad && random.random_range(0..6) == 0 {
        return format!("{}1{}", r#"{"a":"#.repeat(33), "}".repeat(33));
    }
    let mut names: Vec<&str> = Vec::new();
    for _ in 0..random.random_range(0..4) {
        let name = pick(random, NAMES);
        if !names.contains(name) {
            names.push(name);
        }
    }
    let mut members: Vec<String> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let value = if is_bad && at == 0 { pick(random, BAD) } else { pick(random, GOOD) };
        members.push(format!("{}:{value}", serde_json::Value::from(*name)));
    }
    format!("{{{}}}", members.join(","))
}
