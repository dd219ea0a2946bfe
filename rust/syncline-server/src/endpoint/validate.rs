//! What a request must be before anything is looked up. A malformed request is refused whole, its member named; a payload
//! that breaks a rule is the operation's own matter (`rejected`), so that nothing else suffers from it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use syncline_protocol::{
    Clock, Dot, Limits, MAX_COUNTER, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OPERATIONS, OperationKind, PROTOCOL,
    Problem, ProblemCode, PullRequest, PushOperation, PushRequest, Record, ResultError, SERVER_DEVICE, check_entity_id,
    check_name, check_payload, planted,
};

use super::types::result_error;
use super::{Claims, EndpointLimits};

/// Names in a pull's type filter.
pub(super) const MAX_FILTER_NAMES: usize = 256;

/// Reads a request: the protocol number is judged before anything else of the body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], limits: &EndpointLimits) -> Result<T, Box<Problem>> {
    if body.len() as u64 > limits.max_bytes {
        return Err(too_large(ProblemCode::BodyTooLarge, limits));
    }
    let text = std::str::from_utf8(body).map_err(|_| invalid("$", "is not UTF-8"))?;
    check_protocol(text)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, error.inner())
    })
}

/// A 413 that says what would be taken.
pub(crate) fn too_large(code: ProblemCode, limits: &EndpointLimits) -> Box<Problem> {
    Box::new(Problem { limits: Some(limits.wire()), ..Problem::new(code) })
}

fn check_protocol(text: &str) -> Result<(), Box<Problem>> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, default)]
        protocol: Option<&'a RawValue>,
    }
    // serde would read an array as the struct's members in order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("$", "is not a JSON object"));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| explain(".", &error))?;
    let number = envelope.protocol.ok_or_else(|| invalid("protocol", "is missing"))?;
    match serde_json::from_str::<u64>(number.get()) {
        Ok(version) if version == u64::from(PROTOCOL) => Ok(()),
        Ok(_) => Err(Box::new(Problem { supported: vec![PROTOCOL], ..Problem::new(ProblemCode::UnsupportedProtocol) })),
        Err(_) => Err(invalid("protocol", "is not a protocol number")),
    }
}

/// serde's messages may quote a value, so only their kind is passed on.
fn explain(path: &str, error: &serde_json::Error) -> Box<Problem> {
    if !error.is_data() {
        return invalid("$", "is not JSON");
    }
    let path = if path == "." { "" } else { path };
    let message = error.to_string();
    match message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        Some(name) if path.is_empty() => invalid(name, "is missing"),
        Some(name) => invalid(format!("{path}.{name}"), "is missing"),
        None => invalid(if path.is_empty() { "$" } else { path }, "has the wrong type or form"),
    }
}

/// The problem of a member that is wrong.
pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Box<Problem> {
    Problem::new(ProblemCode::InvalidRequest).field(field).detail(detail).into()
}

/// Compares what the file was opened for with what the token allows.
pub(super) fn check_claims(user_id: &str, scope: &str, claims: &Claims) -> Result<(), Box<Problem>> {
    if user_id != claims.user_id {
        return Err(Problem::new(ProblemCode::WrongUser).into());
    }
    if !claims.scopes.contains(scope) && !planted!(TrustBodyScope) {
        return Err(Problem::new(ProblemCode::WrongScope).into());
    }
    Ok(())
}

/// Checks a push: limits, names, ids, counters, lane order and transactions.
pub(super) fn check_push(request: &PushRequest, limits: &EndpointLimits) -> Result<(), Box<Problem>> {
    check_head(&request.user_id, &request.scope, &request.device_id, request.mark)?;
    if request.operations.len() as u64 > limits.max_operations {
        return Err(too_large(ProblemCode::TooManyOperations, limits));
    }
    check_counter("forgotten_through", request.forgotten_through)?;
    for (index, operation) in request.operations.iter().enumerate() {
        check_operation(operation, request.forgotten_through)
            .map_err(|(member, detail)| invalid(format!("operations[{index}].{member}"), detail))?;
    }
    check_uniqueness(&request.operations)?;
    check_order(&request.operations)?;
    check_transactions(&request.operations)
}

/// Checks a pull.
pub(super) fn check_pull(request: &PullRequest) -> Result<(), Box<Problem>> {
    check_head(&request.user_id, &request.scope, &request.device_id, request.mark)?;
    if request.limit == 0 {
        return Err(invalid("limit", "is 0"));
    }
    let names = request.entity_types.as_deref().unwrap_or_default();
    if names.len() > MAX_FILTER_NAMES {
        return Err(invalid("entity_types", format!("has more than {MAX_FILTER_NAMES} names")));
    }
    match names.iter().position(|name| !check_name(name)) {
        Some(index) => Err(invalid(format!("entity_types[{index}]"), NAME)),
        None => Ok(()),
    }
}

const NAME: &str = "is not 1 to 64 characters of [a-z0-9_]";
const ID: &str = "is not 1 to 128 characters without control characters";
const COUNTER: &str = "is not below 2^53";

fn check_head(user_id: &str, scope: &str, device_id: &str, mark: u64) -> Result<(), Box<Problem>> {
    for (member, id) in [("user_id", user_id), ("scope", scope), ("device_id", device_id)] {
        if !check_entity_id(id) {
            return Err(invalid(member, ID));
        }
    }
    if device_id == SERVER_DEVICE {
        return Err(invalid("device_id", "is the name of the server's own writes"));
    }
    check_counter("mark", mark)
}

fn check_counter(member: &str, value: u64) -> Result<(), Box<Problem>> {
    if value > MAX_COUNTER { Err(invalid(member, COUNTER)) } else { Ok(()) }
}

