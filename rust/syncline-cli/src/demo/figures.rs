//! All that a manager counts, as said between processes.

use serde::{Deserialize, Serialize};
use syncline_core::{QueueMetrics, SyncState};
use syncline_protocol::Timestamp;

/// [`QueueMetrics`], but for its state, which a [`Status`](super::control::Status) tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures(#[serde(with = "Fields")] pub(crate) QueueMetrics);

#[derive(Serialize, Deserialize)]
#[serde(remote = "QueueMetrics")]
struct Fields {
    queue_length: u64,
    pending: u64,
    in_progress: u64,
    failed: u64,
    conflicted: u64,
    completed_total: u64,
    cancelled_total: u64,
    enqueued_total: u64,
    avg_sync_latency_ms: f64,
    p50_sync_latency_ms: f64,
    p95_sync_latency_ms: f64,
    conflicts_detected: u64,
    last_successful_sync: Option<Timestamp>,
    oldest_pending_age_ms: Option<u64>,
    bytes_pending: u64,
    #[serde(skip, default = "unsaid")]
    state: SyncState,
}

fn unsaid() -> SyncState {
    SyncState::Idle
}
