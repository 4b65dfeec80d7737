//! Programs whose memory is written to disk while they are idle.

use std::time::Duration;

use harness::ring::{self, Ring};
use harness::{Guest, Host, LogLine, Result, ensure, eventually, test};
use serde_json::json;

/// Long enough that a program which is woken by something regular would be seen.
const QUIET: Duration = Duration::from_secs(15);

fn hibernating(guest: Guest) -> Guest {
    guest.idle_after("50ms")
}

async fn wakes(host: &Host, guest: &str, reason: &str) -> Result<f64> {
    Ok(host.metrics().await?.sum("wasm_operator_guest_wakes_total", &[("guest", guest), ("reason", reason)]))
}

/// Until the guest has been written to disk so often. Its state tells of the decision, and the disk takes its time.
async fn until_written(host: &Host, guest: &str, times: i64) -> Result<()> {
    eventually("the program is written to disk", async || {
        let count = "wasm_operator_guest_hibernation_duration_seconds_count";
        let written = host.metrics().await?.sum(count, &[("guest", guest)]);
        ensure!(written >= times as f64, "`{guest}` was written {written} of {times} times");
        Ok(())
    })
    .await
}

#[test]
fn a_ring_of_programs_makes_laps_hibernated_in_between() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 4).await?;
        let guests = ring.guests_of("ring-operator").into_iter().map(hibernating);
        let host = space.host().guests(guests).start().await?;
        for lap in 1..=5 {
            ring.lap(lap).await?;
            for guest in ring.names() {
                until_written(&host, &guest, lap).await?;
            }
        }
        let metrics = host.metrics().await?;
        for guest in ring.names() {
            let of = [("guest", &*guest)];
            assert_eq!(metrics.sum("wasm_operator_guest_traps_total", &of), 0.0);
            ensure!(metrics.sum("wasm_operator_guest_hibernation_written_bytes_total", &of) > 0.0);
            ensure!(wakes(&host, &guest, "event").await? >= 4.0);
        }
        // The last one finds the nonce where it would write it.
        let asked = metrics.sum("wasm_operator_guest_first_request_delay_seconds_count", &[]);
        ensure!(asked >= 12.0, "{asked} writes after a wake from disk");
        ensure!(metrics.sum("wasm_operator_hibernation_disk_bytes", &[]) > 0.0);
        Ok(())
    })
}

#[test]
fn a_quiet_cluster_wakes_no_program() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let guests = ring.guests_of("ring-operator").into_iter().map(hibernating);
        let host = space.host().guests(guests).start().await?;
        ring.lap(1).await?;
        host.until_all_asleep(ring.names()).await?;
        // What the lap and the start have left: debounced events, connections that are given up.
        tokio::time::sleep(Duration::from_secs(3)).await;
        host.until_all_asleep(ring.names()).await?;
        let before = all_wakes(&host, &ring).await?;
        tokio::time::sleep(QUIET).await;
        assert_eq!(all_wakes(&host, &ring).await?, before);
        ring.lap(2).await?;
        Ok(())
    })
}

#[test]
fn programs_that_have_been_quiet_for_a_while_have_their_contexts_on_disk_and_go_on() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let guests = ring.guests_of("ring-operator").into_iter().map(hibernating);
        let host = space.host().guests(guests).start().await?;
        for lap in 1..=3 {
            ring.lap(lap).await?;
            for guest in ring.names() {
                eventually("the program's contexts are written to disk", async || {
                    let count = "wasm_operator_guest_hibernation_contexts_total";
                    let written = host.metrics().await?.sum(count, &[("guest", &guest)]);
                    ensure!(written >= lap as f64, "those of `{guest}` were written {written} times in {lap} laps");
                    Ok(())
                })
                .await?;
            }
        }
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

async fn all_wakes(host: &Host, ring: &Ring<'_>) -> Result<f64> {
    let mut sum = 0.0;
    for guest in ring.names() {
        sum += host.wakes_of(&guest).await?;
    }
    Ok(sum)
}

/// A program's own timer wakes it on time, and nothing else does.
#[test]
pub(crate) fn program_timer() -> Result<()> {
    const AFTER: Duration = Duration::from_millis(1_500);
    /// The project's bound is far lower on an idle machine. Here other tests run beside.
    const LATE: f64 = 0.5;
    test(async |space| {
        let guest = hibernating(Guest::new("timer", "program_timer").env("AFTER", AFTER.as_millis()));
        let host = space.host().guest(guest).start().await?;
        let is_tick = |line: &LogLine| line.is_of("timer") && line.message() == "tick";
        for count in 1..=4 {
            host.until_state("timer", &["hibernated"]).await?;
            host.log().wait_for(count, "a tick", is_tick).await?;
        }
        let ticks = host.log().lines(is_tick);
        let at = |line: &LogLine| -> Result<f64> {
            let timestamp: jiff::Timestamp = line.field("timestamp").unwrap_or_default().parse()?;
            Ok(timestamp.as_millisecond() as f64 / 1e3)
        };
        for pair in ticks.windows(2) {
            let [one, other] = pair else { continue };
            let late = at(other)? - at(one)? - AFTER.as_secs_f64();
            ensure!((-0.1..LATE).contains(&late), "{late} s late");
        }
        ensure!(wakes(&host, "timer", "timer").await? >= 3.0);
        assert_eq!(wakes(&host, "timer", "event").await?, 0.0);
        Ok(())
    })
}

