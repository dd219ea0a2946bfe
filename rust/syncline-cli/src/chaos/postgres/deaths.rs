//! The whole server dies of SIGKILL, again and again: what was acknowledged is there afterwards, once.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use syncline_testkit::postgres::Cluster;

use super::super::stage::{Length, Stage};
use super::super::{end, live};
use super::flood::Flood;
use super::report::Outcome;
use super::{Scene, elsewhere, judge};
use crate::demo::DemoError;
use crate::demo::backend::Postgres;
use crate::demo::team::pause;

const DEVICES: u8 = 4;
const PUSHERS: u64 = 4;

pub(super) async fn run(scene: &Scene<'_>) -> Result<Outcome, DemoError> {
    let postgres = Postgres::start()?;
    let length = Length::Deaths(scene.sizes.deaths);
    let (mut stage, endpoint) = Stage::set(scene.folder, scene.seed, length, Some(&postgres), scene.visible).await?;
    stage.is_short = scene.is_sample;
    let Postgres { cluster, database } = postgres;
    let flood = Flood::new(&stage, PUSHERS, Duration::ZERO);
    // The cluster is kept until it has been read.
    let ((mut devices, endpoint), _cluster, ()) =
        tokio::try_join!(live(&stage, endpoint, DEVICES), die(cluster, &stage), flood.live(&stage))?;
    let drained = end(&stage, &mut devices, endpoint).await?;
    let mut outcome = judge(scene, &stage, &mut devices, drained, &database).await?;
    outcome.breaches.extend(flood.judge(&stage.data())?);
    outcome.figures.insert(0, ("deaths of the database", stage.tally().database_kills));
    outcome.figures.extend(flood.figures());
    Ok(outcome)
}

/// Kills it every now and then, and starts it again.
async fn die(mut cluster: Cluster, stage: &Stage) -> Result<Cluster, DemoError> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ 0xDEAD);
    while stage.passed() < 1.0 {
        let (life, gone) = (random.random_range(300..2_000), random.random_range(0..400));
        pause(Duration::from_millis(life)).await;
        cluster = elsewhere(move || {
            cluster.kill();
            cluster
        })
        .await?;
        stage.note("the database is killed");
        pause(Duration::from_millis(gone)).await;
        cluster = elsewhere(move || {
            cluster.resume();
            cluster
        })
        .await?;
        stage.note("the database is back");
        stage.count(|tally| tally.database_kills += 1);
    }
    Ok(cluster)
}
