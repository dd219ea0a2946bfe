//! What one file's processes sent and heard, and what that allows: which verdicts and charges they may have taken from it, which
//! cursors they may hold, which times they have seen, and when they must be silent (spec §2, §3, §6).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_core::transport::{Request, Response, Route};

use super::{Verdict, hold};

/// What goes over the wire of a process, as the process sees it.
#[derive(Debug, Clone)]
pub(crate) enum Wire {
    /// A request left.
    Sent { number: u64, at_ms: u64, request: Request },
    /// It was answered.
    Heard { number: u64, at_ms: u64, response: Response },
}

/// A push or pull that left.
#[derive(Debug, Clone)]
struct Sent {
    route: Route,
    body: Value,
    /// It was sent under an older term or another epoch: its answer counts for nothing.
    old: bool,
    /// It left as so many things had happened on the wire.
    moment: u64,
}

impl Sent {
    fn operations(&self) -> impl Iterator<Item = &Value> {
        self.body["operations"].as_array().into_iter().flatten()
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.operations().filter_map(|operation| operation["id"].as_str())
    }
}

/// What may have been taken from the answers about one operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// Decisions: `completed`, `conflicted`, `failed` or `cancelled`.
    pub(crate) decisions: BTreeSet<&'static str>,
    /// Attempts that may have been charged.
    pub(crate) charges: u32,
    /// Blamed since the last empty push that was answered, at that moment.
    blamed: Option<u64>,
    /// Our endpoint found it too large, alone.
    pub(crate) too_large: bool,
}

/// A page of the pull.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    /// The highest `changed_at`.
    pub(crate) latest: Option<i64>,
    /// Type, id and version of what changed.
    pub(crate) changes: Vec<(String, String, u64)>,
}

/// The memory of one file's wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    moment: u64,
    sent: BTreeMap<u64, Sent>,
    by_operation: BTreeMap<String, Heard>,
    /// Nothing may leave after this virtual millisecond and before that one.
    silent: Option<(u64, u64)>,
    /// Its clock is wrong, or its disk, or what it was told may be of a history that is no more: waits are not judged.
    lenient: bool,
    /// Cursors that the file may hold by now.
    cursors: BTreeSet<Option<String>>,
    /// Pages heard, by their cursors.
    pages: BTreeMap<String, Page>,
    /// A pull from the start was under way since the last look.
    reset: bool,
    /// Clocks sent since the last look.
    clocks: Vec<SentClock>,
    /// Dots under which this file's operations were heard to have been applied.
    applied: BTreeMap<Entity, BTreeSet<Dot>>,
}

/// The clock that an operation was sent with.
#[derive(Debug, Clone)]
pub(crate) struct SentClock {
    pub(crate) id: String,
    pub(crate) clock: BTreeMap<String, u64>,
    /// The dots of earlier operations of its lane in the same batch.
    pub(crate) before: BTreeSet<Dot>,
    /// What it is about.
    pub(crate) entity: Entity,
}

/// A device id and a sequence.
pub(crate) type Dot = (String, u64);
/// A type and an id.
pub(crate) type Entity = (String, String);

impl Memory {
    /// The file was looked at: it holds this cursor.
    pub(crate) fn look(&mut self, cursor: Option<&str>) {
        self.cursors = [cursor.map(str::to_owned)].into();
        self.reset = false;
        self.clocks.clear();
    }

    /// A newer term has begun since the last look, or another epoch: the answers to these pushes count for nothing any more.
    pub(crate) fn out_of_date(&mut self, sent_before: &BTreeSet<u64>) {
        for (_, sent) in self.sent.iter_mut().filter(|(number, _)| sent_before.contains(*number)) {
            sent.old = true;
        }
    }

    /// Requests that have not been answered.
    pub(crate) fn open(&self) -> BTreeSet<u64> {
        self.sent.keys().copied().collect()
    }

    pub(crate) fn about(&mut self, id: &str) -> &mut Heard {
        self.by_operation.entry(id.to_owned()).or_default()
    }

