//! Concurrent writes and deletions under the default rules, and clocks that are wrong (spec §4).

use serde_json::{Value, json};

use super::Guarantee;
use super::device::{Device, Op, Settled, millis, same};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "field_merge",
        sentence: "Writes to different fields merge without a conflict, and the record's clock names exactly their dots",
        spec: "§4 rule 4",
        check: |world| Box::pin(field_merge(world)),
    },
    Guarantee {
        id: "last_writer_wins",
        sentence: "Of two writes to one field the later timestamp wins, then the greater device id, in either order of arrival",
        spec: "§4 rule 5",
        check: |world| Box::pin(last_writer_wins(world)),
    },
    Guarantee {
        id: "future_clamped",
        sentence: "A timestamp far in the future is clamped to the endpoint's time + 60 s, and only the clamped one is compared",
        spec: "§4",
        check: |world| Box::pin(future_clamped(world)),
    },
    Guarantee {
        id: "equal_value",
        sentence: "An equal value is no conflict, and the later of the two writes stays as the field's dot",
        spec: "§4 rule 4",
        check: |world| Box::pin(equal_value(world)),
    },
    Guarantee {
        id: "conflict_ledger",
        sentence: "A value that loses is told in `conflict`, with both values, both clocks, who and by which rule, and again in a repetition",
        spec: "§4 rule 7, §9.7",
        check: |world| Box::pin(conflict_ledger(world)),
    },
    Guarantee {
        id: "create_of_live",
        sentence: "A create of a live record is an update of its fields",
        spec: "§4 rule 4",
        check: |world| Box::pin(create_of_live(world)),
    },
    Guarantee {
        id: "null_removes",
        sentence: "`null` removes a field, an object is replaced whole",
        spec: "§3",
        check: |world| Box::pin(null_removes(world)),
    },
    Guarantee {
        id: "missing_record",
        sentence: "An update of what never was is `not_found`, of what the writer has seen `gone`; a delete of it applies",
        spec: "§4 rule 3",
        check: |world| Box::pin(missing_record(world)),
    },
    Guarantee {
        id: "delete_unseen_write",
        sentence: "A delete that has not seen a write does not apply, and is recorded",
        spec: "§4 rule 6",
        check: |world| Box::pin(delete_unseen_write(world)),
    },
    Guarantee {
        id: "write_unseen_delete",
        sentence: "An update or create that has not seen the delete revives the record with its last payload and the patch, and is recorded",
        spec: "§4 rule 6",
        check: |world| Box::pin(write_unseen_delete(world)),
    },
    Guarantee {
        id: "seen_tombstone",
        sentence: "On a tombstone that it has seen, an update is `gone`, a delete changes nothing, a create replaces everything",
        spec: "§4 rules 3, 4 and 6",
        check: |world| Box::pin(seen_tombstone(world)),
    },
];

/// Pushes one operation and settles it.
async fn one(device: &mut Device<'_>, operation: &Op) -> Result<Settled, Trouble> {
    device.settle(&[operation]).await
}

async fn field_merge(world: &World) -> Outcome {
    let (c, create) = world.record(json!({ "x": 0, "y": 0 })).await?;
    let entity = create.entity().to_owned();
    let (mut a, mut b, mut d) = (world.device(), world.device(), world.device());
    let x = a.update(&entity, json!({ "x": 1 })).base(&[(&c.id, 1)]);
    let y = b.update(&entity, json!({ "y": 2 })).base(&[(&c.id, 1)]);
    one(&mut a, &x).await?.expect(&x, "applied")?;
    let settled = one(&mut b, &y).await?;
    settled.expect(&y, "merged")?;
    settled.require(settled.member(&y, "conflict").is_null(), "different fields are told as a conflict")?;
    let change = world.expect_record(&entity, &json!({ "x": 1, "y": 2 })).await?;
    // No field of the create is left, but its own dot is.
    if change["clock"] != json!({ (c.id.as_str()): 1, (a.id.as_str()): 1, (b.id.as_str()): 1 }) {
        return broken(format!("the record's clock is {}", change["clock"]));
    }
    let z = d.update(&entity, json!({ "x": 3 })).base(&[(&c.id, 1), (&a.id, 1), (&b.id, 1)]);
    one(&mut d, &z).await?.expect(&z, "applied")?;
    Ok("two blind writes to two fields stand side by side; one that had seen both is `applied`".to_owned())
}

