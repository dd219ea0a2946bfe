//! One request: the credential, the sending, the answer.

use super::primitives::{Arc, watch};
use super::shared::Shared;
use super::tasks::{First, catch, race};
use crate::environment::Environment;
use crate::error::SynclineError;
use crate::sync::Outcome;
use crate::transport::{CredentialReason, Request, TransportError};

/// Sends `request` and tells the driver what came of it, whatever that is.
///
/// `abandoned` was subscribed to when the driver gave the request, so that giving it up is never missed.
pub(super) async fn deliver(
    shared: Arc<Shared>,
    mut abandoned: watch::Receiver<u64>,
    ticket: u64,
    request: Request,
    reason: CredentialReason,
) {
    let environment = shared.environment.clone();
    let timeout = environment.runtime.sleep(shared.timeout);
    let outcome = match race(race(catch(send(&environment, request, reason)), timeout), abandoned.changed()).await {
        First::This(First::This(Some(outcome))) => outcome,
        First::This(First::This(None)) => {
            log::error!("the transport or the credential provider panicked");
            Outcome::NoAnswer(TransportError::Broken("the transport panicked".to_owned()))
        }
        First::This(First::Other(())) => Outcome::NoAnswer(TransportError::Timeout),
        First::Other(_) => Outcome::Abandoned,
    };
    let now = environment.clock.now();
    let taken =
        shared.on_file(|device| device.driver.answered(&mut device.store, ticket, outcome, now, &*environment.random));
    match taken {
        Ok(_) | Err(SynclineError::Closed) => {}
        Err(error) => log::warn!("an answer could not be stored and will be asked for again: {error}"),
    }
    shared.answered();
}

async fn send(environment: &Environment, request: Request, reason: CredentialReason) -> Outcome {
    let token = match environment.credentials.token(reason).await {
        Ok(Some(token)) => token,
        Ok(None) => return Outcome::NoCredential("no_credential".to_owned()),
        Err(message) => {
            log::warn!("the credential provider failed: {message}");
            return Outcome::NoCredential("provider_failed".to_owned());
        }
    };
    if !token.0.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Outcome::NoCredential("malformed_credential".to_owned());
    }
    match environment.transport.send(request, token).await {
        Ok(response) => Outcome::Answered(response),
        Err(error) => Outcome::NoAnswer(error),
    }
}
