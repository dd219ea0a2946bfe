//! What an outcome means. [`disposition`] is the one place where this is decided (spec §2); everything else acts on its word.

mod postgrest;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use syncline_protocol::{
    Limits, MAX_COUNTER, PROTOCOL, ProblemClass, ProblemCode, PullResponse, PushResponse, Timestamp, planted,
};

use super::Outcome;
use crate::environment::Random;
use crate::transport::{Dialect, Response, Route, TransportError};

/// The shortest wait of the connection.
pub(crate) const CONNECTION_BACKOFF_MIN_MS: u64 = 1_000;
/// The longest wait of the connection, and of an operation.
pub(crate) const BACKOFF_MAX_MS: u64 = 5 * 60 * 1_000;
/// The longest `Retry-After` that is honoured.
pub(crate) const RETRY_AFTER_MAX_MS: u64 = 60 * 60 * 1_000;
/// The database gave up: like a timeout on the way, it may be the batch's doing.
pub(crate) const STATEMENT_TIMEOUT: &str = "statement_timeout";
/// A server's sentence is kept up to this length.
const MESSAGE_CHARS: usize = 200;

/// What to do about an outcome.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// Verdicts.
    Pushed(Box<PushResponse>),
    /// A page.
    Pulled(Box<PullResponse>),
    /// No answer of our endpoint: the connection, unless it happens to the same operations again and again.
    Silent(Silence),
    /// Our endpoint cannot answer now: the connection.
    Busy {
        /// The problem's code, as a word.
        reason: String,
        /// What `Retry-After` asks for.
        retry_after_ms: Option<u64>,
    },
    /// Too much at once: smaller batches.
    TooLarge {
        /// Whether it is our endpoint's word, or that of something on the way.
        ours: bool,
        /// What the endpoint takes.
        limits: Option<Limits>,
    },
    /// The credential is not good.
    Refused {
        /// The problem's code, as a word.
        reason: String,
        /// Whether a fresh credential may help.
        stale: bool,
    },
    /// The request will not be taken as it is, or our endpoint fails on it.
    Blame(Blame),
    /// The endpoint speaks other protocol versions.
    UnsupportedProtocol {
        /// Those it speaks.
        supported: Vec<u32>,
    },
    /// Another copy of this device has written.
    Forked,
    /// The server's history is another one.
    Behind {
        /// Its epoch.
        epoch: String,
        /// Its mark for this device.
        mark: u64,
    },
    /// Nobody waits for it any more.
    Abandoned,
}

/// No answer of our endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Why, as a word.
    pub(crate) reason: &'static str,
    /// Whether the request went out, so that something on the way may have disliked it.
    pub(crate) went_out: bool,
    /// What `Retry-After` asks for.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Silence {
    /// Whether less at once may help.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.reason, "timeout" | STATEMENT_TIMEOUT)
    }
}

/// An answer of our endpoint that speaks for no operation, and that is not about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blame {
    /// The problem's code, or `http_500`.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// Whether it counts as an attempt (the endpoint failed) or is final (it refused).
    pub(crate) attempt: bool,
}

/// Judges `outcome` of a request to `route`.
pub(crate) fn disposition(route: Route, outcome: Outcome, now: Timestamp) -> Disposition {
    let response = match outcome {
        Outcome::Answered(response) => response,
        Outcome::NoAnswer(error) => return Disposition::Silent(no_answer(&error)),
        Outcome::NoCredential(reason) => return Disposition::Refused { reason, stale: false },
        Outcome::Abandoned => return Disposition::Abandoned,
    };
    let retry_after_ms = response.retry_after.as_deref().and_then(|text| retry_after_ms(text, now));
    match response.protocol.as_deref().map(|version| version.trim().parse::<u32>()) {
        Some(Ok(PROTOCOL)) if response.status == 200 => answer(route, &response.body, retry_after_ms),
        Some(Ok(PROTOCOL)) if response.status >= 400 => problem(&response, retry_after_ms),
        Some(Ok(PROTOCOL)) => silent("invalid_answer", retry_after_ms),
        Some(Ok(version)) => Disposition::UnsupportedProtocol { supported: spoken(&response, version) },
        None if response.dialect == Dialect::Supabase && response.status >= 300 => {
            postgrest::disposition(&response, retry_after_ms).unwrap_or_else(|| stranger(&response, retry_after_ms))
        }
        None if planted!(ProxyIsOurs) && response.status >= 400 => problem(&response, retry_after_ms),
        Some(Err(_)) | None => stranger(&response, retry_after_ms),
    }
}

/// An answer of something on the way.
fn stranger(response: &Response, retry_after_ms: Option<u64>) -> Disposition {
    match response.status {
        413 => Disposition::TooLarge { ours: false, limits: None },
        _ => silent("not_our_endpoint", retry_after_ms),
    }
}

fn silent(reason: &'static str, retry_after_ms: Option<u64>) -> Disposition {
    Disposition::Silent(Silence { reason, went_out: true, retry_after_ms })
}

fn no_answer(error: &TransportError) -> Silence {
    let (reason, went_out) = match error {
        TransportError::Unreachable(_) => ("unreachable", false),
        TransportError::Certificate(_) => ("certificate", false),
        TransportError::Broken(_) => ("broken", true),
        TransportError::Timeout => ("timeout", true),
        TransportError::TooLarge => ("answer_too_large", true),
    };
    Silence { reason, went_out, retry_after_ms: None }
}

