use proptest::prelude::*;

use super::*;

fn pushes(sent: &[Sending]) -> Vec<&Sending> {
    sent.iter().filter(|request| request.route == Route::Push).collect()
}

#[test]
fn bisecting_finds_the_culprit_and_charges_nobody_else() {
    for (n, place) in [(1, 0), (2, 1), (16, 0), (16, 9), (64, 63), (100, 50)] {
        let (mut endpoint, mut rig) = ready(3);
        let culprit = rig.create_many(n) + place;
        let sent = rig.run(|request| {
            if request.sequences().contains(&culprit) {
                problem(ProblemCode::Internal)
            } else {
                endpoint.answer(request)
            }
        });
        let bound = 2 * (n as f64).log2().ceil() as usize + 3;
        assert!(pushes(&sent).len() <= bound, "{} pushes for {n}", pushes(&sent).len());
        assert_eq!(rig.completed(), n - 1);
        for sequence in 1..=n {
            let operation = rig.operation(&format!("op-{sequence}"));
            assert_eq!(operation.attempts, u32::from(sequence == culprit), "{sequence} of {n}");
        }
        let operation = rig.operation(&format!("op-{culprit}"));
        assert_eq!(operation.status, OperationStatus::Pending);
        assert_eq!(operation.reason.as_deref(), Some("internal"));
        assert!(operation.next_attempt_at.is_some());
    }
}

#[test]
fn a_permanent_refusal_fails_what_stands_alone_and_says_that_the_outcome_is_unknown() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(5);
    rig.run(
        |request| {
            if request.sequences().contains(&3) { problem(ProblemCode::TooDeep) } else { endpoint.answer(request) }
        },
    );
    let failed = rig.operation("op-3");
    assert_eq!((failed.status, failed.reason.as_deref()), (OperationStatus::Failed, Some("too_deep")));
    assert!(failed.message.unwrap().contains("not known"));
    assert_eq!(rig.completed(), 4);
    assert_eq!(rig.driver.summary().failed, 1);
}

#[test]
fn attempts_used_up_end_in_failed_and_cost_others_nothing_more() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(8);
    let poisoned = |request: &Sending, endpoint: &mut Endpoint| {
        if request.sequences().contains(&5) { problem(ProblemCode::Internal) } else { endpoint.answer(request) }
    };
    rig.run(|request| poisoned(request, &mut endpoint));
    for n in 0..8 {
        rig.create(&format!("later-{n}"));
    }
    let sent = rig.run_for(60_000, |request| poisoned(request, &mut endpoint));
    for request in pushes(&sent) {
        assert!(!request.sequences().contains(&5) || request.sequences() == [5], "it shares no batch again");
    }
    let failed = rig.operation("op-5");
    assert_eq!((failed.status, failed.attempts), (OperationStatus::Failed, 3));
    assert_eq!(rig.completed(), 15);
}

#[test]
fn a_transaction_that_stands_alone_fails_as_a_whole() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create("a");
    let group = rig.group(vec![
        NewOperation::create("pin", "g1", "{}").with_max_attempts(1),
        NewOperation::create("pin", "g2", "{}"),
        NewOperation::create("pin", "g3", "{}"),
    ]);
    rig.create("b");
    let sent = rig.run(|request| {
        let sequences = request.sequences();
        let members = group.iter().filter(|member| sequences.contains(&member.sequence)).count();
        assert!(members == 0 || members == 3, "a transaction was split");
        if members > 0 { problem(ProblemCode::Internal) } else { endpoint.answer(request) }
    });
    assert!(pushes(&sent).len() > 3);
    for member in &group {
        assert_eq!(rig.status(member), OperationStatus::Failed, "{}", member.id);
    }
    assert_eq!(rig.completed(), 2);
}

/// Counter-example 36: a firewall answers 403 to one payload, without our header.
#[test]
fn ce36_a_proxy_that_refuses_one_payload_delays_only_that_one() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create_many(20);
    let poison = rig.enqueue(NewOperation::create("pin", "p", r#"{"title":"DROP TABLE"}"#));
    for n in 20..40 {
        rig.create(&format!("e{n}"));
    }
    let firewall = |request: &Sending, endpoint: &mut Endpoint| {
        if request.carries("DROP TABLE") { theirs(403) } else { endpoint.answer(request) }
    };
    rig.run_for(4_000, |request| firewall(request, &mut endpoint));
    let waiting = rig.operation(&poison.id);
    assert_eq!((waiting.status, waiting.attempts), (OperationStatus::Pending, 0));
    assert_eq!(waiting.reason.as_deref(), Some("proxy_refused"));
    assert_eq!(rig.completed(), 40);
    // From now on it costs nobody else a wait: others pass while it is tried and refused again.
    let later = rig.create("later");
    rig.run_for(1, |request| firewall(request, &mut endpoint));
    assert_eq!(rig.status(&later), OperationStatus::Completed);
    rig.run_for(20_000, |request| firewall(request, &mut endpoint));
    assert_eq!(rig.operation(&poison.id).reason.as_deref(), Some("proxy_refused"));
    assert_eq!(rig.operation(&poison.id).attempts, 0);
    assert_eq!(rig.driver.state(rig.now), crate::metrics::SyncState::Idle);
    // Elsewhere there is no such firewall.
    rig.run_for(300_000, |request| endpoint.answer(request));
    assert_eq!(rig.status(&poison), OperationStatus::Completed);
}

#[test]
fn a_batch_that_the_database_does_not_finish_in_time_goes_in_smaller_ones() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(60);
    rig.run_for(120_000, |request| match request.operations().len() {
        0..=7 => endpoint.answer(request),
        _ => postgrest(500, "57014"),
    });
    assert_eq!(rig.completed(), 60);
}

