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
    test_with_nodes(async |space| {
        let stage = Stage::new(space).await?;
        let names: Vec<String> = (0..20).map(|index| format!("flow-{index}")).collect();
        let spec = json!({"action": "/guest/ping", "image": "i:1", "service": {"type": "ClusterIP"}});
        let offloads = futures::stream::iter(&names).map(|name| stage.offload(name, spec.clone()));
        offloads.buffer_unordered(4).try_collect::<Vec<_>>().await?;
        for name in &names {
            stage.until_phase(name, "Running").await?;
        }
        stage.host.until_asleep(GUEST).await?;
        let before = stage.host.wakes_of(GUEST).await?;
        // Nothing happens for so long: that is the behaviour.
        tokio::time::sleep(QUIET).await;
        assert_eq!(stage.host.wakes_of(GUEST).await?, before);
        Ok(())
    })
}
