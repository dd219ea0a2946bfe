//! What the platform's library is told, in order and several things at a time: a call into another language costs more than most of what
//! is told.

use std::sync::Arc;

use parking_lot::Mutex;
use syncline_core as core;
use syncline_core::environment::Runtime;

use crate::credentials::CredentialReason;
use crate::error::CallbackError;
use crate::metrics::QueueMetrics;
use crate::operation::{OperationStatus, signed};

/// So many are told at once at the most; more would wait for a slow listener in one heap.
const TOLD_AT_ONCE: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
pub enum SyncEvent {
    /// An operation's state changed. Every change gives exactly one event, in the order of the changes, after it is durable.
    Operation {
        /// The operation.
        id: String,
        /// Its place in the queue.
        sequence: i64,
        /// The state it left; none when it was enqueued.
        from: Option<OperationStatus>,
        /// The state it entered.
        to: OperationStatus,
        /// Why, as a word: the cause of a failure, a wait or a cancel.
        reason: Option<String>,
        /// When, by the device's clock.
        at_ms: i64,
    },
    /// An entity's value or sync status changed on this device. Read it with `get`.
    Entity {
        /// The entity's type.
        entity_type: String,
        /// The entity's id.
        entity_id: String,
    },
    /// The figures after changes. Many changes in a row may give one, with the newest figures.
    Metrics {
        /// The figures.
        metrics: QueueMetrics,
    },
    /// A credential is needed: answer with `provide_credential` within 30 seconds, or delivery waits as `auth_required`.
    CredentialNeeded {
        /// What to name in the answer.
        request_id: i64,
        /// Why.
        reason: CredentialReason,
    },
    /// The endpoint wants another credential, and why, as a word. Nothing is lost meanwhile.
    AuthRequired {
        /// What it said: `unauthorized`, `wrong_user`, `wrong_scope`, `no_credential`, …
        reason: String,
    },
    /// Another copy of this file had written; this one goes on under a new device id.
    Forked {
        /// The new device id.
        device_id: String,
    },
    /// The server lost history. What the device still keeps is sent again.
    ServerWentBack {
        /// Completed operations that are pending again.
        returned: i64,
    },
}

/// Hears what happens, on one thread of the core's, one call at a time. It may call anything, closing included.
#[uniffi::export(foreign)]
pub trait SyncListener: Send + Sync {
    /// In the order in which it happened.
    ///
    /// # Errors
    /// What the listener threw: it is logged, and the events count as told.
    fn on_events(&self, events: Vec<SyncEvent>) -> Result<(), CallbackError>;
}

/// Events on their way to the listener.
pub(crate) struct Outbox {
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
}

struct State {
    /// None once closed, or if nobody listens.
    listener: Option<Arc<dyn SyncListener>>,
    events: Vec<SyncEvent>,
    /// A job is on its way that tells all.
    is_due: bool,
}

impl Outbox {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, listener: Option<Arc<dyn SyncListener>>) -> Arc<Self> {
        Arc::new(Self { runtime, state: Mutex::new(State { listener, events: Vec::new(), is_due: false }) })
    }

    /// Whether anybody listens.
    pub(crate) fn has_listener(&self) -> bool {
        self.state.lock().listener.is_some()
    }

    /// To be told after all that the core has still to tell: its callbacks and this job run one after the other.
    pub(crate) fn tell(self: &Arc<Self>, event: SyncEvent) {
        let mut state = self.state.lock();
        if state.listener.is_none() {
            return;
        }
        state.events.push(event);
        if !std::mem::replace(&mut state.is_due, true) {
            let outbox = Arc::clone(self);
            self.runtime.dispatch(Box::new(move || outbox.flush()));
        }
    }

    /// As [`Outbox::tell`], from a callback of the core: where many wait, they are told now.
    fn tell_from_callback(self: &Arc<Self>, event: SyncEvent) {
        self.tell(event);
        if self.state.lock().events.len() >= TOLD_AT_ONCE {
            self.call();
        }
    }

    fn flush(&self) {
        self.state.lock().is_due = false;
        while self.call() {}
    }

    /// Tells what there is. No lock is held meanwhile.
    fn call(&self) -> bool {
        let (listener, events) = {
            let mut state = self.state.lock();
            let count = state.events.len().min(TOLD_AT_ONCE);
            (state.listener.clone(), state.events.drain(..count).collect::<Vec<_>>())
        };
        let Some(listener) = listener.filter(|_| !events.is_empty()) else { return false };
        if let Err(error) = listener.on_events(events) {
            log::warn!("a listener threw: {error}");
        }
        true
    }

    /// Tells what was due, and lets go of the listener.
    pub(crate) fn close(self: &Arc<Self>) {
        let outbox = Arc::clone(self);
        self.runtime.dispatch(Box::new(move || {
            outbox.flush();
            let listener = outbox.state.lock().listener.take();
            // Foreign code may run when the last reference goes: not under the lock.
            drop(listener);
        }));
    }

    /// Has the core tell it everything.
    pub(crate) fn listen(self: &Arc<Self>, manager: &core::SyncManager) -> core::Result<()> {
        if !self.has_listener() {
            return Ok(());
        }
        let outbox = || Arc::clone(self);
        let (operations, entities, metrics, auth, notices) = (outbox(), outbox(), outbox(), outbox(), outbox());
        manager.add_operation_listener(move |event| operations.tell_from_callback(event.into()))?;
        manager.add_entity_listener(move |change| entities.tell_from_callback(change.into()))?;
        manager.add_metrics_listener(move |figures| {
            metrics.tell_from_callback(SyncEvent::Metrics { metrics: figures.into() });
        })?;
        manager.add_auth_listener(move |reason| auth.tell_from_callback(SyncEvent::AuthRequired { reason }))?;
        manager.add_notice_listener(move |notice| notices.tell_from_callback(notice.into()))?;
        Ok(())
    }
}

impl From<core::OperationEvent> for SyncEvent {
    fn from(event: core::OperationEvent) -> Self {
        Self::Operation {
            id: event.id,
            sequence: signed(event.sequence),
            from: event.from.map(Into::into),
            to: event.to.into(),
            reason: event.reason,
            at_ms: event.at.millis(),
        }
    }
}

impl From<core::EntityChange> for SyncEvent {
    fn from(change: core::EntityChange) -> Self {
        Self::Entity { entity_type: change.entity_type, entity_id: change.entity_id }
    }
}

impl From<core::Notice> for SyncEvent {
    fn from(notice: core::Notice) -> Self {
        match notice {
            core::Notice::Forked { device_id } => Self::Forked { device_id },
            core::Notice::ServerWentBack { returned } => Self::ServerWentBack { returned: signed(returned) },
        }
    }
}
