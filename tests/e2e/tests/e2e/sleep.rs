//! Guests that sleep: what wakes them, what does not, and what they find when they wake.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use harness::programs::{self, Objects, reconciles, until_reconcile, until_ticks};
use harness::{Context as _, Proxy, Result, ensure, eventually, eventually_within, ring, test};

/// Longer than the minute between two bookmarks.
const A_BOOKMARK: Duration = Duration::from_secs(90);

#[test]
fn creation_update_and_deletion_are_seen_while_asleep() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space
            .host()
            .guest(programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms"))
            .start()
            .await?;
        host.until_asleep("recorder").await?;
        host.until_ready().await?;
        let objects = Objects::new(space, &namespace, "recorder");

        let created = objects.write_value("one", "1").await?;
        let seen =
            until_reconcile(host.log(), "recorder", "the creation", |seen| seen.value.as_deref() == Some("1")).await?;
        assert_eq!((seen.key, seen.cause.as_str(), seen.attempt), (format!("{namespace}/one"), "change", 0));
        host.until_asleep("recorder").await?;

        objects.write_value("one", "2").await?;
        until_reconcile(host.log(), "recorder", "the update", |seen| seen.value.as_deref() == Some("2")).await?;
        host.until_asleep("recorder").await?;

        objects.delete("one").await?;
        let seen = until_reconcile(host.log(), "recorder", "the deletion", |seen| seen.uid.is_none()).await?;
        assert_eq!(seen.deleted, [created.metadata.uid.context("no uid")?]);
        host.until_asleep("recorder").await?;

        assert_eq!(reconciles(host.log(), "recorder").len(), 3);
        assert_eq!(host.wakes_of("recorder").await?, 3.0);
        Ok(())
    })
}

#[test]
fn an_object_deleted_and_created_again_while_asleep_is_seen_as_both() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms");
        let mut host = space.host().guest(guest.clone()).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        let first = objects.write_value("one", "first").await?;
        until_reconcile(host.log(), "recorder", "the first object", |seen| seen.value.as_deref() == Some("first"))
            .await?;

        // Held back, so that both changes are there before the guest wakes.
        host.configure(&[guest.clone().set("suspend", true)]).await?;
        host.until_state("recorder", &["suspended"]).await?;
        objects.delete("one").await?;
        let second = objects.write_value("one", "second").await?;
        objects.write_value("marker", "last").await?;
        let woken = host.log().mark();
        host.configure(&[guest]).await?;

        let seen =
            until_reconcile(&woken, "recorder", "the second object", |seen| seen.value.as_deref() == Some("second"))
                .await?;
        assert_eq!(seen.uid, second.metadata.uid);
        assert_eq!(seen.deleted, [first.metadata.uid.context("no uid")?]);
        until_reconcile(&woken, "recorder", "the marker", |seen| seen.value.as_deref() == Some("last")).await?;
        assert_eq!(reconciles(&woken, "recorder").iter().filter(|seen| seen.key.ends_with("/one")).count(), 1);
        Ok(())
    })
}

#[test]
fn a_thousand_changes_while_asleep_give_one_reconcile_of_the_last_state() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms");
        let mut host = space.host().guest(guest.clone().set("suspend", true)).start().await?;
        host.until_state("recorder", &["suspended"]).await?;
        let objects = Objects::new(space, &namespace, "recorder");

        let changes = futures::stream::iter(1..1_000).map(|change| {
            let objects = objects.clone();
            async move { objects.write_value("one", &change.to_string()).await }
        });
        changes.buffer_unordered(8).try_collect::<Vec<_>>().await?;
        objects.write_value("one", "1000").await?;
        host.configure(&[guest]).await?;

        let seen =
            until_reconcile(host.log(), "recorder", "the last state", |seen| seen.value.as_deref() == Some("1000"))
                .await?;
        // Whatever else there was to do for this object is done before what is queued now.
        objects.write_value("marker", "after").await?;
        until_reconcile(host.log(), "recorder", "the marker", |seen| seen.value.as_deref() == Some("after")).await?;
        let all: Vec<_> = reconciles(host.log(), "recorder").into_iter().filter(|one| one.key == seen.key).collect();
        assert_eq!(all, [seen]);
        Ok(())
    })
}

#[test]
fn a_requeue_wakes_a_sleeping_guest_on_time() -> Result<()> {
    /// The project's bound is 10 ms on an idle machine. Here other tests run beside.
    const LATE: Duration = Duration::from_millis(500);
    const AFTER: Duration = Duration::from_millis(1_500);
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host =
            space.host().guest(programs::guest("timer", "timer", &[&namespace]).idle_after("50ms")).start().await?;
        Objects::new(space, &namespace, "timer").write("one", &[("after", &AFTER.as_millis().to_string())]).await?;

        until_ticks(host.log(), "timer", 1).await?;
        for count in 2..=4 {
            host.until_asleep("timer").await?;
            let ticks = until_ticks(host.log(), "timer", count).await?;
            let [.., last, this] = ticks.as_slice() else { harness::bail!("too few ticks") };
            assert_eq!(this.cause, "timer");
            let gap = Duration::from_micros(this.at - last.at);
            assert!(gap >= AFTER && gap < AFTER + LATE, "called after {gap:?}");
        }
        let metrics = host.metrics().await?;
        assert!(metrics.sum("wasm_operator_guest_wakes_total", &[("guest", "timer"), ("reason", "timer")]) >= 3.0);
        Ok(())
    })
}

