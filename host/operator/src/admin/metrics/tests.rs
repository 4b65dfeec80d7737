use std::collections::BTreeSet;
use std::path::Path;

use prometheus_client::encoding::text;
use wasm_operator_core::dispatch::{Dispatcher, Options, Settings, Tally};

use super::*;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    text::encode(&mut text, registry).unwrap();
    text
}

fn snapshot() -> Snapshot {
    let mut dispatcher = Dispatcher::new(Options::default());
    let id = dispatcher.add(Time::ZERO, Settings::default());
    let predicted = Tally { hits: 1, ..Tally::default() };
    Snapshot { predicted, ..dispatcher.snapshot(Time::ZERO, id).unwrap() }
}

fn current(guest: &str) -> Current {
    Current { guest: guest.into(), concurrency: 2, snapshot: snapshot() }
}

/// A registry in which every metric of one guest has a value.
fn everything() -> (Registry, Metrics) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.set_source(|| vec![current("ring-0")]);
    metrics.guest("ring-0").queued.observe(Duration::from_millis(3));
    metrics.finished("ring-0", Reconciled::Success, Duration::from_millis(2));
    metrics.finished("ring-0", Reconciled::Broken, Duration::from_secs(40));
    metrics.woke("ring-0", Some(WakeReason::Event), Found::Component, Duration::from_micros(60));
    metrics.woke("ring-0", Some(WakeReason::Timer), Found::Nothing, Duration::from_millis(2));
    metrics.woke("ring-0", None, Found::Instance, Duration::from_millis(2));
    metrics.compiled("ring-0", Duration::from_millis(1_500));
    metrics.trapped("ring-0", "trap");
    metrics.memory("ring-0", 65_536);
    metrics.hibernated("ring-0", 65_536, Duration::from_millis(2));
    metrics.contexts_hibernated("ring-0", 57_344);
    metrics.first_request("ring-0", Duration::from_millis(3));
    metrics.not_hibernated("ring-0");
    metrics.set_disk(|| 131_072);
    metrics.woke("ring-0", Some(WakeReason::Request), Found::Component, Duration::from_micros(60));
    metrics.request("ring-0").ended(200, Duration::from_millis(3));
    metrics.request("ring-0").ended(504, Duration::from_secs(30));
    metrics.not_admitted(401);
    (registry, metrics)
}

