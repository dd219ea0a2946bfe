//! Exactly once in effect: lost answers, duplicates, keys and voids (spec §6, §9.2).

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::Guarantee;
use super::device::{Device, Op, Settled, same};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "lost_answers",
        sentence: "A push whose answer was lost is answered `already_processed` when it is sent again, and has effect once",
        spec: "§4 rule 1, §6, §9.2",
        check: |world| Box::pin(lost_answers(world)),
    },
    Guarantee {
        id: "cut_connections",
        sentence: "A push whose connection was cut at any moment can be sent again, and has effect once",
        spec: "§6, §9.2",
        check: |world| Box::pin(cut_connections(world)),
    },
    Guarantee {
        id: "parallel_duplicates",
        sentence: "Of eight copies of one push at once, one has effect and all others repeat its verdict",
        spec: "§4 rule 1, §6",
        check: |world| Box::pin(parallel_duplicates(world)),
    },
    Guarantee {
        id: "late_duplicates",
        sentence: "An older request that arrives again after a newer one repeats its verdict and changes nothing",
        spec: "§4 rule 1, §9.3",
        check: |world| Box::pin(late_duplicates(world)),
    },
    Guarantee {
        id: "second_key",
        sentence: "A rejection is final under its key; the same operation under key#2 is decided anew, and both verdicts stay",
        spec: "§2, §6",
        check: |world| Box::pin(second_key(world)),
    },
    Guarantee {
        id: "key_reuse",
        sentence: "A known key with another content is rejected (`idempotency_key_reused`), not stored, and has no effect",
        spec: "§6",
        check: |world| Box::pin(key_reuse(world)),
    },
    Guarantee {
        id: "key_reuse_reveals",
        sentence: "The refusal of a reused key reveals nothing of what the key stands for",
        spec: "§6",
        check: |world| Box::pin(key_reuse_reveals(world)),
    },
    Guarantee {
        id: "void_unknown",
        sentence: "Voiding an unknown key stores `voided`; the late first request finds that verdict and has no effect",
        spec: "§6",
        check: |world| Box::pin(void_unknown(world)),
    },
    Guarantee {
        id: "void_known",
        sentence: "Voiding a known key repeats its verdict and undoes nothing",
        spec: "§6",
        check: |world| Box::pin(void_known(world)),
    },
];

async fn lost_answers(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "title": "mine", "n": 1 }));
    let entity = create.entity().to_owned();
    let body = a.body(&[&create]);
    if !world.client.post_and_hang_up("/v1/push", &a.credential.token, body, None).await? {
        return broken("a push is not answered with 200");
    }
    // Somebody else goes on from there; the repetition must not bring the old value back.
    let mut b = world.device();
    let update = b.update(&entity, json!({ "title": "theirs" })).base(&[(&a.id, create.sequence())]);
    b.settle(&[&update]).await?.expect(&update, "applied")?;
    let before = world.expect_record(&entity, &json!({ "title": "theirs", "n": 1 })).await?;
    for _ in 0..2 {
        let settled = a.settle(&[&create]).await?;
        settled.expect_repeated(&create, "applied")?;
        let record = settled.member(&create, "record");
        settled.require(same(&record, &before["record"]), "a repetition carries the record as it stands")?;
        settled.require(settled.member(&create, "version") == before["version"], "a repetition raised the version")?;
    }
    let after = world.expect_record(&entity, &json!({ "title": "theirs", "n": 1 })).await?;
    if after["version"] != before["version"] {
        return broken(format!("repetitions moved the version from {} to {}", before["version"], after["version"]));
    }
    Ok("the connection was dropped with the answer unread; two repetitions changed nothing".to_owned())
}

