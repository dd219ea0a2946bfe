//! Real threads: many writers at once, closing under load, and the last handle dropped anywhere.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use syncline_core::environment::Environment;
use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason, Token};
use syncline_core::{Config, Durability, NewOperation, OperationFilter, SyncManager, SynclineError};

struct SignedIn;

impl CredentialProvider for SignedIn {
    fn token(&self, _reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        Box::pin(async { Ok(Some(Token("token".into()))) })
    }
}

fn open(folder: &Path) -> SyncManager {
    // Port 9 discards: nobody answers there, and these tests need nobody to.
    let mut config = Config::new(folder.join("a.db"), "http://127.0.0.1:9", "user-1", "team-1");
    config.durability = Durability::Normal;
    let environment = Environment::system(&config, Arc::new(SignedIn)).unwrap();
    SyncManager::open(config, environment).unwrap()
}

fn pin(id: String) -> NewOperation {
    NewOperation::create("pin", id, r#"{"title":"Leak"}"#)
}

#[test]
fn eight_threads_write_at_once_while_delivery_runs() {
    const EACH: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let sync = open(folder.path());
    let told = Arc::new(AtomicUsize::new(0));
    let (sender, all_told) = mpsc::channel();
    let count = Arc::clone(&told);
    sync.add_operation_listener(move |event| {
        if event.from.is_none() && count.fetch_add(1, Ordering::Relaxed) + 1 == 8 * EACH {
            sender.send(()).unwrap();
        }
    })
    .unwrap();
    sync.start().unwrap();
    let together = Barrier::new(8);
    let mut sequences: Vec<u64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (sync, together) = (sync.clone(), &together);
                scope.spawn(move || {
                    together.wait();
                    (0..EACH)
                        .map(|n| sync.enqueue(pin(format!("{writer}-{n}"))).unwrap().sequence)
                        .inspect(|sequence| {
                            assert!(sync.operations(&after(sequence - 1)).unwrap()[0].sequence == *sequence)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=8 * EACH as u64).collect::<Vec<_>>(), "each sequence once, none left out");
    all_told.recv().unwrap();
    sync.stop().unwrap();
    let metrics = sync.metrics().unwrap();
    assert_eq!((metrics.enqueued_total, metrics.pending), (8 * EACH as u64, 8 * EACH as u64), "{metrics:?}");
}

fn after(sequence: u64) -> OperationFilter {
    OperationFilter { after: sequence, limit: 1, ..OperationFilter::default() }
}

#[test]
fn closing_under_load_keeps_exactly_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let sync = open(folder.path());
    sync.start().unwrap();
    let enough = Arc::new(AtomicUsize::new(0));
    let acknowledged: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (sync, enough) = (sync.clone(), Arc::clone(&enough));
                scope.spawn(move || {
                    for n in 0.. {
                        match sync.enqueue(pin(format!("{writer}-{n}"))) {
                            Ok(_) => enough.fetch_add(1, Ordering::Relaxed),
                            Err(SynclineError::Closed) => return n,
                            Err(error) => panic!("{error}"),
                        };
                    }
                    unreachable!("the loop ends when the manager is closed")
                })
            })
            .collect();
        while enough.load(Ordering::Relaxed) < 100 {
            thread::yield_now();
        }
        sync.close();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    let metrics = open(folder.path()).metrics().unwrap();
    assert_eq!(metrics.enqueued_total, acknowledged as u64);
    assert_eq!((metrics.pending, metrics.in_progress), (acknowledged as u64, 0));
}

#[test]
fn the_last_handle_may_go_within_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    let sync = open(folder.path());
    let last = Arc::new(std::sync::Mutex::new(None));
    let (sender, gone) = mpsc::channel();
    let (hand_over, handed_over) = mpsc::channel::<()>();
    let (inside, handed_over) = (Arc::clone(&last), std::sync::Mutex::new(handed_over));
    sync.add_operation_listener(move |_| {
        handed_over.lock().unwrap().recv().unwrap();
        let handle: Option<SyncManager> = inside.lock().unwrap().take();
        drop(handle);
        sender.send(thread::current().name().map(str::to_owned)).unwrap();
    })
    .unwrap();
    sync.start().unwrap();
    sync.enqueue(pin("p1".into())).unwrap();
    *last.lock().unwrap() = Some(sync);
    hand_over.send(()).unwrap();
    assert_eq!(gone.recv().unwrap().as_deref(), Some("syncline-callbacks"));
    assert_eq!(open(folder.path()).metrics().unwrap().enqueued_total, 1);
}

#[test]
fn the_last_handle_may_go_on_a_worker_of_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("a.db"), "http://127.0.0.1:9", "user-1", "team-1");
    let environment = Environment::system(&config, Arc::new(SignedIn)).unwrap();
    let runtime = Arc::clone(&environment.runtime);
    let sync = SyncManager::open(config, environment).unwrap();
    sync.start().unwrap();
    sync.enqueue(pin("p1".into())).unwrap();
    let (sender, gone) = mpsc::channel();
    let (hand_over, handed_over) = tokio::sync::oneshot::channel::<()>();
    runtime.spawn(Box::pin(async move {
        handed_over.await.unwrap();
        drop(sync);
        sender.send(()).unwrap();
    }));
    // The task holds the last handle, and the handle the last reference to the runtime that runs the task.
    drop(runtime);
    hand_over.send(()).unwrap();
    gone.recv().unwrap();
    assert_eq!(open(folder.path()).metrics().unwrap().enqueued_total, 1);
}

#[test]
fn an_async_call_works_on_any_executor() {
    let folder = tempfile::tempdir().unwrap();
    let sync = open(folder.path());
    sync.enqueue(pin("p1".into())).unwrap();
    let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let summary = executor.block_on(sync.process_queue()).unwrap();
    assert_eq!((summary.completed, sync.metrics().unwrap().pending), (0, 1), "nobody is there, and that is no error");
}