#[test]
fn dashboards_for_controller_runtime_work() {
    let (registry, metrics) = everything();
    let shown = text(&registry);
    for line in [
        r#"controller_runtime_reconcile_total{controller="ring-0",result="success"} 1"#,
        r#"controller_runtime_reconcile_total{controller="ring-0",result="error"} 1"#,
        r#"controller_runtime_reconcile_errors_total{controller="ring-0"} 1"#,
        r#"controller_runtime_reconcile_time_seconds_bucket{le="0.002",controller="ring-0"} 1"#,
        r#"controller_runtime_reconcile_time_seconds_bucket{le="30.0",controller="ring-0"} 1"#,
        r#"controller_runtime_reconcile_time_seconds_bucket{le="+Inf",controller="ring-0"} 2"#,
        r#"controller_runtime_max_concurrent_reconciles{controller="ring-0"} 2"#,
        r#"workqueue_depth{name="ring-0",controller="ring-0",priority="0"} 0"#,
        r#"workqueue_adds_total{name="ring-0",controller="ring-0"} 0"#,
        r#"wasm_operator_guest_state{guest="ring-0",state="loading"} 1"#,
        r#"wasm_operator_guest_state{guest="ring-0",state="awake"} 0"#,
        r#"wasm_operator_guest_wakes_total{guest="ring-0",reason="event"} 1"#,
        r#"wasm_operator_guest_wakes_total{guest="ring-0",reason="timer"} 1"#,
        r#"wasm_operator_guest_wake_duration_seconds_bucket{le="0.0001",guest="ring-0",path="dormant"} 2"#,
        r#"wasm_operator_guest_wake_duration_seconds_count{guest="ring-0",path="cold"} 1"#,
        r#"wasm_operator_guest_compile_duration_seconds{guest="ring-0"} 1.5"#,
        r#"wasm_operator_guest_traps_total{guest="ring-0",kind="trap"} 1"#,
        r#"wasm_operator_guest_wakes_total{guest="ring-0",reason="request"} 1"#,
        r#"wasm_operator_guest_requests_total{guest="ring-0",code="504"} 1"#,
        r#"wasm_operator_guest_request_duration_seconds_count{guest="ring-0"} 2"#,
        r#"wasm_operator_guest_requests_in_flight{guest="ring-0",phase="waiting"} 0"#,
        r#"wasm_operator_front_door_refused_total{code="401"} 1"#,
        r#"wasm_operator_guest_memory_bytes{guest="ring-0"} 65536"#,
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    metrics.slept("ring-0", SleepReason::Idle);
    let shown = text(&registry);
    assert!(shown.contains(r#"wasm_operator_guest_memory_bytes{guest="ring-0"} 0"#), "{shown}");
    assert!(shown.contains(r#"wasm_operator_guest_sleeps_total{guest="ring-0",reason="idle"} 1"#), "{shown}");
}

#[test]
fn no_series_outlives_its_guest() {
    let (registry, metrics) = everything();
    metrics.slept("ring-0", SleepReason::Idle);
    metrics.removed("ring-0");
    metrics.set_source(Vec::new);
    assert!(!text(&registry).contains("ring-0"), "{}", text(&registry));
}

#[test]
fn a_guest_that_never_ran_has_few_series() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.set_source(|| vec![current("quiet")]);
    let series = text(&registry).lines().filter(|line| line.contains("quiet")).count();
    assert!(series < 20, "{}", text(&registry));
    // Nothing is kept for it either.
    assert!(metrics.0.guests.read().is_empty());
}

#[test]
fn odd_names_cannot_break_the_text() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.trapped("a\"} 1\nfake{x=\"", "trap");
    assert!(!text(&registry).lines().any(|line| line.starts_with("fake")), "{}", text(&registry));
}

#[test]
fn a_flood_of_kinds_is_bounded() {
    let metrics = Metrics::default();
    for n in 0..100 {
        metrics.trapped("a", Box::leak(format!("kind-{n}").into_boxed_str()));
    }
    assert!(metrics.guest("a").traps().len() <= 32);
}

/// Every metric of the cluster crate has a value.
fn cluster(registry: &mut Registry) {
    use wasm_operator_cluster::gateway::{CallLabels, DeniedLabels, DurationLabels, GatewayMetrics, RequestLabels};
    use wasm_operator_cluster::metrics::{EventLabels, Metrics, ResourceLabel, RestartLabels};

    let text = String::new;
    let metrics = Metrics::register(registry);
    for family in [
        &metrics.watch_streams,
        &metrics.watch_subscribers,
        &metrics.cache_objects,
        &metrics.cache_bytes,
        &metrics.shared_watches,
    ] {
        let _ = family.get_or_create(&ResourceLabel { resource: text() });
    }
    for family in [&metrics.shared_watch_compacted, &metrics.shared_watch_expired] {
        let _ = family.get_or_create(&ResourceLabel { resource: text() });
    }
    let _ = metrics.shared_watch_events.get_or_create(&EventLabels { resource: text(), r#type: "" });
    let _ = metrics.watch_events.get_or_create(&EventLabels { resource: text(), r#type: "" });
    let _ = metrics.watch_restarts.get_or_create(&RestartLabels { resource: text(), cause: "" });
    let _ = metrics.shared_watches.get_or_create(&ResourceLabel { resource: text() });
    let _ = metrics.shared_watch_events.get_or_create(&EventLabels { resource: text(), r#type: "" });
    for family in [&metrics.shared_watch_compacted, &metrics.shared_watch_expired] {
        let _ = family.get_or_create(&ResourceLabel { resource: text() });
    }
    let gateway = GatewayMetrics::register(registry);
    let _ = gateway.api_calls.get_or_create(&CallLabels { guest: "".into(), verb: "", resource: "".into(), code: 200 });
    let _ = gateway.api_denied.get_or_create(&DeniedLabels { guest: "".into(), verb: "", resource: "".into() });
    let _ = gateway.requests.get_or_create(&RequestLabels { code: text(), method: "", host: text() });
    let _ = gateway.durations.get_or_create(&DurationLabels { verb: "", host: text() });
}

/// The names of a series' labels.
fn labels(series: &str) -> String {
    let inner = series.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inner, _)| inner);
    let names: Vec<&str> = inner
        .split("\",")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name != "le")
        .collect();
    if names.is_empty() { String::new() } else { format!("{{{}}}", names.join(",")) }
}

/// `metrics.txt` is the list that users read. `UPDATE_EXPECTED=1` writes it anew.
#[test]
fn the_checked_in_list_of_metrics_is_fresh() {
    let (mut registry, metrics) = everything();
    metrics.slept("ring-0", SleepReason::Idle);
    cluster(&mut registry);
    let shown = text(&registry);
    let mut list = BTreeSet::new();
    let mut lines = shown.lines().peekable();
    let mut help = "";
    while let Some(line) = lines.next() {
        if let Some((_, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = text.trim_end_matches('.');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let series =
                lines.peek().filter(|line| !line.starts_with('#')).unwrap_or_else(|| panic!("{name} has no value"));
            list.insert(format!("{name}{suffix}{} {kind}: {help}\n", labels(series)));
        }
    }
    let mut text = String::from("# What `wasm-operator run` shows on /metrics: name, labels, type, help.\n");
    text.extend(list);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("metrics.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        text,
        "`UPDATE_EXPECTED=1 cargo test -p wasm-operator` renews it"
    );
}

#[test]
fn a_request_that_outlives_its_guest_leaves_no_series() {
    let (registry, metrics) = everything();
    let request = metrics.request("ring-0");
    metrics.removed("ring-0");
    metrics.set_source(Vec::new);
    request.ended(200, Duration::from_millis(1));
    assert!(!text(&registry).contains("ring-0"), "{}", text(&registry));
}

#[test]
fn a_guest_that_makes_up_status_codes_has_a_bounded_number_of_series() {
    let (registry, metrics) = everything();
    for code in 200..600 {
        metrics.request("ring-0").ended(code, Duration::ZERO);
    }
    let shown = text(&registry);
    let series = shown.lines().filter(|line| line.starts_with("wasm_operator_guest_requests_total")).count();
    assert!(series <= 33, "{series}");
}
