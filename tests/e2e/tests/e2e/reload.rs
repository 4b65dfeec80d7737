//! Changes of the configuration and of components while the host runs.

use std::path::Path;

use harness::programs::{self, Objects, finished, reconciles, until_finished, until_reconcile};
use harness::{Guest, Host, LogLine, Proxy, Result, Space, component, documents, ensure, eventually, test};
use serde_json::json;

/// The watches of the host, by the API server's id of the request: the same before and after means that nobody was disturbed.
async fn open_watches(space: &Space, host: &Host, resource: &str) -> Result<Vec<String>> {
    let open =
        space.audit().open_watches(|event| event.user.username == host.user() && event.resource() == resource)?;
    let mut ids: Vec<_> = open.into_iter().map(|event| event.audit_id).collect();
    ids.sort();
    Ok(ids)
}

async fn sees(host: &Host, guest: &str, objects: &Objects, value: &str) -> Result<()> {
    let log = host.log().mark();
    objects.write_value("object", value).await?;
    until_reconcile(&log, guest, "the change", |seen| seen.value.as_deref() == Some(value)).await?;
    Ok(())
}

#[test]
fn an_added_guest_starts_and_the_others_notice_nothing() -> Result<()> {
    test(async |space| {
        let (one, two) = (space.namespace("one").await?, space.namespace("two").await?);
        let first = programs::guest("first", "recorder", &[&one]).idle_after("50ms");
        let mut host = space.host().guest(first.clone()).start().await?;
        let objects = Objects::new(space, &one, "recorder");
        sees(&host, "first", &objects, "1").await?;
        host.until_asleep("first").await?;
        let (watches, wakes, log) =
            (open_watches(space, &host, "configmaps").await?, host.wakes_of("first").await?, host.log().mark());

        host.configure(&[first, programs::guest("second", "recorder", &[&two])]).await?;
        sees(&host, "second", &Objects::new(space, &two, "recorder"), "1").await?;
        assert_eq!(host.wakes_of("first").await?, wakes);
        assert!(reconciles(&log, "first").is_empty());
        let now = open_watches(space, &host, "configmaps").await?;
        assert!(watches.iter().all(|id| now.contains(id)), "its watch was opened anew: {watches:?} {now:?}");
        sees(&host, "first", &objects, "2").await
    })
}

#[test]
fn a_changed_guest_takes_its_new_configuration() -> Result<()> {
    test(async |space| {
        let (one, two) = (space.namespace("one").await?, space.namespace("two").await?);
        let neighbour = programs::guest("neighbour", "recorder", &[&one]).idle_after("50ms");
        let mut host =
            space.host().guests([neighbour.clone(), programs::guest("changing", "recorder", &[&one])]).start().await?;
        let (first, second) = (Objects::new(space, &one, "recorder"), Objects::new(space, &two, "recorder"));
        sees(&host, "changing", &first, "1").await?;
        sees(&host, "neighbour", &first, "2").await?;
        host.until_asleep("neighbour").await?;
        let (watches, log) = (open_watches(space, &host, "configmaps").await?, host.log().mark());

        host.configure(&[neighbour, programs::guest("changing", "recorder", &[&two])]).await?;
        sees(&host, "changing", &second, "1").await?;
        first.write_value("object", "3").await?;
        until_reconcile(&log, "neighbour", "the change", |seen| seen.value.as_deref() == Some("3")).await?;
        sees(&host, "changing", &second, "2").await?;
        assert!(
            reconciles(&log, "changing").iter().all(|seen| seen.key.starts_with(&two)),
            "it still watches its old namespace"
        );
        assert_eq!(reconciles(&log, "neighbour").len(), 1);
        let now = open_watches(space, &host, "configmaps").await?;
        assert!(watches.iter().all(|id| now.contains(id)), "the neighbour's watch was opened anew");
        Ok(())
    })
}

