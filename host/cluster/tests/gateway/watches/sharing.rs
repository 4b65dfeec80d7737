//! One upstream watch for any number of guests, and watches that last.

use anyhow::{Result, ensure};
use harness::eventually;
use serde_json::{Value, json};

use super::version;
use crate::stage::Stage;

#[tokio::test]
async fn twenty_guests_on_a_kind_cost_one_upstream_watch() -> Result<()> {
    let stage = Stage::new("watches-many").await?;
    stage.grant_all("a").await?;
    stage.grant_all("b").await?;
    stage.put("x", "1", "in").await?;
    let mut watches = Vec::new();
    for number in 0..20 {
        let guest = stage.watching_as(&format!("guest-{number}"), if number % 2 == 0 { "a" } else { "b" })?;
        let list = guest.get(&stage.path("configmaps?limit=500")).await?.expect(200)?;
        ensure!(
            list["items"].as_array().is_some_and(|items| items.len() == 1) && list["metadata"]["continue"].is_null()
        );
        let from = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = stage.path(&format!("configmaps?watch=true&allowWatchBookmarks=true&resourceVersion={from}"));
        watches.push((guest.watch(&path).await?, guest));
    }
    ensure!(stage.streams("configmaps") == 1, "{} streams", stage.streams("configmaps"));
    ensure!(stage.upstream_reads() == 0, "{} reads went to the server", stage.upstream_reads());
    let changed = stage.put("x", "2", "in").await?;
    for (lines, _) in &mut watches {
        let event = lines.expect("MODIFIED x 2").await?;
        ensure!(version(&event) == changed["metadata"]["resourceVersion"]);
    }
    stage.delete("x").await?;
    stage.put("y", "1", "in").await?;
    for (lines, _) in &mut watches {
        let event = lines.expect("DELETED x 2").await?;
        ensure!(version(&event) != changed["metadata"]["resourceVersion"], "a deletion has a version of its own");
        lines.expect("ADDED y 1").await?;
    }
    let open = stage.informer_metrics.shared_watches.get_or_create(&super::label("configmaps"));
    ensure!(open.get() == 20);
    drop(watches);
    ensure!(open.get() == 0);
    Ok(())
}

