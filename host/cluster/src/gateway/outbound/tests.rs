use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::permission::Permissions;

use super::*;

fn access(allowed: &[&str]) -> GuestAccess {
    GuestAccess {
        name: "ring".into(),
        user: "system:serviceaccount:host:guest-ring".into(),
        permissions: Permissions::default(),
        allowed_hosts: allowed.iter().map(|host| host.parse().unwrap()).collect(),
        authorities: None,
        limits: Limits::default(),
        shared_watches: false,
        adopt_field_manager: None,
    }
}

/// Answers one request on each connection and returns what it was sent.
async fn server(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sent, received) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            sent.send(String::from_utf8_lossy(&head[..length]).into_owned()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, received)
}

async fn send(outbound: &Outbound, access: &GuestAccess, request: Request<Bytes>) -> Result<Response<Body>, SendError> {
    let in_flight = Arc::new(Semaphore::new(1));
    outbound.send(access, &in_flight, request, Instant::now() + Duration::from_secs(5)).await
}

fn get(uri: &str) -> Request<Bytes> {
    Request::get(uri).body(Bytes::new()).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close, x-hop\r\nx-hop: 1\r\nx-end: 2\r\n\r\nhi";

#[tokio::test]
async fn a_listed_address_is_reached_and_connection_headers_stay_behind() {
    let (address, mut received) = server(OK).await;
    let outbound = Outbound::new(ClosedAddresses::default());
    let mut request = get(&format!("http://{address}/a?b=c"));
    for (name, value) in
        [("connection", "x-drop"), ("x-drop", "1"), ("host", "evil"), ("proxy-authorization", "x"), ("x-keep", "2")]
    {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let answer = send(&outbound, &access(&[&format!("http://{address}")]), request).await.unwrap();
    assert_eq!(answer.headers().get("x-end").unwrap(), "2");
    assert!(answer.headers().get("x-hop").is_none());
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hi");
    let head = received.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")) && head.contains("x-keep: 2"), "{head}");
    assert!(!head.contains("x-drop") && !head.contains("evil") && !head.contains("proxy"), "{head}");
}

#[tokio::test]
async fn hosts_that_are_not_listed_are_denied() {
    let outbound = Outbound::new(ClosedAddresses::default());
    let access = access(&["example.com", "http://127.0.0.1:1"]);
    for uri in [
        "http://example.com/",
        "https://example.com:8443/",
        "https://www.example.com/",
        "http://127.0.0.1:2/",
        "https://kubernetes.default/",
    ] {
        assert!(matches!(send(&outbound, &access, get(uri)).await, Err(SendError::Denied { .. })), "{uri}");
    }
    for uri in ["https://x@example.com/", "https://example.com:/", "ftp://example.com/"] {
        assert!(matches!(send(&outbound, &access, get(uri)).await, Err(SendError::Malformed(_))), "{uri}");
    }
}

#[tokio::test]
async fn a_listed_name_that_leads_inside_is_denied() {
    let (address, _received) = server(OK).await;
    let name = format!("http://localhost:{}", address.port());
    let outbound = Outbound::new(ClosedAddresses::default());
    let denied = send(&outbound, &access(&[&name]), get(&name)).await.unwrap_err();
    assert!(matches!(denied, SendError::DeniedAddress { .. }), "{denied:?}");
    let listed = access(&[&name, "127.0.0.0/8"]);
    assert_eq!(send(&outbound, &listed, get(&name)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn closed_addresses_are_denied_even_when_they_are_listed() {
    let (address, _received) = server(OK).await;
    let uri = format!("http://{address}");
    for closed in [address, SocketAddr::from(([0, 0, 0, 0], address.port())), SocketAddr::from(([127, 0, 0, 1], 0))] {
        let denied =
            send(&Outbound::new([closed].into_iter().collect()), &access(&[&uri]), get(&uri)).await.unwrap_err();
        assert!(matches!(denied, SendError::DeniedAddress { .. }), "{denied:?}");
    }
}

#[tokio::test]
async fn an_address_is_closed_for_as_long_as_someone_listens_there() {
    let (address, _received) = server(OK).await;
    let uri = format!("http://{address}");
    let closed = ClosedAddresses::default();
    let outbound = Outbound::new(closed.clone());
    closed.add(address);
    assert!(matches!(send(&outbound, &access(&[&uri]), get(&uri)).await, Err(SendError::DeniedAddress { .. })));
    closed.remove(address);
    assert_eq!(send(&outbound, &access(&[&uri]), get(&uri)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn redirects_are_the_guests_business() {
    let (address, _received) =
        server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n").await;
    let uri = format!("http://{address}");
    let answer = send(&Outbound::new(ClosedAddresses::default()), &access(&[&uri]), get(&uri)).await.unwrap();
    assert_eq!(answer.status(), 302);
}

#[tokio::test]
async fn a_large_answer_is_cut_and_a_large_request_refused() {
    let (address, _received) = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let uri = format!("http://{address}");
    let mut access = access(&[&uri]);
    access.limits.response_bytes = 4;
    access.limits.request_bytes = 1;
    let outbound = Outbound::new(ClosedAddresses::default());
    let answer = send(&outbound, &access, get(&uri)).await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    let large = Request::post(&uri).body(Bytes::from_static(b"xx")).unwrap();
    assert_eq!(send(&outbound, &access, large).await.unwrap_err(), SendError::RequestTooLarge { limit: 1 });
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_connection() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        }
    });
    let uri = format!("https://{address}/");
    let access = access(&[&address.to_string()]);
    let outbound = Outbound::new(ClosedAddresses::default());
    let denied = send(&outbound, &access, get(&uri)).await.unwrap_err();
    assert!(matches!(denied, SendError::Tls { .. }), "{denied:?}");
    let pem = key.cert.pem();
    let trusting = GuestAccess { authorities: Some(Authorities::from_pem(pem.as_bytes()).unwrap()), ..access.clone() };
    assert_eq!(send(&outbound, &trusting, get(&uri)).await.unwrap().status(), 200);
    let denied = send(&outbound, &access, get(&uri)).await.unwrap_err();
    assert!(matches!(denied, SendError::Tls { .. }), "another guest's authorities: {denied:?}");
}
