use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock, QuantaInstant};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota};

use crate::config::{LimitsConfig, ServeError};

/// How many devices' worth of requests one user may send.
const DEVICES_PER_USER: u32 = 8;
/// Above so many remembered clients, the idle ones are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// How often a user and a device may ask.
pub(super) struct RateLimit {
    devices: DefaultKeyedRateLimiter<(String, String)>,
    users: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl RateLimit {
    pub(super) fn new(limits: &LimitsConfig) -> Result<Self, ServeError> {
        let number = |value: u32, name| NonZeroU32::new(value).ok_or(ServeError::Limit(name));
        let rate = number(limits.requests_per_minute, "requests_per_minute")?;
        let burst = number(limits.burst, "burst")?;
        let many = NonZeroU32::MIN.saturating_add(DEVICES_PER_USER - 1);
        Ok(Self {
            devices: DefaultKeyedRateLimiter::dashmap(Quota::per_minute(rate).allow_burst(burst)),
            users: DefaultKeyedRateLimiter::dashmap(
                Quota::per_minute(rate.saturating_mul(many)).allow_burst(burst.saturating_mul(many)),
            ),
            clock: DefaultClock::default(),
        })
    }

    /// Counts a request of a user, or says how many seconds to wait.
    pub(super) fn check_user(&self, user_id: &str) -> Result<(), u64> {
        if self.devices.len() > MAX_REMEMBERED {
            self.devices.retain_recent();
            self.users.retain_recent();
        }
        self.users.check_key(&user_id.to_owned()).map_err(|not_yet| self.seconds(&not_yet))
    }

    /// Counts a request of a user's device, or says how many seconds to wait.
    pub(super) fn check_device(&self, user_id: &str, device_id: &str) -> Result<(), u64> {
        let device = (user_id.to_owned(), device_id.to_owned());
        self.devices.check_key(&device).map_err(|not_yet| self.seconds(&not_yet))
    }

    fn seconds(&self, not_yet: &NotUntil<QuantaInstant>) -> u64 {
        not_yet.wait_time_from(self.clock.now()).as_secs().saturating_add(1)
    }
}
