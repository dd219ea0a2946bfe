//! The demo's processes, as the demo holds them: started from this very program, spoken to over pipes, killed when dropped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::DemoError;
use super::control::{Command, Envelope, Reply};

fn start(arguments: &[&str], log: &Path) -> Result<(Child, ChildStdin, Lines<BufReader<ChildStdout>>), DemoError> {
    let program = std::env::current_exe()?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::options().create(true).append(true).open(log)?)
        // A Ctrl-C is the demo's to handle: the terminal must not send it to the children as well.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout) =
        child.stdin.take().zip(child.stdout.take()).ok_or(DemoError::Child("a process has no pipes".into()))?;
    Ok((child, stdin, BufReader::new(stdout).lines()))
}

/// The endpoint's process.
pub(crate) struct EndpointProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    /// The endpoint stops when this is closed, also when the demo dies.
    stdin: Option<ChildStdin>,
}

impl EndpointProcess {
    /// Starts `syncline serve` in `folder` on a port of the system's choice and waits until it listens. Its data
    /// is in `database`, a Postgres that has the migrations, or else in a file there.
    pub(crate) async fn start(folder: &Path, database: Option<&str>) -> Result<Self, DemoError> {
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (data, config, log) = (path("endpoint.db"), path("types.json"), folder.join("endpoint.log"));
        let mut arguments = vec![
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            &data,
            "--config",
            &config,
            "--json",
            "--until-stdin-closes",
        ];
        arguments.extend(database.iter().flat_map(|url| ["--postgres", url]));
        let (child, stdin, mut lines) = start(&arguments, &log)?;
        let failed = || DemoError::Child(format!("the endpoint did not start: see {}", log.display()));
        let ready = lines.next_line().await?.ok_or_else(failed)?;
        let ready: Value = serde_json::from_str(&ready).map_err(|_| failed())?;
        let address = ready["listening"].as_str().and_then(|text| text.parse().ok()).ok_or_else(failed)?;
        Ok(Self { address, child, stdin: Some(stdin) })
    }

    /// Ends it with SIGKILL, wherever it is.
    #[cfg(feature = "chaos")]
    pub(crate) async fn kill(mut self) -> Result<(), DemoError> {
        Ok(self.child.kill().await?)
    }

    /// Stops it the polite way and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), DemoError> {
        drop(self.stdin.take());
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(DemoError::Child(format!("the endpoint ended with {status}"))) }
    }
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

/// A device's process.
pub(crate) struct DeviceProcess {
    name: String,
    child: tokio::sync::Mutex<Child>,
    stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    waiting: Waiting,
    next: AtomicU64,
    _reading: JoinSet<()>,
}

impl DeviceProcess {
    /// Starts a device on `file`, speaking to `url`.
    pub(crate) fn start(name: &str, file: &Path, url: &str, user: &str, scope: &str) -> Result<Self, DemoError> {
        Self::start_with(name, file, url, user, scope, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(
        name: &str,
        file: &Path,
        url: &str,
        user: &str,
        scope: &str,
        more: &[&str],
    ) -> Result<Self, DemoError> {
        let log = file.with_extension("log");
        let file = file.to_string_lossy();
        let arguments = ["demo-device", "--file", &file, "--url", url, "--user", user, "--scope", scope];
        let (child, stdin, mut lines) = start(&[&arguments, more].concat(), &log)?;
        let waiting: Waiting = Arc::default();
        let mut reading = JoinSet::new();
        let readers = waiting.clone();
        reading.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(reply) = serde_json::from_str::<Envelope<Reply>>(&line) else { continue };
                let asker = locked(&readers).remove(&reply.id);
                // Whoever asked may have stopped waiting.
                asker.map(|asker| asker.send(reply.body));
            }
            // The process is gone: whoever waits learns it by the end of its channel.
            locked(&readers).clear();
        });
        Ok(Self {
            name: name.to_owned(),
            child: tokio::sync::Mutex::new(child),
            stdin: tokio::sync::Mutex::new(Some(stdin)),
            waiting,
            next: AtomicU64::new(1),
            _reading: reading,
        })
    }

    /// Gives a command and waits for its reply.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, command: Command) -> Result<T, DemoError> {
        let value = self.try_ask(command).await?.map_err(|text| DemoError::Child(format!("{}: {text}", self.name)))?;
        Ok(serde_json::from_value(value)?)
    }

    /// The same, but what the device refuses is a reply as well.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) async fn try_ask(&self, command: Command) -> Result<Reply, DemoError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        locked(&self.waiting).insert(id, sender);
        let mut line = serde_json::to_vec(&Envelope { id, body: command })?;
        line.push(b'\n');
        if let Some(stdin) = self.stdin.lock().await.as_mut() {
            // A device that is gone is noticed below.
            let _ = stdin.write_all(&line).await;
        }
        let gone = |_| DemoError::Child(format!("{} is gone: see its log", self.name));
        receiver.await.map_err(gone)
    }

    /// Ends it with SIGKILL, wherever it is.
    pub(crate) async fn kill(&self) -> Result<(), DemoError> {
        Ok(self.child.lock().await.kill().await?)
    }

    /// Closes its file and waits for its end.
    pub(crate) async fn stop(self) -> Result<(), DemoError> {
        let () = self.ask(Command::Close).await?;
        self.stdin.lock().await.take();
        let status = self.child.into_inner().wait().await?;
        if status.success() { Ok(()) } else { Err(DemoError::Child(format!("{} ended with {status}", self.name))) }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
