//! The body of a pull, at the endpoint. Page by page it comes to an end.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::Value;
use syncline_core::transport::Route;
use syncline_fuzz::{endpoint, mutate, planted};

fuzz_target!(|body: &[u8]| {
    endpoint::with(|endpoint| {
        let (mut status, mut said) = endpoint.exchange(Route::Pull, body);
        let Ok(mut next) = serde_json::from_slice::<Value>(body) else { return };
        if status == 200 {
            let types = &next["entity_types"];
            planted(types[1].is_string() && types[0] == types[1]);
        }
        for _ in 0..8 {
            if status != 200 || said["has_more"] == false {
                return;
            }
            next["cursor"] = said["cursor"].clone();
            (status, said) = endpoint.exchange(Route::Pull, next.to_string().as_bytes());
            assert_eq!((status, &said["reset"]), (200, &Value::Bool(false)), "{said}");
        }
        panic!("there are four entities, and still more: {said}");
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let prefix = 0;
    mutate::json(data, prefix, size, max_size, seed)
});
