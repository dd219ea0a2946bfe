//! What verifies tokens. The first byte says what the rest is: `H` an `Authorization` header, `S` a token's header and claims, each
//! on a line, to be signed, `K` a key set; anything else claims, to be signed.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::Value;
use syncline_fuzz::{jwt, mutate, planted};

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let (header, claims) = match kind {
        b'H' => return drop(jwt::verify(data)),
        b'K' => {
            let verified = jwt::verify_with_keys(&String::from_utf8_lossy(data));
            return assert!(verified.is_err(), "nobody signed it");
        }
        b'S' => {
            let mut lines = data.splitn(2, |byte| *byte == b'\n');
            (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
        }
        _ => (br#"{"alg":"HS256","typ":"JWT"}"#.as_slice(), data),
    };
    let Ok(verified) = jwt::verify(format!("Bearer {}", jwt::signed(header, claims)).as_bytes()) else { return };
    let said: Value = serde_json::from_slice(claims).expect("claims are JSON");
    let names_us = |aud: &Value| aud == jwt::AUDIENCE;
    assert!(names_us(&said["aud"]) || said["aud"].as_array().is_some_and(|aud| aud.iter().any(names_us)), "{said}");
    assert!(said["exp"].as_f64().is_some_and(|exp| exp > (jwt::NOW - 31) as f64), "{said}");
    assert_eq!(said["sub"], verified.user_id);
    assert!(!verified.scopes.is_empty());
    planted(verified.scopes.contains(&verified.user_id));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let line = data[..size].iter().position(|byte| *byte == b'\n').filter(|_| data[0] == b'S').unwrap_or(0);
    mutate::json(data, line + 1, size, max_size, seed)
});
