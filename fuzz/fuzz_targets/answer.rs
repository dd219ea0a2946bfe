//! An answer at the client. The first line is `push|pull before|after STATUS PROTOCOL RETRY-AFTER` (`-` for a header that is not
//! there; `after`: the endpoint has decided before), the rest is the body. In it `$0` to `$3` stand for the operations' ids, `$d`
//! for the device's, `$e` for the epoch and `$c` for the cursor.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use syncline_core::transport::{Dialect, Response, Route};
use syncline_core::{ListQuery, NewOperation, OperationStatus};
use syncline_fuzz::{device, mutate, planted};
use syncline_protocol::{PROTOCOL, PushResponse};
use syncline_testkit::{Fault, TestDevice, World};

/// Of any seed.
const HIGHEST_VERSION: u64 = 100;

fuzz_target!(|data: &[u8]| {
    let (line, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let Some(answer) = Answer::read(&String::from_utf8_lossy(line)) else { return };
    let (world, device, ids) = device::waiting();
    if answer.route == Route::Pull {
        // A page that meets a push is dropped: the pushes go first, and then it is time to pull again.
        world.sync(&device);
        world.advance_secs(3600);
    }
    let body = fill(body.get(1..).unwrap_or_default(), &device, &ids);
    let may_settle = answer.route == Route::Pull || answer.decides(&body);
    answer.arrive(&world, &device, body);

    device::assert_conservation(&device.metrics().expect("the file can be read"));
    for id in &ids {
        let status = device.status(id);
        let settled = !matches!(status, OperationStatus::Pending | OperationStatus::InProgress);
        assert!(may_settle || !settled, "{id} is {status:?}, and nobody said so");
    }
    device.list(&ListQuery::new("pin")).expect("the replica can be read");
    // A version that nobody here has given has come all the way into the replica.
    planted(device.sql::<u64>("SELECT coalesce(max(base_version), 0) FROM entities") > HIGHEST_VERSION);
    still_works(&world, &device);
});

struct Answer {
    route: Route,
    after: bool,
    status: u16,
    protocol: Option<String>,
    retry_after: Option<String>,
}

impl Answer {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next();
        let route = if word()? == "push" { Route::Push } else { Route::Pull };
        let after = word()? == "after";
        let status = word()?.parse().ok()?;
        let mut header = || word().filter(|word| *word != "-").map(str::to_owned);
        Some(Self { route, after, status, protocol: header(), retry_after: header() })
    }

    /// Whether it says of any operation what became of it, or refuses them all.
    fn decides(&self, body: &[u8]) -> bool {
        let ours = self.protocol.as_deref().is_some_and(|version| version.trim().parse() == Ok(PROTOCOL));
        match self.status {
            200 if ours => serde_json::from_slice::<PushResponse>(body)
                .is_ok_and(|answer| answer.applied > 0 || !answer.results.is_empty()),
            413 => true,
            status => ours && status >= 400,
        }
    }

    /// The device sends what it has, and hears this instead of an answer; after it nothing more.
    fn arrive(&self, world: &World, device: &TestDevice, body: Vec<u8>) {
        let (route, after) = (self.route, self.after);
        let mut response = Some(Response {
            status: self.status,
            protocol: self.protocol.clone(),
            retry_after: self.retry_after.clone(),
            body,
            // What lacks the header is read as PostgREST's too.
            dialect: if self.protocol.is_some() { Dialect::Syncline } else { Dialect::Supabase },
        });
        device.network.script(move |request| match response.take() {
            Some(given) if request.route == route => {
                Some(if after { Fault::Replaced(given) } else { Fault::Instead(given) })
            }
            Some(given) => {
                response = Some(given);
                None
            }
            None => Some(Fault::Unreachable),
        });
        let manager = device.manager();
        world.run(async move { manager.process_queue().await }).expect("no answer makes it fail");
        device.network.heal();
    }
}

/// Puts what only the device knows in the place of the words that stand for it.
fn fill(body: &[u8], device: &TestDevice, ids: &[String]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for (index, id) in ids.iter().enumerate() {
        text = text.replace(&format!("${index}"), id);
    }
    for (word, column) in [("$d", "device_id"), ("$e", "epoch"), ("$c", "cursor")] {
        if text.contains(word) {
            text = text.replace(word, &device.sql::<String>(&format!("SELECT {column} FROM device")));
        }
    }
    text.into_bytes()
}

/// With honest answers again, what is enqueued next arrives within the longest wait.
fn still_works(world: &World, device: &TestDevice) {
    let next =
        device.enqueue(NewOperation::create("visit", "v1", r#"{"ok":true}"#)).expect("the device takes operations");
    for _ in 0..4 {
        world.advance_secs(3660);
        let manager = device.manager();
        world.run(async move { manager.process_queue().await }).expect("the queue is processed");
    }
    assert_eq!(device.status(&next.id), OperationStatus::Completed, "{:?}", device.explain(&next.id));
    device::assert_conservation(&device.metrics().expect("the file can be read"));
    assert_eq!(world.server.violations(), Vec::<String>::new());
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let line = data[..size].iter().position(|byte| *byte == b'\n').map_or(size, |at| at + 1);
    mutate::json(data, line, size, max_size, seed)
});
