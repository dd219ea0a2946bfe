use std::fmt::Write;

use serde::Serialize;

use super::device::Device;
use super::stage::{Stage, Tally};
use super::verdict::Drained;
use crate::demo::faults::Counts;
use crate::output::{BAD, GOOD, STRONG, styled, thousands};

/// Everything that is told at the end.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) holds: bool,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    pub(super) devices: usize,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) network: Counts,
    pub(super) drained: Drained,
    /// Each breach in a sentence.
    pub(super) breaches: Vec<String>,
}

impl Report {
    pub(super) fn new(stage: &Stage, devices: &[Device], drained: Drained, breaches: Vec<String>) -> Self {
        let network = stage.lines().iter().fold(Counts::default(), |mut sum, line| {
            sum += line.counts();
            sum
        });
        Self {
            holds: breaches.is_empty(),
            seed: stage.seed,
            seconds: (stage.seconds() * 10.0).round() / 10.0,
            devices: devices.len(),
            tally: stage.tally(),
            network,
            drained,
            breaches,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let (tally, network) = (&self.tally, &self.network);
        let faults = [
            ("dropped before the endpoint", network.dropped_before),
            ("request cut in the middle", network.cut_requests),
            ("answer lost after a 200", network.dropped_after),
            ("answer truncated", network.truncated),
            ("connection reset instead of an answer", network.resets),
            ("answer held past the time-out", network.held),
            ("delayed", network.delayed),
            ("a proxy's page", network.pages),
            ("503", network.unavailable),
            ("connection refused", network.refused),
            ("401", network.unauthorized),
        ];
        let deeds = [
            ("operations acknowledged", tally.acknowledged),
            ("devices killed", tally.device_kills),
            ("endpoint killed", tally.endpoint_kills),
            ("second processes on a file", tally.second_processes),
            ("files copied", tally.copied_files),
            ("cancels", tally.cancels),
            ("retries", tally.retries),
            ("discards", tally.discards),
            ("conflicts decided", tally.decisions),
            ("requests that came in whole", network.requests),
        ];
        let mut text = format!(
            "  {}   seed {}   {} devices   {:.1} minutes\n",
            styled(STRONG, "Chaos"),
            self.seed,
            self.devices,
            self.seconds / 60.0
        );
        for (what, count) in deeds.into_iter().chain(faults) {
            let _ = writeln!(text, "  {:>12}  {what}", thousands(count));
        }
        let Drained { seconds, operations } = self.drained;
        let _ = writeln!(
            text,
            "  {} operations waited when the faults stopped; drained in {seconds:.1} s",
            thousands(operations)
        );
        for breach in &self.breaches {
            let _ = writeln!(text, "  {} {breach}", styled(BAD, "✗"));
        }
        if self.holds {
            let _ = writeln!(text, "  {}", styled(GOOD, "Every rule holds."));
        } else {
            let _ = writeln!(text, "  {}", styled(BAD, "Rules are broken."));
        }
        text
    }
}
