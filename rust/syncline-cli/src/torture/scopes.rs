//! Who may see what: tokens, users, scopes (spec §6, §9.10).

use serde_json::{Value, json};

use super::Guarantee;
use super::client::{Answer, Credential};
use super::device::{Device, NOTHING, Op};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "auth_required",
        sentence: "Without a token, with a meaningless one or with a forged one, a request is refused with 401 and does nothing",
        spec: "§6",
        check: |world| Box::pin(auth_required(world)),
    },
    Guarantee {
        id: "wrong_scope",
        sentence: "A scope that the token does not open is refused (`wrong_scope`), whether or not it exists",
        spec: "§6, §9.10",
        check: |world| Box::pin(wrong_scope(world)),
    },
    Guarantee {
        id: "wrong_user",
        sentence: "A user id other than the token's is refused (`wrong_user`)",
        spec: "§6",
        check: |world| Box::pin(wrong_user(world)),
    },
    Guarantee {
        id: "wrong_device",
        sentence: "A device id that belongs to another user is refused",
        spec: "§6",
        check: |world| Box::pin(wrong_device(world)),
    },
    Guarantee {
        id: "scope_isolation",
        sentence: "Keys, ids, device ids and cursors of one scope are answered in another one as if nobody had ever used them",
        spec: "§6, §9.10",
        check: |world| Box::pin(scope_isolation(world)),
    },
];

async fn auth_required(world: &World) -> Outcome {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "title": "intruder" }));
    let mut forged = world.user.token.clone();
    // In the middle of the signature every bit counts.
    let at = forged.len().saturating_sub(8);
    let other = if forged[at..].starts_with('A') { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    let cases =
        [("no token", None), ("a meaningless token", Some("garbage")), ("a forged token", Some(forged.as_str()))];
    for (name, token) in cases {
        for (path, body) in
            [("/v1/push", a.body(&[&create])), ("/v1/pull", a.pull_body(None, 10, None).to_string().into_bytes())]
        {
            let answer = world.client.post(path, token, body).await?;
            if answer.status != 401 || answer.code().is_empty() {
                return Err(answer.broken(format!("expected a problem with 401 for {name}")));
            }
        }
    }
    world.expect_nothing(create.entity()).await?;
    Ok("pushes and pulls with no, a meaningless and a forged token were refused".to_owned())
}

/// The answers to a push and a pull that name another user or scope.
async fn probe(world: &World, member: &str, value: &str) -> Result<(Answer, Answer, String), Trouble> {
    let mut a = world.device();
    let create = a.create(&world.name("e"), json!({ "title": "intruder" }));
    let push = a.push_with(&[(member, json!(value))], &[&create]).await?;
    let mut body = a.pull_body(None, 10, None);
    body[member] = json!(value);
    let pull = a.ask(body).await?;
    Ok((push, pull, create.entity().to_owned()))
}

async fn wrong_scope(world: &World) -> Outcome {
    let unknown = world.name("s");
    let mut scopes = vec![unknown];
    scopes.extend(world.other.as_ref().map(|other| other.scope.clone()));
    let mut answers = Vec::new();
    for scope in &scopes {
        let (push, pull, entity) = probe(world, "scope", scope).await?;
        push.expect_problem("wrong_scope")?;
        pull.expect_problem("wrong_scope")?;
        world.expect_nothing(&entity).await?;
        answers.push((push.status, push.body));
    }
    if answers.iter().any(|answer| *answer != answers[0]) {
        return broken("a scope that exists is refused in another way than one that does not");
    }
    Ok(format!(
        "{} refused in the same way",
        if scopes.len() == 2 { "an unknown scope and an existing one were" } else { "an unknown scope was" }
    ))
}

async fn wrong_user(world: &World) -> Outcome {
    let (push, pull, entity) = probe(world, "user_id", &world.name("u")).await?;
    push.expect_problem("wrong_user")?;
    pull.expect_problem("wrong_user")?;
    world.expect_nothing(&entity).await?;
    Ok("a push and a pull in another user's name were refused".to_owned())
}

async fn wrong_device(world: &World) -> Outcome {
    let Some(mate) = &world.mate else {
        return Err(Trouble::Skipped(
            "needs another user of the same scope (--data, or --other-scope like --scope)".to_owned(),
        ));
    };
    let (a, create) = world.record(json!({ "title": "mine" })).await?;
    let mut thief = Device::new(world, mate.clone(), a.id.clone(), world.epoch());
    thief.sequence = a.sequence;
    let update = thief.update(create.entity(), json!({ "title": "stolen" })).base(&[(&a.id, 1)]);
    thief.push(&[update]).await?.expect_problem("wrong_device")?;
    thief.ask(thief.pull_body(None, 10, None)).await?.expect_problem("wrong_device")?;
    world.expect_record(create.entity(), &json!({ "title": "mine" })).await?;
    Ok("another user of the scope could neither push nor pull in the name of the device".to_owned())
}

