//! Prints the figures that the project reports of itself, each with how it was measured.
//!
//! `cargo run --release -p e2e --bin figures` takes six minutes, with `--quick` two. It needs what the end-to-end tests need, and an idle machine.

use std::fmt::Display;
use std::time::Duration;

use clap::Parser;
use harness::programs::{self, Objects, until_ticks};
use harness::ring::Ring;
use harness::{Context as _, Guest, Host, Latencies, Metrics, Result, Space, ensure, eventually};

/// Guests of the large ring.
const MANY: usize = 100;
/// Guests of the small ring.
const FEW: usize = 10;

#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer laps, and 70 s of quiet instead of 5 minutes
    #[arg(long)]
    quick: bool,
}

#[allow(clippy::print_stdout)]
fn show(name: &str, value: impl Display, how: &str) {
    println!("{name:<46} {value}\n{:<46}   ({how})", "");
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    harness::measure("figures", async |space| figures(space, &arguments).await)
}

async fn figures(space: &Space, arguments: &Arguments) -> Result<()> {
    let laps = if arguments.quick { 10 } else { 40 };
    let quiet = Duration::from_secs(if arguments.quick { 70 } else { 300 });
    show(
        "host, 0 guests, resident",
        mebibytes(empty(space).await?),
        "Rss of /proc/<pid>/smaps_rollup, ready and idle, host without a guest",
    );
    timers(space, if arguments.quick { 6 } else { 12 }).await?;
    hops(space, FEW, laps, "few").await?;
    let (ring, host) = hops(space, MANY, if arguments.quick { 2 } else { 5 }, "many").await?;
    let anonymous = asleep(&ring, &host).await?;
    wakes(&host.metrics().await?)?;
    requests(space, &ring, &host).await?;
    still(&ring, &host, quiet).await?;
    drop(host);
    awake(space, &ring, anonymous).await
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", kibibytes as f64 / 1024.0)
}

/// Waits until the memory no longer falls: freed pages go back with a delay.
async fn settled(host: &Host) -> Result<u64> {
    let mut last = host.memory()?.resident;
    eventually("the memory is settled", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = host.memory()?.resident;
        let before = std::mem::replace(&mut last, now);
        ensure!(now + 64 >= before, "{now} KiB after {before} KiB");
        Ok(now)
    })
    .await
}

async fn empty(space: &Space) -> Result<u64> {
    let host = space.host().named("empty").start().await?;
    host.until_ready().await?;
    settled(&host).await
}

/// How late timers wake sleeping guests. Each guest asks to be called again, so many times, after a time of its own.
async fn timers(space: &Space, rounds: usize) -> Result<()> {
    const GUESTS: usize = 10;
    let name = |number: usize| format!("timer-{number}");
    // Odd times, so that the guests are woken at different moments.
    let after = |number: usize| Duration::from_millis(1_000 + 37 * number as u64);
    let mut guests = Vec::new();
    let mut objects = Vec::new();
    for number in 0..GUESTS {
        let namespace = space.namespace(&name(number)).await?;
        guests.push(programs::guest(&name(number), "timer", &[&namespace]).idle_after("50ms"));
        objects.push(Objects::new(space, &namespace, "timer"));
    }
    let host = space.host().named("timers").guests(guests).start().await?;
    host.until_ready().await?;
    for (number, objects) in objects.iter().enumerate() {
        objects.write("one", &[("after", &after(number).as_millis().to_string())]).await?;
    }
    let mut late = Latencies::default();
    for number in 0..GUESTS {
        let ticks = until_ticks(host.log(), &name(number), rounds + 1).await?;
        for (before, tick) in ticks.iter().zip(ticks.iter().skip(1)).take(rounds) {
            let waited = Duration::from_micros(tick.at - before.at);
            let lateness = waited.checked_sub(after(number)).with_context(|| format!("too early: {waited:?}"))?;
            late.add(lateness);
        }
        let labels = [("guest", &*name(number)), ("reason", "timer")];
        let woken = host.metrics().await?.sum("wasm_operator_guest_wakes_total", &labels);
        ensure!(woken >= rounds as f64, "`{}` was awake at some of its timers: {woken} wakes", name(number));
    }
    show(
        "requeue-after, guest asleep, late by",
        late,
        &format!(
            "target: 10 ms at most. Time between two calls by the guest's own clock, less what it asked for: the end of \
             the first call, the timer, the wake; {GUESTS} guests, {rounds} timers each"
        ),
    );
    Ok(())
}

/// Hops with every guest asleep before each lap.
async fn hops<'a>(space: &'a Space, size: usize, laps: i64, name: &str) -> Result<(Ring<'a>, Host)> {
    let ring = Ring::named(space, name, size).await?;
    let host = space.host().named(name).guests(quick_sleep(ring.guests())).watching_everywhere().start().await?;
    host.until_ready().await?;
    let mut all = Latencies::default();
    for nonce in 1..=laps {
        host.until_all_asleep(ring.names()).await?;
        for hop in ring.hops(nonce).await? {
            all.add(hop);
        }
    }
    show(
        &format!("ring hop, {size} guests, all asleep"),
        all,
        &format!(
            "time between the writes in two neighbouring namespaces, as one watch of this program sees them; {laps} laps"
        ),
    );
    Ok((ring, host))
}

fn quick_sleep(guests: Vec<Guest>) -> Vec<Guest> {
    guests.into_iter().map(|guest| guest.idle_after("200ms")).collect()
}

