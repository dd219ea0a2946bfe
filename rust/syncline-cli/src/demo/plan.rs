//! Who writes what: the data dealt out to the devices, and the entities that the scripted events are about.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::DemoError;
use super::control::Write;
use super::dataset::{Dataset, Item};

/// Writes made by single `enqueue` calls, all devices together, if the data has so many.
const SINGLES: usize = 2_400;
/// Forms written in one transaction, with the update of a pin.
const GROUP: usize = 4;

/// The day's work.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shares: Vec<Share>,
    /// What one push may carry: small enough that every device needs a dozen, large enough for a transaction.
    pub(crate) push_limit: usize,
    /// Pins for the events of the afternoon, all different.
    pub(crate) pins: [String; 5],
    /// A form that two devices fill in differently.
    pub(crate) form: String,
}

/// What one device writes in the morning.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) singles: Vec<Write>,
    pub(crate) together: Vec<Write>,
    pub(crate) transactions: Vec<Vec<Write>>,
}

impl Plan {
    pub(crate) fn new(operations: Option<usize>, devices: usize, seed: u64) -> Result<Self, DemoError> {
        let data = Dataset::load()?;
        let wanted = operations.unwrap_or(data.pins.len() + data.forms.len());
        let data = data.take(wanted);
        let mut random = StdRng::seed_from_u64(seed);
        let pins = draw(&mut random, &data.pins);
        let form = data.forms[random.random_range(0..data.forms.len())].entity_id.clone();
        let mut shares: Vec<Share> = (0..devices).map(|device| share(&data, device, devices)).collect();
        let rows = data.pins.len() + data.forms.len();
        for visit in 0..wanted.saturating_sub(rows) {
            let (item, device) = (&data.forms[visit % data.forms.len()], visit % data.forms.len() % devices);
            let payload = json!({ "visits": visit / data.forms.len() + 1 });
            shares[device].together.push(Write::update(item.entity_type, &item.entity_id, payload));
        }
        let push_limit = (wanted / devices / 14).clamp(GROUP + 2, 100);
        Ok(Self { seed, shares, push_limit, pins, form })
    }
}

/// Five different pins.
fn draw(random: &mut StdRng, pins: &[Item]) -> [String; 5] {
    let start = random.random_range(0..pins.len());
    let step = random.random_range(1..=pins.len() / 5);
    std::array::from_fn(|n| pins[(start + n * step) % pins.len()].entity_id.clone())
}

/// The rows of one device: single writes first, then whole lists, then transactions.
fn share(data: &Dataset, device: usize, devices: usize) -> Share {
    let own = |items: &[Item]| items.iter().skip(device).step_by(devices).cloned().collect::<Vec<_>>();
    let (pins, forms) = (own(&data.pins), own(&data.forms));
    let singles = (SINGLES.div_ceil(devices)).min((pins.len() + forms.len()) / 2);
    let single_pins = pins.len().min(singles / 2);
    let single_forms = singles - single_pins;
    let grouped = (forms.len() / 20).next_multiple_of(GROUP);
    let (early, late) = forms.split_at(forms.len() - grouped);
    let (one_by_one, listed) = early.split_at(single_forms.min(early.len()));

    let mut share = Share::default();
    share.singles.extend(pins[..single_pins].iter().map(create));
    share.singles.extend(one_by_one.iter().map(|form| {
        // A form waits for its pin where this device makes it, and one call each can say so.
        let here = pins[..single_pins].iter().any(|pin| Some(&pin.entity_id) == form.pin.as_ref());
        Write { after: form.pin.clone().filter(|_| here), ..create(form) }
    }));
    share.together.extend(pins[single_pins..].iter().chain(listed).map(create));
    share.transactions.extend(late.chunks(GROUP).zip(pins.iter().cycle()).map(|(forms, pin)| {
        let visit = Write::update("pin", &pin.entity_id, json!({ "last_visit": forms[0].payload["date"] }));
        forms.iter().map(create).chain([visit]).collect()
    }));
    share
}

fn create(item: &Item) -> Write {
    Write::create(item.entity_type, &item.entity_id, item.payload.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn creates(plan: &Plan) -> Vec<&str> {
        let writes = plan
            .shares
            .iter()
            .flat_map(|share| share.singles.iter().chain(&share.together).chain(share.transactions.iter().flatten()));
        writes
            .filter(|write| write.kind == super::super::control::Kind::Create)
            .map(|write| write.entity_id.as_str())
            .collect()
    }

    #[test]
    fn every_row_is_created_by_exactly_one_device() {
        for devices in [2, 3, 5] {
            let plan = Plan::new(None, devices, 1).unwrap();
            let creates = creates(&plan);
            assert_eq!(creates.len(), 13_376);
            assert_eq!(creates.iter().collect::<BTreeSet<_>>().len(), 13_376);
            assert!(plan.shares.iter().map(|share| share.singles.len()).sum::<usize>() >= 2_000);
        }
    }

    #[test]
    fn fewer_operations_take_a_part_and_more_add_visits() {
        assert_eq!(creates(&Plan::new(Some(300), 3, 1).unwrap()).len(), 300);
        let plan = Plan::new(Some(20_000), 3, 1).unwrap();
        let updates = plan
            .shares
            .iter()
            .flat_map(|share| &share.together)
            .filter(|write| write.payload.as_ref().is_some_and(|payload| payload.get("visits").is_some()));
        assert_eq!(updates.count(), 20_000 - 13_376);
    }

    #[test]
    fn the_seed_draws_the_entities() {
        let [one, again, other] = [1, 1, 2].map(|seed| Plan::new(None, 3, seed).unwrap().pins);
        assert_eq!(one, again);
        assert_ne!(one, other);
        assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