    pub(crate) fn may_hold(&self, cursor: Option<&str>) -> bool {
        // A reset may begin at any time.
        cursor.is_none() || self.cursors.contains(&cursor.map(str::to_owned))
    }

    /// The page that gave this cursor.
    pub(crate) fn page(&self, cursor: Option<&str>) -> Option<&Page> {
        self.pages.get(cursor?)
    }

    pub(crate) fn was_reset(&self) -> bool {
        self.reset
    }

    /// Whether an operation of this file was applied under this dot, as far as was heard.
    pub(crate) fn was_applied(&self, entity: &Entity, dot: &Dot) -> bool {
        self.applied.get(entity).is_some_and(|dots| dots.contains(dot))
    }

    pub(crate) fn clocks(&self) -> &[SentClock] {
        &self.clocks
    }

    /// What it was told to wait is over, or it may have died before it noted it.
    pub(crate) fn may_speak(&mut self) {
        self.silent = None;
    }

    /// From now on waits are not judged.
    pub(crate) fn be_lenient(&mut self) {
        self.lenient = true;
        self.silent = None;
    }

    pub(crate) fn take(&mut self, wire: Wire) -> Verdict {
        self.moment += 1;
        match wire {
            Wire::Sent { number, at_ms, request } => self.sends(number, at_ms, &request),
            Wire::Heard { number, at_ms, response } => match self.sent.remove(&number) {
                Some(sent) => self.hears(&sent, at_ms, &response),
                None => Ok(()),
            },
        }
    }