#[test]
fn bookmarks_reconnects_and_irrelevant_changes_wake_nobody() -> Result<()> {
    test(async |space| {
        let (namespace, next) = (space.namespace("a").await?, space.namespace("b").await?);
        let proxy = Proxy::start(space.cluster().server()?).await?;
        let recorder = programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms");
        // The ring's guest lets nothing through but changes of the generation.
        let ring = ring::guest("ring-0", &namespace, &next).idle_after("50ms");
        let host = space.host().guests([recorder, ring]).through(&proxy).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write_value("one", "1").await?;
        until_reconcile(host.log(), "recorder", "the object", |_| true).await?;
        ring::write(space, &namespace, 1).await?;
        ring::until_nonce(space, &next, 1).await?;
        host.until_all_asleep(["recorder", "ring-0"]).await?;
        let wakes = (host.wakes_of("recorder").await?, host.wakes_of("ring-0").await?);

        // Another program's object, another namespace, a change of metadata where only the generation counts.
        Objects::new(space, &namespace, "another").write_value("other", "1").await?;
        Objects::new(space, &next, "recorder").write_value("one", "1").await?;
        let annotate = kube::api::Patch::Merge(serde_json::json!({ "metadata": { "annotations": { "a": "b" } } }));
        ring::objects(space, &namespace).patch("ring", &kube::api::PatchParams::default(), &annotate).await?;
        proxy.cut();

        let bookmarks = async || -> Result<(f64, f64)> {
            let metrics = host.metrics().await?;
            let of = |resource| {
                metrics.sum("wasm_operator_watch_events_total", &[("resource", resource), ("type", "BOOKMARK")])
            };
            Ok((of("configmaps"), of("testresources.ring.wasm-operator.dev")))
        };
        let before = bookmarks().await?;
        eventually_within(A_BOOKMARK, "a bookmark on both watches", async || {
            let now = bookmarks().await?;
            ensure!(now.0 > before.0 && now.1 > before.1, "{now:?} after {before:?}");
            Ok(())
        })
        .await?;
        assert_eq!((host.wakes_of("recorder").await?, host.wakes_of("ring-0").await?), wakes);

        // They are asleep, not deaf.
        objects.write_value("one", "2").await?;
        until_reconcile(host.log(), "recorder", "the change", |seen| seen.value.as_deref() == Some("2")).await?;
        ring::write(space, &namespace, 2).await?;
        ring::until_nonce(space, &next, 2).await
    })
}

#[test]
fn the_sleep_mode_decides_when_a_guest_sleeps() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = |name: &str, mode: &str| {
            programs::guest(name, "recorder", &[&namespace])
                .set("sleep", serde_json::json!({ "mode": mode, "idleAfter": "50ms" }))
        };
        let guests = [guest("never", "Never"), guest("fixed", "Fixed"), guest("immediately", "Immediately")];
        let host = space.host().guests(guests).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        for value in ["1", "2", "3"] {
            objects.write_value("one", value).await?;
            for name in ["never", "fixed", "immediately"] {
                until_reconcile(host.log(), name, "the change", |seen| seen.value.as_deref() == Some(value)).await?;
            }
            host.until_all_asleep(["fixed", "immediately"]).await?;
        }
        assert_eq!(host.state_of("never").await?, "awake");
        assert_eq!(host.wakes_of("never").await?, 1.0);
        assert_eq!((host.wakes_of("fixed").await?, host.wakes_of("immediately").await?), (3.0, 3.0));
        Ok(())
    })
}

#[test]
fn what_changed_while_the_host_was_away_is_reconciled_when_it_is_back() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write_value("changed", "1").await?;
        objects.write_value("same", "1").await?;
        until_reconcile(host.log(), "recorder", "the second object", |seen| seen.key.ends_with("/same")).await?;
        host.kill()?;

        objects.write_value("changed", "2").await?;
        objects.write_value("new", "1").await?;
        let log = host.log().mark();
        host.start().await?;
        for (name, value) in [("changed", "2"), ("same", "1"), ("new", "1")] {
            let seen = until_reconcile(&log, "recorder", name, |seen| seen.key.ends_with(name)).await?;
            assert_eq!((seen.cause.as_str(), seen.value.as_deref()), ("initial", Some(value)));
        }
        Ok(())
    })
}

#[test]
fn sleep_gives_the_memory_back() -> Result<()> {
    /// Ballast of each instance.
    const BALLAST: u64 = 16 << 20;
    const CYCLES: i64 = 60;
    test(async |space| {
        let (from, to) = (space.namespace("a").await?, space.namespace("b").await?);
        let guest = ring::guest("ring-0", &from, &to)
            .env("HEAP_MEM_SIZE", BALLAST)
            .set("sleep", serde_json::json!({ "mode": "Immediately" }));
        let host = space.host().guest(guest).start().await?;
        let cycle = async |nonce: i64| -> Result<u64> {
            ring::write(space, &from, nonce).await?;
            ring::until_nonce(space, &to, nonce).await?;
            host.until_asleep("ring-0").await?;
            // A dropped instance is unmapped some milliseconds later.
            eventually("the instance is unmapped", async || {
                let kib = host.memory()?.anonymous;
                ensure!(kib < BALLAST >> 10, "{kib} KiB");
                Ok(kib)
            })
            .await
        };
        let (mut before, mut after) = (0, 0);
        for nonce in 1..=CYCLES {
            after = cycle(nonce).await?;
            // The first cycles fill connection pools and the allocator's free lists.
            if nonce == CYCLES / 3 {
                before = after;
            }
        }
        assert!(host.wakes_of("ring-0").await? >= 60.0, "it did not sleep in between");
        assert!(after < before + 1_024, "{before} KiB after a third of the cycles, {after} KiB at the end");
        Ok(())
    })
}
