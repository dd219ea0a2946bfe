//! The change feed and what an answer to a push may leave out (spec §6).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{try_join, try_join_all};
use serde_json::{Value, json};

use super::Guarantee;
use super::device::{NOTHING, Op, Settled, same};
use super::outcome::{Outcome, Trouble, broken};
use super::world::World;

/// Others may write to the scope meanwhile: what needs a quiet moment is tried so often.
const ATTEMPTS: usize = 5;

pub(super) const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        id: "no_gap",
        sentence: "A reader that pages through while others write sees every entity in its last version, in order, and skips none",
        spec: "§6",
        check: |world| Box::pin(no_gap(world)),
    },
    Guarantee {
        id: "dense_versions",
        sentence: "A push raises the scope's version once, by the number of entities that it changed",
        spec: "§6",
        check: |world| Box::pin(dense_versions(world)),
    },
    Guarantee {
        id: "cursor_reset",
        sentence: "A cursor of another type filter, or none at all, is answered with `reset` and the first page from the start",
        spec: "§6",
        check: |world| Box::pin(cursor_reset(world)),
    },
    Guarantee {
        id: "left_out",
        sentence: "Results are left out per entity, all or none, and only where the device can compute the record",
        spec: "§6",
        check: |world| Box::pin(left_out(world)),
    },
    Guarantee {
        id: "push_cursor",
        sentence: "A push's answer carries a cursor only if nothing of others lies before it",
        spec: "§6",
        check: |world| Box::pin(push_cursor(world)),
    },
    Guarantee {
        id: "dry_run",
        sentence: "A dry run gives the verdicts and commits nothing: no key, no mark, no effect, nothing forgotten",
        spec: "§6",
        check: |world| Box::pin(dry_run(world)),
    },
];

async fn no_gap(world: &World) -> Outcome {
    const WRITERS: usize = 4;
    let start = world.head().await?;
    let done = AtomicBool::new(false);
    let writers = async {
        let written = try_join_all((0..WRITERS).map(|_| write(world, world.rounds))).await?;
        done.store(true, Ordering::SeqCst);
        Ok(written)
    };
    let (written, (seen, pages)) = try_join(writers, page_through(world, &start, &done)).await?;
    let expected: BTreeMap<String, Value> = written.into_iter().flatten().collect();
    for (entity, record) in &expected {
        match seen.get(entity) {
            Some(found) if same(found, record) => {}
            Some(found) => return broken(format!("the reader ended with {found} of {entity} instead of {record}")),
            None => return broken(format!("the reader never saw {entity}: it was skipped")),
        }
    }
    Ok(format!("{WRITERS} writers, {} entities, {pages} pages of 1 to 5", expected.len()))
}

/// Creates and updates a few entities, push by push. Their last records.
async fn write(world: &World, rounds: usize) -> Result<BTreeMap<String, Value>, Trouble> {
    let mut device = world.device();
    let mut last = BTreeMap::new();
    let mut older: Option<Op> = None;
    for round in 0..rounds {
        let mut batch: Vec<Op> = (0..3).map(|_| device.create(&world.name("e"), json!({ "n": round }))).collect();
        last.extend(batch.iter().map(|create| (create.entity().to_owned(), json!({ "n": round }))));
        let next = batch[0].clone();
        if let Some(create) = older.replace(next) {
            let seen = [(device.id.clone(), create.sequence())];
            let update = device.update(create.entity(), json!({ "n": -1 })).base(&[(&seen[0].0, seen[0].1)]);
            last.insert(create.entity().to_owned(), json!({ "n": -1 }));
            batch.push(update);
        }
        let settled = device.settle(&batch).await?;
        for operation in &batch {
            settled.expect(operation, "applied")?;
        }
    }
    Ok(last)
}

