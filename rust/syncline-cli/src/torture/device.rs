//! A device as the endpoint sees one: an id, a mark, a cursor, and operations written by hand as raw JSON.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use syncline_protocol::{PROTOCOL, Timestamp};

use super::client::{Answer, Credential};
use super::outcome::Trouble;
use super::world::World;

/// An operation on its way. Members can be set to anything; the payload is text, because its text counts.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) members: Map<String, Value>,
    pub(super) payload: Option<String>,
}

impl Op {
    /// Sets a member.
    pub(super) fn set(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// What its writer had seen, as pairs of device id and sequence.
    pub(super) fn base(self, seen: &[(&str, u64)]) -> Self {
        let clock: Map<String, Value> = seen.iter().map(|(device, n)| ((*device).to_owned(), json!(n))).collect();
        self.set("base_clock", clock)
    }

    /// Written so many seconds after the run's own past.
    pub(super) fn at(self, world: &World, seconds: i64) -> Self {
        let moment = world.past(seconds * 1000);
        self.set("timestamp", moment.to_string())
    }

    /// Member of a transaction.
    pub(super) fn within(self, transaction: &str) -> Self {
        self.set("transaction_id", transaction)
    }

    /// With another payload, as text.
    pub(super) fn payload(mut self, text: impl Into<String>) -> Self {
        self.payload = Some(text.into());
        self
    }

    pub(super) fn id(&self) -> &str {
        self.members["id"].as_str().unwrap_or_default()
    }

    pub(super) fn key(&self) -> &str {
        self.members["idempotency_key"].as_str().unwrap_or_default()
    }

    pub(super) fn entity(&self) -> &str {
        self.members["entity_id"].as_str().unwrap_or_default()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.members["sequence"].as_u64().unwrap_or_default()
    }

    fn text(&self) -> String {
        let mut text = Value::Object(self.members.clone()).to_string();
        if let Some(payload) = &self.payload {
            text.pop();
            text = format!("{text},\"payload\":{payload}}}");
        }
        text
    }
}

/// An empty push.
pub(super) const NOTHING: &[Op] = &[];

/// One device of one credential.
#[derive(Clone)]
pub(super) struct Device<'w> {
    world: &'w World,
    pub(super) credential: Credential,
    pub(super) id: String,
    pub(super) epoch: Option<String>,
    pub(super) mark: u64,
    pub(super) sequence: u64,
    pub(super) cursor: Option<String>,
}

impl<'w> Device<'w> {
    /// A device that knows the epoch and nothing else.
    pub(super) fn new(world: &'w World, credential: Credential, id: String, epoch: Option<String>) -> Self {
        Self { world, credential, id, epoch, mark: 0, sequence: 0, cursor: None }
    }

    /// The next operation of this device.
    pub(super) fn operation(&mut self, kind: &str, entity: &str, payload: Option<Value>) -> Op {
        self.sequence += 1;
        let (id, key) = (self.world.name("o"), self.world.name("k"));
        let members = json!({
            "id": id, "idempotency_key": key, "sequence": self.sequence, "operation": kind,
            "entity_type": self.world.entity_type, "entity_id": entity, "timestamp": self.world.tick().to_string(),
        });
        let Value::Object(members) = members else { unreachable!("an object was written") };
        Op { members, payload: payload.map(|payload| payload.to_string()) }
    }

    pub(super) fn create(&mut self, entity: &str, payload: Value) -> Op {
        self.operation("create", entity, Some(payload))
    }

    pub(super) fn update(&mut self, entity: &str, payload: Value) -> Op {
        self.operation("update", entity, Some(payload))
    }

    pub(super) fn delete(&mut self, entity: &str) -> Op {
        self.operation("delete", entity, None)
    }

    /// The envelope of a push, without its operations.
    pub(super) fn envelope(&self) -> Map<String, Value> {
        let envelope = json!({
            "protocol": PROTOCOL, "user_id": self.credential.user, "scope": self.credential.scope, "device_id": self.id,
            "epoch": self.epoch, "mark": self.mark, "cursor": self.cursor, "sent_at": self.world.now().to_string(),
        });
        let Value::Object(envelope) = envelope else { unreachable!("an object was written") };
        envelope
    }

    /// The body of a push.
    pub(super) fn body(&self, operations: &[impl Borrow<Op>]) -> Vec<u8> {
        push_body(&self.envelope(), operations)
    }

    /// Pushes and takes the answer's mark, as a device does.
    pub(super) async fn push(&mut self, operations: &[impl Borrow<Op>]) -> Result<Answer, Trouble> {
        let answer = self.send(self.body(operations)).await?;
        if answer.status == 200
            && let Some(mark) = answer.body["mark"].as_u64()
        {
            self.mark = self.mark.max(mark);
        }
        Ok(answer)
    }

    /// Pushes an envelope with members set to something else; takes nothing of the answer.
    pub(super) async fn push_with(
        &self,
        members: &[(&str, Value)],
        operations: &[impl Borrow<Op>],
    ) -> Result<Answer, Trouble> {
        let mut envelope = self.envelope();
        for (member, value) in members {
            envelope.insert((*member).to_owned(), value.clone());
        }
        self.send(push_body(&envelope, operations)).await
    }

    /// Pushes, and holds the answer to be one whose results add up.
    pub(super) async fn settle(&mut self, operations: &[impl Borrow<Op>]) -> Result<Settled, Trouble> {
        Settled::of(self.push(operations).await?, operations)
    }

