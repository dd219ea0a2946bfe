//! One request to every endpoint: each answer judged by the model, all answers compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::Claims;

use super::{TYPES, types};
use crate::contract::{Ability, DirectWrite, Host, HostError, Sent};
use crate::model::values::differs;
use crate::model::{Limits, Model, Token, Types};

const LIMITS: Limits = Limits { max_operations: 500, max_bytes: 8 << 20, max_payload_bytes: 256 << 10 };

/// Why a stream cannot go on.
pub(super) enum Broken {
    Failed(HostError),
    Different { what: String, exchange: String },
}

impl From<HostError> for Broken {
    fn from(error: HostError) -> Self {
        Self::Failed(error)
    }
}

/// What one endpoint has said that another says in other texts. By number.
struct Said {
    model: Model,
    epochs: Vec<String>,
    cursors: Vec<String>,
    rows: Vec<String>,
}

pub(super) struct Endpoints<'h> {
    hosts: &'h mut [Box<dyn Host>],
    said: Vec<Said>,
    pub(super) scope: String,
    pub(super) now: Timestamp,
    /// Statuses and codes, counted.
    pub(super) words: BTreeMap<String, u64>,
}

impl<'h> Endpoints<'h> {
    pub(super) fn new(hosts: &'h mut [Box<dyn Host>], scope: String) -> Self {
        let model = Model::new(Types::new(&types()), LIMITS);
        let said = hosts.iter().map(|_| {
            let (epochs, cursors, rows) = (Vec::new(), Vec::new(), Vec::new());
            Said { model: model.clone(), epochs, cursors, rows }
        });
        let said = said.collect();
        // 2026-05-01T12:00:00Z
        let now = Timestamp::from_millis(1_777_636_800_000);
        Self { hosts, said, scope, now, words: BTreeMap::new() }
    }

    /// How many epochs were ever named.
    pub(super) fn epochs(&self) -> usize {
        self.said.first().map_or(0, |said| said.epochs.len())
    }

    /// How many cursors were ever given out.
    pub(super) fn cursors(&self) -> usize {
        self.said.first().map_or(0, |said| said.cursors.len())
    }

    pub(super) fn can(&self, ability: Ability) -> bool {
        self.hosts.iter().all(|host| host.abilities().contains(&ability))
    }

    /// Sends `body`, in which `$e1` is an epoch and `$c1` a cursor by its number. Gives the status and the answer, in which it
    /// is so too.
    pub(super) fn ask(&mut self, route: Route, body: &str, claims: &Claims) -> Result<(u16, Value), Broken> {
        let mut answers: Vec<(u16, Value)> = Vec::new();
        let mut exchange = format!("{route:?} {body}");
        for (host, said) in self.hosts.iter_mut().zip(&mut self.said) {
            host.set_clock(self.now)?;
            let body = said.meant(body);
            let answered = host.handle(Sent { route, body: body.as_bytes(), claims, http: None })?;
            let text = String::from_utf8_lossy(&answered.body).into_owned();
            exchange += &format!("\n{}: HTTP {} {text}", host.name(), answered.status);
            let judged = serde_json::from_str(&text).map_err(|error| error.to_string()).and_then(|answer| {
                let token = Token { user_id: &claims.user_id, scopes: &claims.scopes };
                said.model.judge(route, body.as_bytes(), token, self.now, answered.status, &answer)?;
                Ok(said.numbered(answer))
            });
            match judged {
                Ok(answer) => answers.push((answered.status, answer)),
                Err(what) => return Err(Broken::Different { what: format!("{}: {what}", host.name()), exchange }),
            }
        }
        let first = answers.first().cloned().unwrap_or_default();
        for (status, answer) in &answers {
            if let Err(what) = same(&first, &(*status, answer.clone())) {
                return Err(Broken::Different { what, exchange });
            }
        }
        self.count(&first.1);
        Ok(first)
    }

    fn count(&mut self, answer: &Value) {
        let mut note = |word: &Value| {
            if let Some(word) = word.as_str() {
                *self.words.entry(word.to_owned()).or_default() += 1;
            }
        };
        note(&answer["code"]);
        for result in answer["results"].as_array().into_iter().flatten() {
            note(&result["status"]);
            note(&result["error"]["code"]);
            note(&result["conflict"]["rule"]);
        }
        *self.words.entry("left out".to_owned()).or_default() += answer["applied"].as_u64().unwrap_or(0);
        for word in ["reset", "has_more"] {
            *self.words.entry(word.to_owned()).or_default() += u64::from(answer[word] == true);
        }
    }

    pub(super) fn maintain(&mut self) -> Result<(), Broken> {
        for (host, said) in self.hosts.iter_mut().zip(&mut self.said) {
            host.set_clock(self.now)?;
            host.maintain(&self.scope)?;
            said.model.maintain(self.now);
        }
        Ok(())
    }

    pub(super) fn renew_epochs(&mut self) -> Result<(), Broken> {
        for (host, said) in self.hosts.iter_mut().zip(&mut self.said) {
            host.set_clock(self.now)?;
            host.renew_epochs(&self.scope)?;
            let present = said.model.clone();
            said.model.restore(&present, true);
        }
        Ok(())
    }

