//! Listeners of guests' own, for callers without tokens.

use std::net::SocketAddr;

use harness::{Guest, HttpClient, Result, Space, ensure, eventually, test};
use serde_json::{Value, json};

use super::tls::write_pair;
use super::{Stage, grant, serving};

/// An address that nobody listens at.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], wasm_operator_devel::free_port()?)))
}

fn guest(namespace: &str, listener: Value) -> Guest {
    serving("server", "server", namespace).set("serve", json!({ "listener": listener }))
}

async fn until_code(client: &HttpClient, code: u16) -> Result<()> {
    eventually(&format!("the listener answers {code}"), async || {
        let answer = client.get("/").await?;
        ensure!(answer.status == code, "{}: {}", answer.status, answer.text());
        Ok(())
    })
    .await
}

async fn grant_user(space: &Space, user: &str) -> Result<()> {
    let subject = json!({ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" });
    grant(space, &format!("{}-legacy", space.name_of("a")), subject, &["get", "create"], &["server"]).await
}

#[test]
fn a_listener_takes_its_callers_for_the_configured_user_at_the_root() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let address = free_address()?;
        let user = format!("legacy-{namespace}");
        let listener =
            json!({"address": address.to_string(), "sources": ["127.0.0.1"], "user": user, "groups": ["old"]});
        let mut stage = Stage::new(space, [guest(&namespace, listener)]).await?;
        let line =
            stage.host.log().wait("the warning", |line| line.message().contains("a listener of its own")).await?;
        assert_eq!(line.level(), "WARN");
        let client = HttpClient::plain(address);
        // Nobody has given that user any right.
        until_code(&client, 403).await?;
        grant_user(space, &user).await?;
        until_code(&client, 200).await?;
        let claims = [("authorization", "Bearer x"), ("x-wasm-operator-user", "root"), ("cookie", "a=b")];
        let seen = client.send("POST", "/getPod/7?x", &claims, b"{}".to_vec()).await?.json()?;
        assert_eq!(
            (&seen["path"], &seen["caller"]),
            (&json!("/getPod/7?x"), &json!({"user": user, "uid": "", "groups": ["old"]}))
        );
        assert!(!seen.to_string().contains("Bearer"), "{seen}");
        // It leads to this guest and nowhere else, and a guest's path is as it was sent.
        assert_eq!(client.get("/guests/other/").await?.json()?["path"], json!("/guests/other/"));
        assert_eq!(client.get("/a/../b").await?.status, 400);
        assert_eq!(client.send("DELETE", "/", &[], Vec::new()).await?.status, 403);

        stage.host.configure(&[serving("server", "server", &namespace)]).await?;
        eventually("the listener is closed", async || {
            ensure!(client.get("/").await.is_err(), "it answers");
            Ok(())
        })
        .await?;
        assert_eq!(stage.client.get("/guests/server/").await?.status, 200);
        Ok(())
    })
}

#[test]
fn connections_from_elsewhere_are_closed_without_a_word() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let address = free_address()?;
        let user = format!("legacy-{namespace}");
        let listener = |sources: Value| {
            guest(&namespace, json!({"address": address.to_string(), "sources": sources, "user": user}))
        };
        let mut stage = Stage::new(space, [listener(json!(["10.0.0.0/8", "127.0.0.2"]))]).await?;
        grant_user(space, &user).await?;
        stage.host.log().wait("the listener", |line| line.message().contains("a listener of its own")).await?;
        let client = HttpClient::plain(address);
        ensure!(client.get("/").await.is_err(), "a caller from elsewhere is answered");
        // The configuration is followed while the host runs.
        stage.host.configure(&[listener(json!(["127.0.0.0/8"]))]).await?;
        eventually("the caller is let in", async || {
            ensure!(client.get("/").await?.status == 200);
            Ok(())
        })
        .await
    })
}

#[test]
fn passwords_are_asked_for_and_follow_their_file() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let (address, file) = (free_address()?, space.directory().join("passwords"));
        std::fs::write(&file, "alice:secret\n")?;
        let user = format!("legacy-{namespace}");
        let listener = json!({
            "address": address.to_string(), "sources": ["127.0.0.1"], "user": user, "passwords": file.display().to_string(),
        });
        let stage = Stage::new(space, [guest(&namespace, listener)]).await?;
        grant_user(space, &user).await?;
        let with = |credentials: &str| HttpClient::plain(address).header("authorization", credentials);
        // alice:secret, alice:wrong, bob:secret
        let (good, wrong, other) =
            (with("Basic YWxpY2U6c2VjcmV0"), with("Basic YWxpY2U6d3Jvbmc="), with("Basic Ym9iOnNlY3JldA=="));
        until_code(&good, 200).await?;
        assert_eq!(good.get("/").await?.json()?["caller"]["user"], json!(user));
        for client in [HttpClient::plain(address), wrong.clone(), with("Basic !"), with("Bearer x")] {
            let answer = client.get("/").await?;
            assert_eq!(answer.status, 401);
            assert!(answer.header("www-authenticate").starts_with("Basic"), "{}", answer.header("www-authenticate"));
        }
        let marked = stage.host.log().mark();
        std::fs::write(&file, "nonsense\n")?;
        marked.wait("the complaint", |line| line.message().contains("the new passwords are not used")).await?;
        until_code(&good, 200).await?;
        std::fs::write(&file, "bob:secret\n")?;
        until_code(&other, 200).await?;
        assert_eq!(good.get("/").await?.status, 401);
        // Whoever guesses has to wait; whoever knows does not.
        let mut codes = Vec::new();
        for _ in 0..30 {
            codes.push(wrong.get("/").await?.status);
        }
        ensure!(codes.contains(&429) && codes.iter().all(|code| [401, 429].contains(code)), "{codes:?}");
        until_code(&other, 200).await
    })
}

#[test]
fn client_certificates_are_demanded_where_they_are_configured() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let address = free_address()?;
        let directory = space.directory().to_owned();
        let (server, client, stranger) =
            (write_pair(&directory, "server")?, write_pair(&directory, "client")?, write_pair(&directory, "stranger")?);
        let user = format!("legacy-{namespace}");
        let listener = json!({
            "address": address.to_string(), "sources": ["127.0.0.1"], "user": user,
            "certificate": server.certificate.display().to_string(), "key": server.key.display().to_string(),
            "clientAuthorities": client.certificate.display().to_string(),
        });
        let _stage = Stage::new(space, [guest(&namespace, listener)]).await?;
        grant_user(space, &user).await?;
        let known = HttpClient::tls(address, &server.pem, Some((&client.pem, &client.key_pem)))?;
        until_code(&known, 200).await?;
        let unknown = HttpClient::tls(address, &server.pem, Some((&stranger.pem, &stranger.key_pem)))?;
        let nobody = HttpClient::tls(address, &server.pem, None)?;
        ensure!(
            unknown.get("/").await.is_err() && nobody.get("/").await.is_err(),
            "a caller without a certificate is let in"
        );
        Ok(())
    })
}

#[test]
fn a_listener_that_cannot_be_opened_leaves_its_guest_and_the_others_alone() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?.to_string();
        let listener = json!({"address": address, "sources": ["127.0.0.1"], "user": "legacy"});
        let stage = Stage::new(space, [guest(&namespace, listener)]).await?;
        let line = stage.host.log().wait("the error", |line| line.message().contains("listener is not opened")).await?;
        ensure!(line.level() == "ERROR" && line.text().contains(&address), "{}", line.text());
        stage.until_code("/guests/server/", 200).await
    })
}