async fn cut_connections(world: &World) -> Outcome {
    let mut arrived = 0;
    for round in 0..world.rounds {
        let mut a = world.device();
        let create = a.create(&world.name("e"), json!({ "round": round }));
        let update = a.update(create.entity(), json!({ "more": round })).base(&[(&a.id, create.sequence())]);
        let batch = [create.clone(), update.clone()];
        let body = a.body(&batch);
        world.client.post_half("/v1/push", &a.credential.token, body).await;
        world.expect_nothing(create.entity()).await?;
        let limit = Duration::from_micros(300 * round as u64);
        world.client.post_and_hang_up("/v1/push", &a.credential.token, a.body(&batch), Some(limit)).await?;
        let first = a.settle(&batch).await?;
        let known = batch.iter().filter(|operation| first.status(operation) == "already_processed").count();
        first.require(known == 0 || known == 2, "half of a push was known")?;
        arrived += usize::from(known == 2);
        let again = a.settle(&batch).await?;
        for operation in &batch {
            first.require(first.verdict(operation) == "applied", "the push has no effect")?;
            again.expect_repeated(operation, "applied")?;
        }
        world.expect_record(create.entity(), &json!({ "round": round, "more": round })).await?;
    }
    Ok(format!(
        "{} pushes cut within the body, then after 0 to {} µs; {arrived} of these had arrived",
        world.rounds,
        300 * (world.rounds - 1)
    ))
}

async fn parallel_duplicates(world: &World) -> Outcome {
    const COPIES: usize = 8;
    for round in 0..world.rounds.div_ceil(4) {
        let mut a = world.device();
        let create = a.create(&world.name("e"), json!({ "round": round }));
        let update = a.update(create.entity(), json!({ "more": 1 })).base(&[(&a.id, create.sequence())]);
        let batch = [create.clone(), update.clone()];
        let body = a.body(&batch);
        let answers = try_join_all((0..COPIES).map(|_| a.send(body.clone()))).await?;
        let settled: Vec<Settled> =
            answers.into_iter().map(|answer| Settled::of(answer, &batch)).collect::<Result<_, Trouble>>()?;
        for operation in &batch {
            let mut decided = 0;
            for one in &settled {
                match one.status(operation) {
                    "applied" => decided += 1,
                    "already_processed" => one.expect_repeated(operation, "applied")?,
                    other => return Err(one.answer.broken(format!("`{other}` for a copy"))),
                }
            }
            if decided != 1 {
                return Err(settled[0].answer.broken(format!("{decided} of {COPIES} copies were decided anew")));
            }
        }
        let change = world.expect_record(create.entity(), &json!({ "round": round, "more": 1 })).await?;
        let repeated = settled.iter().find(|one| one.status(&create) == "already_processed");
        if let Some(one) = repeated {
            one.require(one.member(&create, "version") == change["version"], "the copies moved the version")?;
        }
    }
    Ok(format!("{COPIES} copies: one decided, {} repeated", COPIES - 1))
}

async fn late_duplicates(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "title": "first", "n": 1 })).await?;
    let entity = create.entity().to_owned();
    let mut sent = vec![create.clone()];
    for n in 2..=4 {
        let update = a.update(&entity, json!({ "n": n })).base(&[(&a.id, n - 1)]);
        a.settle(&[&update]).await?.expect(&update, "applied")?;
        sent.push(update);
    }
    let before = world.expect_record(&entity, &json!({ "title": "first", "n": 4 })).await?;
    for operation in sent.iter().rev() {
        a.settle(&[operation]).await?.expect_repeated(operation, "applied")?;
    }
    let after = world.expect_record(&entity, &json!({ "title": "first", "n": 4 })).await?;
    if before["version"] != after["version"] {
        return broken("old requests that arrived again moved the version");
    }
    Ok("four pushes of one lane arrived again, last first; the record stayed".to_owned())
}

async fn second_key(world: &World) -> Outcome {
    let entity = world.name("e");
    let (mut a, mut b) = (world.device(), world.device());
    let update = a.update(&entity, json!({ "note": "late" }));
    a.settle(&[&update]).await?.expect_rejected(&update, "not_found")?;
    let create = b.create(&entity, json!({ "title": "there now" }));
    b.settle(&[&create]).await?.expect(&create, "applied")?;
    let repeated = a.settle(&[&update]).await?;
    repeated.expect_repeated(&update, "rejected")?;
    repeated.require(repeated.error(&update) == "not_found", "the stored rejection is repeated with its code")?;
    let record = repeated.member(&update, "record");
    repeated
        .require(same(&record, &json!({ "title": "there now" })), "a repetition carries the record as it stands")?;
    world.expect_record(&entity, &json!({ "title": "there now" })).await?;
    let retried = update.clone().set("idempotency_key", format!("{}#2", update.key())).base(&[(&b.id, 1)]);
    a.settle(&[&retried]).await?.expect(&retried, "applied")?;
    let after = a.settle(&[&retried]).await?;
    after.expect_repeated(&retried, "applied")?;
    a.settle(&[&update]).await?.expect_repeated(&update, "rejected")?;
    world.expect_record(&entity, &json!({ "title": "there now", "note": "late" })).await?;
    Ok("rejected, repeated after the cause was mended, applied under key#2; the first key stays rejected".to_owned())
}

