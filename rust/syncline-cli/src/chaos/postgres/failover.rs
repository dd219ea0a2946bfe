//! The primary dies with the link to its standby frozen, and the standby takes over.
//!
//! What was acknowledged meanwhile is lost with an asynchronous standby: devices must notice, and send it again. With a synchronous
//! one nothing may be lost in the first place. The process that writes checkpoints is kept from working until everybody has been
//! at work on the new primary for a while: until then its control file names the timeline of before.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use syncline_testkit::postgres::{Cluster, Durability};

use super::super::stage::{Length, Stage};
use super::super::{end, live};
use super::flood::Flood;
use super::losses::{Losses, missing};
use super::report::Outcome;
use super::{Scene, Slip, elsewhere, judge};
use crate::demo::DemoError;
use crate::demo::backend::{DATABASE, Postgres};
use crate::demo::report::Stopwatch;
use crate::demo::team::pause;

const DEVICES: u8 = 3;
/// Everything is sent again after each failover: there should be no more of it than is needed to see a loss.
const PUSHERS: u64 = 2;
const PACE: Duration = Duration::from_millis(100);
/// A standby that does not follow by then never will.
const PATIENCE_SECONDS: f64 = 60.0;
const GLANCE: Duration = Duration::from_millis(50);

/// What was seen when standbys took over.
#[derive(Default)]
struct Seen {
    losses: Losses,
    /// The control file still named the old timeline when everybody was at work again.
    windows: u64,
}

pub(super) async fn run(scene: &Scene<'_>, synchronous: bool) -> Result<Outcome, DemoError> {
    let postgres = Postgres::start()?;
    let length = Length::Deaths(scene.sizes.failovers);
    let (mut stage, endpoint) = Stage::set(scene.folder, scene.seed, length, Some(&postgres), scene.visible).await?;
    (stage.restores, stage.is_short) = (true, scene.is_sample);
    let flood = Flood::new(&stage, PUSHERS, PACE);
    let waits = synchronous && scene.slip != Some(Slip::Hurry);
    let ((mut devices, endpoint), (last, seen), ()) = tokio::try_join!(
        live(&stage, endpoint, DEVICES),
        fail_over(postgres.cluster, &stage, &flood, waits),
        flood.live(&stage)
    )?;
    let drained = end(&stage, &mut devices, endpoint).await?;
    let mut outcome = judge(scene, &stage, &mut devices, drained, &last.existing(DATABASE)).await?;
    outcome.breaches.extend(flood.judge(&stage.data())?);
    outcome.breaches.extend(verdict(&seen, &stage, synchronous));
    outcome.figures.insert(0, ("failovers", stage.tally().database_kills));
    outcome.figures.extend([
        ("operations of devices that the new primaries lacked", seen.losses.of_devices),
        ("operations of the flood that the new primaries lacked", seen.losses.of_flood),
        ("failovers with work before the next checkpoint", seen.windows),
    ]);
    outcome.figures.extend(flood.figures());
    Ok(outcome)
}

fn verdict(seen: &Seen, stage: &Stage, synchronous: bool) -> Vec<String> {
    let lost = seen.losses.of_devices + seen.losses.of_flood;
    let mut breaches = Vec::new();
    if synchronous && lost > 0 {
        breaches.push(format!("standby: {lost} acknowledged operations were not on the synchronous standby"));
    }
    // A test that tests nothing is none.
    if !synchronous && lost == 0 {
        breaches.push("standby: nothing was lost at all, so nobody had to notice anything".to_owned());
    }
    if seen.windows < stage.tally().database_kills {
        breaches.push("standby: a checkpoint came before anybody was at work on a new primary".to_owned());
    }
    breaches
}

async fn fail_over(
    mut primary: Cluster,
    stage: &Stage,
    flood: &Flood,
    waits: bool,
) -> Result<(Cluster, Seen), DemoError> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ 0xFA11);
    let mut seen = Seen::default();
    while stage.passed() < 1.0 {
        let (before, standby) = elsewhere(move || {
            let standby = primary.standby(Durability::Full);
            (primary, standby)
        })
        .await?;
        let mut before = before;
        if waits {
            before.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
            before.sql("postgres", "SELECT pg_reload_conf()");
        }
        let wanted = if waits { "state = 'streaming' AND sync_state = 'sync'" } else { "state = 'streaming'" };
        until(&before, &format!("SELECT count(*) = 1 FROM pg_stat_replication WHERE {wanted}"), "t").await?;
        stage.note("a standby follows");
        pause(Duration::from_millis(random.random_range(2_000..4_000))).await;

        before.freeze("walsender");
        stage.note("the link is frozen");
        pause(Duration::from_millis(random.random_range(800..2_000))).await;
        before = elsewhere(move || {
            before.kill();
            before
        })
        .await?;
        stage.note("the primary is killed");
        standby.freeze("checkpointer");
        let standby = elsewhere(move || {
            standby.promote();
            standby
        })
        .await?;
        let losses = missing(stage, &standby, DATABASE, flood)?;
        seen.losses += losses;
        stage.note(&format!("the standby is promoted, without {losses:?}"));
        let was = stage.endpoint();
        stage.move_database(standby.existing(DATABASE).url());
        while stage.endpoint() == was {
            pause(GLANCE).await;
        }
        // Everybody comes back while the control file names the timeline of before.
        let decided = "SELECT count(*) FROM syncline.operations";
        let count = standby.sql(DATABASE, decided);
        let differs = format!("SELECT ({decided}) > {count}");
        until(&standby, &differs, "t").await?;
        let timelines =
            "SELECT timeline_id < ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
                         FROM pg_control_checkpoint()";
        seen.windows += u64::from(standby.sql("postgres", timelines) == "t");
        standby.thaw("checkpointer");
        stage.count(|tally| tally.database_kills += 1);
        drop(before);
        primary = standby;
    }
    Ok((primary, seen))
}

async fn until(cluster: &Cluster, statement: &str, wanted: &str) -> Result<(), DemoError> {
    let watch = Stopwatch::start();
    while cluster.sql(DATABASE, statement) != wanted {
        if watch.seconds() > PATIENCE_SECONDS {
            return Err(DemoError::Stuck(format!("it did not come to pass: {statement}")));
        }
        pause(GLANCE).await;
    }
    Ok(())
}
