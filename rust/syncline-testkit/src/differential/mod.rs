//! The same random streams of pushes and pulls to several endpoints: their answers must be the same, and those that the
//! reference model demands.
//!
//! A stream is a list of numbers. Each seeds one step: what is sent is drawn from it and from what the devices were answered
//! before, so a stream stays one when steps are taken out of it ([`shrink`]). What differs from endpoint to endpoint without
//! meaning anything (the texts of epochs and cursors, the ids of ledger rows) is numbered in order of appearance.
//!
//! Streams have several devices, copies of one device's file among them, clocks and timestamps that disagree, every rule,
//! transactions, dependencies, deletes, repeated and altered keys, withdrawals, dry runs, forgetting, lost marks and epochs,
//! maintenance after months, filters and short pages, odd texts and numbers, and payloads that must be refused. Where types are
//! tables, somebody else writes them as well, and rows and records agree whenever that was taken up.

mod answers;
mod draw;
mod file;
mod requests;
mod values;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::contract::{Host, HostError};
use answers::Endpoints;
use draw::World;

/// The entity types in all streams. A host with [tables](crate::contract::Ability::Tables) has one for each, registered in this order.
pub const TYPES: &[&str] = &["pin", "note", "manual", "strict"];
/// A stream ends when it has so many steps, …
const LEAST_STEPS: usize = 12;
/// … so many operations, …
const LEAST_OPERATIONS: usize = 20;
/// … so many pushes, …
const LEAST_PUSHES: usize = 5;
/// … of so many devices.
const LEAST_DEVICES: usize = 3;
/// A stream that has not got there by then is none.
const MOST_STEPS: usize = 200;

/// What a stream was.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Its steps, as seeds.
    pub steps: Vec<u64>,
    /// Pushes sent.
    pub pushes: usize,
    /// Operations in them.
    pub operations: usize,
    /// Device ids that pushed.
    pub devices: usize,
    /// Answers of each kind, by their words.
    pub words: std::collections::BTreeMap<String, u64>,
}

/// Where two of endpoint, endpoint and model differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The steps that lead there.
    pub steps: Vec<u64>,
    /// Which difference.
    pub what: String,
    /// The exchange: the request, and every answer.
    pub exchange: String,
}

/// What ended a stream before its end.
#[derive(Debug)]
pub enum Ended {
    /// A difference was found.
    Different(Box<Difference>),
    /// A host gave no answer.
    Failed(HostError),
}

/// The configuration of entity types in all streams.
pub fn types() -> Value {
    json!({
        "manual": { "conflict_rule": "manual" },
        "note": { "conflict_rule": "client_wins", "delete_rule": "delete_wins" },
        "strict": { "schema": { "type": "object", "properties": { "a": { "type": ["integer", "null"] } } } },
    })
}

/// Sends the stream of `seed` to `hosts`, in a scope that no other seed has. They must have been [reset](Host::reset) with
/// [`types`].
///
/// # Errors
/// A difference, or a host that failed.
pub fn run(hosts: &mut [Box<dyn Host>], seed: u64) -> Result<Counted, Ended> {
    let mut random = StdRng::seed_from_u64(seed);
    live(hosts, seed, std::iter::from_fn(|| Some(random.random::<u64>())), true)
}

/// The same for these steps.
///
/// # Errors
/// See [`run`].
pub fn run_steps(hosts: &mut [Box<dyn Host>], number: u64, steps: &[u64]) -> Result<Counted, Ended> {
    live(hosts, number, steps.iter().copied(), false)
}

fn live(
    hosts: &mut [Box<dyn Host>],
    number: u64,
    steps: impl Iterator<Item = u64>,
    until_full: bool,
) -> Result<Counted, Ended> {
    let scope = hosts.first().map(|host| host.scope(number)).unwrap_or_default();
    let mut world = World::new(Endpoints::new(hosts, scope));
    let mut counted = Counted::default();
    let result = world.open().and_then(|()| {
        for seed in steps {
            counted.steps.push(seed);
            world.step(&mut StdRng::seed_from_u64(seed))?;
            let is_full = world.operations >= LEAST_OPERATIONS
                && world.pushes >= LEAST_PUSHES
                && world.devices.len() >= LEAST_DEVICES
                && counted.steps.len() >= LEAST_STEPS;
            if until_full && (is_full || counted.steps.len() >= MOST_STEPS) {
                break;
            }
        }
        world.close()
    });
    counted.pushes = world.pushes;
    counted.operations = world.operations;
    counted.devices = world.devices.len();
    counted.words = std::mem::take(&mut world.endpoints.words);
    match result {
        Ok(()) => Ok(counted),
        Err(answers::Broken::Failed(error)) => Err(Ended::Failed(error)),
        Err(answers::Broken::Different { what, exchange }) => {
            Err(Ended::Different(Box::new(Difference { steps: counted.steps, what, exchange })))
        }
    }
}

/// The fewest steps found that still show a difference, trying at most `tries` times. `first` is the number of a scope from
/// which on all are free.
pub fn shrink(hosts: &mut [Box<dyn Host>], found: Difference, first: u64, tries: u64) -> Difference {
    let (mut best, mut number, end) = (found, first, first + tries);
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 && number < end {
        let mut at = 0;
        while at < best.steps.len() && number < end {
            let rest = at + size.min(best.steps.len() - at);
            let fewer: Vec<u64> = [&best.steps[..at], &best.steps[rest..]].concat();
            number += 1;
            match run_steps(hosts, number, &fewer) {
                Err(Ended::Different(smaller)) => best = *smaller,
                _ => at += size,
            }
        }
        size /= 2;
    }
    best
}
