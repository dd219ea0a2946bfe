use std::collections::BTreeMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syncline_protocol::{ConflictRule, DeleteRule, MAX_RECORDS_BYTES, Record, ResultError, check_name, planted};

use super::judge::Rules;

/// What the operator says about one entity type. Members left out leave the choice to the app.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TypeConfig {
    /// For two writes to one field.
    pub conflict_rule: Option<ConflictRule>,
    /// For a deletion and a write.
    pub delete_rule: Option<DeleteRule>,
    /// A JSON Schema for the whole record. A write whose result does not satisfy it is rejected (`invalid_value`).
    pub schema: Option<Value>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("entity type {entity_type}: {reason}")]
pub struct InvalidType {
    /// Which type.
    pub entity_type: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The entity types as configured, with their schemas compiled.
#[derive(Debug, Default)]
pub struct Types(BTreeMap<String, (TypeConfig, Option<Validator>)>);

impl Types {
    /// Compiles the configuration.
    ///
    /// # Errors
    /// A name out of the allowed characters, or a schema that is none.
    pub fn new(config: BTreeMap<String, TypeConfig>) -> Result<Self, InvalidType> {
        let mut types = BTreeMap::new();
        for (name, config) in config {
            let invalid = |reason: String| InvalidType { entity_type: name.clone(), reason };
            if !check_name(&name) {
                return Err(invalid("is not 1 to 64 characters of [a-z0-9_]".into()));
            }
            let compile = |schema| jsonschema::validator_for(schema).map_err(|error| invalid(error.to_string()));
            let validator = config.schema.as_ref().map(compile).transpose()?;
            types.insert(name, (config, validator));
        }
        Ok(Self(types))
    }

    /// The rules for a type: the operator's, else the app's, else the defaults.
    pub(super) fn rules(&self, entity_type: &str, app: (Option<ConflictRule>, Option<DeleteRule>)) -> Rules {
        let config = self.0.get(entity_type).map(|(config, _)| config);
        Rules {
            conflict: config.and_then(|c| c.conflict_rule).or(app.0).unwrap_or_default(),
            delete: config.and_then(|c| c.delete_rule).or(app.1).unwrap_or_default(),
        }
    }

    /// Checks a record as a write would leave it: its size, and its type's schema.
    ///
    /// # Errors
    /// `record_too_large` or `invalid_value`, the field named, no value repeated.
    pub(super) fn check(&self, entity_type: &str, record: &Record) -> Result<(), ResultError> {
        let text = record.to_string();
        if text.len() > MAX_RECORDS_BYTES {
            let message = format!("the record would be larger than {MAX_RECORDS_BYTES} bytes");
            return Err(result_error("record_too_large", message, None));
        }
        let Some((_, Some(validator))) = self.0.get(entity_type) else { return Ok(()) };
        let value: Value = serde_json::from_str(&text)
            .map_err(|_| result_error("invalid_value", "the record is not JSON".into(), None))?;
        match validator.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => {
                let message = format!("the record does not satisfy {}", error.schema_path());
                let message = if planted!(QuoteValue) { error.to_string() } else { message };
                Err(result_error("invalid_value", message, field_at_fault(&error)))
            }
        }
    }
}

/// The record's field that an error is about; none where it is about the record as a whole.
fn field_at_fault(error: &ValidationError<'_>) -> Option<String> {
    let path = error.instance_path().to_string();
    match path.split('/').nth(1) {
        Some(field) => Some(field.replace("~1", "/").replace("~0", "~")),
        None => match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.first().cloned(),
            _ => None,
        },
    }
}

/// An error of one operation.
pub(super) fn result_error(code: &str, message: String, field: Option<String>) -> ResultError {
    ResultError { code: code.to_owned(), message, field, culprit: None, retry_after_ms: None }
}
