//! Endpoints that break one rule each, to see that a check from outside finds it: the real endpoint, with what goes in or
//! comes out of it tampered with.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_protocol::{Clock, Timestamp, check_entity_id};
use syncline_server::store::Storage;
use syncline_server::{Answer, Claims, Embedded, Endpoint, Random, Request, SqliteStore};

/// What is wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// Every request is taken for a new one.
    ForgetsKeys,
    /// The members of a transaction are decided one by one.
    SplitsTransactions,
    /// A timestamp from the future is believed.
    BelievesTheFuture,
    /// The time of arrival counts instead of the time of writing.
    JudgesByArrival,
    /// Every writer is taken to have seen everything.
    IgnoresBaseClocks,
    /// Lost values are told nobody.
    LosesTheLedger,
    /// The last change of a full page is left out, and its cursor is past it.
    SkipsAtPageEnds,
    /// Every page is said to be the last one.
    EndsEveryPage,
    /// A cursor brings its own type filter with it, whatever the request asks for.
    KeepsOldFilters,
    /// The scope in the body gives access.
    TrustsTheScope,
    /// Keys are shared by all scopes.
    SharesKeys,
    /// A push without operations is not counted.
    OverlooksEmptyPushes,
    /// A push without an epoch is served.
    NeedsNoEpoch,
    /// A copy of a device is served as one more device.
    AdoptsForks,
    /// A withdrawn operation is applied.
    AppliesVoided,
    /// An update of nothing is answered `applied`.
    ConfirmsWhatIsMissing,
    /// Who guesses a key is told its verdict.
    RevealsReusedKeys,
    /// A dry run is committed.
    CommitsDryRuns,
    /// Every applied result is left out, whatever the device has pulled.
    LeavesOutTooMuch,
    /// Problems are plain JSON.
    PlainProblems,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ForgetsKeys,
        Self::SplitsTransactions,
        Self::BelievesTheFuture,
        Self::JudgesByArrival,
        Self::IgnoresBaseClocks,
        Self::LosesTheLedger,
        Self::SkipsAtPageEnds,
        Self::EndsEveryPage,
        Self::KeepsOldFilters,
        Self::TrustsTheScope,
        Self::SharesKeys,
        Self::OverlooksEmptyPushes,
        Self::NeedsNoEpoch,
        Self::AdoptsForks,
        Self::AppliesVoided,
        Self::ConfirmsWhatIsMissing,
        Self::RevealsReusedKeys,
        Self::CommitsDryRuns,
        Self::LeavesOutTooMuch,
        Self::PlainProblems,
    ];
}

/// The real endpoint with a flaw.
pub struct BrokenEndpoint {
    inner: Embedded<SqliteStore>,
    flaw: Flaw,
    /// Makes what must differ differ.
    counter: u64,
    /// The last moment given to an operation.
    moment: i64,
    /// The scope in which each key was used first.
    keys: BTreeMap<String, String>,
    /// The type filter with which each cursor was given.
    filters: BTreeMap<String, Value>,
}

/// What a request carries beside its body.
struct Context<'a> {
    claims: &'a Claims,
    now: Timestamp,
    random: &'a mut dyn Random,
}

impl BrokenEndpoint {
    /// `inner`, with `flaw`.
    pub fn new(inner: Embedded<SqliteStore>, flaw: Flaw) -> Self {
        Self { inner, flaw, counter: 0, moment: 0, keys: BTreeMap::new(), filters: BTreeMap::new() }
    }

    fn push(&mut self, original: &[u8], mut context: Context<'_>) -> Answer {
        // What is no request is refused by the real one.
        let Some(mut request) = object(original) else { return self.forward(true, original, &mut context) };
        let untouched = request.clone();
        self.tamper_with_push(&mut request, context.now);
        // The text of a payload counts: it is written anew only where it has to be.
        let rewritten = request.to_string();
        let body = if request == untouched { original } else { rewritten.as_bytes() };
        let mut answer = self.forward(true, body, &mut context);
        if self.flaw == Flaw::AdoptsForks && code(&answer) == "device_forked" {
            self.counter += 1;
            request["device_id"] = json!(format!("adopted-{}", self.counter));
            request["mark"] = json!(0);
            answer = self.forward(true, request.to_string().as_bytes(), &mut context);
        }
        self.tamper_with_results(&untouched, answer, context.now)
    }