async fn last_writer_wins(world: &World) -> Outcome {
    // Timestamps of the two writers; of equal ones the greater device id wins, and b's is greater.
    const TIMES: [(i64, i64, &str); 3] = [(10, 20, "b"), (20, 10, "a"), (15, 15, "b")];
    let mut c = world.device();
    let creates: Vec<Op> = (0..6).map(|_| c.create(&world.name("e"), json!({ "v": "c" }))).collect();
    c.settle(&creates).await?;
    let (mut a, mut b) = (world.device(), world.device());
    let write = |device: &mut Device<'_>, index: usize, value: &str, at: i64| {
        let seen = [(c.id.as_str(), creates[index].sequence())];
        device.update(creates[index].entity(), json!({ "v": value })).base(&seen).at(world, at)
    };
    let by_a: Vec<Op> = (0..6).map(|index| write(&mut a, index, "a", TIMES[index % 3].0)).collect();
    let by_b: Vec<Op> = (0..6).map(|index| write(&mut b, index, "b", TIMES[index % 3].1)).collect();
    let a_first = a.settle(&by_a[..3]).await?;
    let b_all = b.settle(&by_b).await?;
    let a_last = a.settle(&by_a[3..]).await?;
    for index in 0..6 {
        let winner = TIMES[index % 3].2;
        let (first, early, second, late, writer) = if index < 3 {
            (&a_first, &by_a[index], &b_all, &by_b[index], "b")
        } else {
            (&b_all, &by_b[index], &a_last, &by_a[index], "a")
        };
        first.expect(early, "applied")?;
        second.expect(late, "merged")?;
        let told = second.member(late, "conflict")["fields"]["v"]["winner"].clone();
        let expected = if winner == writer { "ours" } else { "theirs" };
        second.require(told == expected, format!("expected `winner` to be `{expected}` for {}", late.id()))?;
        world.expect_record(creates[index].entity(), &json!({ "v": winner })).await?;
    }
    Ok("later, earlier and equal timestamps, each in both orders of arrival".to_owned())
}

async fn future_clamped(world: &World) -> Outcome {
    const YEAR_MILLIS: i64 = 365 * 24 * 60 * 60 * 1000;
    let (c, create) = world.record(json!({ "v": "c" })).await?;
    let entity = create.entity().to_owned();
    let (mut a, mut b) = (world.device(), world.device());
    let ahead = |operation: Op, years: i64| {
        operation.base(&[(&c.id, 1)]).set("timestamp", world.now().plus_millis(years * YEAR_MILLIS).to_string())
    };
    let far = ahead(a.update(&entity, json!({ "v": "a" })), 20);
    let near = ahead(b.update(&entity, json!({ "v": "b" })), 10);
    let settled = one(&mut a, &far).await?;
    let time = millis(&settled.answer.body["server_time"]).unwrap_or(0);
    let changed_at =
        millis(&world.expect_record(&entity, &json!({ "v": "a" })).await?["changed_at"]).unwrap_or(i64::MAX);
    settled.require(changed_at <= time + 60_000, "`changed_at` is more than 60 s ahead of the endpoint's own time")?;
    // Both are clamped to their arrival, so the one that came later is the later one.
    one(&mut b, &near).await?.expect(&near, "merged")?;
    world.expect_record(&entity, &json!({ "v": "b" })).await?;
    Ok("20 years ahead lost to 10 years ahead that arrived later; `changed_at` is within 60 s".to_owned())
}

async fn equal_value(world: &World) -> Outcome {
    for (first, second) in [(5, 2), (2, 5)] {
        let (c, create) = world.record(json!({ "v": 0 })).await?;
        let entity = create.entity().to_owned();
        let (mut a, mut b, mut d) = (world.device(), world.device(), world.device());
        let seen = [(c.id.as_str(), 1)];
        let one_value = a.update(&entity, json!({ "v": 1 })).base(&seen).at(world, first);
        let same_value = b.update(&entity, json!({ "v": 1.0 })).base(&seen).at(world, second);
        let other_value = d.update(&entity, json!({ "v": 2 })).base(&seen).at(world, 3);
        one(&mut a, &one_value).await?.expect(&one_value, "applied")?;
        let settled = one(&mut b, &same_value).await?;
        settled.expect(&same_value, "merged")?;
        settled.require(settled.member(&same_value, "conflict").is_null(), "an equal value is told as a conflict")?;
        let settled = one(&mut d, &other_value).await?;
        settled.expect(&other_value, "merged")?;
        let winner = settled.member(&other_value, "conflict")["fields"]["v"]["winner"].clone();
        settled.require(winner == "theirs", "an earlier value wins over the later of two equal ones")?;
        world.expect_record(&entity, &json!({ "v": 1 })).await?;
    }
    Ok("1 written at 5 s and at 2 s, in either order, beats a 2 written at 3 s".to_owned())
}

