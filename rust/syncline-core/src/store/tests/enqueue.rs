use proptest::prelude::*;

use super::*;
use crate::error::SynclineError;

fn refusal(bench: &mut Bench, operation: NewOperation) -> String {
    let refused = match bench.try_prepare(operation) {
        Ok(prepared) => bench.store.enqueue(&prepared, bench.now).map(|_| ()),
        Err(error) => Err(error),
    };
    bench.assert_consistent();
    match refused {
        Err(SynclineError::InvalidOperation { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operation_and_its_effect_are_there_together() {
    let mut bench = Bench::new();
    let receipt = bench.create("b1", r#"{"title":"Valve","lat":1.0}"#);
    assert_eq!((receipt.sequence, receipt.duplicate), (1, false));
    assert_eq!(bench.value("b1"), r#"{"lat":1,"title":"Valve"}"#);
    bench.update("b2", r#"{"title":"nothing to stand on"}"#);
    assert_eq!(bench.value("b2"), "-");
    bench.assert_consistent();
}

#[test]
fn every_bad_argument_is_refused_by_name_and_leaves_nothing() {
    let mut bench = Bench::new();
    let receipt = bench.create("b1", "{}");
    let unknown = Receipt { id: "other".into(), ..receipt.clone() };
    let later = Receipt { sequence: 99, ..receipt.clone() };
    for (operation, field) in [
        (NewOperation::create("Pin", "x", "{}"), "entity_type"),
        (NewOperation::create("pin", "", "{}"), "entity_id"),
        (NewOperation::create("pin", "x", "[]"), "payload"),
        (NewOperation::create("pin", "x", r#"{"a":{"b":[1,"\u0000"]}}"#), "payload.a.b[1]"),
        (NewOperation::create("pin", "x", format!("{{\"a\":\"{}\"}}", "x".repeat(300_000))), "payload"),
        (NewOperation::create("pin", "x", "{}").with_key("a#2"), "idempotency_key"),
        (NewOperation::create("pin", "x", "{}").with_max_attempts(0), "max_attempts"),
        (NewOperation::create("pin", "x", "{}").after(&unknown), "depends_on[0]"),
        (NewOperation::create("pin", "x", "{}").after(&later), "depends_on[0]"),
    ] {
        assert_eq!(refusal(&mut bench, operation), field);
    }
    let mut delete = NewOperation::delete("pin", "x");
    delete.payload = Some("{}".into());
    assert_eq!(refusal(&mut bench, delete), "payload");
    assert_eq!(bench.create("b2", "{}").sequence, 2, "no sequence was used up");
}

#[test]
fn the_same_key_is_the_same_operation_or_an_error() {
    let mut bench = Bench::new();
    let first = bench.enqueue(NewOperation::create("pin", "b1", r#"{"a":1}"#).with_key("k"));
    // Folding changes the stored payload; what counts is what was enqueued under the key.
    let folded = bench.update("b1", r#"{"a":2}"#);
    let again = bench.enqueue(NewOperation::create("pin", "b1", r#"{ "a": 1.0 }"#).with_key("k"));
    assert_eq!(again, Receipt { duplicate: true, ..first.clone() });
    for other in [
        NewOperation::create("pin", "b1", r#"{"a":2}"#),
        NewOperation::update("pin", "b1", r#"{"a":1}"#),
        NewOperation::create("pin", "b2", r#"{"a":1}"#),
    ] {
        assert_eq!(refusal(&mut bench, other.with_key("k")), "idempotency_key");
    }
    assert_eq!(bench.status(&folded), OperationStatus::Cancelled);
}

/// The key of a folded operation leads to the one that took it in.
#[test]
fn a_folded_operations_key_leads_to_the_survivor() {
    let mut bench = Bench::new();
    let first = bench.create("b1", "{}");
    bench.enqueue(NewOperation::update("pin", "b1", r#"{"a":1}"#).with_key("k"));
    let again = bench.enqueue(NewOperation::update("pin", "b1", r#"{"a":1}"#).with_key("k"));
    assert_eq!(again, Receipt { duplicate: true, ..first });
}

/// CE 24: create, delete, create, delete e within one millisecond; the derived key of the 4th equalled the 2nd.
#[test]
fn ce24_a_derived_key_covers_the_sequence() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false));
    for _ in 0..2 {
        bench.create("e", "{}");
        bench.delete("e");
    }
    let keys: u64 = bench
        .store
        .conn
        .query_row("SELECT count(DISTINCT idempotency_key) FROM sync_queue", [], |row| row.get(0))
        .unwrap();
    assert_eq!(keys, 4);
    bench.assert_consistent();
}

/// CE 35: the clock is set back between two writes; each timestamp is still later than the one before.
#[test]
fn ce35_timestamps_rise_when_the_clock_is_set_back() {
    let mut bench = Bench::new().pulled();
    let mut seen = change("x", 1, Some("{}"), clock(&[("B", 1)]));
    seen.changed_at = Timestamp::from_millis(1_700_000_500_000);
    bench.pull(vec![seen], "c1", false);
    let mut timestamps = Vec::new();
    for step in [0, -3_600_000, 0, -1] {
        bench.now = Timestamp::from_millis(1_700_000_000_000 + step);
        let receipt = bench.update("x", r#"{"a":1}"#);
        let stamp: i64 = bench
            .store
            .conn
            .query_row("SELECT timestamp FROM sync_queue WHERE sequence = ?1", [receipt.sequence], |row| row.get(0))
            .unwrap();
        timestamps.push(stamp);
    }
    assert!(timestamps[0] > 1_700_000_500_000, "CE 26: after every change seen");
    assert!(timestamps.windows(2).all(|pair| pair[0] < pair[1]), "{timestamps:?}");
}

#[test]
fn folding_follows_the_table() {
    type Write = fn(&mut Bench) -> Receipt;
    let create: Write = |bench| bench.create("e", r#"{"a":1,"b":1}"#);
    let update: Write = |bench| bench.update("e", r#"{"b":2,"c":null}"#);
    let delete: Write = |bench| bench.delete("e");
    let shape = |bench: &Bench| {
        let sql =
            "SELECT group_concat(operation || coalesce(payload, ''), ' ') FROM sync_queue WHERE status = 'pending'";
        bench.store.conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
    };
    for (first, second, left) in [
        (create, update, r#"create{"a":1,"b":2,"c":null}"#),
        (create, delete, ""),
        (update, delete, "delete"),
        (delete, create, r#"delete create{"a":1,"b":1}"#),
    ] {
        let mut bench = Bench::new();
        first(&mut bench);
        let newer = second(&mut bench);
        assert_eq!(shape(&bench), left);
        if !left.contains(' ') {
            assert_eq!(bench.status(&newer), OperationStatus::Cancelled);
        }
        bench.assert_consistent();
    }
}

/// CE 5: two writes around a pull must not fold, because either base would be wrong for the other half.
#[test]
fn ce05_no_folding_across_a_pull() {
    let mut bench = Bench::new().pulled();
    let first = bench.update("e", r#"{"f2":1}"#);
    bench.pull(vec![change("e", 1, Some(r#"{"f0":0}"#), clock(&[("B", 1)]))], "c1", false);
    let second = bench.update("e", r#"{"f0":1}"#);
    assert_eq!(bench.status(&first), OperationStatus::Pending);
    assert_eq!(bench.status(&second), OperationStatus::Pending);
    assert_eq!(bench.value("e"), r#"{"f0":1,"f2":1}"#);
}

/// CE 6: create offline, pull another device's entity of the same id, delete: the deletion must travel.
#[test]
fn ce06_a_create_and_its_delete_vanish_only_on_an_empty_base() {
    let mut bench = Bench::new().pulled();
    bench.create("e", "{}");
    bench.pull(vec![change("e", 1, Some(r#"{"theirs":1}"#), clock(&[("B", 1)]))], "c1", false);
    let delete = bench.delete("e");
    assert_eq!(bench.status(&delete), OperationStatus::Pending);
}

/// CE 7: #1 e1, #2 e0 depends on #1, #3 e1 depends on #2: folding #3 into #1 would be a cycle.
#[test]
fn ce07_an_operation_with_dependencies_does_not_fold() {
    let mut bench = Bench::new();
    let one = bench.create("e1", "{}");
    let two = bench.enqueue(NewOperation::create("pin", "e0", "{}").after(&one));
    let three = bench.enqueue(NewOperation::update("pin", "e1", r#"{"a":1}"#).after(&two));
    assert_eq!(bench.status(&three), OperationStatus::Pending);
    // And a create that others wait for does not vanish.
    let four = bench.delete("e0");
    assert_eq!(bench.status(&four), OperationStatus::Pending, "#3 depends on the create of e0");
    bench.assert_consistent();
}

/// CE 38: a new write meets a cancelled predecessor that was never claimed.
#[test]
fn ce38_nothing_folds_into_a_cancelled_operation() {
    let mut bench = Bench::new();
    let first = bench.create("e", r#"{"a":1}"#);
    bench.store.cancel(&first.id, bench.now).unwrap();
    let second = bench.create("e", r#"{"a":2}"#);
    assert_eq!(bench.status(&second), OperationStatus::Pending);
    assert_eq!(bench.value("e"), r#"{"a":2}"#);
    bench.assert_consistent();
}

/// create e, create e again (another screen), delete e: folding the second create and the delete to nothing would leave the
/// first create standing. The create of a vanishing pair must be the first of its lane (docs/adr/0010).
#[test]
fn a_create_behind_another_operation_does_not_vanish_with_its_delete() {
    let mut bench = Bench::new();
    bench.create("e", r#"{"a":1}"#);
    bench.create("e", r#"{"a":2}"#);
    let delete = bench.delete("e");
    assert_eq!(bench.value("e"), "-");
    assert_eq!(bench.status(&delete), OperationStatus::Pending);
    bench.assert_consistent();
}

#[test]
fn a_fold_that_would_be_too_large_is_left_alone() {
    let mut bench = Bench::new();
    bench.create("e", &format!("{{\"a\":\"{}\"}}", "x".repeat(200_000)));
    let second = bench.update("e", &format!("{{\"b\":\"{}\"}}", "x".repeat(200_000)));
    assert_eq!(bench.status(&second), OperationStatus::Pending);
    bench.assert_consistent();
}

#[test]
fn a_transaction_is_whole_and_within_its_limits() {
    let mut bench = Bench::new();
    let receipts =
        bench.group("t1", vec![NewOperation::create("pin", "a", "{}"), NewOperation::create("pin", "b", "{}")]);
    assert_eq!(receipts.iter().map(|receipt| receipt.sequence).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(bench.store.commit_group("t2", &[], bench.now), Err(SynclineError::InvalidOperation { .. })));
    let many: Vec<_> = (0..101)
        .map(|n| bench.store.group_member(bench.prepare(NewOperation::create("pin", n.to_string(), "{}"))).unwrap())
        .collect();
    assert!(matches!(bench.store.commit_group("t3", &many, bench.now), Err(SynclineError::InvalidOperation { .. })));
    // Its members neither fold nor are folded into.
    let after = bench.update("a", r#"{"x":1}"#);
    assert_eq!(bench.status(&after), OperationStatus::Pending);
    bench.assert_consistent();
}

/// CE 32: what a member had seen is taken when it is added, not when the transaction commits.
#[test]
fn ce32_a_members_clock_is_taken_when_it_is_added() {
    let mut bench = Bench::new().pulled();
    let member = bench.store.group_member(bench.prepare(NewOperation::update("pin", "e", r#"{"f":1}"#))).unwrap();
    bench.pull(vec![change("e", 1, Some(r#"{"f":0}"#), clock(&[("B", 1)]))], "c1", false);
    let receipts = bench.store.commit_group("t", &[member], bench.now).unwrap();
    let batch = bench.claim(&[receipts[0].sequence]);
    assert!(batch.operations[0].base_clock.is_empty(), "the pulled value was never seen by the writer");
}

#[test]
fn a_failing_job_in_a_group_commit_takes_nobody_along() {
    let mut bench = Bench::new();
    let good = bench.prepare(NewOperation::create("pin", "a", "{}"));
    let bad = bench.prepare(NewOperation::create("pin", "b", "{}").after(&Receipt {
        id: "?".into(),
        sequence: 1,
        duplicate: false,
    }));
    let last = bench.prepare(NewOperation::create("pin", "c", "{}"));
    let now = bench.now;
    let results = bench
        .store
        .group(|store| [store.enqueue(&good, now), store.enqueue(&bad, now), store.enqueue(&last, now)])
        .unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    bench.assert_consistent();
    assert_eq!(bench.store.tail().unwrap().next_sequence, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written in whatever order, folding changes what travels, never what the app sees.
    #[test]
    fn folding_never_changes_the_value(writes in prop::collection::vec((0u8..3, 0u8..2, 0u8..4), 1..12)) {
        let mut folded = Bench::new();
        let mut plain = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false));
        for (kind, entity, value) in writes {
            let id = format!("e{entity}");
            let payload = format!(r#"{{"f{}":{}}}"#, value % 2, if value == 3 { "null".into() } else { value.to_string() });
            for bench in [&mut folded, &mut plain] {
                match kind {
                    0 => bench.create(&id, &payload),
                    1 => bench.update(&id, &payload),
                    _ => bench.delete(&id),
                };
                bench.assert_consistent();
            }
            prop_assert_eq!(folded.value(&id), plain.value(&id));
        }
    }
}
