//! 10: no request reads, changes or probes another scope.

use serde_json::json;
use syncline_core::{NewOperation, OperationStatus, SyncState};
use syncline_testkit::{TOKEN, TestDevice, World};

use crate::*;

/// A world with a second team, whose token opens only its own scope, and a device of each.
fn two_teams() -> (World, TestDevice, TestDevice) {
    let mut world = World::new(10);
    world.server.allow("token-2", "user-2", &["team-2"]);
    let ours = world.device("ours");
    let mut config = world.config("theirs");
    config.user_id = "user-2".into();
    config.scope = "team-2".into();
    let theirs = world.device_with("theirs", config);
    theirs.credentials.set(Some("token-2"));
    (world, ours, theirs)
}

/// Two teams use the same entity ids and the same idempotency keys: neither notices the other.
#[test]
fn inv10_scopes_share_nothing() {
    let (world, ours, theirs) = two_teams();
    for (device, text) in [(&ours, "ours"), (&theirs, "theirs")] {
        let payload = json!({ "text": text }).to_string();
        let receipt = device.enqueue(NewOperation::create("pin", "e", payload).with_key("the-key")).unwrap();
        world.sync(device);
        assert_eq!(device.status(&receipt.id), OperationStatus::Completed);
    }
    theirs.enqueue(NewOperation::delete("pin", "e")).unwrap();
    theirs.enqueue(NewOperation::create("pin", "only-theirs", "{}")).unwrap();
    world.settle(&[&theirs, &ours]);
    assert_eq!(ours.value("pin", "e"), Some(json!({"text":"ours"})));
    assert_eq!((ours.value("pin", "only-theirs"), theirs.value("pin", "e")), (None, None));
    assert!(ours.conflicts(false, 10).unwrap().is_empty() && theirs.conflicts(false, 10).unwrap().is_empty());
}

/// A file of one scope with the token of another: refused, nothing read or written, nothing lost, and the app is told why.
#[test]
fn inv10_a_token_opens_only_its_own_scope() {
    let (world, ours, theirs) = two_teams();
    ours.enqueue(NewOperation::create("pin", "e", r#"{"text":"ours"}"#)).unwrap();
    world.sync(&ours);
    let version: i64 = server_sql(&world, "SELECT sum(head) FROM scopes");
    let receipt = ours.enqueue(NewOperation::update("pin", "e", r#"{"text":"again"}"#)).unwrap();
    ours.credentials.set(Some("token-2"));
    ours.start().unwrap();
    world.run_until_idle();
    assert_eq!(ours.state(), SyncState::AuthRequired { reason: "wrong_user".into() });
    world.server.allow("token-of-user-1", "user-1", &["team-2"]);
    ours.credentials.set(Some("token-of-user-1"));
    world.sync(&ours);
    assert_eq!(ours.state(), SyncState::AuthRequired { reason: "wrong_scope".into() });
    assert_eq!(server_sql::<i64>(&world, "SELECT sum(head) FROM scopes"), version);
    let operation = ours.operation(&receipt.id).unwrap().unwrap();
    assert_eq!((operation.status, operation.attempts), (OperationStatus::Pending, 0));
    world.assert_invariants(&[&ours, &theirs]);
    ours.credentials.set(Some(TOKEN));
    world.settle(&[&ours, &theirs]);
}

/// Requests of one team replayed with the token of another, as they are and with its scope written in: no data, no effect, no
/// hint whether a key, an entity or a device exists.
#[test]
fn inv10_nothing_of_another_scope_can_be_probed() {
    let (world, ours, theirs) = two_teams();
    ours.enqueue(NewOperation::create("pin", "e", r#"{"text":"ours"}"#).with_key("the-key")).unwrap();
    world.sync(&ours);
    ours.enqueue(NewOperation::update("pin", "e", r#"{"text":"ours-still"}"#)).unwrap();
    world.settle(&[&ours, &theirs]);
    let epoch: String = theirs.sql("SELECT epoch FROM device");
    for exchange in world.server.exchanges().iter().filter(|exchange| exchange.device == "ours") {
        let (status, answer) = world.server.stray(exchange.route, &exchange.request, "token-2");
        assert_eq!((status, answer["code"].as_str()), (403, Some("wrong_user")), "{answer}");

        // Under its own name, with the other's keys, ids, cursor, device id and mark.
        let mut posed = exchange.request.clone();
        posed["user_id"] = json!("user-2");
        posed["scope"] = json!("team-2");
        posed["epoch"] = json!(epoch);
        posed["mark"] = json!(0);
        for operation in posed["operations"].as_array_mut().into_iter().flatten() {
            operation["payload"] = json!({ "text": "probe" });
        }
        let (_, answer) = world.server.stray(exchange.route, &posed, "token-2");
        let text = answer.to_string();
        assert!(!["already_processed", "reused", "ours"].iter().any(|word| text.contains(word)), "{answer}");
    }
    world.sync(&ours);
    assert_eq!(ours.value("pin", "e"), Some(json!({"text":"ours-still"})));
    world.assert_invariants(&[&ours, &theirs]);
}
