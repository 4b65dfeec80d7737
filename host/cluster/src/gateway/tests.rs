//! The gateway against an API server that answers what the test says, and a cache that the test moves.

use std::collections::BTreeMap;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use wasm_operator_core::gate::{Held, Target, View};
use wasm_operator_core::object::{Object, ObjectRef, ResourceVersion};
use wasm_operator_core::permission::Rule;
use wasm_operator_core::watch::{Representation, Resource};

use super::*;

const USER: &str = "system:serviceaccount:host:guest-ring";

#[derive(Debug, Clone)]
struct Received {
    method: String,
    path: String,
    headers: http::HeaderMap,
    body: Bytes,
}

/// What the API server answers to one request.
enum Reply {
    Json(u16, String),
    Text(u16, &'static [(&'static str, &'static str)], &'static str),
    Break,
    Never,
}

fn ok(body: impl Into<String>) -> Reply {
    Reply::Json(200, body.into())
}

type Handler = Box<dyn FnMut(&Received) -> Reply + Send>;

/// An API server as a function.
#[derive(Clone)]
struct Server {
    received: Arc<Mutex<Vec<Received>>>,
    client: Client,
}

impl Server {
    fn new(handler: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Box::new(handler)));
        let log = received.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (handler, log) = (handler.clone(), log.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
                let received = Received {
                    method: parts.method.to_string(),
                    path: parts.uri.to_string(),
                    headers: parts.headers,
                    body,
                };
                if received.path.contains("selfsubjectaccessreviews") {
                    let answer = json!({"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{},"status":{"allowed":true}});
                    return Ok(Response::new(http_body_util::Full::<Bytes>::from(answer.to_string())));
                }
                log.lock().push(received.clone());
                let reply = (*handler.lock())(&received);
                let (code, headers, body) = match reply {
                    Reply::Json(code, body) => (code, &[("content-type", "application/json")][..], body),
                    Reply::Text(code, headers, body) => (code, headers, body.to_owned()),
                    Reply::Break => return Err("connection reset".to_owned()),
                    Reply::Never => std::future::pending().await,
                };
                let mut response = Response::new(http_body_util::Full::<Bytes>::from(body));
                *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
                for (name, value) in headers {
                    response.headers_mut().append(*name, HeaderValue::from_static(value));
                }
                Ok::<_, String>(response)
            }
        });
        Self { received, client: Client::new(service, "default") }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

/// A cache that the test fills.
struct FakeCache {
    resource: Resource,
    state: Mutex<FakeState>,
    moved: watch::Sender<u64>,
}

#[derive(Default, Clone)]
struct FakeState {
    position: Option<ResourceVersion>,
    objects: BTreeMap<ObjectRef, Arc<Object>>,
}

#[derive(Clone)]
struct FakeCaches(Vec<Arc<FakeCache>>);

impl Caches for FakeCaches {
    fn caches(&self, _user: &str, group: &str, plural: &str) -> Vec<Arc<dyn Cache>> {
        let mine = |cache: &&Arc<FakeCache>| cache.resource.group == group && cache.resource.plural == plural;
        self.0.iter().filter(mine).map(|cache| Arc::new(FakeRef(cache.clone())) as Arc<dyn Cache>).collect()
    }
}

struct FakeRef(Arc<FakeCache>);

impl Cache for FakeRef {
    fn resource(&self) -> &Resource {
        &self.0.resource
    }
    fn namespace(&self) -> Option<&str> {
        None
    }
    fn selectors(&self) -> (&str, &str) {
        ("", "")
    }
    fn representation(&self) -> Representation {
        Representation::Full
    }
    fn read(&self, read: &mut dyn FnMut(&dyn Snapshot)) {
        read(&*self.0.state.lock());
    }
    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut moved = self.0.moved.subscribe();
        Box::pin(async move {
            let _ = moved.changed().await;
        })
    }
}

