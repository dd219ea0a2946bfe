use syncline_core as core;

use crate::operation::signed;

/// How the queue stands. Reading it costs the same at 10 and at 1,000,000 operations.
///
/// `enqueued_total = completed_total + cancelled_total + pending + in_progress + failed + conflicted`, always.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct QueueMetrics {
    /// Operations that have not ended.
    pub queue_length: i64,
    /// Waiting to be sent.
    pub pending: i64,
    /// Being delivered.
    pub in_progress: i64,
    /// Kept until retried or discarded.
    pub failed: i64,
    /// Waiting for the app to resolve a conflict.
    pub conflicted: i64,
    /// Decided on the server, since the file was made.
    pub completed_total: i64,
    /// Withdrawn or folded, since the file was made.
    pub cancelled_total: i64,
    /// Ever enqueued.
    pub enqueued_total: i64,
    /// From enqueue to completion, mean over all, in milliseconds; 0 before the first.
    pub avg_sync_latency_ms: f64,
    /// The median, to within a tenth.
    pub p50_sync_latency_ms: f64,
    /// What 95 of 100 did not exceed, to within a tenth.
    pub p95_sync_latency_ms: f64,
    /// Rows in the device's ledger, ever.
    pub conflicts_detected: i64,
    /// When the endpoint last answered a push or pull.
    pub last_successful_sync_ms: Option<i64>,
    /// Age of the oldest operation still to be delivered.
    pub oldest_pending_age_ms: Option<i64>,
    /// Payload bytes of the operations that have not ended.
    pub bytes_pending: i64,
    /// What delivery is doing.
    pub state: SyncState,
}

/// What delivery is doing. Reasons are words.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "the enum says what reasons are")]
pub enum SyncState {
    /// Nothing to do, or nothing that may be done now.
    Idle,
    /// A request is under way.
    Syncing,
    /// The platform reports no network.
    Offline,
    /// The connection waits; at once again when a network is reported.
    Backoff { until_ms: i64, reason: String },
    /// The endpoint wants another credential. Nothing is lost.
    AuthRequired { reason: String },
    /// The endpoint does not speak this library's protocol version. It is asked again with the connection's backoff.
    UnsupportedProtocol {
        /// The versions it speaks.
        supported: Vec<i32>,
    },
    /// Delivery was not started, or was stopped.
    Paused,
    /// Another process drains this file.
    Elsewhere,
}

impl From<core::SyncState> for SyncState {
    fn from(state: core::SyncState) -> Self {
        use core::SyncState as Core;
        match state {
            Core::Idle => Self::Idle,
            Core::Syncing => Self::Syncing,
            Core::Offline => Self::Offline,
            Core::Backoff { until, reason } => Self::Backoff { until_ms: until.millis(), reason },
            Core::AuthRequired { reason } => Self::AuthRequired { reason },
            Core::UnsupportedProtocol { supported } => Self::UnsupportedProtocol {
                supported: supported.into_iter().filter_map(|version| i32::try_from(version).ok()).collect(),
            },
            Core::Paused => Self::Paused,
            Core::Elsewhere => Self::Elsewhere,
        }
    }
}

impl From<core::QueueMetrics> for QueueMetrics {
    fn from(metrics: core::QueueMetrics) -> Self {
        Self {
            queue_length: signed(metrics.queue_length),
            pending: signed(metrics.pending),
            in_progress: signed(metrics.in_progress),
            failed: signed(metrics.failed),
            conflicted: signed(metrics.conflicted),
            completed_total: signed(metrics.completed_total),
            cancelled_total: signed(metrics.cancelled_total),
            enqueued_total: signed(metrics.enqueued_total),
            avg_sync_latency_ms: metrics.avg_sync_latency_ms,
            p50_sync_latency_ms: metrics.p50_sync_latency_ms,
            p95_sync_latency_ms: metrics.p95_sync_latency_ms,
            conflicts_detected: signed(metrics.conflicts_detected),
            last_successful_sync_ms: metrics.last_successful_sync.map(|at| at.millis()),
            oldest_pending_age_ms: metrics.oldest_pending_age_ms.map(signed),
            bytes_pending: signed(metrics.bytes_pending),
            state: metrics.state.into(),
        }
    }
}
