use super::*;
use crate::conflict::Resolution;
use syncline_protocol::{Conflict, ConflictResult, FieldConflict, OperationKind, Winner};

pub(super) fn conflict(id: &str, field: &str, ours: &str, theirs: &str, their_clock: Clock) -> Conflict {
    let value = |text: &str| Some(serde_json::value::RawValue::from_string(text.into()).expect("JSON"));
    Conflict {
        id: format!("c-{id}"),
        rule: "manual".into(),
        result: ConflictResult::Conflict,
        entity_type: "pin".into(),
        entity_id: "e".into(),
        operation_id: id.into(),
        operation: OperationKind::Update,
        device_id: "A".into(),
        user_id: "user".into(),
        our_clock: Clock::new(),
        their_clock,
        their_deleted: false,
        decided_at: Timestamp::from_millis(1_700_000_000_000),
        fields: [(
            field.to_owned(),
            FieldConflict { base: None, ours: value(ours), theirs: value(theirs), winner: Winner::None },
        )]
        .into(),
    }
}

pub(super) fn conflicted(id: &str, theirs: &str, their_clock: Clock) -> OperationResult {
    OperationResult {
        conflict: Some(conflict(id, "f", "1", theirs, their_clock)),
        ..named_result(id, Status::Conflict)
    }
}

