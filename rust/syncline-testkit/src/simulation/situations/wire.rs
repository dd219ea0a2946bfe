//! Situations that show in what arrives at the endpoint, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_core::transport::Route;

use super::note;
use crate::server::Exchange;
use crate::simulation::coverage::Coverage;

/// An entity, by scope, type and id.
type Lane<'a> = (&'a str, &'a str, &'a str);

/// What arrived so far.
#[derive(Default)]
struct Wire<'a> {
    /// Key → the version that its first verdict spoke of.
    decided: BTreeMap<(&'a str, &'a str), u64>,
    /// Keys that were withdrawn, and those, without their number, that were tried under another one.
    over: BTreeSet<(&'a str, &'a str)>,
    /// The highest version that each device has pulled.
    pulled: BTreeMap<(&'a str, Lane<'a>), u64>,
    /// The last transaction that an entity was part of.
    transaction: BTreeMap<Lane<'a>, &'a str>,
}

/// Counts what came about in all of a life.
pub(in crate::simulation) fn count(exchanges: &[Exchange], coverage: &Coverage) {
    let mut wire = Wire::default();
    for exchange in exchanges {
        behind(exchange, coverage);
        match exchange.route {
            Route::Push if exchange.status == 200 => wire.push(exchange, coverage),
            Route::Pull if exchange.status == 200 => wire.pull(exchange, coverage),
            _ => {}
        }
    }
}

fn behind(exchange: &Exchange, coverage: &Coverage) {
    let (request, answer) = (&exchange.request, &exchange.answer);
    if answer["code"] != "server_behind" {
        return;
    }
    let is_stray = exchange.device == "stray";
    if exchange.route == Route::Push && request["epoch"].is_null() {
        note(coverage, 18);
    } else if is_stray && request["epoch"] != answer["epoch"] {
        note(coverage, 16);
    } else if !is_stray && exchange.route == Route::Push {
        note(coverage, 15);
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn lane<'a>(scope: &'a str, value: &'a Value) -> Lane<'a> {
    (scope, text(value, "entity_type"), text(value, "entity_id"))
}

fn all<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

impl<'a> Wire<'a> {
    fn push(&mut self, exchange: &'a Exchange, coverage: &Coverage) {
        let (request, answer) = (&exchange.request, &exchange.answer);
        let scope = text(request, "scope");
        let results: BTreeMap<&str, &Value> =
            all(answer, "results").iter().map(|result| (text(result, "id"), result)).collect();
        let mut left_out: BTreeMap<Lane<'_>, u64> = BTreeMap::new();
        for operation in all(request, "operations") {
            let result = results.get(text(operation, "id")).copied();
            let (key, lane) = (text(operation, "idempotency_key"), lane(scope, operation));
            if result.is_none() {
                *left_out.entry(lane).or_default() += 1;
            }
            if let Some(transaction) = operation["transaction_id"].as_str() {
                self.transaction.insert(lane, transaction);
            }
            if let Some(result) = result {
                self.verdict(&exchange.device, (scope, key), lane, result, coverage);
            }
            self.tries((scope, key), operation["void"] == true, coverage);
            let version = result.map_or(&answer["version"], |result| &result["version"]);
            self.decided.entry((scope, key)).or_insert(version.as_u64().unwrap_or(0));
        }
        left_out.values().filter(|count| **count > 1).for_each(|_| note(coverage, 28));
    }

    fn verdict(&self, device: &'a str, key: (&'a str, &'a str), lane: Lane<'a>, result: &Value, coverage: &Coverage) {
        let code = text(&result["error"], "code");
        if code == "idempotency_key_reused" {
            note(coverage, 34);
        }
        if result["status"] != "already_processed" {
            return;
        }
        if code == "transaction_failed" {
            note(coverage, 33);
        }
        let pulled = self.pulled.get(&(device, lane)).copied().unwrap_or(0);
        let has_effect = matches!(text(result, "first"), "applied" | "merged");
        if has_effect && self.decided.get(&key).is_some_and(|decided| pulled > *decided) {
            note(coverage, 2);
        }
    }

    fn tries(&mut self, (scope, key): (&'a str, &'a str), void: bool, coverage: &Coverage) {
        let first = key.split('#').next().unwrap_or(key);
        if !void && first == key && self.over.contains(&(scope, key)) {
            note(coverage, 11);
        }
        if void || first != key {
            self.over.insert((scope, first));
        }
    }

    fn pull(&mut self, exchange: &'a Exchange, coverage: &Coverage) {
        let (request, answer) = (&exchange.request, &exchange.answer);
        let scope = text(request, "scope");
        let changes = all(answer, "changes");
        let device = exchange.device.as_str();
        for change in changes {
            let version = self.pulled.entry((device, lane(scope, change))).or_default();
            *version = change["version"].as_u64().unwrap_or(0).max(*version);
        }
        let last = changes.last().filter(|_| answer["has_more"] == true).map(|change| lane(scope, change));
        if let Some(transaction) = last.and_then(|last| self.transaction.get(&last)) {
            let is_here = |member: &Lane<'_>| changes.iter().any(|change| lane(scope, change) == *member);
            let mut members = self.transaction.iter().filter(|(_, of)| *of == transaction).map(|(member, _)| member);
            if members.any(|member| !is_here(member) && !self.pulled.contains_key(&(device, *member))) {
                note(coverage, 25);
            }
        }
    }
}
