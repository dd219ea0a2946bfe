//! Mutations that keep JSON whole: what is no JSON is refused in the first line of whatever reads it.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value};

/// Changes the JSON text in `data[prefix..size]`, or any bytes if it is none, and now and then. Gives the new size.
pub fn json(data: &mut [u8], prefix: usize, size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(u64::from(seed) | 1 << 32);
    let parsed = data.get(prefix..size).and_then(|text| serde_json::from_slice::<Value>(text).ok());
    let Some(mut value) = parsed.filter(|_| dice.roll(4) > 0) else { return fuzzer_mutate(data, size, max_size) };
    for _ in 0..=dice.roll(3) {
        let count = count(&value);
        if dice.roll(4) == 0 {
            // What stands side by side is about one thing: ids, versions, names. One of them in the place of another.
            if let Some(Value::Object(members)) = nth(&mut value, &mut dice.roll(count)) {
                copy_beside(members, &mut dice);
            }
            continue;
        }
        let other = nth(&mut value, &mut dice.roll(count)).cloned().unwrap_or_default();
        if let Some(target) = nth(&mut value, &mut dice.roll(count)) {
            change(target, other, &mut dice);
        }
    }
    let text = value.to_string();
    let end = prefix + text.len();
    if end > max_size.min(data.len()) {
        return fuzzer_mutate(data, size, max_size);
    }
    data[prefix..end].copy_from_slice(text.as_bytes());
    end
}

/// Where numbers break.
const NUMBERS: [&str; 15] = [
    "0",
    "1",
    "2",
    "-1",
    "1.5",
    "256",
    "65536",
    "2147483648",
    "4294967296",
    "1e300",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775808",
];

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        for shift in [13_i32, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        (self.0 >> 16) as usize % sides.max(1)
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The `left`th value in the tree.
fn nth<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, left)),
        _ => None,
    }
}

/// Puts the value of one member in the place of another's.
fn copy_beside(members: &mut Map<String, Value>, dice: &mut Dice) {
    let (from, to) = (dice.roll(members.len()), dice.roll(members.len()));
    if let Some(value) = members.values().nth(from).cloned()
        && let Some(target) = members.values_mut().nth(to)
    {
        *target = value;
    }
}

/// Changes one value a little, or puts `other` in its place.
fn change(target: &mut Value, other: Value, dice: &mut Dice) {
    let choice = dice.roll(8);
    match target {
        Value::String(text) if choice < 4 => *text = mutated(text),
        Value::Array(items) if choice < 6 && !items.is_empty() => {
            let (at, to) = (dice.roll(items.len()), dice.roll(items.len()));
            match choice {
                0 | 1 => items.insert(to, items[at].clone()),
                2 | 3 => items.swap(at, to),
                4 => drop(items.remove(at)),
                _ => items.push(other),
            }
        }
        Value::Object(members) if choice < 6 && !members.is_empty() => {
            let at = dice.roll(members.len());
            let name = members.keys().nth(at).expect("counted").clone();
            let member = members.remove(&name).unwrap_or_default();
            match choice {
                0 | 1 => {}
                2 => drop(members.insert(mutated(&name), member)),
                _ => drop(members.insert(name, other)),
            }
        }
        Value::Number(_) if choice < 6 => {
            *target = match dice.roll(NUMBERS.len() + 1) {
                at if at < NUMBERS.len() => serde_json::from_str(NUMBERS[at]).expect("a number"),
                _ => dice.roll(1000).into(),
            };
        }
        Value::Bool(flag) if choice < 6 => *flag = !*flag,
        _ => *target = if choice == 7 { Value::Null } else { other },
    }
}

/// By libFuzzer's own means, which know what the program has compared its input with.
fn mutated(text: &str) -> String {
    let mut bytes = vec![0; text.len() + 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    let max_size = bytes.len();
    let size = fuzzer_mutate(&mut bytes, text.len(), max_size);
    String::from_utf8_lossy(&bytes[..size]).into_owned()
}
