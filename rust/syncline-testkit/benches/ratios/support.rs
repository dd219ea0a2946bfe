use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncline_core::environment::{Environment, FileLock, System, SystemClock, SystemRandom};
use syncline_core::transport::{
    BoxFuture, CredentialProvider, CredentialReason, Request, Response, Token, Transport, TransportError,
};
use syncline_core::{Config, Durability, NewOperation, SyncManager};

/// Always the same token.
pub(crate) struct Fixed(pub String);

impl CredentialProvider for Fixed {
    fn token(&self, _: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        Box::pin(async { Ok(Some(Token(self.0.clone()))) })
    }
}

/// A network that is not there.
pub(crate) struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Request, _: Token) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async { Err(TransportError::Unreachable("nobody".into())) })
    }
}

pub(crate) fn config(path: &Path, durability: Durability) -> Config {
    let mut config = Config::new(path, "http://127.0.0.1:1", "bench", "bench");
    config.durability = durability;
    config
}

/// A manager with the system's environment but the transport given.
pub(crate) fn open(config: Config, transport: Arc<dyn Transport>) -> SyncManager {
    let environment = Environment {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        runtime: Arc::new(System::new().expect("threads")),
        transport,
        credentials: Arc::new(Fixed("token".into())),
        lock: Arc::new(FileLock::beside(&config.database)),
        vfs: None,
    };
    SyncManager::open(config, environment).expect("opens")
}

/// About what a pin or a form weighs. Ids rise with time, as uuid v7 does.
pub(crate) fn operation(n: usize) -> NewOperation {
    NewOperation::create("pin", entity_id(n), payload(n))
}

pub(crate) fn entity_id(n: usize) -> String {
    format!("0197a2b0-{n:08x}-7000-8000-000000000000")
}

pub(crate) fn payload(n: usize) -> String {
    format!(r#"{{"lat":52.{n},"lon":13.{n},"note":"Checked the valve and the gauge, both dry.","title":"Valve {n}"}}"#)
}

pub(crate) fn timed<T>(job: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let value = job();
    (begun.elapsed(), value)
}

/// The middle one.
pub(crate) fn p50(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
