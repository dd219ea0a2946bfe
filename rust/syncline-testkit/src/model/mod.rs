//! A reference endpoint: spec §1 and §4 to §6 over plain maps, written from the text and sharing no decision with the real
//! ones. It knows nothing of a store. Every exchange of a real endpoint can be [judged](Model::judge) by it: the answer must be
//! the one that the model expects, member by member.
//!
//! What nobody can foresee it learns: epochs, cursors and the ids of ledger rows must be new where they are new, and the known
//! ones where they are not. A cursor's text stands for what it was given out for, ever after.
//!
//! Not judged: sentences for people; which of several refusals a bad request gets first; the reason where a body cannot be
//! read at all, or repeats a member's name; unknown members. A cursor that no endpoint here has given out counts as unreadable.

mod answer;
mod compare;
mod direct;
mod invariants;
mod pull;
mod push;
mod request;
mod rules;
mod state;
mod types;
mod used;
pub(crate) mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_protocol::{ProblemCode, Timestamp};

pub use compare::{ServerDevice, ServerEntity, ServerOperation, ServerScope, ServerState, StoredWrite};
pub(crate) use invariants::{check_conflict, check_order};
use push::{Batch, fork};
use request::{Head, Pull, Push, Refusal};
use state::{Cursor, Scope};
pub use state::{Effect, Lane};
pub use types::{Limits, Types};
pub use used::RULES;
use used::Used;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// What a verified token says.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// Whose it is.
    pub user_id: &'a str,
    /// The scopes it opens.
    pub scopes: &'a BTreeSet<String>,
}

/// The reference endpoint. A clone is a snapshot.
#[derive(Clone)]
pub struct Model {
    types: Types,
    limits: Limits,
    scopes: BTreeMap<String, Scope>,
    effects: Vec<Effect>,
    heard: Heard,
    used: Used,
}

/// What was ever said. No restored backup takes it back.
#[derive(Clone, Default)]
struct Heard {
    epochs: BTreeSet<String>,
    conflicts: BTreeSet<String>,
    cursors: BTreeMap<String, Cursor>,
    /// Device ids that more than one file has used.
    shared: BTreeSet<String>,
}

impl Heard {
    fn cursor(&mut self, text: &Value, stands_for: Cursor) -> Result<(), String> {
        let text = text.as_str().ok_or("there is no cursor")?;
        let known = self.cursors.entry(text.to_owned()).or_insert_with(|| stands_for.clone());
        if *known == stands_for {
            return Ok(());
        }
        Err(format!("the cursor was given out for {known:?}, and now for {stands_for:?}"))
    }
}

impl Model {
    /// An endpoint that was never used.
    pub fn new(types: Types, limits: Limits) -> Self {
        Self {
            types,
            limits,
            scopes: BTreeMap::new(),
            effects: Vec::new(),
            heard: Heard::default(),
            used: Used::default(),
        }
    }

    /// Configures entity types, in place of all before.
    pub fn set_types(&mut self, types: Types) {
        self.types = types;
    }

    /// Configures the limits.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// More than one file uses this device id: until that is known, two lanes go by one name, and have no order.
    pub fn share(&mut self, device_id: &str) {
        self.heard.shared.insert(device_id.to_owned());
    }

