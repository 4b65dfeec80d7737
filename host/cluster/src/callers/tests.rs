use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// An API server of one answer, which counts the questions and keeps the last one.
struct Server {
    callers: Callers,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Value>>,
}

impl Server {
    fn new(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Value::Null)));
        let (answer, count, keep) = (Arc::new(answer), asked.clone(), last.clone());
        let service = service_fn(move |request: Request<Body>| {
            let (answer, count, keep) = (answer.clone(), count.clone(), keep.clone());
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                *keep.lock() = review["spec"].clone();
                review["status"] = answer(&review["spec"]);
                let body = Full::new(Bytes::from(review.to_string()));
                Ok::<_, std::convert::Infallible>(Response::builder().status(201).body(body).unwrap())
            }
        });
        Self { callers: Callers::new(Client::new(service, "default"), "ours"), asked, last }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn alice() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["ours"],
        "user": {"username": "alice", "uid": "7", "groups": ["a", "b"], "extra": {"k": ["v"]}},
    })
}

#[tokio::test]
async fn a_token_is_reviewed_for_our_audience_and_remembered() {
    let server = Server::new(|_| alice());
    for _ in 0..5 {
        let caller = server.callers.authenticate("token", HERE).await.unwrap();
        assert_eq!((caller.user.as_str(), caller.uid.as_str(), caller.groups.len()), ("alice", "7", 2));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(*server.last.lock(), json!({"token": "token", "audiences": ["ours"]}));
}

// Rule 41
#[tokio::test]
async fn a_review_that_does_not_name_our_audience_is_not_believed() {
    for (field, value) in [
        ("audiences", json!(null)),
        ("audiences", json!([])),
        ("audiences", json!(["https://kubernetes.default.svc"])),
        ("audiences", json!(["Ours"])),
        ("authenticated", json!(false)),
        ("authenticated", json!(null)),
        ("error", json!("expired")),
        ("user", json!({"uid": "7"})),
        ("user", json!(null)),
    ] {
        let case = format!("{field}: {value}");
        let server = Server::new(move |_| {
            let mut status = alice();
            status[field] = value.clone();
            status
        });
        for _ in 0..3 {
            let error = server.callers.authenticate("token", HERE).await.unwrap_err();
            assert_eq!(error, CallerError::Token { audience: "ours".into() }, "{case}");
        }
        assert_eq!(server.asked(), 1, "a wrong token is remembered: {case}");
    }
}

#[tokio::test]
async fn an_identity_that_headers_cannot_carry_is_refused() {
    for (user, group) in [("al\nice", "a".to_owned()), ("alice", "a\u{7}".to_owned()), ("alice", "a".repeat(17 << 10))]
    {
        let server = Server::new(move |_| {
            let mut status = alice();
            status["user"] = json!({"username": user, "groups": [group]});
            status
        });
        assert_eq!(server.callers.authenticate("token", HERE).await.unwrap_err(), CallerError::Identity);
    }
}

#[tokio::test]
async fn long_tokens_are_refused_without_asking() {
    let server = Server::new(|_| alice());
    for token in [String::new(), "x".repeat(MAX_TOKEN + 1)] {
        assert!(matches!(server.callers.authenticate(&token, HERE).await, Err(CallerError::Token { .. })));
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_from_one_address_is_held_to_its_rate_and_known_callers_pass() {
    let server = Server::new(|spec| if spec["token"] == "good" { alice() } else { json!({"authenticated": false}) });
    server.callers.authenticate("good", HERE).await.unwrap();
    let mut refused = 0;
    for number in 0..1_000 {
        let result = server.callers.authenticate(&format!("bad {number}"), HERE).await;
        refused += usize::from(result == Err(CallerError::TooMany));
    }
    assert!(refused >= 970 && server.asked() <= 30, "{refused} {}", server.asked());
    server.callers.authenticate("good", HERE).await.unwrap();
    let elsewhere = "192.0.2.1".parse().unwrap();
    assert!(matches!(server.callers.authenticate("other", elsewhere).await, Err(CallerError::Token { .. })));
}

#[tokio::test(start_paused = true)]
async fn answers_are_asked_for_again_when_they_are_old() {
    let server = Server::new(|_| alice());
    server.callers.authenticate("token", HERE).await.unwrap();
    tokio::time::advance(TOKEN_TTL).await;
    server.callers.authenticate("token", HERE).await.unwrap();
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn the_right_is_asked_with_everything_that_is_known_of_the_caller() {
    let server = Server::new(|spec| json!({"allowed": spec["resourceAttributes"]["name"] == "hello"}));
    let caller = Caller {
        user: "alice".into(),
        uid: "7".into(),
        groups: vec!["a".into()],
        extra: BTreeMap::from([("k".to_owned(), vec!["v".to_owned()])]),
    };
    assert!(server.callers.may_call(&caller, Verb::Create, "hello", HERE).await.unwrap());
    let spec = json!({
        "user": "alice", "uid": "7", "groups": ["a"], "extra": {"k": ["v"]},
        "resourceAttributes": {
            "verb": "create", "group": "wasm-operator.dev", "version": "*", "resource": "guests",
            "subresource": "proxy", "name": "hello",
        },
    });
    assert_eq!(*server.last.lock(), spec);
    assert!(!server.callers.may_call(&caller, Verb::Create, "other", HERE).await.unwrap());
    // Each answer is for its question only.
    assert!(server.callers.may_call(&caller, Verb::Get, "hello", HERE).await.unwrap());
    let other = Caller { groups: vec!["b".into()], ..caller.clone() };
    assert!(server.callers.may_call(&other, Verb::Get, "hello", HERE).await.unwrap());
    assert_eq!(server.asked(), 4);
    assert!(server.callers.may_call(&caller, Verb::Create, "hello", HERE).await.unwrap());
    assert_eq!(server.asked(), 4);
}

#[tokio::test]
async fn what_is_denied_is_not_allowed() {
    let server = Server::new(|_| json!({"allowed": true, "denied": true}));
    assert!(!server.callers.may_call(&Caller::default(), Verb::Get, "hello", HERE).await.unwrap());
}

#[tokio::test]
async fn an_api_server_that_fails_lets_nobody_in_and_is_asked_again() {
    let service = service_fn(|_: Request<Body>| async {
        let body = Full::new(Bytes::from_static(b"{}"));
        Ok::<_, std::convert::Infallible>(Response::builder().status(500).body(body).unwrap())
    });
    let callers = Callers::new(Client::new(service, "default"), "ours");
    for _ in 0..2 {
        assert!(matches!(callers.authenticate("token", HERE).await, Err(CallerError::Unanswered(_))));
        let right = callers.may_call(&Caller::default(), Verb::Get, "hello", HERE).await;
        assert!(matches!(right, Err(CallerError::Unanswered(_))));
    }
}

#[test]
fn all_addresses_of_an_ipv6_network_are_one_party() {
    let network = |text: &str| network_of(text.parse().unwrap());
    assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
}
