//! Draining: who wants it, the task that does it in the background, and the calls that do it to the end.
//!
//! Whoever wants the queue drained engages the device: the process lock is taken and a new term begins. From then on anyone
//! may turn the crank ([`Shared::pump`]): it starts every request that may start now. A request's answer is taken by its own
//! task. When nobody wants draining any more, requests under way are either given up at once (stop, deadline, close) or,
//! if a caller merely went away, may still be answered; then the process lock is released.

use std::convert::Infallible;
use std::time::Duration;

use syncline_protocol::{Timestamp, planted};

use super::deliver::deliver;
use super::primitives::Arc;
use super::shared::{Device, Shared, Standing};
use super::tasks::{First, race};
use crate::environment::{Environment, LockGuard};
use crate::error::{Result, SynclineError};
use crate::metrics::SyncState;
use crate::sync::{Action, SyncSummary};

/// How often a file that another process drains is asked for again.
const ELSEWHERE_RETRY: Duration = Duration::from_secs(5);
/// No wait is longer: the wall clock may jump, and a device that slept does not count the time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A storage that fails is not asked again before this.
const FAILURE_RETRY: Duration = Duration::from_secs(5);

impl Device {
    fn is_wanted(&self) -> bool {
        self.background.is_some() || self.runs > 0
    }

    /// Takes the process lock, if this process does not hold it. Returns whether it does now.
    pub(super) fn engage(&mut self, environment: &Environment) -> Result<bool> {
        if self.guard.is_none() {
            let guard = environment.lock.try_acquire()?;
            self.elsewhere = guard.is_none();
            if guard.is_none() {
                return Ok(false);
            }
            self.driver.start(&mut self.store, environment.clock.now())?;
            self.guard = guard;
        }
        self.driver.resume();
        Ok(true)
    }

    /// Gives up what is in flight and releases the process lock. What cannot be written now, the next term mends.
    /// Gives back what was held, for those who still need it a moment.
    pub(super) fn disengage(&mut self, environment: &Environment) -> Option<Box<dyn LockGuard>> {
        if self.guard.is_some() {
            let returned = self.driver.abandon_all(&mut self.store, environment.clock.now(), &*environment.random);
            if let Err(error) = self.store.noticing(returned) {
                log::warn!("operations in flight could not be returned to pending yet: {error}");
            }
        }
        self.driver.pause();
        self.elsewhere = false;
        self.guard.take()
    }

    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        let state = if self.guard.is_some() {
            self.driver.state(now)
        } else if self.elsewhere && self.is_wanted() {
            SyncState::Elsewhere
        } else {
            SyncState::Paused
        };
        Standing { state, searching: self.guard.is_some() && self.driver.is_searching() }
    }
}

/// What a turn of the crank left.
struct Pumped {
    /// Ask again at this moment.
    until: Option<Timestamp>,
    /// Nothing is in flight and nothing can be sent now.
    at_rest: bool,
}

impl Shared {
    /// Starts every request that may start now.
    fn pump(self: &Arc<Self>) -> Result<Pumped> {
        let environment = &self.environment;
        loop {
            let now = environment.clock.now();
            // The lock is taken anew for each request, so that writers get their turn between two claims.
            let (action, at_rest) = self.on_file(|device| {
                if device.guard.is_none() {
                    return Ok((Action::Wait { until: None }, true));
                }
                let action = device.driver.next(&mut device.store, now, &*environment.random)?;
                let at_rest = device.driver.is_at_rest();
                if device.driver.is_superseded() {
                    // The lock is another's by now, whatever the system said: only who asks for it anew may go on.
                    device.guard = None;
                    device.elsewhere = true;
                }
                if (at_rest || planted!(DoubleClaim)) && !device.is_wanted() {
                    device.guard = None;
                }
                Ok((action, at_rest))
            })?;
            match action {
                Action::Send { ticket, request, reason } => {
                    let abandoned = self.abandoned.subscribe();
                    let task = deliver(Arc::clone(self), abandoned, ticket, request, reason);
                    environment.runtime.spawn(Box::pin(task));
                }
                Action::Wait { until: Some(until) } if until <= now => {}
                Action::Wait { until } => return Ok(Pumped { until, at_rest }),
            }
        }
    }

    /// After an answer: more may go now, or the lock be released.
    pub(super) fn answered(self: &Arc<Self>) {
        self.progress.send_modify(|count| *count += 1);
        self.wake.notify_one();
        self.end_lingering();
    }

    /// Releases the process lock once nobody wants draining any more and the last answer has come.
    fn end_lingering(self: &Arc<Self>) {
        let lingering = self.locked(|device| device.guard.is_some() && !device.is_wanted());
        if lingering == Ok(true)
            && let Err(error) = self.pump()
        {
            log::warn!("delivery could not be ended cleanly: {error}");
        }
    }