async fn conflict_ledger(world: &World) -> Outcome {
    let (c, create) = world.record(json!({ "title": "base" })).await?;
    let entity = create.entity().to_owned();
    let (mut a, mut b, mut d) = (world.device(), world.device(), world.device());
    let seen = [(c.id.as_str(), 1)];
    let theirs = a.update(&entity, json!({ "title": "a" })).base(&seen).at(world, 10);
    one(&mut a, &theirs).await?.expect(&theirs, "applied")?;
    let ours = b.update(&entity, json!({ "title": "b", "more": 1 })).base(&seen).at(world, 20);
    let ours = ours.set("before", json!({ "title": "base" }));
    let settled = one(&mut b, &ours).await?;
    settled.expect(&ours, "merged")?;
    let entry = settled.member(&ours, "conflict");
    let expected = [
        ("rule", json!("last_writer_wins")),
        ("result", json!("merged")),
        ("entity_type", json!(world.entity_type)),
        ("entity_id", json!(entity)),
        ("operation_id", json!(ours.id())),
        ("device_id", json!(b.id)),
        ("user_id", json!(b.credential.user)),
        ("our_clock", json!({ (c.id.as_str()): 1, (b.id.as_str()): 1 })),
        ("their_clock", json!({ (c.id.as_str()): 1, (a.id.as_str()): 1 })),
    ];
    for (member, value) in &expected {
        settled
            .require(same(&entry[member], value), format!("expected `{member}` of the ledger entry to be {value}"))?;
    }
    let title = json!({ "base": "base", "ours": "b", "theirs": "a", "winner": "ours" });
    settled.require(same(&entry["fields"]["title"], &title), format!("expected the field's entry to be {title}"))?;
    let names = entry["fields"].as_object().map_or(0, serde_json::Map::len);
    // `more` is unseen of nobody: its setter is the create.
    settled.require(names == 1, "only the field in conflict is told")?;
    let is_told = |member: &str| entry[member].as_str().is_some_and(|text| !text.is_empty());
    settled.require(is_told("id") && is_told("decided_at"), "the entry has no id or no time")?;
    let again = one(&mut b, &ours).await?;
    again.expect_repeated(&ours, "merged")?;
    again.require(again.member(&ours, "conflict") == entry, "a repetition tells another entry, or none")?;

    let loser = d.update(&entity, json!({ "title": "d" })).base(&seen).at(world, 5);
    let settled = one(&mut d, &loser).await?;
    settled.expect(&loser, "merged")?;
    let title = settled.member(&loser, "conflict")["fields"]["title"].clone();
    let expected = json!({ "ours": "d", "theirs": "b", "winner": "theirs" });
    settled.require(same(&title, &expected), format!("expected the field's entry to be {expected}"))?;
    world.expect_record(&entity, &json!({ "title": "b", "more": 1 })).await?;
    Ok("a winner and a loser were told with both values and clocks; the entry repeats under its id".to_owned())
}

async fn create_of_live(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "x": 1, "keep": true })).at(world, 10);
    one(&mut a, &create).await?.expect(&create, "applied")?;
    let (mut b, mut d) = (world.device(), world.device());
    let later = b.create(create.entity(), json!({ "x": 2, "y": 3 })).at(world, 20);
    let earlier = d.create(create.entity(), json!({ "x": 4 })).at(world, 5);
    for (device, operation, winner) in [(&mut b, &later, "ours"), (&mut d, &earlier, "theirs")] {
        let settled = one(device, operation).await?;
        settled.expect(operation, "merged")?;
        let told = settled.member(operation, "conflict")["fields"]["x"]["winner"].clone();
        settled.require(told == winner, format!("expected `winner` of x to be `{winner}`"))?;
    }
    let record = json!({ "x": 2, "y": 3, "keep": true });
    world.expect_record(create.entity(), &record).await?;
    Ok("a later create won its fields and left the others; an earlier one lost".to_owned())
}

async fn null_removes(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "x": 1, "y": { "deep": 1, "gone": 2 }, "n": null })).await?;
    let update = a.update(create.entity(), json!({ "x": null, "y": { "deep": 2 } })).base(&[(&a.id, 1)]);
    one(&mut a, &update).await?.expect(&update, "applied")?;
    world.expect_record(create.entity(), &json!({ "y": { "deep": 2 } })).await?;
    Ok("a field was removed by null, an object replaced whole".to_owned())
}