#[test]
fn a_removed_guest_ends_after_its_running_reconcile() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stays = programs::guest("stays", "recorder", &[&namespace]);
        let goes = programs::guest("goes", "recorder", &[&namespace]);
        let mut host = space.host().guests([stays.clone(), goes]).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("running", &[("sleep", "1000")]).await?;
        let running = until_reconcile(host.log(), "goes", "the run", |_| true).await?;
        host.configure(&[stays]).await?;
        until_finished(host.log(), "goes", "the run ends", |end| end.id == running.id).await?;
        eventually("the metrics forget the guest", async || {
            let metrics = host.metrics().await?;
            ensure!(metrics.labels("wasm_operator_guest_state").all(|labels| labels["guest"] != "goes"), "it is there");
            Ok(())
        })
        .await?;
        let log = host.log().mark();
        sees(&host, "stays", &objects, "1").await?;
        assert!(reconciles(&log, "goes").is_empty());
        Ok(())
    })
}

#[test]
fn running_reconciles_finish_and_queued_keys_survive_a_change() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]);
        let mut host = space.host().guest(guest.clone()).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("running", &[("sleep", "1500")]).await?;
        let running = until_reconcile(host.log(), "recorder", "the run", |_| true).await?;
        for name in ["queued-1", "queued-2"] {
            objects.write_value(name, "1").await?;
        }
        // Another environment needs another instance.
        let changed = host.log().mark();
        host.configure(&[guest.env("NEW", "1")]).await?;
        changed
            .wait("the change is noticed", |line| {
                line.is_of("recorder") && line.message().contains("configuration has changed")
            })
            .await?;
        for name in ["queued-1", "queued-2"] {
            let seen = until_reconcile(host.log(), "recorder", name, |seen| seen.key.ends_with(name)).await?;
            assert!(
                finished(host.log(), "recorder").iter().any(|end| end.id == running.id),
                "{seen:?} did not wait for the running one"
            );
        }
        Ok(())
    })
}

#[test]
fn a_change_of_scheduling_takes_effect_at_once_and_leaves_a_replacement_in_preparation_alone() -> Result<()> {
    test(async |space| {
        let (one, two) = (space.namespace("one").await?, space.namespace("two").await?);
        let proxy = Proxy::start(space.cluster().server()?).await?;
        let guest = |namespace: &str| programs::guest("guest", "recorder", &[namespace]);
        let mut host = space.host().guest(guest(&one)).through(&proxy).start().await?;
        sees(&host, "guest", &Objects::new(space, &one, "recorder"), "1").await?;

        // The replacement waits for the API server to confirm its identity.
        proxy.refuse();
        let log = host.log().mark();
        host.configure(&[guest(&two)]).await?;
        log.wait("the replacement waits", |line| line.is_of("guest") && line.text().contains("cannot prepare")).await?;
        host.configure(&[guest(&two).set("concurrency", 3).set("weight", 7)]).await?;
        eventually("the concurrency is changed", async || {
            let metrics = host.metrics().await?;
            let now = metrics.sum("controller_runtime_max_concurrent_reconciles", &[("controller", "guest")]);
            ensure!(now == 3.0, "{now}");
            Ok(())
        })
        .await?;
        let later = Objects::new(space, &two, "recorder");
        later.write_value("object", "2").await?;
        proxy.pass();
        until_reconcile(&log, "guest", "the replacement has taken over", |seen| seen.key.starts_with(&two)).await?;
        sees(&host, "guest", &later, "3").await
    })
}