impl View for FakeState {
    fn position(&self) -> Option<ResourceVersion> {
        self.position.clone()
    }
    fn held(&self, object: &ObjectRef) -> Option<Held> {
        let metadata = &self.objects.get(object)?.metadata;
        Some(Held {
            uid: metadata.uid.clone(),
            version: metadata.resource_version.clone(),
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }
    fn covers(&self, _: &Target) -> bool {
        true
    }
}

impl Snapshot for FakeState {
    fn as_view(&self) -> &dyn View {
        self
    }
    fn get(&self, object: &ObjectRef) -> Option<Arc<Object>> {
        self.objects.get(object).cloned()
    }
    fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let within = |o: &&Arc<Object>| namespace.is_none_or(|n| o.metadata.namespace.as_deref() == Some(n));
        self.objects.values().filter(within).cloned().collect()
    }
}

impl FakeCache {
    fn maps() -> Arc<Self> {
        let resource = Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
        };
        Arc::new(Self { resource, state: Mutex::default(), moved: watch::channel(0).0 })
    }

    fn set(&self, position: u64, objects: &[String]) {
        let mut state = self.state.lock();
        state.position = Some(ResourceVersion::new(&position.to_string()));
        state.objects = objects
            .iter()
            .map(|json| Arc::new(Object::parse(json.as_bytes(), &self.resource).unwrap()))
            .map(|object| (object.object_ref(), object))
            .collect();
        drop(state);
        self.moved.send_modify(|count| *count += 1);
    }
}

fn map(name: &str, uid: &str, version: u64, data: &str) -> String {
    json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":name,"namespace":"a","uid":uid,"resourceVersion":version.to_string(),
        "managedFields":[{"manager":"x"}]},"data":{"d":data}})
    .to_string()
}

fn rule(resources: &[&str], verbs: &[&str]) -> Rule {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
    Rule {
        api_groups: words(&["", "apps"]),
        resources: words(resources),
        verbs: words(verbs),
        resource_names: Vec::new(),
        namespaces: words(&["a"]),
    }
}

fn access(name: &str) -> GuestAccess {
    GuestAccess {
        name: name.into(),
        user: USER.to_owned(),
        permissions: Permissions::new(
            vec![rule(&["configmaps", "deployments/status", "pods/eviction", "pods/log"], &["*"])],
            None,
        )
        .unwrap(),
        allowed_hosts: Vec::new(),
        limits: Limits::default(),
        adopt_field_manager: None,
    }
}

struct World {
    server: Server,
    cache: Arc<FakeCache>,
    gateway: Gateway,
    guest: Arc<GuestGateway>,
    metrics: GatewayMetrics,
}

impl World {
    fn new(handler: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        Self::with(access("ring"), handler)
    }

    fn with(access: GuestAccess, handler: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let server = Server::new(handler);
        let cache = FakeCache::maps();
        let metrics = GatewayMetrics::default();
        let gateway = Gateway::new(
            server.client.clone(),
            Arc::new(FakeCaches(vec![cache.clone()])),
            Rights::new(server.client.clone()),
            metrics.clone(),
            Options::new(Handle::current()),
        );
        let guest = gateway.guest(access).unwrap();
        Self { server, cache, gateway, guest, metrics }
    }

    async fn send(&self, request: Request<Bytes>) -> (u16, http::HeaderMap, String) {
        let (parts, body) = self.guest.send(request, Duration::from_secs(60)).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn status(&self, request: Request<Bytes>) -> Value {
        let (code, _, body) = self.send(request).await;
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["kind"], "Status", "{body}");
        assert_eq!(status["code"], code);
        status
    }

    async fn read(&self, path: &str) -> (u16, Value) {
        let (code, _, body) = self.send(request("GET", path, "")).await;
        (code, serde_json::from_str(&body).unwrap())
    }
}

const MAP: &str = "/api/v1/namespaces/a/configmaps/x";
const MAPS: &str = "/api/v1/namespaces/a/configmaps";

fn request(method: &str, path: &str, body: &'static str) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("https://kubernetes.default.svc{path}"));
    if method == "PATCH" {
        request = request.header("content-type", "application/merge-patch+json");
    }
    request.body(Bytes::from_static(body.as_bytes())).unwrap()
}

fn apply(path: &str) -> Request<Bytes> {
    let mut request = request("PATCH", path, "{}");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/apply-patch+yaml"));
    request
}

