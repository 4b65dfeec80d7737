//! One request of a guest to the Kubernetes API, from its bytes to the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use wasm_operator_core::gate::{Effect, ResourceKey};
use wasm_operator_core::request::{
    Accept, ApiRequest, ContentType, DeleteOptions, Method, Refusal, ResourceRequest, Verb,
};

use super::body::{StreamOptions, collect};
use super::cached::asks_for_any_version;
use super::error::BodyError;
use super::forward::{Forwarded, Upstream, answer_headers};
use super::identity::field_manager;
use super::metrics::{CallLabels, DeniedLabels};
use super::retry::is_safe;
use super::watch::begins_watch;
use super::{Body, Current, GuestGateway};

/// The label value of what no rule names.
const OTHER: &str = "other";

/// A request that may be sent.
struct Call {
    request: ResourceRequest,
    content: ContentType,
    delete: DeleteOptions,
    accept: Accept,
    body: Bytes,
}

type Answer = (u16, HeaderMap, Body);

impl GuestGateway {
    pub(super) async fn api(
        self: &Arc<Self>,
        current: Arc<Current>,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> Response<Body> {
        let mut labels =
            CallLabels { guest: current.access.name.clone(), verb: OTHER, resource: OTHER.into(), code: 0 };
        let (code, headers, body) = match self.answer(&current, request, deadline, &mut labels).await {
            Ok(answer) => answer,
            Err(refusal) => refused(&refusal),
        };
        labels.code = code;
        self.shared.metrics.called(labels);
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = headers;
        response
    }

    async fn answer(
        self: &Arc<Self>,
        current: &Arc<Current>,
        request: Request<Bytes>,
        deadline: Instant,
        labels: &mut CallLabels,
    ) -> Result<Answer, Refusal> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let parsed = ApiRequest::parse(parts.method.as_str(), path)?;
        if let ApiRequest::Resource(request) = &parsed {
            labels.verb = request.verb.as_str();
            labels.resource = label(current, request);
        }
        let limit = current.access.limits.request_bytes;
        if body.len() as u64 > limit {
            return Err(Refusal::too_large(format!(
                "the request's body is larger than `requestBytes` ({limit} bytes)"
            )));
        }
        if !body.is_empty() && parsed.method() == Method::Get {
            return Err(Refusal::bad_request("a `GET` has no body"));
        }
        let in_flight = current.in_flight.clone().try_acquire_owned().map_err(|_| {
            let limit = current.access.limits.requests_in_flight;
            Refusal::too_many_requests(format!(
                "guest `{}` has more than `requestsInFlight` ({limit}) requests under way",
                current.access.name
            ))
        })?;
        match parsed {
            ApiRequest::Discovery(_) => {
                let accept = Accept::parse(header(&parts.headers, &http::header::ACCEPT)?)?;
                let permits = vec![in_flight, self.host_permit(deadline).await?];
                let answer = self.discover(current, parsed.to_path_and_query(), &accept, deadline).await?;
                Ok(held(answer, permits))
            }
            ApiRequest::Resource(request) => {
                let call = Call::new(*request, &parts.headers, body)?;
                self.resource(current, call, deadline, labels, in_flight).await
            }
        }
    }

    /// A place among all guests' requests in flight.
    async fn host_permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Refusal> {
        timeout_at(deadline, self.shared.in_flight.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Refusal::too_many_requests("the host has too many requests under way"))
    }

    async fn resource(
        self: &Arc<Self>,
        current: &Arc<Current>,
        mut call: Call,
        deadline: Instant,
        labels: &CallLabels,
        in_flight: OwnedSemaphorePermit,
    ) -> Result<Answer, Refusal> {
        let guest = &current.access.name;
        if let Err(denied) = current.access.permissions.check(&call.request, call.content) {
            let verb = denied.right().verb;
            self.shared.metrics.denied(DeniedLabels {
                guest: guest.clone(),
                verb: verb.as_str(),
                resource: labels.resource.clone(),
            });
            self.report_denied(guest, verb, &labels.resource, "the guest's permissions");
            return Err(Refusal::forbidden(denied.message(guest)));
        }
        if current.access.shared_watches && call.request.verb == Verb::Watch {
            return self.long_watch(current, call, deadline, labels, in_flight).await;
        }
        // Kept until the answer is there, and for a while after: the watch that follows begins where the list ends.
        let feed = if current.access.shared_watches && begins_watch(&call.request) {
            timeout_at(deadline, self.feed(current, &call.request, &call.accept)).await.ok().flatten()
        } else {
            None
        };
        if let Some(answer) = self.cached(current, &call.request, &call.accept, feed.as_ref(), deadline).await {
            return Ok(held(answer, vec![in_flight]));
        }
        if asks_for_any_version(&call.request) {
            // The server's own cache may be behind this guest's writes as well.
            call.request.query.resource_version = None;
            call.request.query.resource_version_match = None;
        }
        if matches!(call.request.verb, Verb::Create | Verb::Update | Verb::Patch) {
            let given = call.request.query.field_manager.as_deref();
            let manager = field_manager(guest, given, current.access.adopt_field_manager.as_deref())?;
            call.request.query.field_manager = Some(manager);
        }
        let permits = vec![in_flight, self.host_permit(deadline).await?];
        let (answer, permits) = if call.request.verb.is_read() {
            (self.read(current, &call, deadline, Some(deadline)).await, permits)
        } else {
            // A task of its own, which keeps its place in flight: a guest that is dropped meanwhile neither leaves the
            // outcome open nor has room for more.
            let (this, current) = (self.clone(), current.clone());
            self.shared
                .options
                .runtime
                .spawn(async move { (this.write(&current, &call, deadline).await, permits) })
                .await
                .map_err(|_| Refusal::timeout("the host is shutting down; the outcome is unknown, read again"))?
        };
        let answer = answer?;
        self.report_if_denied(guest, &answer, labels);
        Ok(held(answer, permits))
    }

