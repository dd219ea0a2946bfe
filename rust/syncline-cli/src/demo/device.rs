//! One device of the demo: a process with a real [`SyncManager`] over real HTTP, told what to do over its standard input. It ends
//! when that closes, so that it never outlives the demo.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason, Token};
use syncline_core::{
    Config, EntityType, NetworkStatus, NewOperation, OperationFilter, OperationStatus, Receipt, Resolution,
    SyncManager, SyncState, SynclineError,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Stdout};
use tokio::task::{JoinSet, block_in_place};

use super::control::{Acknowledged, Command, Decision, Envelope, How, Kind, Reply, Status, Troubles, Write};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    url: String,
    #[arg(long)]
    user: String,
    #[arg(long)]
    scope: String,
    /// An answer that takes longer is as good as none
    #[arg(long, default_value_t = 10)]
    timeout_seconds: u64,
    #[arg(long, default_value_t = 60)]
    pull_seconds: u64,
    #[arg(long, default_value_t = 15 * 60)]
    keep_seconds: u64,
}

/// The app's sign-in: a token at hand, and a better one for when that is refused.
#[derive(Default)]
struct Session(Mutex<Tokens>);

#[derive(Default)]
struct Tokens {
    at_hand: Option<String>,
    fresh: Option<String>,
    refreshes: u64,
}

impl Session {
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CredentialProvider for Session {
    fn token(&self, reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        let mut tokens = self.tokens();
        if reason == CredentialReason::Refresh {
            tokens.refreshes += 1;
            tokens.at_hand = tokens.fresh.clone();
        }
        let token = tokens.at_hand.clone().map(Token);
        Box::pin(async { Ok(token) })
    }
}

struct Device {
    manager: SyncManager,
    session: Arc<Session>,
    /// The creates of this process's life, for operations that wait for one.
    created: Mutex<HashMap<String, Receipt>>,
}

/// Runs a device until its standard input closes or it is told to close.
///
/// # Errors
/// The file cannot be opened, or the pipes break.
pub(crate) async fn run(args: DeviceArgs) -> Result<(), Failure> {
    let session = Arc::new(Session::default());
    let mut config = Config::new(args.file, args.url, args.user, args.scope)
        .entity_type("form", EntityType { send_before: true, ..EntityType::default() });
    config.network.timeout = Duration::from_secs(args.timeout_seconds);
    config.network.pull_interval = Duration::from_secs(args.pull_seconds);
    config.retention.age = Duration::from_secs(args.keep_seconds);
    let manager = SyncManager::open_system(config, session.clone()).map_err(failed)?;
    manager.network_changed(NetworkStatus::Offline).map_err(failed)?;
    manager.start().map_err(failed)?;
    let device = Arc::new(Device { manager, session, created: Mutex::default() });

    let out = Arc::new(tokio::sync::Mutex::new(tokio::io::stdout()));
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut working = JoinSet::new();
    while let Some(line) = commands.next_line().await? {
        let Envelope { id, body } = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        if matches!(body, Command::Close) {
            block_in_place(|| device.manager.close());
            return Ok(answer(&out, id, Ok(Value::Null)).await?);
        }
        let (device, out) = (device.clone(), out.clone());
        working.spawn(async move {
            let reply = device.obey(body).await.map_err(|error| error.to_string());
            // Nobody listens any more once the demo is gone; then standard input closes too.
            let _ = answer(&out, id, reply).await;
        });
        while working.try_join_next().is_some() {}
    }
    Ok(())
}

fn failed(error: SynclineError) -> Failure {
    Failure::Failed(error.to_string())
}

async fn answer(out: &tokio::sync::Mutex<Stdout>, id: u64, body: Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(&Envelope { id, body })?;
    line.push(b'\n');
    let mut out = out.lock().await;
    out.write_all(&line).await?;
    out.flush().await
}

impl Device {
    async fn obey(&self, command: Command) -> Result<Value, SynclineError> {
        match command {
            Command::Enqueue { writes, how } => block_in_place(|| self.enqueue(&writes, how)).map(value),
            Command::Network { online: true } => {
                self.manager.network_changed(NetworkStatus::Online { metered: false }).map(value)
            }
            Command::Network { online: false } => self.manager.network_changed(NetworkStatus::Offline).map(value),
            Command::Sync => self.manager.process_queue().await.map(|_| Value::Null),
            Command::Tokens { at_hand, fresh } => {
                let mut tokens = self.session.tokens();
                (tokens.at_hand, tokens.fresh) = (Some(at_hand), Some(fresh));
                Ok(Value::Null)
            }
            Command::Status => self.status().map(value),
            Command::Explain { operation } => self.manager.explain(&operation).map(|why| value(why.text)),
            Command::Cancel { operation } => self.manager.cancel(&operation).map(value),
            Command::Resolve { value: merged } => block_in_place(|| self.resolve(&merged)).map(value),
            Command::Retry { operation } => self.manager.retry(&operation).map(value),
            Command::Discard { operation } => self.manager.discard(&operation).map(value),
            Command::Troubles => self.troubles().map(value),
            Command::Decide { conflict, decision } => {
                let resolution = match decision {
                    Decision::Local => Resolution::TakeLocal,
                    Decision::Remote => Resolution::TakeRemote,
                    Decision::Merged(value) => Resolution::Merged(value.to_string()),
                };
                self.manager.resolve_conflict(&conflict, resolution).map(value)
            }
            #[cfg(feature = "chaos")]
            Command::Metrics => self.manager.metrics().map(|metrics| value(super::figures::Figures(metrics))),
            Command::Close => Ok(Value::Null),
        }
    }