    fn sends(&mut self, number: u64, at_ms: u64, request: &Request) -> Verdict {
        if let Some((from, until)) = self.silent {
            // One on its way out when the answer came cannot be called back.
            hold!(
                at_ms <= from || at_ms >= until,
                "retry-after: a request left {} ms before the wait that the endpoint asked for was over",
                until - at_ms
            );
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let sent = Sent { route: request.route, body, old: false, moment: self.moment };
        self.reset |= sent.route == Route::Pull && sent.body["cursor"].is_null();
        nothing_behind_a_withdrawal(&sent)?;
        self.note_clocks(&sent);
        self.sent.insert(number, sent);
        Ok(())
    }

    fn note_clocks(&mut self, sent: &Sent) {
        let device = sent.body["device_id"].as_str().unwrap_or_default();
        let mut dots: BTreeMap<Entity, BTreeSet<Dot>> = BTreeMap::new();
        for operation in sent.operations() {
            let entity = entity(operation);
            let before = dots.entry(entity.clone()).or_default();
            let clock = operation["base_clock"].as_object().into_iter().flatten();
            self.clocks.push(SentClock {
                id: operation["id"].as_str().unwrap_or_default().to_owned(),
                clock: clock.map(|(id, sequence)| (id.clone(), sequence.as_u64().unwrap_or(0))).collect(),
                before: before.clone(),
                entity,
            });
            before.insert((device.to_owned(), operation["sequence"].as_u64().unwrap_or(0)));
        }
    }

    fn hears(&mut self, sent: &Sent, at_ms: u64, response: &Response) -> Verdict {
        // A page is stored by whoever hears it, if its cursor still stands; there is no lease on a pull.
        if response.protocol.is_none() || (sent.old && sent.route == Route::Push) {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        if let Some(wait) = response.retry_after.as_deref().and_then(|text| text.parse::<u64>().ok())
            && matches!(response.status, 429 | 503)
            && !self.lenient
        {
            self.silent = Some((at_ms, at_ms + wait.min(3_600) * 1_000));
        }
        match (sent.route, response.status) {
            (Route::Pull, 200) => self.hears_page(sent, &body),
            (Route::Push, 200) => self.hears_verdicts(sent, &body)?,
            (Route::Push, 413) => self.hears_too_large(sent),
            (Route::Push, 400..) if !matches!(response.status, 401 | 403 | 429 | 503) => {
                for id in sent.ids() {
                    let moment = self.moment;
                    self.about(id).blamed.get_or_insert(moment);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn hears_too_large(&mut self, sent: &Sent) {
        let groups: BTreeSet<String> = sent
            .operations()
            .map(|operation| match operation["transaction_id"].as_str() {
                Some(group) => group.to_owned(),
                None => operation["id"].to_string(),
            })
            .collect();
        if groups.len() == 1 {
            sent.ids().for_each(|id| self.about(id).too_large = true);
        }
    }

    fn hears_page(&mut self, sent: &Sent, page: &Value) {
        let Some(cursor) = page["cursor"].as_str() else { return };
        self.reset |= page["reset"] == true;
        if !self.may_hold(sent.body["cursor"].as_str()) {
            return;
        }
        self.cursors.insert(Some(cursor.to_owned()));
        let mut heard = Page::default();
        for change in page["changes"].as_array().into_iter().flatten() {
            heard.latest = heard.latest.max(time(&change["changed_at"]));
            let name = |member: &str| change[member].as_str().unwrap_or_default().to_owned();
            heard.changes.push((name("entity_type"), name("entity_id"), change["version"].as_u64().unwrap_or(0)));
        }
        self.pages.insert(cursor.to_owned(), heard);
    }

    fn hears_verdicts(&mut self, sent: &Sent, answer: &Value) -> Verdict {
        let results: BTreeMap<&str, &Value> = answer["results"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|result| Some((result["id"].as_str()?, result)))
            .collect();
        let listed = answer["results"].as_array().map_or(0, Vec::len);
        let count = sent.operations().count();
        let known = results.keys().all(|id| sent.ids().any(|own| own == *id));
        let adds_up = answer["applied"].as_u64().unwrap_or(0) as usize + listed == count && results.len() == listed;
        if !adds_up || !known {
            return Ok(());
        }
        if count == 0 {
            for heard in self.by_operation.values_mut().filter(|heard| heard.blamed.is_some_and(|at| at < sent.moment))
            {
                heard.blamed = None;
                heard.charges += 1;
            }
        }
        if let (Some(asked), Some(cursor)) = (sent.body["cursor"].as_str(), answer["cursor"].as_str())
            && self.may_hold(Some(asked))
        {
            self.cursors.insert(Some(cursor.to_owned()));
        }
        for operation in sent.operations() {
            let id = operation["id"].as_str().unwrap_or_default();
            let result = results.get(id).copied();
            if result.is_none_or(has_effect) {
                let dot = dot(&sent.body, operation, result);
                self.applied.entry(entity(operation)).or_default().insert(dot);
            }
            let heard = self.about(id);
            heard.blamed = None;
            match result {
                None => drop(heard.decisions.insert("completed")),
                Some(result) => {
                    quotes_nothing(operation, result)?;
                    heard.take(result);
                }
            }
        }
        Ok(())
    }
}

impl Heard {
    fn take(&mut self, result: &Value) {
        match verdict(result) {
            Some("applied" | "merged") => drop(self.decisions.insert("completed")),
            Some("conflict") => self.decisions.extend(["conflicted", "failed", "cancelled"]),
            Some("rejected") => self.decisions.extend(["failed", "cancelled"]),
            Some("retry") if result["error"]["retry_after_ms"].is_null() => self.charges += 1,
            _ => {}
        }
    }
}

/// Spec §2: a withdrawal is sent "before what follows in its lane and not together with it".
fn nothing_behind_a_withdrawal(sent: &Sent) -> Verdict {
    let mut withdrawn = BTreeSet::new();
    for operation in sent.operations() {
        if operation["void"] == true {
            withdrawn.insert(entity(operation));
        } else {
            hold!(
                !withdrawn.contains(&entity(operation)),
                "order: operation {} was sent together with a withdrawal before it in its lane",
                operation["sequence"]
            );
        }
    }
    Ok(())
}

fn entity(operation: &Value) -> Entity {
    let name = |member: &str| operation[member].as_str().unwrap_or_default().to_owned();
    (name("entity_type"), name("entity_id"))
}

/// The verdict, of a repeated one the first.
fn verdict(result: &Value) -> Option<&str> {
    match result["status"].as_str() {
        Some("already_processed") => result["first"].as_str(),
        status => status,
    }
}

fn has_effect(result: &Value) -> bool {
    matches!(verdict(result), Some("applied" | "merged"))
}

/// Under which an operation was applied: the sender's own, unless the result names another.
fn dot(push: &Value, operation: &Value, result: Option<&Value>) -> Dot {
    let told = result.and_then(|result| Some((result["device_id"].as_str()?, result["sequence"].as_u64()?)));
    let own = || (push["device_id"].as_str().unwrap_or_default(), operation["sequence"].as_u64().unwrap_or(0));
    let (device, sequence) = told.unwrap_or_else(own);
    (device.to_owned(), sequence)
}

/// Invariant 9: what an answer says about an operation names no value of it.
fn quotes_nothing(operation: &Value, result: &Value) -> Verdict {
    let message = result["error"]["message"].as_str().unwrap_or_default();
    for value in operation["payload"].as_object().into_iter().flatten().map(|(_, value)| value) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut words = message.split(|c: char| !c.is_alphanumeric());
        hold!(value.is_empty() || !words.any(|word| word == value), "privacy: a rejection quotes the value: {message}");
    }
    Ok(())
}

fn time(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<syncline_protocol::Timestamp>().ok().map(|time| time.millis())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use syncline_core::transport::Dialect;

    use super::*;

    fn request(route: Route, body: &Value) -> Request {
        Request { route, body: body.to_string().into_bytes() }
    }

    fn push(ids: &[&str]) -> Request {
        let operations: Vec<Value> =
            ids.iter().map(|id| json!({ "id": id, "entity_type": "pin", "entity_id": "e", "sequence": 1 })).collect();
        request(Route::Push, &json!({ "device_id": "a", "cursor": "c1", "operations": operations }))
    }

    fn response(status: u16, retry_after: Option<&str>, body: &Value) -> Response {
        let body = body.to_string().into_bytes();
        Response {
            status,
            protocol: Some("1".into()),
            retry_after: retry_after.map(str::to_owned),
            dialect: Dialect::default(),
            body,
        }
    }

    /// Sends `request` at `at_ms`, and hears `response` at once.
    fn exchange(memory: &mut Memory, number: u64, at_ms: u64, request: Request, response: Response) -> Verdict {
        memory.take(Wire::Sent { number, at_ms, request })?;
        memory.take(Wire::Heard { number, at_ms, response })
    }

    #[test]
    fn nothing_leaves_before_a_wait_is_over() {
        let mut memory = Memory::default();
        let busy = || response(503, Some("20"), &json!({ "code": "unavailable" }));
        exchange(&mut memory, 1, 1_000, push(&[]), busy()).unwrap();
        let early = Wire::Sent { number: 2, at_ms: 20_999, request: push(&[]) };
        assert!(memory.clone().take(early).unwrap_err().starts_with("retry-after: a request left 1 ms before"));
        memory.take(Wire::Sent { number: 2, at_ms: 21_000, request: push(&[]) }).unwrap();

        memory.be_lenient();
        exchange(&mut memory, 3, 30_000, push(&[]), busy()).unwrap();
        memory.take(Wire::Sent { number: 4, at_ms: 30_001, request: push(&[]) }).unwrap();
    }

    #[test]
    fn what_is_behind_a_withdrawal_is_not_sent_with_it() {
        let of = |sequence: u64, entity: &str, void: bool| json!({ "id": "o", "entity_type": "pin", "entity_id": entity, "sequence": sequence, "void": void });
        let send = |operations: [Value; 2]| {
            let request = request(Route::Push, &json!({ "device_id": "a", "cursor": "c1", "operations": operations }));
            Memory::default().take(Wire::Sent { number: 1, at_ms: 0, request })
        };
        assert!(send([of(1, "e", true), of(2, "e", false)]).unwrap_err().starts_with("order: operation 2 was sent"));
        for fine in [
            [of(1, "e", true), of(2, "e", true)],
            [of(1, "e", true), of(2, "f", false)],
            [of(1, "e", false), of(2, "e", true)],
        ] {
            send(fine).unwrap();
        }
    }

    #[test]
    fn an_answer_that_does_not_add_up_decides_nothing() {
        let result = |id: &str| json!({ "id": id, "status": "applied" });
        for (answer, decides) in [
            (json!({ "applied": 1, "results": [result("x")] }), true),
            (json!({ "applied": 2, "results": [result("x")] }), false),
            (json!({ "applied": 1, "results": [result("z")] }), false),
            (json!({ "applied": 0, "results": [result("x"), result("x")] }), false),
        ] {
            let mut memory = Memory::default();
            exchange(&mut memory, 1, 0, push(&["x", "y"]), response(200, None, &answer)).unwrap();
            assert_eq!(memory.about("x").decisions.contains("completed"), decides, "{answer}");
            assert_eq!(memory.about("y").decisions.contains("completed"), decides, "{answer}");
        }
    }

    #[test]
    fn an_answer_of_an_older_term_or_of_somebody_else_decides_nothing() {
        let answer = || response(200, None, &json!({ "applied": 1, "results": [] }));
        let mut memory = Memory::default();
        memory.take(Wire::Sent { number: 1, at_ms: 0, request: push(&["x"]) }).unwrap();
        memory.out_of_date(&[1].into());
        memory.take(Wire::Heard { number: 1, at_ms: 0, response: answer() }).unwrap();
        assert!(memory.about("x").decisions.is_empty());

        let proxy = Response { protocol: None, ..answer() };
        exchange(&mut memory, 2, 0, push(&["x"]), proxy).unwrap();
        assert!(memory.about("x").decisions.is_empty());
    }

    #[test]
    fn nobody_is_charged_before_an_empty_push_was_answered() {
        let mut memory = Memory::default();
        let empty = || response(200, None, &json!({ "applied": 0, "results": [] }));
        memory.take(Wire::Sent { number: 1, at_ms: 0, request: push(&[]) }).unwrap();
        exchange(&mut memory, 2, 0, push(&["x"]), response(500, None, &json!({ "code": "internal" }))).unwrap();
        memory.take(Wire::Heard { number: 1, at_ms: 0, response: empty() }).unwrap();
        assert_eq!(memory.about("x").charges, 0, "that one left before the accusation");
        exchange(&mut memory, 3, 0, push(&[]), empty()).unwrap();
        assert_eq!(memory.about("x").charges, 1);
    }

    #[test]
    fn a_cursor_comes_from_a_request_that_carried_the_one_before() {
        let page = |from: Value, to: &str| {
            (
                request(Route::Pull, &json!({ "cursor": from })),
                response(200, None, &json!({ "cursor": to, "changes": [] })),
            )
        };
        let mut memory = Memory::default();
        memory.look(Some("c2"));
        let (asked, answer) = page(json!("c1"), "c9");
        exchange(&mut memory, 1, 0, asked, answer).unwrap();
        assert!(!memory.may_hold(Some("c9")) && memory.may_hold(Some("c2")) && memory.may_hold(None));
        let (asked, answer) = page(json!("c2"), "c3");
        exchange(&mut memory, 2, 0, asked, answer).unwrap();
        assert!(memory.may_hold(Some("c3")));
    }

    #[test]
    fn a_rejection_that_quotes_a_value_is_noticed() {
        let operation = json!({ "payload": { "f0": "secret", "f1": 7 } });
        let says = |message: &str| quotes_nothing(&operation, &json!({ "error": { "message": message } }));
        assert!(says("The field f0 is no integer.").is_ok());
        assert!(says("\"secret\" is no integer").unwrap_err().starts_with("privacy"));
        assert!(says("7 is above 5").is_err());
    }
}
