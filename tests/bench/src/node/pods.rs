//! Pods that run.

use std::time::Duration;

use harness::{Result, bail, eventually_within};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

use super::prepare::{LABEL, Prepared};
use super::repeat::NotBorne;
use super::stage::Stage;

/// How often pods are looked at while they start. The driver's own figures come from a watch.
const LOOK: Duration = Duration::from_secs(1);
/// A hundred pods take some ten seconds to go.
const GONE_PATIENCE: Duration = Duration::from_secs(300);
/// Controllers keep nothing that has to be saved.
const GRACE_SECONDS: u32 = 1;

/// Pods of one repeat.
pub(super) struct Pods {
    api: Api<Pod>,
}

impl Pods {
    /// Creates them.
    pub(super) async fn create(stage: &Stage, prepared: Prepared) -> Result<Self> {
        let pods = Self { api: Api::namespaced(stage.client(), &prepared.namespace) };
        for pod in &prepared.pods {
            pods.api.create(&PostParams::default(), pod).await?;
        }
        Ok(pods)
    }

    /// Returns when a pod has failed: it was restarted, or cannot start.
    pub(super) async fn until_failure(&self) -> Result<()> {
        loop {
            tokio::time::sleep(LOOK).await;
            for status in self.containers().await? {
                if let Some(failure) = failure(&status) {
                    return Err(NotBorne(failure).into());
                }
            }
        }
    }

    /// How often containers were restarted.
    pub(super) async fn restarts(&self) -> Result<i32> {
        Ok(self.containers().await?.iter().map(|status| status.restart_count).sum())
    }

    /// Deletes them and waits until the node has given everything back.
    pub(super) async fn remove(&self) -> Result<()> {
        self.api.delete_collection(&DeleteParams::default().grace_period(GRACE_SECONDS), &ours()).await?;
        eventually_within(GONE_PATIENCE, "the pods are gone", async || {
            let left = self.api.list_metadata(&ours()).await?.items.len();
            if left > 0 {
                bail!("{left} pods are there");
            }
            Ok(())
        })
        .await
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>> {
        let pods = self.api.list(&ours()).await?.items;
        Ok(pods.into_iter().filter_map(|pod| pod.status?.container_statuses).flatten().collect())
    }
}

fn ours() -> ListParams {
    ListParams::default().labels(LABEL)
}

fn failure(status: &ContainerStatus) -> Option<String> {
    let state = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state?.terminated.as_ref()?;
        Some(format!("exit code {} ({})", terminated.exit_code, terminated.reason.as_deref().unwrap_or("no reason")))
    };
    if status.restart_count > 0 {
        let why = state(status.last_state.as_ref()).unwrap_or_default();
        return Some(format!("`{}` was restarted: {why}", status.image));
    }
    if let Some(ended) = state(status.state.as_ref()) {
        return Some(format!("`{}` has ended: {ended}", status.image));
    }
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    // Every pod waits for a moment; these do not end by waiting.
    let stuck = ["ErrImageNeverPull", "CreateContainerError", "CreateContainerConfigError", "RunContainerError"];
    stuck.contains(&reason).then(|| format!("`{}` cannot start: {reason}", status.image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(fields: serde_json::Value) -> ContainerStatus {
        let mut all = json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0 });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_killed_container_says_why() {
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let restarted = status(json!({ "restartCount": 1, "lastState": killed }));
        assert!(failure(&restarted).unwrap().contains("OOMKilled"));
        assert!(failure(&status(json!({ "state": killed }))).unwrap().contains("137"));
    }

    #[test]
    fn a_container_that_starts_has_not_failed() {
        assert_eq!(failure(&status(json!({ "state": { "waiting": { "reason": "ContainerCreating" } } }))), None);
        assert_eq!(failure(&status(json!({ "state": { "running": {} } }))), None);
        assert!(failure(&status(json!({ "state": { "waiting": { "reason": "ErrImageNeverPull" } } }))).is_some());
    }
}