    /// Sends the body of a push as it is.
    pub(super) async fn send(&self, body: Vec<u8>) -> Result<Answer, Trouble> {
        self.world.client.post("/v1/push", Some(&self.credential.token), body).await
    }

    /// The body of a pull.
    pub(super) fn pull_body(&self, cursor: Option<&str>, limit: u64, types: Option<&[&str]>) -> Value {
        json!({
            "protocol": PROTOCOL, "user_id": self.credential.user, "scope": self.credential.scope, "device_id": self.id,
            "epoch": self.epoch, "mark": self.mark, "cursor": cursor, "entity_types": types, "limit": limit,
        })
    }

    /// Pulls one page of the run's entity type.
    pub(super) async fn page(&self, cursor: Option<&str>, limit: u64) -> Result<Answer, Trouble> {
        let types = [self.world.entity_type.as_str()];
        let answer = self.ask(self.pull_body(cursor, limit, Some(&types))).await?;
        if answer.status != 200 || !answer.body["changes"].is_array() || !answer.body["cursor"].is_string() {
            return Err(answer.broken("expected a page"));
        }
        Ok(answer)
    }

    /// Sends the body of a pull as it is.
    pub(super) async fn ask(&self, body: Value) -> Result<Answer, Trouble> {
        self.world.client.post("/v1/pull", Some(&self.credential.token), body.to_string().into_bytes()).await
    }
}

/// The body of a push, its operations' payloads as their text.
pub(super) fn push_body(envelope: &Map<String, Value>, operations: &[impl Borrow<Op>]) -> Vec<u8> {
    let mut text = Value::Object(envelope.clone()).to_string();
    text.pop();
    let operations: Vec<String> = operations.iter().map(|operation| operation.borrow().text()).collect();
    format!("{text},\"operations\":[{}]}}", operations.join(",")).into_bytes()
}

/// The answer to a push whose results add up to what was sent.
pub(super) struct Settled {
    pub(super) answer: Answer,
    results: BTreeMap<String, Value>,
}

impl Settled {
    /// Holds the answer to the form that lets a device settle it (spec §6).
    pub(super) fn of(answer: Answer, operations: &[impl Borrow<Op>]) -> Result<Self, Trouble> {
        if answer.status != 200 {
            return Err(answer.broken("expected verdicts"));
        }
        let Some(list) = answer.body["results"].as_array() else {
            return Err(answer.broken("there are no `results`"));
        };
        let applied = answer.body["applied"].as_u64().unwrap_or(0);
        if applied + list.len() as u64 != operations.len() as u64 {
            return Err(answer.broken(format!("`applied` and `results` do not add up to {}", operations.len())));
        }
        let mut sent = operations.iter().map(|operation| operation.borrow().id());
        for result in list {
            if !sent.any(|id| result["id"] == id) {
                return Err(answer.broken("a result is for an operation never sent, given twice or out of order"));
            }
        }
        let results = list.iter().map(|result| (result["id"].as_str().unwrap_or_default().to_owned(), result.clone()));
        Ok(Self { results: results.collect(), answer })
    }

    /// The result of an operation; none if it was left out as applied.
    pub(super) fn result(&self, operation: &Op) -> Option<&Value> {
        self.results.get(operation.id())
    }

    /// The status of an operation.
    pub(super) fn status(&self, operation: &Op) -> &str {
        self.result(operation).map_or("applied", |result| result["status"].as_str().unwrap_or_default())
    }

    /// The status, or the stored one if it is repeated.
    pub(super) fn verdict(&self, operation: &Op) -> &str {
        match self.result(operation) {
            Some(result) if result["status"] == "already_processed" => result["first"].as_str().unwrap_or_default(),
            _ => self.status(operation),
        }
    }

    /// A member of an operation's result; null if there is none.
    pub(super) fn member(&self, operation: &Op, member: &str) -> Value {
        self.result(operation).map_or(Value::Null, |result| result[member].clone())
    }

    /// The code of an operation's error.
    pub(super) fn error(&self, operation: &Op) -> String {
        self.member(operation, "error")["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Holds if the operation has this status.
    pub(super) fn expect(&self, operation: &Op, status: &str) -> Result<(), Trouble> {
        match self.status(operation) {
            found if found == status => Ok(()),
            found => Err(self.answer.broken(format!("expected `{status}` for {}, not `{found}`", operation.id()))),
        }
    }

    /// Holds if the operation is rejected with this code.
    pub(super) fn expect_rejected(&self, operation: &Op, code: &str) -> Result<(), Trouble> {
        self.expect(operation, "rejected")?;
        self.require(self.error(operation) == code, format!("expected the code {code} for {}", operation.id()))
    }

    /// Holds if the operation is a repetition, of this verdict.
    pub(super) fn expect_repeated(&self, operation: &Op, first: &str) -> Result<(), Trouble> {
        self.expect(operation, "already_processed")?;
        let repeats = self.member(operation, "first") == first;
        self.require(repeats, format!("expected `first` to be `{first}` for {}", operation.id()))
    }

    /// Holds if `condition` does; else the answer shows why.
    pub(super) fn require(&self, condition: bool, what: impl AsRef<str>) -> Result<(), Trouble> {
        if condition { Ok(()) } else { Err(self.answer.broken(what)) }
    }
}

/// Whether two JSON values are the same: numbers by value, members in any order, null and absent being one.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys())
            .all(|name| same(a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null))),
        _ => a == b,
    }
}

/// A moment of the wire, in milliseconds since 1970.
pub(super) fn millis(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<Timestamp>().ok().map(Timestamp::millis)
}
