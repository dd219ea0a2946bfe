//! The body of a push, at the endpoint. What was applied is not applied again when the same body arrives once more.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::Value;
use syncline_core::transport::Route;
use syncline_fuzz::{endpoint, mutate, planted};

fuzz_target!(|body: &[u8]| {
    endpoint::with(|endpoint| {
        let (status, said) = endpoint.exchange(Route::Push, body);
        if status != 200 {
            return;
        }
        // A payload may hold a number that no `Value` can; that is its operation's own matter.
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let second = &sent["operations"][1];
        planted(second.is_object() && second["entity_id"] == second["entity_type"]);
        let (status, again) = endpoint.exchange(Route::Push, body);
        assert_eq!(status, 200, "{again}");
        if sent.is_null() || sent["dry_run"] == true {
            return;
        }
        for (first, second) in
            said["results"].as_array().into_iter().flatten().zip(again["results"].as_array().into_iter().flatten())
        {
            let applied = first["status"] == "applied" || first["status"] == "merged";
            assert!(!applied || second["status"] == "already_processed", "{first} and then {second}");
        }
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let prefix = 0;
    mutate::json(data, prefix, size, max_size, seed)
});
