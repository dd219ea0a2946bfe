use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::stage::Stage;
use crate::demo::DemoError;
use crate::demo::child::EndpointProcess;
use crate::demo::team::pause;

/// The endpoint dies every now and then, and comes back on the same file.
pub(super) async fn live(mut endpoint: EndpointProcess, stage: &Stage) -> Result<EndpointProcess, DemoError> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ 0xE4D);
    loop {
        let (life, gone) = (random.random_range(2_000..20_000), random.random_range(0..2_000));
        pause(Duration::from_millis(life)).await;
        if stage.passed() >= 1.0 {
            return Ok(endpoint);
        }
        endpoint.kill().await?;
        stage.note("the endpoint is killed");
        stage.count(|tally| tally.endpoint_kills += 1);
        pause(Duration::from_millis(gone)).await;
        endpoint = EndpointProcess::start(&stage.folder, None).await?;
        stage.endpoint_moved(endpoint.address);
    }
}
