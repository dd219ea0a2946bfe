//! Whether the endpoint takes the app's credential (spec §6, auth).

use syncline_protocol::planted;

use crate::transport::{CredentialReason, Route};

/// What is known of the credential.
#[derive(Debug, Default, PartialEq, Eq)]
enum Standing {
    /// It was taken, or never refused.
    #[default]
    Good,
    /// It was refused once: a fresh one may do.
    Stale,
    /// The app must act. The provider is asked again at each step of the connection's backoff.
    Required { reason: String, route: Route },
}

/// The credential's standing, and who is finding out.
#[derive(Debug, Default)]
pub(crate) struct Credential {
    standing: Standing,
    /// The request that carries a fresh credential. Nothing else starts before it is answered.
    asking: Option<u64>,
    /// Raised by every fresh one: a refusal of an older one says nothing.
    generation: u64,
}

impl Credential {
    /// Whether a request may start on `route`. Where a credential is required, only the route that said so can tell whether it is
    /// good now.
    pub(crate) fn allows(&self, route: Route) -> bool {
        self.asking.is_none()
            && match &self.standing {
                Standing::Required { route: refused, .. } => *refused == route && !planted!(AuthStuck),
                Standing::Good | Standing::Stale => true,
            }
    }

    /// The route that must show that the credential is good.
    pub(crate) fn must_ask(&self) -> Option<Route> {
        match &self.standing {
            Standing::Required { route, .. } => Some(*route),
            Standing::Good | Standing::Stale => None,
        }
    }

    /// A request starts: why the provider is asked, and the generation to give back with the answer.
    pub(crate) fn ask(&mut self, ticket: u64) -> (CredentialReason, u64) {
        if self.standing == Standing::Good {
            return (CredentialReason::First, self.generation);
        }
        self.asking = Some(ticket);
        self.generation += 1;
        (CredentialReason::Refresh, self.generation)
    }

    /// The request came to an end, however: the next one may start. The provider has given a fresh credential; if that was not
    /// taken either, [`Credential::refused`] says so.
    pub(crate) fn ended(&mut self, ticket: u64) {
        if self.asking == Some(ticket) {
            self.abandon();
        }
    }

    /// Nobody waits for an answer any more.
    pub(crate) fn abandon(&mut self) {
        self.asking = None;
        if self.standing == Standing::Stale {
            self.standing = Standing::Good;
        }
    }

    /// The endpoint took it, for `route`.
    pub(crate) fn taken(&mut self, generation: u64, route: Route) {
        if generation == self.generation && self.must_ask().is_none_or(|refused| refused == route) {
            self.standing = Standing::Good;
        }
    }

    /// The endpoint refused it. `stale`: a fresh one may help, unless this was one. Returns whether the app must act.
    pub(crate) fn refused(&mut self, generation: u64, fresh: bool, stale: bool, reason: String, route: Route) -> bool {
        if generation < self.generation {
            return false;
        }
        let required = fresh || !stale;
        if required {
            self.standing = Standing::Required { reason, route };
        } else if self.standing == Standing::Good {
            self.standing = Standing::Stale;
        }
        required
    }

    /// Why the app must act, as a word.
    pub(crate) fn required(&self) -> Option<&str> {
        match &self.standing {
            Standing::Required { reason, .. } => Some(reason),
            Standing::Good | Standing::Stale => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_asks_once_for_a_fresh_one() {
        let mut credential = Credential::default();
        let (reason, first) = credential.ask(1);
        assert_eq!(reason, CredentialReason::First);
        let (_, also_first) = credential.ask(2);
        assert!(!credential.refused(first, false, true, "unauthorized".into(), Route::Push));
        let (reason, fresh) = credential.ask(3);
        assert_eq!(reason, CredentialReason::Refresh);
        assert!(!credential.allows(Route::Pull), "one finds out");
        assert!(
            !credential.refused(also_first, false, true, "unauthorized".into(), Route::Push),
            "an older one says nothing"
        );
        credential.ended(3);
        credential.taken(fresh, Route::Pull);
        assert_eq!(credential.ask(4).0, CredentialReason::First);
    }

    #[test]
    fn a_fresh_one_refused_needs_the_app() {
        let mut credential = Credential::default();
        let (_, first) = credential.ask(1);
        credential.refused(first, false, true, "unauthorized".into(), Route::Push);
        let (_, fresh) = credential.ask(2);
        credential.ended(2);
        assert!(credential.refused(fresh, true, true, "unauthorized".into(), Route::Push));
        assert_eq!(credential.required(), Some("unauthorized"));
        assert!(credential.allows(Route::Push) && !credential.allows(Route::Pull));
        assert_eq!(credential.ask(3).0, CredentialReason::Refresh);
        credential.ended(3);
        credential.taken(fresh + 1, Route::Pull);
        assert_eq!(credential.required(), Some("unauthorized"), "a pull cannot speak for pushes");
        credential.taken(fresh + 1, Route::Push);
        assert_eq!(credential.required(), None);
    }

    #[test]
    fn what_no_fresh_one_can_mend_needs_the_app_at_once() {
        let mut credential = Credential::default();
        let (_, first) = credential.ask(1);
        assert!(credential.refused(first, false, false, "wrong_scope".into(), Route::Pull));
        assert_eq!(credential.must_ask(), Some(Route::Pull));
    }
}
