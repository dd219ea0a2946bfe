//! The day, chapter by chapter. Each chapter arranges an event; whether it happened is read from the files and the lines.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use syncline_server::auth::LEEWAY_SECONDS;

use super::DemoError;
use super::control::{Acknowledged, Command, How, Write};
use super::faults::Weather;
use super::plan::Plan;
use super::team::{Team, pause};

/// Operations given to one `enqueue_all`.
const LIST: usize = 250;

/// What only the one who arranged it can tell.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Story {
    /// Operations written while there was no network, before any reached the server.
    pub(crate) written_offline: u64,
    pub(crate) singles: u64,
    /// The device that was killed.
    pub(crate) killed: String,
    /// Operations that it had delivered, and those that were under way, when it was killed.
    pub(crate) killed_at: u64,
    pub(crate) killed_in_flight: u64,
    /// Operations that it had acknowledged and did not have after it was opened again.
    pub(crate) lost_by_kill: u64,
    /// How often a device asked for a fresh token.
    pub(crate) refreshes: u64,
    /// Manual conflicts that the app resolved.
    pub(crate) resolved: u64,
    /// What the core said about an operation behind the poison form.
    pub(crate) explanation: String,
}

/// Plays the day.
///
/// # Errors
/// A process is gone or does not come to an end.
pub(crate) async fn play(team: &mut Team, plan: &Plan) -> Result<Story, DemoError> {
    let mut story = Story::default();
    morning_offline(team, plan, &mut story).await?;
    flaky_network(team, plan, &mut story).await?;
    expired_token(team, plan, &mut story).await?;
    same_entities(team, plan, &mut story).await?;
    refused_and_poisoned(team, plan, &mut story).await?;
    evening(team).await?;
    Ok(story)
}

/// Everybody writes, nobody has a network.
async fn morning_offline(team: &mut Team, plan: &Plan, story: &mut Story) -> Result<(), DemoError> {
    team.progress.chapter("morning, no network: pins and forms are written");
    // Side by side, as it would be: each device is a process of its own.
    let mut rounds: Vec<_> = plan.shares.iter().map(morning_commands).map(Vec::into_iter).collect();
    loop {
        let round: Vec<Option<Command>> = rounds.iter_mut().map(Iterator::next).collect();
        if round.iter().all(Option::is_none) {
            break;
        }
        let asked = team.devices.iter().zip(round).map(async |(device, command)| match command {
            Some(command) => device.process.ask::<Vec<Acknowledged>>(command).await,
            None => Ok(Vec::new()),
        });
        let answers = futures_util::future::try_join_all(asked).await?;
        for (device, answer) in team.devices.iter_mut().zip(answers) {
            device.acknowledged.extend(answer.into_iter().map(|operation| operation.id));
        }
        for index in team.everyone() {
            team.status(index).await?;
        }
    }
    story.singles = plan.shares.iter().map(|share| share.singles.len() as u64).sum();
    if team.network().requests == 0 {
        story.written_offline = team.devices.iter().map(|device| device.acknowledged.len() as u64).sum();
    }
    Ok(())
}

fn morning_commands(share: &super::plan::Share) -> Vec<Command> {
    let singles = share.singles.chunks(LIST).map(|writes| (writes, How::Single));
    let together = share.together.chunks(LIST).map(|writes| (writes, How::Together));
    let groups = share.transactions.iter().map(|writes| (writes.as_slice(), How::Transaction));
    let all = singles.chain(together).chain(groups);
    all.map(|(writes, how)| Command::Enqueue { writes: writes.to_vec(), how }).collect()
}

/// Everything is delivered over lines that break; the last device is killed in the middle of it.
async fn flaky_network(team: &mut Team, plan: &Plan, story: &mut Story) -> Result<(), DemoError> {
    team.progress.chapter("the network comes and goes; one device dies and comes back");
    let victim = team.devices.len() - 1;
    for device in &team.devices {
        device.line.set_weather(Weather::Flaky);
        device.line.order_one_of_each();
    }
    // The first device believes in a network that is not there.
    team.devices[0].line.set_weather(Weather::Offline);
    // In the middle: a third of its pushes get through.
    let pushes = team.devices[victim].acknowledged.len() / plan.push_limit;
    team.devices[victim].line.hold_after(pushes / 3);
    for index in team.everyone() {
        team.set_network(index, true).await?;
    }
    let offline = async {
        while team.devices[0].line.counts().refused == 0 {
            pause(Duration::from_millis(20)).await;
        }
        team.devices[0].line.set_weather(Weather::Flaky);
        Ok(())
    };
    team.patiently("the first device never tried the network", offline).await?;
    kill_in_mid_drain(team, victim, story).await?;
    team.drained(&team.everyone()).await?;
    // A short queue may be delivered before every fault that was ordered had its turn.
    for index in team.everyone() {
        let mut visit = 0;
        while team.devices[index].line.outstanding() > 0 {
            visit += 1;
            let write = Write::create(
                "pin",
                format!("pin-extra-{index}-{visit}"),
                json!({ "title": "Extra stop", "visit": visit }),
            );
            team.write(index, vec![write], How::Single).await?;
            team.drained(&[index]).await?;
        }
        team.devices[index].line.set_weather(Weather::Clear);
    }
    Ok(())
}

