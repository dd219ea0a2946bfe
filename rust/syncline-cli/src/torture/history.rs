//! Marks, epochs and copies of a device (spec §4 rule 2, §6).

use serde_json::{Value, json};

use super::Guarantee;
use super::client::Answer;
use super::device::{NOTHING, Settled, push_body};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "mark_counts",
        sentence: "The mark counts every push of a device once, repeated and empty ones too, and no dry run",
        spec: "§6",
        check: |world| Box::pin(mark_counts(world)),
    },
    Guarantee {
        id: "epoch_required",
        sentence: "A push without an epoch, and a push or pull of another one, are answered `server_behind` and do nothing",
        spec: "§6",
        check: |world| Box::pin(epoch_required(world)),
    },
    Guarantee {
        id: "device_forked",
        sentence: "When another copy of the device has written, the whole push answers `device_forked` and nothing of it is applied",
        spec: "§4 rule 2, §6",
        check: |world| Box::pin(device_forked(world)),
    },
    Guarantee {
        id: "fork_goes_on",
        sentence: "A copy with a new device id hears under which dot its operation was applied; what follows in the lane is `deferred` once",
        spec: "§4 rule 1, §6",
        check: |world| Box::pin(fork_goes_on(world)),
    },
];

/// The last one: it renews the epoch of the scope.
pub(super) const RENEWING: Guarantee = Guarantee {
    id: "mark_ahead",
    sentence: "A mark ahead of the endpoint's is answered `server_behind` with a new epoch and the endpoint's mark",
    spec: "§6",
    check: |world| Box::pin(mark_ahead(world)),
};

async fn mark_counts(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "n": 1 }));
    let pushes: [(&str, &[_]); 4] = [("first", &[&create]), ("repeated", &[&create]), ("empty", &[]), ("empty", &[])];
    for (index, (name, batch)) in pushes.into_iter().enumerate() {
        let answer = a.push(batch).await?;
        if answer.status != 200 || answer.body["mark"] != index + 1 {
            return Err(answer.broken(format!("expected the mark {} after the {name} push", index + 1)));
        }
        let dry = a.push_with(&[("dry_run", json!(true))], NOTHING).await?;
        if dry.status != 200 {
            return Err(dry.broken("an empty dry run is not answered"));
        }
    }
    Ok("a first, a repeated and two empty pushes, with a dry run after each, made the mark 4".to_owned())
}

fn expect_behind(answer: &Answer, epoch: &str, mark: u64) -> Result<(), Trouble> {
    answer.expect_problem("server_behind")?;
    if answer.body["epoch"] != epoch || answer.body["mark"] != mark {
        return Err(answer.broken(format!("expected the endpoint's epoch and the mark {mark}")));
    }
    Ok(())
}

async fn epoch_required(world: &World) -> Outcome {
    let (mut a, _) = world.record(json!({ "n": 0 })).await?;
    let epoch = world.epoch().unwrap_or_default();
    let create = a.create(&world.name("e"), json!({ "n": 1 }));
    let mut nowhere = a.envelope();
    nowhere.remove("epoch");
    let body = push_body(&nowhere, &[&create]);
    expect_behind(&a.send(body).await?, &epoch, 1)?;
    for other in [Value::Null, json!("of-another-time")] {
        expect_behind(&a.push_with(&[("epoch", other)], &[&create]).await?, &epoch, 1)?;
    }
    let mut pull = a.pull_body(None, 10, None);
    pull["epoch"] = json!("of-another-time");
    expect_behind(&a.ask(pull).await?, &epoch, 1)?;
    world.expect_nothing(create.entity()).await?;
    a.settle(&[&create]).await?.expect(&create, "applied")?;
    Ok("without, with null and with another epoch; the epoch stayed and nothing was applied".to_owned())
}

