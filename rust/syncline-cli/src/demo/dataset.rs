//! The demo's real input: airports as pins, wildlife-strike reports as forms. `data/README.md` says where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

const AIRPORTS: &[u8] = include_bytes!("../../data/airports.csv");
const REPORTS: &[u8] = include_bytes!("../../data/birdstrikes.csv.gz");

/// One entity of the data: what its `create` will say.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entity_type: &'static str,
    pub(crate) entity_id: String,
    pub(crate) payload: Value,
    /// A form's pin, where its report joins an airport.
    pub(crate) pin: Option<String>,
}

/// Both tables, in the order of the files.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) pins: Vec<Item>,
    pub(crate) forms: Vec<Item>,
}

impl Dataset {
    /// Reads both tables.
    ///
    /// # Errors
    /// The tables are part of the program, so an error here is a defect of the build.
    pub(crate) fn load() -> Result<Self, csv::Error> {
        let airports = rows(AIRPORTS)?;
        let mut unpacked = Vec::new();
        GzDecoder::new(REPORTS).read_to_end(&mut unpacked)?;
        let reports = rows(&unpacked)?;
        let mut join = Join::new(&airports);
        let pins = airports.iter().map(pin).collect();
        let forms = reports.iter().enumerate().map(|(n, report)| form(n + 1, report, &mut join)).collect();
        Ok(Self { pins, forms })
    }

    /// The first `count` entities of the data, pins and forms in the proportion of the whole; all of it if `count` is larger.
    pub(crate) fn take(self, count: usize) -> Self {
        let whole = self.pins.len() + self.forms.len();
        if count >= whole {
            return self;
        }
        let pins = (count * self.pins.len() / whole).max(1);
        let forms = count.saturating_sub(pins);
        Self { pins: self.pins.into_iter().take(pins).collect(), forms: self.forms.into_iter().take(forms).collect() }
    }
}

type Row = BTreeMap<String, String>;

fn rows(text: &[u8]) -> Result<Vec<Row>, csv::Error> {
    csv::Reader::from_reader(text).deserialize().collect()
}

fn cell<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).map_or("", |cell| cell.trim())
}

/// A number where the cell holds one, else the text; `null` for an empty cell.
fn value(row: &Row, column: &str) -> Value {
    let text = cell(row, column);
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ if text.is_empty() => Value::Null,
        _ => json!(text),
    }
}

fn pin_id(airport: &Row) -> String {
    format!("pin-{}", cell(airport, "iata").to_lowercase())
}

fn pin(airport: &Row) -> Item {
    let payload = json!({
        "title": cell(airport, "name"),
        "lat": value(airport, "latitude"),
        "lon": value(airport, "longitude"),
        "city": cell(airport, "city"),
        "state": cell(airport, "state"),
        "iata": cell(airport, "iata"),
    });
    Item { entity_type: "pin", entity_id: pin_id(airport), payload, pin: None }
}

fn form(number: usize, report: &Row, join: &mut Join) -> Item {
    let pin = join.find(cell(report, "Airport Name"), cell(report, "Origin State"));
    let payload = json!({
        "pin_id": pin,
        "place": cell(report, "Airport Name"),
        "date": cell(report, "Flight Date"),
        "operator": cell(report, "Aircraft Airline Operator"),
        "damage": cell(report, "Effect Amount of damage"),
        "cost": value(report, "Cost Total $"),
        "answers": {
            "aircraft": cell(report, "Aircraft Make Model"),
            "phase": cell(report, "Phase of flight"),
            "species": cell(report, "Wildlife Species"),
            "size": cell(report, "Wildlife Size"),
            "time_of_day": cell(report, "Time of day"),
            "speed_knots": value(report, "Speed IAS in knots"),
        },
    });
    Item { entity_type: "form", entity_id: format!("form-{number:05}"), payload, pin }
}

/// Finds a report's airport by its name.
struct Join {
    by_state: BTreeMap<String, Vec<Airport>>,
    /// By name and state: the reports are of a few dozen airports.
    found: BTreeMap<(String, String), Option<String>>,
}

struct Airport {
    pin_id: String,
    words: Vec<String>,
    international: bool,
}

impl Join {
    fn new(airports: &[Row]) -> Self {
        let mut by_state: BTreeMap<String, Vec<Airport>> = BTreeMap::new();
        for row in airports {
            let name = cell(row, "name");
            let international = name.contains("Int");
            let airport = Airport { pin_id: pin_id(row), words: words(name), international };
            by_state.entry(cell(row, "state").to_owned()).or_default().push(airport);
        }
        Self { by_state, found: BTreeMap::new() }
    }

