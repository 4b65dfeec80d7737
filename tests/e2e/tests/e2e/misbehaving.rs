//! Every program of `tests/misbehaving`, one test each, beside a neighbour that does its work.
//!
//! Each misbehaviour is reported (log and metric), the guest is started again after a pause and works again when it is told to behave, the host lives on,
//! and the neighbour's round trips stay within their bound meanwhile.

use std::time::Duration;

use harness::programs::{self, Objects, answers, reconciles, until_reconcile, until_ticks};
use harness::{
    Guest, Host, Latencies, LogLine, Memory, Result, Rule, Space, bail, component, documents, ensure, eventually, test,
    until_object,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use serde_json::json;

/// Round trips of the neighbour before, and at least so many during.
const SAMPLES: usize = 15;
/// What the neighbour's middle round trip may take more than before. A guest that is not interrupted holds its thread for a second, and a host that waits
/// for a compiler for longer; other tests run beside this one and are no more than this.
const SLACK: Duration = Duration::from_millis(60);
/// How much the host may grow while a guest misbehaves within limits of 256 MiB, which are gone with its instance.
const GROWTH_KIB: u64 = 64 << 10;

/// A host with a guest that misbehaves and one that does not.
struct Stage<'a> {
    space: &'a Space,
    host: Host,
    bad: Objects,
    neighbour: Objects,
    before: Latencies,
    memory: Memory,
    count: usize,
}

impl<'a> Stage<'a> {
    /// A stage whose guest can be described, and so has its rights.
    async fn new(space: &'a Space, program: &str, adapt: impl FnOnce(Guest) -> Guest) -> Result<Self> {
        let (mut stage, guests) = Self::set(space, program, adapt).await?;
        stage.host.configure(&guests).await?;
        Ok(stage)
    }

    /// A stage whose guest cannot be described, so that nobody can tell what rights it needs.
    async fn with_broken(space: &'a Space, program: &str, adapt: impl FnOnce(Guest) -> Guest) -> Result<Self> {
        let (stage, guests) = Self::set(space, program, adapt).await?;
        stage.host.write_config(&documents(&guests)?)?;
        Ok(stage)
    }

    async fn set(space: &'a Space, program: &str, adapt: impl FnOnce(Guest) -> Guest) -> Result<(Self, [Guest; 2])> {
        let (bad, good) = (space.namespace("bad").await?, space.namespace("good").await?);
        let guest = adapt(programs::guest("bad", program, &[&bad])).idle_after("50ms");
        let host = space.host().guest(programs::guest("neighbour", "probe", &[&good])).start().await?;
        let neighbour = Objects::new(space, &good, "probe");
        let mut stage = Self {
            space,
            bad: Objects::new(space, &bad, program),
            neighbour,
            before: Latencies::default(),
            memory: host.memory()?,
            count: 0,
            host,
        };
        // The first round trip waits for the neighbour's component to be compiled.
        stage.round_trip().await?;
        for _ in 0..SAMPLES {
            let sample = stage.round_trip().await?;
            stage.before.add(sample);
        }
        stage.memory = stage.host.memory()?;
        Ok((stage, [programs::guest("neighbour", "probe", &[&good]), guest]))
    }

    async fn round_trip(&mut self) -> Result<Duration> {
        self.count += 1;
        self.neighbour.round_trip("object", &self.count.to_string()).await
    }

    /// Measures the neighbour until `what` has happened, and longer if that was soon.
    async fn neighbour_is_served_until(
        &mut self,
        what: &str,
        happened: impl AsyncFn(&Host) -> Result<bool>,
    ) -> Result<()> {
        let mut during = Latencies::default();
        let deadline = tokio::time::Instant::now() + harness::PATIENCE;
        loop {
            let sample = self.round_trip().await?;
            during.add(sample);
            if during.len() >= SAMPLES && happened(&self.host).await? {
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "not within {} s: {what}", harness::PATIENCE.as_secs());
        }
        let most = self.before.median() * 3 + SLACK;
        ensure!(during.median() <= most, "the neighbour waits: {during} during, {} before", self.before);
        Ok(())
    }

