//! Guests in other languages than Rust: the ring's guest in JavaScript and in Python.

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use harness::ring::{self, Ring};
use harness::{
    Context as _, Guest, Host, LogLine, Output, Result, Rule, Space, anyhow, cache_arguments, command, component,
    ensure, eventually, logs_directory, output, test,
};
use serde_json::{Value, json};

/// The folders in `guests`. Each has a script `build`.
const GUESTS: [&str; 2] = ["ring-javascript", "ring-python"];
/// Names those that cannot be built on this machine, separated by spaces. `devel/test` sets it.
const SKIPPED: &str = "WASM_OPERATOR_TEST_WITHOUT";

/// The guests that are built. One that is missing is an error, unless the environment says that it will be.
fn built() -> Result<Vec<&'static str>> {
    let skipped = std::env::var(SKIPPED).unwrap_or_default();
    let (missing, built): (Vec<_>, Vec<_>) =
        GUESTS.into_iter().partition(|guest| skipped.split_whitespace().any(|skipped| skipped == *guest));
    for guest in &missing {
        // Past the capture of the test's output: a skipped test must not look like one that passed.
        writeln!(std::io::stderr(), "skipped: `{guest}` is not built on this machine")?;
    }
    compile(&built)?;
    Ok(built)
}

/// Compiles each into the cache that the hosts of this run share. An interpreter takes twenty seconds of CPU time: once for all tests.
fn compile(guests: &[&str]) -> Result<()> {
    static COMPILED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let compile = |guest: &str| {
        let component = component(guest).with_context(|| {
            format!("build it with `guests/{guest}/build`, or say `{SKIPPED}={guest}` where its compiler is missing")
        })?;
        inspect(&component, &["IN_NAMESPACE=a", "OUT_NAMESPACE=b"])?.success()
    };
    let compile = || guests.iter().try_for_each(|guest| compile(guest).map(drop)).map_err(|error| format!("{error:#}"));
    COMPILED.get_or_init(compile).clone().map_err(|error| anyhow!("{error}"))
}

/// `wasm-operator inspect` with these environment variables for the guest.
fn inspect(component: &Path, environment: &[&str]) -> Result<Output> {
    let mut command = command(&["inspect"])?;
    command.args(environment.iter().flat_map(|variable| ["-e", variable]));
    command.args(cache_arguments(&logs_directory()?.join("cache"))).arg(component);
    output(command)
}

/// A ring in which the languages take turns.
fn mixed(ring: &Ring<'_>, languages: &[&str]) -> Result<Vec<Guest>> {
    let guests = ring.guests().into_iter().zip(languages.iter().cycle());
    guests.map(|(guest, language)| Ok(guest.wasm(&component(language)?).idle_after("50ms"))).collect()
}

/// Runs a test once for each language. Its namespaces and hosts must be named after it.
fn each(body: impl AsyncFn(&Space, &str) -> Result<()>) -> Result<()> {
    test(async |space| {
        for language in built()? {
            body(space, language).await.with_context(|| format!("`{language}`"))?;
        }
        Ok(())
    })
}

/// Two namespaces, and a host with a guest that reads the first and writes the second.
async fn pair(space: &Space, language: &str, sleep: Value) -> Result<(String, String, Host)> {
    let from = space.namespace(&format!("{language}-from")).await?;
    let to = space.namespace(&format!("{language}-to")).await?;
    let guest = ring::guest(language, &from, &to).wasm(&component(language)?).set("sleep", sleep);
    let host = space.host().named(language).guest(guest).start().await?;
    host.until_ready().await?;
    Ok((from, to, host))
}

#[test]
fn a_ring_of_javascript_and_python_guests_completes_laps_asleep_in_between() -> Result<()> {
    const LAPS: i32 = 5;
    test(async |space| {
        let languages = built()?;
        if languages.is_empty() {
            return Ok(());
        }
        let ring = Ring::new(space, 4).await?;
        let host = space.host().guests(mixed(&ring, &languages)?).start().await?;
        host.until_ready().await?;
        for lap in 1..=LAPS {
            host.until_all_asleep(ring.names()).await?;
            ring.lap(lap.into()).await?;
        }
        host.until_all_asleep(ring.names()).await?;
        let metrics = host.metrics().await?;
        for guest in ring.names() {
            let wakes = metrics.sum("wasm_operator_guest_wakes_total", &[("guest", &guest), ("reason", "event")]);
            assert_eq!(wakes, f64::from(LAPS), "`{guest}` is woken once in each lap");
            assert_eq!(metrics.sum("wasm_operator_guest_traps_total", &[("guest", &guest)]), 0.0);
            assert_eq!(metrics.sum("controller_runtime_reconcile_errors_total", &[("controller", &guest)]), 0.0);
        }
        Ok(())
    })
}

