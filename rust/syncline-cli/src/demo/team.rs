//! The demo's cast: the endpoint, the lines, and the devices, with the moves that every chapter needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use syncline_server::auth::Secret;

use super::DemoError;
use super::backend::Backend;
use super::checker::{Case, CaseDevice};
use super::child::{DeviceProcess, EndpointProcess};
use super::control::{Acknowledged, Command, How, Status, Write};
use super::faults::Counts;
use super::plan::Plan;
use super::progress::Progress;
use super::proxy::Line;
use crate::secret;

pub(crate) const SCOPE: &str = "team-1";
/// Nothing in the day takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(90);
const GLANCE: Duration = Duration::from_millis(60);

/// One device and its way to the endpoint.
pub(super) struct Device {
    pub(super) name: String,
    user: String,
    file: PathBuf,
    pub(super) line: Line,
    pub(super) process: DeviceProcess,
    pub(super) acknowledged: BTreeSet<String>,
}

/// Everybody.
pub(super) struct Team {
    endpoint: EndpointProcess,
    backend: Backend,
    data: PathBuf,
    secret: Secret,
    pub(super) devices: Vec<Device>,
    pub(super) progress: Progress,
}

impl Team {
    /// Starts every process; the devices are offline and have a good token.
    pub(super) async fn assemble(
        folder: &Path,
        plan: &Plan,
        mut progress: Progress,
        backend: Backend,
    ) -> Result<Self, DemoError> {
        std::fs::write(folder.join("types.json"), backend.configure(configuration(plan.push_limit)).to_string())?;
        let endpoint = EndpointProcess::start(folder, backend.database()).await?;
        let data = folder.join("endpoint.db");
        let secret = secret::read(&secret::path(&data))?;
        let mut devices = Vec::new();
        for index in 0..plan.shares.len() {
            let name = format!("{}-{}", if index == 0 { "tablet" } else { "phone" }, index + 1);
            let user = format!("user-{}", index + 1);
            let line = Line::open(endpoint.address, plan.seed.wrapping_mul(1_000).wrapping_add(index as u64)).await?;
            let file = folder.join(format!("{name}.db"));
            let process = DeviceProcess::start(&name, &file, &line.url(), &user, SCOPE)?;
            progress.add_device(&name);
            devices.push(Device { name, user, file, line, process, acknowledged: BTreeSet::new() });
        }
        let team = Self { endpoint, backend, data, secret, devices, progress };
        for index in 0..team.devices.len() {
            team.give_token(index, 3_600).await?;
        }
        Ok(team)
    }

    /// Gives a device a token that ends in so many seconds (by the endpoint's clock, without its leeway) and a good one for
    /// when it asks again.
    pub(super) async fn give_token(&self, index: usize, seconds: i64) -> Result<(), DemoError> {
        let device = &self.devices[index];
        let token = |seconds| secret::token(&self.secret, &device.user, SCOPE, seconds);
        device.process.ask(Command::Tokens { at_hand: token(seconds), fresh: token(3_600) }).await
    }

    /// Starts a device's process again on the same file; it is offline and has a good token.
    pub(super) async fn restart(&mut self, index: usize) -> Result<(), DemoError> {
        let device = &mut self.devices[index];
        device.process = DeviceProcess::start(&device.name, &device.file, &device.line.url(), &device.user, SCOPE)?;
        self.give_token(index, 3_600).await
    }

    /// Has a device write, and keeps what it acknowledged. Gives the ids of the operations.
    pub(super) async fn write(&mut self, index: usize, writes: Vec<Write>, how: How) -> Result<Vec<String>, DemoError> {
        let device = &mut self.devices[index];
        let acknowledged: Vec<Acknowledged> = device.process.ask(Command::Enqueue { writes, how }).await?;
        let ids: Vec<String> = acknowledged.into_iter().map(|operation| operation.id).collect();
        device.acknowledged.extend(ids.iter().cloned());
        Ok(ids)
    }

    pub(super) async fn status(&self, index: usize) -> Result<Status, DemoError> {
        let status = self.devices[index].process.ask(Command::Status).await?;
        self.progress.device(index, &status);
        Ok(status)
    }

