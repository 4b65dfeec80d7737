//! A real control plane, started from nothing by each test.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use wasm_operator_devel::{ControlPlane, Options, State, User};

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    }
}

async fn create(client: &Client, name: &str) -> Result<ConfigMap> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    Ok(api.create(&PostParams::default(), &config_map(name)).await?)
}

fn runs(pid: u32) -> bool {
    // A zombie has ended; its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn wait_until_gone(pids: impl IntoIterator<Item = u32>) -> Result<()> {
    for pid in pids {
        let gone = async {
            while runs(pid) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .with_context(|| format!("process {pid} still runs"))?;
    }
    Ok(())
}

async fn read_state(path: &Path) -> Result<State> {
    let read = async {
        loop {
            if let Some(state) = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(200), read).await.context("no control plane came up")
}

#[tokio::test]
async fn the_api_server_listens_where_it_is_told_before_and_after_a_restart() -> Result<()> {
    let address = std::net::TcpListener::bind("127.0.0.2:0")?.local_addr()?;
    let options = Options::default().without_controller_manager().listening_on(address);
    let mut control_plane = ControlPlane::start(options).await?;

    assert_eq!(control_plane.apiserver_url(), format!("https://{address}"));
    create(&control_plane.client().await?, "before").await?;
    control_plane.restart_apiserver().await?;
    create(&control_plane.client().await?, "after").await?;

    // Nowhere else.
    assert!(std::net::TcpStream::connect(("127.0.0.1", address.port())).is_err());
    Ok(())
}

#[tokio::test]
async fn rights_are_real_and_each_user_has_its_own() -> Result<()> {
    let account = User::service_account("default", "robot");
    let options = Options::default().without_controller_manager().user(User::new("alice")).user(account.clone());
    let control_plane = ControlPlane::start(options).await?;

    let all: Api<Secret> = Api::all(control_plane.client().await?);
    all.list(&ListParams::default()).await.context("the administrator may list secrets")?;
    for user in ["alice", &account.name] {
        let all: Api<Secret> = Api::all(control_plane.client_for(user).await?);
        let error = all.list(&ListParams::default()).await.err().context("must be refused")?;
        ensure!(error.to_string().contains(user), "the refusal names `{user}`: {error}");
    }
    ensure!(control_plane.kubeconfig_for("bob").is_err());
    control_plane.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_restarted_api_server_keeps_its_address_and_data() -> Result<()> {
    let mut control_plane = ControlPlane::start(Options::default()).await?;
    let (url, client) = (control_plane.apiserver_url(), control_plane.client().await?);
    create(&client, "kept").await?;

    control_plane.stop_apiserver().await?;
    ensure!(create(&client, "lost").await.is_err(), "a stopped server answers nobody");
    control_plane.start_apiserver().await?;
    ensure!(control_plane.apiserver_url() == url);
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    api.get("kept").await?;

    control_plane.kill_apiserver()?;
    control_plane.start_apiserver().await?;
    api.get("kept").await?;
    Ok(())
}

#[tokio::test]
async fn two_control_planes_run_side_by_side() -> Result<()> {
    let options = Options::default().without_controller_manager();
    let (one, two) = tokio::try_join!(ControlPlane::start(options.clone()), ControlPlane::start(options))?;
    create(&one.client().await?, "only-here").await?;
    let api: Api<ConfigMap> = Api::default_namespaced(two.client().await?);
    ensure!(api.get_opt("only-here").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_resume_from_before_a_compaction_is_refused_with_410() -> Result<()> {
    let options = Options::default().without_controller_manager().without_watch_cache();
    let control_plane = ControlPlane::start(options).await?;
    let client = control_plane.client().await?;
    let old = create(&client, "first").await?.metadata.resource_version.context("resourceVersion")?;
    // The newest change stays readable, so the one that is lost must not be the newest.
    create(&client, "second").await?;
    create(&client, "third").await?;
    control_plane.compact_etcd().await?;

    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let outcome = match api.watch(&WatchParams::default(), &old).await {
        Ok(events) => std::pin::pin!(events).next().await.context("an event")?,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(WatchEvent::Error(status)) => ensure!(status.code == 410, "{status:?}"),
        Err(kube::Error::Api(status)) => ensure!(status.code == 410, "{status:?}"),
        other => anyhow::bail!("not refused: {other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn dropping_ends_the_processes_and_removes_the_data() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default().with_scheduler()).await?;
    let (state, directory) = (control_plane.state(), control_plane.directory().to_owned());
    ensure!(state.pids.len() == 4 && state.pids.values().all(|pid| runs(*pid)));
    drop(control_plane);
    ensure!(!state.pids.values().any(|pid| runs(*pid)));
    ensure!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn killing_the_parent_leaves_no_process_and_the_next_run_removes_its_data() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let copy = scratch.path().join("state.json");
    // Renamed when complete, so that nobody reads half of it. The command tells its own id by the file's name.
    let script = r#"cp "$WASM_OPERATOR_DEVEL_STATE" "$1.part"; echo $$ >"$1.pid"; mv "$1.part" "$1"; exec sleep 1000"#;
    let tool = || {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_wasm-operator-devel"));
        // A temporary directory of its own: other tests sweep theirs.
        tool.env("TMPDIR", scratch.path()).stdout(Stdio::null()).arg("run");
        tool
    };
    let mut parent = tool().args(["--", "sh", "-c", script, "sh"]).arg(&copy).spawn()?;
    let state = read_state(&copy).await?;
    let command: u32 = std::fs::read_to_string(scratch.path().join("state.json.pid"))?.trim().parse()?;
    let data = state.kubeconfig.parent().context("a directory")?.to_owned();
    ensure!(data.exists());

    parent.kill()?;
    parent.wait()?;
    wait_until_gone(state.pids.into_values().chain([command])).await?;

    let status = tool().args(["--no-controller-manager", "--", "sh", "-c", "exit 7"]).status()?;
    ensure!(status.code() == Some(7), "the command's exit code is passed on: {status}");
    ensure!(!data.exists(), "what the killed run left is removed");
    Ok(())
}

#[tokio::test]
async fn an_interrupted_run_stops_its_command_and_everything_else() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let copy = scratch.path().join("state.json");
    let script = r#"cp "$WASM_OPERATOR_DEVEL_STATE" "$1.part"; mv "$1.part" "$1"; exec sleep 1000"#;
    let mut parent = Command::new(env!("CARGO_BIN_EXE_wasm-operator-devel"))
        .args(["run", "--no-controller-manager", "--", "sh", "-c", script, "sh"])
        .arg(&copy)
        .spawn()?;
    let state = read_state(&copy).await?;
    rustix::process::kill_process(rustix::process::Pid::from_child(&parent), rustix::process::Signal::INT)?;
    let status = tokio::task::spawn_blocking(move || parent.wait()).await??;
    ensure!(status.code() == Some(130), "{status}");
    ensure!(!state.pids.values().any(|pid| runs(*pid)));
    ensure!(!state.kubeconfig.exists());
    Ok(())
}
