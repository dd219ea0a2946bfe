//! PostgREST's error objects count as our endpoint's word in the Supabase dialect (spec §6). They are judged by their `code`, the
//! SQLSTATE or PostgREST's own: a serialization failure (again) and a document that nests too deep (never) both come as 500.

use serde::Deserialize;
use serde_json::{Map, Value};
use syncline_protocol::{ProblemCode, check_name};

use super::{Blame, Disposition, STATEMENT_TIMEOUT, problem, sentence, silent};
use crate::transport::Response;

/// What PostgREST says of an error: these members, always.
#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

impl Said {
    fn read(body: &[u8]) -> Option<Self> {
        let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let whole = ["details", "hint"].iter().all(|member| object.contains_key(*member));
        serde_json::from_value(Value::Object(object)).ok().filter(|_| whole)
    }

    /// For people. What Postgres says may quote a value, except of constraints, of which it gives the name.
    fn message(&self) -> String {
        let quotes = is_sqlstate(&self.code) && !matches!(&self.code[..2], "23" | "P0" | "PT");
        if quotes { format!("The database refused it ({}).", self.code) } else { sentence(&self.message) }
    }
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == 5 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// What an error object means; none if the answer is not one.
pub(super) fn disposition(response: &Response, retry_after_ms: Option<u64>) -> Option<Disposition> {
    let said = Said::read(&response.body)?;
    if ProblemCode::parse(&said.code).is_some() {
        // A function may raise the protocol's own codes.
        return Some(problem(response, retry_after_ms));
    }
    let word = said.code.to_ascii_lowercase();
    let reason = if check_name(&word) { word } else { format!("http_{}", response.status) };
    let busy = |reason: String| Disposition::Busy { reason, retry_after_ms };
    let blame = |attempt: bool| Disposition::Blame(Blame { reason: reason.clone(), message: said.message(), attempt });
    Some(match said.code.as_str() {
        // It may be too much for the time it has: if it happens to the same operations again, they are bisected.
        "57014" => silent(STATEMENT_TIMEOUT, retry_after_ms),
        // The migrations were not run, or not all, or PostgREST does not see them yet: no operation's fault.
        "PGRST106" | "PGRST202" | "PGRST203" => busy("function_not_found".to_owned()),
        "42501" => Disposition::Refused { reason, stale: response.status == 401 },
        "PGRST301" | "PGRST302" | "PGRST303" => Disposition::Refused { reason, stale: true },
        // A lock that is held too long; a standby that is not promoted yet.
        "55P03" | "25006" => busy(reason),
        "P0001" => blame(false),
        code if is_sqlstate(code) && !code.starts_with("PT") => match &code[..2] {
            // The connection, a rolled back transaction, resources, an operator, the system below.
            "08" | "40" | "53" | "57" | "58" => busy(reason),
            // What is sent: values, constraints, sizes.
            "22" | "23" | "54" => blame(false),
            // The role cannot be taken on.
            "0L" | "0P" | "28" => Disposition::Refused { reason, stale: false },
            // A defect of the functions.
            _ => blame(true),
        },
        _ => match response.status {
            413 => Disposition::TooLarge { ours: true, limits: None },
            408 | 425 | 429 | 502 | 503 | 504 => busy(reason),
            401 | 403 => Disposition::Refused { reason, stale: response.status == 401 },
            status => blame(status >= 500),
        },
    })
}
