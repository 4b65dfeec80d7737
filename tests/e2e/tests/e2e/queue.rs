//! The work queue: one run of a key at a time, retries, timers, and what survives.

use std::time::Duration;

use harness::programs::{self, Objects, finished, reconciles, until_finished, until_reconcile};
use harness::{Latencies, LogLine, Result, test};

#[test]
fn a_key_never_runs_twice_at_once_and_others_run_beside_it() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space
            .host()
            .guest(programs::guest("recorder", "recorder", &[&namespace]).set("concurrency", 3))
            .start()
            .await?;
        let objects = Objects::new(space, &namespace, "recorder");
        for name in ["one", "two", "three"] {
            objects.write(name, &[("sleep", "700"), ("value", "1")]).await?;
        }
        let begun = |name: &'static str, value: &'static str| {
            move |seen: &programs::Reconcile| seen.key.ends_with(name) && seen.value.as_deref() == Some(value)
        };
        until_reconcile(host.log(), "recorder", "the first run", begun("one", "1")).await?;
        // A change during the run is handled after it.
        objects.write("one", &[("sleep", "700"), ("value", "2")]).await?;
        let again = until_reconcile(host.log(), "recorder", "the second run", begun("one", "2")).await?;
        until_finished(host.log(), "recorder", "the second run's end", |end| end.id == again.id).await?;
        until_finished(host.log(), "recorder", "the other key's end", |end| end.key.ends_with("three")).await?;

        let (begun, ended) = (reconciles(host.log(), "recorder"), finished(host.log(), "recorder"));
        let spans: Vec<_> =
            begun.iter().filter_map(|run| Some((run, run.at, ended.iter().find(|end| end.id == run.id)?.at))).collect();
        for (run, start, end) in &spans {
            let beside = spans.iter().filter(|(other, from, to)| other.id != run.id && from < end && start < to);
            assert!(beside.clone().all(|(other, ..)| other.key != run.key), "two runs of {} at once", run.key);
        }
        let overlaps = spans.iter().flat_map(|one| spans.iter().map(move |other| (one, other)));
        let overlaps =
            overlaps.filter(|(one, other)| one.0.id < other.0.id && other.1 < one.2 && one.1 < other.2).count();
        assert!(overlaps >= 2, "three keys, three instances, and {overlaps} overlaps");
        Ok(())
    })
}

#[test]
fn a_thousand_changes_during_a_run_are_collapsed() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        let start = tokio::time::Instant::now();
        for change in 1..=1_000 {
            objects.write("one", &[("sleep", "250"), ("value", &change.to_string())]).await?;
        }
        until_reconcile(host.log(), "recorder", "the last state", |seen| seen.value.as_deref() == Some("1000")).await?;
        let most = start.elapsed().as_millis() / 250 + 2;
        let count = reconciles(host.log(), "recorder").len();
        assert!(count as u128 <= most, "{count} runs of 250 ms in {:?}", start.elapsed());
        Ok(())
    })
}

#[test]
fn a_failed_reconcile_is_retried_with_growing_waits_until_it_succeeds() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        host.until_ready().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("one", &[("answer", "retryable")]).await?;
        until_reconcile(host.log(), "recorder", "the tenth attempt", |seen| seen.attempt == 9).await?;
        let runs = reconciles(host.log(), "recorder");
        let attempts: Vec<_> = runs.iter().map(|run| (run.attempt, run.cause.as_str())).take(10).collect();
        let expected: Vec<_> =
            (0..10).map(|attempt| (attempt, if attempt == 0 { "change" } else { "retry" })).collect();
        assert_eq!(attempts, expected);
        // 5 ms × 2^n less a fifth, for the eighth wait.
        let wait = Duration::from_micros(runs[8].at - runs[7].at);
        assert!(wait >= Duration::from_millis(5 * 128 * 4 / 5), "waited {wait:?}");

        objects.write("one", &[("value", "good")]).await?;
        let good =
            until_reconcile(host.log(), "recorder", "the change", |seen| seen.value.as_deref() == Some("good")).await?;
        assert_eq!(good.cause, "change");
        objects.write("one", &[("value", "later")]).await?;
        let later =
            until_reconcile(host.log(), "recorder", "another change", |seen| seen.value.as_deref() == Some("later"))
                .await?;
        assert_eq!((later.attempt, later.cause.as_str()), (0, "change"), "success forgets the failures");
        let metrics = host.metrics().await?;
        assert!(metrics.sum("controller_runtime_reconcile_errors_total", &[("controller", "recorder")]) >= 9.0);
        assert!(metrics.sum("workqueue_retries_total", &[("controller", "recorder")]) >= 9.0);
        Ok(())
    })
}