    pub(super) async fn set_network(&self, index: usize, online: bool) -> Result<(), DemoError> {
        self.devices[index].process.ask(Command::Network { online }).await
    }

    /// Where the connection backs off, the platform reports a network again, as phones do all day. What the endpoint asked for
    /// (`Retry-After`) is not cut short by that.
    pub(super) async fn report_network(&self, index: usize, status: &Status) -> Result<(), DemoError> {
        let waits = status.state == "backoff" && status.reason.as_deref() != Some("retry_after");
        if waits { self.set_network(index, true).await } else { Ok(()) }
    }

    /// Waits until none of these devices has anything to deliver.
    pub(super) async fn drained(&self, indices: &[usize]) -> Result<(), DemoError> {
        let watching = async {
            loop {
                let statuses = try_join_all(indices.iter().map(|index| self.status(*index))).await?;
                if statuses.iter().all(|status| status.waiting() == 0) {
                    return Ok(());
                }
                for (index, status) in indices.iter().zip(&statuses) {
                    self.report_network(*index, status).await?;
                }
                pause(GLANCE).await;
            }
        };
        self.patiently("the queues did not drain", watching).await
    }

    /// Has these devices deliver and pull everything, over a line that is clear.
    pub(super) async fn sync(&self, indices: &[usize]) -> Result<(), DemoError> {
        let syncing = async {
            let each = indices.iter().map(|index| self.devices[*index].process.ask::<()>(Command::Sync));
            try_join_all(each).await?;
            Ok(())
        };
        self.patiently("a device did not finish its sync", syncing).await?;
        self.drained(indices).await
    }

    pub(super) fn everyone(&self) -> Vec<usize> {
        (0..self.devices.len()).collect()
    }

    /// Runs `work`, or says how everybody stands when it takes too long.
    pub(super) async fn patiently<T>(
        &self,
        complaint: &str,
        work: impl Future<Output = Result<T, DemoError>>,
    ) -> Result<T, DemoError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(result) => result,
            Err(_) => {
                let mut text = complaint.to_owned();
                for (device, status) in
                    self.devices.iter().zip(join_all(self.everyone().iter().map(|index| self.status(*index))).await)
                {
                    text += &match status {
                        Ok(status) => {
                            format!("; {} is {} with {} waiting", device.name, status.state, status.waiting())
                        }
                        Err(error) => format!("; {}: {error}", device.name),
                    };
                }
                Err(DemoError::Stuck(text))
            }
        }
    }

    /// What happened on all lines so far.
    pub(super) fn network(&self) -> Counts {
        self.devices.iter().fold(Counts::default(), |mut sum, device| {
            sum += device.line.counts();
            sum
        })
    }

    /// Stops every process and hands over their files.
    pub(super) async fn disband(self) -> Result<(Case, Counts), DemoError> {
        self.progress.chapter("everybody goes home; the checker reads the files");
        let network = self.network();
        let mut devices = Vec::new();
        for device in self.devices {
            device.process.stop().await?;
            devices.push(CaseDevice { name: device.name, file: device.file, acknowledged: device.acknowledged });
        }
        self.endpoint.stop().await?;
        self.backend.leave(&self.data).await?;
        Ok((Case { server: self.data, scope: SCOPE.to_owned(), devices }, network))
    }
}

/// The endpoint's configuration: small pushes, a rule per type, and a schema that a form must satisfy.
fn configuration(push_limit: usize) -> serde_json::Value {
    json!({
        "types": {
            "pin": { "conflict_rule": "last_writer_wins", "delete_rule": "update_wins" },
            "form": {
                "conflict_rule": "manual",
                "schema": {
                    "type": "object",
                    "required": ["place", "date"],
                    "properties": {
                        "place": { "type": "string", "minLength": 1 },
                        "date": { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" },
                        "cost": { "type": "number", "minimum": 0 },
                    },
                },
            },
        },
        "limits": { "request": { "max_operations": push_limit }, "requests_per_minute": 100_000, "burst": 10_000 },
    })
}

#[expect(clippy::disallowed_methods, reason = "the demo runs in real time")]
pub(crate) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}