/// CE 1: create e; cancel it; update e. The update must not wait for the cancelled create.
#[test]
fn ce01_a_lane_goes_on_past_a_cancelled_operation() {
    let mut bench = Bench::new().pulled();
    let create = bench.create("e", "{}");
    bench.store.cancel(&create.id, bench.now).unwrap();
    bench.update("e", r#"{"a":1}"#);
    let candidates = bench.store.candidates(0, 10, bench.now).unwrap();
    assert_eq!(candidates.list.len(), 1);
    assert_eq!(candidates.list[0].predecessor, None);
    bench.assert_consistent();
}

/// CE 2: A's answer is lost; B overwrites; A pulls; A re-sends. The repeated verdict must not move `base` back.
#[test]
fn ce02_a_repeated_verdict_moves_base_only_forward() {
    let mut bench = Bench::new().pulled();
    let one = bench.update("e", r#"{"f":"A"}"#);
    let batch = bench.claim(&[one.sequence]);
    bench.store.give_back(bench.term, &[GiveBack { sequence: 1, how: How::Ready }], bench.now, &Half).unwrap();
    bench.pull(vec![change("e", 7, Some(r#"{"f":"B"}"#), clock(&[("A", 1), ("B", 1)]))], "c7", false);
    let batch = ClaimedBatch { sent: bench.claim(&[1]).sent, ..batch };
    let repeated = with_record(already(&one.id, FirstStatus::Applied), 7, r#"{"f":"B"}"#, clock(&[("A", 1), ("B", 1)]));
    bench.settle(&batch, &response(7, 0, vec![repeated]));
    assert_eq!(bench.value("e"), r#"{"f":"B"}"#);
    bench.assert_consistent();
}

/// CE 3 and 28: what was left out is folded in together; what came without a record stays in the fold.
#[test]
fn ce03_ce28_left_out_results_fold_together_and_absent_records_wait() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    bench.create("e", r#"{"a":1}"#);
    let batch = bench.claim(&[1]);
    let mut silent = result(&batch.sent[0], Status::Merged);
    (silent.version, silent.deleted) = (3, false);
    bench.settle(&batch, &response(3, 0, vec![silent]));
    assert_eq!(bench.value("e"), r#"{"a":1}"#, "completed, not in base, still in the fold");
    assert!(bench.row(1).open);
    bench.pull(vec![change("e", 3, Some(r#"{"a":1,"z":0}"#), clock(&[("A", 1), ("B", 1)]))], "c3", false);
    assert!(!bench.row(1).open);
    bench.update("e", r#"{"f":1}"#);
    bench.update("e", r#"{"g":2}"#);
    let settled = bench.deliver(&[2, 3], 4, Vec::new());
    assert!(matches!(settled, Settled::Done { .. }));
    assert_eq!(bench.value("e"), r#"{"a":1,"f":1,"g":2,"z":0}"#);
    let base = bench.store.find_entity("pin", "e").unwrap().unwrap();
    assert_eq!((base.base_version, base.base_clock), (4, clock(&[("A", 3), ("B", 1)])));
    bench.assert_consistent();
}

/// CE 8 and 9: a claimed operation that is cancelled is withdrawn on the server, alone, before what follows in its lane.
#[test]
fn ce08_ce09_a_claimed_operation_is_voided_and_its_lane_waits() {
    for applied in [true, false] {
        let mut bench = Bench::new().pulled();
        let one = bench.update("e", r#"{"f":1}"#);
        bench.claim(&[1]);
        let mut bench = bench.reopen(); // the crash before the answer
        bench.store.cancel(&one.id, bench.now).unwrap();
        let two = bench.update("e", r#"{"g":1}"#);
        assert!(bench.row(1).void);
        let blocker = bench.store.candidates(0, 10, bench.now).unwrap().list[1].predecessor.clone();
        assert_eq!(blocker, Some(Blocker { sequence: 1, void: true, parked_on: None }));
        let batch = bench.claim(&[1]);
        assert!(
            batch.operations[0].void && batch.operations[0].payload.is_some(),
            "the hash is checked for a void too"
        );
        let answer = if applied {
            with_record(already(&one.id, FirstStatus::Applied), 1, r#"{"f":1}"#, clock(&[("A", 1)]))
        } else {
            rejected(&one.id, "voided")
        };
        bench.settle(&batch, &response(u64::from(applied), 0, vec![answer]));
        let expected = if applied { OperationStatus::Completed } else { OperationStatus::Cancelled };
        assert_eq!(bench.status(&one), expected);
        let next = bench.claim(&[two.sequence]);
        let dots = if applied { clock(&[("A", 1)]) } else { Clock::new() };
        assert_eq!(next.operations[0].base_clock, dots, "only an applied predecessor counts as seen");
        bench.assert_consistent();
    }
}

#[test]
fn a_withdrawal_does_not_wait_for_what_the_operation_depended_on() {
    let mut bench = Bench::new().pulled();
    let one = bench.create("a", "{}");
    let two = bench.enqueue(NewOperation::create("pin", "b", "{}").after(&one));
    bench.deliver(&[1, 2], 0, vec![rejected(&one.id, "no"), named_result(&two.id, Status::Deferred)]);
    bench.store.cancel(&two.id, bench.now).unwrap();
    let candidates = bench.store.candidates(0, 10, bench.now).unwrap();
    assert_eq!(candidates.list.iter().map(|c| (c.sequence, c.dependencies.len())).collect::<Vec<_>>(), [(2, 0)]);
    bench.assert_consistent();
}

/// CE 10: the server rejects #1; the cause is mended; the retry must go under another key.
#[test]
fn ce10_a_retry_after_a_rejection_takes_a_new_key() {
    let mut bench = Bench::new().pulled();
    let one = bench.update("e", "{}");
    let key = bench.claim(&[1]).operations[0].idempotency_key.clone();
    let batch = ClaimedBatch {
        operations: Vec::new(),
        sent: vec![SentOperation { sequence: 1, id: one.id.clone(), void: false }],
        device: bench.store.device().unwrap(),
        forgotten_through: 0,
    };
    bench.settle(&batch, &response(0, 0, vec![rejected(&one.id, "invalid_value")]));
    assert_eq!(bench.value("e"), "-", "rolled back");
    bench.store.retry(&one.id, bench.now).unwrap();
    assert_eq!(bench.claim(&[1]).operations[0].idempotency_key, format!("{key}#2"));
    bench.assert_consistent();
}

/// A delivery that was blamed brought no verdict: its retry repeats the key, because the server may know it.
#[test]
fn a_retry_without_a_verdict_keeps_the_key() {
    let mut bench = Bench::new().pulled();
    let one = bench.update("e", "{}");
    let key = bench.claim(&[1]).operations[0].idempotency_key.clone();
    let how = How::Fail { reason: "internal".into(), message: None };
    bench.store.give_back(bench.term, &[GiveBack { sequence: 1, how }], bench.now, &Half).unwrap();
    assert_eq!(bench.store.unsent().unwrap(), Unsent { operations: 1, unknown_outcome: 1 });
    bench.store.retry(&one.id, bench.now).unwrap();
    assert_eq!(bench.claim(&[1]).operations[0].idempotency_key, key);
}

/// CE 13: own dots are added at claim, of applied operations only, never of a cancelled one.
#[test]
fn ce13_the_clock_sent_counts_applied_predecessors_only() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    let first = bench.update("e", "{}");
    bench.store.cancel(&first.id, bench.now).unwrap();
    for _ in 0..3 {
        bench.update("e", "{}");
    }
    let batch = bench.claim(&[2, 3]);
    assert_eq!(batch.operations[0].base_clock, Clock::new());
    assert_eq!(batch.operations[1].base_clock, clock(&[("A", 2)]), "the one before it in the same batch");
    bench.settle(&batch, &response(1, 2, Vec::new()));
    bench.now = bench.now.plus_millis(3_600_000);
    bench.store.options.retention.count = 0;
    assert_eq!(bench.store.prune(bench.now).unwrap(), 3);
    let late = bench.claim(&[4]);
    assert_eq!(late.operations[0].base_clock, clock(&[("A", 3)]), "also of pruned ones");
    bench.assert_consistent();
}

/// CE 14: `already_processed` names the device under which it was applied: that pair is the operation's dot.
#[test]
fn ce14_a_repeated_verdict_may_name_another_device() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    bench.update("e", "{}");
    bench.update("e", "{}");
    bench.store.request_fork().unwrap();
    bench.store.fork("C", bench.now).unwrap();
    let batch = bench.claim(&[1, 2]);
    let mut known = with_record(already(&batch.sent[0].id, FirstStatus::Applied), 1, "{}", clock(&[("A", 1)]));
    (known.device_id, known.sequence) = (Some("A".into()), Some(1));
    let behind = with_record(result(&batch.sent[1], Status::Deferred), 1, "{}", clock(&[("A", 1)]));
    bench.settle(&batch, &response(1, 0, vec![known, behind]));
    assert_eq!(bench.claim(&[2]).operations[0].base_clock, clock(&[("A", 1)]), "not C's");
    assert_eq!(bench.store.device().unwrap().mark, 1);
    bench.assert_consistent();
}

/// CE 22: a `manual` entity in a transaction conflicts; retrying the group takes the clock that the app saw.
#[test]
fn ce22_retrying_a_group_takes_the_clock_of_the_conflict() {
    let mut bench = Bench::new().pulled();
    let receipts =
        bench.group("t", vec![NewOperation::update("pin", "e", r#"{"f":1}"#), NewOperation::create("pin", "x", "{}")]);
    let mut other = rejected(&receipts[1].id, "transaction_failed");
    other.error.as_mut().unwrap().culprit = Some(receipts[0].id.clone());
    bench.deliver(&[1, 2], 5, vec![conflicted(&receipts[0].id, "2", clock(&[("B", 4)])), other]);
    assert_eq!([bench.status(&receipts[0]), bench.status(&receipts[1])], [OperationStatus::Failed; 2]);
    assert_eq!((bench.value("e"), bench.value("x")), ("-".into(), "-".into()));
    bench.store.retry(&receipts[1].id, bench.now).unwrap();
    let again = bench.claim(&[1, 2]);
    assert_eq!(again.operations.len(), 2, "the whole group");
    assert_eq!(again.operations[0].base_clock, clock(&[("B", 4)]));
    assert!(again.operations.iter().all(|operation| operation.idempotency_key.ends_with("#2")));
    bench.assert_consistent();
}

/// CE 23: cancelling one member takes the whole transaction.
#[test]
fn ce23_every_action_takes_the_whole_group() {
    let mut bench = Bench::new();
    let receipts =
        bench.group("t", vec![NewOperation::create("pin", "a", "{}"), NewOperation::create("pin", "b", "{}")]);
    bench.store.cancel(&receipts[0].id, bench.now).unwrap();
    assert_eq!([bench.status(&receipts[0]), bench.status(&receipts[1])], [OperationStatus::Cancelled; 2]);
    bench.assert_consistent();
}

/// CE 29: after the server went back, a base of the lost history is replaced although its version is higher; what the
/// server no longer knows is dropped at the end, and every operation stays.
#[test]
fn ce29_every_pull_from_the_start_is_a_reset() {
    let mut bench = Bench::new().pulled();
    bench.pull(
        vec![
            change("old", 8, Some(r#"{"v":"lost"}"#), clock(&[("B", 2)])),
            change("gone", 9, Some(r#"{"v":"lost"}"#), clock(&[("B", 3)])),
        ],
        "c9",
        false,
    );
    bench.create("mine", r#"{"v":1}"#);
    bench.deliver(&[1], 10, Vec::new());
    assert_eq!(bench.store.server_went_back("e2", 3, bench.now).unwrap(), 1);
    assert_eq!(bench.row(1).status, OperationStatus::Pending, "what is still kept is sent again");
    assert_eq!(bench.value("mine"), r#"{"v":1}"#);
    bench.assert_consistent();
    let mut bench = bench.reopen(); // a half-done reset survives
    bench.pull(vec![change("old", 4, Some(r#"{"v":"true"}"#), clock(&[("B", 1)]))], "c4", true);
    assert_eq!(bench.value("gone"), r#"{"v":"lost"}"#, "until the pull has come to its end");
    bench.pull(Vec::new(), "c5", false);
    assert_eq!((bench.value("old"), bench.value("gone")), (r#"{"v":"true"}"#.into(), "-".into()));
    assert_eq!(bench.value("mine"), r#"{"v":1}"#);
    bench.assert_consistent();
}

/// CE 30: a push's cursor is taken only if no reset is under way and the cursor is still the one that the push carried.
#[test]
fn ce30_a_pushs_cursor_is_not_taken_during_a_reset() {
    for reset in [true, false] {
        let mut bench = Bench::new().pulled();
        bench.create("e", "{}");
        let batch = bench.claim(&[1]);
        if reset {
            bench.store.begin_reset().unwrap();
        }
        let mut answer = response(1, 1, Vec::new());
        answer.cursor = Some("c1".into());
        bench.settle(&batch, &answer);
        let cursor = bench.store.device().unwrap().cursor;
        assert_eq!(cursor.as_deref(), if reset { None } else { Some("c1") });
        bench.assert_consistent();
    }
}

/// CE 31: resolving takes the clock of the ledger row, not of a newer base that nobody looked at.
#[test]
fn ce31_resolving_takes_the_clock_that_the_app_saw() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    let one = bench.update("e", r#"{"f":1}"#);
    let behind = bench.update("e", r#"{"g":1}"#);
    let batch = bench.claim(&[1]);
    bench.settle(&batch, &response(5, 0, vec![conflicted(&one.id, "2", clock(&[("B", 4)]))]));
    assert_eq!(bench.status(&one), OperationStatus::Conflicted);
    assert_eq!(bench.value("e"), "-", "an update with nothing to stand on");
    bench.pull(vec![change("e", 6, Some(r#"{"f":3}"#), clock(&[("B", 9)]))], "c6", false);
    bench.store.resolve_conflict(&one.id, &Resolution::TakeLocal, bench.now).unwrap();
    let again = bench.claim(&[1]);
    assert_eq!(again.operations[0].base_clock, clock(&[("B", 4)]));
    assert!(again.operations[0].idempotency_key.ends_with("#2"));
    assert_eq!(bench.claim(&[behind.sequence]).operations[0].base_clock, clock(&[("B", 4)]), "and what is behind it");
    bench.assert_consistent();
}

#[test]
fn the_conflict_that_the_app_saw_last_counts_also_when_the_clock_was_set_back() {
    let mut bench = Bench::new().pulled();
    let one = bench.update("e", r#"{"f":1}"#);
    bench.deliver(&[1], 5, vec![conflicted(&one.id, "2", clock(&[("B", 4)]))]);
    bench.store.resolve_conflict(&one.id, &Resolution::TakeLocal, bench.now).unwrap();
    bench.now = bench.now.plus_millis(-3 * 86_400_000);
    let mut second = conflicted(&one.id, "3", clock(&[("B", 9)]));
    second.conflict.as_mut().unwrap().id = "second".into();
    bench.deliver(&[1], 6, vec![second]);
    assert_eq!(bench.status(&one), OperationStatus::Conflicted);
    bench.store.resolve_conflict(&one.id, &Resolution::TakeLocal, bench.now).unwrap();
    assert_eq!(bench.claim(&[1]).operations[0].base_clock, clock(&[("B", 9)]));
    bench.assert_consistent();
}

#[test]
fn the_three_ways_to_resolve() {
    for (resolution, status, value) in [
        (Resolution::TakeLocal, OperationStatus::Pending, r#"{"f":1}"#),
        (Resolution::TakeRemote, OperationStatus::Cancelled, r#"{"f":2}"#),
        (Resolution::Merged(r#"{"f":12}"#.into()), OperationStatus::Pending, r#"{"f":12}"#),
    ] {
        let mut bench = Bench::new().pulled();
        bench.pull(vec![change("e", 1, Some(r#"{"f":0}"#), clock(&[("B", 1)]))], "c1", false);
        let one = bench.update("e", r#"{"f":1}"#);
        let answer = with_record(conflicted(&one.id, "2", clock(&[("B", 4)])), 5, r#"{"f":2}"#, clock(&[("B", 4)]));
        bench.deliver(&[1], 5, vec![answer]);
        assert_eq!(bench.value("e"), r#"{"f":1}"#, "shown until the app decides");
        let ledger: String =
            bench.store.conn.query_row("SELECT conflict FROM conflicts", [], |row| row.get(0)).unwrap();
        let base = serde_json::from_str::<Conflict>(&ledger).unwrap().fields["f"].base.clone().unwrap();
        assert_eq!(base.get(), "0", "the device's ledger always has base");
        bench.store.resolve_conflict(&format!("c-{}", one.id), &resolution, bench.now).unwrap();
        assert_eq!(bench.status(&one), status);
        assert_eq!(bench.value("e"), value);
        assert!(bench.store.resolve_conflict(&one.id, &resolution, bench.now).is_err(), "once");
        bench.assert_consistent();
    }
}

#[test]
fn an_update_resolved_against_a_deletion_is_sent_as_a_create() {
    let mut bench = Bench::new().pulled();
    bench.pull(vec![change("e", 1, Some(r#"{"f":0,"keep":7}"#), clock(&[("B", 1)]))], "c1", false);
    let one = bench.update("e", r#"{"f":1}"#);
    let mut answer = conflicted(&one.id, "0", clock(&[("B", 4)]));
    answer.conflict.as_mut().unwrap().their_deleted = true;
    answer.version = 5;
    bench.deliver(&[1], 5, vec![answer]);
    assert_eq!(bench.value("e"), "-", "their deletion is the base now");
    bench.store.resolve_conflict(&one.id, &Resolution::TakeLocal, bench.now).unwrap();
    let again = bench.claim(&[1]);
    assert_eq!(again.operations[0].operation, OperationKind::Create);
    assert_eq!(again.operations[0].payload.as_ref().unwrap().get(), r#"{"f":1,"keep":7}"#);
    bench.assert_consistent();
}

#[test]
fn an_answer_that_does_not_fit_settles_nothing() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    bench.create("a", "{}");
    bench.create("b", "{}");
    bench.update("a", "{}");
    let batch = bench.claim(&[1, 2, 3]);
    let id = |n: usize| batch.sent[n].id.clone();
    let record = |id: String| with_record(named_result(&id, Status::Applied), 1, "{}", Clock::new());
    let hostile = [
        response(1, 2, vec![]),
        response(1, 4, vec![]),
        response(1, u64::MAX, vec![record(id(0))]),
        response(1, 2, vec![record("never sent".into())]),
        response(1, 1, vec![record(id(1)), record(id(1))]),
        response(1, 2, vec![record(id(0))]), // a part of an entity's results
        response(1 << 53, 3, vec![]),
        response(0, 2, vec![record(id(1))]), // a version beyond the head
        response(1, 2, vec![OperationResult { first: None, ..named_result(&id(1), Status::AlreadyProcessed) }]),
        response(1, 2, vec![named_result(&id(1), Status::Conflict)]),
    ];
    for answer in &hostile {
        assert!(matches!(bench.settle(&batch, answer), Settled::Mismatch(_)));
        assert_eq!(bench.row(1).status, OperationStatus::InProgress);
        bench.assert_consistent();
    }
    assert!(matches!(bench.settle(&batch, &response(3, 3, vec![])), Settled::Done { .. }));
    bench.assert_consistent();
}

#[test]
fn a_verdict_of_an_older_term_is_dropped() {
    let mut bench = Bench::new().pulled();
    bench.create("a", "{}");
    let batch = bench.claim(&[1]);
    bench.store.begin_drain(bench.now).unwrap();
    assert!(matches!(bench.settle(&batch, &response(1, 1, vec![])), Settled::Mismatch(_)));
    assert_eq!(bench.row(1).status, OperationStatus::Pending);
    assert!(bench.claim(&[1]).sent.is_empty(), "nor does an older term lease");
    bench.assert_consistent();
}

#[test]
fn attempts_are_counted_and_end_in_failed() {
    let mut bench = Bench::new().pulled();
    let one = bench.enqueue(NewOperation::create("pin", "a", "{}").with_max_attempts(2));
    let retry = |after: Option<u64>| {
        let mut result = OperationResult { status: Status::Retry, ..rejected(&one.id, "busy") };
        result.error.as_mut().unwrap().retry_after_ms = after;
        response(0, 0, vec![result])
    };
    for (answer, attempts, status) in [
        (retry(Some(5_000)), 0, OperationStatus::Pending),
        (retry(None), 1, OperationStatus::Pending),
        (retry(Some(5_000)), 1, OperationStatus::Pending),
        (retry(None), 2, OperationStatus::Failed),
    ] {
        let batch = bench.claim(&[1]);
        bench.settle(&batch, &answer);
        assert_eq!((bench.row(1).attempts, bench.row(1).status), (attempts, status));
        bench.assert_consistent();
        if status == OperationStatus::Pending {
            assert!(bench.store.candidates(0, 10, bench.now).unwrap().list.is_empty(), "it waits");
            let due = bench.store.next_due(bench.now).unwrap().unwrap();
            bench.now = due;
            assert_eq!(bench.store.candidates(0, 10, bench.now).unwrap().list.len(), 1);
        }
    }
    bench.store.retry(&one.id, bench.now).unwrap();
    assert_eq!(bench.row(1).attempts, 0, "a user's retry counts anew");
}

/// A stored wait longer than its own maximum is cut to it: clocks jump.
#[test]
fn a_clock_that_jumps_back_a_year_lengthens_no_backoff() {
    let mut bench = Bench::new().pulled();
    let one = bench.create("a", "{}");
    let batch = bench.claim(&[1]);
    let mut result = OperationResult { status: Status::Retry, ..rejected(&one.id, "busy") };
    result.error.as_mut().unwrap().retry_after_ms = Some(30_000);
    bench.settle(&batch, &response(0, 0, vec![result]));
    bench.now = bench.now.plus_millis(-365 * 86_400_000);
    assert_eq!(bench.store.next_due(bench.now).unwrap(), Some(bench.now.plus_millis(30_000)));
}

#[test]
fn dependents_of_a_cancelled_operation_fail_and_a_retry_drops_the_dependency() {
    let mut bench = Bench::new().pulled();
    let one = bench.create("a", "{}");
    let two = bench.enqueue(NewOperation::create("pin", "b", "{}").after(&one));
    let free = bench.create("c", "{}");
    bench.store.cancel(&one.id, bench.now).unwrap();
    assert_eq!(bench.status(&two), OperationStatus::Failed);
    assert_eq!(bench.status(&free), OperationStatus::Pending);
    assert_eq!(bench.value("b"), "-");
    bench.store.retry(&two.id, bench.now).unwrap();
    assert_eq!(bench.claim(&[two.sequence]).operations[0].depends_on, Vec::<String>::new());
    bench.assert_consistent();
}

/// What was sent together is answered together: a dependent must fail whatever the order of the results.
#[test]
fn a_dependent_that_was_under_way_fails_when_what_it_depends_on_turns_out_withdrawn() {
    let mut bench = Bench::new().pulled();
    let one = bench.update("a", r#"{"f":1}"#);
    let two = bench.enqueue(NewOperation::create("pin", "b", "{}").after(&one));
    let batch = bench.claim(&[1, 2]);
    bench.store.cancel(&one.id, bench.now).unwrap();
    let results = vec![rejected(&one.id, "not_found"), named_result(&two.id, Status::Deferred)];
    bench.settle(&batch, &response(0, 0, results));
    assert_eq!(bench.status(&one), OperationStatus::Cancelled);
    assert_eq!(bench.status(&two), OperationStatus::Failed);
    assert_eq!(bench.row(two.sequence).reason.as_deref(), Some("dependency_cancelled"));
    assert_eq!(bench.value("b"), "-");
    bench.assert_consistent();
}

/// CE 39: rows of cancelled and folded operations are pruned too, and `forgotten_through` moves on.
#[test]
fn ce39_cancelled_operations_are_pruned_too() {
    let mut bench = Bench::with(|options| options.retention.count = 0).pulled();
    for _ in 0..3 {
        let create = bench.create("e", "{}");
        bench.update("e", r#"{"a":1}"#);
        bench.store.cancel(&create.id, bench.now).unwrap();
    }
    bench.now = bench.now.plus_millis(16 * 60_000);
    assert!(bench.store.prune(bench.now).unwrap() > 0);
    assert_eq!(bench.store.prune(bench.now).unwrap(), 0);
    assert_eq!(bench.store.forgotten_through().unwrap(), 4, "all but the last pair, which remembers the sequence");
    assert_eq!(bench.create("f", "{}").sequence, 7);
    bench.assert_consistent();
}

#[test]
fn ended_operations_are_kept_for_as_long_as_configured() {
    let mut bench = Bench::with(|options| options.retention.count = 2).pulled();
    for n in 0..5 {
        bench.create(&format!("e{n}"), "{}");
        bench.deliver(&[n + 1], n + 1, Vec::new());
    }
    assert_eq!(bench.store.prune(bench.now).unwrap(), 0, "not before 15 minutes");
    bench.now = bench.now.plus_millis(15 * 60_000 + 1);
    for n in 5..7 {
        bench.create(&format!("e{n}"), "{}");
        bench.deliver(&[n + 1], n + 1, Vec::new());
    }
    assert_eq!(bench.store.prune(bench.now).unwrap(), 5);
    assert_eq!(bench.store.forgotten_through().unwrap(), 5);
    bench.assert_consistent();
}

/// Folded operations end by the dozen; they must not take the places of completed ones, which a server may have lost.
#[test]
fn folded_operations_push_no_completed_one_out_of_what_is_kept() {
    let mut bench = Bench::with(|options| options.retention.count = 2).pulled();
    for n in 0..2 {
        bench.create(&format!("e{n}"), "{}");
        bench.deliver(&[n + 1], n + 1, Vec::new());
    }
    bench.now = bench.now.plus_millis(1_000);
    bench.create("f", "{}");
    for n in 0..3 {
        bench.update("f", &format!(r#"{{"a":{n}}}"#));
    }
    bench.now = bench.now.plus_millis(16 * 60_000);
    assert_eq!(bench.store.prune(bench.now).unwrap(), 0);
    assert_eq!(bench.store.forgotten_through().unwrap(), 0);
    bench.assert_consistent();
}
