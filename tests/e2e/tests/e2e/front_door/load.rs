//! Guests and callers that are slow, large, many, or broken: what becomes of their requests, and that others notice nothing.

use std::time::Duration;

use futures::future::join_all;
use harness::programs::Objects;
use harness::{HttpClient, Result, bail, ensure, eventually, programs, test};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Stage, serving};

#[test]
pub(crate) fn server() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest =
            serving("server", "server", &namespace).set("serve", json!({"requestBytes": 1000, "milliseconds": 1500}));
        let stage = Stage::new(space, [guest]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let send = async |bytes: usize, headers: &[(&str, &str)]| {
            stage.client.send("POST", "/guests/server/", headers, vec![b'x'; bytes]).await
        };
        assert_eq!(send(1000, &[]).await?.json()?["bytes"], json!(1000));
        let large = send(1001, &[]).await?;
        assert_eq!((large.status, large.json()?["reason"].clone()), (413, json!("RequestEntityTooLarge")));

        let late = stage.client.get("/guests/server/slow?milliseconds=60000").await?;
        assert_eq!(late.status, 504, "{}", late.text());
        assert!(late.text().contains("did not answer within 1500 ms"), "{}", late.text());
        // A slow answer is no fault: the guest is not held back.
        assert_eq!(stage.client.get("/guests/server/").await?.status, 200);
        Ok(())
    })
}

#[test]
fn a_guest_that_breaks_off_is_502_and_is_started_again_after_a_pause() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guests =
            ["trap", "spin", "exit"].map(|name| serving(name, "server", &namespace).limit("cpuMilliseconds", 200));
        let stage = Stage::new(space, guests).await?;
        for (guest, kind) in [("trap", "trap"), ("spin", "cpu-limit"), ("exit", "exit")] {
            let path = format!("/guests/{guest}/");
            stage.until_code(&path, 200).await?;
            let answer = stage.client.get(&format!("{path}{guest}")).await?;
            assert_eq!((answer.status, answer.json()?["reason"].clone()), (502, json!("GuestFailed")), "{guest}");
            assert!(!answer.text().contains("wasm trap"), "the guest's words are for the log: {}", answer.text());
            let held = stage.client.get(&path).await?;
            assert_eq!(held.status, 503, "{guest}: {}", held.text());
            assert!(held.header("retry-after").parse::<u32>()? >= 1);
            stage.until_code(&path, 200).await?;
            let traps =
                stage.host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", guest), ("kind", kind)]);
            assert_eq!(traps, 1.0, "{guest}");
        }
        Ok(())
    })
}

#[test]
pub(crate) fn hostile_server() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let limits = json!({"responseBytes": 200_000, "milliseconds": 20_000});
        let guest = serving("hostile", "hostile_server", &namespace).set("serve", limits);
        let stage = Stage::new(space, [guest]).await?;
        let path = |rest: &str| format!("/guests/hostile/{rest}");
        stage.until_code(&path("ok"), 200).await?;
        for rest in ["endless", "short"] {
            let answer = stage.client.begin("GET", &path(rest), &[], Vec::new()).await?;
            assert_eq!(answer.status(), 200, "{rest}");
            ensure!(answer.into_body().collect().await.is_err(), "{rest} has a complete body");
        }
        for (rest, code) in [("none", 502), ("error", 502), ("interim", 502), ("headers", 200)] {
            let answer = stage.client.get(&path(rest)).await?;
            assert_eq!(answer.status, code, "{rest}: {}", answer.text());
        }
        // None of these holds the guest back, and no handle that it keeps does harm.
        for _ in 0..50 {
            assert_eq!(stage.client.get(&path("leak")).await?.text(), "ok");
        }
        assert_eq!(stage.client.get(&path("after")).await?.text(), "ok");
        stage
            .host
            .log()
            .wait("the work after the answer", |line| line.is_of("hostile") && line.message() == "after")
            .await?;
        // A trap must not look like the end of a body.
        let answer = stage.client.begin("GET", &path("trap-in-body"), &[], Vec::new()).await?;
        assert_eq!(answer.status(), 200);
        ensure!(answer.into_body().collect().await.is_err(), "the cut-off body looks complete");
        stage.until_code(&path("ok"), 200).await?;
        Ok(())
    })
}

