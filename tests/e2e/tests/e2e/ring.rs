//! The ring benchmark as a test of everything at once.

use harness::ring::{self, Ring};
use harness::{Random, Result, Rule, ensure, eventually, test};

#[test]
fn ten_laps_complete_with_all_guests_asleep_in_between() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 5).await?;
        let host = space.host().guests(ring.guests().into_iter().map(|guest| guest.idle_after("50ms"))).start().await?;
        host.until_ready().await?;
        for lap in 1..=10 {
            host.until_all_asleep(ring.names()).await?;
            ring.lap(lap).await?;
        }
        host.until_all_asleep(ring.names()).await?;
        let metrics = host.metrics().await?;
        for guest in ring.names() {
            let wakes = metrics.sum("wasm_operator_guest_wakes_total", &[("guest", &guest), ("reason", "event")]);
            assert_eq!(wakes, 10.0, "`{guest}` is woken once in each lap");
            assert_eq!(metrics.sum("wasm_operator_guest_traps_total", &[("guest", &guest)]), 0.0);
            assert_eq!(metrics.sum("controller_runtime_reconcile_errors_total", &[("controller", &guest)]), 0.0);
        }
        Ok(())
    })
}

#[test]
fn killed_at_twenty_random_points_of_its_laps_the_host_completes_each() -> Result<()> {
    const SIZE: u64 = 6;
    test(async |space| {
        let mut random = Random::from_environment();
        let ring = Ring::new(space, 6).await?;
        let mut host = space.host().guests(ring.guests()).start().await?;
        for nonce in 1..=20 {
            ring.send(nonce).await?;
            // Just after a hop, plus a part of one.
            let point = usize::try_from(random.below(SIZE))?;
            ring::until_nonce(space, &ring.namespaces()[point], nonce).await?;
            tokio::time::sleep(std::time::Duration::from_micros(random.below(4_000))).await;
            host.kill()?;
            host.start().await?;
            ring.arrived(nonce).await?;
        }
        Ok(())
    })
}

#[test]
fn a_hop_costs_one_write_and_at_most_one_read() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 4).await?;
        let host = space.host().guests(ring.guests().into_iter().map(|guest| guest.idle_after("50ms"))).start().await?;
        ring.lap(1).await?;
        host.until_all_asleep(ring.names()).await?;
        let audit = space.audit().mark();
        ring.lap(2).await?;
        host.until_all_asleep(ring.names()).await?;

        // The last guest ends the lap without a word.
        for guest in ["ring-0", "ring-1", "ring-2"] {
            let user = host.user_of(guest);
            let requests = eventually("the hop is in the audit log", async || {
                let requests = audit.events(|event| event.acting_user() == user && event.is_complete())?;
                ensure!(requests.iter().any(|request| request.verb == "update"), "{} requests", requests.len());
                Ok(requests)
            })
            .await?;
            let writes = requests.iter().filter(|request| request.verb == "update").count();
            let reads = requests.iter().filter(|request| ["get", "list"].contains(&request.verb.as_str())).count();
            assert_eq!(writes, 1, "{requests:?}");
            assert!(reads <= 1, "{requests:?}");
        }
        let last = host.user_of("ring-3");
        assert!(audit.events(|event| event.acting_user() == last && event.resource() == ring::RESOURCE)?.is_empty());
        Ok(())
    })
}

#[test]
fn a_missing_namespace_delays_the_lap_until_it_is_there() -> Result<()> {
    test(async |space| {
        let (first, missing) = (space.namespace("first").await?, space.name_of("missing"));
        let guest = harness::Guest::new("ring-0", "ring")
            .env("IN_NAMESPACE", &first)
            .env("OUT_NAMESPACE", &missing)
            .grant(Rule::read(ring::GROUP, ring::RESOURCE))
            .grant(Rule::new(ring::GROUP, &[ring::RESOURCE], &["create", "update"]));
        let host = space.host().guest(guest).watching_everywhere().start().await?;
        ring::write(space, &first, 1).await?;
        let failed =
            |line: &harness::LogLine| line.is_of("ring-0") && line.text().contains(&missing) && line.level() == "WARN";
        host.log().wait_for(2, "the failure is reported and tried again", failed).await?;
        space.namespace("missing").await?;
        ring::until_nonce(space, &missing, 1).await
    })
}

#[test]
fn an_overtaken_nonce_does_not_overwrite_a_newer_one() -> Result<()> {
    test(async |space| {
        let (from, to) = (space.namespace("from").await?, space.namespace("to").await?);
        let host = space.host().guest(ring::guest("ring-0", &from, &to)).start().await?;
        ring::write(space, &to, 9).await?;
        ring::write(space, &from, 5).await?;
        eventually("the guest has seen the older nonce", async || {
            let done = [("controller", "ring-0"), ("result", "success")];
            ensure!(host.metrics().await?.sum("controller_runtime_reconcile_total", &done) > 0.0, "no reconcile");
            Ok(())
        })
        .await?;
        ring::until_nonce(space, &to, 9).await?;
        ring::write(space, &from, 10).await?;
        ring::until_nonce(space, &to, 10).await?;
        assert_eq!(host.metrics().await?.sum("controller_runtime_reconcile_errors_total", &[]), 0.0);
        Ok(())
    })
}
