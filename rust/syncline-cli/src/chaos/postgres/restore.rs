//! A dump of a while ago is restored while everybody is at work: into another cluster, or into the very one it was taken from, where
//! the operator has to say so (docs/operating.md, "Backup, restore, failover").

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use syncline_testkit::postgres::{Cluster, Durability};

use super::super::stage::{Length, Stage};
use super::super::{end, live};
use super::flood::Flood;
use super::losses::{Losses, missing};
use super::report::Outcome;
use super::{Scene, elsewhere, judge};
use crate::demo::DemoError;
use crate::demo::backend::{DATABASE, Postgres};
use crate::demo::team::pause;

const DEVICES: u8 = 3;
/// Everything is sent again after each restore.
const PUSHERS: u64 = 2;
const PACE: Duration = Duration::from_millis(100);
const GLANCE: Duration = Duration::from_millis(50);

pub(super) async fn run(scene: &Scene<'_>) -> Result<Outcome, DemoError> {
    let postgres = Postgres::start()?;
    let length = Length::Deaths(scene.sizes.restores);
    let (mut stage, endpoint) = Stage::set(scene.folder, scene.seed, length, Some(&postgres), scene.visible).await?;
    (stage.restores, stage.is_short) = (true, scene.is_sample);
    let flood = Flood::new(&stage, PUSHERS, PACE);
    let ((mut devices, endpoint), restored, ()) = tokio::try_join!(
        live(&stage, endpoint, DEVICES),
        restore(postgres.cluster, &stage, &flood),
        flood.live(&stage)
    )?;
    let Restored { cluster, database, losses } = restored;
    let drained = end(&stage, &mut devices, endpoint).await?;
    let mut outcome = judge(scene, &stage, &mut devices, drained, &cluster.existing(&database)).await?;
    outcome.breaches.extend(flood.judge(&stage.data())?);
    // A test that tests nothing is none.
    if losses.of_devices == 0 {
        outcome.breaches.push("restore: the dumps lacked nothing, so nobody had to notice anything".to_owned());
    }
    outcome.figures.insert(0, ("restores of a dump", stage.tally().database_kills));
    outcome.figures.extend([
        ("operations of devices that the dumps lacked", losses.of_devices),
        ("operations of the flood that the dumps lacked", losses.of_flood),
    ]);
    outcome.figures.extend(flood.figures());
    Ok(outcome)
}

/// Where the last dump was restored, and what all of them lacked.
struct Restored {
    cluster: Cluster,
    database: String,
    losses: Losses,
}

async fn restore(mut cluster: Cluster, stage: &Stage, flood: &Flood) -> Result<Restored, DemoError> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ 0xBACC);
    let mut database = DATABASE.to_owned();
    let mut losses = Losses::default();
    for turn in 1.. {
        pause(Duration::from_millis(random.random_range(1_500..3_000))).await;
        let was = database;
        let from = was.clone();
        let (back, dump) = elsewhere(move || {
            let dump = cluster.dump(&from);
            (cluster, dump)
        })
        .await?;
        cluster = back;
        stage.note("a dump is taken");
        pause(Duration::from_millis(random.random_range(2_000..4_000))).await;
        let goes_elsewhere = turn % 2 == 1;
        database = format!("{DATABASE}_{turn}");
        let into = database.clone();
        // The old one is gone before the new one is there.
        cluster = elsewhere(move || {
            let cluster = if goes_elsewhere {
                cluster.kill();
                Cluster::start(Durability::Full)
            } else {
                cluster.sql("postgres", &format!("DROP DATABASE \"{was}\" WITH (FORCE)"));
                cluster
            };
            cluster.restore(&into, &dump);
            cluster
        })
        .await?;
        let lacks = missing(stage, &cluster, &database, flood)?;
        losses += lacks;
        stage.note(&format!("the dump is restored, elsewhere: {goes_elsewhere}, without {lacks:?}"));
        if !goes_elsewhere {
            cluster.sql(&database, "SELECT syncline.renew_epochs()");
        }
        let before = stage.endpoint();
        stage.move_database(cluster.existing(&database).url());
        while stage.endpoint() == before {
            pause(GLANCE).await;
        }
        stage.count(|tally| tally.database_kills += 1);
        if stage.passed() >= 1.0 {
            break;
        }
    }
    Ok(Restored { cluster, database, losses })
}
