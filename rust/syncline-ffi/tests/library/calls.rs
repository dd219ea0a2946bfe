//! Calls that cannot be right say which field is wrong; calls from many threads, and at the end.

use std::sync::Arc;
use std::thread;

use syncline_ffi::{Comparison, Filter, ListQuery, OperationFilter, Receipt, SyncManager, SynclineError};

use crate::app::{Listener, config, create, open, update};

const NOBODY: &str = "http://127.0.0.1:9";

fn query(filters: Vec<Filter>) -> ListQuery {
    ListQuery { entity_type: "form".into(), filters, order_by: None, descending: false, after: None, limit: 50 }
}

fn field<T: std::fmt::Debug>(result: Result<T, SynclineError>) -> String {
    match result {
        Err(SynclineError::InvalidOperation { field, text } | SynclineError::InvalidConfig { field, text }) => {
            assert!(text.contains(&field), "{text}");
            field
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_call_names_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let sync = open(config(folder.path(), "a", NOBODY, "ada"), &Listener::good("ada"));
    assert_eq!(field(sync.enqueue(vec![create("Pin", "p1", "{}")])), "entity_type");
    assert_eq!(field(sync.enqueue(vec![create("pin", "p1", r#"{"a":NaN}"#)])), "payload.a");
    let mut negative = create("pin", "p1", "{}");
    negative.max_attempts = Some(-1);
    assert_eq!(field(sync.enqueue(vec![negative])), "max_attempts");
    let mut behind = create("pin", "p1", "{}");
    behind.depends_on = vec![Receipt { id: "x".into(), sequence: -4, duplicate: false }];
    assert_eq!(field(sync.enqueue(vec![behind])), "depends_on.sequence");
    assert_eq!(field(sync.changes_since(-1, 10)), "cursor");
    assert_eq!(field(sync.changes_since(0, -1)), "limit");
    let half =
        OperationFilter { statuses: vec![], entity_type: Some("pin".into()), entity_id: None, after: 0, limit: 10 };
    assert_eq!(field(sync.operations(half)), "entity_id");
    let object = Filter { path: "$.title".into(), comparison: Comparison::Equals { value: "{}".into() } };
    assert_eq!(field(sync.list(query(vec![object]))), "filters[0].value");
    assert_eq!(sync.metrics().unwrap().enqueued_total, 0, "nothing was written");
    sync.close().unwrap();

    let mut wrong = config(folder.path(), "b", NOBODY, "ada");
    wrong.timeout_ms = -1;
    assert_eq!(field(SyncManager::open(wrong, None).map(drop)), "timeout_ms");
    let mut wrong = config(folder.path(), "b", NOBODY, "ada");
    wrong.entity_types.get_mut("form").unwrap().max_attempts = -3;
    assert_eq!(field(SyncManager::open(wrong, None).map(drop)), "entity_types.form.max_attempts");
    let other = SyncManager::open(config(folder.path(), "a", NOBODY, "bob"), None).map(drop);
    assert!(matches!(other, Err(SynclineError::WrongUser { what, .. }) if what == "user"));
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let sync = open(config(folder.path(), "a", NOBODY, "ada"), &Listener::good("ada"));
    let forms = (0..5).map(|n| create("form", &format!("f{n}"), &format!(r#"{{"title":"Leak {n}","n":{n}}}"#)));
    sync.enqueue(forms.collect()).unwrap();
    sync.enqueue(vec![update("form", "f4", r#"{"title":"Crack"}"#)]).unwrap();
    let leaks = || Filter { path: "$.title".into(), comparison: Comparison::Like { pattern: "leak%".into() } };
    let some = Filter { path: "$.n".into(), comparison: Comparison::In { values: vec!["1".into(), "3".into()] } };
    let ids =
        |page: &syncline_ffi::EntityPage| page.entities.iter().map(|form| form.entity_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&sync.list(query(vec![leaks(), some])).unwrap()), ["f1", "f3"]);
    let first = ListQuery { limit: 3, order_by: Some("$.title".into()), descending: true, ..query(vec![leaks()]) };
    let page = sync.list(first.clone()).unwrap();
    assert_eq!(ids(&page), ["f3", "f2", "f1"]);
    let page = sync.list(ListQuery { after: page.next, ..first }).unwrap();
    assert_eq!((ids(&page), page.next), (vec!["f0".to_owned()], None));
    sync.close().unwrap();
}

#[test]
fn closing_under_load_leaves_every_receipt_true() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let sync = open(config(&path, "a", NOBODY, "ada"), &Listener::good("ada"));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let sync = Arc::clone(&sync);
            thread::spawn(move || {
                let mut written = 0;
                for n in 0.. {
                    match sync.enqueue(vec![create("pin", &format!("w{writer}-{n}"), "{}")]) {
                        Ok(_) => written += 1,
                        Err(SynclineError::Closed { .. }) => return written,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                unreachable!()
            })
        })
        .collect();
    thread::sleep(std::time::Duration::from_millis(200));
    sync.close().unwrap();
    let written: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    drop(sync);
    let again = SyncManager::open(config(&path, "a", NOBODY, "ada"), None).unwrap();
    assert_eq!(again.metrics().unwrap().enqueued_total, written);
    again.close().unwrap();
}

/// The last handle may go on any thread: the listener's is one of the core's own.
#[test]
fn the_last_handle_may_go_on_the_listeners_thread() {
    use std::sync::{Mutex, mpsc};

    use syncline_ffi::{CallbackError, SyncEvent, SyncListener};

    struct LetsGo {
        handle: Mutex<Option<Arc<SyncManager>>>,
        gone: mpsc::Sender<()>,
    }
    impl SyncListener for LetsGo {
        fn on_events(&self, _: Vec<SyncEvent>) -> Result<(), CallbackError> {
            if self.handle.lock().unwrap().take().is_some() {
                self.gone.send(()).unwrap();
            }
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (gone, told) = mpsc::channel();
    let listener = Arc::new(LetsGo { handle: Mutex::new(None), gone });
    let sync = SyncManager::open(config(folder.path(), "a", NOBODY, "ada"), Some(Arc::clone(&listener) as _)).unwrap();
    sync.start().unwrap();
    *listener.handle.lock().unwrap() = Some(Arc::clone(&sync));
    sync.enqueue(vec![create("pin", "p1", "{}")]).unwrap();
    drop(sync);
    told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    let again = SyncManager::open(config(folder.path(), "a", NOBODY, "ada"), None).unwrap();
    assert_eq!(again.metrics().unwrap().pending, 1);
}
