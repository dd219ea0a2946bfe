//! Reading requests, and every reason to refuse one as it stands (spec §6 and §7). In which order an endpoint looks for those
//! reasons is its own matter, so all that apply are collected.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use syncline_protocol::{ConflictRule, DeleteRule, OperationKind, Timestamp};

use super::state::{Clock, Lane};
use super::{Limits, Token};

/// What pushes and pulls begin with.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub(crate) user_id: String,
    pub(crate) scope: String,
    pub(crate) device_id: String,
    #[serde(default)]
    pub(crate) epoch: Option<String>,
    #[serde(default)]
    pub(crate) mark: u64,
    #[serde(default)]
    pub(crate) cursor: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Push {
    #[serde(flatten)]
    pub(crate) head: Head,
    #[serde(rename = "sent_at")]
    _sent_at: Timestamp,
    #[serde(default)]
    pub(crate) dry_run: bool,
    #[serde(default)]
    pub(crate) forgotten_through: u64,
    #[serde(default)]
    pub(crate) operations: Vec<Operation>,
}

#[derive(Deserialize)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) idempotency_key: String,
    pub(crate) sequence: u64,
    pub(crate) operation: OperationKind,
    entity_type: String,
    entity_id: String,
    /// As received.
    #[serde(default)]
    pub(crate) payload: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) before: Option<BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    base_clock: Clock,
    pub(crate) timestamp: Timestamp,
    #[serde(default)]
    pub(crate) transaction_id: Option<String>,
    #[serde(default)]
    pub(crate) depends_on: Vec<String>,
    #[serde(default)]
    pub(crate) void: bool,
    /// ADR 7: the app's wish, where the endpoint has no rule for the type.
    #[serde(default)]
    pub(crate) conflict_rule: Option<ConflictRule>,
    #[serde(default)]
    pub(crate) delete_rule: Option<DeleteRule>,
}

impl Operation {
    pub(crate) fn lane(&self) -> Lane {
        (self.entity_type.clone(), self.entity_id.clone())
    }

    /// B, without entries that say nothing: sequences begin at 1.
    pub(crate) fn base(&self) -> Clock {
        self.base_clock.clone().into_iter().filter(|(_, sequence)| *sequence > 0).collect()
    }
}

#[derive(Deserialize)]
pub(crate) struct Pull {
    #[serde(flatten)]
    pub(crate) head: Head,
    #[serde(default)]
    pub(crate) entity_types: Option<Vec<String>>,
    pub(crate) limit: u64,
}

/// A reason to refuse the whole request.
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    /// None: any.
    pub(crate) field: Option<String>,
}

/// The reasons found so far.
#[derive(Default)]
struct Refusals(Vec<Refusal>);

impl Refusals {
    fn add(&mut self, code: &'static str, field: Option<String>) {
        self.0.push(Refusal { code, field });
    }

    fn unless(&mut self, is_right: bool, field: impl Into<String>) {
        if !is_right {
            self.add("invalid_request", Some(field.into()));
        }
    }
}

/// Reads a body. One that cannot be read is refused, whatever its token: the message itself is not compared.
pub(crate) fn read<'b, T: Deserialize<'b>>(body: &'b [u8], limits: &Limits) -> Result<T, Vec<Refusal>> {
    let refuse = |code| vec![Refusal { code, field: None }];
    if body.len() as u64 > limits.max_bytes {
        return Err(refuse("body_too_large"));
    }
    // Only this member is read: a number that no double holds may stand elsewhere in the body.
    let members = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(body).unwrap_or_default();
    let protocol = members.get("protocol").and_then(|text| serde_json::from_str::<Value>(text.get()).ok());
    if protocol.as_ref().and_then(Value::as_u64).is_some_and(|protocol| protocol != 1) {
        return Err(refuse("unsupported_protocol"));
    }
    match serde_json::from_slice(body) {
        Ok(request) if protocol.is_some_and(|protocol| protocol == 1) => Ok(request),
        _ => Err(refuse("invalid_request")),
    }
}

/// §6: "`user_id` and `scope` … the server compares them with the token and refuses".
fn refusals_of_head(head: &Head, token: &Token<'_>) -> Refusals {
    let mut found = Refusals::default();
    if head.user_id != token.user_id {
        found.add("wrong_user", None);
    }
    if !token.scopes.contains(&head.scope) {
        found.add("wrong_scope", None);
    }
    found.unless(is_id(&head.user_id), "user_id");
    found.unless(is_id(&head.scope), "scope");
    // §7: `server` is who writes directly.
    found.unless(is_id(&head.device_id) && head.device_id != "server", "device_id");
    found.unless(is_counter(head.mark), "mark");
    found
}