    fn pull(&mut self, original: &[u8], mut context: Context<'_>) -> Answer {
        let Some(mut request) = object(original) else { return self.forward(false, original, &mut context) };
        let filter = request["cursor"].as_str().and_then(|cursor| self.filters.get(cursor));
        if let (Flaw::KeepsOldFilters, Some(filter)) = (self.flaw, filter) {
            request["entity_types"] = filter.clone();
        }
        let answer = self.forward(false, request.to_string().as_bytes(), &mut context);
        let flaw = self.flaw;
        let filters = &mut self.filters;
        rewrite(answer, |page| {
            if flaw == Flaw::SkipsAtPageEnds && page["has_more"] == true {
                page["changes"].as_array_mut().and_then(Vec::pop);
            }
            if flaw == Flaw::EndsEveryPage {
                page["has_more"] = json!(false);
            }
            if let Some(cursor) = page["cursor"].as_str() {
                filters.insert(cursor.to_owned(), request["entity_types"].clone());
            }
        })
    }

    /// Asks the real endpoint.
    fn forward(&mut self, is_push: bool, body: &[u8], context: &mut Context<'_>) -> Answer {
        let request = if is_push { Request::Push(body) } else { Request::Pull(body) };
        let (mut claims, mut now) = (context.claims.clone(), context.now);
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if let (Flaw::TrustsTheScope, Some(scope)) = (self.flaw, value["scope"].as_str()) {
            claims.scopes.insert(scope.to_owned());
        }
        if self.flaw == Flaw::BelievesTheFuture {
            now = operations(&value).filter_map(|operation| moment(&operation["timestamp"])).fold(now, Timestamp::max);
        }
        self.inner.handle(request, &claims, now, context.random)
    }

    fn tamper_with_push(&mut self, request: &mut Value, now: Timestamp) {
        let scope = request["scope"].as_str().unwrap_or_default().to_owned();
        let is_empty = request["operations"].as_array().is_some_and(Vec::is_empty);
        match self.flaw {
            Flaw::OverlooksEmptyPushes if is_empty => request["dry_run"] = json!(true),
            Flaw::NeedsNoEpoch if request["epoch"].is_null() => {
                request["epoch"] = json!(self.inner.epoch(&scope).ok().flatten());
            }
            Flaw::CommitsDryRuns if request["dry_run"] == true => request["dry_run"] = json!(false),
            _ => {}
        }
        for operation in request["operations"].as_array_mut().into_iter().flatten().filter(|one| one.is_object()) {
            self.tamper_with_operation(operation, &scope, now);
        }
    }

    fn tamper_with_operation(&mut self, operation: &mut Value, scope: &str, now: Timestamp) {
        match self.flaw {
            Flaw::ForgetsKeys => {
                self.counter += 1;
                // What is no key stays none.
                if let Some(key) = operation["idempotency_key"].as_str().filter(|key| check_entity_id(key)) {
                    operation["idempotency_key"] = json!(format!("{key}~{}", self.counter));
                }
            }
            Flaw::SplitsTransactions if operation["transaction_id"].as_str().is_some_and(check_entity_id) => {
                operation["transaction_id"] = Value::Null;
            }
            Flaw::JudgesByArrival if moment(&operation["timestamp"]).is_some() => {
                self.moment = now.millis().max(self.moment + 1);
                operation["timestamp"] = json!(Timestamp::from_millis(self.moment));
            }
            Flaw::IgnoresBaseClocks => {
                let seen = self.clock(operation, scope);
                let base = operation["base_clock"].as_object();
                if base.is_some() || operation["base_clock"].is_null() {
                    let mut base = base.cloned().unwrap_or_default();
                    for (device, sequence) in seen.iter() {
                        base.insert(device.to_owned(), json!(sequence));
                    }
                    operation["base_clock"] = Value::Object(base);
                }
            }
            Flaw::AppliesVoided if operation["void"] == true => operation["void"] = json!(false),
            _ => {}
        }
    }

    /// The clock of the operation's entity, as it stands.
    fn clock(&mut self, operation: &Value, scope: &str) -> Clock {
        let name = |member: &str| operation[member].as_str().unwrap_or_default();
        let transaction = self.inner.store_mut().transaction(scope);
        let entity = transaction.and_then(|mut transaction| transaction.entity(name("entity_type"), name("entity_id")));
        entity.ok().flatten().map(|entity| entity.record.clock()).unwrap_or_default()
    }