    /// A watch of a guest that watches for itself: from a shared stream, or else from the server. It lasts, so it takes no
    /// place among the requests in flight once it has begun, but one among the guest's watches.
    async fn long_watch(
        self: &Arc<Self>,
        current: &Arc<Current>,
        mut call: Call,
        deadline: Instant,
        labels: &CallLabels,
        in_flight: OwnedSemaphorePermit,
    ) -> Result<Answer, Refusal> {
        let place = vec![self.watch_place(current)?];
        if let Some(answer) = self.watch(current, &call.request, &call.accept, deadline).await {
            return Ok(held(answer, place));
        }
        if call.request.query.send_initial_events != Some(true) {
            // Each would wake a guest that sleeps, once a minute. Only the end of the initial events is not known without.
            call.request.query.allow_watch_bookmarks = None;
        }
        let _until_it_begins = (in_flight, self.host_permit(deadline).await?);
        let answer = self.read(current, &call, deadline, None).await?;
        self.report_if_denied(&current.access.name, &answer, labels);
        Ok(held(answer, place))
    }

    /// `body_until`: when the body is cut. None: it is a watch that lasts, of any number of bytes.
    async fn read(
        &self,
        current: &Current,
        call: &Call,
        deadline: Instant,
        body_until: Option<Instant>,
    ) -> Result<Answer, Refusal> {
        let forwarded = self.shared.forward(current, &call.upstream()?, || true, deadline).await;
        let answer = forwarded.result.map_err(|unanswered| unanswered.to_refusal(false))?;
        let options = StreamOptions {
            limit: body_until.map_or(u64::MAX, |_| current.access.limits.response_bytes),
            deadline: body_until,
            strip_managed_fields: is_json(answer.headers()),
        };
        streamed(answer, options)
    }

    async fn discover(
        &self,
        current: &Current,
        path_and_query: String,
        accept: &Accept,
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let upstream = Upstream {
            method: HttpMethod::GET,
            path_and_query,
            accept: header_value(&accept.header)?,
            content_type: None,
            body: Bytes::new(),
        };
        let forwarded = self.shared.forward(current, &upstream, || true, deadline).await;
        let answer = forwarded.result.map_err(|unanswered| unanswered.to_refusal(false))?;
        let limit = current.access.limits.response_bytes;
        streamed(answer, StreamOptions { limit, deadline: Some(deadline), strip_managed_fields: false })
    }

    /// Sends a write, reads the whole answer, and tells the gate what has to be seen of it.
    async fn write(&self, current: &Current, call: &Call, deadline: Instant) -> Result<Answer, Refusal> {
        let safe = || is_safe(&call.request, call.content, call.delete, &call.body);
        let Forwarded { result, outcome_open } = self.shared.forward(current, &call.upstream()?, safe, deadline).await;
        let answer = match result {
            Ok(answer) => answer,
            Err(unanswered) => {
                if outcome_open {
                    self.record(call, call.unknown());
                }
                return Err(unanswered.to_refusal(outcome_open));
            }
        };
        let code = answer.status().as_u16();
        let mut headers = answer_headers(answer.headers());
        let is_json = is_json(answer.headers());
        let limit = current.access.limits.response_bytes;
        let body = match timeout_at(deadline, collect(answer.into_body(), limit)).await {
            Ok(Ok(body)) => body,
            cut => {
                self.record(call, call.unknown());
                let why = match cut {
                    Ok(Err(BodyError::TooLarge { .. })) => return Err(answer_too_large(limit)),
                    Ok(Err(error)) => error.to_string(),
                    _ => "no time is left".to_owned(),
                };
                return Err(Refusal::timeout(format!(
                    "the API server's answer did not come whole ({why}); the outcome is unknown, read again"
                )));
            }
        };
        // An earlier attempt may have succeeded: then the conflict is with itself, and the object is gone by its own hand.
        if outcome_open && matches!(code, 404 | 409) && matches!(call.request.verb, Verb::Update | Verb::Delete) {
            self.record(call, call.unknown());
            return Err(Refusal::timeout(format!(
                "the first answer was lost and the second is {code}; the outcome is unknown, read again"
            )));
        }
        let effect = Effect::of(&call.request, call.dry_run(), code, &body);
        // A refusal of the last attempt says nothing of the one before whose answer was lost.
        self.record(call, if outcome_open && effect == Effect::Nothing { call.unknown() } else { effect });
        let body = if is_json { without_managed_fields(&body) } else { body };
        headers.remove(http::header::CONTENT_LENGTH);
        Ok((code, headers, Body::whole(body)))
    }

