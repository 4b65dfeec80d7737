//! Programs: plain kube-rs controllers with watches of their own.

mod bundle;
mod hibernation;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

pub(crate) use self::hibernation::program_timer;
use harness::ring::{self, Ring};
use harness::{Context as _, Guest, Host, LogLine, Result, Rule, Space, ensure, eventually, test};
use serde_json::{Value, json};

#[test]
fn a_ring_of_programs_makes_laps() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 4).await?;
        let host = space.host().guests(ring.guests_of("ring-operator")).start().await?;
        host.until_ready().await?;
        for lap in 1..=3 {
            ring.lap(lap).await?;
        }
        let metrics = host.metrics().await?;
        for guest in ring.names() {
            assert_eq!(metrics.sum("wasm_operator_guest_traps_total", &[("guest", &guest)]), 0.0);
        }
        Ok(())
    })
}

#[test]
fn a_suspended_program_stops_and_a_resumed_one_catches_up() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let guests = ring.guests_of("ring-operator");
        let mut host = space.host().guests(guests.clone()).start().await?;
        ring.lap(1).await?;
        let mut suspended = guests.clone();
        let second = suspended.get_mut(1).context("no second guest")?;
        *second = second.clone().set("suspend", true);
        host.configure(&suspended).await?;
        host.until_state("ring-1", &["suspended"]).await?;
        host.log().wait("the program was ended", |line| was_ended(line, "ring-1")).await?;
        ring.send(2).await?;
        ring::until_nonce(space, ring.namespaces().get(1).context("no second namespace")?, 2).await?;
        host.configure(&guests).await?;
        ring.arrived(2).await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

#[test]
fn a_changed_program_is_started_again_with_its_new_environment() -> Result<()> {
    test(async |space| {
        let (first, second, third) =
            (space.namespace("first").await?, space.namespace("second").await?, space.namespace("third").await?);
        let to = |namespace: &str| ring::guest_of("ring-operator", "ring-0", &first, namespace);
        let mut host = space.host().guest(to(&second)).start().await?;
        ring::write(space, &first, 1).await?;
        ring::until_nonce(space, &second, 1).await?;
        host.configure(&[to(&third)]).await?;
        ring::until_nonce(space, &third, 1).await?;
        host.configure(&[]).await?;
        host.log().wait_for(2, "both runs were ended", |line| was_ended(line, "ring-0")).await?;
        Ok(())
    })
}

#[test]
fn a_stopping_host_ends_its_programs_and_exits_at_once() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 3).await?;
        let mut host = space.host().guests(ring.guests_of("ring-operator")).start().await?;
        ring.lap(1).await?;
        host.terminate()?;
        ensure!(host.wait().await?.success(), "the host failed");
        for guest in ring.names() {
            ensure!(!host.log().lines(|line| was_ended(line, &guest)).is_empty(), "`{guest}` was not ended");
        }
        Ok(())
    })
}

fn was_ended(line: &LogLine, guest: &str) -> bool {
    line.is_of(guest) && line.message() == "the program was ended"
}

#[test]
fn as_requested_is_refused_for_a_program_with_words_that_help() -> Result<()> {
    test(async |space| {
        let guest = Guest::new("bare", "ring-operator").grant_as_requested();
        let host = space.host().without_rights().start().await?;
        host.write_config(&harness::documents(&[guest])?)?;
        let refused = host.log().wait("the refusal", |line| line.is_of("bare") && line.level() == "ERROR").await?;
        ensure!(refused.text().contains("list under `permissions` the rules"), "{}", refused.text());
        Ok(())
    })
}

#[test]
fn what_a_program_is_not_granted_is_a_status_for_its_client() -> Result<()> {
    test(async |space| {
        let (from, to) = (space.namespace("from").await?, space.namespace("to").await?);
        // It may watch both and write neither.
        let guest = Guest::new("ring-0", "ring-operator")
            .env("IN_NAMESPACE", &from)
            .env("OUT_NAMESPACE", &to)
            .grant(Rule::read(ring::GROUP, ring::RESOURCE).namespace(&from).namespace(&to));
        let host = space.host().guest(guest).start().await?;
        ring::write(space, &from, 1).await?;
        let denied = |line: &LogLine| line.is_of("ring-0") && line.text().contains("Forbidden");
        host.log().wait("the client has read the denial", denied).await?;
        eventually("the denial is counted", async || {
            let count = host.metrics().await?.sum("wasm_operator_api_denied_total", &[("guest", "ring-0")]);
            ensure!(count >= 1.0, "{count}");
            Ok(())
        })
        .await?;
        assert_eq!(host.metrics().await?.sum("wasm_operator_guest_traps_total", &[]), 0.0);
        Ok(())
    })
}

/// What `program_stray` says of these attempts.
async fn outcomes(space: &Space, host: &mut Host, others: &[Guest], attempts: &[Value]) -> Result<Vec<String>> {
    let log = host.log().mark();
    let guest = stray(space, "stray", attempts);
    host.configure(&[others, &[guest]].concat()).await?;
    let said = log.wait("its outcomes", |line| field(line, "stray", "outcomes").is_some()).await?;
    let outcomes = field(&said, "stray", "outcomes").context("no outcomes")?;
    let outcomes: Vec<String> = serde_json::from_value(outcomes)?;
    ensure!(outcomes.len() == attempts.len(), "{outcomes:?}");
    Ok(outcomes)
}

fn stray(space: &Space, name: &str, attempts: &[Value]) -> Guest {
    harness::programs::talkative(Guest::new(name, "program_stray"))
        .env("ATTEMPTS", Value::from(attempts))
        .grant(Rule::read("", "configmaps").namespace(&space.name_of("a")))
}