#[test]
fn the_series_of_a_guests_requests_go_with_it_and_come_back_with_it() -> Result<()> {
    const SERIES: [&str; 2] = ["wasm_operator_api_calls_total", "wasm_operator_api_denied_total"];
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stays = programs::guest("stays", "requester", &[&namespace]).env("ANSWERS", "log");
        let goes = programs::guest("goes", "requester", &[&namespace]).env("ANSWERS", "log");
        let mut host = space.host().guests([stays.clone(), goes.clone()]).start().await?;
        let objects = Objects::new(space, &namespace, "requester");
        let requests = [
            json!({ "method": "GET", "path": format!("/api/v1/namespaces/{namespace}/configmaps") }),
            json!({ "method": "GET", "path": format!("/api/v1/namespaces/{namespace}/secrets") }),
        ];
        let counted = async |host: &Host, guest: &str| -> Result<[usize; 2]> {
            let metrics = host.metrics().await?;
            Ok(SERIES.map(|name| metrics.labels(name).filter(|labels| labels["guest"] == guest).count()))
        };
        for guest in ["stays", "goes"] {
            programs::answers(host.log(), guest, &objects, guest, &requests).await?;
        }
        for guest in ["stays", "goes"] {
            let count = counted(&host, guest).await?;
            assert!(count[0] >= 2 && count[1] == 1, "`{guest}`: {count:?}");
        }

        host.configure(std::slice::from_ref(&stays)).await?;
        eventually("the metrics forget the guest", async || {
            let count = counted(&host, "goes").await?;
            ensure!(count == [0, 0], "{count:?}");
            Ok(())
        })
        .await?;
        assert!(counted(&host, "stays").await?[1] == 1, "another guest's series are gone");

        host.configure(&[stays, goes]).await?;
        programs::answers(host.log(), "goes", &objects, "again", &requests).await?;
        assert!(counted(&host, "goes").await?[1] == 1, "it is not counted again");
        Ok(())
    })
}

#[test]
fn suspended_a_guest_keeps_its_keys_until_it_is_resumed() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]);
        let neighbour = programs::guest("neighbour", "recorder", &[&namespace]);
        let mut host = space.host().guests([guest.clone(), neighbour.clone()]).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        sees(&host, "recorder", &objects, "1").await?;
        host.configure(&[guest.clone().set("suspend", true), neighbour.clone()]).await?;
        host.until_state("recorder", &["suspended"]).await?;
        let log = host.log().mark();
        sees(&host, "neighbour", &objects, "2").await?;
        sees(&host, "neighbour", &objects, "3").await?;
        assert!(reconciles(&log, "recorder").is_empty());
        host.configure(&[guest, neighbour]).await?;
        until_reconcile(&log, "recorder", "the last state", |seen| seen.value.as_deref() == Some("3")).await?;
        sees(&host, "recorder", &objects, "4").await?;
        assert_eq!(reconciles(&log, "recorder").len(), 2);
        Ok(())
    })
}

#[test]
fn a_broken_document_leaves_every_guest_as_it_was() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guests = ["one", "two"].map(|name| programs::guest(name, "recorder", &[&namespace]).idle_after("50ms"));
        let mut host = space.host().guests(guests.clone()).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        sees(&host, "one", &objects, "1").await?;
        sees(&host, "two", &objects, "2").await?;

        let good = documents(&guests)?;
        let broken = [
            good.replacen("\"permissions\"", "\"premissions\"", 1),
            good.replacen("\"name\": \"one\"", "\"name\": \"One\"", 1),
            format!("{good}---\nname: three\n"),
            format!("{good}---\n{{ not yaml"),
            "name: [".to_owned(),
            "\0".to_owned(),
        ];
        for (value, text) in (3..).zip(broken) {
            let log = host.log().mark();
            host.write_config(&text)?;
            let reported =
                |line: &LogLine| ["WARN", "ERROR"].contains(&line.level()) && line.text().contains("wasm_config.yaml");
            log.wait("the mistake is reported", reported).await?;
            for guest in ["one", "two"] {
                sees(&host, guest, &objects, &format!("{value} {guest}")).await?;
            }
        }
        host.configure(&[guests[0].clone()]).await?;
        eventually("a good file is taken again", async || {
            let metrics = host.metrics().await?;
            ensure!(
                metrics.labels("wasm_operator_guest_state").all(|labels| labels["guest"] != "two"),
                "`two` is still there"
            );
            Ok(())
        })
        .await?;
        sees(&host, "one", &objects, "last").await
    })
}