fn answer(route: Route, body: &[u8], retry_after_ms: Option<u64>) -> Disposition {
    fn read<T: DeserializeOwned>(body: &[u8]) -> Option<Box<T>> {
        serde_json::from_slice(body).ok()
    }
    match route {
        Route::Push => read(body).map(Disposition::Pushed),
        Route::Pull => read(body).map(Disposition::Pulled),
    }
    .unwrap_or_else(|| silent("invalid_answer", retry_after_ms))
}

/// A problem object, read leniently: a member that is missing must not hide the code.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    code: String,
    title: String,
    detail: Option<String>,
    epoch: Option<String>,
    mark: Option<u64>,
    supported: Vec<u32>,
    limits: Option<Limits>,
}

/// By its code first, since a status misleads; only an unknown code is judged by the status.
fn problem(response: &Response, retry_after_ms: Option<u64>) -> Disposition {
    let said: Said = serde_json::from_slice(&response.body).unwrap_or_default();
    let status = response.status;
    let Some(code) = ProblemCode::parse(&said.code) else {
        let reason =
            if syncline_protocol::check_name(&said.code) { said.code.clone() } else { format!("http_{status}") };
        return match status {
            413 => Disposition::TooLarge { ours: true, limits: said.limits },
            429 | 503 => Disposition::Busy { reason, retry_after_ms },
            401 | 403 => Disposition::Refused { reason, stale: status == 401 },
            _ => Disposition::Blame(Blame { message: message(&said, &reason), reason, attempt: status >= 500 }),
        };
    };
    let reason = code.as_str().to_owned();
    match (code, code.class()) {
        (ProblemCode::ServerBehind, _) => match (said.epoch, said.mark) {
            // With a mark beyond that, every request would be refused from then on.
            (Some(epoch), Some(mark)) if mark <= MAX_COUNTER => Disposition::Behind { epoch, mark },
            _ => silent("invalid_answer", retry_after_ms),
        },
        (ProblemCode::DeviceForked, _) => Disposition::Forked,
        (ProblemCode::UnsupportedProtocol, _) => Disposition::UnsupportedProtocol { supported: said.supported },
        (_, ProblemClass::Transient) => Disposition::Busy { reason, retry_after_ms },
        (_, ProblemClass::Auth) => Disposition::Refused { reason, stale: code == ProblemCode::Unauthorized },
        (_, ProblemClass::TooLarge) => Disposition::TooLarge { ours: true, limits: said.limits },
        (_, ProblemClass::Permanent | ProblemClass::Procedure) => Disposition::Blame(Blame {
            message: message(&said, &reason),
            attempt: code == ProblemCode::Internal,
            reason,
        }),
    }
}

fn spoken(response: &Response, version: u32) -> Vec<u32> {
    let said: Said = serde_json::from_slice(&response.body).unwrap_or_default();
    if said.supported.is_empty() { vec![version] } else { said.supported }
}

fn message(said: &Said, reason: &str) -> String {
    let text = said.detail.as_deref().filter(|text| !text.is_empty()).unwrap_or(&said.title);
    sentence(if text.is_empty() { reason } else { text })
}

/// A server's sentence, in one line.
fn sentence(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect()
}

/// Milliseconds that a `Retry-After` asks for, in seconds or as an HTTP date; at most an hour. None for the past and for nonsense.
pub(crate) fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    let wait = if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<u64>().ok()?.saturating_mul(1_000)
    } else {
        let moment = httpdate::parse_http_date(text).ok()?;
        let millis = i64::try_from(moment.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()?;
        u64::try_from(millis.saturating_sub(now.millis())).ok()?
    };
    (wait > 0).then_some(wait.min(RETRY_AFTER_MAX_MS))
}

/// The connection's next wait after one of `previous_ms` (0: none): decorrelated jitter, so that a fleet does not come back at once.
pub(crate) fn connection_backoff_ms(previous_ms: u64, random: &dyn Random) -> u64 {
    let high = previous_ms.max(CONNECTION_BACKOFF_MIN_MS).saturating_mul(3).min(BACKOFF_MAX_MS);
    random.between(CONNECTION_BACKOFF_MIN_MS, high)
}

/// The longest an operation may wait the `n`th time in a row: 2ⁿ seconds, up to five minutes.
pub(crate) fn operation_backoff_ms(n: u32) -> u64 {
    1u64.checked_shl(n).map_or(BACKOFF_MAX_MS, |seconds| seconds.saturating_mul(1_000).min(BACKOFF_MAX_MS))
}

/// The wait of an operation that has waited `waits` times in a row: full jitter, from nothing to [`operation_backoff_ms`].
pub(crate) fn operation_backoff(waits: u32, random: &dyn Random) -> u64 {
    random.between(0, operation_backoff_ms(waits.saturating_add(1)))
}

/// A wait that ends later than its own length from now was stored under another wall clock: it is cut.
pub(crate) fn cut(until: Timestamp, wait_ms: u64, now: Timestamp) -> Timestamp {
    until.min(now.plus_millis(i64::try_from(wait_ms).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests;
