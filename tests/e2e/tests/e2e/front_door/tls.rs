//! Certificates of the front door, and their change.

use std::path::{Path, PathBuf};

use harness::{HttpClient, Result, ensure, eventually, test};

use super::{Stage, serving};

/// A certificate for `localhost` that vouches for itself, and its key, as files.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) pem: String,
    pub(super) key_pem: String,
}

pub(super) fn write_pair(directory: &Path, name: &str) -> Result<Pair> {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (pem, key_pem) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let file = |extension: &str| directory.join(format!("{name}.{extension}"));
    let (certificate, key) = (file("crt"), file("key"));
    std::fs::write(&certificate, &pem)?;
    std::fs::write(&key, &key_pem)?;
    Ok(Pair { certificate, key, pem, key_pem })
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let first = write_pair(space.directory(), "tls")?;
        let builder = space
            .host()
            .guest(serving("server", "server", &namespace))
            .argument("--front-door-certificate")
            .argument(first.certificate.display().to_string())
            .argument("--front-door-key")
            .argument(first.key.display().to_string());
        let stage = Stage::start(space, builder).await?;
        let token = stage.token("caller").await?;
        let client = |pem: &str| client_of(stage.address, pem, &token);
        let trusting = client(&first.pem)?;
        eventually("the guest answers over TLS", async || {
            let answer = trusting.get("/guests/server/").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await?;
        ensure!(stage.client.get("/guests/server/").await.is_err(), "plain HTTP is answered");

        // A key that does not fit: what worked before goes on.
        let other = write_pair(&space.directory().join("host"), "other")?;
        let marked = stage.host.log().mark();
        std::fs::write(&first.key, &other.key_pem)?;
        let line =
            marked.wait("the complaint", |line| line.message().contains("the new certificate is not used")).await?;
        ensure!(line.text().contains("tls.key") && line.level() == "ERROR", "{}", line.text());
        assert_eq!(trusting.get("/guests/server/").await?.status, 200);

        std::fs::write(&first.certificate, &other.pem)?;
        let renewed = client(&other.pem)?;
        eventually("the new certificate is shown", async || {
            ensure!(renewed.get("/guests/server/").await?.status == 200);
            Ok(())
        })
        .await?;
        ensure!(trusting.get("/guests/server/").await.is_err(), "the old certificate is shown");
        Ok(())
    })
}

fn client_of(address: std::net::SocketAddr, pem: &str, token: &str) -> Result<HttpClient> {
    Ok(HttpClient::tls(address, pem, None)?.bearer(token))
}