/// Pages through with limits from 1 to 5 until the writers are done and the end is reached.
async fn page_through(
    world: &World,
    start: &str,
    done: &AtomicBool,
) -> Result<(BTreeMap<String, Value>, u64), Trouble> {
    const MAX_PAGES: u64 = 20_000;
    let reader = world.device();
    let (mut cursor, mut last, mut seen) = (start.to_owned(), 0, BTreeMap::new());
    for pages in 0..MAX_PAGES {
        let is_last = done.load(Ordering::SeqCst);
        let limit = pages % 5 + 1;
        let page = reader.page(Some(&cursor), limit).await?;
        let changes = page.body["changes"].as_array().cloned().unwrap_or_default();
        if changes.len() as u64 > limit {
            return Err(page.broken(format!("more than {limit} changes in a page")));
        }
        for change in changes {
            let version = change["version"].as_u64().unwrap_or(0);
            if version <= last {
                return Err(page.broken(format!("version {version} comes after {last}")));
            }
            last = version;
            seen.insert(change["entity_id"].as_str().unwrap_or_default().to_owned(), change["record"].clone());
        }
        cursor = page.body["cursor"].as_str().unwrap_or_default().to_owned();
        if is_last && page.body["has_more"] != true {
            return Ok((seen, pages + 1));
        }
    }
    broken("the feed never ends")
}

async fn dense_versions(world: &World) -> Outcome {
    let mut exact = false;
    for _ in 0..ATTEMPTS {
        let mut a = world.device();
        let before = a.settle(NOTHING).await?.answer.body["version"].as_u64().unwrap_or(0);
        let batch: Vec<Op> = (0..3).map(|n| a.create(&world.name("e"), json!({ "n": n }))).collect();
        let head = a.settle(&batch).await?.answer.body["version"].as_u64().unwrap_or(0);
        let mut versions = Vec::new();
        for create in &batch {
            let change = world.see(create.entity()).await?.unwrap_or(Value::Null);
            versions.push(change["version"].as_u64().unwrap_or(0));
        }
        versions.sort_unstable();
        // The counter is raised once per push, so even with others about these stand together.
        if versions != [head.saturating_sub(2), head.saturating_sub(1), head] {
            return broken(format!("one push of three entities got the versions {versions:?}, the head being {head}"));
        }
        let repeated = a.settle(&batch).await?.answer.body["version"].as_u64().unwrap_or(0);
        exact = head == before + 3 && repeated == head;
        if exact {
            break;
        }
    }
    if !exact {
        return broken(format!(
            "in {ATTEMPTS} attempts the head never rose by exactly 3 for three entities and by 0 for a repetition"
        ));
    }
    Ok("three entities raised it by 3, their repetition by 0".to_owned())
}

async fn cursor_reset(world: &World) -> Outcome {
    let reader = world.device();
    let cursor = world.head().await?;
    let nothing = world.device().page(Some(&cursor), 5).await?;
    if nothing.body["reset"] == true {
        return Err(nothing.broken("a good cursor is answered with `reset`"));
    }
    let first = reader.ask(reader.pull_body(None, 2, None)).await?;
    let cases = [
        ("a cursor of another filter", cursor.clone()),
        ("a made-up cursor", "made-up".to_owned()),
        ("a cursor cut short", cursor[..cursor.len() / 2].to_owned()),
    ];
    for (name, cursor) in cases {
        let page = reader.ask(reader.pull_body(Some(&cursor), 2, None)).await?;
        if page.status != 200 || page.body["reset"] != true {
            return Err(page.broken(format!("expected `reset` for {name}")));
        }
        if page.body["changes"] != first.body["changes"] {
            return Err(page.broken(format!("the page for {name} is not the first one from the start")));
        }
        let next = page.body["cursor"].as_str().unwrap_or_default();
        let next = reader.ask(reader.pull_body(Some(next), 2, None)).await?;
        if next.status != 200 || next.body["reset"] == true {
            return Err(next.broken("the page after a reset says `reset` again"));
        }
    }
    Ok("another filter, a made-up and a shortened cursor began again, once".to_owned())
}

