//! Limits of well-meaning guests. What hostile ones do is in `misbehaving`.

use harness::programs::{self, Objects, reconciles, until_reconcile};
use harness::{Context as _, LogLine, Result, Space, ensure, eventually, test};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

#[test]
fn a_reconcile_that_takes_too_long_is_ended_and_tried_again() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace])
            .idle_after("200ms")
            .limit("reconcileMilliseconds", 300);
        let host = space.host().guest(guest).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("one", &[("sleep", "20000")]).await?;
        let reported = |line: &LogLine| line.is_of("recorder") && line.field("kind") == Some("deadline");
        host.log().wait("the deadline is reported", reported).await?;
        until_reconcile(host.log(), "recorder", "the retry", |seen| seen.attempt == 1).await?;
        assert!(
            host.metrics()
                .await?
                .sum("wasm_operator_guest_traps_total", &[("guest", "recorder"), ("kind", "deadline")])
                >= 1.0
        );
        objects.write_value("one", "short").await?;
        until_reconcile(host.log(), "recorder", "the change", |seen| seen.value.as_deref() == Some("short")).await?;
        host.until_asleep("recorder").await?;
        Ok(())
    })
}

#[test]
fn a_guest_is_held_back_longer_after_each_fault_and_its_keys_wait() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]).limit("reconcileMilliseconds", 100);
        let host = space.host().guest(guest).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("bad", &[("sleep", "20000")]).await?;
        until_reconcile(host.log(), "recorder", "the third attempt", |seen| seen.attempt == 2).await?;
        let bad: Vec<_> =
            reconciles(host.log(), "recorder").into_iter().filter(|seen| seen.key.ends_with("/bad")).collect();
        let waits: Vec<_> = bad.windows(2).map(|pair| (pair[1].at - pair[0].at) / 1_000).collect();
        // 1 s, then 2 s, each less a fifth at most, and the 100 ms of the run itself.
        assert!(waits[0] >= 800 && waits[1] >= 1_600, "{waits:?} ms");
        host.until_state("recorder", &["failed"]).await?;
        objects.write_value("good", "1").await?;
        until_reconcile(host.log(), "recorder", "the other key", |seen| seen.key.ends_with("/good")).await?;
        Ok(())
    })
}

#[test]
fn log_lines_of_a_guest_are_its_own_escaped_and_cut() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]).limit("logLineBytes", 400);
        let host = space.host().guest(guest).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write_value("long", &"x".repeat(2_000)).await?;
        let line =
            host.log().wait("the long line", |line| line.is_of("recorder") && line.message().contains("xxx")).await?;
        assert!(line.message().len() < 500, "{} bytes", line.message().len());
        assert!(host.log().lines(|line| !line.is_json()).is_empty(), "every line is JSON");
        assert_eq!(line.field("controller"), Some("recorder"));
        assert_eq!(line.field("key"), Some(&*format!("{namespace}/long")));
        ensure!(line.field("reconcile_id").is_some(), "no reconcile id in {}", line.text());
        Ok(())
    })
}

#[test]
fn the_memory_limit_holds_for_those_beyond_it_only() -> Result<()> {
    test(async |space| {
        let (from, to) = (space.namespace("a").await?, space.namespace("b").await?);
        let below =
            harness::ring::guest("below", &from, &to).env("HEAP_MEM_SIZE", 20 << 20).limit("memoryBytes", 32 << 20);
        let beyond = programs::guest("beyond", "memory_bomb", &[&from]).limit("memoryBytes", 32 << 20);
        let host = space.host().guests([below, beyond]).start().await?;
        harness::ring::write(space, &from, 1).await?;
        Objects::new(space, &from, "memory_bomb").write_value("object", "1").await?;
        let named = |line: &LogLine| {
            line.is_of("beyond") && line.text().contains("33554432") && line.text().contains("limits.memoryBytes")
        };
        host.log().wait("the message names the limit", named).await?;
        harness::ring::until_nonce(space, &to, 1).await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", "below")]), 0.0);
        Ok(())
    })
}

