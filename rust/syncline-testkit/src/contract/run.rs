//! Running a vector against a host.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::Claims;

use super::body::{self, Knows};
use super::expect;
use super::host::{Ability, Host, HostError, Sent};
use super::names::Names;
use super::vector::{State, Step, Vector};
use crate::model::values::differs;

/// 2026-05-01T12:00:00Z, where a vector's `$t` is when the host's clock can be set.
const BEGINNING: i64 = 1_777_636_800_000;
/// The endpoint's clock is so many seconds past `$t` if a step does not say otherwise.
const USUAL_TIME: f64 = 100.0;

/// What became of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// The host lacks an ability.
    Skipped(Ability),
    /// The first difference, with the step where it was.
    Failed(String),
}

/// Runs all vectors, in order. `told` hears of each.
pub fn run(host: &mut dyn Host, vectors: &[Vector], mut told: impl FnMut(&Vector, &Outcome)) -> Vec<Outcome> {
    let outcomes = vectors.iter().enumerate().map(|(number, vector)| {
        let outcome = run_one(host, vector, number as u64);
        told(vector, &outcome);
        outcome
    });
    outcomes.collect()
}

/// Runs one vector, in scopes that no other number has.
pub fn run_one(host: &mut dyn Host, vector: &Vector, number: u64) -> Outcome {
    let abilities = host.abilities();
    if let Some(missing) = vector.needs().into_iter().find(|ability| !abilities.contains(ability)) {
        return Outcome::Skipped(missing);
    }
    match Run::begin(host, vector, number).and_then(|mut run| run.all(vector)) {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

struct Run<'h> {
    host: &'h mut dyn Host,
    names: Names,
    /// Per device the mark that it was last answered.
    marks: BTreeMap<String, u64>,
    scope: String,
    at: f64,
}

impl<'h> Run<'h> {
    fn begin(host: &'h mut dyn Host, vector: &Vector, number: u64) -> Result<Self, String> {
        host.reset(&Value::Object(vector.types.clone())).map_err(told)?;
        let wanted = Timestamp::from_millis(BEGINNING).plus_millis((USUAL_TIME * 1000.0) as i64);
        let shown = host.set_clock(wanted).map_err(told)?;
        let is_exact = host.abilities().contains(&Ability::Clock);
        let mut names = Names::new(shown.plus_millis((-USUAL_TIME * 1000.0) as i64), is_exact);
        let scope = host.scope(2 * number);
        names.bind("$scope", &scope);
        names.bind("$scope2", &host.scope(2 * number + 1));
        let mut run = Self { host, names, marks: BTreeMap::new(), scope, at: USUAL_TIME };
        if !vector.untouched {
            let step = opening();
            run.step(&step).map_err(|why| format!("the first pull: {why}"))?;
        }
        Ok(run)
    }

    fn all(&mut self, vector: &Vector) -> Result<(), String> {
        for (number, step) in vector.given.iter().enumerate() {
            self.step(step).map_err(|why| format!("given[{number}]: {why}"))?;
        }
        let before = match vector.state {
            Some(State::Unchanged(_)) => Some(self.state().map_err(|why| format!("the state before: {why}"))?),
            _ => None,
        };
        self.step(&vector.request).map_err(|why| format!("the request: {why}"))?;
        if let Some(state) = &vector.state {
            let real = self.state().map_err(|why| format!("the state: {why}"))?;
            let expected = match (state, before) {
                (State::Entities(entities), _) => expect::repeated(Value::Object(entities.clone()))?,
                (State::Unchanged(_), before) => before.unwrap_or_default(),
            };
            differs("state", &self.names.learn(&expected, &real)?, &real)?;
        }
        for (number, step) in vector.then.iter().enumerate() {
            self.step(step).map_err(|why| format!("then[{number}]: {why}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.at = step.at.unwrap_or(self.at);
        self.names.now = self.host.set_clock(self.names.time(self.at)).map_err(told)?;
        if step.maintain {
            return self.host.maintain(&self.scope).map_err(told);
        }
        if step.renew_epochs {
            return self.host.renew_epochs(&self.scope).map_err(told);
        }
        let knows = |device: &str| Knows { mark: self.marks.get(device).copied().unwrap_or(0) };
        let written = body::write(step, &self.names, knows)?;
        let claims = self.claims(step)?;
        let rows = self.ledger()?;
        let sent = Sent { route: written.route, body: &written.body, claims: &claims, http: step.http.as_ref() };
        let answered = self.host.handle(sent).map_err(told)?;
        let real = expect::check(&*self.host, &mut self.names, step, &written, &answered)?;
        let device = written.members["device_id"].as_str().unwrap_or_default();
        if let Some(mark) = real["mark"].as_u64().filter(|_| answered.status == 200) {
            self.marks.insert(device.to_owned(), mark);
        }
        for (name, member) in &step.keep {
            let kept = member.as_str().and_then(|member| real[member].as_str()).ok_or("nothing to keep")?;
            self.names.bind(name, kept);
        }
        let is_kept = answered.status == 200 && written.route == Route::Push && written.members["dry_run"] != true;
        self.ledger_grew_by(rows, if is_kept { &real["results"] } else { &Value::Null })
    }

    fn claims(&self, step: &Step) -> Result<Claims, String> {
        let given = step.claims.clone().unwrap_or_else(|| json!({}));
        let given = self.names.fill(&given)?;
        let user_id = given["user_id"].as_str().unwrap_or("ada").to_owned();
        let scopes = match given["scopes"].as_array() {
            Some(scopes) => scopes.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect(),
            None => [self.scope.clone()].into(),
        };
        Ok(Claims::new(user_id, scopes))
    }

    fn ledger(&mut self) -> Result<Option<BTreeMap<String, Value>>, String> {
        if !self.host.abilities().contains(&Ability::Ledger) {
            return Ok(None);
        }
        let rows = self.host.ledger(&self.scope).map_err(told)?;
        Ok(Some(rows.into_iter().map(|row| (row["id"].as_str().unwrap_or_default().to_owned(), row)).collect()))
    }

    /// §4.7: "the same object is `conflict` on the wire", and invariant 7: every conflict is in the ledger. Nothing else is.
    fn ledger_grew_by(&mut self, rows: Option<BTreeMap<String, Value>>, results: &Value) -> Result<(), String> {
        let Some(mut expected) = rows else { return Ok(()) };
        for result in results.as_array().into_iter().flatten() {
            if let Some(row) = result.get("conflict").filter(|_| result["status"] != "already_processed") {
                expected.insert(row["id"].as_str().unwrap_or_default().to_owned(), row.clone());
            }
        }
        let real = self.ledger()?.unwrap_or_default();
        let value = |rows: BTreeMap<String, Value>| Value::Object(rows.into_iter().collect());
        differs("ledger", &value(expected), &value(real))
    }

    /// What a pull from the start shows, by "type/id".
    fn state(&mut self) -> Result<Value, String> {
        let (mut entities, mut cursor, mut last) = (Map::new(), Value::Null, 0);
        let claims = Claims::new("ada".to_owned(), [self.scope.clone()].into());
        loop {
            let body = json!({
                "protocol": 1, "user_id": "ada", "scope": self.scope, "device_id": "state-reader", "epoch": null,
                "mark": 0, "cursor": cursor, "limit": 1000,
            });
            let body = body.to_string();
            let sent = Sent { route: Route::Pull, body: body.as_bytes(), claims: &claims, http: None };
            let answered = self.host.handle(sent).map_err(told)?;
            let page: Value = serde_json::from_slice(&answered.body).map_err(told)?;
            for change in page["changes"].as_array().ok_or_else(|| format!("HTTP {} {page}", answered.status))? {
                let version = change["version"].as_u64().unwrap_or(0);
                if version <= last {
                    return Err(format!("version {version} comes after {last}"));
                }
                last = version;
                let mut shown = change.as_object().cloned().unwrap_or_default();
                let name = ["entity_type", "entity_id"].map(|name| shown.remove(name).unwrap_or_default());
                let name = name.each_ref().map(|part| part.as_str().unwrap_or_default()).join("/");
                if entities.insert(name.clone(), Value::Object(shown)).is_some() {
                    return Err(format!("{name} comes twice"));
                }
            }
            if page["has_more"] != true {
                return Ok(Value::Object(entities));
            }
            cursor = page["cursor"].clone();
        }
    }
}

/// The first pull of a new device: it gives the vector its `$epoch` and `$cursor0`.
fn opening() -> Step {
    let step = json!({
        "pull": "opener", "epoch": null, "answer": { "changes": [], "cursor": "$cursor0" },
    });
    serde_json::from_value(step).unwrap_or_default()
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl From<HostError> for String {
    fn from(error: HostError) -> Self {
        error.0
    }
}
