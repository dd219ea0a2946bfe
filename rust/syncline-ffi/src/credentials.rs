//! The app's credentials: asked for by an event, answered by a call. No thread of the core's waits meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use syncline_core::environment::{Clock, Runtime};
use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason as CoreReason, Token};
use tokio::sync::oneshot;

use crate::events::{Outbox, SyncEvent};

/// Without an answer for so long, delivery waits as `auth_required`.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// A token that expires sooner than this is not sent any more: it would not last for a request.
const LASTS_MS: i64 = 10_000;

/// Why a credential is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CredentialReason {
    /// A request is about to be sent: a token at hand will do.
    First,
    /// The endpoint refused the last one: a fresh one is needed.
    Refresh,
}

/// Asks the platform's library, and keeps what it said while that is good. Nothing of it is stored.
#[derive(Default)]
pub(crate) struct Credentials {
    /// Given once the environment is there, which holds this.
    outside: OnceLock<Outside>,
    state: Mutex<State>,
}

struct Outside {
    outbox: Arc<Outbox>,
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    last_request: i64,
    waiting: BTreeMap<i64, oneshot::Sender<Option<Token>>>,
    kept: Option<Kept>,
}

struct Kept {
    token: Token,
    expires_at_ms: Option<i64>,
    /// A request has gone out with it.
    used: bool,
}

impl Credentials {
    pub(crate) fn connect(&self, outbox: Arc<Outbox>, runtime: Arc<dyn Runtime>, clock: Arc<dyn Clock>) {
        let _ = self.outside.set(Outside { outbox, runtime, clock });
    }

    /// The answer to a request, or, with 0, a token of the library's own accord. False: nothing was asked under that number.
    pub(crate) fn provide(&self, request_id: i64, token: Option<String>, expires_at_ms: Option<i64>) -> bool {
        let mut state = self.state.lock();
        if !(0..=state.last_request).contains(&request_id) {
            return false;
        }
        let token = token.map(Token);
        // What comes too late is good for the next request.
        let waiting = state.waiting.remove(&request_id);
        state.kept = token.clone().map(|token| Kept { token, expires_at_ms, used: waiting.is_some() });
        if let Some(waiting) = waiting {
            let _ = waiting.send(token);
        }
        true
    }

    /// What is at hand and good for `reason`: the endpoint has refused the one that was used, and may like one that came since.
    fn kept(&self, reason: CoreReason, now_ms: i64) -> Option<Token> {
        let mut state = self.state.lock();
        let refused = |kept: &Kept| kept.used && reason == CoreReason::Refresh;
        let is_over = |kept: &Kept| kept.expires_at_ms.is_some_and(|expires| expires <= now_ms + LASTS_MS);
        if state.kept.as_ref().is_some_and(|kept| refused(kept) || is_over(kept)) {
            state.kept = None;
        }
        state.kept.as_mut().map(|kept| {
            kept.used = true;
            kept.token.clone()
        })
    }

    async fn ask(&self, reason: CoreReason) -> Option<Token> {
        let outside = self.outside.get()?;
        if let Some(token) = self.kept(reason, outside.clock.now().millis()) {
            return Some(token);
        }
        if !outside.outbox.has_listener() {
            return None;
        }
        let (answer, mut answered) = oneshot::channel();
        let request_id = {
            let mut state = self.state.lock();
            state.last_request += 1;
            let request_id = state.last_request;
            state.waiting.insert(request_id, answer);
            request_id
        };
        let reason = match reason {
            CoreReason::First => CredentialReason::First,
            CoreReason::Refresh => CredentialReason::Refresh,
        };
        outside.outbox.tell(SyncEvent::CredentialNeeded { request_id, reason });
        let token = tokio::select! {
            answer = &mut answered => answer.ok().flatten(),
            () = outside.runtime.sleep(ANSWERED_WITHIN) => {
                log::warn!("no credential was provided within 30 s");
                None
            }
        };
        self.state.lock().waiting.remove(&request_id);
        token
    }
}

impl CredentialProvider for Credentials {
    fn token(&self, reason: CoreReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        Box::pin(async move { Ok(self.ask(reason).await) })
    }
}

#[cfg(test)]
mod tests {
    use syncline_testkit::{ManualClock, Steps};

    use super::*;
    use crate::error::CallbackError;
    use crate::events::SyncListener;

    struct Silent;

    impl SyncListener for Silent {
        fn on_events(&self, _: Vec<SyncEvent>) -> Result<(), CallbackError> {
            Ok(())
        }
    }

    fn connected(steps: &Steps, clock: &ManualClock, listener: Option<Arc<dyn SyncListener>>) -> Arc<Credentials> {
        let runtime: Arc<dyn Runtime> = Arc::new(steps.owner());
        let credentials = Arc::new(Credentials::default());
        credentials.connect(Outbox::new(Arc::clone(&runtime), listener), runtime, Arc::new(clock.clone()));
        credentials
    }

    fn asks(
        steps: &Steps,
        credentials: &Arc<Credentials>,
        reason: CoreReason,
    ) -> syncline_testkit::Started<Option<Token>> {
        let credentials = Arc::clone(credentials);
        steps.start(async move { credentials.ask(reason).await })
    }

    #[test]
    fn no_answer_in_30_seconds_is_none_and_one_that_comes_late_is_for_the_next() {
        let steps = Steps::default();
        let clock = ManualClock::new(&steps);
        let credentials = connected(&steps, &clock, Some(Arc::new(Silent)));
        let asked = asks(&steps, &credentials, CoreReason::First);
        steps.advance(Duration::from_millis(29_999));
        assert!(asked.take().is_none(), "it waits");
        steps.advance(Duration::from_millis(1));
        assert_eq!(asked.take(), Some(None));

        assert!(credentials.provide(1, Some("late".into()), None), "the request was made");
        let asked = asks(&steps, &credentials, CoreReason::First);
        steps.run_until_idle();
        assert_eq!(asked.take(), Some(Some(Token("late".into()))));
    }

    #[test]
    fn a_token_is_kept_until_it_expires_or_is_refused() {
        let steps = Steps::default();
        let clock = ManualClock::new(&steps);
        let credentials = connected(&steps, &clock, Some(Arc::new(Silent)));
        let expires = clock.now().millis() + 60_000;
        assert!(credentials.provide(0, Some("short".into()), Some(expires)));
        let kept = |reason| {
            let asked = asks(&steps, &credentials, reason);
            steps.run_until_idle();
            asked.take().flatten().map(|token| token.0)
        };
        assert_eq!(kept(CoreReason::First).as_deref(), Some("short"));
        steps.advance(Duration::from_secs(50));
        assert_eq!(kept(CoreReason::First), None, "it would not last for a request");
        assert!(credentials.provide(1, Some("long".into()), None));
        assert_eq!(kept(CoreReason::First).as_deref(), Some("long"));
        assert_eq!(kept(CoreReason::Refresh), None, "the endpoint refused it");
        assert_eq!(kept(CoreReason::First), None);
        assert!(credentials.provide(0, Some("new".into()), None));
        assert_eq!(kept(CoreReason::Refresh).as_deref(), Some("new"), "the endpoint has not seen it");
        assert!(!credentials.provide(99, None, None), "nobody asked");
    }

    #[test]
    fn nobody_to_ask_is_none_at_once() {
        let steps = Steps::default();
        let credentials = connected(&steps, &ManualClock::new(&steps), None);
        let asked = asks(&steps, &credentials, CoreReason::First);
        steps.run_until_idle();
        assert_eq!(asked.take(), Some(None));
    }
}