// Rules 15-18
#[tokio::test]
async fn headers_that_go_upstream_are_the_hosts_own() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    let mut sent = request("GET", MAP, "");
    for (name, value) in [
        ("authorization", "Bearer stolen"),
        ("impersonate-user", "system:admin"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-x", "y"),
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("cookie", "c"),
        ("connection", "upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("user-agent", "kubectl"),
        ("x-http-method-override", "DELETE"),
    ] {
        sent.headers_mut().append(name, HeaderValue::from_static(value));
    }
    world.send(sent).await;
    let received = world.server.received().remove(0);
    let mut names: Vec<_> = received.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "impersonate-user", "user-agent"]);
    assert_eq!(received.headers.get_all("impersonate-user").iter().collect::<Vec<_>>(), [USER]);
    assert!(received.headers["user-agent"].to_str().unwrap().ends_with("guest/ring"));
}

#[tokio::test]
async fn a_guest_without_a_proper_identity_is_not_made() {
    let world = World::new(|_| ok("{}"));
    for user in ["", "system:admin", "system:serviceaccount:host:", "system:serviceaccount:a:b\n"] {
        let made = world.gateway.guest(GuestAccess { user: user.to_owned(), ..access("other") });
        assert!(matches!(made, Err(InvalidAccess::User(_))), "{user}");
    }
    assert!(matches!(world.gateway.guest(access("Bad Name")), Err(InvalidAccess::Name(_))));
}

#[tokio::test]
async fn an_identity_that_the_server_takes_for_another_is_refused() {
    let answer = |name: &str| json!({"status":{"userInfo":{"username":name}}}).to_string();
    let (right, wrong) = (answer(USER), answer("system:serviceaccount:host:wasm-operator"));
    let mut answers =
        vec![ok(right), ok(wrong), Reply::Json(403, r#"{"message":"cannot impersonate"}"#.into()), ok("{}")]
            .into_iter();
    let world = World::new(move |_| answers.next().unwrap());
    assert_eq!(world.gateway.verify_identity(USER).await, Ok(()));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Different { .. })));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Forbidden { .. })));
    assert!(matches!(world.gateway.verify_identity(USER).await, Err(IdentityError::Unanswered { .. })));
    assert!(matches!(world.gateway.verify_identity("").await, Err(IdentityError::Invalid(_))));
    assert_eq!(world.server.received()[0].headers["impersonate-user"], USER);
}

#[tokio::test]
async fn only_the_exact_authority_is_the_api_server() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    for uri in ["https://kubernetes.default.svc/version", "https://kubernetes.default.svc:443/version"] {
        let answer = world.guest.send(Request::get(uri).body(Bytes::new()).unwrap(), Duration::from_secs(1)).await;
        assert_eq!(answer.unwrap().status(), 200, "{uri}");
    }
    for uri in [
        "http://kubernetes.default.svc/version",
        "https://x@kubernetes.default.svc/version",
        "https://kubernetes.default.svc:6443/version",
        "https://kubernetes.default/version",
        "https://kubernetes.default.svc.cluster.local/version",
    ] {
        let answer = world.guest.send(Request::get(uri).body(Bytes::new()).unwrap(), Duration::from_secs(1)).await;
        assert!(answer.is_err(), "{uri}");
    }
    assert_eq!(world.server.received().len(), 2);
}

#[tokio::test]
async fn what_is_not_granted_is_never_sent() {
    let world = World::new(|_| ok("{}"));
    for (method, path) in [
        ("GET", "/api/v1/namespaces/b/configmaps/x"),
        ("GET", "/api/v1/configmaps"),
        ("GET", "/api/v1/namespaces/a/secrets/x"),
        ("DELETE", "/api/v1/namespaces/a/pods/x"),
        ("POST", "/api/v1/namespaces/a/pods/x/exec"),
    ] {
        let status = world.status(request(method, path, "")).await;
        assert_eq!(status["code"], 403, "{method} {path}");
        assert_eq!(status["reason"], "Forbidden");
        assert!(status["message"].as_str().unwrap().contains("guest `ring` may not"), "{status}");
    }
    assert!(world.server.received().is_empty());
}