#[test]
fn an_operation_that_the_database_never_finishes_waits_and_is_charged_nothing() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(10);
    let slow = rig.enqueue(NewOperation::create("pin", "p", r#"{"title":"SLOW"}"#));
    rig.run_for(30_000, |request| match request.carries("SLOW") {
        true => postgrest(500, "57014"),
        false => endpoint.answer(request),
    });
    let waiting = rig.operation(&slow.id);
    assert_eq!((waiting.status, waiting.attempts), (OperationStatus::Pending, 0));
    assert_eq!(waiting.reason.as_deref(), Some("statement_timeout"));
    assert_eq!(rig.completed(), 10);
}

#[test]
fn functions_that_are_not_there_yet_cost_no_operation_anything() {
    let (mut endpoint, mut rig) = ready(1);
    let receipt = rig.create("e");
    rig.run_for(60_000, |_| postgrest(404, "PGRST202"));
    let waiting = rig.operation(&receipt.id);
    assert_eq!((waiting.status, waiting.attempts, waiting.reason), (OperationStatus::Pending, 0, None));
    match rig.driver.state(rig.now) {
        crate::metrics::SyncState::Backoff { reason, .. } => assert_eq!(reason, "function_not_found"),
        other => panic!("{other:?}"),
    }
    rig.run_for(300_000, |request| endpoint.answer(request));
    assert_eq!(rig.status(&receipt), OperationStatus::Completed);
}

#[test]
fn what_postgres_cannot_read_is_found_in_its_batch_and_fails_alone() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(30);
    let poison = rig.enqueue(NewOperation::create("pin", "p", r#"{"title":"POISON"}"#));
    rig.run_for(30_000, |request| match request.carries("POISON") {
        true => postgrest(400, "22P02"),
        false => endpoint.answer(request),
    });
    let failed = rig.operation(&poison.id);
    assert_eq!((failed.status, failed.reason.as_deref()), (OperationStatus::Failed, Some("22p02")));
    assert_eq!(rig.completed(), 30);
}

#[test]
fn other_lanes_and_the_pull_go_on_during_a_search() {
    let (mut endpoint, mut rig) = ready(2);
    rig.create_many(8);
    let batch = rig.send();
    rig.answer(&batch, problem(ProblemCode::Internal));
    let probe = rig.send();
    assert!(probe.operations().is_empty());
    assert!(rig.driver.is_searching());
    let other = rig.create("other");
    rig.driver.nudge();
    let beside = rig.send();
    assert_eq!(beside.sequences(), [other.sequence]);
    assert_eq!(rig.send().route, Route::Pull);
    rig.take(&beside, &mut endpoint);
    assert_eq!(rig.status(&other), OperationStatus::Completed);
}

#[test]
fn when_the_empty_push_fails_too_it_is_the_connection_and_the_batch_goes_again_as_it_was() {
    let (mut endpoint, mut rig) = ready(1);
    rig.create_many(8);
    let first = rig.send();
    rig.answer(&first, problem(ProblemCode::Internal));
    let probe = rig.send();
    rig.answer(&probe, problem(ProblemCode::Internal));
    assert!(rig.wait().unwrap() > rig.now);
    rig.advance(300_000);
    let again = rig.send();
    assert_eq!(again.sequences(), first.sequences());
    rig.take(&again, &mut endpoint);
    assert_eq!(rig.completed(), 8);
    assert_eq!(rig.operation("op-1").attempts, 0);
}

#[test]
fn a_lane_stays_in_order_through_a_search() {
    let (mut endpoint, mut rig) = ready(1);
    let first = rig.enqueue(NewOperation::create("pin", "e", r#"{"a":1}"#).with_max_attempts(1));
    let second = rig.enqueue(NewOperation::create("pin", "other", "{}").after(&first));
    let third = rig.enqueue(NewOperation::update("pin", "e", r#"{"b":2}"#).after(&second));
    rig.create_many(5);
    let mut delivered = Vec::new();
    rig.run(|request| {
        if request.sequences().contains(&first.sequence) {
            return problem(ProblemCode::InvalidRequest);
        }
        delivered.extend(request.sequences());
        endpoint.answer(request)
    });
    assert_eq!(rig.status(&first), OperationStatus::Failed);
    assert_eq!(rig.status(&second), OperationStatus::Pending);
    assert_eq!(rig.status(&third), OperationStatus::Pending);
    assert_eq!(delivered, [4, 5, 6, 7, 8]);
    rig.store.retry(&first.id, rig.now).unwrap();
    rig.run_with(&mut endpoint);
    assert_eq!(rig.completed(), 8);
}

#[test]
fn silence_while_offline_is_nobodys_fault() {
    let (_, mut rig) = ready(1);
    rig.create_many(4);
    for _ in 0..5 {
        let sent = rig.send();
        assert_eq!(sent.sequences().len(), 4, "never bisected");
        rig.driver.network_changed(crate::sync::NetworkStatus::Offline);
        rig.answer(&sent, Outcome::NoAnswer(crate::transport::TransportError::Timeout));
        assert_eq!(rig.wait(), None);
        rig.driver.network_changed(crate::sync::NetworkStatus::Online { metered: true });
    }
    assert!(!rig.driver.is_searching());
}

#[test]
fn an_answer_that_does_not_add_up_settles_nothing() {
    let (_, mut rig) = ready(1);
    rig.create_many(3);
    let sent = rig.send();
    let mut answer = json!({"applied": 2, "results": [], "version": 3, "epoch": "e1", "mark": 1, "server_time": "2027-01-01T00:00:00Z"});
    rig.answer(&sent, ours(200, &answer));
    assert_eq!(rig.completed(), 0);
    assert!(rig.wait().unwrap() > rig.now, "the connection waits");
    rig.advance(5_000);
    let again = rig.send();
    assert_eq!(again.sequences(), sent.sequences());
    answer["applied"] = json!(3);
    answer["mark"] = json!(2);
    rig.answer(&again, ours(200, &answer));
    assert_eq!(rig.completed(), 3);
}

#[test]
fn a_413_shrinks_the_batches_whoever_says_it() {
    for header in [true, false] {
        let (mut endpoint, mut rig) = ready(1);
        rig.create_many(40);
        let sent = rig.run(|request| match request.sequences().len() {
            0..=10 => endpoint.answer(request),
            _ if header => problem(ProblemCode::BodyTooLarge),
            _ => theirs(413),
        });
        assert_eq!(rig.completed(), 40);
        assert!(pushes(&sent).len() <= 12, "{} pushes", pushes(&sent).len());
    }
}

#[test]
fn an_operation_too_large_by_itself_fails_by_our_word_and_waits_by_a_proxys() {
    for header in [true, false] {
        let (mut endpoint, mut rig) = ready(1);
        rig.create_many(3);
        let large = rig.enqueue(NewOperation::create("pin", "large", r#"{"title":"LARGE"}"#));
        rig.run(|request| match request.carries("LARGE") {
            false => endpoint.answer(request),
            true if header => problem(ProblemCode::BodyTooLarge),
            true => theirs(413),
        });
        let operation = rig.operation(&large.id);
        let expected =
            if header { (OperationStatus::Failed, "too_large") } else { (OperationStatus::Pending, "proxy_refused") };
        assert_eq!((operation.status, operation.reason.as_deref().unwrap()), expected);
        assert_eq!(operation.attempts, 0);
        assert_eq!(rig.completed(), 3);
    }
}

#[test]
fn a_withdrawal_that_is_blamed_waits_however_often() {
    let (mut endpoint, mut rig) = ready(1);
    let receipt = rig.create("e");
    let sent = rig.send();
    rig.store.cancel(&receipt.id, rig.now).unwrap();
    rig.answer(&sent, Outcome::Abandoned);
    rig.run_for(3_600_000, |request| {
        if request.operations().is_empty() { endpoint.answer(request) } else { problem(ProblemCode::InvalidRequest) }
    });
    assert_eq!(rig.status(&receipt), OperationStatus::Pending);
    assert!(rig.operation(&receipt.id).void);
    rig.run_for(300_000, |request| endpoint.answer(request));
    assert_eq!(rig.status(&receipt), OperationStatus::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever fails, however often: what is not the culprit is delivered once in effect, and charged nothing.
    #[test]
    fn nobody_innocent_is_ever_charged(
        n in 1u64..40,
        culprits in prop::collection::btree_set(1u64..40, 0..4),
        moods in prop::collection::vec(0u8..6, 0..60),
        in_flight in 1usize..4,
    ) {
        let (mut endpoint, mut rig) = ready(in_flight);
        rig.create_many(n);
        let mut moods = moods.into_iter();
        // Each mood may cost the longest backoff, and then the search must come to its end.
        rig.run_for(8 * 3_600_000, |request| match moods.next() {
            Some(0) => theirs(502),
            Some(1) => Outcome::NoAnswer(crate::transport::TransportError::Broken("reset".into())),
            Some(2) => problem(ProblemCode::Unavailable),
            _ if request.sequences().iter().any(|sequence| culprits.contains(sequence)) => problem(ProblemCode::TooDeep),
            _ => endpoint.answer(request),
        });
        for sequence in 1..=n {
            let operation = rig.operation(&format!("op-{sequence}"));
            let expected = if culprits.contains(&sequence) { OperationStatus::Failed } else { OperationStatus::Completed };
            prop_assert_eq!(operation.status, expected, "{}: {:?}", sequence, operation.reason);
            prop_assert_eq!(operation.attempts, 0);
        }
    }
}
