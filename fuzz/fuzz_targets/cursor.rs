//! A cursor in an otherwise good pull: as text (`T…`), or as what its text holds (any other byte, then JSON).
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_fuzz::{endpoint, mutate, planted};

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let (cursor, held) = match kind {
        b'T' => (String::from_utf8_lossy(data).into_owned(), Value::Null),
        _ => (format!("1{}", URL_SAFE_NO_PAD.encode(data)), serde_json::from_slice(data).unwrap_or_default()),
    };
    let filter = held["t"].as_array().cloned();
    let pull = json!({
        "protocol": 1, "user_id": endpoint::USER, "scope": endpoint::SCOPE, "device_id": "A", "epoch": endpoint::EPOCH, "mark": 0,
        "cursor": cursor, "entity_types": filter, "limit": 2,
    });
    endpoint::with(|endpoint| {
        let (status, said) = endpoint.exchange(Route::Pull, pull.to_string().as_bytes());
        let Some(reset) = said["reset"].as_bool() else { return };
        assert_eq!(status, 200);
        // Only what is of this scope and epoch is gone on from.
        assert!(
            reset || *kind == b'T' || (held["s"] == endpoint::SCOPE && held["e"] == endpoint::EPOCH),
            "{held} was taken"
        );
        planted(!reset && held["t"].as_array().is_some_and(|types| types.len() == 1));
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let prefix = 1;
    mutate::json(data, prefix, size, max_size, seed)
});