#[test]
fn a_missing_configuration_file_stops_nobody() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("one", "recorder", &[&namespace]);
        let mut host = space.host().guest(guest.clone()).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        sees(&host, "one", &objects, "1").await?;
        let log = host.log().mark();
        std::fs::remove_file(host.config())?;
        log.wait("it is reported", |line| {
            ["WARN", "ERROR"].contains(&line.level()) && line.text().contains("wasm_config.yaml")
        })
        .await?;
        sees(&host, "one", &objects, "2").await?;
        host.configure(&[guest, programs::guest("two", "recorder", &[&namespace])]).await?;
        until_reconcile(host.log(), "two", "a new file is taken", |_| true).await?;
        Ok(())
    })
}

fn install(program: &str, file: &Path) -> Result<()> {
    // Beside it and renamed: a component is read while it is compiled.
    let next = file.with_extension("next");
    std::fs::copy(component(program)?, &next)?;
    Ok(std::fs::rename(next, file)?)
}

#[test]
fn a_replaced_component_takes_over() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let file = space.directory().join("guest.wasm");
        install("recorder", &file)?;
        let neighbour = programs::guest("neighbour", "recorder", &[&namespace]);
        let host =
            space.host().guests([programs::guest("guest", "", &[&namespace]).wasm(&file), neighbour]).start().await?;
        let recorded = Objects::new(space, &namespace, "recorder");
        sees(&host, "guest", &recorded, "1").await?;

        install("probe", &file)?;
        let probed = Objects::new(space, &namespace, "probe");
        probed.round_trip("object", "1").await?;
        let log = host.log().mark();
        sees(&host, "neighbour", &recorded, "2").await?;
        probed.round_trip("object", "2").await?;
        assert!(reconciles(&log, "guest").is_empty(), "the old component still runs");
        Ok(())
    })
}

#[test]
fn a_broken_component_does_not_replace_one_that_runs() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let file = space.directory().join("guest.wasm");
        install("recorder", &file)?;
        let host = space.host().guest(programs::guest("guest", "", &[&namespace]).wasm(&file)).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        sees(&host, "guest", &objects, "1").await?;

        let reported = |line: &LogLine| line.is_of("guest") && line.level() == "ERROR";
        for (value, content) in [("2", &b"garbage"[..]), ("3", b""), ("4", b"\0asm\x01\0\0\0")] {
            let log = host.log().mark();
            std::fs::write(&file, content)?;
            log.wait("the broken file is reported", reported).await?;
            sees(&host, "guest", &objects, value).await?;
        }
        for (value, program) in [("5", "no_exports"), ("6", "wrong_version"), ("7", "endless_loop_in_describe")] {
            let log = host.log().mark();
            install(program, &file)?;
            log.wait("the useless component is reported", reported).await?;
            sees(&host, "guest", &objects, value).await?;
        }
        install("probe", &file)?;
        Objects::new(space, &namespace, "probe").round_trip("object", "1").await?;
        Ok(())
    })
}

#[test]
fn a_component_that_asks_for_more_waits_for_approval() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let file = space.directory().join("guest.wasm");
        install("recorder", &file)?;
        let guest = Guest::new("guest", "").env("NAMESPACES", &namespace).wasm(&file).grant_as_requested();
        // Approvals lie in the cache directory; this guest's are its own.
        let cache = space.directory().join("cache");
        let mut host = space.host().guest(guest.clone()).cache(&cache).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        sees(&host, "guest", &objects, "1").await?;

        // Its rules are those of a ring's guest, which asks for another kind.
        let next = guest.clone().env("IN_NAMESPACE", &namespace).env("OUT_NAMESPACE", &namespace);
        host.configure(&[next]).await?;
        let log = host.log().mark();
        install("ring", &file)?;
        let waits = log
            .wait("the component waits", |line| line.is_of("guest") && line.text().contains("as-requested@sha256:"))
            .await?;
        assert!(waits.text().contains("testresources"), "what more it asks for is named: {}", waits.text());
        sees(&host, "guest", &objects, "2").await
    })
}
