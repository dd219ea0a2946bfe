//! The answer to a push that was decided (spec §6): what is left out, what is told, what is stored.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_protocol::Timestamp;

use super::push::{Batch, Decided, Outcome, content};
use super::request::Push;
use super::state::{Cursor, Device, Effect, Entity, Fault, Lane, Scope, StoredVerdict};
use super::types::MOST_RECORD_BYTES;
use super::values::differs;
use super::{Heard, Model, ServerState};

impl Model {
    /// Stores what was decided, and compares the answer. `cursor`: the push's, if it counts in this history.
    pub(super) fn settle(
        &mut self,
        push: &Push,
        mut decided: Decided,
        cursor: Option<Cursor>,
        now: Timestamp,
        answer: &Value,
    ) -> Result<(), String> {
        self.used.add(std::mem::take(&mut decided.used));
        let limits = self.limits.on_the_wire();
        let scope = self.scopes.get_mut(&push.head.scope).expect("its history was compared");
        let head_before = scope.head;
        let left_out = left_out(push, &decided, scope, cursor.as_ref());
        let told: Vec<usize> =
            (0..push.operations.len()).filter(|at| !left_out[&push.operations[*at].lane()]).collect();
        learn(&mut self.heard, &mut decided, &told, answer)?;
        if !push.dry_run {
            self.effects.extend(store(scope, push, &decided, now));
        }
        let real = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
        let mut results: Vec<Value> = told.iter().map(|at| result(scope, push, *at, &decided.outcomes[*at])).collect();
        let absent = leave_out_records(&mut results, real)?;
        // "If the push's `cursor` stood at the head and no record is absent, the answer carries the `cursor` at the new head".
        let cursor = cursor.filter(|cursor| cursor.version == head_before && !absent && !push.dry_run);
        if let Some(cursor) = cursor.clone() {
            let at_head = Cursor { version: scope.head, horizon: scope.horizon, ..cursor };
            self.heard.cursor(&answer["cursor"], at_head)?;
        }
        // §6: "a dry run's answer carries no `mark`"; else it counts this push.
        let mark = (!push.dry_run).then(|| scope.devices[&push.head.device_id].mark);
        let expected = json!({
            "applied": push.operations.len() - told.len(), "results": results, "version": scope.head,
            "cursor": cursor.map(|_| answer["cursor"].clone()), "epoch": scope.epoch, "mark": mark, "server_time": now,
            "limits": limits,
        });
        differs("answer", &expected, answer)?;
        if push.dry_run { Ok(()) } else { self.check(push, &decided, head_before) }
    }
}

impl Model {
    /// Stores what was decided. What nobody can foresee is taken from the store, as there was no answer.
    pub(super) fn settle_unheard(&mut self, push: &Push, now: Timestamp, stored: &ServerState) {
        let scope = self.scopes.get_mut(&push.head.scope).expect("its history was compared");
        let Some(stored) = stored.scopes.get(&push.head.scope).filter(|_| !push.dry_run) else { return };
        let mut decided = Batch::new(push, scope, &self.types, &self.limits, now).decide();
        self.used.add(std::mem::take(&mut decided.used));
        for (operation, outcome) in push.operations.iter().zip(&mut decided.outcomes).filter(|(_, it)| it.is_new) {
            let Some(verdict) = stored.operations.get(&operation.idempotency_key) else { continue };
            if let (Some(conflict), Some(id)) = (&mut outcome.conflict, &verdict.conflict_id) {
                conflict["id"] = json!(id);
                self.heard.conflicts.insert(id.clone());
            }
            if let Some(fault) = outcome.fault.as_mut().filter(|fault| fault.learns_field) {
                fault.field = verdict.error["field"].as_str().map(str::to_owned);
            }
        }
        self.effects.extend(store(scope, push, &decided, now));
    }
}

/// "Those of one entity are left out, all or none, … if all were `applied` and its version before the push was not above the
/// push's `cursor` and its type in that cursor's filter (or it had no record)".
fn left_out(push: &Push, decided: &Decided, scope: &Scope, cursor: Option<&Cursor>) -> BTreeMap<Lane, bool> {
    let can_compute = |lane: &Lane| match (scope.entities.get(lane), cursor) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(entity), Some(cursor)) => {
            entity.version <= cursor.version && cursor.types.as_ref().is_none_or(|types| types.contains(&lane.0))
        }
    };
    let mut left_out: BTreeMap<Lane, bool> =
        decided.lanes.iter().map(|lane| (lane.clone(), can_compute(lane))).collect();
    for (operation, outcome) in push.operations.iter().zip(&decided.outcomes) {
        if outcome.status != "applied" {
            left_out.insert(operation.lane(), false);
        }
    }
    left_out
}

