//! What is configured: rules and schemas of entity types, and limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};
use syncline_protocol::{ConflictRule, DeleteRule};

use super::request::Operation;
use super::state::Fault;

/// What the endpoint takes (spec §7).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Operations in one push.
    pub max_operations: u64,
    /// Bytes of a body, inflated.
    pub max_bytes: u64,
    /// Bytes of one payload.
    pub max_payload_bytes: u64,
}

impl Limits {
    pub(super) fn on_the_wire(&self) -> Value {
        json!({ "max_operations": self.max_operations, "max_bytes": self.max_bytes })
    }
}

/// The largest record, and the most bytes of records in one answer (docs/protocol.md: 1 MiB).
pub(super) const MOST_RECORD_BYTES: usize = 1 << 20;

/// Entity types, each with the rules and the schema that the operator gave it.
#[derive(Clone, Default)]
pub struct Types(BTreeMap<String, Type>);

#[derive(Clone)]
struct Type {
    conflict: Option<ConflictRule>,
    delete: Option<DeleteRule>,
    schema: Option<Arc<Validator>>,
}

impl Types {
    /// Reads the configuration: per type `{"conflict_rule": …, "delete_rule": …, "schema": …}`, all of them optional.
    ///
    /// # Panics
    /// If it is none.
    pub fn new(configuration: &Value) -> Self {
        let types = configuration.as_object().expect("types are an object").iter().map(|(name, given)| {
            let rule = |member: &str| given.get(member).cloned().unwrap_or_default();
            let schema = given.get("schema").filter(|schema| !schema.is_null());
            let compile = |schema| Arc::new(jsonschema::validator_for(schema).expect("a schema"));
            let configured = Type {
                conflict: serde_json::from_value(rule("conflict_rule")).expect("a conflict rule"),
                delete: serde_json::from_value(rule("delete_rule")).expect("a delete rule"),
                schema: schema.map(compile),
            };
            (name.clone(), configured)
        });
        Self(types.collect())
    }

    /// §4 rules 5 and 6: the operator's rules, else the app's wish (ADR 7), else the defaults.
    pub(super) fn rules(&self, operation: &Operation) -> (ConflictRule, DeleteRule) {
        let configured = self.0.get(&operation.lane().0);
        let conflict = configured.and_then(|given| given.conflict).or(operation.conflict_rule);
        let delete = configured.and_then(|given| given.delete).or(operation.delete_rule);
        (conflict.unwrap_or(ConflictRule::LastWriterWins), delete.unwrap_or(DeleteRule::UpdateWins))
    }

    /// Why a record may not be what a write would leave: its size, or its type's schema.
    pub(super) fn fault(&self, entity_type: &str, record: &Value) -> Option<Fault> {
        if record.to_string().len() > MOST_RECORD_BYTES {
            return Some(Fault::new("record_too_large"));
        }
        let error = self.0.get(entity_type)?.schema.as_ref()?.iter_errors(record).next()?;
        // A field at fault is named where there is one.
        let path = error.instance_path().to_string();
        let field = match (path.split('/').nth(1), error.kind()) {
            (Some(field), _) => Some(field.replace("~1", "/").replace("~0", "~")),
            (None, ValidationErrorKind::Required { property }) => property.as_str().map(str::to_owned),
            (None, ValidationErrorKind::AdditionalProperties { unexpected }) => unexpected.first().cloned(),
            _ => None,
        };
        Some(Fault { field, ..Fault::new("invalid_value") })
    }
}
