//! Runtime configuration that is pushed to the side container.

use std::path::Path;
use std::process::Command;

use harness::{Context as _, Result, eventually, target, test_with_nodes};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use wasm_operator_devel::Component;

use super::stage::{Stage, text};

/// Where the ConfigMap is mounted.
const INITIAL: &str = "conf-initial";

/// The side container's program, on loopback.
struct SideContainer {
    port: u16,
    files: std::path::PathBuf,
    process: Component,
}

impl SideContainer {
    /// With `broker` in the ConfigMap that it begins with.
    fn start(directory: &Path) -> Result<Self> {
        let (files, port) = (directory.join("conf"), wasm_operator_devel::free_port()?);
        std::fs::create_dir_all(&files)?;
        std::fs::create_dir_all(directory.join(INITIAL))?;
        std::fs::write(directory.join(INITIAL).join("broker"), "10.0.0.1")?;
        Ok(Self { port, process: Self::run(&files, directory, port)?, files })
    }

    fn run(files: &Path, directory: &Path, port: u16) -> Result<Component> {
        let mut command = Command::new(target()?.join("x86_64-unknown-linux-musl/release/offloader-conf"));
        command
            .env("CONF_DIRECTORY", files)
            .env("CONF_INITIAL", directory.join(INITIAL))
            .env("CONF_PORT", port.to_string());
        Ok(Component::start_command("ow-conf", command, &directory.join("ow-conf.log"))?)
    }

    fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.files.join(name)).with_context(|| format!("no `{name}`"))
    }
}

/// A running flow whose pod has the address of the side container: pods of simulated nodes have none that leads anywhere.
async fn flow(stage: &Stage<'_>) -> Result<(String, String)> {
    let conf = json!({"broker": "10.0.0.1"});
    let spec = json!({"action": "/guest/ping", "image": "i:1", "pushConf": true, "runtimeConf": conf});
    stage.offload("ping", spec).await?;
    let job_id = text(&stage.until_phase("ping", "Running").await?, "jobID");
    let pod = stage.until_pod(&job_id).await?;
    let status = Patch::Merge(json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}));
    stage.api::<Pod>().patch_status(&pod.name_any(), &PatchParams::default(), &status).await?;
    Ok((job_id, pod.name_any()))
}

async fn stage(space: &harness::Space, port: u16) -> Result<Stage<'_>> {
    Stage::with(space, |guest| {
        let hosts = vec![format!("http://127.0.0.0/8:{port}")];
        guest.env("OW_OFFLOAD_IMAGE", "conf:1").env("CONF_SERVICE_PORT", port).set("allowedHosts", hosts)
    })
    .await
}

#[test]
fn a_pushed_value_reaches_the_file_at_once_and_restarts_nothing() -> Result<()> {
    test_with_nodes(async |space| {
        let container = SideContainer::start(space.directory())?;
        let stage = stage(space, container.port).await?;
        let (job_id, pod) = flow(&stage).await?;
        stage.patch("ping", json!({"runtimeConf": {"broker": "10.0.0.2", "topic": "t"}})).await?;
        eventually("both values are there", async || {
            let values = (container.read("broker")?, container.read("topic")?);
            harness::ensure!(values == ("10.0.0.2".to_owned(), "t".to_owned()), "{values:?}");
            Ok(())
        })
        .await?;
        stage
            .until("ping", "both are known to be there", |data| data["status"]["pushedConf"]["topic"].is_string())
            .await?;
        assert_eq!(stage.until_pod(&job_id).await?.name_any(), pod, "the same pod of the same Job");
        Ok(())
    })
}

#[test]
fn what_cannot_be_pushed_is_told_and_pushed_when_the_side_container_is_back() -> Result<()> {
    test_with_nodes(async |space| {
        let mut container = SideContainer::start(space.directory())?;
        let stage = stage(space, container.port).await?;
        flow(&stage).await?;
        container.process.kill();

        stage.patch("ping", json!({"runtimeConf": {"broker": "10.0.0.2"}})).await?;
        let message = stage.until_condition("ping", "ConfApplied", "False", "PushFailed").await?;
        assert!(message.contains(&container.port.to_string()), "{message}");
        assert_eq!(container.read("broker")?, "10.0.0.1");

        container.process = SideContainer::run(&container.files, space.directory(), container.port)?;
        stage.until_condition("ping", "ConfApplied", "True", "Applied").await?;
        assert_eq!(container.read("broker")?, "10.0.0.2");
        Ok(())
    })
}
