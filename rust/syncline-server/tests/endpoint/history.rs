//! Epochs, marks, a server that went back in time (spec §6).

use serde_json::{Value, json};
use syncline_server::SqliteStore;

use crate::world::{World, op, with};

fn create(sequence: u64, id: &str) -> Value {
    op("A", sequence, "create", id, json!({"f": sequence}), json!({}))
}

/// The epoch and mark of a `server_behind`.
fn behind(world: &mut World, path: &str, request: &Value) -> (String, u64) {
    let problem = world.send(path, request).problem.expect("a problem");
    assert_eq!((problem.code.as_str(), problem.status), ("server_behind", 409));
    (problem.epoch.unwrap(), problem.mark.unwrap())
}

fn pull(members: Value) -> Value {
    let body = json!({"protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "limit": 10});
    with(body, members)
}

/// Counter-example 18: "a duplicate of A's very first push, sent without an epoch, arrives".
#[test]
fn ce18_a_push_without_an_epoch_is_refused() {
    let mut world = World::new();
    let request = with(world.request("A", vec![create(1, "e")]), json!({"epoch": null}));
    let epoch = world.epoch();
    assert_eq!(behind(&mut world, "push", &request), (epoch.clone(), 0));
    assert_eq!(world.epoch(), epoch, "the server did not go back");
    assert!(world.endpoint.device("team", "A").unwrap().is_none(), "nothing was done");
}

#[test]
fn a_scope_comes_into_being_on_first_use_and_keeps_its_epoch() {
    let mut world = World::new();
    assert_eq!(world.endpoint.epoch("team").unwrap(), None);
    let request = json!({"protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "epoch": "lost", "mark": 3,
        "sent_at": "2026-05-01T12:00:00.000Z"});
    let (epoch, mark) = behind(&mut world, "push", &request);
    assert_eq!((world.endpoint.epoch("team").unwrap(), mark), (Some(epoch.clone()), 0));
    assert_eq!(world.pull(None).epoch, epoch);
}

#[test]
fn another_epoch_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.push("A", vec![create(1, "e")]);
    let epoch = world.epoch();
    let request = with(world.request("A", vec![create(2, "e2")]), json!({"epoch": "another", "mark": 99}));
    assert_eq!(behind(&mut world, "push", &request), (epoch.clone(), 1));
    assert_eq!(behind(&mut world, "pull", &pull(json!({"epoch": "another"}))), (epoch.clone(), 1));
    assert_eq!(world.epoch(), epoch);
}

/// Counter-example 15: "snapshot; A pushes #1; server restored; A pushes #2: #2 succeeds and hides that #1 is gone".
#[test]
fn ce15_a_mark_ahead_of_the_server_renews_the_epoch() {
    let mut world = World::new();
    world.push("A", vec![]);
    let old = world.epoch();
    let ahead = with(world.request("A", vec![create(2, "e2")]), json!({"mark": 2}));
    let (epoch, mark) = behind(&mut world, "push", &ahead);
    assert!(epoch != old && mark == 1);
    assert_eq!(world.endpoint.epoch("team").unwrap(), Some(epoch.clone()), "committed before it was said");
    assert_eq!(world.record("e2"), None);
    assert_eq!(behind(&mut world, "push", &ahead), (epoch.clone(), 1), "once");
    let taken = with(ahead, json!({"epoch": epoch, "mark": 1}));
    assert_eq!(world.push_as_is(&taken).mark, Some(2));
}

#[test]
fn a_pull_sees_it_too_by_mark_and_by_cursor() {
    for members in [json!({"mark": 1}), json!({"cursor": "ahead"})] {
        let mut world = World::new();
        let epoch = world.epoch();
        world.push("B", vec![op("B", 1, "create", "e", json!({}), json!({}))]);
        let ahead = world.pull(None).cursor;
        let mut restored = World::new();
        let empty = restored.epoch();
        assert_eq!(epoch, empty, "the same randomness: the same history, one push earlier");
        let members = if members["cursor"].is_null() { members } else { json!({ "cursor": ahead }) };
        let (renewed, mark) = behind(&mut restored, "pull", &pull(with(members, json!({ "epoch": epoch }))));
        assert!(renewed != epoch && mark == 0);
        assert_eq!(restored.epoch(), renewed);
    }
}

#[test]
fn a_pushs_cursor_ahead_of_the_server_renews_the_epoch() {
    let mut world = World::new();
    let epoch = world.epoch();
    world.push("B", vec![op("B", 1, "create", "e", json!({}), json!({}))]);
    let ahead = world.pull(None).cursor;
    let mut restored = World::new();
    let request = with(restored.request("A", vec![]), json!({ "cursor": ahead }));
    let (renewed, _) = behind(&mut restored, "push", &request);
    assert_ne!(renewed, epoch);
}

#[test]
fn a_new_device_pulls_without_an_epoch() {
    let mut world = World::new();
    world.push("A", vec![create(1, "e")]);
    let answer = world.send("pull", &pull(json!({"epoch": null, "cursor": null, "device_id": "new"})));
    assert_eq!(answer.status, 200);
    let (_, mark) = behind(&mut world, "pull", &pull(json!({"epoch": null, "mark": 2})));
    assert_eq!(mark, 1, "a mark without its epoch, above the server's");
}

/// Counter-example 16: "as 15, and a delayed duplicate of A's old request reaches the restored server: the mark caught up".
#[test]
fn ce16_after_restored_a_late_duplicate_does_not_catch_up() {
    let folder = tempfile::tempdir().unwrap();
    let (file, backup) = (folder.path().join("live.db"), folder.path().join("backup.db"));
    let duplicate = {
        let mut world = World::over(SqliteStore::open(&file, None).unwrap(), json!({}));
        world.epoch();
        drop(world);
        std::fs::copy(&file, &backup).unwrap();
        let mut world = World::over(SqliteStore::open(&file, None).unwrap(), json!({}));
        let request = world.request("A", vec![create(1, "e1")]);
        world.push_as_is(&request);
        world.push("A", vec![create(2, "e2")]);
        request
    };
    let mut world = World::over(SqliteStore::open(&backup, None).unwrap(), json!({}));
    let old = world.epoch();
    world.random.0 = 8;
    world.endpoint.renew_epochs(world.now, &mut world.random).unwrap();
    let (epoch, mark) = behind(&mut world, "push", &duplicate);
    assert!(epoch != old && mark == 0);
    assert_eq!(world.record("e1"), None);
}

#[test]
fn renewing_names_every_scope_anew() {
    let mut world = World::new();
    let first = world.epoch();
    world.scope = "other".into();
    let second = world.epoch();
    world.endpoint.renew_epochs(world.now, &mut world.random).unwrap();
    let epochs = ["team", "other"].map(|scope| world.endpoint.epoch(scope).unwrap().unwrap());
    assert!(!epochs.contains(&first) && !epochs.contains(&second) && epochs[0] != epochs[1]);
}

/// Counter-example 27: "two pushes in flight for different lanes, answers in reverse order": both carry the mark that the
/// device had when it sent them, and both are served, each with its own.
#[test]
fn ce27_two_pushes_in_flight_carry_the_same_mark() {
    let mut world = World::new();
    let first = world.request("A", vec![create(1, "e1")]);
    let second = world.request("A", vec![create(2, "e2")]);
    let marks = [&first, &second].map(|request| world.push_as_is(request).mark);
    assert_eq!(marks, [Some(1), Some(2)]);
}

#[test]
fn a_token_of_one_scope_reaches_no_other() {
    let mut world = World::new();
    world.push("A", vec![create(1, "e")]);
    let claims = syncline_server::Claims::new("ada".into(), ["other".to_owned()].into());
    let request = world.request("A", vec![create(2, "e")]);
    let refused = |world: &mut World, path, request| world.send_as(&claims, path, request).problem.unwrap().code;
    assert_eq!(refused(&mut world, "push", &request), "wrong_scope");
    assert_eq!(refused(&mut world, "pull", &pull(json!({}))), "wrong_scope");
    world.scope = "other".into();
    let request = with(world.request("A", vec![]), json!({"mark": 0, "user_id": "bob"}));
    let wrong_user = world.send_as(&claims, "push", &request).problem.unwrap().code;
    assert_eq!(wrong_user, "wrong_user");
    assert!(world.pull(None).changes.is_empty());
    assert_eq!(world.push("A2", vec![]).version, 0, "its versions are its own");
}
