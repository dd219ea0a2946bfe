use proptest::prelude::*;
use syncline_protocol::{Dot, Timestamp};

use super::*;

fn write(device: &str, sequence: u64, at: i64) -> Write {
    Write { dot: Dot::new(device, sequence), at: Timestamp::from_millis(at) }
}

fn clock(text: &str) -> Clock {
    let dots = text.split_whitespace().map(|dot| Dot::new(&dot[..1], dot[1..].parse::<u64>().unwrap()));
    dots.collect()
}

/// `none`; `live`: f=1 by the create (A,1) at 10, g=2 by (B,2) at 20; `bare`: the create alone; `dead`: `live`, deleted by (C,3) at 30.
fn record(name: &str) -> Option<ServerRecord> {
    let payload = Record::parse(if name == "bare" { "{}" } else { r#"{"f":1,"g":2}"# }).unwrap();
    let mut record = ServerRecord::create(&payload, write("A", 1, 10));
    if name != "bare" {
        record.fields.insert("g".into(), write("B", 2, 20));
    }
    record.deleted = (name == "dead").then(|| write("C", 3, 30));
    (name != "none").then_some(record)
}

/// In one line: the verdict, then rule and winners of a dispute, then the record after it.
fn told(judgement: &Judgement) -> String {
    let disputed = |dispute: &Dispute| {
        let winners = dispute.fields.iter().map(|(field, conflict)| format!(" {field}:{:?}", conflict.winner));
        format!(" {}{}", dispute.rule, winners.collect::<String>().to_lowercase())
    };
    match judgement {
        Judgement::NotFound => "not_found".into(),
        Judgement::Gone => "gone".into(),
        Judgement::Conflict(dispute) => format!("conflict{}", disputed(dispute)),
        Judgement::Accepted { record, merged, dispute } => {
            let after = match record {
                None => "none".into(),
                Some(record) if record.deleted.is_some() => "deleted".into(),
                Some(record) => record.payload.to_string(),
            };
            let verdict = if *merged { "merged" } else { "applied" };
            format!("{verdict}{} → {after}", dispute.as_ref().map(disputed).unwrap_or_default())
        }
    }
}

const LWW: ConflictRule = ConflictRule::LastWriterWins;
const SERVER: ConflictRule = ConflictRule::ServerWins;
const CLIENT: ConflictRule = ConflictRule::ClientWins;
const MANUAL: ConflictRule = ConflictRule::Manual;
const UPDATE_WINS: DeleteRule = DeleteRule::UpdateWins;
const DELETE_WINS: DeleteRule = DeleteRule::DeleteWins;
use OperationKind::{Create, Delete, Update};

/// Record, operation, patch, base clock, time, the type's rules, and what is told of the judgement.
type Row = (&'static str, OperationKind, &'static str, &'static str, i64, ConflictRule, DeleteRule, &'static str);

/// What is judged is always (D,9); `at` is its time.
#[rustfmt::skip]
#[test]
fn every_case_of_the_rules() {
    let table: &[Row] = &[
        ("none", Create, r#"{"f":7,"x":null}"#, "", 99, LWW, UPDATE_WINS, r#"applied → {"f":7}"#),
        ("none", Create, "{}", "A1", 99, MANUAL, UPDATE_WINS, "applied → {}"),
        ("none", Update, "{}", "", 99, LWW, UPDATE_WINS, "not_found"),
        ("none", Update, "{}", "A1", 99, LWW, UPDATE_WINS, "gone"),
        ("none", Delete, "{}", "", 99, MANUAL, UPDATE_WINS, "applied → none"),
        // Rule 4: what is covered, or equal, applies.
        ("live", Update, r#"{"f":7}"#, "A1 B2", 99, LWW, UPDATE_WINS, r#"applied → {"f":7,"g":2}"#),
        ("live", Update, r#"{"f":7}"#, "A1", 99, MANUAL, UPDATE_WINS, r#"merged → {"f":7,"g":2}"#),
        ("live", Update, r#"{"f":null}"#, "A1 B2", 1, SERVER, UPDATE_WINS, r#"applied → {"g":2}"#),
        ("live", Update, r#"{"x":7}"#, "A1", 99, LWW, UPDATE_WINS, r#"merged → {"f":1,"g":2,"x":7}"#),
        ("live", Update, r#"{"g":2.0}"#, "A1", 99, MANUAL, UPDATE_WINS, r#"merged → {"f":1,"g":2}"#),
        ("live", Update, r#"{"x":null}"#, "", 99, MANUAL, UPDATE_WINS, r#"merged → {"f":1,"g":2}"#),
        ("live", Update, "{}", "A1 B2", 99, LWW, UPDATE_WINS, r#"applied → {"f":1,"g":2}"#),
        ("live", Update, "{}", "A1", 99, LWW, UPDATE_WINS, r#"merged → {"f":1,"g":2}"#),
        ("live", Create, r#"{"f":7}"#, "A1 B2", 99, LWW, UPDATE_WINS, r#"applied → {"f":7,"g":2}"#),
        ("live", Create, r#"{"f":7}"#, "", 99, LWW, UPDATE_WINS, r#"merged last_writer_wins f:ours → {"f":7,"g":2}"#),
        // Rule 5: the entity type's rule, field by field.
        ("live", Update, r#"{"f":7,"g":7}"#, "A1", 15, LWW, UPDATE_WINS, r#"merged last_writer_wins g:theirs → {"f":7,"g":2}"#),
        ("live", Update, r#"{"f":7,"g":7}"#, "", 15, LWW, UPDATE_WINS, r#"merged last_writer_wins f:ours g:theirs → {"f":7,"g":2}"#),
        ("live", Update, r#"{"g":7}"#, "A1", 20, LWW, UPDATE_WINS, r#"merged last_writer_wins g:ours → {"f":1,"g":7}"#),
        ("live", Update, r#"{"g":null}"#, "A1", 21, LWW, UPDATE_WINS, r#"merged last_writer_wins g:ours → {"f":1}"#),
        ("live", Update, r#"{"x":7}"#, "", 5, LWW, UPDATE_WINS, r#"merged last_writer_wins x:theirs → {"f":1,"g":2}"#),
        ("live", Update, r#"{"g":7}"#, "A1", 99, SERVER, UPDATE_WINS, r#"merged server_wins g:theirs → {"f":1,"g":2}"#),
        ("live", Update, r#"{"g":7}"#, "A1", 1, CLIENT, UPDATE_WINS, r#"merged client_wins g:ours → {"f":1,"g":7}"#),
        ("live", Update, r#"{"f":7,"g":7}"#, "A1", 99, MANUAL, UPDATE_WINS, "conflict manual g:none"),
        // Rule 6: a deletion and a write.
        ("live", Delete, "{}", "A1 B2", 1, MANUAL, UPDATE_WINS, "applied → deleted"),
        ("live", Delete, "{}", "A1 B2 X9", 1, LWW, DELETE_WINS, "applied → deleted"),
        ("live", Delete, "{}", "A1", 99, LWW, UPDATE_WINS, r#"merged update_wins g:theirs → {"f":1,"g":2}"#),
        ("live", Delete, "{}", "", 99, SERVER, UPDATE_WINS, r#"merged update_wins f:theirs g:theirs → {"f":1,"g":2}"#),
        ("live", Delete, "{}", "A1", 1, SERVER, DELETE_WINS, "merged delete_wins g:ours → deleted"),
        ("live", Delete, "{}", "A1", 99, MANUAL, DELETE_WINS, "conflict manual g:none"),
        ("bare", Delete, "{}", "A1", 99, LWW, UPDATE_WINS, "applied → deleted"),
        ("bare", Delete, "{}", "", 99, LWW, UPDATE_WINS, "merged update_wins → {}"),
        ("bare", Delete, "{}", "", 99, LWW, DELETE_WINS, "merged delete_wins → deleted"),
        ("bare", Delete, "{}", "", 99, MANUAL, UPDATE_WINS, "conflict manual"),
        ("dead", Delete, "{}", "", 99, MANUAL, UPDATE_WINS, "applied → deleted"),
        ("dead", Update, r#"{"f":7}"#, "A1 B2 C3", 99, LWW, UPDATE_WINS, "gone"),
        ("dead", Update, r#"{"f":7}"#, "C3", 99, MANUAL, UPDATE_WINS, "gone"),
        ("dead", Update, r#"{"f":7,"g":null}"#, "A1 B2", 1, LWW, UPDATE_WINS, r#"merged update_wins f:ours g:ours → {"f":7}"#),
        ("dead", Update, r#"{"f":7}"#, "A1 B2", 99, LWW, DELETE_WINS, "merged delete_wins f:theirs → deleted"),
        ("dead", Update, r#"{"f":7}"#, "A1 B2", 99, MANUAL, UPDATE_WINS, "conflict manual f:none"),
        ("dead", Create, r#"{"x":7}"#, "A1 B2 C3", 99, LWW, UPDATE_WINS, r#"applied → {"x":7}"#),
        ("dead", Create, r#"{"x":7}"#, "C3", 99, MANUAL, DELETE_WINS, r#"merged → {"x":7}"#),
        ("dead", Create, r#"{"x":7}"#, "A1 B2", 99, LWW, UPDATE_WINS, r#"merged update_wins x:ours → {"f":1,"g":2,"x":7}"#),
        ("dead", Create, r#"{"x":7}"#, "A1 B2", 99, LWW, DELETE_WINS, "merged delete_wins x:theirs → deleted"),
        ("dead", Create, r#"{"x":7}"#, "", 99, MANUAL, UPDATE_WINS, "conflict manual x:none"),
    ];
    for (name, kind, patch, base, at, conflict, delete, expected) in table {
        let (patch, base) = (Record::parse(patch).unwrap(), clock(base));
        let intent = Intent { kind: *kind, patch: &patch, before: None, base: &base, write: write("D", 9, *at) };
        let judgement = judge(record(name).as_ref(), &intent, Rules { conflict: *conflict, delete: *delete });
        let row = format!("{name} {kind} {patch} on {base:?} at {at}, {conflict:?} {delete:?}");
        assert_eq!(told(&judgement), *expected, "{row}");
    }
}

#[test]
fn a_new_life_has_the_dots_of_its_create_only() {
    let patch = Record::parse(r#"{"x":7}"#).unwrap();
    let base = clock("C3");
    let intent = Intent { kind: Create, patch: &patch, before: None, base: &base, write: write("D", 9, 99) };
    let Judgement::Accepted { record: Some(record), .. } = judge(record("dead").as_ref(), &intent, Rules::default())
    else {
        panic!("accepted")
    };
    assert_eq!((record.clock(), record.fields.len()), (clock("D9"), 0));
}

#[test]
fn equal_values_keep_the_later_of_two_dots() {
    for (at, device, stands) in [(19, "D", "B"), (20, "A", "B"), (20, "D", "D"), (21, "A", "A")] {
        let patch = Record::parse(r#"{"g":2}"#).unwrap();
        let base = clock("A1");
        let intent = Intent { kind: Update, patch: &patch, before: None, base: &base, write: write(device, 9, at) };
        let Judgement::Accepted { record: Some(record), dispute: None, .. } =
            judge(record("live").as_ref(), &intent, Rules::default())
        else {
            panic!("accepted")
        };
        assert_eq!(record.fields["g"].dot.device_id, stands, "{device} at {at}");
    }
}

/// One write of a device: its time after the device's last one, and what it sets.
type Step = (i64, Vec<(u8, Option<u8>)>);

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let patch = prop::collection::vec((0u8..3, prop::option::of(0u8..3)), 1..3);
    prop::collection::vec(prop::collection::vec((1i64..6, patch), 0..4), 3)
}

fn patch_of(fields: &[(u8, Option<u8>)]) -> Record {
    let members: serde_json::Map<_, _> =
        fields.iter().map(|(field, value)| (format!("f{field}"), serde_json::json!(value))).collect();
    Record::parse(&serde_json::Value::Object(members).to_string()).unwrap()
}

/// Applies the devices' updates in the order that `schedule` picks the next device; each has seen the create and itself.
fn run(devices: &[Vec<Step>], schedule: &[usize]) -> ServerRecord {
    let mut record = ServerRecord::create(&Record::parse(r#"{"f0":0}"#).unwrap(), write("X", 1, 0));
    let mut done = vec![(0usize, 0i64); devices.len()];
    let rest = (0..devices.len()).flat_map(|device| vec![device; devices[device].len()]);
    for device in schedule.iter().copied().chain(rest) {
        let (index, time) = done[device];
        let Some((after, fields)) = devices[device].get(index) else { continue };
        let name = ["A", "B", "C"][device];
        let mut base = clock("X1");
        base.add(&Dot::new(name, index as u64));
        done[device] = (index + 1, time + after);
        let patch = patch_of(fields);
        let write = write(name, index as u64 + 1, time + after);
        let intent = Intent { kind: Update, patch: &patch, before: None, base: &base, write };
        match judge(Some(&record), &intent, Rules::default()) {
            Judgement::Accepted { record: Some(next), .. } => record = next,
            other => panic!("{other:?}"),
        }
    }
    record
}

proptest! {
    #[test]
    fn last_writer_wins_gives_one_result_in_every_order_of_arrival(
        devices in steps(),
        one in prop::collection::vec(0usize..3, 0..12),
        other in prop::collection::vec(0usize..3, 0..12),
    ) {
        prop_assert_eq!(run(&devices, &one), run(&devices, &other));
    }

    #[test]
    fn a_lost_value_is_always_in_the_dispute(
        fields in prop::collection::vec((0u8..3, prop::option::of(0u8..3)), 0..4),
        at in 0i64..40,
        base in prop::sample::select(vec!["", "A1", "B2", "A1 B2", "A1 B2 C3"]),
        name in prop::sample::select(vec!["live", "bare", "dead"]),
        kind in prop::sample::select(vec![Create, Update, Delete]),
    ) {
        let (before, base, patch) = (record(name).unwrap(), clock(base), patch_of(&fields));
        let patch = if kind == Delete { Record::new() } else { patch };
        let intent = Intent { kind, patch: &patch, before: None, base: &base, write: write("D", 9, at) };
        if let Judgement::Accepted { record: Some(after), dispute, merged } = judge(Some(&before), &intent, Rules::default()) {
            let disputed = |field: &str| dispute.as_ref().is_some_and(|dispute| dispute.fields.contains_key(field));
            if after.deleted.is_none() {
                for (field, value) in patch.members() {
                    let lost = !Record::same_value(after.payload.get(field), Some(value));
                    prop_assert!(!lost || disputed(field), "{} is lost and not disputed", field);
                }
            }
            if let (Some(theirs), Some(ours)) = (before.visible(), after.visible()) {
                for (field, value) in theirs.members() {
                    let unseen = !base.covers(&before.setter(field).dot);
                    let overwritten = !Record::same_value(ours.get(field), Some(value));
                    prop_assert!(!(unseen && overwritten) || disputed(field), "{} is overwritten unseen", field);
                }
            }
            prop_assert!(dispute.is_none() || merged);
        }
    }
}