/// Takes from the answer what nobody can foresee: the ids of new ledger rows, which must be new, and fields named at will.
fn learn(heard: &mut Heard, decided: &mut Decided, told: &[usize], answer: &Value) -> Result<(), String> {
    for (place, at) in told.iter().enumerate() {
        let (real, outcome) = (&answer["results"][place], &mut decided.outcomes[*at]);
        if let Some(conflict) = outcome.conflict.as_mut().filter(|_| outcome.is_new) {
            let id = &real["conflict"]["id"];
            let text = id.as_str().ok_or_else(|| format!("results[{place}] has no conflict with an id"))?;
            if !heard.conflicts.insert(text.to_owned()) {
                return Err(format!("results[{place}].conflict.id {text} was another conflict's"));
            }
            conflict["id"] = id.clone();
        }
        if let Some(fault) = outcome.fault.as_mut().filter(|fault| fault.learns_field) {
            fault.field = real["error"]["field"].as_str().map(str::to_owned);
        }
    }
    Ok(())
}

/// §6: "key, payload hash, effect and stored verdict … commit in one database transaction". Gives the effects.
fn store(scope: &mut Scope, push: &Push, decided: &Decided, now: Timestamp) -> Vec<Effect> {
    let new = || Device { user: push.head.user_id.clone(), mark: 0, forgotten_through: 0 };
    let device = scope.devices.entry(push.head.device_id.clone()).or_insert_with(new);
    // "the server counts a device's pushes, repeated and empty ones too (not dry runs)"; "remembers N per device".
    device.mark += 1;
    device.forgotten_through = device.forgotten_through.max(push.forgotten_through);
    // "raised once per push by the number of entities changed". In which order is the endpoint's choice: that of first touch.
    for lane in &decided.lanes {
        let Some(record) = &decided.records[lane] else { continue };
        if scope.entities.get(lane).is_none_or(|before| record.differs_from(&before.record)) {
            scope.head += 1;
            let entity = Entity { record: record.clone(), version: scope.head, stored_at: now.millis() };
            scope.entities.insert(lane.clone(), entity);
        }
    }
    let mut effects = Vec::new();
    for (operation, outcome) in push.operations.iter().zip(&decided.outcomes).filter(|(_, outcome)| outcome.is_new) {
        let id_of = |conflict: &Value| conflict["id"].as_str().unwrap_or_default().to_owned();
        if let Some(conflict) = &outcome.conflict {
            scope.ledger.insert(id_of(conflict), conflict.clone());
        }
        let stored = StoredVerdict {
            operation_id: operation.id.clone(),
            device: push.head.device_id.clone(),
            sequence: operation.sequence,
            content: content(operation),
            verdict: outcome.status,
            fault: outcome.fault.clone(),
            conflict: outcome.conflict.as_ref().map(id_of),
            decided_at: now.millis(),
        };
        scope.verdicts.insert(operation.idempotency_key.clone(), stored);
        if outcome.has_effect() {
            effects.push(Effect {
                scope: push.head.scope.clone(),
                operation_id: operation.id.clone(),
                key: operation.idempotency_key.clone(),
                device_id: push.head.device_id.clone(),
                sequence: operation.sequence,
                lane: operation.lane(),
                verdict: outcome.status,
                transaction_id: operation.transaction_id.clone(),
            });
        }
    }
    effects
}

/// "`version`, `clock`, `deleted` and `record` of each, repeated ones too, are the entity's after the whole push". `scope` is
/// as it is then: a dry run's as before.
fn result(scope: &Scope, push: &Push, at: usize, outcome: &Outcome) -> Value {
    let operation = &push.operations[at];
    let entity = scope.entities.get(&operation.lane());
    let record = entity.map(|entity| &entity.record);
    json!({
        "id": operation.id, "status": outcome.status, "first": outcome.first,
        "device_id": outcome.foreign.as_ref().map(|dot| &dot.0), "sequence": outcome.foreign.as_ref().map(|dot| dot.1),
        "version": entity.map_or(0, |entity| entity.version), "clock": record.map(|record| record.clock()),
        // docs/protocol.md: "an entity that does not exist has version 0 and `deleted`".
        "deleted": record.is_none_or(|record| record.deleted.is_some()), "record": record.and_then(|it| it.visible()),
        "conflict": outcome.conflict, "error": outcome.fault.as_ref().map(fault_on_the_wire),
    })
}

pub(super) fn fault_on_the_wire(fault: &Fault) -> Value {
    json!({ "code": fault.code, "field": fault.field, "culprit": fault.culprit })
}

/// "`record` is absent when the answer would pass 1 MiB": which ones is the endpoint's choice, and where its bytes are counted
/// a little differently, whether. Says if one is absent.
fn leave_out_records(results: &mut [Value], real: &[Value]) -> Result<bool, String> {
    let bytes = |result: &Value| if result["record"].is_null() { 0 } else { result["record"].to_string().len() };
    let too_many = |results: &[Value], percent: usize| {
        results.iter().map(bytes).sum::<usize>() > MOST_RECORD_BYTES * percent / 100
    };
    if !too_many(results, 99) {
        return Ok(false);
    }
    let mut is_absent = false;
    for (expected, _) in results.iter_mut().zip(real).filter(|(_, real)| real["record"].is_null()) {
        is_absent |= !expected["record"].is_null();
        expected["record"] = Value::Null;
    }
    if too_many(results, 101) { Err("the answer carries more than 1 MiB of records".to_owned()) } else { Ok(is_absent) }
}
