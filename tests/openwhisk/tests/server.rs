//! The server as a client sees it, over real connections.

use std::time::Duration;

use anyhow::{Result, ensure};
use openwhisk::{Action, Behaviour, OpenWhisk};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `user:key`
const CREDENTIALS: &str = "Basic dXNlcjprZXk=";
const LOOK_UP: &str = "GET /api/v1/namespaces/guest/actions/p/ping";
const FIRE: &str = "POST /api/v1/namespaces/guest/triggers/done";

fn fill(whisk: &OpenWhisk) -> Result<()> {
    whisk.namespace("guest", "user:key");
    whisk.action("/guest/p/ping", Action::blackbox("i:1"))?;
    whisk.trigger("/guest/done")
}

/// Status and everything after the head; an error when the connection is cut before a whole answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, body: &str) -> Result<(u16, String)> {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nauthorization: {CREDENTIALS}\r\nconnection: close\r\nx-id: 7\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no answer: {end:?}"))?;
    let promised = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let whole = promised.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() == length);
    ensure!(whole, "cut after {} bytes: {head}", body.len());
    Ok((head.split(' ').nth(1).unwrap_or_default().parse()?, body.to_owned()))
}

async fn ask(whisk: &OpenWhisk, line: &str) -> Result<(u16, String)> {
    exchange(TcpStream::connect(whisk.address()).await?, line, "{}").await
}

#[tokio::test]
async fn every_request_is_recorded_with_its_headers_and_body() -> Result<()> {
    let whisk = OpenWhisk::start().await?;
    fill(&whisk)?;
    let stream = TcpStream::connect(whisk.address()).await?;
    let (status, body) = exchange(stream, FIRE, r#"{"result": 1}"#).await?;
    assert_eq!(status, 202);
    let requests = whisk.wait_for(1, "the trigger fires", openwhisk::Request::is_accepted).await?;
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((request.line().as_str(), request.header("x-id"), &request.json()["result"]), (FIRE, "7", &1.into()));
    assert!(body.contains(request.activation.as_deref().unwrap()), "{body}");
    Ok(())
}

#[tokio::test]
async fn answers_are_spoiled_in_the_order_of_the_script_and_honest_afterwards() -> Result<()> {
    let whisk = OpenWhisk::start().await?;
    fill(&whisk)?;
    whisk.script(
        FIRE,
        [Behaviour::Status(503), Behaviour::Cut, Behaviour::Lost, Behaviour::slow(Duration::from_millis(20))],
    );
    assert_eq!(ask(&whisk, FIRE).await?.0, 503);
    assert!(ask(&whisk, FIRE).await.is_err());
    assert!(ask(&whisk, FIRE).await.is_err());
    assert_eq!(ask(&whisk, FIRE).await?.0, 202);
    assert_eq!(ask(&whisk, FIRE).await?.0, 202);
    let requests = whisk.requests();
    let statuses: Vec<_> = requests.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(503), None, None, Some(202), Some(202)]);
    let activations: Vec<_> = requests.iter().map(|request| request.activation.is_some()).collect();
    assert_eq!(activations, [false, false, true, true, true], "the lost answer was to an activation");
    Ok(())
}

#[tokio::test]
async fn what_is_no_answer_at_all_can_be_sent_too() -> Result<()> {
    let whisk = OpenWhisk::start().await?;
    fill(&whisk)?;
    whisk.script(LOOK_UP, [Behaviour::Garbage, Behaviour::Huge(1 << 20), Behaviour::Half, Behaviour::Silent]);
    let (status, body) = ask(&whisk, LOOK_UP).await?;
    assert!(status == 200 && serde_json::from_str::<serde_json::Value>(&body).is_err(), "{body}");
    let (status, body) = ask(&whisk, LOOK_UP).await?;
    assert!(status == 200 && body.len() > 1 << 20);
    assert!(ask(&whisk, LOOK_UP).await.is_err());
    assert!(timeout(Duration::from_millis(100), ask(&whisk, LOOK_UP)).await.is_err());
    let (status, body) = ask(&whisk, LOOK_UP).await?;
    assert_eq!((status, &serde_json::from_str::<serde_json::Value>(&body)?["exec"]["image"]), (200, &"i:1".into()));
    Ok(())
}

#[tokio::test]
async fn tls_is_trusted_by_who_knows_its_authority_and_by_nobody_else() -> Result<()> {
    let whisk = OpenWhisk::start_tls().await?;
    fill(&whisk)?;
    assert!(whisk.url().starts_with("https://"));
    let connect = async |roots: rustls::RootCertStore| {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(whisk.address()).await?;
        let stream = connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        exchange(stream, LOOK_UP, "").await
    };
    assert!(connect(rustls::RootCertStore::empty()).await.is_err());
    let mut roots = rustls::RootCertStore::empty();
    let pem = whisk.authority().unwrap();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes())?)?;
    assert_eq!(connect(roots).await?.0, 200);
    Ok(())
}
