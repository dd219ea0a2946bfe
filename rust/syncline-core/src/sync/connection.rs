//! How the way to the endpoint fares. Its trouble is nobody's fault: it delays everything and charges nothing.

use syncline_protocol::Timestamp;

use super::NetworkStatus;
use super::retry::{connection_backoff_ms, cut};
use crate::environment::Random;
use crate::transport::Route;

/// A wait with decorrelated jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    wait: Option<Wait>,
    previous_ms: u64,
}

#[derive(Debug, Clone)]
struct Wait {
    until: Timestamp,
    ms: u64,
    reason: String,
}

impl Backoff {
    /// One more failure. Those of requests that left before the wait began do not lengthen it.
    pub(crate) fn fail(&mut self, reason: impl Into<String>, now: Timestamp, random: &dyn Random) {
        if self.until(now).is_some() {
            return;
        }
        let ms = connection_backoff_ms(self.previous_ms, random);
        self.previous_ms = ms;
        self.wait = Some(Wait { until: now.plus_millis(to_i64(ms)), ms, reason: reason.into() });
    }

    /// Nothing is wrong.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// May try at once, without having shown that all is well.
    pub(crate) fn try_now(&mut self) {
        self.wait = None;
    }

    /// Whether the last try failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.previous_ms > 0
    }

    /// The end of the wait, if there is one.
    pub(crate) fn until(&mut self, now: Timestamp) -> Option<Timestamp> {
        let wait = self.wait.as_mut()?;
        wait.until = cut(wait.until, wait.ms, now);
        if wait.until <= now {
            self.wait = None;
        }
        self.wait.as_ref().map(|wait| wait.until)
    }

    fn reason(&self) -> Option<&str> {
        self.wait.as_ref().map(|wait| wait.reason.as_str())
    }
}

/// The connection: the network, its backoff, `Retry-After`, and whether the endpoint speaks our protocol at all.
#[derive(Debug)]
pub(crate) struct Connection {
    network: NetworkStatus,
    backoff: Backoff,
    /// The route that failed: only its own success ends the backoff, or a pull that works would hide pushes that do not.
    failed: Option<Route>,
    retry_after: Option<(Timestamp, u64)>,
    unsupported: Option<Vec<u32>>,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            network: NetworkStatus::Online { metered: false },
            backoff: Backoff::default(),
            failed: None,
            retry_after: None,
            unsupported: None,
        }
    }
}

impl Connection {
    /// Whether the platform reports a network.
    pub(crate) fn is_online(&self) -> bool {
        self.network != NetworkStatus::Offline
    }

    /// The platform reports. A network, even the same one again, is a reason to try at once.
    pub(crate) fn network_changed(&mut self, status: NetworkStatus) {
        self.network = status;
        if self.is_online() {
            self.backoff.reset();
        }
    }

    /// A request on `route` failed for a reason that is no operation's.
    pub(crate) fn fail(&mut self, route: Route, reason: &str, now: Timestamp, random: &dyn Random) {
        self.failed = Some(route);
        self.backoff.fail(reason, now, random);
    }

    /// Our endpoint answered a request on `route`.
    pub(crate) fn works(&mut self, route: Route) {
        self.unsupported = None;
        if self.failed.is_none_or(|failed| failed == route) {
            self.failed = None;
            self.backoff.reset();
        }
    }

    /// The endpoint speaks other protocol versions.
    pub(crate) fn set_unsupported(&mut self, supported: Vec<u32>) {
        self.unsupported = Some(supported);
    }

    /// The protocol versions that the endpoint speaks, if ours is not among them.
    pub(crate) fn unsupported(&self) -> Option<&[u32]> {
        self.unsupported.as_deref()
    }

    /// The user asks now: the jitter may be skipped, the server's own word may not.
    pub(crate) fn try_now(&mut self) {
        self.backoff.try_now();
    }

    /// What `Retry-After` asked for, as the store keeps it.
    pub(crate) fn set_retry_after(&mut self, wait: Option<(Timestamp, u64)>) {
        self.retry_after = wait;
    }

    /// While in doubt, one request at a time finds out.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.backoff.is_failing()
    }

    /// Until when nothing may start, and why.
    pub(crate) fn blocked(&mut self, now: Timestamp) -> Option<(Timestamp, String)> {
        if let Some((until, ms)) = self.retry_after {
            let until = cut(until, ms, now);
            self.retry_after = (until > now).then_some((until, ms));
        }
        let jitter = self.backoff.until(now).map(|until| (until, self.backoff.reason().unwrap_or_default().to_owned()));
        let told = self.retry_after.map(|(until, _)| (until, "retry_after".to_owned()));
        match (jitter, told) {
            (Some(jitter), Some(told)) => Some(if told.0 >= jitter.0 { told } else { jitter }),
            (jitter, told) => jitter.or(told),
        }
    }

    /// As [`Connection::blocked`], without tidying up.
    pub(crate) fn blocked_at(&self, now: Timestamp) -> Option<(Timestamp, String)> {
        let jitter = self.backoff.wait.as_ref().map(|wait| (cut(wait.until, wait.ms, now), wait.reason.clone()));
        let told = self.retry_after.map(|(until, ms)| (cut(until, ms, now), "retry_after".to_owned()));
        jitter.into_iter().chain(told).filter(|(until, _)| *until > now).max_by_key(|(until, _)| *until)
    }
}

fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
