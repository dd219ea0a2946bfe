//! Two operating-system processes on one file: both enqueue, one drains; when it dies, the other takes over.
//!
//! The second process is this test program again, run with a role in its environment.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use syncline_core::environment::{FileLock, ProcessLock};
use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason, Token};
use syncline_core::{Config, NewOperation, SyncManager, SynclineError};

const FILE: &str = "SYNCLINE_TEST_FILE";

struct SignedIn;

impl CredentialProvider for SignedIn {
    fn token(&self, _reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        Box::pin(async { Ok(Some(Token("token".into()))) })
    }
}

fn open(file: &Path) -> SyncManager {
    let config = Config::new(file, "http://127.0.0.1:9", "user-1", "team-1");
    SyncManager::open_system(config, Arc::new(SignedIn)).unwrap()
}

fn enqueue(sync: &SyncManager, who: &str, count: usize) {
    for n in 0..count {
        sync.enqueue(NewOperation::create("pin", format!("{who}-{n}"), "{}")).unwrap();
    }
}

fn process_queue(sync: &SyncManager) -> syncline_core::Result<syncline_core::SyncSummary> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(sync.process_queue())
}

/// The other process: does what its standard input says, line by line, and answers each with a line.
#[test]
fn other_process() {
    let Some(file) = std::env::var_os(FILE).map(PathBuf::from) else { return };
    let sync = open(&file);
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "drain" => {
                // Draining goes on: nobody answers on that port, so the background task backs off and keeps the lock.
                sync.start().unwrap();
                while sync.state() == syncline_core::SyncState::Paused {
                    std::thread::yield_now();
                }
            }
            "enqueue" => enqueue(&sync, "other", 50),
            order => panic!("unknown order {order}"),
        }
        // The harness captures `print!`; the pipe does not.
        writeln!(std::io::stdout().lock(), "\ndone").unwrap();
    }
}

struct Other {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Other {
    fn start(file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn wait(&mut self) {
        let done = self.answers.by_ref().lines().map(Result::unwrap).any(|line| line == "done");
        assert!(done, "the other process did what it was told");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_enqueue_one_drains_and_the_other_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let sync = open(&file);
    let mut other = Other::start(&file);
    other.order("drain");
    other.wait();

    assert_eq!(process_queue(&sync), Err(SynclineError::Locked));
    other.order("enqueue");
    enqueue(&sync, "mine", 50);
    other.wait();
    let metrics = sync.metrics().unwrap();
    assert_eq!((metrics.enqueued_total, metrics.queue_length), (100, 100), "right with two processes on one file");
    let rows = sync.operations(&syncline_core::OperationFilter { limit: 1000, ..Default::default() }).unwrap();
    assert!(rows.iter().map(|row| row.sequence).eq(1..=100), "each sequence once");

    other.child.kill().unwrap();
    other.child.wait().unwrap();
    assert!(FileLock::beside(&file).try_acquire().unwrap().is_some(), "the system freed the lock of the dead");
    process_queue(&sync).unwrap();
    let metrics = sync.metrics().unwrap();
    assert_eq!((metrics.pending, metrics.in_progress), (100, 0));
}
