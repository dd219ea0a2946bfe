//! What somebody may try with the names of another scope: each request once with names that are used there, and once with names that
//! nobody has. Nothing but these may differ, neither in the request nor in the answer.

use serde_json::{Value, json};

/// What is used in a scope, or nowhere.
#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) scope: String,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) key: String,
    pub(super) operation: String,
    pub(super) entity: String,
    pub(super) cursor: String,
    pub(super) epoch: String,
}

/// Who asks: what a request of theirs says of itself.
pub(super) struct Prober<'a> {
    pub(super) user: &'a str,
    pub(super) scope: &'a str,
    pub(super) epoch: &'a str,
    /// One that nobody has used, for each of the two requests another one.
    pub(super) fresh: String,
}

/// A request: its path and its body.
pub(super) type Request = (&'static str, Value);

pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) request: fn(&Prober<'_>, &Names) -> Request,
}

pub(super) const PROBES: [Probe; 14] = [
    Probe { name: "a push to the scope", request: |by, of| push(by, json!({ "scope": of.scope }), vec![create(by)]) },
    Probe { name: "a pull of the scope", request: |by, of| pull(by, json!({ "scope": of.scope })) },
    Probe { name: "a push as the user", request: |by, of| push(by, json!({ "user_id": of.user }), vec![create(by)]) },
    Probe { name: "a pull as the user", request: |by, of| pull(by, json!({ "user_id": of.user })) },
    Probe {
        name: "a push as the device",
        request: |by, of| push(by, json!({ "device_id": of.device }), vec![create(by)]),
    },
    Probe { name: "a pull as the device", request: |by, of| pull(by, json!({ "device_id": of.device })) },
    Probe { name: "a pull from the cursor", request: |by, of| pull(by, json!({ "cursor": of.cursor })) },
    Probe {
        name: "a push from the cursor",
        request: |by, of| push(by, json!({ "cursor": of.cursor }), vec![create(by)]),
    },
    Probe { name: "a push in the epoch", request: |by, of| push(by, json!({ "epoch": of.epoch }), vec![create(by)]) },
    Probe {
        name: "a create under the key, the id and the entity",
        request: |by, of| {
            let names = json!({ "idempotency_key": of.key, "id": of.operation, "entity_id": of.entity });
            push(by, json!({}), vec![with(create(by), &names)])
        },
    },
    Probe {
        name: "a withdrawal under the key",
        request: |by, of| {
            let names = json!({ "idempotency_key": of.key, "id": of.operation, "entity_id": of.entity, "void": true });
            push(by, json!({}), vec![with(create(by), &names)])
        },
    },
    Probe {
        name: "an update of the entity",
        request: |by, of| {
            push(by, json!({}), vec![with(create(by), &json!({ "operation": "update", "entity_id": of.entity }))])
        },
    },
    Probe {
        name: "a delete of the entity",
        request: |by, of| {
            let names = json!({ "operation": "delete", "entity_id": of.entity, "payload": null });
            push(by, json!({}), vec![with(create(by), &names)])
        },
    },
    Probe {
        name: "a dry run on the entity, after the operation",
        request: |by, of| {
            let names = json!({ "entity_id": of.entity, "depends_on": [of.operation] });
            push(by, json!({ "dry_run": true }), vec![with(create(by), &names)])
        },
    },
];

fn with(mut to: Value, more: &Value) -> Value {
    more.as_object().into_iter().flatten().for_each(|(name, value)| to[name] = value.clone());
    to
}

fn head(by: &Prober<'_>) -> Value {
    json!({
        "protocol": 1, "user_id": by.user, "scope": by.scope, "device_id": by.fresh, "epoch": by.epoch, "mark": 0,
        "sent_at": "2026-11-01T00:00:00.000Z",
    })
}

fn pull(by: &Prober<'_>, more: Value) -> Request {
    ("/v1/pull", with(with(head(by), &json!({ "limit": 3 })), &more))
}

fn push(by: &Prober<'_>, more: Value, operations: Vec<Value>) -> Request {
    ("/v1/push", with(with(head(by), &json!({ "operations": operations })), &more))
}

fn create(by: &Prober<'_>) -> Value {
    let fresh = &by.fresh;
    json!({
        "id": format!("{fresh}-o"), "idempotency_key": format!("{fresh}-k"), "sequence": 1, "operation": "create",
        "entity_type": "pin", "entity_id": format!("{fresh}-e"), "payload": { "probe": by.user },
        "timestamp": "2026-11-01T00:00:00.000Z",
    })
}

/// What an answer says, without what differs between any two, and with words in the place of names.
pub(super) fn told(status: u16, answer: &Value, by: &Prober<'_>, names: &Names) -> String {
    let mut answer = answer.clone();
    if let Some(members) = answer.as_object_mut() {
        for member in ["server_time", "version", "cursor", "epoch", "has_more"] {
            members.remove(member);
        }
    }
    for result in answer["results"].as_array_mut().into_iter().flatten().filter(|result| result["version"] != 0) {
        result["version"] = json!("some");
    }
    let mut text = format!("{status} {answer}");
    let words = [
        (&names.operation, "O"),
        (&names.key, "K"),
        (&names.entity, "E"),
        (&names.device, "D"),
        (&names.scope, "S"),
        (&names.user, "U"),
        (&by.fresh, "F"),
    ];
    for (name, word) in words {
        text = text.replace(&format!("\"{name}"), &format!("\"{word}"));
    }
    text
}
