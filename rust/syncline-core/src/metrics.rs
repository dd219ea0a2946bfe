use syncline_protocol::{MAX_COUNTER, Timestamp};

/// What delivery is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing to do, or nothing that may be done now.
    Idle,
    /// A request is under way.
    Syncing,
    /// The platform reports no network.
    Offline,
    /// The connection waits; at once again when a network is reported.
    Backoff {
        /// Until then.
        until: Timestamp,
        /// Why, as a word: `retry_after`, `unreachable`, `timeout`, `not_our_endpoint`, …
        reason: String,
    },
    /// The endpoint wants another credential. Nothing is lost.
    AuthRequired {
        /// What it said, as a word: `unauthorized`, `wrong_user`, `wrong_scope`, `no_credential`, …
        reason: String,
    },
    /// The endpoint does not speak this library's protocol version. It is asked again with the connection's backoff.
    UnsupportedProtocol {
        /// The versions it speaks.
        supported: Vec<u32>,
    },
    /// Delivery was not started, or was stopped.
    Paused,
    /// Another process drains this file.
    Elsewhere,
}

impl SyncState {
    /// The word in every language.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Syncing => "syncing",
            Self::Offline => "offline",
            Self::Backoff { .. } => "backoff",
            Self::AuthRequired { .. } => "auth_required",
            Self::UnsupportedProtocol { .. } => "unsupported_protocol",
            Self::Paused => "paused",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// How the queue stands. Reading it costs the same at 10 and at 1,000,000 operations.
///
/// `enqueued_total = completed_total + cancelled_total + pending + in_progress + failed + conflicted`, always.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueMetrics {
    /// Operations that have not ended.
    pub queue_length: u64,
    /// Waiting to be sent.
    pub pending: u64,
    /// Being delivered.
    pub in_progress: u64,
    /// Kept until retried or discarded.
    pub failed: u64,
    /// Waiting for the app to resolve a conflict.
    pub conflicted: u64,
    /// Decided on the server, since the file was made.
    pub completed_total: u64,
    /// Withdrawn or folded, since the file was made.
    pub cancelled_total: u64,
    /// Ever enqueued.
    pub enqueued_total: u64,
    /// From enqueue to completion, mean over all, in milliseconds; 0 before the first.
    pub avg_sync_latency_ms: f64,
    /// The median, to within a tenth.
    pub p50_sync_latency_ms: f64,
    /// 95 of 100 were faster, to within a tenth.
    pub p95_sync_latency_ms: f64,
    /// Rows in the device's ledger, ever.
    pub conflicts_detected: u64,
    /// When the endpoint last answered a push or pull.
    pub last_successful_sync: Option<Timestamp>,
    /// Age of the oldest operation still to be delivered, in milliseconds.
    pub oldest_pending_age_ms: Option<u64>,
    /// Payload bytes of the operations that have not ended.
    pub bytes_pending: u64,
    /// What delivery is doing.
    pub state: SyncState,
}

/// Latencies in buckets that grow by the fourth root of two, so that a percentile is right to within a tenth.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LatencyHistogram {
    counts: Vec<u64>,
    sum: u64,
}

/// Bucket 160 begins at about 13 days; what is later falls into it.
const BUCKETS: usize = 161;

impl LatencyHistogram {
    /// Reads what [`LatencyHistogram::text`] wrote; what cannot be read counts as empty.
    pub(crate) fn parse(text: &str) -> Self {
        let mut counts: Vec<u64> = serde_json::from_str(text).unwrap_or_default();
        let sum = counts.pop().unwrap_or(0);
        counts.truncate(BUCKETS);
        let total = counts.iter().try_fold(0_u64, |total, count| total.checked_add(*count));
        if total.is_none_or(|total| total > MAX_COUNTER) { Self::default() } else { Self { counts, sum } }
    }

    /// A JSON array: the counts, then the sum of all latencies.
    pub(crate) fn text(&self) -> String {
        let all: Vec<u64> = self.counts.iter().copied().chain([self.sum]).collect();
        serde_json::json!(all).to_string()
    }

    pub(crate) fn add(&mut self, millis: u64) {
        let bucket = if millis == 0 { 0 } else { 1 + ((millis as f64).log2() * 4.0) as usize };
        let bucket = bucket.min(BUCKETS - 1);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(millis);
    }

    pub(crate) fn mean(&self) -> f64 {
        let count: u64 = self.counts.iter().sum();
        if count == 0 { 0.0 } else { self.sum as f64 / count as f64 }
    }

    /// The latency that the share `of` (0 to 1) of all did not exceed: the middle of its bucket.
    pub(crate) fn percentile(&self, of: f64) -> f64 {
        let count: u64 = self.counts.iter().sum();
        let wanted = (count as f64 * of).ceil() as u64;
        let mut seen = 0;
        for (bucket, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= wanted && *n > 0 {
                return if bucket == 0 { 0.0 } else { 2f64.powf((bucket as f64 - 0.5) / 4.0) };
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_right_to_within_a_tenth(mut latencies in prop::collection::vec(1u64..1_000_000, 1..200)) {
            let mut histogram = LatencyHistogram::default();
            latencies.iter().for_each(|latency| histogram.add(*latency));
            let histogram = LatencyHistogram::parse(&histogram.text());
            latencies.sort_unstable();
            for of in [0.5, 0.95] {
                let exact = latencies[(latencies.len() as f64 * of).ceil() as usize - 1] as f64;
                let told = histogram.percentile(of);
                prop_assert!((told / exact - 1.0).abs() < 0.1 || (told - exact).abs() < 1.0, "{told} for {exact}");
            }
            let mean = latencies.iter().sum::<u64>() as f64 / latencies.len() as f64;
            prop_assert!((histogram.mean() - mean).abs() < 1e-6);
        }
    }

    #[test]
    fn nothing_measured_is_zero() {
        let histogram = LatencyHistogram::parse("[]");
        assert_eq!((histogram.mean(), histogram.percentile(0.5)), (0.0, 0.0));
    }

    #[test]
    fn counts_that_nobody_can_have_counted_are_nothing() {
        let histogram = LatencyHistogram::parse("[18446744073709551615,1,7]");
        assert_eq!((histogram.mean(), histogram.percentile(0.5)), (0.0, 0.0));
    }
}
