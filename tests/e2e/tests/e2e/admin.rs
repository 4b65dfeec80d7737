//! The admin endpoint and the log.

use harness::programs::{self, Objects, finished, until_reconcile};
use harness::ring::Ring;
use harness::{Host, OwnCluster, Result, ensure, test};
use wasm_operator_devel::Options;

/// What dashboards are built on: `kubernetes.md` and controller-runtime's own.
const METRICS: &[&str] = &[
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_reconcile_time_seconds_bucket",
    "controller_runtime_max_concurrent_reconciles",
    "controller_runtime_active_workers",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds_bucket",
    "workqueue_work_duration_seconds_bucket",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
    "rest_client_requests_total",
    "rest_client_request_duration_seconds_bucket",
    "wasm_operator_guest_state",
    "wasm_operator_guest_wakes_total",
    "wasm_operator_guest_wake_duration_seconds_bucket",
    "wasm_operator_guest_sleeps_total",
    "wasm_operator_guest_memory_bytes",
    "wasm_operator_guest_resident_seconds_total",
    "wasm_operator_watch_streams",
    "wasm_operator_watch_subscribers",
    "wasm_operator_watch_events_total",
    "wasm_operator_cache_objects",
    "wasm_operator_cache_bytes",
    "wasm_operator_api_calls_total",
];

#[test]
fn the_metrics_have_the_names_that_dashboards_know() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 2).await?;
        let guests = ring.guests().into_iter().map(|guest| guest.idle_after("200ms"));
        let host = space.host().guests(guests).start().await?;
        ring.lap(1).await?;
        host.until_all_asleep(ring.names()).await?;
        let metrics = host.metrics().await?;
        let missing: Vec<_> = METRICS.iter().filter(|name| metrics.names().all(|found| found != **name)).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        for guest in ring.names() {
            let done =
                metrics.sum("controller_runtime_reconcile_total", &[("controller", &guest), ("result", "success")]);
            assert!(done >= 1.0, "`{guest}` has {done} reconciles");
            assert_eq!(metrics.sum("wasm_operator_guest_state", &[("guest", &guest)]), 1.0, "a guest is in one state");
        }
        Ok(())
    })
}

#[test]
fn probes_answer_and_unknown_paths_do_not() -> Result<()> {
    test(async |space| {
        let host = space.host().start().await?;
        host.until_ready().await?;
        assert_eq!(host.get("/livez").await?.0, 200);
        for path in ["/", "/metrics/", "/debug", "/readyz/../metrics", "/%2e%2e/etc/passwd"] {
            assert_eq!(host.get(path).await?.0, 404, "{path}");
        }
        Ok(())
    })
}

#[test]
fn a_host_without_its_api_server_is_alive_and_not_ready() -> Result<()> {
    test(async |space| {
        let mut own = OwnCluster::start("readiness", Options::default().without_controller_manager()).await?;
        let space = space.on(own.cluster()).await?;
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        host.until_ready().await?;
        own.control_plane.stop_apiserver().await?;
        let reason = not_ready(&host).await?;
        assert!(reason.contains("[-]api-server failed: the API server has not answered for "), "{reason}");
        assert!(reason.contains("[+]guests ok"), "the guests are not at fault: {reason}");
        assert_eq!(host.get("/livez").await?.0, 200);
        own.control_plane.start_apiserver().await?;
        host.until_ready().await
    })
}

#[test]
fn a_host_that_drains_is_alive_and_not_ready() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        host.until_ready().await?;
        Objects::new(space, &namespace, "recorder").write("running", &[("sleep", "5000")]).await?;
        until_reconcile(host.log(), "recorder", "the run", |_| true).await?;
        host.terminate()?;
        let reason = not_ready(&host).await?;
        assert!(reason.contains("[-]shutdown failed: the host is stopping"), "{reason}");
        assert_eq!(host.get("/livez").await?.0, 200);
        assert!(finished(host.log(), "recorder").is_empty(), "the reconcile was not under way any more");
        ensure!(host.wait().await?.success(), "the host did not end well");
        assert_eq!(finished(host.log(), "recorder").len(), 1);
        Ok(())
    })
}

/// Waits until the host says that it is not ready, and why.
async fn not_ready(host: &Host) -> Result<String> {
    harness::eventually("the host is not ready", async || {
        let (code, text) = host.get("/readyz").await?;
        ensure!(code == 503, "{code}: {text}");
        Ok(text)
    })
    .await
}

#[test]
fn every_line_of_the_log_is_json_and_none_holds_a_credential() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]);
        let mut host = space.host().guest(guest).argument("--log-level").argument("trace").start().await?;
        Objects::new(space, &namespace, "recorder").write_value("one", "1").await?;
        let written = host.log().wait("the guest's output", |line| line.field("target") == Some("guest")).await?;
        // wasmtime has spans of its own at this level.
        assert_eq!(written.field("guest"), Some("recorder"), "{}", written.text());
        assert_eq!(written.field("controller"), Some("recorder"), "{}", written.text());
        assert_eq!(written.field("key"), Some(&*format!("{namespace}/one")), "{}", written.text());
        ensure!(written.field("reconcile_id").is_some(), "no reconcile id in {}", written.text());
        host.terminate()?;
        ensure!(host.wait().await?.success(), "the host did not end well");
        let token = host.token()?;
        for line in host.log().lines(|_| true) {
            assert!(line.is_json(), "{}", line.text());
            assert!(!line.text().contains(&token), "the host's token is in the log: {}", line.message());
            assert!(line.value("timestamp").is_some() && !line.level().is_empty(), "{}", line.text());
        }
        Ok(())
    })
}