    /// Starts the background task, if it does not run.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let started = self.locked(|device| {
            if device.background.is_some() {
                return None;
            }
            device.tasks_started += 1;
            device.background = Some(device.tasks_started);
            device.background
        })?;
        if let Some(task) = started {
            let shared = Arc::clone(self);
            self.environment.runtime.spawn(Box::pin(async move {
                while let Some(wait) = shared.background_turn(task) {
                    race(shared.wake.notified(), shared.environment.runtime.sleep(wait)).await;
                }
                // What woke it may have been meant for the task that took its place.
                shared.wake.notify_one();
            }));
        }
        Ok(())
    }

    /// How long to wait before the next turn; none when this task is no longer wanted.
    fn background_turn(self: &Arc<Self>, task: u64) -> Option<Duration> {
        let engaged = self
            .on_file(|device| (device.background == Some(task)).then(|| device.engage(&self.environment)).transpose());
        let pumped = match engaged {
            Ok(None) => return None,
            Ok(Some(false)) => return Some(ELSEWHERE_RETRY),
            Ok(Some(true)) => self.pump(),
            Err(error) => Err(error),
        };
        match pumped {
            Ok(pumped) => Some(self.wait_after(&pumped)),
            Err(SynclineError::Closed) => None,
            Err(error) => {
                log::warn!("delivery waits, because {error}");
                Some(FAILURE_RETRY)
            }
        }
    }

    fn wait_after(&self, pumped: &Pumped) -> Duration {
        let longest = if planted!(TimerNotArmed) { LONGEST_WAIT * 60 * 24 } else { LONGEST_WAIT };
        let millis = pumped.until.map(|until| until.millis() - self.environment.clock.now().millis());
        millis.map_or(longest, |millis| Duration::from_millis(millis.max(0).unsigned_abs())).min(longest)
    }

    /// Turns the crank whenever there may be something to do, for as long as it is polled.
    pub(super) async fn crank(self: &Arc<Self>) -> Result<Infallible> {
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update();
            let wait = self.wait_after(&self.pump()?);
            race(progress.changed(), self.environment.runtime.sleep(wait)).await;
        }
    }

    /// Ends the background task. What is in flight is given up, unless a call still wants it.
    pub(super) fn stop(self: &Arc<Self>) -> Result<()> {
        self.locked(|device| {
            device.background = None;
            self.disengage_unless_wanted(device);
        })?;
        self.wake.notify_one();
        Ok(())
    }

    fn disengage_unless_wanted(&self, device: &mut Device) {
        if !device.is_wanted() {
            device.disengage(&self.environment);
            self.abandon_requests();
        }
    }

    /// Sends until nothing more can be sent now, and pulls all there is.
    pub(super) async fn drain(self: &Arc<Self>) -> Result<SyncSummary> {
        let run = Run::begin(self)?;
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update();
            if self.pump()?.at_rest {
                return run.summary();
            }
            // The sender lives as long as `self`.
            let _ = progress.changed().await;
        }
    }

    /// As [`Shared::drain`], but over when `deadline` is. Returns whether it came to its end.
    pub(super) async fn drain_until(self: &Arc<Self>, deadline: Duration) -> Result<(SyncSummary, bool)> {
        // What must still be written at the end takes time, too.
        let margin = (deadline / 10).min(Duration::from_secs(1));
        let over = self.environment.runtime.sleep(deadline - margin);
        let run = Run::begin(self)?;
        match race(self.drain(), over).await {
            First::This(drained) => drained.map(|summary| (summary, true)),
            First::Other(()) => {
                let summary = run.summary()?;
                run.give_up();
                Ok((summary, false))
            }
        }
    }
}

/// A call that wants the queue drained, for as long as it lives.
pub(super) struct Run {
    shared: Arc<Shared>,
    before: SyncSummary,
    /// Whether requests under way may still be answered when it ends: cancelling a call kills no delivery.
    lingers: bool,
}

impl Run {
    /// # Errors
    /// `Locked` while another process drains the file.
    pub(super) fn begin(shared: &Arc<Shared>) -> Result<Self> {
        let before = shared.on_file(|device| {
            if !device.engage(&shared.environment)? {
                return Err(SynclineError::Locked);
            }
            device.runs += 1;
            device.driver.nudge();
            Ok(device.driver.summary())
        })?;
        Ok(Self { shared: Arc::clone(shared), before, lingers: true })
    }

    fn summary(&self) -> Result<SyncSummary> {
        self.shared.locked(|device| device.driver.summary().since(&self.before))
    }

    /// Ends at once: what is in flight is given up, unless others want it.
    fn give_up(mut self) {
        self.lingers = false;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Closed: there is nothing to end.
        let _ = self.shared.locked(|device| {
            device.runs -= 1;
            if self.lingers && !device.is_wanted() {
                device.driver.pause();
            } else {
                self.shared.disengage_unless_wanted(device);
            }
        });
        self.shared.end_lingering();
    }
}