async fn missing_record(world: &World) -> Outcome {
    let mut a = world.device();
    let entity = world.name("e");
    let unseen = a.update(&entity, json!({ "x": 1 }));
    one(&mut a, &unseen).await?.expect_rejected(&unseen, "not_found")?;
    let seen = a.update(&entity, json!({ "x": 1 })).base(&[(&world.name("d"), 3)]);
    one(&mut a, &seen).await?.expect_rejected(&seen, "gone")?;
    let delete = a.delete(&entity);
    one(&mut a, &delete).await?.expect(&delete, "applied")?;
    world.expect_nothing(&entity).await?;
    Ok("not_found, gone and applied".to_owned())
}

async fn delete_unseen_write(world: &World) -> Outcome {
    let (mut c, create) = world.record(json!({ "x": 1, "y": 1 })).await?;
    let entity = create.entity().to_owned();
    let (mut a, mut b) = (world.device(), world.device());
    let write = a.update(&entity, json!({ "x": 2 })).base(&[(&c.id, 1)]);
    one(&mut a, &write).await?.expect(&write, "applied")?;
    let delete = b.delete(&entity).base(&[(&c.id, 1)]);
    let settled = one(&mut b, &delete).await?;
    settled.expect(&delete, "merged")?;
    let entry = settled.member(&delete, "conflict");
    settled.require(entry["rule"] == "update_wins", "expected the rule update_wins")?;
    let field = &entry["fields"]["x"];
    let told = field["winner"] == "theirs" && same(&field["theirs"], &json!(2));
    settled.require(told, "the write that was not seen is not told")?;
    world.expect_record(&entity, &json!({ "x": 2, "y": 1 })).await?;
    let delete = c.delete(&entity).base(&[(&c.id, 1), (&a.id, 1)]);
    one(&mut c, &delete).await?.expect(&delete, "applied")?;
    world.expect_deleted(&entity).await?;
    Ok("a blind delete lost and was told so; one that had seen everything deleted".to_owned())
}

async fn write_unseen_delete(world: &World) -> Outcome {
    for kind in ["update", "create"] {
        let (mut c, create) = world.record(json!({ "x": 1, "y": 1 })).await?;
        let entity = create.entity().to_owned();
        let delete = c.delete(&entity).base(&[(&c.id, 1)]);
        one(&mut c, &delete).await?.expect(&delete, "applied")?;
        world.expect_deleted(&entity).await?;
        let mut b = world.device();
        let write = b.operation(kind, &entity, Some(json!({ "x": 5 }))).base(&[(&c.id, 1)]);
        let settled = one(&mut b, &write).await?;
        settled.expect(&write, "merged")?;
        let entry = settled.member(&write, "conflict");
        let told = entry["rule"] == "update_wins" && entry["their_deleted"] == true;
        settled.require(told, "the deletion that was not seen is not told")?;
        world.expect_record(&entity, &json!({ "x": 5, "y": 1 })).await?;
    }
    Ok("an update and a create that had not seen the delete revived the record and were told so".to_owned())
}

async fn seen_tombstone(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "x": 1, "y": 1 })).await?;
    let entity = create.entity().to_owned();
    let delete = a.delete(&entity).base(&[(&a.id, 1)]);
    one(&mut a, &delete).await?.expect(&delete, "applied")?;
    let before = world.see(&entity).await?.unwrap_or(Value::Null);
    let mut b = world.device();
    let seen = [(a.id.as_str(), 2)];
    let update = b.update(&entity, json!({ "x": 2 })).base(&seen);
    one(&mut b, &update).await?.expect_rejected(&update, "gone")?;
    let again = b.delete(&entity).base(&seen);
    one(&mut b, &again).await?.expect(&again, "applied")?;
    let after = world.see(&entity).await?.unwrap_or(Value::Null);
    if before["deleted"] != true || before != after {
        return broken("a second delete changed the tombstone");
    }
    let anew = b.create(&entity, json!({ "z": 1 })).base(&seen);
    one(&mut b, &anew).await?.expect(&anew, "applied")?;
    world.expect_record(&entity, &json!({ "z": 1 })).await?;
    // Somebody who saw neither: their field counts as set by the new create.
    let mut d = world.device();
    let blind = d.update(&entity, json!({ "y": 9 })).base(&[(&a.id, 1)]).at(world, 3000);
    let settled = one(&mut d, &blind).await?;
    settled.expect(&blind, "merged")?;
    let told = !settled.member(&blind, "conflict")["fields"]["y"].is_null();
    settled.require(told, "a write into the new life of a record, of one who saw nothing of it, is not told")?;
    Ok("gone, unchanged, replaced; a blind write into the new life was told as a conflict".to_owned())
}
