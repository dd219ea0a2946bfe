//! Lanes and transactions: order, deferral, all or none (spec §2, §5, §6, §9.3, §9.4, §9.6).

use futures_util::future::try_join;
use serde_json::{Value, json};

use super::Guarantee;
use super::device::{Op, same};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "lane_order",
        sentence: "The operations of a lane take effect in sequence order, within a push and across pushes",
        spec: "§2, §9.3",
        check: |world| Box::pin(lane_order(world)),
    },
    Guarantee {
        id: "lane_disorder",
        sentence: "A push whose lane is out of order never lets the older operation overwrite the newer one",
        spec: "§2, §9.3",
        check: |world| Box::pin(lane_disorder(world)),
    },
    Guarantee {
        id: "deferred",
        sentence: "What follows an operation without effect, in its lane or by dependency, is `deferred`, which is not stored; other lanes go on",
        spec: "§2, §6, §9.4",
        check: |world| Box::pin(deferred(world)),
    },
    Guarantee {
        id: "transaction_all",
        sentence: "The members of a good transaction all take effect",
        spec: "§5, §9.6",
        check: |world| Box::pin(transaction_all(world)),
    },
    Guarantee {
        id: "transaction_none",
        sentence: "A transaction with one bad member applies none; the culprit has its own code, the others `transaction_failed` and its id, all stored",
        spec: "§5, §9.6",
        check: |world| Box::pin(transaction_none(world)),
    },
    Guarantee {
        id: "transaction_deferred",
        sentence: "If one member of a transaction is `deferred`, all are, and nothing is stored",
        spec: "§5",
        check: |world| Box::pin(transaction_deferred(world)),
    },
    Guarantee {
        id: "transaction_readers",
        sentence: "A reader that pulls meanwhile never sees half of a transaction once its pull has reached the end",
        spec: "§5, §9.6",
        check: |world| Box::pin(transaction_readers(world)),
    },
];

async fn lane_order(world: &World) -> Outcome {
    let mut a = world.device();
    let entity = world.name("e");
    let mut batch = vec![a.create(&entity, json!({ "n": 1 }))];
    for n in 2..=5 {
        batch.push(a.update(&entity, json!({ "n": n, (format!("f{n}")): n })).base(&[(&a.id, n - 1)]));
    }
    let settled = a.settle(&batch).await?;
    for operation in &batch {
        settled.expect(operation, "applied")?;
    }
    for n in 6..=7 {
        let update = a.update(&entity, json!({ "n": n })).base(&[(&a.id, n - 1)]);
        a.settle(&[&update]).await?.expect(&update, "applied")?;
    }
    let last = json!({ "n": 7, "f2": 2, "f3": 3, "f4": 4, "f5": 5 });
    let change = world.expect_record(&entity, &last).await?;
    if change["clock"][&a.id] != 7 {
        return broken(format!("the record's clock is {} after seven operations", change["clock"]));
    }
    Ok("five operations in one push and two more left the last one's value".to_owned())
}

async fn lane_disorder(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "n": 1 })).await?;
    let older = a.update(create.entity(), json!({ "n": 2 })).base(&[(&a.id, 1)]);
    let newer = a.update(create.entity(), json!({ "n": 3 })).base(&[(&a.id, 2)]);
    let answer = a.push(&[newer, older]).await?;
    let change = world.see(create.entity()).await?.unwrap_or(Value::Null);
    if answer.status >= 500 || same(&change["record"]["n"], &json!(2)) {
        return Err(answer.broken(format!("after it the record is {}", change["record"])));
    }
    let how = if answer.status == 200 { "decided" } else { "refused" };
    Ok(format!("a push in the wrong order was {how}; the newer value was not overwritten"))
}

async fn deferred(world: &World) -> Outcome {
    let mut a = world.device();
    let (lane, free, dependent) = (world.name("e"), world.name("e"), world.name("e"));
    let poison = a.update(&lane, json!({ "n": 1 }));
    let behind = a.create(&lane, json!({ "n": 2 }));
    let depends = a.create(&dependent, json!({ "n": 3 })).set("depends_on", vec![poison.id().to_owned()]);
    let other = a.create(&free, json!({ "n": 4 }));
    let settled = a.settle(&[&poison, &behind, &depends, &other]).await?;
    settled.expect_rejected(&poison, "not_found")?;
    settled.expect(&behind, "deferred")?;
    settled.expect(&depends, "deferred")?;
    settled.expect(&other, "applied")?;
    world.expect_nothing(&lane).await?;
    world.expect_nothing(&dependent).await?;
    world.expect_record(&free, &json!({ "n": 4 })).await?;
    let depends = depends.set("depends_on", json!([]));
    let settled = a.settle(&[&behind, &depends]).await?;
    settled.expect(&behind, "applied")?;
    settled.expect(&depends, "applied")?;
    Ok("one of the lane and one by dependency waited and were decided later; another lane went on".to_owned())
}