#[tokio::test]
async fn a_watch_outlives_the_time_of_a_request_and_takes_no_place_among_them() -> Result<()> {
    let stage = Stage::new("watches-long").await?;
    stage.grant_all("a").await?;
    let mut access = stage.watching_access("a", "a")?;
    let guest = crate::stage::Guest(stage.gateway.guest(access.clone())?);
    let mut early = guest.watch(&stage.path("configmaps?watch=1")).await?;
    access.limits.request_milliseconds = 1;
    access.limits.requests_in_flight = 1;
    stage.gateway.guest(access.clone())?;
    access.limits.request_milliseconds = 2_000;
    stage.gateway.guest(access)?;
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(guest.watch(&stage.path("configmaps?watch=1")).await?);
    }
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    stage.put("x", "1", "in").await?;
    early.expect("ADDED x 1").await?;
    for lines in &mut lines {
        lines.expect("ADDED x 1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_does_not_read_finds_the_last_state_of_everything() -> Result<()> {
    let stage = Stage::new("watches-slow").await?;
    stage.grant_all("a").await?;
    for name in ["kept", "gone", "again"] {
        stage.put(name, "0", "in").await?;
    }
    let guest = stage.watching("a")?;
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    for name in ["again", "gone", "kept"] {
        lines.expect(&format!("ADDED {name} 0")).await?;
    }
    let mut reader = guest.watch(&stage.path("configmaps?watch=1&labelSelector=l%3Dnone")).await?;
    for round in 1..=30 {
        stage.put("kept", &round.to_string(), "in").await?;
        stage.put(&format!("short-{round}"), "1", "in").await?;
        stage.delete(&format!("short-{round}")).await?;
    }
    stage.delete("gone").await?;
    stage.delete("again").await?;
    stage.put("again", "1", "in").await?;
    // A second watch tells when all of it has come to the host.
    stage.put("end", "1", "none").await?;
    reader.expect("ADDED end 1").await?;
    for expected in ["MODIFIED kept 30", "DELETED gone 0", "DELETED again 0", "ADDED again 1", "ADDED end 1"] {
        lines.expect(expected).await?;
    }
    let compacted = stage.informer_metrics.shared_watch_compacted.get_or_create(&super::label("configmaps")).get();
    ensure!(compacted == 29 + 2 * 30, "{compacted} were left out");
    Ok(())
}

#[tokio::test]
async fn a_guest_lists_what_it_wrote_itself() -> Result<()> {
    let stage = Stage::new("watches-own").await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let _watch = guest.watch(&stage.path("configmaps?watch=1")).await?;
    let (all, one) = (stage.path("configmaps"), stage.path("configmaps/x"));
    for round in 0..20 {
        guest.send("POST", &all, &crate::stage::config_map("x", "1")).await?.expect(201)?;
        ensure!(names(&guest.get(&all).await?.expect(200)?) == ["x"], "round {round}");
        guest.send("DELETE", &one, &json!({})).await?.expect(200)?;
        let list = guest.get(&format!("{all}?limit=500")).await?.expect(200)?;
        ensure!(names(&list).is_empty(), "round {round}: {list}");
        // What is deleted is not shown to a watch that begins now.
        let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut watch = guest.watch(&format!("{all}?{query}")).await?;
        watch.expect("BOOKMARK").await?;
    }
    ensure!(stage.upstream_reads() < 10, "{} reads went to the server", stage.upstream_reads());
    Ok(())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn a_reconcilers_watch_goes_to_the_server_and_ends_with_its_request() -> Result<()> {
    let stage = Stage::new("watches-plain").await?;
    stage.grant_all("a").await?;
    let mut access = stage.access("a", vec![crate::stage::everything()])?;
    access.limits.request_milliseconds = 1_000;
    let guest = crate::stage::Guest(stage.gateway.guest(access)?);
    let mut lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    ensure!(lines.next().await.is_err(), "it is cut");
    ensure!(stage.upstream_reads() == 1 && stage.streams("configmaps") == 0);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_nobody_watches_any_more_ends() -> Result<()> {
    let options = wasm_operator_cluster::informer::Options {
        linger: std::time::Duration::from_millis(50),
        ..wasm_operator_cluster::informer::Options::default()
    };
    let stage = Stage::with_informers("watches-over", options).await?;
    stage.grant_all("a").await?;
    let guest = stage.watching("a")?;
    let lines = guest.watch(&stage.path("configmaps?watch=1")).await?;
    ensure!(stage.streams("configmaps") == 1);
    drop(lines);
    eventually("no stream is left", async || {
        ensure!(stage.streams("configmaps") == 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn field_selectors_of_guests_get_few_streams_and_delay_no_echo() -> Result<()> {
    let stage = Stage::new("watches-fields").await?;
    stage.grant_all("a").await?;
    stage.grant_all("b").await?;
    let events = json!([{ "apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"] }]);
    crate::stage::grant_everywhere(&stage.admin, "watches-fields-host", &stage.user("host"), &events).await?;
    let (guest, other) = (stage.watching("a")?, stage.guest("b")?);
    for number in 0..12 {
        let path = format!("events?limit=500&fieldSelector=involvedObject.name%3Dn{number}");
        guest.get(&stage.path(&path)).await?.expect(200)?;
    }
    ensure!(stage.streams("events") == 8, "{} streams", stage.streams("events"));
    let event = json!({
        "metadata": { "name": "x" }, "involvedObject": { "kind": "X", "name": "other", "namespace": stage.namespace },
    });
    other.send("POST", &stage.path("events"), &event).await?.expect(201)?;
    ensure!(!other.0.echo_pending(), "no stream is about it");
    Ok(())
}

#[tokio::test]
async fn a_field_selector_that_the_server_refuses_delays_no_echo() -> Result<()> {
    let stage = Stage::new("watches-refused").await?;
    stage.grant_all("a").await?;
    stage.grant_all("b").await?;
    let (guest, other) = (stage.watching("a")?, stage.guest("b")?);
    guest.get(&stage.path("configmaps?limit=1&fieldSelector=x%3Dy")).await?.expect(400)?;
    ensure!(stage.streams("configmaps") == 1);
    other.send("POST", &stage.path("configmaps"), &crate::stage::config_map("x", "1")).await?.expect(201)?;
    ensure!(!other.0.echo_pending());
    Ok(())
}