    fn find(&mut self, name: &str, state: &str) -> Option<String> {
        let asked = (name.to_owned(), state.to_owned());
        if let Some(found) = self.found.get(&asked) {
            return found.clone();
        }
        let found = self.search(name, state);
        self.found.insert(asked, found.clone());
        found
    }

    /// The pin of the airport of that state with the same words (the international one, if two have them); failing that, of
    /// the only one whose words contain the name's, or the other way round.
    fn search(&self, name: &str, state: &str) -> Option<String> {
        let wanted = words(name);
        let airports = self.by_state.get(abbreviation(state)?)?;
        let same: Vec<&Airport> = airports.iter().filter(|airport| airport.words == wanted).collect();
        let found = match same.as_slice() {
            [] => only(airports.iter().filter(|airport| nested(&airport.words, &wanted))),
            [one] => Some(*one),
            many => many.iter().copied().find(|airport| airport.international),
        };
        found.map(|airport| airport.pin_id.clone())
    }
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

fn nested(a: &[String], b: &[String]) -> bool {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
    !a.is_empty() && (a.is_subset(&b) || b.is_subset(&a))
}

/// A name's words, in capitals, without those that tell no airport from another.
fn words(name: &str) -> Vec<String> {
    const COMMON: [&str; 10] =
        ["INTL", "INTERNATIONAL", "ARPT", "AIRPORT", "REGIONAL", "RGNL", "MUNICIPAL", "MUNI", "FIELD", "FLD"];
    name.replace('\'', "")
        .to_uppercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !COMMON.contains(word))
        .map(str::to_owned)
        .collect()
}

/// The reports spell states out, the airports do not. The capital's airports stand in Virginia.
fn abbreviation(state: &str) -> Option<&'static str> {
    const STATES: [(&str, &str); 29] = [
        ("Arizona", "AZ"),
        ("California", "CA"),
        ("Colorado", "CO"),
        ("DC", "VA"),
        ("Florida", "FL"),
        ("Georgia", "GA"),
        ("Hawaii", "HI"),
        ("Illinois", "IL"),
        ("Indiana", "IN"),
        ("Kentucky", "KY"),
        ("Louisiana", "LA"),
        ("Maryland", "MD"),
        ("Massachusetts", "MA"),
        ("Michigan", "MI"),
        ("Minnesota", "MN"),
        ("Missouri", "MO"),
        ("Nebraska", "NE"),
        ("New Jersey", "NJ"),
        ("New York", "NY"),
        ("North Carolina", "NC"),
        ("Ohio", "OH"),
        ("Oklahoma", "OK"),
        ("Oregon", "OR"),
        ("Pennsylvania", "PA"),
        ("South Carolina", "SC"),
        ("Tennessee", "TN"),
        ("Texas", "TX"),
        ("Utah", "UT"),
        ("Washington", "WA"),
    ];
    STATES.iter().find(|(name, _)| *name == state).map(|(_, short)| *short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_becomes_an_entity_of_its_own() {
        let data = Dataset::load().unwrap();
        assert_eq!((data.pins.len(), data.forms.len()), (3_376, 10_000));
        let ids: BTreeSet<&str> = data.pins.iter().chain(&data.forms).map(|item| item.entity_id.as_str()).collect();
        assert_eq!(ids.len(), 13_376);
        assert_eq!(data.pins[0].payload["title"], "Thigpen");
        assert_eq!(data.forms[0].payload["answers"]["species"], "Turkey vulture");
    }

    #[test]
    fn four_reports_in_five_find_their_airport() {
        let data = Dataset::load().unwrap();
        assert_eq!(data.forms.iter().filter(|form| form.pin.is_some()).count(), 8_814);
        let pins: BTreeSet<&str> = data.pins.iter().map(|pin| pin.entity_id.as_str()).collect();
        assert!(data.forms.iter().filter_map(|form| form.pin.as_deref()).all(|pin| pins.contains(pin)));
    }

    #[test]
    fn a_name_finds_the_airport_of_its_own_state() {
        let data = Dataset::load().unwrap();
        let pin = |place: &str| data.forms.iter().find(|form| form.payload["place"] == place).unwrap().pin.clone();
        assert_eq!(pin("DALLAS/FORT WORTH INTL ARPT").as_deref(), Some("pin-dfw"));
        assert_eq!(pin("ATLANTA INTL").as_deref(), Some("pin-atl"), "not the Atlanta of Michigan");
        assert_eq!(pin("ATLANTIC CITY INTL").as_deref(), Some("pin-acy"), "the international one of two");
        assert_eq!(pin("BARKSDALE AIR FORCE BASE ARPT"), None);
    }

    #[test]
    fn a_part_keeps_both_kinds() {
        let part = Dataset::load().unwrap().take(300);
        assert_eq!((part.pins.len(), part.forms.len()), (75, 225));
    }
}