    /// The guest traps with this kind each time that it is started, and behaves when it is told to.
    async fn breaks_off(mut self, kind: &str) -> Result<()> {
        let log = self.host.log().mark();
        self.bad.write_value("object", "1").await?;
        let of_kind = [("guest", "bad"), ("kind", kind)];
        let twice =
            async |host: &Host| Ok(host.metrics().await?.sum("wasm_operator_guest_traps_total", &of_kind) >= 2.0);
        self.neighbour_is_served_until("the guest breaks off twice", twice).await?;
        let reported =
            log.wait_for(2, "both are reported", |line| line.is_of("bad") && line.field("kind") == Some(kind)).await?;
        assert!(reported.iter().all(|line| line.level() == "ERROR"), "{reported:?}");
        let [first, second, ..] = reported.as_slice() else { bail!("{reported:?}") };
        let pause = seconds(second)? - seconds(first)?;
        assert!(pause >= 0.8, "started again after {pause} s");
        self.behaves_again().await
    }

    /// The program ends with this kind each time that it is started, and behaves when its configuration tells it to.
    async fn program_breaks_off(mut self, program: &str, kind: &str) -> Result<()> {
        let log = self.host.log().mark();
        let of_kind = [("guest", "bad"), ("kind", kind)];
        let twice =
            async |host: &Host| Ok(host.metrics().await?.sum("wasm_operator_guest_traps_total", &of_kind) >= 2.0);
        self.neighbour_is_served_until("the program breaks off twice", twice).await?;
        let reported = |line: &LogLine| line.is_of("bad") && line.field("kind") == Some(kind);
        let reported = self.host.log().wait_for(2, "both are reported", reported).await?;
        let [first, second, ..] = reported.as_slice() else { bail!("{reported:?}") };
        let pause = seconds(second)? - seconds(first)?;
        assert!(pause >= 0.8, "started again after {pause} s");
        let good = programs::guest("neighbour", "probe", &[&self.space.name_of("good")]);
        let bad = programs::guest("bad", program, &[&self.space.name_of("bad")]).env("BEHAVE", "well");
        self.host.configure(&[good, bad]).await?;
        log.wait("the program works", |line| line.is_of("bad") && line.message().contains("behaves well")).await?;
        self.host.until_state("bad", &["awake", "hibernated"]).await?;
        self.lives_on().await
    }

    /// The guest ends by itself, with a message that holds this word.
    async fn fails_with(mut self, word: &str) -> Result<()> {
        let log = self.host.log().mark();
        self.bad.write_value("object", "1").await?;
        let failed = |line: &LogLine| line.is_of("bad") && line.level() == "ERROR";
        self.neighbour_is_served_until("the guest fails", async |_| Ok(!log.lines(failed).is_empty())).await?;
        let reported = log.wait("the failure is reported", failed).await?;
        assert!(reported.text().contains(word), "no `{word}` in {}", reported.text());
        self.behaves_again().await
    }

    /// The guest never starts; the reason holds this word.
    async fn never_starts(mut self, word: &str) -> Result<()> {
        let refused = |line: &LogLine| line.is_of("bad") && line.level() == "ERROR";
        let log = self.host.log().clone();
        self.neighbour_is_served_until("the guest is refused", async |_| Ok(!log.lines(refused).is_empty())).await?;
        let line = log.wait("the refusal", refused).await?;
        assert!(line.text().contains(word), "no `{word}` in {}", line.text());
        self.host.until_state("bad", &["failed"]).await?;
        eventually("it is counted", async || {
            let count = self.host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", "bad")]);
            ensure!(count >= 1.0, "{count}");
            Ok(())
        })
        .await?;
        self.lives_on().await
    }

    async fn behaves_again(mut self) -> Result<()> {
        let log = self.host.log().mark();
        self.bad.write("object", &[("behave", "well")]).await?;
        log.wait("the guest works again", |line| line.is_of("bad") && line.message().contains("behaves well")).await?;
        self.lives_on().await
    }

    async fn lives_on(&mut self) -> Result<()> {
        self.host.assert_alive()?;
        assert_eq!(self.host.get("/livez").await?.0, 200);
        self.round_trip().await?;
        let (before, memory) = (self.memory, &self.host);
        eventually("the host's memory is where it was", async || {
            let now = memory.memory()?;
            ensure!(now.anonymous < before.anonymous + GROWTH_KIB, "{before:?} before, {now:?} after");
            Ok(())
        })
        .await
    }
}

