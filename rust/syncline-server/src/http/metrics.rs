use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What became of a request: the path served, and `ok` or the problem's code. Never anything a client chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    path: &'static str,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Path {
    path: &'static str,
}

/// The endpoint's counters.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    seconds: Family<Path, Histogram>,
    received_bytes: Family<Path, Counter>,
    in_flight: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let requests = Family::<Outcome, Counter>::default();
        let seconds = Family::<Path, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
        });
        let received_bytes = Family::<Path, Counter>::default();
        let in_flight = Gauge::default();
        let mut registry = Registry::with_prefix("syncline");
        registry.register("requests", "Requests answered", requests.clone());
        registry.register_with_unit("request_duration", "Time to answer", Unit::Seconds, seconds.clone());
        registry.register_with_unit("received", "Request bodies, inflated", Unit::Bytes, received_bytes.clone());
        registry.register("requests_in_flight", "Requests being handled", in_flight.clone());
        Self { registry, requests, seconds, received_bytes, in_flight }
    }

    pub(super) fn answered(&self, path: &'static str, outcome: &str, took: Duration) {
        self.requests.get_or_create(&Outcome { path, outcome: outcome.to_owned() }).inc();
        self.seconds.get_or_create(&Path { path }).observe(took.as_secs_f64());
    }

    pub(super) fn received(&self, path: &'static str, bytes: usize) {
        self.received_bytes.get_or_create(&Path { path }).inc_by(bytes as u64);
    }

    /// Counts a request as being handled while the guard lives.
    pub(super) fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// The text that Prometheus reads.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("writing to a text does not fail");
        text
    }
}

/// A request being handled.
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
