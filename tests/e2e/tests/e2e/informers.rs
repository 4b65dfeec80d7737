//! Shared watches: how many there are.

use harness::programs::{self, Objects, until_reconcile};
use harness::ring::{self, Ring};
use harness::{Host, Result, Space, ensure, eventually, test};

/// The host's open watches on a resource, as the API server sees them, and as the host says.
async fn watches(space: &Space, host: &Host, resource: &str, metric: &str) -> Result<(usize, f64)> {
    let open =
        space.audit().open_watches(|event| event.user.username == host.user() && event.resource() == resource)?;
    Ok((open.len(), host.metrics().await?.sum("wasm_operator_watch_streams", &[("resource", metric)])))
}

#[test]
fn a_hundred_guests_on_one_kind_share_one_upstream_watch() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 100).await?;
        let guests = ring.guests().into_iter().map(|guest| guest.idle_after("50ms"));
        let host = space.host().guests(guests).watching_everywhere().start().await?;
        ring.lap(1).await?;
        assert_eq!(watches(space, &host, ring::RESOURCE, "testresources.ring.wasm-operator.dev").await?, (1, 1.0));
        let subscribers = host.metrics().await?.sum("wasm_operator_watch_subscribers", &[]);
        // Each watches the namespace before it and reads the one after it.
        assert_eq!(subscribers, 200.0);
        host.until_all_asleep(ring.names()).await?;
        Ok(())
    })
}

#[test]
fn without_the_right_to_the_whole_cluster_there_is_one_watch_for_each_namespace() -> Result<()> {
    test(async |space| {
        let (one, two) = (space.namespace("one").await?, space.namespace("two").await?);
        // Two guests share a namespace, and so its watch.
        let guests = [("a", &one), ("b", &one), ("c", &two)]
            .map(|(name, namespace)| programs::guest(name, "recorder", &[namespace]));
        let host = space.host().guests(guests).start().await?;
        for namespace in [&one, &two] {
            Objects::new(space, namespace, "recorder").write_value("one", "1").await?;
        }
        for guest in ["a", "b", "c"] {
            until_reconcile(host.log(), guest, "the object", |_| true).await?;
        }
        assert_eq!(watches(space, &host, "configmaps", "configmaps").await?, (2, 2.0));
        Ok(())
    })
}

#[test]
fn a_watch_ends_when_its_last_guest_is_gone() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let recorder = programs::guest("recorder", "recorder", &[&namespace]);
        let mut host =
            space.host().guests([recorder.clone(), ring::guest("ring-0", &namespace, &namespace)]).start().await?;
        eventually("both watches are open", async || {
            let open = watches(space, &host, ring::RESOURCE, "testresources.ring.wasm-operator.dev").await?;
            ensure!(open == (1, 1.0), "{open:?}");
            Ok(())
        })
        .await?;
        host.configure(&[recorder]).await?;
        eventually("the ring's watch is closed", async || {
            let open = watches(space, &host, ring::RESOURCE, "testresources.ring.wasm-operator.dev").await?;
            ensure!(open == (0, 0.0), "{open:?}");
            Ok(())
        })
        .await?;
        Objects::new(space, &namespace, "recorder").write_value("one", "1").await?;
        until_reconcile(host.log(), "recorder", "the other guest goes on", |_| true).await?;
        Ok(())
    })
}