fn seconds(line: &LogLine) -> Result<f64> {
    let timestamp: jiff::Timestamp = line.field("timestamp").unwrap_or_default().parse()?;
    Ok(timestamp.as_millisecond() as f64 / 1e3)
}

fn as_it_is(guest: Guest) -> Guest {
    guest
}

/// Objects in the guest's namespace that add up to so many MiB.
async fn fill(stage: &Stage<'_>, mebibytes: usize) -> Result<()> {
    for number in 0..mebibytes {
        Objects::new(stage.space, &stage.space.name_of("bad"), "nobody")
            .write_value(&format!("large-{number}"), &"x".repeat(1 << 20))
            .await?;
    }
    Ok(())
}

#[test]
fn trap() -> Result<()> {
    test(async |space| Stage::new(space, "trap", as_it_is).await?.breaks_off("trap").await)
}

#[test]
fn endless_loop() -> Result<()> {
    test(async |space| Stage::new(space, "endless_loop", as_it_is).await?.breaks_off("cpu-limit").await)
}

#[test]
fn endless_loop_in_describe() -> Result<()> {
    test(async |space| {
        Stage::with_broken(space, "endless_loop_in_describe", as_it_is).await?.never_starts("describe").await
    })
}

#[test]
fn memory_bomb() -> Result<()> {
    test(async |space| Stage::new(space, "memory_bomb", as_it_is).await?.breaks_off("memory-limit").await)
}

#[test]
fn deep_recursion() -> Result<()> {
    test(async |space| Stage::new(space, "deep_recursion", as_it_is).await?.breaks_off("stack-limit").await)
}

#[test]
fn resource_flood() -> Result<()> {
    test(async |space| Stage::new(space, "resource_flood", as_it_is).await?.breaks_off("resource-limit").await)
}

#[test]
fn request_flood() -> Result<()> {
    test(async |space| Stage::new(space, "request_flood", as_it_is).await?.breaks_off("request-limit").await)
}

#[test]
fn huge_request() -> Result<()> {
    test(async |space| Stage::new(space, "huge_request", as_it_is).await?.fails_with("RequestBodySize").await)
}

#[test]
fn huge_response() -> Result<()> {
    test(async |space| {
        let stage = Stage::new(space, "huge_response", |guest| guest.limit("responseBytes", 3 << 20)).await?;
        fill(&stage, 6).await?;
        stage.fails_with("ResponseBodySize").await
    })
}

#[test]
fn never_ending_response() -> Result<()> {
    test(async |space| {
        let stage =
            Stage::new(space, "never_ending_response", |guest| guest.limit("requestMilliseconds", 2_000)).await?;
        stage.fails_with("Timeout").await
    })
}

#[test]
fn log_flood() -> Result<()> {
    test(async |space| {
        let mut stage =
            Stage::new(space, "log_flood", |guest| guest.limit("logLinesPerSecond", 100).limit("logLineBytes", 1_000))
                .await?;
        let log = stage.host.log().mark();
        let start = tokio::time::Instant::now();
        stage.bad.write_value("object", "1").await?;
        let done = async |host: &Host| {
            Ok(host.metrics().await?.sum("controller_runtime_reconcile_total", &[("controller", "bad")]) >= 1.0)
        };
        stage.neighbour_is_served_until("the flood is over", done).await?;
        let lines = log.lines(|line| line.is_of("bad") && line.field("stream").is_some());
        let most = 200 + 100 * (start.elapsed().as_secs() as usize + 1);
        assert!(lines.len() <= most, "{} lines passed", lines.len());
        assert!(lines.iter().all(|line| line.message().len() < 2_000), "a line of a few MiB passed");
        // The next line says how many are missing.
        stage.bad.write("object", &[("behave", "well")]).await?;
        let dropped = log
            .wait("the dropped lines are counted", |line| {
                line.is_of("bad") && line.text().contains("logLinesPerSecond")
            })
            .await?;
        assert_eq!(dropped.level(), "WARN");
        stage.lives_on().await
    })
}

