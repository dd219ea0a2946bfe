use super::*;
use crate::metrics::SyncState;
use crate::sync::NetworkStatus;
use crate::transport::TransportError;

#[test]
fn a_refused_credential_is_asked_for_once_afresh_and_then_the_app_must_act() {
    let (mut endpoint, mut rig) = ready(2);
    let receipt = rig.create("e");
    let first = rig.send();
    assert_eq!(first.reason, CredentialReason::First);
    rig.answer(&first, problem(ProblemCode::Unauthorized));
    let again = rig.send();
    assert_eq!((again.reason, again.sequences()), (CredentialReason::Refresh, first.sequences()));
    rig.answer(&again, problem(ProblemCode::Unauthorized));
    assert_eq!(rig.driver.state(rig.now), SyncState::AuthRequired { reason: "unauthorized".into() });
    assert_eq!((rig.status(&receipt), rig.operation(&receipt.id).attempts), (OperationStatus::Pending, 0));

    // Each step of the backoff asks again.
    let mut until = rig.wait().unwrap();
    for _ in 0..3 {
        rig.now = until;
        let asked = rig.send();
        assert_eq!(asked.reason, CredentialReason::Refresh);
        rig.answer(&asked, Outcome::NoCredential("no_credential".into()));
        assert_eq!(rig.driver.state(rig.now), SyncState::AuthRequired { reason: "no_credential".into() });
        until = rig.wait().unwrap();
        assert!(until > rig.now);
    }
    // So does the user.
    rig.driver.nudge();
    let asked = rig.send();
    assert_eq!(asked.reason, CredentialReason::Refresh);
    rig.take(&asked, &mut endpoint);
    assert_eq!(rig.status(&receipt), OperationStatus::Completed);
    rig.run_with(&mut endpoint);
    assert_eq!(rig.driver.state(rig.now), SyncState::Idle);
}

#[test]
fn an_expired_token_is_asked_for_once_though_several_requests_carried_it() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create("a");
    let one = rig.send();
    rig.create("b");
    let two = rig.send();
    rig.answer(&one, problem(ProblemCode::Unauthorized));
    let fresh = rig.send();
    assert_eq!(fresh.reason, CredentialReason::Refresh);
    rig.answer(&two, problem(ProblemCode::Unauthorized));
    assert!(rig.wait().is_some(), "one finds out whether the fresh one is good");
    rig.take(&fresh, &mut endpoint);
    let rest = rig.run_with(&mut endpoint);
    assert!(rest.iter().all(|request| request.reason == CredentialReason::First));
    assert_eq!(rig.completed(), 2);
}

#[test]
fn wrong_user_and_wrong_scope_need_the_app_at_once() {
    for code in [ProblemCode::WrongUser, ProblemCode::WrongScope, ProblemCode::Forbidden, ProblemCode::WrongDevice] {
        let (_, mut rig) = ready(1);
        rig.create("e");
        let sent = rig.send();
        rig.answer(&sent, problem(code));
        assert_eq!(rig.driver.state(rig.now), SyncState::AuthRequired { reason: code.as_str().into() });
        assert_eq!(rig.operation("op-1").attempts, 0);
        assert!(rig.wait().is_some());
    }
}

#[test]
fn retry_after_is_kept_across_a_restart_and_no_nudge_skips_it() {
    let (_, mut rig) = ready(2);
    rig.create("e");
    let sent = rig.send();
    rig.answer(&sent, retry_after(problem(ProblemCode::Unavailable), "600"));
    let until = rig.now.plus_millis(600_000);
    assert_eq!(rig.wait(), Some(until));
    rig.restart();
    assert_eq!(rig.wait(), Some(until));
    assert_eq!(rig.driver.state(rig.now), SyncState::Backoff { until, reason: "retry_after".into() });
    rig.driver.nudge();
    rig.driver.network_changed(NetworkStatus::Online { metered: false });
    assert_eq!(rig.wait(), Some(until));
    rig.now = until;
    assert_eq!(rig.send().sequences(), [1]);
}

#[test]
fn a_clock_set_back_does_not_lengthen_a_wait() {
    let (_, mut rig) = ready(2);
    rig.create("e");
    let sent = rig.send();
    rig.answer(&sent, retry_after(theirs(429), "600"));
    rig.advance(-86_400_000);
    assert_eq!(rig.wait(), Some(rig.now.plus_millis(600_000)));
    rig.restart();
    assert!(rig.wait().unwrap() <= rig.now.plus_millis(600_000));
}