async fn device_forked(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "x": 1 })).await?;
    let entity = create.entity().to_owned();
    let update = a.update(&entity, json!({ "x": 2 })).base(&[(&a.id, 1)]);
    a.settle(&[&update]).await?.expect(&update, "applied")?;
    let mut forgetful = world.device();
    let kept = forgetful.create(&world.name("e"), json!({ "x": 1 })).set("sequence", 6);
    let forgets = forgetful.push_with(&[("forgotten_through", json!(5))], &[&kept]).await?;
    Settled::of(forgets, &[&kept])?.expect(&kept, "applied")?;
    let mut copy = a.clone();
    copy.sequence = 10;
    let innocent = world.name("e");
    let used = copy.create(&world.name("e"), json!({ "x": 9 })).set("sequence", 1);
    let unseen = copy.update(&entity, json!({ "x": 9 })).base(&[(&a.id, 1)]);
    let forgotten = forgetful.create(&world.name("e"), json!({ "x": 9 }));
    let cases = [
        ("a sequence used under another key", &copy, used),
        ("an own write not seen", &copy, unseen),
        ("a sequence forgotten", &forgetful, forgotten),
    ];
    for (name, device, poison) in cases {
        let mut device = device.clone();
        device.sequence = 20;
        let bystander = device.create(&innocent, json!({ "x": 1 }));
        let answer = device.push(&[&bystander, &poison]).await?;
        if answer.code() != "device_forked" {
            return Err(answer.broken(format!("expected device_forked for {name}")));
        }
        world.expect_nothing(&innocent).await?;
        if poison.entity() != entity {
            world.expect_nothing(poison.entity()).await?;
        }
    }
    world.expect_record(&entity, &json!({ "x": 2 })).await?;
    Ok("a used sequence, an own write not seen and a forgotten sequence; an innocent create beside each did not apply"
        .to_owned())
}

async fn fork_goes_on(world: &World) -> Outcome {
    let (a, create) = world.record(json!({ "x": 1 })).await?;
    let mut copy = world.device();
    copy.sequence = a.sequence;
    let update = copy.update(create.entity(), json!({ "x": 2 }));
    let behind = update.clone().base(&[(&copy.id, 1)]);
    let settled = copy.settle(&[&create, &behind]).await?;
    settled.expect_repeated(&create, "applied")?;
    let dot = (settled.member(&create, "device_id"), settled.member(&create, "sequence"));
    settled.require(dot == (json!(a.id), json!(1)), "the dot under which it was applied is not told")?;
    settled.expect(&behind, "deferred")?;
    let anew = update.base(&[(&a.id, 1)]);
    copy.settle(&[&anew]).await?.expect(&anew, "applied")?;
    world.expect_record(create.entity(), &json!({ "x": 2 })).await?;
    Ok("the copy was told the foreign dot, and its next operation applied on it".to_owned())
}

async fn mark_ahead(world: &World) -> Outcome {
    if world.keep_epoch {
        return Err(Trouble::Skipped("it renews the scope's epoch (--keep-epoch was given)".to_owned()));
    }
    let (mut a, _) = world.record(json!({ "n": 0 })).await?;
    let before = world.epoch().unwrap_or_default();
    let create = a.create(&world.name("e"), json!({ "n": 1 }));
    let answer = a.push_with(&[("mark", json!(7))], &[&create]).await?;
    answer.expect_problem("server_behind")?;
    let after = world.take_epoch(&answer)?;
    world.restart(&after).await;
    if after == before {
        return Err(answer.broken("the epoch is the same as before"));
    }
    if answer.body["mark"] != 1 {
        return Err(answer.broken("expected the endpoint's mark, 1"));
    }
    let late = a.push(&[&create]).await?;
    expect_behind(&late, &after, 1)?;
    world.expect_nothing(create.entity()).await?;
    a.epoch = Some(after);
    a.settle(&[&create]).await?.expect(&create, "applied")?;
    if world.see(create.entity()).await?.is_none() {
        return broken("after the renewal a pull from the start does not bring new changes");
    }
    Ok("the epoch was renewed before the answer; the old one is refused, the new one served".to_owned())
}