/// The same key on another content, in each way that content can differ.
fn reuses(device: &mut Device<'_>, original: &Op, elsewhere: &str) -> Vec<Op> {
    let mut payload = device.update(original.entity(), json!({ "title": "other" }));
    payload = payload.set("operation", "create");
    let entity = device.create(elsewhere, json!({ "title": "secret-of-the-key" }));
    let kind = device.delete(original.entity());
    let void = device.create(elsewhere, json!({ "title": "void" })).set("void", true);
    [payload, entity, kind, void].map(|operation| operation.set("idempotency_key", original.key())).to_vec()
}

async fn key_reuse(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "title": "secret-of-the-key" })).await?;
    let elsewhere = world.name("e");
    let all = reuses(&mut a, &create, &elsewhere);
    for operation in &all {
        // It has seen everything, so that only the key stands in its way.
        let operation = operation.clone().base(&[(&a.id, create.sequence())]);
        a.settle(&[&operation]).await?.expect_rejected(&operation, "idempotency_key_reused")?;
    }
    world.expect_record(create.entity(), &json!({ "title": "secret-of-the-key" })).await?;
    world.expect_nothing(&elsewhere).await?;
    a.settle(&[&create]).await?.expect_repeated(&create, "applied")?;
    // Not stored: the same sequence under a key of its own is decided.
    let own = all[1].clone().set("idempotency_key", world.name("k"));
    a.settle(&[&own]).await?.expect(&own, "applied")?;
    Ok(format!("{} other contents under one key were rejected; the key kept its verdict", all.len()))
}

async fn key_reuse_reveals(world: &World) -> Outcome {
    let (_, create) = world.record(json!({ "title": "secret-of-the-key" })).await?;
    let mut b = world.device();
    let mut all = reuses(&mut b, &create, &world.name("e"));
    // The ones that name the entity themselves may be told of it; these name another one.
    all.retain(|operation| operation.entity() != create.entity());
    for operation in all {
        let operation = operation.payload(json!({ "title": "guess" }).to_string());
        let settled = b.settle(&[&operation]).await?;
        settled.expect_rejected(&operation, "idempotency_key_reused")?;
        for word in ["secret-of-the-key", create.entity(), create.id()] {
            settled.require(!settled.answer.text.contains(word), "the answer tells what the key stands for")?;
        }
        for member in ["first", "conflict", "device_id", "sequence"] {
            let reveals = settled.member(&operation, member) != Value::Null;
            settled.require(!reveals, format!("the answer tells the `{member}` of the key"))?;
        }
    }
    Ok("neither entity, content, dot nor verdict of the key is told".to_owned())
}

async fn void_unknown(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "title": "withdrawn" }));
    let void = create.clone().set("void", true);
    a.settle(&[&void]).await?.expect_rejected(&void, "voided")?;
    let late = a.settle(&[&create]).await?;
    late.expect_repeated(&create, "rejected")?;
    late.require(late.error(&create) == "voided", "the late first request is not told `voided`")?;
    a.settle(&[&void]).await?.expect_repeated(&void, "rejected")?;
    world.expect_nothing(create.entity()).await?;
    Ok("voided before it arrived; the late first request had no effect".to_owned())
}

async fn void_known(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "title": "stays" })).await?;
    let void = create.clone().set("void", true);
    a.settle(&[&void]).await?.expect_repeated(&void, "applied")?;
    let missing = a.update(&world.name("e"), json!({ "title": "nowhere" }));
    a.settle(&[&missing]).await?.expect_rejected(&missing, "not_found")?;
    let void = missing.clone().set("void", true);
    let settled = a.settle(&[&void]).await?;
    settled.expect_repeated(&void, "rejected")?;
    settled.require(settled.error(&void) == "not_found", "the stored rejection is not repeated")?;
    world.expect_record(create.entity(), &json!({ "title": "stays" })).await?;
    Ok("an applied and a rejected operation were voided afterwards; both verdicts stayed".to_owned())
}