/// What an answer says, without what differs between any two.
fn normal(mut answer: Answer, names: &[(&str, &str)]) -> String {
    for member in ["server_time", "version", "cursor", "epoch"] {
        if let Some(body) = answer.body.as_object_mut() {
            body.remove(member);
        }
    }
    for result in answer.body["results"].as_array_mut().into_iter().flatten() {
        if result["version"] != 0 {
            result["version"] = json!("some");
        }
    }
    let text = format!("{} {}", answer.status, answer.body);
    names.iter().fold(text, |text, (name, word)| text.replace(name, word))
}

/// A push of a stranger in their scope, under these names, and again.
async fn use_names(stranger: &mut Device<'_>, create: &Op) -> Result<[Answer; 2], Trouble> {
    let first = stranger.push(&[create]).await?;
    Ok([first, stranger.push(&[create]).await?])
}

async fn scope_isolation(world: &World) -> Outcome {
    let Some(other) = &world.other else {
        return Err(Trouble::Skipped(
            "needs a credential of another scope (--other-token, --other-user, --other-scope)".to_owned(),
        ));
    };
    let (a, ours) = world.record(json!({ "title": "ours" })).await?;
    let entry = Device::new(world, other.clone(), world.name("d"), None);
    let page = entry.ask(entry.pull_body(None, 1, None)).await?;
    let epoch = world.take_epoch(&page)?;
    let enter = |id: String| Device::new(world, other.clone(), id, Some(epoch.clone()));

    // The same key with another content, the same ids, the same device: as fresh ones.
    let mut known = enter(a.id.clone());
    known.sequence = a.sequence - 1;
    let reused = known.create(ours.entity(), json!({ "title": "theirs" }));
    let reused = reused.set("idempotency_key", ours.key()).set("id", ours.id());
    let mut fresh = enter(world.name("d"));
    let unknown = fresh.create(&world.name("e"), json!({ "title": "theirs" }));
    let told = use_names(&mut known, &reused).await?;
    let expected = use_names(&mut fresh, &unknown).await?;
    let words = |device: &Device<'_>, operation: &Op| {
        [device.id.clone(), operation.entity().to_owned(), operation.key().to_owned(), operation.id().to_owned()]
    };
    let (known_words, fresh_words) = (words(&known, &reused), words(&fresh, &unknown));
    for (told, expected) in told.iter().zip(&expected) {
        let as_names = |words: &[String; 4], answer: &Answer| {
            let names: Vec<(&str, &str)> = words.iter().map(String::as_str).zip(["D", "E", "K", "O"]).collect();
            normal(answer.clone(), &names)
        };
        if as_names(&known_words, told) != as_names(&fresh_words, expected) {
            return Err(told.broken("names that another scope uses are answered in another way than fresh ones"));
        }
    }
    cursors_and_epochs(world, other, &epoch).await?;
    let change = world.expect_record(ours.entity(), &json!({ "title": "ours" })).await?;
    if change["clock"] != json!({ (a.id.as_str()): ours.sequence() }) {
        return broken("the other scope changed the record's clock");
    }
    remove(&mut known, &reused).await?;
    remove(&mut fresh, &unknown).await?;
    Ok("key, operation id, entity id, device id, cursor and epoch of one scope mean nothing in the other".to_owned())
}

/// A cursor and an epoch of our scope in theirs are as good as made-up ones.
async fn cursors_and_epochs(world: &World, other: &Credential, epoch: &str) -> Result<(), Trouble> {
    let cursor = world.head().await?;
    let device = Device::new(world, other.clone(), world.name("d"), Some(epoch.to_owned()));
    let mut pages = Vec::new();
    for cursor in [cursor.as_str(), "made-up"] {
        let page = device.page(Some(cursor), 3).await?;
        if page.body["reset"] != true {
            return Err(page.broken("a cursor of another scope is not answered with `reset`"));
        }
        pages.push(page);
    }
    if pages[0].body["changes"] != pages[1].body["changes"] {
        return Err(pages[0].broken("a cursor of another scope leads elsewhere than a made-up one"));
    }
    let ours = world.epoch().unwrap_or_default();
    let mut told = Vec::new();
    for epoch in [ours.as_str(), "made-up"] {
        let answer = device.push_with(&[("epoch", json!(epoch)), ("cursor", Value::Null)], NOTHING).await?;
        answer.expect_problem("server_behind")?;
        told.push(normal(answer, &[]));
    }
    if told[0] != told[1] {
        return broken("an epoch of another scope is answered in another way than a made-up one");
    }
    Ok(())
}

/// Takes the traces in the other scope away.
async fn remove(device: &mut Device<'_>, create: &Op) -> Result<(), Trouble> {
    let delete = device.delete(create.entity()).base(&[(&device.id, create.sequence())]);
    device.settle(&[&delete]).await?.expect(&delete, "applied")
}