#[test]
fn wrong_version() -> Result<()> {
    test(async |space| Stage::with_broken(space, "wrong_version", as_it_is).await?.never_starts("9.9.0").await)
}

#[test]
fn no_exports() -> Result<()> {
    test(async |space| Stage::with_broken(space, "no_exports", as_it_is).await?.never_starts("export").await)
}

#[test]
fn garbage_file() -> Result<()> {
    test(async |space| {
        let file = space.directory().join("garbage.wasm");
        std::fs::write(&file, (0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
        Stage::with_broken(space, "", |guest| guest.wasm(&file))
            .await?
            .never_starts("is not a WebAssembly component")
            .await
    })
}

#[test]
fn truncated_component() -> Result<()> {
    test(async |space| {
        let file = space.directory().join("truncated.wasm");
        let whole = std::fs::read(component("recorder")?)?;
        std::fs::write(&file, &whole[..whole.len() / 2])?;
        Stage::with_broken(space, "", |guest| guest.wasm(&file)).await?.never_starts("truncated.wasm").await
    })
}

#[test]
fn truncated_code_in_the_cache() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let cache = space.directory().join("cache");
        let guest = programs::guest("recorder", "recorder", &[&namespace]).idle_after("50ms");
        let mut host = space.host().guest(guest).cache(&cache).start().await?;
        let objects = Objects::new(space, &namespace, "recorder");
        objects.write_value("object", "1").await?;
        until_reconcile(host.log(), "recorder", "the object", |seen| seen.value.as_deref() == Some("1")).await?;
        host.terminate()?;
        host.wait().await?;

        let compiled: Vec<_> = std::fs::read_dir(&cache)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "cwasm"))
            .collect();
        assert_eq!(compiled.len(), 1, "{compiled:?}");
        let whole = std::fs::read(&compiled[0])?;
        let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 0xFF;
        for (value, damage) in (2..).zip(["half", "empty", "start", "middle", "end"]) {
            let mut bytes = whole.clone();
            match damage {
                "half" => bytes.truncate(whole.len() / 2),
                "empty" => bytes.clear(),
                "start" => flip(&mut bytes, 0),
                "middle" => flip(&mut bytes, whole.len() / 2),
                _ => flip(&mut bytes, whole.len() - 1),
            }
            std::fs::write(&compiled[0], bytes)?;
            let log = host.log().mark();
            host.start().await?;
            objects.write_value("object", &value.to_string()).await?;
            until_reconcile(&log, "recorder", damage, |seen| seen.value.as_deref() == Some(&*value.to_string()))
                .await?;
            host.terminate()?;
            assert!(host.wait().await?.success(), "{damage}");
            assert_eq!(std::fs::read(&compiled[0])?, whole, "it was not compiled again after: {damage}");
        }
        Ok(())
    })
}

#[test]
fn probe() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("probe", "probe", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "probe");
        objects.round_trip("object", "1").await?;
        objects.round_trip("object", "2").await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

/// What becomes of it when it is dropped in between is shown in `crashes`.
#[test]
fn forgetful() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("forgetful", "forgetful", &[&namespace])).start().await?;
        let objects = Objects::new(space, &namespace, "forgetful");
        objects.write("object", &[("children", "3")]).await?;
        let made = |object: Option<&ConfigMap>| {
            object.and_then(|object| object.data.as_ref()?.get("made")).is_some_and(|made| made == "3")
        };
        until_object(objects.api(), "object", "it has made three", made).await?;
        let all = objects.api().list(&ListParams::default()).await?;
        let generated = all.iter().filter(|one| one.metadata.generate_name.as_deref() == Some("object-"));
        assert_eq!(generated.count(), 3);
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

#[test]
fn recorder() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("recorder", "recorder", &[&namespace])).start().await?;
        let object = Objects::new(space, &namespace, "recorder").write_value("object", "1").await?;
        let seen = until_reconcile(host.log(), "recorder", "the object", |_| true).await?;
        assert_eq!((seen.uid, seen.resource_version), (object.metadata.uid, object.metadata.resource_version));
        assert_eq!(reconciles(host.log(), "recorder").len(), 1);
        Ok(())
    })
}