fn field(line: &LogLine, guest: &str, name: &str) -> Option<Value> {
    let mut value: Value = line.is_of(guest).then(|| serde_json::from_str(line.message()).ok())??;
    value.get_mut(name).map(Value::take)
}

fn request(line: &str, headers: &str) -> Value {
    json!({ "send": format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n") })
}

#[test]
pub(crate) fn program_stray() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut host = space.host().start().await?;
        let neighbour = stray(space, "neighbour", &[]);
        host.configure(std::slice::from_ref(&neighbour)).await?;
        let said = host.log().wait("its endpoint", |line| field(line, "neighbour", "token").is_some()).await?;
        let (others, token) = (field(&said, "neighbour", "endpoint"), field(&said, "neighbour", "token"));
        let (others, token) = (others.context("no endpoint")?, token.context("no token")?);
        let (others, token) = (others.as_str().unwrap_or_default(), token.as_str().unwrap_or_default());

        let admin = host.admin_address()?;
        let refused = [
            json!({ "connect": admin }),
            json!({ "connect": others }),
            json!({ "connect": "10.0.0.1:443" }),
            json!({ "connect": "[::1]:80" }),
            json!({ "listen": "127.0.0.1:0" }),
            json!({ "listen": "0.0.0.0:0" }),
            json!({ "udp": "0.0.0.0:0" }),
            json!({ "resolve": "kubernetes.default.svc:443" }),
        ];
        let path = format!("GET /api/v1/namespaces/{namespace}/configmaps");
        let bearer = "authorization: Bearer TOKEN\r\n";
        let sent = [
            request(&path, bearer),
            request(&path, ""),
            request(&path, "authorization: Bearer x\r\n"),
            request(&path, &format!("authorization: Bearer {token}\r\n")),
            request(&path, "authorization: Basic TOKEN\r\n"),
            request("GET /api/v1/namespaces/kube-system/secrets", bearer),
            request(&format!("{path}/../secrets"), bearer),
            request(&format!("{path}/x%2f..%2fy"), bearer),
            request("CONNECT 10.0.0.1:443", bearer),
            request("GET http://10.0.0.1/api/v1/namespaces/kube-system/secrets", bearer),
            request(&path, &format!("{bearer}impersonate-user: system:admin\r\n")),
            request(
                &format!("POST /api/v1/namespaces/{namespace}/configmaps"),
                &format!("{bearer}content-length: 99999999\r\n"),
            ),
            request(&path, &format!("{bearer}x: {}\r\n", "x".repeat(64 << 10))),
            json!({ "send": "nonsense\r\n\r\n" }),
        ];
        let outcomes = outcomes(space, &mut host, &[neighbour], &[&refused[..], &sent[..]].concat()).await?;
        let (blocked, answers) = outcomes.split_at(refused.len());
        for (attempt, outcome) in refused.iter().zip(blocked) {
            ensure!(!["connected", "bound", "resolved"].contains(&outcome.as_str()), "{attempt}: {outcome}");
        }
        let codes: Vec<&str> = answers.iter().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
        // One that writes more than is read may find its connection closed before it has the answer.
        let large = outcomes.iter().rev().nth(1).map(String::as_str).unwrap_or_default();
        let large = if ["BrokenPipe", "ConnectionReset"].contains(&large) { "" } else { "431" };
        let expected =
            ["200", "401", "401", "401", "401", "403", "400", "400", "405", "403", "200", "413", large, "400"];
        ensure!(codes == expected, "{answers:?}");
        host.assert_alive()
    })
}

/// Sends a request as anybody on this machine can, for something that nobody has, and returns the first line of the answer.
fn ask(stream: &mut TcpStream, token: &str) -> Result<String> {
    stream
        .write_all(format!("GET /nothing HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n").as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    answer.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        answer.read_line(&mut header)?;
        if let Some((name, value)) = header.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        if header.trim().is_empty() {
            break;
        }
    }
    answer.read_exact(&mut vec![0; length])?;
    Ok(first.trim().to_owned())
}

#[test]
fn strangers_cannot_take_the_places_of_a_program() -> Result<()> {
    test(async |space| {
        const UNKNOWN: &str = "HTTP/1.1 401 Unauthorized";
        space.namespace("a").await?;
        let host = space.host().guest(stray(space, "stray", &[])).start().await?;
        let said = host.log().wait("its endpoint", |line| field(line, "stray", "token").is_some()).await?;
        let text = |name| field(&said, "stray", name).and_then(|value| value.as_str().map(str::to_owned));
        let (endpoint, token) = (text("endpoint").context("no endpoint")?, text("token").context("no token")?);
        let connect = || -> Result<TcpStream> {
            let stream = TcpStream::connect(&endpoint)?;
            stream.set_read_timeout(Some(harness::PATIENCE))?;
            Ok(stream)
        };
        let mut known = connect()?;
        let refused = ask(&mut known, &token)?;
        assert_ne!(refused, UNKNOWN);

        // Far more than there are places, and all of them silent.
        let strangers = (0..200).map(|_| connect()).collect::<Result<Vec<_>>>()?;
        let mut first = strangers.into_iter().next().context("no stranger")?;
        assert_eq!(first.read(&mut [0])?, 0, "the oldest had to go");
        for guess in ["", "x", &token.to_lowercase(), &token[1..]] {
            assert_eq!(ask(&mut connect()?, guess)?, UNKNOWN);
        }
        assert_eq!(ask(&mut connect()?, &token)?, refused);
        assert_eq!(ask(&mut known, &token)?, refused, "it was not among those that had to go");
        Ok(())
    })
}