async fn left_out(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "x": 1 })).await?;
    // No cursor, and a record that was there before: the device cannot compute it.
    let update = a.update(create.entity(), json!({ "x": 2 })).base(&[(&a.id, 1)]);
    let settled = a.settle(&[&update]).await?;
    let told = |settled: &Settled, operation: &Op, record: Value| {
        let is_told = settled.result(operation).is_some() && same(&settled.member(operation, "record"), &record);
        settled.require(is_told, format!("the result of {} is left out, or without its record", operation.id()))
    };
    told(&settled, &update, json!({ "x": 2 }))?;
    // A cursor that the record's last change is not before.
    let stale = world.head().await?;
    let more = a.update(create.entity(), json!({ "y": 1 })).base(&[(&a.id, 2)]);
    a.settle(&[&more]).await?.expect(&more, "applied")?;
    a.cursor = Some(stale);
    let update = a.update(create.entity(), json!({ "x": 3 })).base(&[(&a.id, 3)]);
    let settled = a.settle(&[&update]).await?;
    told(&settled, &update, json!({ "x": 3, "y": 1 }))?;
    // A cursor at the head whose filter lacks the type.
    let filter = a.ask(a.pull_body(None, 5, Some(&["syncline_torture_none"]))).await?;
    a.cursor = filter.body["cursor"].as_str().map(str::to_owned);
    let update = a.update(create.entity(), json!({ "x": 4 })).base(&[(&a.id, 4)]);
    let settled = a.settle(&[&update]).await?;
    told(&settled, &update, json!({ "x": 4, "y": 1 }))?;
    // One of the entity's operations is repeated: all or none.
    a.cursor = Some(world.head().await?);
    let next = a.update(create.entity(), json!({ "x": 5 })).base(&[(&a.id, 5)]);
    let fresh = a.create(&world.name("e"), json!({ "x": 1 }));
    let settled = a.settle(&[&update, &next, &fresh]).await?;
    told(&settled, &update, json!({ "x": 5, "y": 1 }))?;
    told(&settled, &next, json!({ "x": 5, "y": 1 }))?;
    settled.expect(&fresh, "applied")?;
    Ok("without cursor, with a stale one, with one of another filter and beside a repetition, results were told"
        .to_owned())
}

async fn push_cursor(world: &World) -> Outcome {
    let mut given = false;
    for _ in 0..ATTEMPTS {
        let mut a = world.device();
        a.cursor = Some(world.head().await?);
        let create = a.create(&world.name("e"), json!({ "n": 1 }));
        let settled = a.settle(&[&create]).await?;
        settled.expect(&create, "applied")?;
        let Some(cursor) = settled.answer.body["cursor"].as_str() else { continue };
        let page = a.page(Some(cursor), 10).await?;
        let own = page.body["changes"].as_array().into_iter().flatten().any(|c| c["entity_id"] == create.entity());
        if own {
            return Err(page.broken("the device's own change comes back after the push's cursor"));
        }
        given = true;
        break;
    }
    if !given {
        return broken(format!("in {ATTEMPTS} attempts a push at the head was never answered with a cursor"));
    }
    let mut a = world.device();
    a.cursor = Some(world.head().await?);
    let (_, theirs) = world.record(json!({ "n": 2 })).await?;
    let create = a.create(&world.name("e"), json!({ "n": 3 }));
    let settled = a.settle(&[&create]).await?;
    settled.expect(&create, "applied")?;
    if let Some(cursor) = settled.answer.body["cursor"].as_str() {
        let page = a.page(Some(cursor), 100).await?;
        let comes = page.body["changes"].as_array().into_iter().flatten().any(|c| c["entity_id"] == theirs.entity());
        settled.require(comes, "the answer's cursor skips what another device wrote before the push")?;
    }
    Ok("at the head a cursor came that leaves the own change out; behind it none that skips another's".to_owned())
}

async fn dry_run(world: &World) -> Outcome {
    let (mut a, create) = world.record(json!({ "x": 1 })).await?;
    let new = a.create(&world.name("e"), json!({ "x": 2 }));
    let missing = a.update(&world.name("e"), json!({ "x": 2 }));
    let update = a.update(create.entity(), json!({ "x": 2 })).base(&[(&a.id, 1)]);
    let batch = [new.clone(), missing.clone(), update.clone()];
    let dry = [("dry_run", json!(true)), ("forgotten_through", json!(1))];
    let answer = a.push_with(&dry, &batch).await?;
    if !answer.body["mark"].is_null() {
        return Err(answer.broken("a dry run's answer carries a mark"));
    }
    let settled = Settled::of(answer, &batch)?;
    settled.expect(&new, "applied")?;
    settled.expect_rejected(&missing, "not_found")?;
    settled.expect(&update, "applied")?;
    world.expect_nothing(new.entity()).await?;
    world.expect_record(create.entity(), &json!({ "x": 1 })).await?;
    let late = a.push_with(&[("dry_run", json!(true)), ("forgotten_through", json!(90))], NOTHING).await?;
    if late.status != 200 {
        return Err(late.broken("an empty dry run is not answered"));
    }
    let settled = a.settle(&batch).await?;
    settled.expect(&new, "applied")?;
    settled.expect_rejected(&missing, "not_found")?;
    settled.expect(&update, "applied")?;
    Ok("three verdicts were given; the same keys were decided anew afterwards".to_owned())
}
