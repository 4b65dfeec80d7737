//! Shared watches: how many there are, and who sees what through them.

use harness::programs::{self, Objects, answers, until_reconcile};
use harness::ring::{self, Ring};
use harness::{Guest, Host, Result, Rule, Space, ensure, eventually, test};
use serde_json::json;

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
        let host = space.host().guests(ring.guests()).watching_everywhere().start().await?;
        ring.lap(1).await?;
        assert_eq!(watches(space, &host, ring::RESOURCE, "testresources.ring.wasm-operator.dev").await?, (1, 1.0));
        let subscribers = host.metrics().await?.sum("wasm_operator_watch_subscribers", &[]);
        assert_eq!(subscribers, 100.0);
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

fn requester(name: &str, namespace: &str) -> Guest {
    programs::guest(name, "requester", &[namespace]).env("ANSWERS", "log")
}

#[test]
fn of_two_guests_on_one_cache_the_one_without_the_right_never_sees_the_object() -> Result<()> {
    const SECRET: &str = "nobody-else-is-to-see-this";
    test(async |space| {
        let (shared, own) = (space.namespace("shared").await?, space.namespace("own").await?);
        // Both may read the shared namespace as far as the host is concerned; the API server denies it to the second.
        let first = requester("first", &shared);
        let second = requester("second", &own).grant(Rule::read("", "configmaps").namespace(&shared));
        let watcher = programs::guest("watcher", "recorder", &[&shared]);
        let denied = programs::guest("denied", "recorder", &[&shared]);
        let builder =
            space.host().guests([first, second, watcher, denied]).denying("second", &shared).denying("denied", &shared);
        let host = builder.start().await?;
        let log = host.log();
        Objects::new(space, &shared, "recorder").write_value("hidden", SECRET).await?;
        until_reconcile(log, "watcher", "the guest with the right sees it", |seen| {
            seen.value.as_deref() == Some(SECRET)
        })
        .await?;

        let reads = [
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps/hidden?resourceVersion=0") }),
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps?resourceVersion=0") }),
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps/hidden") }),
        ];
        let allowed = answers(log, "first", &Objects::new(space, &shared, "requester"), "ask", &reads).await?;
        assert!(allowed.iter().all(|answer| answer.status == 200 && answer.body.contains(SECRET)), "{allowed:?}");
        let refused = answers(log, "second", &Objects::new(space, &own, "requester"), "ask", &reads).await?;
        for answer in &refused {
            assert_eq!(answer.status, 403, "{answer:?}");
            assert!(!answer.body.contains(SECRET));
            assert!(
                answer.message().contains(&host.user_of("second")),
                "the API server names the guest: {}",
                answer.message()
            );
        }
        assert!(programs::reconciles(log, "denied").iter().all(|seen| seen.value.as_deref() != Some(SECRET)));
        Ok(())
    })
}

#[test]
fn cached_reads_see_the_guests_own_writes() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(requester("requester", &namespace)).start().await?;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/own");
        let object = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "own" }, "data": { "value": value } });
        let write = |value: &str| json!({ "method": "PATCH", "path": format!("{path}?force=true"), "headers": [["content-type", "application/apply-patch+yaml"]], "body": object(value) });
        let read = json!({ "path": format!("{path}?resourceVersion=0") });
        let mut requests = Vec::new();
        for value in ["1", "2", "3"] {
            requests.extend([write(value), read.clone()]);
        }
        requests.extend([json!({ "method": "DELETE", "path": path }), read]);
        let answers =
            answers(host.log(), "requester", &Objects::new(space, &namespace, "requester"), "ask", &requests).await?;
        for (pair, value) in answers.chunks(2).zip(["1", "2", "3"]) {
            assert_eq!(pair[1].status, 200, "{pair:?}");
            assert_eq!(pair[1].json().pointer("/data/value"), Some(&json!(value)), "{pair:?}");
        }
        assert_eq!(answers[6].status, 200);
        assert_eq!(answers[7].status, 404, "{:?}", answers[7]);
        Ok(())
    })
}

#[test]
fn cached_reads_do_not_reach_the_api_server() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(requester("requester", &namespace)).start().await?;
        Objects::new(space, &namespace, "other").write_value("one", "1").await?;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let cached = json!({ "path": format!("{path}/one?resourceVersion=0") });
        let list = json!({ "path": format!("{path}?resourceVersion=0&labelSelector=misbehaving.wasm-operator.dev%2Fprogram%3Dother") });
        let fresh = json!({ "path": format!("{path}/one?") });
        let objects = Objects::new(space, &namespace, "requester");
        let requests = [vec![cached; 20], vec![list, fresh]].concat();
        let answers = answers(host.log(), "requester", &objects, "ask", &requests).await?;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(answers[20].json()["items"].as_array().map(Vec::len), Some(1), "{:?}", answers[20]);

        let user = host.user_of("requester");
        let reads = eventually("the fresh read is in the audit log", async || {
            let reads = space.audit().events(|event| {
                event.acting_user() == user && event.resource() == "configmaps" && event.is_complete()
            })?;
            ensure!(reads.iter().any(|read| read.verb == "get"), "{} requests", reads.len());
            Ok(reads)
        })
        .await?;
        assert_eq!(reads.iter().filter(|read| read.verb == "get").count(), 1, "{reads:?}");
        assert!(reads.iter().all(|read| read.verb == "get"), "{reads:?}");
        Ok(())
    })
}