#[test]
fn a_hop_of_a_guest_in_another_language_costs_one_write_and_no_read() -> Result<()> {
    each(async |space, language| {
        let (from, to, host) = pair(space, language, json!({ "mode": "Predicted" })).await?;
        let audit = space.audit().mark();
        for nonce in 1..=2 {
            ring::write(space, &from, nonce).await?;
            ring::until_nonce(space, &to, nonce).await?;
        }
        let user = host.user_of(language);
        let requests = eventually("both hops are in the audit log", async || {
            let requests = audit.events(|event| {
                event.acting_user() == user && event.resource() == ring::RESOURCE && event.is_complete()
            })?;
            ensure!(requests.iter().any(|request| request.verb == "update"), "{} requests", requests.len());
            Ok(requests)
        })
        .await?;
        let verbs: Vec<_> = requests.iter().map(|request| request.verb.as_str()).collect();
        assert_eq!(verbs, ["create", "update"]);
        Ok(())
    })
}

#[test]
fn a_guest_in_another_language_that_stays_awake_runs_out_of_nothing() -> Result<()> {
    // Many times `requestsInFlight`, and of requests, answers and streams together more than one instance may have.
    const CHANGES: i64 = 300;
    each(async |space, language| {
        let (from, to, host) = pair(space, language, json!({ "mode": "Never" })).await?;
        for nonce in 1..=CHANGES {
            ring::write(space, &from, nonce).await?;
            ring::until_nonce(space, &to, nonce).await?;
        }
        let traps = host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", language)]);
        assert_eq!(traps, 0.0);
        Ok(())
    })
}

#[test]
fn a_guest_in_another_language_reports_a_missing_namespace_and_writes_when_it_is_there() -> Result<()> {
    each(async |space, language| {
        let from = space.namespace(&format!("{language}-from")).await?;
        let missing = space.name_of(&format!("{language}-missing"));
        let guest = Guest::new(language, language)
            .env("IN_NAMESPACE", &from)
            .env("OUT_NAMESPACE", &missing)
            .grant(Rule::read(ring::GROUP, ring::RESOURCE))
            .grant(Rule::new(ring::GROUP, &[ring::RESOURCE], &["create", "update"]));
        // Roles can be given only in namespaces that are there.
        let host = space.host().named(language).watching_everywhere().guest(guest).start().await?;
        ring::write(space, &from, 1).await?;
        let failed = |line: &LogLine| line.is_of(language) && line.text().contains(&missing) && line.level() == "WARN";
        host.log().wait_for(2, "the failure is reported and tried again", failed).await?;
        space.namespace(&format!("{language}-missing")).await?;
        ring::until_nonce(space, &missing, 1).await?;
        let traps = host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", language)]);
        assert_eq!(traps, 0.0, "the failure is an answer of the guest, not a trap");
        Ok(())
    })
}

#[test]
fn an_overtaken_guest_in_another_language_writes_nothing_over_a_larger_nonce() -> Result<()> {
    each(async |space, language| {
        let (from, to, host) = pair(space, language, json!({ "mode": "Predicted" })).await?;
        ring::write(space, &to, 9).await?;
        ring::write(space, &from, 5).await?;
        eventually("the guest has seen the older nonce", async || {
            let done = [("controller", language), ("result", "success")];
            ensure!(host.metrics().await?.sum("controller_runtime_reconcile_total", &done) > 0.0, "no reconcile");
            Ok(())
        })
        .await?;
        ring::until_nonce(space, &to, 9).await?;
        ring::write(space, &from, 10).await?;
        ring::until_nonce(space, &to, 10).await
    })
}

#[test]
fn a_description_in_another_language_names_what_is_wrong_with_the_environment() -> Result<()> {
    test(async |_| {
        let wrong = [
            (&["IN_NAMESPACE=a"][..], "`OUT_NAMESPACE`"),
            (&["IN_NAMESPACE=a", "OUT_NAMESPACE=b", "HEAP_MEM_SIZE=90MB"], "`90MB`"),
        ];
        for guest in built()? {
            for (environment, named) in wrong {
                let output = inspect(&component(guest)?, environment)?;
                assert_eq!(output.code, 1, "{}", output.stdout);
                assert!(output.stderr.contains(named), "{}", output.stderr);
                assert!(!output.stderr.contains("trap"), "{}", output.stderr);
            }
        }
        Ok(())
    })
}