#[tokio::test]
async fn refusals_are_kubernetes_statuses() {
    let mut access = access("ring");
    access.limits.request_bytes = 10;
    let world = World::with(access, |_| ok("{}"));
    let with = |mut request: Request<Bytes>, name: &'static str, value: &'static str| {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    for (code, request) in [
        (400, request("GET", "/api/v1/namespaces/a/../b/configmaps", "")),
        (400, request("DELETE", "/api/v1/namespaces/a/configmaps/", "")),
        (400, request("DELETE", "/api/v1/namespaces/a/configmaps/x?dryRun=All", "{}")),
        (404, request("GET", "/healthz", "")),
        (405, request("HEAD", MAP, "")),
        (405, request("OPTIONS", MAP, "")),
        (406, with(request("GET", MAP, ""), "accept", "application/yaml")),
        (406, with(request("PUT", MAP, "{}"), "accept", "application/json;as=Table;v=v1;g=meta.k8s.io")),
        (413, request("PUT", MAP, "{\"a\":\"123456789\"}")),
        (415, with(request("PUT", MAP, "{}"), "content-type", "application/yaml")),
        (400, request("GET", MAP, "{}")),
    ] {
        assert_eq!(world.status(request).await["code"], code);
    }
    assert!(world.server.received().is_empty());
}

// Rule 22
#[tokio::test]
async fn writes_carry_the_guests_field_manager() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    world.send(request("POST", MAPS, "{}")).await;
    world.send(request("PUT", &format!("{MAP}?fieldManager=status"), "{}")).await;
    world.send(apply(&format!("{MAP}?force=true"))).await;
    world.send(request("DELETE", MAP, "{}")).await;
    let paths: Vec<_> = world.server.received().into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths,
        [
            format!("{MAPS}?fieldManager=ring"),
            format!("{MAP}?fieldManager=ring%2Fstatus"),
            format!("{MAP}?fieldManager=ring&force=true"),
            MAP.to_owned(),
        ]
    );
    let long = "x".repeat(130);
    assert_eq!(world.status(request("POST", &format!("{MAPS}?fieldManager={long}"), "{}")).await["code"], 400);
}