#[test]
fn a_guest_that_breaks_a_limit_is_reported_once_on_the_hosts_pod() -> Result<()> {
    test(async |space| {
        let (namespace, own) = (space.namespace("a").await?, space.namespace("host").await?);
        let pod = pod(space, &own).await?;
        let pod_environment = [("POD_NAME", &*pod.name_any()), ("POD_NAMESPACE", &own), ("POD_UID", &uid(&pod)?)]
            .map(|(name, value)| format!("{name}={value}"));
        let bomb = programs::guest("bomb", "memory_bomb", &[&namespace]).limit("memoryBytes", 32 << 20);
        let slow = programs::guest("slow", "recorder", &[&namespace]).limit("reconcileMilliseconds", 100);
        let host = space
            .host()
            .guests([bomb, slow])
            .launched_by(["/usr/bin/env".to_owned()].into_iter().chain(pod_environment))
            .start()
            .await?;
        Objects::new(space, &namespace, "memory_bomb").write_value("large", "1").await?;
        Objects::new(space, &namespace, "recorder").write("long", &[("sleep", "20000")]).await?;
        eventually("each guest has broken its limit three times", async || {
            let metrics = host.metrics().await?;
            for guest in ["bomb", "slow"] {
                let times = metrics.sum("wasm_operator_guest_traps_total", &[("guest", guest)]);
                ensure!(times >= 3.0, "`{guest}`: {times}");
            }
            Ok(())
        })
        .await?;
        let events: Api<Event> = Api::namespaced(space.client(), &own);
        let uid = uid(&pod)?;
        let seen = eventually("both are reported", async || {
            let mut seen = events.list(&ListParams::default()).await?.items;
            seen.retain(|event| event.regarding.as_ref().is_some_and(|pod| pod.uid.as_ref() == Some(&uid)));
            ensure!(seen.len() >= 2, "{seen:?}");
            Ok(seen)
        })
        .await?;
        let mut notes: Vec<_> = seen.iter().filter_map(|event| event.note.as_deref()).collect();
        notes.sort_unstable();
        assert_eq!(
            notes,
            [
                "guest `bomb` broke off and is started again after a pause: it used more than 33554432 bytes of linear \
                 memory (`limits.memoryBytes`)",
                "guest `slow` broke off and is started again after a pause: it used more than 100 ms of wall time in one \
                 call (`limits.reconcileMilliseconds`)",
            ],
            "one Event for each, however often it happens"
        );
        for event in &seen {
            assert_eq!((event.reason.as_deref(), event.type_.as_deref()), (Some("GuestBroken"), Some("Warning")));
            assert_eq!(event.reporting_controller.as_deref(), Some("wasm-operator.dev/host"));
        }
        Ok(())
    })
}

/// A Pod as the host's Deployment has it. No kubelet runs it: the host of the test says that it is its own.
async fn pod(space: &Space, namespace: &str) -> Result<Pod> {
    harness::service_account_token(&space.client(), namespace, "wasm-operator").await?;
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "wasm-operator-0" },
        "spec": { "serviceAccountName": "wasm-operator", "containers": [{ "name": "wasm-operator", "image": "wasm-operator" }] },
    }))?;
    Ok(Api::namespaced(space.client(), namespace).create(&PostParams::default(), &pod).await?)
}

fn uid(pod: &Pod) -> Result<String> {
    pod.uid().context("a Pod without a uid")
}

#[test]
fn a_component_that_cannot_even_be_described_within_its_limits_is_refused() -> Result<()> {
    test(async |space| {
        let (from, to) = (space.namespace("a").await?, space.namespace("b").await?);
        let large =
            harness::ring::guest("large", &from, &to).env("HEAP_MEM_SIZE", 20 << 20).limit("memoryBytes", 8 << 20);
        let small = harness::ring::guest("small", &from, &to);
        // Its rights cannot be printed either.
        let host = space.host().guest(small.clone()).start().await?;
        host.write_config(&harness::documents(&[small, large])?)?;
        let refused = |line: &LogLine| {
            line.is_of("large") && line.level() == "ERROR" && line.text().contains("limits.memoryBytes")
        };
        host.log().wait("the refusal names the limit", refused).await?;
        harness::ring::write(space, &from, 1).await?;
        harness::ring::until_nonce(space, &to, 1).await
    })
}