async fn kill_in_mid_drain(team: &mut Team, victim: usize, story: &mut Story) -> Result<(), DemoError> {
    let held = async {
        let mut idle_glances = 0;
        loop {
            let (status, held) = (team.status(victim).await?, team.devices[victim].line.counts().held);
            if held > 0 && status.in_progress > 0 {
                return Ok(status);
            }
            // What is held may be an empty push: it goes, and the next one is held.
            idle_glances = if held > 0 { idle_glances + 1 } else { 0 };
            if idle_glances % 10 == 9 {
                team.devices[victim].line.release();
            }
            team.report_network(victim, &status).await?;
            pause(Duration::from_millis(20)).await;
        }
    };
    let before = team.patiently("no push of the device to be killed came to be held", held).await?;
    team.devices[victim].process.kill().await?;
    team.devices[victim].line.set_weather(Weather::Flaky);
    team.restart(victim).await?;
    let after = team.status(victim).await?;
    let device = &team.devices[victim];
    story.killed = device.name.clone();
    story.killed_at = before.completed;
    story.killed_in_flight = before.in_progress;
    story.lost_by_kill = (device.acknowledged.len() as u64).saturating_sub(after.enqueued);
    team.set_network(victim, true).await
}

/// The second device's token has ended meanwhile: it hears 401 and asks for a fresh one.
async fn expired_token(team: &mut Team, plan: &Plan, story: &mut Story) -> Result<(), DemoError> {
    team.progress.chapter("a token expires");
    team.sync(&team.everyone()).await?;
    // Good for two seconds, with the leeway that the endpoint gives.
    team.give_token(1, 2 - LEEWAY_SECONDS).await?;
    team.sync(&[1]).await?;
    pause(Duration::from_millis(2_050)).await;
    let stop = Write::update("pin", &plan.pins[4], json!({ "note": "Gate locked, key at the office" }));
    team.write(1, vec![stop], How::Single).await?;
    team.sync(&[1]).await?;
    story.refreshes = team.status(1).await?.refreshes;
    team.sync(&team.everyone()).await
}

/// Two devices without a network change the same entities: one merge, two true conflicts, a delete against an update.
async fn same_entities(team: &mut Team, plan: &Plan, story: &mut Story) -> Result<(), DemoError> {
    team.progress.chapter("afternoon: two devices change the same pins and the same form");
    let [merge, clash, deleted, ..] = &plan.pins;
    for index in [0, 1] {
        team.set_network(index, false).await?;
    }
    let tablet = vec![
        Write::update("pin", merge, json!({ "note": "Fence repaired" })),
        Write::update("pin", clash, json!({ "title": "Main gate" })),
        Write::update("form", &plan.form, json!({ "damage": "Minor" })),
        Write::delete("pin", deleted),
    ];
    let phone = vec![
        Write::update("pin", merge, json!({ "status": "open" })),
        Write::update("pin", clash, json!({ "title": "North gate" })),
        Write::update("form", &plan.form, json!({ "damage": "Substantial" })),
        Write::update("pin", deleted, json!({ "note": "Needed again in spring" })),
    ];
    team.write(0, tablet, How::Single).await?;
    team.write(1, phone, How::Single).await?;
    for index in [0, 1] {
        team.set_network(index, true).await?;
        team.sync(&[index]).await?;
    }
    let value = json!({ "damage": "Substantial", "remarks": "Minor at first sight" });
    story.resolved = team.devices[1].process.ask(Command::Resolve { value }).await?;
    team.sync(&[1, 0]).await
}

/// A transaction that the server refuses, and a poison form that must hold up nothing but its own lane.
async fn refused_and_poisoned(team: &mut Team, plan: &Plan, story: &mut Story) -> Result<(), DemoError> {
    team.progress.chapter("a transaction is refused; a poison form holds up nobody");
    let refused = vec![
        Write::update("pin", &plan.pins[3], json!({ "title": "Inspected" })),
        Write::create("form", "form-refused", json!({ "place": "Depot", "date": "yesterday" })),
        Write::create("form", "form-refused-too", json!({ "place": "Depot", "date": "2002-07-25" })),
    ];
    team.write(1, refused, How::Transaction).await?;
    let last = team.devices.len() - 1;
    team.set_network(last, false).await?;
    let poison = vec![
        Write::create("form", "form-poison", json!({ "place": "Hangar 3", "date": "2002-07-25", "cost": "a lot" })),
        Write::create("form", "form-neighbour", json!({ "place": "Hangar 4", "date": "2002-07-25", "cost": 12 })),
        Write::create("pin", "pin-neighbour", json!({ "title": "Hangar 4" })),
    ];
    team.write(last, poison, How::Single).await?;
    team.set_network(last, true).await?;
    team.sync(&[1, last]).await?;
    let behind = vec![Write::update("form", "form-poison", json!({ "remarks": "See photo" }))];
    let behind = team.write(last, behind, How::Single).await?.remove(0);
    story.explanation = team.devices[last].process.ask(Command::Explain { operation: behind.clone() }).await?;
    team.devices[last].process.ask(Command::Cancel { operation: behind }).await
}

/// Everybody delivers what is left, then pulls what the others delivered.
async fn evening(team: &mut Team) -> Result<(), DemoError> {
    team.progress.chapter("evening: everybody catches up");
    let everyone = team.everyone();
    team.sync(&everyone).await?;
    team.sync(&everyone).await
}