/// Memory is so short that the program is not kept until its timer is due, and it needs so much that reading ahead pays.
#[test]
fn a_program_is_read_ahead_of_its_timer() -> Result<()> {
    const TOUCHES_MIB: u32 = 16;
    test(async |space| {
        let guest = Guest::new("timer", "program_timer").env("AFTER", 2_000).env("TOUCHES", TOUCHES_MIB);
        let guest = guest.set("sleep", json!({ "mode": "Predicted" }));
        let host = space.host().guest(guest).argument("--memory-budget=1").start().await?;
        eventually("it is read ahead", async || {
            let read_ahead = "wasm_operator_guest_hibernation_read_ahead_bytes_total";
            let bytes = host.metrics().await?.sum(read_ahead, &[("guest", "timer")]);
            ensure!(bytes >= f64::from(TOUCHES_MIB << 20), "{bytes} bytes were");
            Ok(())
        })
        .await?;
        ensure!(wakes(&host, "timer", "predicted").await? >= 1.0);
        let is_tick = |line: &LogLine| line.is_of("timer") && line.message() == "tick";
        let ticks = host.log().lines(is_tick).len();
        host.log().wait_for(ticks + 2, "two more ticks", is_tick).await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", "timer")]), 0.0);
        Ok(())
    })
}

#[test]
fn a_program_that_does_not_fit_on_disk_stays_awake_and_works() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let guests = ring.guests_of("ring-operator").into_iter().map(hibernating);
        let host = space.host().guests(guests).argument("--hibernation-budget").argument("4096").start().await?;
        ring.lap(1).await?;
        for guest in ring.names() {
            eventually("the failure is counted", async || {
                let of = [("guest", &*guest)];
                let failures = host.metrics().await?.sum("wasm_operator_guest_hibernation_failures_total", &of);
                ensure!(failures >= 1.0, "{failures}");
                Ok(())
            })
            .await?;
            host.until_state(&guest, &["awake"]).await?;
        }
        let said = |line: &LogLine| line.text().contains("stays awake") && line.level() == "WARN";
        ensure!(!host.log().lines(said).is_empty(), "nobody is told");
        ring.lap(2).await?;
        Ok(())
    })
}

#[test]
fn a_program_that_may_not_be_written_to_disk_never_is() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 2).await?;
        let awake =
            |guest: Guest| guest.set("sleep", json!({ "mode": "Fixed", "idleAfter": "50ms", "hibernate": false }));
        let guests = ring.guests_of("ring-operator").into_iter().map(awake);
        let host = space.host().guests(guests).start().await?;
        ring.lap(1).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let metrics = host.metrics().await?;
        for guest in ring.names() {
            host.until_state(&guest, &["awake"]).await?;
        }
        assert_eq!(metrics.sum("wasm_operator_guest_hibernation_duration_seconds_count", &[]), 0.0);
        Ok(())
    })
}

async fn on_disk(host: &Host) -> Result<f64> {
    Ok(host.metrics().await?.sum("wasm_operator_hibernation_disk_bytes", &[]))
}

#[test]
fn a_program_that_may_no_longer_be_written_to_disk_leaves_it() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 2).await?;
        let mut guests: Vec<_> = ring.guests_of("ring-operator").into_iter().map(hibernating).collect();
        let mut host = space.host().guests(guests.clone()).start().await?;
        ring.lap(1).await?;
        for guest in ring.names() {
            until_written(&host, &guest, 1).await?;
        }
        let before = on_disk(&host).await?;
        guests[0] = guests[0].clone().set("sleep", json!({ "mode": "Fixed", "idleAfter": "50ms", "hibernate": false }));
        host.configure(&guests).await?;
        host.until_state("ring-0", &["awake"]).await?;
        ring.lap(2).await?;
        until_written(&host, "ring-1", 2).await?;
        host.until_state("ring-0", &["awake"]).await?;
        let after = on_disk(&host).await?;
        ensure!(after < before, "{after} of {before} bytes are on disk");
        Ok(())
    })
}

#[test]
fn a_killed_host_leaves_nothing_of_its_programs_on_disk() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let guests: Vec<_> = ring.guests_of("ring-operator").into_iter().map(hibernating).collect();
        let directory = space.directory().join("hibernation");
        let host = space.host().guests(guests).argument("--hibernation-directory");
        let mut host = host.argument(directory.display().to_string()).start().await?;
        ring.lap(1).await?;
        host.until_state("ring-1", &["hibernated"]).await?;
        host.kill()?;
        let left: Vec<_> = std::fs::read_dir(&directory)?.collect();
        ensure!(left.is_empty(), "{left:?}");
        host.start().await?;
        ring::write(space, &ring.namespaces()[0], 2).await?;
        ring.arrived(2).await
    })
}