    /// What took effect, in order.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// How often each of [`RULES`] was used.
    pub fn rules(&self) -> &BTreeMap<&'static str, u64> {
        self.used.counts()
    }

    /// Goes back to a snapshot. `told`: the operator said so, and every scope gets a new epoch.
    pub fn restore(&mut self, snapshot: &Model, told: bool) {
        self.scopes = snapshot.scopes.clone();
        self.effects = snapshot.effects.clone();
        if told {
            self.scopes.values_mut().for_each(|scope| scope.epoch = None);
        }
    }

    /// Learns the epochs that the operator has just had renewed.
    ///
    /// # Errors
    /// One that was used before.
    pub fn renewed(&mut self, stored: &ServerState) -> Result<(), String> {
        for (name, scope) in self.scopes.iter_mut().filter(|(_, scope)| scope.epoch.is_none()) {
            let epoch = stored.scopes.get(name).map(|stored| stored.epoch.clone());
            if epoch.as_ref().is_some_and(|epoch| !self.heard.epochs.insert(epoch.clone())) {
                return Err(format!("the renewed epoch {epoch:?} was used before"));
            }
            scope.epoch = epoch;
        }
        Ok(())
    }

    /// Drops what nobody can ask for any more: keys that their device has forgotten, 90 days old (§6), and tombstones, 180 days
    /// old (docs/protocol.md, "Forgetting").
    pub fn maintain(&mut self, now: Timestamp) {
        for scope in self.scopes.values_mut() {
            let keys_before = now.millis() - 90 * DAY_MILLIS;
            let devices = &scope.devices;
            scope.verdicts.retain(|_, stored| {
                let forgotten = devices.get(&stored.device).map_or(0, |device| device.forgotten_through);
                stored.decided_at >= keys_before || stored.sequence > forgotten
            });
            let tombstones_before = now.millis() - 180 * DAY_MILLIS;
            let is_old =
                |entity: &state::Entity| entity.record.deleted.is_some() && entity.stored_at < tombstones_before;
            let dropped = scope.entities.values().filter(|entity| is_old(entity)).map(|entity| entity.version).max();
            scope.horizon = scope.horizon.max(dropped.unwrap_or(0));
            scope.entities.retain(|_, entity| !is_old(entity));
        }
    }

    /// Judges one exchange: what arrived, under which token and when by the endpoint's clock, and what was answered.
    ///
    /// # Errors
    /// The first difference from the answer that the spec demands.
    pub fn judge(
        &mut self,
        route: Route,
        body: &[u8],
        token: Token<'_>,
        now: Timestamp,
        status: u16,
        answer: &Value,
    ) -> Result<(), String> {
        // An endpoint may at any time be unable for now (docs/protocol.md). It has decided nothing then.
        if answer["code"] == "unavailable" {
            return expect_problem(status, answer, "unavailable", json!({}));
        }
        match route {
            Route::Push => self.judge_push(body, token, now, status, answer),
            Route::Pull => self.judge_pull(body, token, status, answer),
        }
    }

    /// Takes in a request whose answer nobody heard, because the endpoint died: it was decided, as a store that now holds
    /// `stored` shows. Whether that is what should have been decided, [`Model::compare`] tells.
    pub fn unheard(&mut self, route: Route, body: &[u8], now: Timestamp, stored: &ServerState) {
        match route {
            Route::Push => {
                let Ok(push) = request::read::<Push>(body, &self.limits) else { return };
                if !self.unheard_history(&push.head, stored) && push.head.epoch.is_some() {
                    self.settle_unheard(&push, now, stored);
                }
            }
            Route::Pull => {
                let Ok(pull) = request::read::<Pull>(body, &self.limits) else { return };
                self.unheard_history(&pull.head, stored);
            }
        }
    }

    /// Whether the request was behind, or the server.
    fn unheard_history(&mut self, head: &Head, stored: &ServerState) -> bool {
        let is_behind = self.is_behind(head, self.known_cursor(head).as_ref());
        let state = self.scopes.get_mut(&head.scope).expect("its history was compared");
        if let (None, Some(stored)) = (&state.epoch, stored.scopes.get(&head.scope)) {
            state.epoch = Some(stored.epoch.clone());
            self.heard.epochs.insert(stored.epoch.clone());
        }
        is_behind
    }

    fn judge_push(
        &mut self,
        body: &[u8],
        token: Token<'_>,
        now: Timestamp,
        status: u16,
        answer: &Value,
    ) -> Result<(), String> {
        let push: Push = match request::read(body, &self.limits) {
            Ok(push) => push,
            Err(refusals) => return self.expect_refusal(status, answer, &refusals),
        };
        let refusals = request::refusals_of_push(&push, &token, &self.limits);
        // "a push without an epoch too: a new device pulls first"
        let is_new = push.head.epoch.is_none();
        let ControlFlow::Continue(cursor) = self.admit(&push.head, is_new, &refusals, status, answer)? else {
            return Ok(());
        };
        let scope = &self.scopes[&push.head.scope];
        if let Some(rule) = fork(&push, scope) {
            self.used.note(rule);
            return expect_problem(status, answer, "device_forked", json!({}));
        }
        expect_verdicts(status, answer)?;
        let cursor = cursor.filter(|it| it.scope == push.head.scope && Some(&it.epoch) == scope.epoch.as_ref());
        let decided = Batch::new(&push, scope, &self.types, &self.limits, now).decide();
        self.settle(&push, decided, cursor, now, answer)
    }

    fn judge_pull(&mut self, body: &[u8], token: Token<'_>, status: u16, answer: &Value) -> Result<(), String> {
        let pull: Pull = match request::read(body, &self.limits) {
            Ok(pull) => pull,
            Err(refusals) => return self.expect_refusal(status, answer, &refusals),
        };
        let refusals = request::refusals_of_pull(&pull, &token);
        let ControlFlow::Continue(cursor) = self.admit(&pull.head, false, &refusals, status, answer)? else {
            return Ok(());
        };
        expect_verdicts(status, answer)?;
        self.learn_epoch(&pull.head.scope, answer)?;
        self.page(&pull, cursor, answer)
    }

    /// What comes before the work itself. Goes on with the cursor, if one was ever given out under that text; ends where the request
    /// must be refused, and was. `is_new`: the device has to pull first.
    fn admit(
        &mut self,
        head: &Head,
        is_new: bool,
        refusals: &[Refusal],
        status: u16,
        answer: &Value,
    ) -> Result<ControlFlow<(), Option<Cursor>>, String> {
        if !refusals.is_empty() {
            return self.expect_refusal(status, answer, refusals).map(ControlFlow::Break);
        }
        if self.is_anothers(head) {
            return expect_problem(status, answer, "wrong_device", json!({})).map(ControlFlow::Break);
        }
        let cursor = self.known_cursor(head);
        if self.is_behind(head, cursor.as_ref()) || is_new {
            return self.expect_behind(head, status, answer).map(ControlFlow::Break);
        }
        Ok(ControlFlow::Continue(cursor))
    }

    fn known_cursor(&self, head: &Head) -> Option<Cursor> {
        head.cursor.as_ref().and_then(|text| self.heard.cursors.get(text)).cloned()
    }

    /// §6: "a device id that belongs to another user is refused".
    fn is_anothers(&self, head: &Head) -> bool {
        self.device(head).is_some_and(|device| device.user != head.user_id)
    }

    fn device(&self, head: &Head) -> Option<&state::Device> {
        self.scopes.get(&head.scope).and_then(|scope| scope.devices.get(&head.device_id))
    }

    fn mark(&self, head: &Head) -> u64 {
        self.device(head).map_or(0, |device| device.mark)
    }

    /// §6: "a server below that mark, or of another epoch, answers `server_behind`"; "the epoch is renewed when … a mark or a
    /// cursor of its own epoch is ahead of it". The scope comes into being on first use.
    fn is_behind(&mut self, head: &Head, cursor: Option<&Cursor>) -> bool {
        let is_below = head.mark > self.mark(head);
        let scope = self.scopes.entry(head.scope.clone()).or_default();
        let is_present = |epoch: &String| scope.epoch.as_ref() == Some(epoch);
        let is_other = head.epoch.as_ref().is_some_and(|epoch| !is_present(epoch));
        let is_cursor_ahead =
            cursor.is_some_and(|it| it.scope == head.scope && is_present(&it.epoch) && it.version > scope.head);
        if is_cursor_ahead || is_below && head.epoch.as_ref().is_some_and(is_present) {
            scope.epoch = None;
        }
        is_other || is_below || is_cursor_ahead
    }

    /// "answers `server_behind` with both and does nothing"; "renewing it commits before `server_behind` is answered".
    fn expect_behind(&mut self, head: &Head, status: u16, answer: &Value) -> Result<(), String> {
        if answer["code"] == "server_behind" {
            self.learn_epoch(&head.scope, answer)?;
        }
        let members = json!({ "epoch": self.scopes[&head.scope].epoch, "mark": self.mark(head) });
        expect_problem(status, answer, "server_behind", members)
    }

    /// A new epoch is "a new text"; a known one is not looked at here.
    fn learn_epoch(&mut self, scope: &str, answer: &Value) -> Result<(), String> {
        let scope = self.scopes.get_mut(scope).expect("its history was compared");
        if scope.epoch.is_none() {
            let text = answer["epoch"].as_str().ok_or("the answer has no epoch")?;
            if !self.heard.epochs.insert(text.to_owned()) {
                return Err(format!("the epoch {text} was used before"));
            }
            scope.epoch = Some(text.to_owned());
        }
        Ok(())
    }

    /// One of these refusals must be the answer.
    fn expect_refusal(&self, status: u16, answer: &Value, refusals: &[Refusal]) -> Result<(), String> {
        let field = answer["field"].as_str();
        let is_this = |refusal: &&Refusal| {
            answer["code"] == refusal.code && (refusal.field.is_none() || refusal.field.as_deref() == field)
        };
        let Some(refusal) = refusals.iter().find(is_this) else {
            let expected: Vec<_> = refusals.iter().map(|refusal| (refusal.code, &refusal.field)).collect();
            return Err(format!(
                "the answer is {status} {} {}, not one of {expected:?}",
                answer["code"], answer["field"]
            ));
        };
        let members = match refusal.code {
            // §6: "413 or `limits` shrink the client's batches".
            "body_too_large" | "too_many_operations" => json!({ "limits": self.limits.on_the_wire() }),
            "unsupported_protocol" => json!({ "supported": [1] }),
            _ => json!({ "field": field }),
        };
        expect_problem(status, answer, refusal.code, members)
    }
}

/// "A verdict is HTTP 200, also when it rejects."
fn expect_verdicts(status: u16, answer: &Value) -> Result<(), String> {
    if status == 200 { Ok(()) } else { Err(format!("the answer is {status} {}, not verdicts", answer["code"])) }
}

fn expect_problem(status: u16, answer: &Value, code: &str, mut members: Value) -> Result<(), String> {
    if answer["code"] != code {
        return Err(format!("the answer is {status} {}, not {code}", answer["code"]));
    }
    let expected = ProblemCode::parse(code).map(ProblemCode::status);
    members["code"] = json!(code);
    members["status"] = json!(expected);
    if expected != Some(status) {
        return Err(format!("{code} came with HTTP {status}"));
    }
    values::differs("problem", &members, answer)
}
