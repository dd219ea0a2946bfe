use std::time::Duration;

use rand::RngExt;
use tokio::sync::oneshot;

use super::device::Device;
use super::stage::Stage;
use crate::demo::DemoError;
use crate::demo::child::DeviceProcess;
use crate::demo::control::{Command, How, Reply, Write};
use crate::demo::faults::Weather;
use crate::demo::team::pause;

/// How much of the time has passed when a file is copied.
const COPY_AT: f64 = 0.3;
/// Calls while two processes are on one file.
const CALLS_TOGETHER: u32 = 25;

/// One device writes, goes on and off line, and dies now and then, until the time has passed. With `hand_over`, its file is
/// copied once and the copy handed over.
pub(super) async fn live(
    mut device: Device,
    stage: &Stage,
    mut hand_over: Option<oneshot::Sender<Device>>,
) -> Result<Device, DemoError> {
    while stage.passed() < 1.0 {
        let wait = Duration::from_millis(device.random.random_range(10..120));
        pause(wait).await;
        step(&mut device, stage).await?;
        device.look(stage)?;
        if stage.passed() > COPY_AT
            && let Some(hand_over) = hand_over.take()
        {
            let copy = device.copy(stage).await?;
            // Nobody waits for it only when the run is over.
            let _ = hand_over.send(copy);
        }
    }
    Ok(device)
}

async fn step(device: &mut Device, stage: &Stage) -> Result<(), DemoError> {
    match device.random.random_range(0..1_000) {
        0..60 => device.cancel(stage).await,
        60..110 => device.tend(stage, false).await.map(drop),
        110..140 => {
            let online = device.random.random_ratio(3, 4);
            device.set_online(online).await
        }
        140..165 => {
            device.line.set_weather(weather(device.random.random_range(0..10)));
            Ok(())
        }
        165..172 => device.let_token_expire(stage).await,
        172..182 => {
            device.kill(stage).await?;
            device.start(stage).await
        }
        182..185 => in_company(device, stage).await,
        185..700 => device.write(stage).await,
        _ => Ok(()),
    }
}

fn weather(draw: u32) -> Weather {
    match draw {
        0..2 => Weather::Clear,
        2..4 => Weather::Flaky,
        4..9 => Weather::Storm,
        _ => Weather::Offline,
    }
}

/// A second process works on the same file, and one of the two dies.
async fn in_company(device: &mut Device, stage: &Stage) -> Result<(), DemoError> {
    let second = device.process(stage).await?;
    stage.count(|tally| tally.second_processes += 1);
    stage.note(&format!("{} has a second process", device.name));
    for _ in 0..CALLS_TOGETHER {
        let (one, other) = (device.call(), device.call());
        let (told_one, told_other) = tokio::join!(ask(device.here()?, &one), ask(&second, &other));
        device.told(stage, &one.0, told_one?)?;
        device.told(stage, &other.0, told_other?)?;
        let wait = Duration::from_millis(device.random.random_range(0..60));
        pause(wait).await;
    }
    if device.random.random() {
        // The second one takes over.
        device.kill(stage).await?;
        for _ in 0..CALLS_TOGETHER {
            let call = device.call();
            let reply = ask(&second, &call).await?;
            device.told(stage, &call.0, reply)?;
        }
        second.stop().await?;
        return device.start(stage).await;
    }
    stage.count(|tally| tally.device_kills += 1);
    second.kill().await
}

async fn ask(process: &DeviceProcess, (writes, how): &(Vec<Write>, How)) -> Result<Reply, DemoError> {
    process.try_ask(Command::Enqueue { writes: writes.clone(), how: *how }).await
}