#[test]
fn requester() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space
            .host()
            .guest(programs::guest("requester", "requester", &[&namespace]).env("ANSWERS", "log"))
            .start()
            .await?;
        let objects = Objects::new(space, &namespace, "requester");
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/object");
        let answers = answers(
            host.log(),
            "requester",
            &objects,
            "object",
            &[json!({ "path": path }), json!({ "path": format!("{path}-missing") })],
        )
        .await?;
        assert_eq!((answers[0].status, answers[1].status), (200, 404));
        Ok(())
    })
}

#[test]
fn concurrent() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        // It watches all namespaces.
        let guest = Guest::new("concurrent", "concurrent").grant(Rule::read("", "configmaps"));
        let host = space.host().guest(guest).start().await?;
        // The head of this answer comes at once, its end after 3 s.
        let slow = format!("/api/v1/namespaces/{namespace}/configmaps?watch=true&timeoutSeconds=3");
        Objects::new(space, &namespace, "concurrent").write("object", &[("slow", &slow)]).await?;
        let line = host.log().wait("it has kept its promises or says which one not", |line| {
            line.is_of("concurrent")
                && (line.message().starts_with("{\"concurrent\"") || line.level() == "WARN" || line.level() == "ERROR")
        });
        let line = line.await?;
        let measured: serde_json::Value = serde_json::from_str(line.message()).unwrap_or_default();
        let late = |what: &str| measured.pointer(&format!("/concurrent/{what}")).and_then(serde_json::Value::as_u64);
        for what in ["timer", "late"] {
            ensure!(late(what).is_some_and(|microseconds| microseconds < 500_000), "{}", line.text());
        }
        Ok(())
    })
}

#[test]
fn timer() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let host = space.host().guest(programs::guest("timer", "timer", &[&namespace])).start().await?;
        host.until_ready().await?;
        Objects::new(space, &namespace, "timer").write("object", &[("after", "200")]).await?;
        let ticks = until_ticks(host.log(), "timer", 3).await?;
        assert_eq!(
            ticks.iter().map(|tick| tick.cause.as_str()).take(3).collect::<Vec<_>>(),
            ["change", "timer", "timer"]
        );
        Ok(())
    })
}

#[test]
fn observer() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = Guest::new("observer", "observer")
            .env("NAMESPACES", &namespace)
            .env("RESOURCE", "/v1/Secret/secrets")
            .grant(Rule::read("", "secrets").namespace(&namespace));
        let host = space.host().guest(guest).start().await?;
        host.until_ready().await?;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one" } });
        let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(space.client(), &namespace);
        secrets.create(&kube::api::PostParams::default(), &serde_json::from_value(secret)?).await?;
        let expected = format!("{namespace}/one");
        host.log().wait("the secret", |line| line.is_of("observer") && line.message() == expected).await?;
        Ok(())
    })
}

#[test]
fn program_trap() -> Result<()> {
    test(async |space| {
        Stage::new(space, "program_trap", as_it_is).await?.program_breaks_off("program_trap", "trap").await
    })
}

#[test]
fn program_return() -> Result<()> {
    test(async |space| {
        Stage::new(space, "program_return", as_it_is).await?.program_breaks_off("program_return", "returned").await
    })
}

#[test]
fn program_loop() -> Result<()> {
    test(async |space| {
        Stage::new(space, "program_loop", as_it_is).await?.program_breaks_off("program_loop", "cpu-limit").await
    })
}

#[test]
fn program_memory_bomb() -> Result<()> {
    test(async |space| {
        let stage = Stage::new(space, "program_memory_bomb", |guest| guest.limit("memoryBytes", 64 << 20)).await?;
        stage.program_breaks_off("program_memory_bomb", "memory-limit").await
    })
}

// Guests that serve HTTP are tested where their callers are.
use crate::front_door::{hostile_server, server};
// Programs that do no harm to their neighbours are tested with the others.
use crate::operator::{program_stray, program_timer};

macro_rules! assert_test_exists {
    ($program:ident) => {
        #[expect(unused_imports, reason = "the import is the check: a program without a test does not compile")]
        use self::$program as _;
    };
}
::misbehaving::foreach_program!(assert_test_exists);
