//! The gateway against an API server that answers what the test says, and a cache that the test moves.

mod cached;
mod requests;
mod resend;
mod watches;

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
    label_selector: &'static str,
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
        (self.0.label_selector, "")
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
    fn selects(&self, _: &Target) -> bool {
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
    fn maps(label_selector: &'static str) -> Arc<Self> {
        let resource = Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
        };
        Arc::new(Self { resource, label_selector, state: Mutex::default(), moved: watch::channel(0).0 })
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
        authorities: None,
        limits: Limits::default(),
        shared_watches: false,
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
        Self::with_cache(FakeCache::maps(""), access, handler)
    }

    /// With a cache of the objects that a selector selects.
    fn selecting(label_selector: &'static str, handler: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        Self::with_cache(FakeCache::maps(label_selector), access("ring"), handler)
    }

    fn with_cache(
        cache: Arc<FakeCache>,
        access: GuestAccess,
        handler: impl FnMut(&Received) -> Reply + Send + 'static,
    ) -> Self {
        let server = Server::new(handler);
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