async fn transaction_all(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "n": 1 })).await?;
    let (tx, fresh) = (world.name("x"), world.name("e"));
    let update = a.update(create.entity(), json!({ "n": 2 })).base(&[(&a.id, 1)]).within(&tx);
    let new = a.create(&fresh, json!({ "n": 2 })).within(&tx);
    let more = a.update(&fresh, json!({ "m": 3 })).base(&[(&a.id, new.sequence())]).within(&tx);
    let batch = [update, new, more];
    let settled = a.settle(&batch).await?;
    for operation in &batch {
        settled.expect(operation, "applied")?;
    }
    let again = a.settle(&batch).await?;
    for operation in &batch {
        again.expect_repeated(operation, "applied")?;
    }
    world.expect_record(create.entity(), &json!({ "n": 2 })).await?;
    world.expect_record(&fresh, &json!({ "n": 2, "m": 3 })).await?;
    Ok("three members, two of one lane, took effect; the group repeats as a whole".to_owned())
}

async fn transaction_none(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "n": 1 })).await?;
    let (tx, fresh, nowhere) = (world.name("x"), world.name("e"), world.name("e"));
    let update = a.update(create.entity(), json!({ "n": 2 })).base(&[(&a.id, 1)]).within(&tx);
    let culprit = a.update(&nowhere, json!({ "n": 2 })).within(&tx);
    let new = a.create(&fresh, json!({ "n": 2 })).within(&tx);
    let batch = [update.clone(), culprit.clone(), new.clone()];
    let settled = a.settle(&batch).await?;
    settled.expect_rejected(&culprit, "not_found")?;
    for operation in [&update, &new] {
        settled.expect_rejected(operation, "transaction_failed")?;
        let names = settled.member(operation, "error")["culprit"] == culprit.id();
        settled.require(names, "`error.culprit` is not the operation at fault")?;
    }
    // A late first request of one member alone finds the stored refusal.
    let alone: Op =
        Op { members: new.members.clone(), payload: new.payload.clone() }.set("transaction_id", Value::Null);
    let late = a.settle(&[&alone]).await?;
    late.expect_repeated(&alone, "rejected")?;
    let again = a.settle(&batch).await?;
    for operation in &batch {
        again.expect_repeated(operation, "rejected")?;
    }
    world.expect_record(create.entity(), &json!({ "n": 1 })).await?;
    world.expect_nothing(&fresh).await?;
    Ok("a group of three with one bad member left everything as it was, and stays refused".to_owned())
}

async fn transaction_deferred(world: &World) -> Outcome {
    let mut a = world.device();
    let (tx, lane, fresh) = (world.name("x"), world.name("e"), world.name("e"));
    let poison = a.update(&lane, json!({ "n": 1 }));
    let new = a.create(&fresh, json!({ "n": 2 })).within(&tx);
    let behind = a.create(&lane, json!({ "n": 2 })).within(&tx);
    let settled = a.settle(&[&poison, &new, &behind]).await?;
    settled.expect(&new, "deferred")?;
    settled.expect(&behind, "deferred")?;
    world.expect_nothing(&fresh).await?;
    let settled = a.settle(&[&new, &behind]).await?;
    settled.expect(&new, "applied")?;
    settled.expect(&behind, "applied")?;
    Ok("a group with one member behind a rejected operation waited as a whole, and was decided later".to_owned())
}

async fn transaction_readers(world: &World) -> Outcome {
    let (one, two) = (world.name("e"), world.name("e"));
    let start = world.head().await?;
    let rounds = 3 * world.rounds as u64;
    let (_, ends) =
        try_join(write_pairs(world, [&one, &two], rounds), read_pairs(world, [&one, &two], &start, rounds)).await?;
    Ok(format!("{rounds} transactions on two entities; a reader came to the end {ends} times and saw them equal"))
}

async fn write_pairs(world: &World, pair: [&str; 2], rounds: u64) -> Result<(), Trouble> {
    let mut writer = world.device();
    for n in 1..=rounds {
        let tx = world.name("x");
        let batch = pair.map(|entity| {
            let before = writer.sequence;
            let operation = if n == 1 {
                writer.create(entity, json!({ "n": n }))
            } else {
                writer.update(entity, json!({ "n": n })).base(&[(&writer.id, before)])
            };
            operation.within(&tx)
        });
        let settled = writer.settle(&batch).await?;
        for operation in &batch {
            settled.expect(operation, "applied")?;
        }
    }
    Ok(())
}

/// Follows with small pages until the last transaction is there. How often it came to an end.
async fn read_pairs(world: &World, pair: [&str; 2], start: &str, rounds: u64) -> Result<usize, Trouble> {
    let reader = world.device();
    let mut cursor = start.to_owned();
    let mut seen = [Value::Null, Value::Null];
    let mut ends = 0;
    // A writer that fails ends the reader with it; one whose changes never come is caught by the count.
    for _ in 0..100 * rounds {
        let page = reader.page(Some(&cursor), 1).await?;
        for change in page.body["changes"].as_array().into_iter().flatten() {
            for (index, entity) in pair.iter().enumerate() {
                if change["entity_id"] == *entity {
                    seen[index] = change["record"]["n"].clone();
                }
            }
        }
        cursor = page.body["cursor"].as_str().unwrap_or_default().to_owned();
        if page.body["has_more"] == true {
            continue;
        }
        ends += 1;
        if !same(&seen[0], &seen[1]) {
            return Err(
                page.broken(format!("at the end of a pull, one member shows {} and the other {}", seen[0], seen[1]))
            );
        }
        if same(&seen[0], &json!(rounds)) {
            return Ok(ends);
        }
    }
    broken("the reader never saw the last transaction")
}