    /// Somebody else writes tables, and the next request takes it up.
    pub(super) fn write_directly(&mut self, writes: &[DirectWrite]) -> Result<(), Broken> {
        let rows: Vec<_> = writes
            .iter()
            .map(|write| {
                let row = write.row.as_deref().map(|text| serde_json::from_str(text).unwrap_or_default());
                ((write.entity_type.clone(), write.entity_id.clone()), row)
            })
            .collect();
        for (host, said) in self.hosts.iter_mut().zip(&mut self.said) {
            writes.iter().try_for_each(|write| host.write_directly(write))?;
            said.model.write_directly(&self.scope, &rows, TYPES, self.now);
        }
        *self.words.entry("written directly".to_owned()).or_default() += writes.len() as u64;
        Ok(())
    }

    /// Rows and records agree.
    pub(super) fn tables(&mut self) -> Result<(), Broken> {
        for host in self.hosts.iter_mut() {
            if let Some(what) = host.disagreement(&self.scope)? {
                return Err(Broken::Different { what: format!("{}: {what}", host.name()), exchange: String::new() });
            }
        }
        Ok(())
    }

    /// These devices send again what they like, in what order they like: that lanes have theirs is the simulator's to see.
    pub(super) fn share(&mut self, device: &str) {
        self.said.iter_mut().for_each(|said| said.model.share(device));
    }

    /// Compares the ledgers.
    pub(super) fn ledgers(&mut self) -> Result<(), Broken> {
        let mut ledgers = Vec::new();
        for (host, said) in self.hosts.iter_mut().zip(&mut self.said) {
            if !host.abilities().contains(&Ability::Ledger) {
                continue;
            }
            let rows = host.ledger(&self.scope)?.into_iter().map(|row| said.numbered_row(row));
            let rows = rows.map(|row| (row["id"].as_str().unwrap_or_default().to_owned(), row));
            ledgers.push((host.name().to_owned(), Value::Object(rows.collect::<Map<_, _>>())));
        }
        for pair in ledgers.windows(2) {
            if let Err(what) = differs("ledger", &pair[0].1, &pair[1].1) {
                let exchange = format!("{}: {}\n{}: {}", pair[0].0, pair[0].1, pair[1].0, pair[1].1);
                return Err(Broken::Different { what, exchange });
            }
        }
        Ok(())
    }

    /// Claims of `user` for the stream's scope.
    pub(super) fn claims(&self, user: &str) -> Claims {
        Claims::new(user.to_owned(), BTreeSet::from([self.scope.clone()]))
    }
}

/// Which member of a bad request is named first is an endpoint's own matter: the model has judged that.
fn same(a: &(u16, Value), b: &(u16, Value)) -> Result<(), String> {
    if a.0 != b.0 {
        return Err(format!("HTTP {} and {}", a.0, b.0));
    }
    let (mut first, mut second) = (a.1.clone(), b.1.clone());
    if first["code"] == "invalid_request" && second["code"] == "invalid_request" {
        first["field"] = Value::Null;
        second["field"] = Value::Null;
    }
    differs("answer", &first, &second)
}

impl Said {
    /// With the endpoint's own texts. A number that nothing has yet is a text that nobody gave out.
    fn meant(&self, body: &str) -> String {
        let mut meant = String::with_capacity(body.len());
        let mut rest = body;
        while let Some((before, after)) = rest.split_once("\"$") {
            let (name, following) = after.split_once('"').unwrap_or((after, ""));
            let (kind, number) = name.split_at(name.len().min(1));
            let texts = if kind == "e" { &self.epochs } else { &self.cursors };
            let text = number.parse::<usize>().ok().and_then(|number| texts.get(number));
            meant += before;
            meant += &Value::from(text.map_or("unheard of", String::as_str)).to_string();
            rest = following;
        }
        meant + rest
    }

    fn numbered(&mut self, mut answer: Value) -> Value {
        if let Some(epoch) = answer["epoch"].as_str() {
            answer["epoch"] = number("e", &mut self.epochs, epoch);
        }
        if let Some(cursor) = answer["cursor"].as_str() {
            self.cursors.push(cursor.to_owned());
            answer["cursor"] = format!("$c{}", self.cursors.len() - 1).into();
        }
        for result in answer["results"].as_array_mut().into_iter().flatten() {
            if result.get("conflict").is_some() {
                result["conflict"] = self.numbered_row(result["conflict"].take());
            }
        }
        answer
    }

    fn numbered_row(&mut self, mut row: Value) -> Value {
        if let Some(id) = row["id"].as_str().map(str::to_owned) {
            row["id"] = number("r", &mut self.rows, &id);
        }
        row
    }
}

fn number(kind: &str, known: &mut Vec<String>, text: &str) -> Value {
    let at = known.iter().position(|known| known == text).unwrap_or_else(|| {
        known.push(text.to_owned());
        known.len() - 1
    });
    format!("${kind}{at}").into()
}