    fn tamper_with_results(&mut self, request: &Value, answer: Answer, now: Timestamp) -> Answer {
        let scope = request["scope"].as_str().unwrap_or_default().to_owned();
        if self.flaw == Flaw::PlainProblems && answer.problem.is_some() {
            return Answer { content_type: "application/json", ..answer };
        }
        if answer.status != 200 {
            return answer;
        }
        rewrite(answer, |body| match self.flaw {
            Flaw::BelievesTheFuture => body["server_time"] = json!(now),
            Flaw::OverlooksEmptyPushes if body["mark"].is_null() && request["dry_run"] != true => {
                let device = request["device_id"].as_str().unwrap_or_default();
                body["mark"] = json!(self.inner.device(&scope, device).ok().flatten().map_or(0, |device| device.mark));
            }
            Flaw::CommitsDryRuns if request["dry_run"] == true => remove(body, "mark"),
            Flaw::SharesKeys => self.refuse_shared_keys(request, &scope, body),
            Flaw::RevealsReusedKeys => self.reveal_keys(request, &scope, body),
            Flaw::LeavesOutTooMuch => leave_out(body),
            Flaw::LosesTheLedger => results(body).for_each(|result| remove(result, "conflict")),
            Flaw::ConfirmsWhatIsMissing => {
                for result in results(body).filter(|result| result["error"]["code"] == "not_found") {
                    if result["status"] == "rejected" {
                        result["status"] = json!("applied");
                        remove(result, "error");
                    }
                }
            }
            _ => {}
        })
    }

    /// Answers a key that another scope has used as one that is taken.
    fn refuse_shared_keys(&mut self, request: &Value, scope: &str, body: &mut Value) {
        let mut told = Vec::new();
        let mut applied = body["applied"].as_u64().unwrap_or(0);
        for operation in operations(request) {
            let key = operation["idempotency_key"].as_str().unwrap_or_default();
            let owner = self.keys.entry(key.to_owned()).or_insert_with(|| scope.to_owned());
            let own = results(body).find(|result| result["id"] == operation["id"]).cloned();
            if owner != scope {
                applied -= u64::from(own.is_none());
                let error = json!({ "code": "idempotency_key_reused", "message": "the key is taken" });
                told.push(json!({ "id": operation["id"], "status": "rejected", "deleted": true, "error": error }));
            } else {
                told.extend(own);
            }
        }
        body["applied"] = json!(applied);
        body["results"] = Value::Array(told);
    }

    fn reveal_keys(&mut self, request: &Value, scope: &str, body: &mut Value) {
        for result in results(body).filter(|result| result["error"]["code"] == "idempotency_key_reused") {
            let operation = operations(request).find(|operation| operation["id"] == result["id"]);
            let key = operation.and_then(|operation| operation["idempotency_key"].as_str()).unwrap_or_default();
            let stored = self.inner.operation(scope, key).ok().flatten();
            result["first"] = json!(stored.map(|stored| stored.verdict));
        }
    }
}

impl Endpoint for BrokenEndpoint {
    fn handle(&mut self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer {
        let context = Context { claims, now, random };
        match request {
            Request::Push(body) => self.push(body, context),
            Request::Pull(body) => self.pull(body, context),
        }
    }
}

fn object(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

fn code(answer: &Answer) -> &str {
    answer.problem.as_ref().map_or("", |problem| problem.code.as_str())
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn operations(request: &Value) -> impl Iterator<Item = &Value> {
    request["operations"].as_array().into_iter().flatten()
}

fn results(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body["results"].as_array_mut().into_iter().flatten()
}

fn remove(object: &mut Value, member: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(member);
    }
}

fn leave_out(body: &mut Value) {
    let Some(list) = body["results"].as_array_mut() else { return };
    let before = list.len();
    list.retain(|result| result["status"] != "applied");
    let left_out = before - list.len();
    body["applied"] = json!(body["applied"].as_u64().unwrap_or(0) + left_out as u64);
}

/// Changes the body of an answer that is no problem.
fn rewrite(answer: Answer, change: impl FnOnce(&mut Value)) -> Answer {
    match serde_json::from_str::<Value>(&answer.body) {
        Ok(mut body) if answer.status == 200 => {
            change(&mut body);
            Answer { body: body.to_string(), ..answer }
        }
        _ => answer,
    }
}