#[test]
fn no_network_starts_nothing_and_a_network_starts_at_once() {
    let (_, mut rig) = ready(2);
    rig.create("e");
    let sent = rig.send();
    rig.answer(&sent, Outcome::NoAnswer(TransportError::Unreachable("no route".into())));
    assert!(matches!(rig.driver.state(rig.now), SyncState::Backoff { reason, .. } if reason == "unreachable"));
    rig.driver.network_changed(NetworkStatus::Offline);
    assert_eq!((rig.wait(), rig.driver.state(rig.now)), (None, SyncState::Offline));
    assert!(rig.driver.is_at_rest());
    rig.driver.network_changed(NetworkStatus::Online { metered: false });
    assert_eq!(rig.send().sequences(), [1]);
}

#[test]
fn the_connection_backs_off_with_growing_waits_and_recovers_alone() {
    let (mut endpoint, mut rig) = ready(3);
    rig.create("e");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let sent = rig.send();
        rig.answer(&sent, Outcome::NoAnswer(TransportError::Unreachable("no route".into())));
        let until = rig.wait().unwrap();
        waits.push(until.millis() - rig.now.millis());
        rig.now = until;
    }
    assert_eq!(waits, [3_000, 9_000, 27_000, 81_000, 243_000, 300_000, 300_000, 300_000], "the highest draws");
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 1);
}

#[test]
fn in_doubt_one_push_finds_out() {
    let (mut endpoint, mut rig) = ready(3);
    rig.create("a");
    let one = rig.send();
    rig.create("b");
    let two = rig.send();
    for sent in [one, two] {
        rig.answer(&sent, Outcome::NoAnswer(TransportError::Unreachable("no route".into())));
    }
    let until = rig.wait().unwrap();
    assert_eq!(until.millis() - rig.now.millis(), 3_000, "two failures of one moment are one step");
    rig.now = until;
    let sent = rig.send();
    rig.create("c");
    assert!(rig.wait().is_some());
    rig.take(&sent, &mut endpoint);
    assert_eq!(rig.send().sequences(), [3]);
}

#[test]
fn an_unsupported_protocol_keeps_everything_and_goes_on_by_itself() {
    let (mut endpoint, mut rig) = ready(1);
    let receipt = rig.create("e");
    let sent = rig.send();
    let mut said = Problem::new(ProblemCode::UnsupportedProtocol);
    said.supported = vec![2, 3];
    rig.answer(&sent, ours(400, &serde_json::to_value(said).unwrap()));
    assert_eq!(rig.driver.state(rig.now), SyncState::UnsupportedProtocol { supported: vec![2, 3] });
    assert_eq!((rig.status(&receipt), rig.operation(&receipt.id).attempts), (OperationStatus::Pending, 0));
    rig.now = rig.wait().unwrap();
    rig.run_with(&mut endpoint);
    assert_eq!(rig.status(&receipt), OperationStatus::Completed);
    assert_eq!(rig.driver.state(rig.now), SyncState::Idle);
}

#[test]
fn every_wait_ends_by_itself() {
    // Liveness: whatever the outcome was, once faults stop, time alone delivers.
    let faults: [fn() -> Outcome; 12] = [
        || theirs(200),
        || theirs(403),
        || theirs(413),
        || theirs(520),
        || ours(200, &json!({"applied": "x"})),
        || ours(204, &json!({})),
        || problem(ProblemCode::Internal),
        || problem(ProblemCode::RateLimited),
        || problem(ProblemCode::Unauthorized),
        || problem(ProblemCode::UnsupportedProtocol),
        || Outcome::NoAnswer(TransportError::TooLarge),
        || Outcome::Abandoned,
    ];
    for (index, fault) in faults.iter().enumerate() {
        for failing in [Route::Push, Route::Pull] {
            let (mut endpoint, mut rig) = ready(2);
            rig.create_many(5);
            rig.driver.nudge();
            let mut broken = 6;
            let sent = rig.run_for(3_600_000, |request| {
                if request.route == failing && broken > 0 {
                    broken -= 1;
                    return fault();
                }
                endpoint.answer(request)
            });
            assert_eq!((rig.completed(), broken), (5, 0), "fault {index} of {failing:?}");
            assert!(sent.len() < 150, "fault {index} of {failing:?}: {} requests", sent.len());
        }
    }
}