    fn enqueue(&self, writes: &[Write], how: How) -> Result<Vec<Acknowledged>, SynclineError> {
        let receipts = match how {
            How::Single => writes.iter().map(|write| self.enqueue_one(write)).collect::<Result<Vec<_>, _>>()?,
            How::Together => self.manager.enqueue_all(writes.iter().map(operation))?,
            How::Transaction => {
                let mut transaction = self.manager.begin_transaction()?;
                for write in writes {
                    transaction.add(operation(write))?;
                }
                transaction.commit_queued()?
            }
        };
        let acknowledged = |receipt: Receipt| Acknowledged { id: receipt.id, sequence: receipt.sequence };
        Ok(receipts.into_iter().map(acknowledged).collect())
    }

    fn enqueue_one(&self, write: &Write) -> Result<Receipt, SynclineError> {
        let mut operation = operation(write);
        let created = || self.created.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = write.after.as_ref().and_then(|entity| created().get(entity).cloned()) {
            operation = operation.after(&earlier);
        }
        let receipt = self.manager.enqueue(operation)?;
        if write.kind == Kind::Create {
            created().insert(write.entity_id.clone(), receipt.clone());
        }
        Ok(receipt)
    }

    fn resolve(&self, merged: &Value) -> Result<u64, SynclineError> {
        let conflicts = self.manager.conflicts(true, 100)?;
        for entry in &conflicts {
            self.manager.resolve_conflict(&entry.conflict.id, Resolution::Merged(merged.to_string()))?;
        }
        Ok(conflicts.len() as u64)
    }

    fn troubles(&self) -> Result<Troubles, SynclineError> {
        let filter = OperationFilter { statuses: vec![OperationStatus::Failed], ..OperationFilter::default() };
        let failed = self.manager.operations(&filter)?.into_iter().map(|operation| operation.id);
        let conflicts = self.manager.conflicts(true, 100)?.into_iter();
        let conflicts = conflicts.map(|entry| (entry.conflict.id, entry.conflict.operation_id));
        Ok(Troubles { failed: failed.collect(), conflicts: conflicts.collect() })
    }

    fn status(&self) -> Result<Status, SynclineError> {
        let metrics = self.manager.metrics()?;
        let reason = match &metrics.state {
            SyncState::Backoff { reason, .. } | SyncState::AuthRequired { reason } => Some(reason.clone()),
            _ => None,
        };
        Ok(Status {
            enqueued: metrics.enqueued_total,
            pending: metrics.pending,
            in_progress: metrics.in_progress,
            completed: metrics.completed_total,
            failed: metrics.failed,
            conflicted: metrics.conflicted,
            cancelled: metrics.cancelled_total,
            state: metrics.state.as_str().to_owned(),
            reason,
            refreshes: self.session.tokens().refreshes,
        })
    }
}

fn operation(write: &Write) -> NewOperation {
    let (entity_type, entity_id) = (&write.entity_type, &write.entity_id);
    let payload = write.payload.as_ref().map(Value::to_string).unwrap_or_default();
    match write.kind {
        Kind::Create => NewOperation::create(entity_type, entity_id, payload),
        Kind::Update => NewOperation::update(entity_type, entity_id, payload),
        Kind::Delete => NewOperation::delete(entity_type, entity_id),
    }
}

fn value(result: impl Serialize) -> Value {
    serde_json::to_value(result).unwrap_or_default()
}
