use super::*;
use crate::event::Notice;

fn behind(epoch: &str, mark: u64) -> Outcome {
    let mut said = Problem::new(ProblemCode::ServerBehind);
    said.epoch = Some(epoch.into());
    said.mark = Some(mark);
    ours(409, &serde_json::to_value(said).unwrap())
}

#[test]
fn a_new_device_pulls_before_it_pushes() {
    let mut endpoint = Endpoint::default();
    let mut rig = Rig::new(2);
    rig.create("e");
    let first = rig.send();
    assert_eq!((first.route, &first.body["epoch"], &first.body["cursor"]), (Route::Pull, &Value::Null, &Value::Null));
    assert!(rig.wait().is_some(), "nothing goes beside it");
    rig.take(&first, &mut endpoint);
    let push = rig.send();
    assert_eq!((push.route, &push.body["epoch"]), (Route::Push, &json!("e1")));
}

#[test]
fn pushes_go_during_a_reset() {
    let endpoint = Endpoint::default();
    let mut rig = Rig::new(2);
    rig.create("e");
    let first = rig.send();
    rig.answer(&first, ours(200, &endpoint.page(true)));
    assert!(rig.store.device().unwrap().reset);
    let routes = [rig.send().route, rig.send().route];
    assert_eq!(routes, [Route::Push, Route::Pull]);
}

/// Counter-example 27: two pushes in flight for different lanes, answers in reverse order.
#[test]
fn ce27_answers_in_reverse_order_are_no_sign_of_a_server_gone_back() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    let one = rig.send();
    rig.create("b");
    let two = rig.send();
    let answers = [endpoint.answer(&one), endpoint.answer(&two)];
    let [first, second] = answers;
    rig.answer(&two, second);
    rig.answer(&one, first);
    assert_eq!(rig.completed(), 2);
    let device = rig.store.device().unwrap();
    assert_eq!((device.mark, device.reset), (2, false));
    assert!(rig.store.take_changes().notices.is_empty());
}

#[test]
fn a_mark_that_another_batch_had_means_that_the_server_went_back() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    let one = rig.send();
    rig.create("b");
    let two = rig.send();
    let first = endpoint.answer(&one);
    rig.answer(&one, first);
    endpoint.mark = 0;
    let second = endpoint.answer(&two);
    rig.answer(&two, second);
    let device = rig.store.device().unwrap();
    assert_eq!((device.mark, device.reset, device.cursor), (1, true, None));
    assert_eq!(rig.store.take_changes().notices, [Notice::ServerWentBack { returned: 1 }]);
    assert_eq!(rig.completed(), 0);
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 2);
}

#[test]
fn a_server_behind_gets_everything_kept_again() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create_many(3);
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 3);
    let mut restored = Endpoint { epoch: "e2", ..Endpoint::default() };
    rig.create("later");
    let sent = rig.run(|request| match request.body["epoch"] == "e2" {
        true => restored.answer(request),
        false => behind("e2", 0),
    });
    assert_eq!(rig.completed(), 4);
    assert!(
        sent.iter().any(|request| request.route == Route::Pull && request.body["cursor"].is_null()),
        "pulls from the start"
    );
    let device = rig.store.device().unwrap();
    assert_eq!((device.epoch.as_deref(), device.reset), (Some("e2"), false));
}

/// Counter-example 17: the late answer of the old server arrives after the device took the new epoch.
#[test]
fn ce17_a_late_answer_of_another_history_is_dropped() {
    let (mut endpoint, mut rig) = ready(2);
    let first = rig.create("a");
    let one = rig.send();
    let second = rig.create("b");
    let two = rig.send();
    rig.answer(&one, behind("e2", 0));
    let late = endpoint.answer(&two);
    rig.answer(&two, late);
    assert_eq!(rig.status(&first), OperationStatus::Pending);
    assert_eq!(rig.status(&second), OperationStatus::Pending);
    let device = rig.store.device().unwrap();
    assert_eq!((device.epoch.as_deref(), device.mark), (Some("e2"), 0));
}

#[test]
fn a_late_page_of_another_history_is_dropped() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    rig.driver.nudge();
    let push = rig.send();
    let pull = rig.send();
    rig.answer(&push, behind("e2", 0));
    let late = endpoint.answer(&pull);
    rig.answer(&pull, late);
    let device = rig.store.device().unwrap();
    assert_eq!((device.epoch.as_deref(), device.cursor, device.reset), (Some("e2"), None, true));
}

#[test]
fn a_server_that_goes_back_again_and_again_is_asked_ever_more_rarely() {
    let (_, mut rig) = ready(1);
    rig.create("a");
    let mut count = 0;
    let sent = rig.run_for(600_000, |_| {
        count += 1;
        behind(&format!("e{}", count + 1), 0)
    });
    assert!(sent.len() < 20, "{} requests", sent.len());
    assert_eq!(rig.operation("op-1").attempts, 0);
}

#[test]
fn a_fork_waits_for_what_is_in_flight_and_then_goes_on_under_a_new_name() {
    let (_, mut rig) = ready(2);
    rig.create("a");
    let one = rig.send();
    rig.create("b");
    let two = rig.send();
    rig.answer(&one, problem(ProblemCode::DeviceForked));
    rig.driver.nudge();
    assert!(rig.wait().is_some(), "nothing new starts while the other is in flight");
    assert_eq!(rig.store.device().unwrap().device_id, "device-a");
    rig.answer(&two, problem(ProblemCode::DeviceForked));
    let again = rig.send();
    let device = rig.store.device().unwrap();
    assert_ne!(device.device_id, "device-a");
    assert_eq!(
        (again.body["device_id"].as_str(), again.body["mark"].as_u64()),
        (Some(device.device_id.as_str()), Some(0))
    );
    assert_eq!(again.sequences(), [1, 2]);
    assert!(matches!(rig.store.take_changes().notices[..], [Notice::Forked { .. }]));
}

#[test]
fn a_fork_asked_for_before_a_restart_is_done_after_it() {
    let (_, mut rig) = ready(1);
    rig.create("a");
    let sent = rig.send();
    rig.answer(&sent, problem(ProblemCode::DeviceForked));
    rig.restart();
    let again = rig.send();
    assert_ne!(again.body["device_id"], "device-a");
}

#[test]
fn an_answer_from_before_a_restart_is_dropped() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create("a");
    let sent = rig.send();
    rig.restart();
    let late = endpoint.answer(&sent);
    rig.answer(&sent, late);
    assert_eq!(rig.completed(), 0);
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 1);
}