/// Returns the anonymous memory in KiB.
async fn asleep(ring: &Ring<'_>, host: &Host) -> Result<u64> {
    host.until_all_asleep(ring.names()).await?;
    let resident = settled(host).await?;
    show(
        &format!("host, {MANY} ring guests asleep, resident"),
        format!("{}, of which {} anonymous", mebibytes(resident), mebibytes(host.memory()?.anonymous)),
        "Rss and Anonymous of /proc/<pid>/smaps_rollup, after the laps",
    );
    let watches = host.metrics().await?.sum("wasm_operator_watch_streams", &[]);
    show(
        &format!("upstream watches for {MANY} guests"),
        watches,
        "wasm_operator_watch_streams; the API server's audit log says the same, see the test",
    );
    Ok(host.memory()?.anonymous)
}

/// What a guest costs awake and asleep: the same host, with half of the guests and with all, asleep and awake.
async fn awake(space: &Space, ring: &Ring<'_>, anonymous_asleep: u64) -> Result<()> {
    let half = space
        .host()
        .named("half")
        .guests(quick_sleep(ring.guests()).into_iter().take(MANY / 2))
        .watching_everywhere()
        .start()
        .await?;
    half.until_ready().await?;
    half.until_all_asleep(ring.names().into_iter().take(MANY / 2)).await?;
    settled(&half).await?;
    let each = anonymous_asleep.saturating_sub(half.memory()?.anonymous) as f64 / (MANY - MANY / 2) as f64;
    show(
        "each sleeping guest, anonymous memory",
        format!("{each:.0} KiB"),
        "anonymous memory with 100 guests less that with 50, divided by 50",
    );

    let never = ring.guests().into_iter().map(|guest| guest.set("sleep", serde_json::json!({ "mode": "Never" })));
    let awake = space.host().named("awake").guests(never).watching_everywhere().start().await?;
    awake.until_ready().await?;
    // Their objects are there, so each is woken once.
    for guest in ring.names() {
        awake.until_state(&guest, &["awake"]).await?;
    }
    settled(&awake).await?;
    let each = awake.memory()?.anonymous.saturating_sub(anonymous_asleep) as f64 / MANY as f64;
    show(
        "each guest awake, anonymous memory",
        format!("{each:.0} KiB"),
        "the same with `sleep.mode: Never` after one reconcile each, less the same asleep, divided by 100",
    );
    Ok(())
}

fn wakes(metrics: &Metrics) -> Result<()> {
    let name = "wasm_operator_guest_wake_duration_seconds";
    for path in ["dormant", "cold"] {
        let labels = [("path", path)];
        let count = metrics.sum(&format!("{name}_count"), &labels);
        if count == 0.0 {
            continue;
        }
        let quantile = |quantile| metrics.quantile(name, &labels, quantile).unwrap_or_default() * 1e3;
        show(
            &format!("wake of a {path} guest, instantiate"),
            format!("p50 {:.3} ms, p95 {:.3} ms, {count} wakes", quantile(0.5), quantile(0.95)),
            &format!("histogram {name}{{path=\"{path}\"}} of the {MANY} ring guests"),
        );
    }
    let name = "controller_runtime_reconcile_time_seconds";
    let quantile = |quantile| metrics.quantile(name, &[], quantile).map(|seconds| seconds * 1e3);
    show(
        "wake, reconcile and write, inside the host",
        format!(
            "p50 {:.2} ms, p95 {:.2} ms",
            quantile(0.5).context("no reconciles")?,
            quantile(0.95).context("no reconciles")?
        ),
        &format!("histogram {name}: instantiate, reconcile, one PUT to the API server and its answer"),
    );
    Ok(())
}

async fn requests(space: &Space, ring: &Ring<'_>, host: &Host) -> Result<()> {
    host.until_all_asleep(ring.names()).await?;
    let audit = space.audit().mark();
    let nonce = 1_000;
    ring.lap(nonce).await?;
    host.until_all_asleep(ring.names()).await?;
    let users: Vec<_> = ring.names().iter().map(|guest| host.user_of(guest)).collect();
    let hops = MANY - 1;
    let count = eventually("all writes are in the audit log", async || {
        let events =
            audit.events(|event| event.is_complete() && users.iter().any(|user| user == event.acting_user()))?;
        let writes = events.iter().filter(|event| event.verb == "update").count();
        ensure!(writes >= hops, "{writes} writes");
        Ok((writes, events.len() - writes))
    })
    .await?;
    let each = |count: usize| count as f64 / hops as f64;
    show(
        "API requests per hop",
        format!("{:.2} writes, {:.2} others", each(count.0), each(count.1)),
        "the API server's audit log of one lap of 100 guests, requests in the guests' names",
    );
    Ok(())
}

async fn still(ring: &Ring<'_>, host: &Host, time: Duration) -> Result<()> {
    host.until_all_asleep(ring.names()).await?;
    let wakes = async || Ok::<_, harness::Error>(host.metrics().await?.sum("wasm_operator_guest_wakes_total", &[]));
    let (before, cpu) = (wakes().await?, host.cpu()?);
    tokio::time::sleep(time).await;
    let used = host.cpu()?.saturating_sub(cpu);
    let woken = wakes().await? - before;
    let seconds = time.as_secs();
    show(
        &format!("CPU of {MANY} quiet guests over {seconds} s"),
        format!("{:.3} % of a core", 100.0 * used.as_secs_f64() / time.as_secs_f64()),
        "user and system time of /proc/<pid>/stat",
    );
    show("wake-ups in that time", woken, "wasm_operator_guest_wakes_total");
    Ok(())
}