#[test]
fn a_flood_for_one_guest_is_429_and_others_are_served_meanwhile() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let flooded = serving("flooded", "server", &namespace).set("serve", json!({"concurrency": 2, "queue": 3}));
        let guests =
            [flooded, serving("other", "server", &namespace), programs::guest("probe", "probe", &[&namespace])];
        let stage = Stage::new(space, guests).await?;
        for guest in ["flooded", "other"] {
            stage.until_code(&format!("/guests/{guest}/"), 200).await?;
        }
        // Two of them are served and three wait, until the flood is over.
        let holding: Vec<_> = (0..5)
            .map(|_| {
                let client = stage.client.clone();
                tokio::spawn(async move { client.get("/guests/flooded/slow?milliseconds=8000").await })
            })
            .collect();
        eventually("two are served and three wait", async || {
            let metrics = stage.host.metrics().await?;
            let count = |phase| {
                metrics.sum("wasm_operator_guest_requests_in_flight", &[("guest", "flooded"), ("phase", phase)])
            };
            ensure!((count("serving"), count("waiting")) == (2.0, 3.0), "{} {}", count("serving"), count("waiting"));
            Ok(())
        })
        .await?;
        let flood = join_all((0..40).map(|_| stage.client.get("/guests/flooded/"))).await;
        for answer in flood {
            let answer = answer?;
            assert_eq!((answer.status, answer.header("retry-after")), (429, "1"), "{}", answer.text());
        }
        assert_eq!(stage.client.get("/guests/other/").await?.status, 200);
        Objects::new(space, &namespace, "probe").round_trip("one", "1").await?;
        for answer in holding {
            assert_eq!(answer.await??.status, 200);
        }
        Ok(())
    })
}

#[test]
fn a_caller_that_leaves_gives_its_place_back() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = serving("server", "server", &namespace)
            .set("serve", json!({"concurrency": 1, "queue": 1, "milliseconds": 600_000}));
        let stage = Stage::new(space, [guest]).await?;
        stage.until_code("/guests/server/", 200).await?;
        for _ in 0..3 {
            let began = stage.host.log().mark();
            let client = stage.client.clone();
            let leaver = tokio::spawn(async move { client.get("/guests/server/slow?milliseconds=500000").await });
            began.wait("the request", |line| line.message() == "serving /slow").await?;
            leaver.abort();
        }
        // Were it not given back, this would wait for ten minutes.
        assert_eq!(stage.client.get("/guests/server/").await?.status, 200);
        let traps = stage.host.metrics().await?.sum("wasm_operator_guest_traps_total", &[("guest", "server")]);
        assert_eq!(traps, 0.0, "whoever leaves is no fault of the guest");
        Ok(())
    })
}

#[test]
fn callers_that_send_nothing_or_half_keep_nobody_out() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let mut silent = Vec::new();
        for number in 0..60 {
            let mut stream = TcpStream::connect(stage.address).await?;
            if number % 2 == 0 {
                stream.write_all(b"GET /guests/server/ HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
            }
            silent.push(stream);
        }
        assert_eq!(stage.client.get("/guests/server/").await?.status, 200);
        // They are let go after a while, without an answer from a guest.
        for mut stream in silent {
            let mut rest = Vec::new();
            match tokio::time::timeout(harness::PATIENCE, stream.read_to_end(&mut rest)).await {
                Ok(Ok(_) | Err(_)) => assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest)),
                Err(_) => bail!("a silent connection is still open"),
            }
        }
        Ok(())
    })
}

#[test]
fn a_body_that_trickles_occupies_no_place_of_the_guest() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = serving("server", "server", &namespace).set("serve", json!({"concurrency": 1, "queue": 0}));
        let stage = Stage::new(space, [guest]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let token = stage.token("caller").await?;
        let mut slow = Vec::new();
        for _ in 0..10 {
            let mut stream = TcpStream::connect(stage.address).await?;
            let head = format!(
                "POST /guests/server/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\nx"
            );
            stream.write_all(head.as_bytes()).await?;
            slow.push(stream);
        }
        assert_eq!(stage.client.get("/guests/server/").await?.status, 200);
        let mut first = slow.swap_remove(0);
        let mut answer = [0; 12];
        tokio::time::timeout(harness::PATIENCE, first.read_exact(&mut answer)).await??;
        assert_eq!(&answer, b"HTTP/1.1 408");
        Ok(())
    })
}

#[test]
fn an_api_server_that_is_away_lets_nobody_new_in() -> Result<()> {
    test(async |space| {
        let own = harness::OwnCluster::start("front-door", wasm_operator_devel::Options::default()).await?;
        let space = space.on(own.cluster()).await?;
        let namespace = space.namespace("a").await?;
        let mut own = own;
        let stage = Stage::new(&space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let stranger = HttpClient::plain(stage.address).bearer("unknown");
        own.control_plane.stop_apiserver().await?;
        let answer = stranger.get("/guests/server/").await?;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
        own.control_plane.start_apiserver().await?;
        eventually("the API server says no again", async || {
            let answer = stranger.get("/guests/server/").await?;
            ensure!(answer.status == 401, "{}", answer.status);
            Ok(())
        })
        .await?;
        tokio::time::timeout(Duration::from_secs(60), stage.until_code("/guests/server/", 200)).await?
    })
}
