//! Reads with `resourceVersion=0`: from the shared caches, for those who may read, and never behind the reader's own writes.

use harness::programs::{self, Answer, Objects, answers, until_reconcile};
use harness::{AuditEvent, Guest, Host, Result, Rule, Space, ensure, eventually, test};
use serde_json::{Value, json};

/// What the requesters watch, and so what the caches hold.
const SELECTOR: &str = "labelSelector=misbehaving.wasm-operator.dev%2Fprogram%3Drequester";

fn requester(name: &str, namespace: &str) -> Guest {
    programs::guest(name, "requester", &[namespace]).env("ANSWERS", "log")
}

/// A list that the cache can answer.
fn cached_list(namespace: &str) -> Value {
    json!({ "path": format!("/api/v1/namespaces/{namespace}/configmaps?resourceVersion=0&{SELECTOR}") })
}

/// `data.value` of an object in a list.
fn value_in(answer: &Answer, name: &str) -> Option<String> {
    let list = answer.json();
    let named = |object: &&Value| object.pointer("/metadata/name").is_some_and(|found| found == name);
    let object = list.get("items")?.as_array()?.iter().find(named)?;
    Some(object.pointer("/data/value")?.as_str()?.to_owned())
}

/// What arrived at the API server in a guest's name, up to a read of an object of this name that it sends last.
async fn arrived(
    space: &Space,
    host: &Host,
    guest: &str,
    objects: &Objects,
    namespace: &str,
) -> Result<Vec<AuditEvent>> {
    let last = json!({ "path": format!("/api/v1/namespaces/{namespace}/configmaps/the-last") });
    answers(host.log(), guest, objects, "ask", &[last]).await?;
    let user = host.user_of(guest);
    eventually("the last request is in the audit log", async || {
        let mut all = space.audit().events(|event| event.acting_user() == user && event.resource() == "configmaps")?;
        ensure!(all.iter().any(|event| event.request_uri.ends_with("/the-last")), "{} requests", all.len());
        all.retain(|event| !event.request_uri.ends_with("/the-last"));
        Ok(all)
    })
    .await
}

#[test]
fn cached_reads_do_not_reach_the_api_server() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(requester("requester", &namespace)).start().await?;
        let objects = Objects::new(space, &namespace, "requester");
        objects.write_value("one", "1").await?;
        let requests = vec![cached_list(&namespace); 20];
        let lists = answers(host.log(), "requester", &objects, "ask", &requests).await?;
        for list in &lists {
            assert_eq!((list.status, value_in(list, "one").as_deref()), (200, Some("1")), "{list:?}");
        }
        let sent = arrived(space, &host, "requester", &objects, &namespace).await?;
        assert!(sent.is_empty(), "{sent:?}");
        Ok(())
    })
}

#[test]
fn what_the_cache_cannot_answer_is_asked_of_the_api_server() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(requester("requester", &namespace)).start().await?;
        let objects = Objects::new(space, &namespace, "requester");
        Objects::new(space, &namespace, "another").write_value("one", "1").await?;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let reads = [
            json!({ "path": format!("{path}/one?resourceVersion=0") }),
            json!({ "path": format!("{path}?resourceVersion=0&labelSelector=misbehaving.wasm-operator.dev%2Fprogram%3Danother") }),
            json!({ "path": format!("{path}?resourceVersion=0&limit=5") }),
            json!({ "path": path }),
        ];
        for (read, answer) in reads.iter().zip(answers(host.log(), "requester", &objects, "ask", &reads).await?) {
            assert!(answer.status == 200 && answer.body.contains("\"one\""), "{read}: {answer:?}");
        }
        let sent = arrived(space, &host, "requester", &objects, &namespace).await?;
        assert!(sent.len() >= 3, "{sent:?}");
        Ok(())
    })
}

#[test]
fn cached_reads_see_the_guests_own_writes() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(requester("requester", &namespace)).start().await?;
        let objects = Objects::new(space, &namespace, "requester");
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/own");
        let write = |value: &str| {
            json!({
                "method": "PATCH", "path": format!("{path}?force=true"),
                "headers": [["content-type", "application/apply-patch+yaml"]],
                "body": {
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": "own", "labels": { (misbehaving::LABEL): "requester" } },
                    "data": { "value": value },
                },
            })
        };
        let values: Vec<String> = (0..10).map(|value| value.to_string()).collect();
        let mut requests: Vec<Value> =
            values.iter().flat_map(|value| [write(value), cached_list(&namespace)]).collect();
        requests.extend([json!({ "method": "DELETE", "path": path }), cached_list(&namespace)]);
        let answers = answers(host.log(), "requester", &objects, "ask", &requests).await?;
        assert!(answers.iter().all(|answer| [200, 201].contains(&answer.status)), "{answers:?}");
        let seen: Vec<_> = answers.iter().skip(1).step_by(2).map(|list| value_in(list, "own")).collect();
        let expected: Vec<_> = values.into_iter().map(Some).chain([None]).collect();
        assert_eq!(seen, expected);
        let sent = arrived(space, &host, "requester", &objects, &namespace).await?;
        assert!(sent.iter().all(|event| event.verb != "list"), "a list was not answered by the cache: {sent:?}");
        Ok(())
    })
}

#[test]
fn of_two_guests_on_one_cache_the_one_without_the_right_never_sees_the_object() -> Result<()> {
    const SECRET: &str = "nobody-else-is-to-see-this";
    test(async |space| {
        let (shared, own) = (space.namespace("shared").await?, space.namespace("own").await?);
        // As far as the host is concerned all may read the shared namespace; the API server denies it to two of them.
        let first = requester("first", &shared);
        let second = requester("second", &own).grant(Rule::read("", "configmaps").namespace(&shared));
        let watcher = programs::guest("watcher", "recorder", &[&shared]);
        let denied = programs::guest("denied", "recorder", &[&shared]);
        let builder = space.host().guests([first, second, watcher, denied]);
        let host = builder.denying("second", &shared).denying("denied", &shared).start().await?;
        let log = host.log();
        Objects::new(space, &shared, "recorder").write_value("watched", SECRET).await?;
        Objects::new(space, &shared, "requester").write_value("read", SECRET).await?;
        until_reconcile(log, "watcher", "the guest with the right sees it", |seen| {
            seen.value.as_deref() == Some(SECRET)
        })
        .await?;

        let reads = [
            cached_list(&shared),
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps/read?resourceVersion=0") }),
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps?resourceVersion=0") }),
            json!({ "path": format!("/api/v1/namespaces/{shared}/configmaps/read") }),
        ];
        let allowed = answers(log, "first", &Objects::new(space, &shared, "requester"), "ask", &reads).await?;
        assert!(allowed.iter().all(|answer| answer.status == 200 && answer.body.contains(SECRET)), "{allowed:?}");
        let refused = answers(log, "second", &Objects::new(space, &own, "requester"), "ask", &reads).await?;
        for answer in &refused {
            assert!(answer.status == 403 && !answer.body.contains(SECRET), "{answer:?}");
            let message = answer.message();
            assert!(message.contains(&host.user_of("second")), "the API server does not name the guest: {message}");
        }
        // The same cache, read a moment before by who may.
        assert_eq!(value_in(&allowed[0], "read").as_deref(), Some(SECRET));
        assert!(programs::reconciles(log, "denied").iter().all(|seen| seen.value.as_deref() != Some(SECRET)));
        Ok(())
    })
}
