//! The OpenAPI document, and checks of JSON against it. The endpoint serves it; tests hold every request and answer to it.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The OpenAPI 3.1 document, as served at `/openapi.json`.
pub fn openapi() -> &'static str {
    include_str!("../openapi.json")
}

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(openapi()).expect("the document in the crate is JSON"));

static VALIDATORS: LazyLock<[(&str, Validator); 5]> = LazyLock::new(|| {
    ["PushRequest", "PushResponse", "PullRequest", "PullResponse", "Problem"].map(|name| (name, validator(name)))
});

/// Compiles one of the document's schemas, with the others to refer to.
fn validator(name: &str) -> Validator {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/components/schemas/{name}"),
        "components": DOCUMENT["components"],
    });
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the document in the crate holds valid schemas")
}

/// Checks the body of a request to `path` (`/v1/push`, `/v1/pull`).
///
/// # Errors
/// What differs, one sentence per difference.
pub fn validate_request(path: &str, body: &Value) -> Result<(), Vec<String>> {
    match path {
        "/v1/push" => check("PushRequest", body),
        "/v1/pull" => check("PullRequest", body),
        _ => Err(vec![format!("{path} takes no body")]),
    }
}

/// Checks the body of an answer of `path` with HTTP status `status`.
///
/// # Errors
/// What differs, one sentence per difference.
pub fn validate_answer(path: &str, status: u16, body: &Value) -> Result<(), Vec<String>> {
    match (path, status) {
        ("/v1/push", 200) => check("PushResponse", body),
        ("/v1/pull", 200) => check("PullResponse", body),
        (_, 400..600) => check("Problem", body),
        _ => Err(vec![format!("{path} does not answer {status}")]),
    }
}

fn check(schema: &str, body: &Value) -> Result<(), Vec<String>> {
    let (_, validator) = VALIDATORS.iter().find(|(name, _)| *name == schema).expect("every name checked is compiled");
    let differences: Vec<_> =
        validator.iter_errors(body).map(|error| format!("{}: {}", error.instance_path(), error)).collect();
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}
