use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::demo::control::{Decision, How, Kind, Write};

const TYPES: [&str; 3] = ["pin", "note", "form"];
/// Few enough that devices meet on them.
const COMMON: u32 = 25;

/// What the app of one device writes.
pub(super) struct Author {
    name: String,
    made: u32,
}

impl Author {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), made: 0 }
    }

    /// One call: a single write mostly, sometimes a list or a transaction.
    pub(super) fn call(&mut self, random: &mut StdRng) -> (Vec<Write>, How) {
        let (how, count) = match random.random_range(0..10) {
            0 => (How::Together, random.random_range(2..6)),
            1 => (How::Transaction, random.random_range(2..5)),
            2 => return (self.with_follower(random), How::Single),
            _ => (How::Single, 1),
        };
        ((0..count).map(|_| self.write(random)).collect(), how)
    }

    /// A create, and a write elsewhere that waits for it.
    fn with_follower(&mut self, random: &mut StdRng) -> Vec<Write> {
        let first = Write::create(pick_type(random), self.own_id(), payload(random));
        let second = Write { after: Some(first.entity_id.clone()), ..self.write(random) };
        vec![first, second]
    }

    fn write(&mut self, random: &mut StdRng) -> Write {
        let entity_type = pick_type(random);
        let own = random.random_ratio(1, 4);
        let id = if own { self.own_id() } else { format!("{entity_type}-{}", random.random_range(0..COMMON)) };
        let kind = match random.random_range(0..20) {
            _ if own => Kind::Create,
            0..6 => Kind::Create,
            6..18 => Kind::Update,
            _ => Kind::Delete,
        };
        match kind {
            Kind::Create => Write::create(entity_type, id, payload(random)),
            Kind::Update => Write::update(entity_type, id, payload(random)),
            Kind::Delete => Write::delete(entity_type, id),
        }
    }

    fn own_id(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }
}

fn pick_type(random: &mut StdRng) -> &'static str {
    TYPES[random.random_range(0..TYPES.len())]
}

fn payload(random: &mut StdRng) -> Value {
    let mut payload = json!({});
    for field in ["title", "status", "place"] {
        match random.random_range(0..6) {
            0 => payload[field] = Value::Null,
            1..4 => payload[field] = json!(format!("{field} {}", random.random_range(0..1_000_000))),
            _ => {}
        }
    }
    if random.random_ratio(1, 5) {
        // A form must not cost less than nothing.
        payload["cost"] = json!(random.random_range(-10..200));
    }
    payload
}

/// What the user makes of a conflict.
pub(super) fn decision(random: &mut StdRng) -> Decision {
    match random.random_range(0..3) {
        0 => Decision::Local,
        1 => Decision::Remote,
        _ => Decision::Merged(json!({ "title": format!("merged {}", random.random_range(0..1_000_000)) })),
    }
}