    fn record(&self, call: &Call, effect: Effect) {
        if effect == Effect::Nothing {
            return;
        }
        let key =
            ResourceKey { group: call.request.group.as_str().into(), plural: call.request.plural.as_str().into() };
        self.writes().gate.record(&key, effect, self.shared.now());
    }

    fn report_if_denied(&self, guest: &Arc<str>, answer: &Answer, labels: &CallLabels) {
        if answer.0 == 403 {
            let verb = Verb::parse(labels.verb).unwrap_or(Verb::Get);
            self.report_denied(guest, verb, &labels.resource, "the API server");
        }
    }

    fn report_denied(&self, guest: &Arc<str>, verb: Verb, resource: &str, by: &str) {
        self.shared.options.events.warn(
            "Forbidden",
            guest,
            &format!(
                "guest `{guest}` may not `{verb}` `{resource}`: denied by {by}; the log and the guest's errors say more"
            ),
        );
    }
}

impl Call {
    fn new(request: ResourceRequest, headers: &HeaderMap, body: Bytes) -> Result<Self, Refusal> {
        let log = request.plural == "pods" && request.subresource.as_deref() == Some("log");
        let accept = if log {
            // Text, whatever is asked for.
            Accept { shape: None, header: "*/*".to_owned() }
        } else {
            Accept::parse(header(headers, &http::header::ACCEPT)?)?
        };
        if !request.verb.is_read() && accept.shape.is_none() {
            return Err(Refusal::not_acceptable(
                "a write is answered with the object or its metadata, not with a table",
            ));
        }
        let content = match request.method {
            Method::Get => ContentType::Json,
            Method::Delete if body.is_empty() => ContentType::Json,
            method => ContentType::parse(method, header(headers, &CONTENT_TYPE)?)?,
        };
        let delete = match request.method {
            Method::Delete => DeleteOptions::parse(&request.query, &body)?,
            _ => DeleteOptions::default(),
        };
        Ok(Self { request, content, delete, accept, body })
    }

    fn dry_run(&self) -> bool {
        self.request.query.dry_run || self.delete.dry_run
    }

    /// The effect of this write when its answer was lost.
    fn unknown(&self) -> Effect {
        Effect::of(&self.request, self.dry_run(), StatusCode::GATEWAY_TIMEOUT.as_u16(), &[])
    }

    fn upstream(&self) -> Result<Upstream, Refusal> {
        Ok(Upstream {
            method: match self.request.method {
                Method::Get => HttpMethod::GET,
                Method::Post => HttpMethod::POST,
                Method::Put => HttpMethod::PUT,
                Method::Patch => HttpMethod::PATCH,
                Method::Delete => HttpMethod::DELETE,
            },
            path_and_query: self.request.to_path_and_query(),
            accept: header_value(&self.accept.header)?,
            content_type: (!self.body.is_empty()).then_some(self.content.as_str()),
            body: self.body.clone(),
        })
    }
}

/// The refusal of an answer that is too large for the guest.
pub(super) fn answer_too_large(limit: u64) -> Refusal {
    Refusal::too_large(BodyError::TooLarge { limit }.to_string())
}

/// The permits are free when the body is dropped.
fn held((code, headers, body): Answer, permits: Vec<OwnedSemaphorePermit>) -> Answer {
    (code, headers, body.hold(permits))
}

fn refused(refusal: &Refusal) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if refusal.code == 429 {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    (refusal.code, headers, Body::whole(refusal.to_status()))
}

fn streamed(answer: Response<kube::client::Body>, options: StreamOptions) -> Result<Answer, Refusal> {
    let announced = http_body::Body::size_hint(answer.body()).lower();
    if announced > options.limit {
        return Err(answer_too_large(options.limit));
    }
    let headers = answer_headers(answer.headers());
    Ok((answer.status().as_u16(), headers, Body::stream(answer.into_body(), options)))
}

/// A header that stands there once at most.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    if second.is_some() {
        return Err(Refusal::bad_request(format!("the header `{name}` is given twice")));
    }
    first
        .map(|value| value.to_str().map_err(|_| Refusal::bad_request(format!("the header `{name}` is not ASCII"))))
        .transpose()
}

fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|_| Refusal::not_acceptable("the header `accept` is malformed"))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}

fn without_managed_fields(body: &[u8]) -> Bytes {
    let mut filter = super::managed_fields::ManagedFieldsFilter::default();
    let mut out = Vec::new();
    filter.push(body, &mut out);
    filter.finish(&mut out);
    out.into()
}

/// The metric label of the resource.
fn label(current: &Current, request: &ResourceRequest) -> Arc<str> {
    current.access.permissions.label(&request.group, &request.plural).map_or_else(|| OTHER.into(), Into::into)
}
