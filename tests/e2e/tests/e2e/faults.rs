//! The network, the API server and the rights fail, and come back: no change is lost, and no guest is woken for nothing.

use std::time::Duration;

use harness::programs::{self, Objects, reconciles, until_reconcile};
use harness::ring::{self, Ring};
use harness::{Host, OwnCluster, Proxy, Result, Space, ensure, eventually_within, test};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::DeleteParams;
use wasm_operator_devel::Options;

const CRD: &str = "testresources.ring.wasm-operator.dev";

/// A recorder behind a proxy, with three objects that it has seen.
struct Recorder {
    host: Host,
    proxy: Proxy,
    objects: Objects,
}

impl Recorder {
    async fn new(space: &Space, arguments: &[&str]) -> Result<Self> {
        let namespace = space.namespace("a").await?;
        let proxy = Proxy::start(space.cluster().server()?).await?;
        let mut builder = space
            .host()
            .guest(programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms"))
            .through(&proxy);
        for argument in arguments {
            builder = builder.argument(*argument);
        }
        let host = builder.start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        for name in ["changed", "deleted", "same"] {
            objects.write_value(name, "before").await?;
            until_reconcile(host.log(), "recorder", name, |seen| seen.key.ends_with(name)).await?;
        }
        host.until_asleep("recorder").await?;
        Ok(Self { host, proxy, objects })
    }

    /// Changes, creates and deletes.
    async fn disturb(&self) -> Result<()> {
        self.objects.write_value("changed", "after").await?;
        self.objects.write_value("new", "after").await?;
        self.objects.delete("deleted").await
    }

    /// Waits until all that is reconciled, and checks that nothing else is.
    async fn recovers(&self, log: &harness::Log) -> Result<()> {
        for name in ["changed", "new"] {
            until_reconcile(log, "recorder", name, |seen| {
                seen.key.ends_with(name) && seen.value.as_deref() == Some("after")
            })
            .await?;
        }
        let gone = until_reconcile(log, "recorder", "the deletion", |seen| {
            seen.key.ends_with("deleted") && seen.uid.is_none()
        })
        .await?;
        assert_eq!(gone.deleted.len(), 1, "the tombstone: {gone:?}");
        self.objects.write_value("marker", "after").await?;
        until_reconcile(log, "recorder", "the marker", |seen| seen.key.ends_with("marker")).await?;
        let all = reconciles(log, "recorder");
        assert!(
            all.iter().all(|seen| !seen.key.ends_with("same")),
            "an object that did not change was reconciled: {all:?}"
        );
        Ok(())
    }

    async fn restarts(&self, cause: &str) -> Result<f64> {
        Ok(self.host.metrics().await?.sum("wasm_operator_watch_restarts_total", &[("cause", cause)]))
    }
}

#[test]
fn changes_during_a_cut_connection_are_seen_after_it() -> Result<()> {
    test(async |space| {
        let recorder = Recorder::new(space, &[]).await?;
        let log = recorder.host.log().mark();
        recorder.proxy.refuse();
        recorder.disturb().await?;
        assert!(reconciles(&log, "recorder").is_empty());
        recorder.proxy.pass();
        recorder.recovers(&log).await
    })
}

#[test]
fn a_silent_connection_is_noticed_and_replaced() -> Result<()> {
    test(async |space| {
        // The default of 75 s is right for a server that sends a bookmark each minute.
        let recorder = Recorder::new(space, &["--watch-silence", "10"]).await?;
        let log = recorder.host.log().mark();
        recorder.proxy.freeze_open();
        recorder.disturb().await?;
        recorder.recovers(&log).await?;
        assert!(recorder.restarts("silent").await? >= 1.0);
        Ok(())
    })
}

#[test]
fn a_slow_connection_delays_and_loses_nothing() -> Result<()> {
    test(async |space| {
        let recorder = Recorder::new(space, &[]).await?;
        let log = recorder.host.log().mark();
        recorder.proxy.delay(Duration::from_millis(150));
        recorder.disturb().await?;
        recorder.recovers(&log).await
    })
}

#[test]
fn the_host_survives_a_restart_of_the_api_server() -> Result<()> {
    test(async |space| {
        let mut own = OwnCluster::start("apiserver-restart", Options::default().without_controller_manager()).await?;
        let space = space.on(own.cluster()).await?;
        let mut recorder = Recorder::new(&space, &[]).await?;
        let log = recorder.host.log().mark();
        own.control_plane.stop_apiserver().await?;
        assert_eq!(recorder.host.get("/livez").await?.0, 200, "a missing API server is no reason to restart the host");
        own.control_plane.start_apiserver().await?;
        recorder.disturb().await?;
        recorder.recovers(&log).await?;
        recorder.host.until_ready().await?;
        recorder.host.assert_alive()
    })
}

#[test]
fn changes_that_the_server_has_forgotten_are_found_by_a_new_list() -> Result<()> {
    test(async |space| {
        // Without its watch cache the API server asks etcd, which has forgotten what came before the compaction.
        let options = Options::default().without_controller_manager().without_watch_cache();
        let own = OwnCluster::start("compaction", options).await?;
        let space = space.on(own.cluster()).await?;
        let recorder = Recorder::new(&space, &[]).await?;
        let log = recorder.host.log().mark();
        recorder.proxy.refuse();
        recorder.disturb().await?;
        own.control_plane.compact_etcd().await?;
        recorder.proxy.pass();
        recorder.recovers(&log).await?;
        assert!(recorder.restarts("expired").await? >= 1.0, "the resume was not answered with 410");
        Ok(())
    })
}

#[test]
fn a_cluster_that_was_restored_from_a_backup_is_seen_as_it_is_now() -> Result<()> {
    test(async |space| {
        let mut own = OwnCluster::start("backup", Options::default().without_controller_manager()).await?;
        let space = space.on(own.cluster()).await?;
        let recorder = Recorder::new(&space, &["--watch-silence", "10"]).await?;
        let backup = own.control_plane.back_up_etcd().await?;
        let log = recorder.host.log().mark();
        recorder.disturb().await?;
        recorder.recovers(&log).await?;
        // Far ahead of the backup, so that a resume does not find its version for a while.
        for value in 0..50 {
            recorder.objects.write_value("marker", &value.to_string()).await?;
        }
        until_reconcile(&log, "recorder", "the last change", |seen| seen.value.as_deref() == Some("49")).await?;
        recorder.host.until_asleep("recorder").await?;

        let log = recorder.host.log().mark();
        own.control_plane.restore_etcd(&backup).await?;
        for name in ["changed", "deleted"] {
            until_reconcile(&log, "recorder", name, |seen| {
                seen.key.ends_with(name) && seen.value.as_deref() == Some("before")
            })
            .await?;
        }
        for name in ["new", "marker"] {
            let gone =
                until_reconcile(&log, "recorder", name, |seen| seen.key.ends_with(name) && seen.uid.is_none()).await?;
            assert_eq!(gone.deleted.len(), 1, "the tombstone: {gone:?}");
        }
        assert!(recorder.restarts("silent").await? >= 1.0, "it was noticed in another way than by the silence");
        // The new history has lower versions than what was seen before it.
        recorder.objects.write_value("changed", "after the restore").await?;
        until_reconcile(&log, "recorder", "the change", |seen| seen.value.as_deref() == Some("after the restore"))
            .await?;
        recorder.host.until_ready().await
    })
}

#[test]
fn a_kind_may_come_late_vanish_and_come_back() -> Result<()> {
    test(async |space| {
        let own = OwnCluster::start("kind", Options::default().without_controller_manager()).await?;
        let space = space.on(own.cluster()).await?;
        let ring = Ring::new(&space, 2).await?;
        let host = space.host().guests(ring.guests()).start().await?;
        let waits = |line: &harness::LogLine| line.is_of("ring-0") && line.text().contains("does not serve the kind");
        host.log().wait("the watch waits for the kind", waits).await?;
        own.cluster().install_ring().await?;
        ring.lap(1).await?;

        let kinds: Api<CustomResourceDefinition> = Api::all(space.client());
        let log = host.log().mark();
        kinds.delete(CRD, &DeleteParams::default()).await?;
        log.wait("the watch waits for the kind again", waits).await?;
        harness::until_object(&kinds, CRD, "the kind is gone", |kind| kind.is_none()).await?;
        own.cluster().install_ring().await?;
        // Numbers start again with the kind: the old objects are gone.
        ring.lap(1).await?;
        Ok(())
    })
}

#[test]
fn lost_rights_stop_a_guest_and_restored_rights_start_it_again() -> Result<()> {
    /// The host asks for a guest's right every 45 s.
    const RECHECK: Duration = Duration::from_secs(75);
    test(async |space| {
        let recorder = Recorder::new(space, &[]).await?;
        recorder.host.revoke_rights().await?;
        // The streams that are open stay open at the server: rights are asked for again, and by a new connection.
        recorder.proxy.cut();
        eventually_within(RECHECK, "the watch waits for its right", async || {
            let parked = recorder
                .host
                .log()
                .lines(|line| line.is_of("recorder") && line.text().contains("may not list and watch"));
            ensure!(!parked.is_empty(), "no such line");
            Ok(())
        })
        .await?;
        let log = recorder.host.log().mark();
        recorder.disturb().await?;
        assert!(reconciles(&log, "recorder").is_empty());
        recorder.host.restore_rights().await?;
        eventually_within(RECHECK, "the change is reconciled", async || {
            ensure!(reconciles(&log, "recorder").iter().any(|seen| seen.value.as_deref() == Some("after")), "not yet");
            Ok(())
        })
        .await?;
        recorder.recovers(&log).await
    })
}

#[test]
fn a_host_that_starts_before_the_api_server_waits_for_it() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let proxy = Proxy::start(space.cluster().server()?).await?;
        proxy.refuse();
        let host =
            space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).through(&proxy).start().await?;
        assert_eq!(host.get("/livez").await?.0, 200);
        let (code, reason) = host.get("/readyz").await?;
        assert!(
            code == 503 && reason.contains("[-]api-server failed: the API server has not been reached"),
            "{reason}"
        );
        proxy.pass();
        host.until_ready().await?;
        Objects::new(space, &namespace, "recorder").write_value("one", "1").await?;
        until_reconcile(host.log(), "recorder", "the object", |_| true).await?;
        Ok(())
    })
}

#[test]
fn a_lap_completes_on_a_network_that_breaks_at_every_hop() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 4).await?;
        let proxy = Proxy::start(space.cluster().server()?).await?;
        let host = space.host().guests(ring.guests()).through(&proxy).start().await?;
        ring.lap(1).await?;
        for nonce in 2..=6 {
            ring.send(nonce).await?;
            for namespace in ring.namespaces() {
                proxy.cut();
                ring::until_nonce(space, namespace, nonce).await?;
            }
        }
        host.until_ready().await
    })
}
