//! Which planted bugs the vectors catch. Only with the feature `teeth`.

use syncline_protocol::teeth::{Bug, plant};

use super::embedded::EmbeddedHost;
use super::host::HostError;
use super::run::{Outcome, run_one};
use super::vector::Vector;

/// The vectors that fail on the embedded endpoint with `bug` planted, and why the first of them does.
///
/// # Errors
/// No endpoint to plant it in.
pub fn caught_by(bug: Bug, vectors: &[Vector]) -> Result<Vec<(&Vector, String)>, HostError> {
    let mut host = EmbeddedHost::new()?;
    plant(Some(bug));
    let failed =
        vectors.iter().enumerate().filter_map(|(number, vector)| match run_one(&mut host, vector, number as u64) {
            Outcome::Failed(why) => Some((vector, why)),
            Outcome::Passed | Outcome::Skipped(_) => None,
        });
    let failed = failed.collect();
    plant(None);
    Ok(failed)
}
