use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::stage::Stage;
use crate::demo::DemoError;
use crate::demo::child::EndpointProcess;
use crate::demo::report::Stopwatch;
use crate::demo::team::pause;

const PATIENCE_SECONDS: f64 = 60.0;
const GLANCE: Duration = Duration::from_millis(100);

/// The endpoint dies every now and then, and when its database has moved, and comes back on the same data.
pub(super) async fn live(mut endpoint: EndpointProcess, stage: &Stage) -> Result<EndpointProcess, DemoError> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ 0xE4D);
    loop {
        let (life, gone) = (random.random_range(2_000..20_000), random.random_range(0..2_000));
        let must_move = tokio::select! {
            biased;
            () = stage.database_moved.notified() => true,
            () = pause(Duration::from_millis(life)) => false,
        };
        if stage.passed() >= 1.0 && !must_move {
            return Ok(endpoint);
        }
        endpoint.kill().await?;
        stage.note("the endpoint is killed");
        stage.count(|tally| tally.endpoint_kills += 1);
        pause(Duration::from_millis(gone)).await;
        endpoint = start(stage).await?;
        stage.endpoint_moved(endpoint.address);
    }
}

/// Starts it; a database that is away just now comes back soon.
async fn start(stage: &Stage) -> Result<EndpointProcess, DemoError> {
    let watch = Stopwatch::start();
    loop {
        let database = stage.database();
        match EndpointProcess::start(&stage.folder, database.as_deref()).await {
            Err(_) if database.is_some() && watch.seconds() < PATIENCE_SECONDS => pause(GLANCE).await,
            ended => return ended,
        }
    }
}