pub(crate) fn refusals_of_pull(pull: &Pull, token: &Token<'_>) -> Vec<Refusal> {
    let mut found = refusals_of_head(&pull.head, token);
    found.unless(pull.limit > 0, "limit");
    let names = pull.entity_types.as_deref().unwrap_or_default();
    found.unless(names.len() <= 256, "entity_types");
    for (at, name) in names.iter().enumerate() {
        found.unless(is_name(name), format!("entity_types[{at}]"));
    }
    found.0
}

pub(crate) fn refusals_of_push(push: &Push, token: &Token<'_>, limits: &Limits) -> Vec<Refusal> {
    let mut found = refusals_of_head(&push.head, token);
    if push.operations.len() as u64 > limits.max_operations {
        found.add("too_many_operations", None);
    }
    found.unless(is_counter(push.forgotten_through), "forgotten_through");
    let mut given = BTreeSet::new();
    for (at, operation) in push.operations.iter().enumerate() {
        let member = |name: &str| format!("operations[{at}].{name}");
        found.unless(is_id(&operation.id) && given.insert(("id", operation.id.clone())), member("id"));
        let key = &operation.idempotency_key;
        found.unless(is_id(key) && given.insert(("key", key.clone())), member("idempotency_key"));
        let number = operation.sequence;
        // "everything up to sequence N and will never send it again"
        let is_sequence = number > push.forgotten_through && is_counter(number);
        found.unless(is_sequence && given.insert(("sequence", number.to_string())), member("sequence"));
        found.unless(is_name(&operation.entity_type), member("entity_type"));
        found.unless(is_id(&operation.entity_id), member("entity_id"));
        found.unless(operation.transaction_id.as_deref().is_none_or(is_id), member("transaction_id"));
        let clock = &operation.base_clock;
        found.unless(clock.iter().all(|(id, number)| is_id(id) && is_counter(*number)), member("base_clock"));
        check_order(&mut found, &push.operations, at);
    }
    check_transactions(&mut found, &push.operations);
    found.0
}

/// §2: within a lane "in order"; `depends_on`: "earlier operations only".
fn check_order(found: &mut Refusals, operations: &[Operation], at: usize) {
    let operation = &operations[at];
    let is_same_lane =
        |other: &&Operation| other.entity_id == operation.entity_id && other.entity_type == operation.entity_type;
    let earlier = operations[..at].iter().rfind(is_same_lane);
    let in_order = earlier.is_none_or(|earlier| earlier.sequence <= operation.sequence);
    found.unless(in_order, format!("operations[{at}].sequence"));
    for (number, id) in operation.depends_on.iter().enumerate() {
        let is_later = operations[at..].iter().any(|other| other.id == *id);
        found.unless(is_id(id) && !is_later, format!("operations[{at}].depends_on[{number}]"));
    }
}

/// §5: 100 operations and 1 MiB; sent whole, so its members stand together; withdrawn whole, so all are void or none.
fn check_transactions(found: &mut Refusals, operations: &[Operation]) {
    let mut ended = BTreeSet::new();
    let mut at = 0;
    while at < operations.len() {
        let members = group_at(operations, at);
        if let Some(id) = &operations[at].transaction_id {
            let texts = members.iter().filter_map(|member| member.payload.as_ref());
            let bytes: usize = texts.map(|text| text.get().len()).sum();
            let is_right = ended.insert(id)
                && members.len() <= 100
                && bytes <= 1 << 20
                && members.iter().all(|member| member.void == members[0].void);
            found.unless(is_right, format!("operations[{at}].transaction_id"));
        }
        at += members.len();
    }
}

/// The members of the transaction that begins at `at`, or the one operation there.
pub(crate) fn group_at(operations: &[Operation], at: usize) -> &[Operation] {
    let id = &operations[at].transaction_id;
    let others = operations[at + 1..].iter().take_while(|other| id.is_some() && other.transaction_id == *id);
    &operations[at..at + 1 + others.count()]
}

/// §7: "names 64 characters of `[a-z0-9_]`"
fn is_name(text: &str) -> bool {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// §7: "ids 128 characters"; docs/protocol.md: none of them a control character.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// §6: "counters, sequences and versions stay below 2⁵³".
fn is_counter(number: u64) -> bool {
    number < 1 << 53
}