// Rule 23
#[tokio::test]
async fn guests_never_see_managed_fields() {
    let world = World::new(|received| match received.method.as_str() {
        "GET" if received.path.ends_with("configmaps") => ok(format!(r#"{{"items":[{}]}}"#, map("x", "u", 5, ""))),
        _ => ok(map("x", "u", 5, "")),
    });
    for sent in [request("GET", MAP, ""), request("GET", MAPS, ""), request("PUT", MAP, "{}")] {
        let (_, _, body) = world.send(sent).await;
        assert!(!body.contains("managedFields") && body.contains("\"d\""), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn flow_control_is_waited_out_for_any_method() {
    let mut turn = 0;
    let world = World::new(move |_| {
        turn += 1;
        if turn < 3 {
            Reply::Text(
                429,
                &[("content-type", "text/plain; charset=utf-8"), ("retry-after", "1")],
                "Too many requests",
            )
        } else {
            Reply::Json(201, map("x", "u", 5, ""))
        }
    });
    let started = Instant::now();
    assert_eq!(world.send(request("POST", MAPS, "{}")).await.0, 201);
    assert_eq!(world.server.received().len(), 3);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_429_of_an_eviction_is_an_answer() {
    let world = World::new(|_| Reply::Json(429, r#"{"kind":"Status","code":429}"#.into()));
    let path = "/api/v1/namespaces/a/pods/x/eviction";
    assert_eq!(world.send(request("POST", path, "{}")).await.0, 429);
    assert_eq!(world.server.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_never_sent_twice_after_an_unknown_outcome() {
    for broken in [|| Reply::Break, || Reply::Never, || Reply::Json(504, "{}".into()), || Reply::Json(503, "{}".into())]
    {
        let world = World::new(move |_| broken());
        let (code, _, _) = world.send(request("POST", MAPS, r#"{"metadata":{"generateName":"x-"}}"#)).await;
        assert!(code == 504 || code == 503, "{code}");
        assert_eq!(world.server.received().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_safe_is_sent_again_after_a_lost_answer() {
    for sent in [
        || request("GET", MAP, ""),
        || apply(MAP),
        || request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#),
        || request("DELETE", MAP, r#"{"preconditions":{"uid":"u"}}"#),
    ] {
        let mut turn = 0;
        let world = World::new(move |_| {
            turn += 1;
            if turn == 1 { Reply::Break } else { ok(map("x", "u", 5, "")) }
        });
        assert_eq!(world.send(sent()).await.0, 200);
        assert_eq!(world.server.received().len(), 2);
    }
    for sent in [
        || request("PATCH", MAP, "{}"),
        || request("PUT", MAP, "{}"),
        || request("DELETE", MAP, "{}"),
        || request("DELETE", MAPS, ""),
    ] {
        let world = World::new(|_| Reply::Break);
        let status = world.status(sent()).await;
        assert_eq!(status["code"], 504);
        assert!(status["message"].as_str().unwrap().contains("outcome is unknown"), "{status}");
        assert_eq!(world.server.received().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_its_own_lost_success_is_an_unknown_outcome() {
    for code in [409, 404] {
        let mut turn = 0;
        let world = World::new(move |_| {
            turn += 1;
            if turn == 1 { Reply::Break } else { Reply::Json(code, r#"{"kind":"Status"}"#.into()) }
        });
        let status = world.status(request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#)).await;
        assert_eq!(status["code"], 504);
        assert!(status["message"].as_str().unwrap().contains("read again"));
    }
}

#[tokio::test]
async fn a_conflict_is_handed_on_and_never_resent() {
    let world = World::new(|_| Reply::Json(409, r#"{"kind":"Status","code":409}"#.into()));
    assert_eq!(world.send(request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#)).await.0, 409);
    assert_eq!(world.server.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_a_504() {
    let world = World::new(|_| Reply::Never);
    let started = Instant::now();
    assert_eq!(world.status(request("GET", MAP, "")).await["code"], 504);
    assert_eq!(started.elapsed().as_secs(), Limits::default().request_milliseconds / 1_000);
    let started = Instant::now();
    let soon = world.guest.send(request("GET", MAP, ""), Duration::from_millis(100)).await.unwrap();
    assert_eq!(soon.status(), 504);
    assert!(started.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_cut_with_an_error() {
    let mut access = access("ring");
    access.limits.response_bytes = 100;
    let world = World::with(access, |_| ok(map("x", "u", 5, &"d".repeat(200))));
    // Announced lengths are refused at once, with a message that says what to do.
    let status = world.status(request("GET", MAP, "")).await;
    assert_eq!(status["code"], 413);
    assert!(status["message"].as_str().unwrap().contains("responseBytes"));
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 413);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_and_a_body_counts() {
    let mut access = access("ring");
    access.limits.requests_in_flight = 2;
    let world = World::with(access, |_| ok(map("x", "u", 5, "")));
    let first = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    let second = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    let third = world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap();
    assert_eq!(
        (first.status(), second.status(), third.status().as_u16()),
        (http::StatusCode::OK, http::StatusCode::OK, 429)
    );
    assert_eq!(third.headers()["retry-after"], "1");
    drop(first);
    assert_eq!(world.guest.send(request("GET", MAP, ""), Duration::from_secs(9)).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_dropped_guest_keeps_its_place_in_flight() {
    let mut access = access("ring");
    access.limits.requests_in_flight = 1;
    let world = World::with(access, |_| Reply::Never);
    let send = world.guest.send(request("PUT", MAP, "{}"), Duration::from_secs(5));
    assert!(futures::FutureExt::now_or_never(send).is_none());
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 429);
    // Until its time is over.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.status(request("PUT", MAP, "{}")).await["code"], 504);
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_on_when_the_guest_is_dropped() {
    let world = World::new(|_| ok(map("x", "u", 50, "")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    let send = world.guest.send(request("PUT", MAP, "{}"), Duration::from_secs(5));
    // Polled once, so that it is under way, and dropped.
    assert!(futures::FutureExt::now_or_never(send).is_none());
    while world.server.received().is_empty() || !world.guest.echo_pending() {
        tokio::task::yield_now().await;
    }
}

// Rules 9-14 and 25
#[tokio::test(start_paused = true)]
async fn reads_of_any_version_come_from_the_cache() {
    let world = World::new(|received| panic!("{received:?}"));
    world.cache.set(40, &[map("x", "u", 40, "one"), map("y", "v", 39, "two")]);
    let (code, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!((code, &object["data"]["d"]), (200, &json!("one")));
    assert_eq!(object["metadata"].get("managedFields"), None);
    let (code, list) = world.read(&format!("{MAPS}?resourceVersion=0&limit=1")).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 2), "a list of any version ignores the limit");
    assert_eq!(list["metadata"]["resourceVersion"], "40");
    let (_, list) = world.read(&format!("{MAPS}?resourceVersion=0&fieldSelector=metadata.name%3Dy")).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "y");
    let (code, status) = world.read("/api/v1/namespaces/a/configmaps/none?resourceVersion=0").await;
    assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
}

#[tokio::test]
async fn what_the_cache_cannot_answer_is_forwarded_without_a_version() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    // Nothing listed yet.
    world.send(request("GET", &format!("{MAP}?resourceVersion=0"), "")).await;
    world.cache.set(40, &[map("x", "u", 40, "one")]);
    for query in [
        "resourceVersion=0&fieldSelector=data.x%3Dy",
        "resourceVersion=00",
        "resourceVersion=5",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "resourceVersion=0&continue=abc",
        "",
    ] {
        world.send(request("GET", &format!("{MAPS}?{query}"), "")).await;
    }
    let mut table = request("GET", &format!("{MAPS}?resourceVersion=0"), "");
    table.headers_mut().insert("accept", HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io"));
    world.send(table).await;
    let paths: Vec<_> = world.server.received().into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths,
        [
            MAP.to_owned(),
            format!("{MAPS}?fieldSelector=data.x%3Dy"),
            format!("{MAPS}?resourceVersion=00"),
            format!("{MAPS}?resourceVersion=5"),
            format!("{MAPS}?resourceVersion=0&resourceVersionMatch=Exact"),
            format!("{MAPS}?continue=abc&resourceVersion=0"),
            MAPS.to_owned(),
            MAPS.to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cached_read_waits_for_the_echo_of_the_guests_own_write() {
    let world = World::new(|received| match received.method.as_str() {
        "PUT" => ok(map("x", "u", 50, "new")),
        _ => panic!("{received:?}"),
    });
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    assert!(world.guest.echo_pending());
    let cache = world.cache.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cache.set(45, &[map("x", "u", 40, "old"), map("y", "v", 45, "")]);
        tokio::time::sleep(Duration::from_millis(30)).await;
        cache.set(50, &[map("x", "u", 50, "new"), map("y", "v", 45, "")]);
    });
    let (_, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!(object["data"]["d"], "new");
    assert!(!world.guest.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn another_guest_does_not_wait_for_it() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let other = world.gateway.guest(access("other")).unwrap();
    let answer =
        other.send(request("GET", &format!("{MAP}?resourceVersion=0"), ""), Duration::from_secs(1)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("old"));
}

// Rule 13
#[tokio::test(start_paused = true)]
async fn after_five_seconds_of_waiting_the_server_is_asked() {
    let world = World::new(|received| ok(map("x", "u", 50, if received.method == "PUT" { "" } else { "fresh" })));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let started = Instant::now();
    let (_, object) = world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert_eq!(object["data"]["d"], "fresh");
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(world.server.received()[1].path, MAP);
    assert!(!world.guest.echo_pending(), "a guest is not kept awake for an echo that does not come");
    let started = Instant::now();
    world.read(&format!("{MAP}?resourceVersion=0")).await;
    assert!(started.elapsed() < Duration::from_secs(1), "the next read does not wait again");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_configuration_keeps_what_is_known_of_writes() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let again = world.gateway.guest(access("ring")).unwrap();
    assert!(Arc::ptr_eq(&again, &world.guest) && again.echo_pending());
    again.forget_writes("", "configmaps");
    assert!(!again.echo_pending());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_echo_is_told() {
    let world = World::new(|_| ok(map("x", "u", 50, "new")));
    world.cache.set(40, &[map("x", "u", 40, "old")]);
    world.send(request("PUT", MAP, "{}")).await;
    let started = Instant::now();
    let settled = tokio::spawn(world.guest.echo_settled());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!settled.is_finished());
    world.cache.set(50, &[map("x", "u", 50, "new")]);
    settled.await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
    world.guest.echo_settled().await;
}

// Rule 26
#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_gone_from_the_cache_at_once() {
    let world = World::new(|_| ok(r#"{"kind":"Status","status":"Success","details":{"name":"x","uid":"u"}}"#));
    world.cache.set(40, &[map("x", "u", 40, "old"), map("y", "v", 39, "")]);
    world.send(request("DELETE", MAP, "{}")).await;
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.0, 404);
    let (_, list) = world.read(&format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    world.cache.set(60, &[map("x", "w", 60, "successor")]);
    assert_eq!(world.read(&format!("{MAP}?resourceVersion=0")).await.1["data"]["d"], "successor");
}

// Rule 30
#[tokio::test(start_paused = true)]
async fn after_a_lost_write_reads_go_upstream_until_the_cache_has_passed_a_fresh_list() {
    let world = World::new(|received| match received.method.as_str() {
        "PATCH" => Reply::Break,
        _ if received.path.contains("limit=1") => {
            assert!(!received.headers.contains_key("impersonate-user"));
            ok(r#"{"metadata":{"resourceVersion":"70"},"items":[]}"#)
        }
        _ => ok(map("x", "u", 60, "upstream")),
    });
    world.cache.set(65, &[map("x", "u", 40, "cached")]);
    assert_eq!(world.send(request("PATCH", MAP, "{}")).await.0, 504);
    let path = format!("{MAP}?resourceVersion=0");
    assert_eq!(world.read(&path).await.1["data"]["d"], "upstream");
    while !world.server.received().iter().any(|r| r.path.contains("limit=1")) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.read(&path).await.1["data"]["d"], "upstream");
    world.cache.set(70, &[map("x", "u", 60, "cached")]);
    assert_eq!(world.read(&path).await.1["data"]["d"], "cached");
}

// Rule 39
#[tokio::test]
async fn metric_labels_hold_no_text_that_a_guest_made_up() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    for n in 0..50 {
        world.send(request("GET", &format!("/apis/g{n}.example/v1/namespaces/a/made{n}/x"), "")).await;
    }
    world.send(request("GET", MAP, "")).await;
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("calls", "", world.metrics.api_calls.clone());
    registry.register("denied", "", world.metrics.api_denied.clone());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(!text.contains("made"), "{text}");
    assert!(text.contains(r#"calls_total{guest="ring",verb="get",resource="other",code="403"} 50"#), "{text}");
    assert!(text.contains(r#"calls_total{guest="ring",verb="get",resource="configmaps",code="200"} 1"#), "{text}");
    assert!(text.contains(r#"denied_total{guest="ring",verb="get",resource="other"} 50"#), "{text}");
}

#[tokio::test]
async fn log_text_passes_as_it_is() {
    let world =
        World::new(|_| Reply::Text(200, &[("content-type", "text/plain")], "{\"metadata\":{\"managedFields\":1}}"));
    let (code, headers, body) = world.send(request("GET", "/api/v1/namespaces/a/pods/x/log?tailLines=5", "")).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "text/plain"));
    assert_eq!(body, "{\"metadata\":{\"managedFields\":1}}");
}

#[tokio::test]
async fn the_body_goes_upstream_unchanged() {
    let world = World::new(|_| ok(map("x", "u", 5, "")));
    world.send(request("PATCH", MAP, "{\"a\" : 1.50}")).await;
    let received = world.server.received().remove(0);
    assert_eq!(received.body, "{\"a\" : 1.50}");
    assert_eq!(received.headers["content-type"], "application/merge-patch+json");
}
