//! Sleep by prediction: what it decides can be asked for, and nothing that it leans on can hurt.

use harness::programs::{self, Objects, until_reconcile};
use harness::{Guest, Host, Result, Space, command, ensure, eventually, logs_directory, output, test};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Gaps after which the policy calls a guest known.
const KNOWN_AFTER: u64 = 8;

fn predicted(namespace: &str) -> Guest {
    programs::guest("recorder", "recorder", &[namespace]).set("sleep", json!({ "mode": "Predicted" }))
}

/// Has the guest reconcile so many changes, each after it has done the one before.
async fn changes(space: &Space, host: &Host, namespace: &str, count: u64) -> Result<()> {
    let objects = Objects::new(space, namespace, "recorder");
    for number in 0..count {
        let value = format!("{number} of {count}");
        objects.write_value("one", &value).await?;
        until_reconcile(host.log(), "recorder", "the change", |seen| seen.value.as_deref() == Some(&*value)).await?;
    }
    Ok(())
}

async fn why(host: &Host) -> Result<Value> {
    let (status, text) = host.get("/guests/recorder/why?output=json").await?;
    ensure!(status == 200, "{status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn a_guest_is_learnt_and_every_decision_can_be_explained() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(predicted(&namespace)).start().await?;
        host.until_ready().await?;
        let before = why(&host).await?;
        assert_eq!((&before["prediction"], &before["wake"]), (&Value::Null, &Value::Null), "{before}");

        changes(space, &host, &namespace, KNOWN_AFTER + 4).await?;
        let learnt = eventually("the gaps are learnt", async || {
            let learnt = why(&host).await?;
            ensure!(learnt["prediction"]["known"] == true, "{learnt}");
            Ok(learnt)
        })
        .await?;
        assert_eq!(learnt["mode"], "Predicted");
        assert!(learnt["wake"].as_f64().is_some_and(|wake| wake > 0.0), "{learnt}");
        assert!(learnt["bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{learnt}");
        assert!(learnt["prediction"]["scores"].as_array().is_some_and(|scores| scores.len() > 5), "{learnt}");
        let counted = learnt["hits"].as_u64().zip(learnt["misses"].as_u64()).map(|(hits, misses)| hits + misses);
        assert!(counted.is_some_and(|events| events >= KNOWN_AFTER), "{learnt}");
        let outcomes = host.metrics().await?.sum("wasm_operator_guest_prediction_total", &[("guest", "recorder")]);
        assert!(outcomes >= KNOWN_AFTER as f64, "{outcomes}");

        let address = host.admin_address()?;
        let text = output(command(&["why", "recorder", "--admin", &address])?)?.success()?;
        assert!(text.starts_with("guest `recorder` is ") && text.contains("rule in force: "), "{text}");
        let unknown = output(command(&["why", "nobody", "--admin", &address])?)?;
        assert_eq!((unknown.code, unknown.stderr.as_str()), (1, "error: there is no guest `nobody`\n"));
        Ok(())
    })
}

#[test]
fn without_a_host_the_question_why_says_so() -> Result<()> {
    let refused = output(command(&["why", "recorder", "--admin", "127.0.0.1:1"])?)?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no host answers at `127.0.0.1:1`"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn under_memory_pressure_idle_guests_are_put_to_sleep() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace])
            .set("sleep", json!({ "mode": "Predicted", "minResident": "1h" }));
        let host = space.host().guest(guest).argument("--memory-budget=1").start().await?;
        changes(space, &host, &namespace, 1).await?;
        host.until_asleep("recorder").await?;
        let pressed = [("guest", "recorder"), ("reason", "pressure")];
        assert!(host.metrics().await?.sum("wasm_operator_guest_sleeps_total", &pressed) >= 1.0);
        changes(space, &host, &namespace, 2).await
    })
}

#[test]
fn what_wakes_guests_is_written_down() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let file = logs_directory()?.join(format!("{}.csv", space.name_of("wakes")));
        let argument = format!("--record-wakes={}", file.display());
        let host = space.host().guest(predicted(&namespace)).argument(argument).start().await?;
        host.until_ready().await?;
        let start = jiff::Timestamp::now();
        changes(space, &host, &namespace, 3).await?;
        let end = jiff::Timestamp::now();

        let text = std::fs::read_to_string(&file)?;
        let mut last = start;
        for line in text.lines() {
            let (time, guest) = line.split_once(',').unwrap_or((line, ""));
            let time: jiff::Timestamp = time.parse()?;
            assert!(guest == "recorder" && time >= last && time <= end, "{text}");
            last = time;
        }
        assert_eq!(text.lines().count(), 3, "{text}");
        Ok(())
    })
}

/// A prediction service that answers each connection with these bytes and goes.
async fn service(answer: &'static [u8]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/prediction", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut question = [0; 1024];
                let read = stream.read(&mut question).await;
                if read.is_ok() {
                    // Whoever asked may have had enough.
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    Ok(url)
}

async fn until_asked(host: &Host, result: &str) -> Result<()> {
    eventually("the service was asked", async || {
        let asked = host.metrics().await?.sum("wasm_operator_prediction_service_requests_total", &[("result", result)]);
        ensure!(asked > 0.0, "not with the result {result}");
        Ok(())
    })
    .await
}

#[test]
fn a_prediction_service_that_is_dead_or_talks_nonsense_changes_nothing_but_a_metric() -> Result<()> {
    test(async |space| {
        let nonsense = b"HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"prediction\": \"NaN\"}\n";
        let past = b"HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{\"prediction\": \"1999-01-01T00:00:00Z\"}\n";
        for (suffix, url, result) in [
            ("dead", "http://127.0.0.1:1/prediction".to_owned(), "unreachable"),
            ("nonsense", service(nonsense).await?, "not_a_time"),
            ("past", service(past).await?, "past"),
        ] {
            // The namespace of the host's own name is closed to guests.
            let namespace = space.namespace(&format!("{suffix}-objects")).await?;
            let asking = format!("--prediction-service={url}");
            let host = space.host().named(suffix).guest(predicted(&namespace)).argument(asking).start().await?;
            changes(space, &host, &namespace, 3).await?;
            until_asked(&host, result).await?;
            assert_eq!(host.metrics().await?.sum("controller_runtime_reconcile_errors_total", &[]), 0.0);
        }
        Ok(())
    })
}

#[test]
fn a_silent_prediction_service_holds_nothing_up() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        // Accepted by the kernel, answered by no one.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let asking = format!("--prediction-service=http://{}", listener.local_addr()?);
        let patience = "--prediction-timeout=60000".to_owned();
        let host = space.host().guest(predicted(&namespace)).argument(asking).argument(patience).start().await?;
        changes(space, &host, &namespace, 5).await?;
        // The question about the first change is still open.
        until_asked(&host, "guest_busy").await?;
        assert_eq!(
            host.metrics().await?.sum("wasm_operator_prediction_service_requests_total", &[("result", "silent")]),
            0.0
        );
        Ok(())
    })
}