fn check_operation(operation: &PushOperation, forgotten_through: u64) -> Result<(), (String, &'static str)> {
    let ids = [
        ("id", Some(&operation.id)),
        ("idempotency_key", Some(&operation.idempotency_key)),
        ("entity_id", Some(&operation.entity_id)),
        ("transaction_id", operation.transaction_id.as_ref()),
    ];
    for (member, id) in ids {
        if id.is_some_and(|id| !check_entity_id(id)) {
            return Err((member.into(), ID));
        }
    }
    if !check_name(&operation.entity_type) {
        return Err(("entity_type".into(), NAME));
    }
    if operation.sequence == 0 || operation.sequence > MAX_COUNTER {
        return Err(("sequence".into(), "is not between 1 and 2^53 - 1"));
    }
    if operation.sequence <= forgotten_through {
        return Err(("sequence".into(), "is not above forgotten_through"));
    }
    if operation.base_clock.iter().any(|(device, sequence)| !check_entity_id(device) || sequence > MAX_COUNTER) {
        return Err(("base_clock".into(), "has a device id or a counter out of range"));
    }
    if let Some(index) = operation.depends_on.iter().position(|id| !check_entity_id(id)) {
        return Err((format!("depends_on[{index}]"), ID));
    }
    Ok(())
}

fn check_uniqueness(operations: &[PushOperation]) -> Result<(), Box<Problem>> {
    let (mut ids, mut keys, mut sequences) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, operation) in operations.iter().enumerate() {
        let member = if !ids.insert(&operation.id) {
            "id"
        } else if !keys.insert(&operation.idempotency_key) {
            "idempotency_key"
        } else if !sequences.insert(operation.sequence) {
            "sequence"
        } else {
            continue;
        };
        return Err(invalid(format!("operations[{index}].{member}"), "is given twice"));
    }
    Ok(())
}

/// Within a lane, sequences rise; a dependency stands before what depends on it.
fn check_order(operations: &[PushOperation]) -> Result<(), Box<Problem>> {
    let positions: BTreeMap<&str, usize> =
        operations.iter().enumerate().map(|(index, operation)| (operation.id.as_str(), index)).collect();
    let mut lanes = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let lane = (&operation.entity_type, &operation.entity_id);
        if lanes.insert(lane, operation.sequence).is_some_and(|earlier| earlier > operation.sequence) {
            return Err(invalid(format!("operations[{index}].sequence"), "is out of the lane's order"));
        }
        let later = |id: &String| positions.get(id.as_str()).is_some_and(|position| *position >= index);
        if let Some(at) = operation.depends_on.iter().position(later) {
            let field = format!("operations[{index}].depends_on[{at}]");
            return Err(invalid(field, "is not an earlier operation"));
        }
    }
    Ok(())
}

/// The members of a transaction stand next to each other, are within its limits, and are all voided or none.
fn check_transactions(operations: &[PushOperation]) -> Result<(), Box<Problem>> {
    let mut seen = BTreeSet::new();
    let mut start = 0;
    for group in groups(operations) {
        let Some(id) = &group[0].transaction_id else {
            start += group.len();
            continue;
        };
        let refused = |detail: &str| Err(invalid(format!("operations[{start}].transaction_id"), detail));
        if !seen.insert(id) {
            return refused("its members do not stand next to each other");
        }
        let bytes: usize = group.iter().filter_map(|member| member.payload.as_ref()).map(|text| text.get().len()).sum();
        if group.len() > MAX_TRANSACTION_OPERATIONS || bytes > MAX_TRANSACTION_BYTES {
            return refused("the transaction is over 100 operations or 1 MiB");
        }
        if group.iter().any(|member| member.void != group[0].void) {
            return refused("some of its members are voided and some are not");
        }
        start += group.len();
    }
    Ok(())
}

/// The operations as they are decided: the members of a transaction together, everything else alone.
pub(super) fn groups(operations: &[PushOperation]) -> impl Iterator<Item = &[PushOperation]> {
    operations.chunk_by(|a, b| a.transaction_id.is_some() && a.transaction_id == b.transaction_id)
}

/// The patch of an operation, within the limits of spec §6. A delete has none.
///
/// # Errors
/// What the operation is rejected with: `invalid_value`, or `payload_too_large`.
pub(super) fn patch(operation: &PushOperation, limits: &EndpointLimits) -> Result<Record, ResultError> {
    if operation.operation == OperationKind::Delete {
        return Ok(Record::new());
    }
    let Some(payload) = &operation.payload else {
        return Err(result_error("invalid_value", "the payload is missing".into(), Some("$".into())));
    };
    if payload.get().len() as u64 > limits.max_payload_bytes {
        let message = format!("the payload is larger than {} bytes", limits.max_payload_bytes);
        return Err(result_error("payload_too_large", message, Some("$".into())));
    }
    check_payload(payload.get())
        .map_err(|error| result_error("invalid_value", error.reason.clone(), Some(error.path.clone())))?;
    Record::parse(payload.get()).map_err(|_| result_error("invalid_value", "is not an object".into(), Some("$".into())))
}

/// The old values, if they are fit to be kept: what is not only costs the ledger its `base`.
pub(super) fn before(operation: &PushOperation) -> Option<&Record> {
    operation.before.as_ref().filter(|before| check_payload(&before.to_string()).is_ok())
}

/// The clock without entries that say nothing.
pub(super) fn base_clock(operation: &PushOperation) -> Clock {
    operation.base_clock.iter().map(|(device, sequence)| Dot::new(device, sequence)).collect()
}

impl EndpointLimits {
    /// The part that answers carry.
    pub(crate) fn wire(&self) -> Limits {
        Limits { max_operations: self.max_operations, max_bytes: self.max_bytes }
    }
}
