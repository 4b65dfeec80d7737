//! Flows that run cost nothing.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use harness::{Result, test_with_nodes};
use serde_json::json;

use super::stage::{GUEST, Stage};

/// Longer than anything that Kubernetes does now and then to pods that only run.
const QUIET: Duration = Duration::from_secs(20);

#[test]
fn running_flows_wake_nobody() -> Result<()> {
    stay_asleep(20, QUIET)
}

#[test]
#[ignore = "takes eleven minutes; run it by its name with `--ignored`"]
fn a_hundred_running_flows_wake_nobody_in_ten_minutes() -> Result<()> {
    stay_asleep(100, Duration::from_secs(600))
}

fn stay_asleep(flows: usize, quiet: Duration) -> Result<()> {
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let names: Vec<String> = (0..flows).map(|index| format!("flow-{index}")).collect();
        let spec = json!({"action": "/guest/ping", "image": "i:1", "service": {"type": "ClusterIP"}});
        let offloads = futures::stream::iter(&names).map(|name| stage.offload(name, spec.clone()));
        offloads.buffer_unordered(4).try_collect::<Vec<_>>().await?;
        for name in &names {
            stage.until_phase(name, "Running").await?;
        }
        stage.host.until_asleep(GUEST).await?;
        let before = stage.host.wakes_of(GUEST).await?;
        // Nothing happens for so long: that is the behaviour.
        tokio::time::sleep(quiet).await;
        assert_eq!(stage.host.wakes_of(GUEST).await?, before);
        Ok(())
    })
}
