//! The listener.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syncline_ffi::{OperationStatus, SyncEvent};

use crate::app::{Listener, config, create, open, update};

const NOBODY: &str = "http://127.0.0.1:9";

fn sequences(events: &[SyncEvent]) -> Vec<i64> {
    let new = |event: &SyncEvent| match event {
        SyncEvent::Operation { sequence, from: None, to: OperationStatus::Pending, .. } => Some(*sequence),
        _ => None,
    };
    events.iter().filter_map(new).collect()
}

#[test]
fn twenty_thousand_events_come_in_order_and_several_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::good("ada");
    let sync = open(config(folder.path(), "a", NOBODY, "ada"), &listener);
    for batch in 0..20 {
        let all = (0..1_000).map(|n| create("pin", &format!("p{}", batch * 1_000 + n), "{}")).collect();
        sync.enqueue(all).unwrap();
    }
    let events = listener.until("20,000 events", |events| sequences(events).len() == 20_000);
    assert_eq!(sequences(&events), (1..=20_000).collect::<Vec<i64>>());
    let (calls, largest) = (listener.calls.load(Ordering::Relaxed), listener.largest_call.load(Ordering::Relaxed));
    assert!(calls < events.len() / 20 && largest <= 256, "{calls} calls for {} events, {largest} in one", events.len());
    sync.close().unwrap();
}

#[test]
fn a_listener_that_throws_hears_what_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::throwing();
    let sync = open(config(folder.path(), "a", NOBODY, "ada"), &listener);
    sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap();
    listener.until("the first event", |events| sequences(events) == [1]);
    sync.enqueue(vec![update("pin", "p2", "{}")]).unwrap();
    listener.until("the second event", |events| sequences(events) == [1, 2]);
    sync.close().unwrap();
}

#[test]
fn after_closing_nobody_hears_anything_and_nobody_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::good("ada");
    let sync = open(config(folder.path(), "a", NOBODY, "ada"), &listener);
    sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap();
    sync.close().unwrap();
    sync.close().unwrap();
    listener.until("what was due", |events| sequences(events) == [1]);
    drop(sync);
    let begun = std::time::Instant::now();
    while Arc::strong_count(&listener) > 1 {
        assert!(begun.elapsed().as_secs() < 10, "the library still holds the listener");
        std::thread::yield_now();
    }
}