#[test]
fn a_failure_with_a_delay_of_its_own_is_an_error_and_is_tried_again_after_that_delay() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        host.until_ready().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("one", &[("answer", "retryable"), ("after", "400")]).await?;
        until_reconcile(host.log(), "recorder", "the fourth attempt", |seen| seen.attempt == 3).await?;
        let runs = reconciles(host.log(), "recorder");
        for (before, run) in runs.iter().zip(&runs[1..]) {
            // The host's own backoff of these attempts is 5 to 20 ms.
            let waited = Duration::from_micros(run.at - before.at);
            assert!(waited >= Duration::from_millis(399) && run.cause == "retry", "{waited:?}, {}", run.cause);
        }
        let counted = |metrics: &harness::Metrics, result: &str| {
            metrics.sum("controller_runtime_reconcile_total", &[("controller", "recorder"), ("result", result)])
        };
        let metrics = host.metrics().await?;
        assert!(metrics.sum("controller_runtime_reconcile_errors_total", &[("controller", "recorder")]) >= 3.0);
        assert_eq!((counted(&metrics, "success"), counted(&metrics, "requeue_after")), (0.0, 0.0));

        // A change does not wait for the delay.
        objects.write("one", &[("answer", "retryable"), ("after", "3600000"), ("value", "later")]).await?;
        let is = |value: &'static str| move |seen: &programs::Reconcile| seen.value.as_deref() == Some(value);
        until_reconcile(host.log(), "recorder", "the change", is("later")).await?;
        objects.write("one", &[("value", "good")]).await?;
        let good = until_reconcile(host.log(), "recorder", "the next change", is("good")).await?;
        assert_eq!(good.cause, "change");
        Ok(())
    })
}

#[test]
fn a_terminal_failure_is_reported_and_waits_for_a_change() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("one", &[("answer", "terminal")]).await?;
        let reported =
            |line: &LogLine| line.is_of("recorder") && line.text().contains("as told") && line.level() == "ERROR";
        let line = host.log().wait("the failure is reported", reported).await?;
        assert!(line.message().contains("the reconcile failed"), "the guest's words hide the host's: {}", line.text());
        objects.write("one", &[("value", "good")]).await?;
        until_reconcile(host.log(), "recorder", "the change", |seen| seen.value.as_deref() == Some("good")).await?;
        assert_eq!(reconciles(host.log(), "recorder").len(), 2);
        Ok(())
    })
}

#[test]
fn a_resync_reconciles_what_did_not_change() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms").set("resync", "1s");
        let host = space.host().guest(guest).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        for name in ["one", "two"] {
            objects.write_value(name, "1").await?;
        }
        for name in ["one", "two"] {
            until_reconcile(host.log(), "recorder", "a resync", |seen| {
                seen.cause == "resync" && seen.key.ends_with(name)
            })
            .await?;
        }
        Ok(())
    })
}

#[test]
fn sigterm_lets_a_running_reconcile_finish_and_starts_no_other() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write("running", &[("sleep", "1500")]).await?;
        let running = until_reconcile(host.log(), "recorder", "the run", |_| true).await?;
        host.terminate()?;
        objects.write_value("late", "1").await?;
        let status = host.wait().await?;
        assert!(status.success(), "{status}");
        let ended: Vec<_> = finished(host.log(), "recorder").into_iter().map(|end| end.id).collect();
        assert_eq!(ended, [running.id]);
        assert_eq!(reconciles(host.log(), "recorder").len(), 1);

        // What came too late is not lost.
        let log = host.log().mark();
        host.start().await?;
        until_reconcile(&log, "recorder", "the late object", |seen| seen.key.ends_with("/late")).await?;
        Ok(())
    })
}

#[test]
fn a_reconcile_that_does_not_end_does_not_keep_the_host_from_stopping() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]);
        let mut host = space.host().guest(guest).argument("--drain").argument("1").start().await?;
        Objects::new(space, &namespace, "recorder").write("running", &[("sleep", "25000")]).await?;
        until_reconcile(host.log(), "recorder", "the run", |_| true).await?;
        let start = tokio::time::Instant::now();
        host.terminate()?;
        let status = host.wait().await?;
        assert!(status.success(), "{status}");
        assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
        assert!(finished(host.log(), "recorder").is_empty());

        let log = host.log().mark();
        host.start().await?;
        until_reconcile(&log, "recorder", "the run is repeated", |seen| seen.key.ends_with("/running")).await?;
        Ok(())
    })
}

#[test]
fn a_guest_with_hundreds_of_keys_does_not_hold_up_another() -> Result<()> {
    test(async |space| {
        let (busy, good) = (space.namespace("busy").await?, space.namespace("good").await?);
        let many = Objects::new(space, &busy, "recorder");
        for number in 0..300 {
            many.write(&format!("object-{number}"), &[("sleep", "30")]).await?;
        }
        let guests = [programs::guest("busy", "recorder", &[&busy]), programs::guest("neighbour", "probe", &[&good])];
        let host = space.host().guests(guests).start().await?;
        until_reconcile(host.log(), "busy", "the first of the many", |_| true).await?;
        let neighbour = Objects::new(space, &good, "probe");
        let mut latencies = Latencies::default();
        neighbour.round_trip("object", "first").await?;
        for value in 0..15 {
            latencies.add(neighbour.round_trip("object", &value.to_string()).await?);
        }
        assert!(reconciles(host.log(), "busy").len() < 300, "the many were done before the neighbour was looked at");
        // In the order of arrival the neighbour would wait for seconds.
        assert!(latencies.median() < Duration::from_millis(300), "{latencies}");
        Ok(())
    })
}
