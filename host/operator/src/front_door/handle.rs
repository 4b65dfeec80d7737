//! The way of one request, from its head to the head of the answer.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming as IncomingBody;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};
use wasm_operator_cluster::callers::{Caller, CallerError};
use wasm_operator_core::front_door::{
    NoRoute, OWN_PREFIX, RESPONSE_HEADERS, Route, check_path, is_dropped_from_request, is_dropped_from_response, route,
    verb,
};
use wasm_operator_core::request::Verb;
use wasm_operator_engine::ResponseBody;

use super::FrontDoor;
use super::answer::Denial;
use super::body::{ServedBody, collect};
use super::listener::Access;
use super::pending::{End, Expected, Incoming, Pending};
use crate::admin::metrics::RequestNumbers;
use crate::guest::Guest;
use crate::pool::Pool;

/// What of a path is shown in the log.
const LOGGED_PATH: usize = 200;

/// The code under which a request is counted whose caller left before there was an answer: that of nginx.
const CALLER_LEFT: u16 = 499;

/// Counts a request when its answer is complete, or given up.
pub(super) struct Observed {
    numbers: RequestNumbers,
    began: Instant,
    code: u16,
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.numbers.ended(self.code, self.began.elapsed());
    }
}

/// What is known of a request before its body is read.
struct Admitted {
    guest: Arc<Guest>,
    user: String,
    path: String,
    identity: Vec<(HeaderName, HeaderValue)>,
}

impl FrontDoor {
    /// Answers one request that came over a connection from `from`.
    pub(super) async fn handle(
        self: &Arc<Self>,
        request: Request<IncomingBody>,
        access: &Access,
        from: IpAddr,
    ) -> Response<ResponseBody> {
        let id = format!("{:016x}", self.host.next_reconcile());
        let (method, began) = (request.method().clone(), Instant::now());
        let path: String = request.uri().path().chars().take(LOGGED_PATH).collect();
        let admitted = match self.admit(request.headers(), &method, request.uri(), access, from).await {
            Ok(admitted) => admitted,
            Err(denial) => {
                let code = denial.code().0;
                if let Denial::Caller(CallerError::Unanswered(reason)) = &denial {
                    warn!(request_id = id, reason, "a caller cannot be judged");
                } else {
                    debug!(request_id = id, %method, path, %from, code = code.as_u16(), "not admitted: {denial}");
                }
                self.host.metrics.not_admitted(code.as_u16());
                return with_id(denial.response(), &id);
            }
        };
        let (name, user) = (Arc::clone(&admitted.guest.name), admitted.user.clone());
        let numbers = self.host.metrics.request(&name);
        let mut observed = Observed { numbers, began, code: CALLER_LEFT };
        let response = match self.answer(request, admitted, &id).await {
            Ok((response, deadline, ticket)) => {
                observed.code = response.status().as_u16();
                response.map(|body| ServedBody::new(body, deadline, ticket, observed).boxed_unsync())
            }
            Err(denial) => {
                observed.code = denial.code().0.as_u16();
                debug!(guest = &*name, request_id = id, user, "not served: {denial}");
                denial.response()
            }
        };
        let (code, milliseconds) = (response.status().as_u16(), began.elapsed().as_millis());
        info!(guest = &*name, request_id = id, user, %method, path, code, milliseconds, "request");
        with_id(response, &id)
    }

    /// Authenticates and authorises the caller and finds the guest, in this order: who may not call learns nothing of what
    /// there is.
    async fn admit(
        &self,
        headers: &HeaderMap,
        method: &http::Method,
        uri: &Uri,
        access: &Access,
        from: IpAddr,
    ) -> Result<Admitted, Denial> {
        let verb = verb(method.as_str()).ok_or(Denial::Method)?;
        let (guest, path, caller) = match access {
            Access::Tokens => {
                let Route { guest, path } = route(uri.path())?;
                let caller = self.callers.authenticate(bearer(headers)?, from).await?;
                (guest, path, caller)
            }
            Access::Listener(listener) => {
                check_path(uri.path())?;
                check_origin(headers)?;
                listener.authenticate(headers, from)?;
                (&*listener.guest, uri.path(), listener.caller.clone())
            }
        };
        self.authorize(&caller, verb, guest, from).await?;
        let found = self.host.named(guest).ok_or_else(|| Denial::NoGuest(guest.to_owned()))?;
        if found.active().is_some_and(|active| !active.pool().is_some_and(Pool::may_serve)) {
            return Err(Denial::ServesNothing(guest.to_owned()));
        }
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let identity = identity(&caller)?;
        Ok(Admitted { guest: found, user: caller.user, path: format!("{path}{query}"), identity })
    }

    async fn authorize(&self, caller: &Caller, verb: Verb, guest: &str, from: IpAddr) -> Result<(), Denial> {
        if self.callers.may_call(caller, verb, guest, from).await? {
            return Ok(());
        }
        Err(Denial::Forbidden { user: caller.user.clone(), verb: verb.as_str(), guest: guest.to_owned() })
    }

    /// Reads the body and has the guest answer.
    async fn answer(
        &self,
        request: Request<IncomingBody>,
        admitted: Admitted,
        id: &str,
    ) -> Result<(Response<ResponseBody>, Instant, super::pending::Ticket), Denial> {
        let Admitted { guest, user, path, identity } = admitted;
        let serve = guest.serve();
        let deadline = Instant::now() + serve.time();
        let (parts, body) = request.into_parts();
        let (body, permit) = collect(&parts.headers, body, serve.request_bytes, deadline, &self.bodies).await?;
        let request = to_guest(parts, body, path, identity, id)?;
        let incoming =
            Incoming { request, id: id.to_owned(), user, deadline, response_bytes: serve.response_bytes, body: permit };
        let now = || self.host.scheduler.now();
        let name = || guest.name.to_string();
        let expected = Pending::enqueue(&self.host, guest.id, incoming)
            .map_err(|refusal| Denial::refused(refusal, &guest.name, now()))?;
        let Expected { answer, end, mut ticket } = expected;
        let too_late = || Denial::TooLate { guest: name(), milliseconds: serve.milliseconds };
        match timeout_at(deadline, answer).await {
            Err(_) => Err(too_late()),
            Ok(Ok(Ok(response))) => {
                let response = to_caller(response).ok_or_else(|| Denial::NoAnswer(name()))?;
                ticket.answered();
                Ok((response, deadline, ticket))
            }
            Ok(Ok(Err(error))) => {
                warn!(guest = &*guest.name, request_id = id, %error, "the guest gave an error for an answer");
                Err(Denial::NoAnswer(name()))
            }
            // No answer comes any more; the end says why. It follows at once, but for a guest that goes on without one.
            Ok(Err(_)) => Err(match timeout_at(deadline, end).await {
                Ok(Ok(End::Refused(refusal))) => Denial::refused(refusal, &guest.name, now()),
                Ok(Ok(End::NoInstance)) => Denial::NoInstance(name()),
                Ok(Ok(End::NoAnswer)) => Denial::NoAnswer(name()),
                Ok(Ok(End::ServesNothing)) => Denial::ServesNothing(name()),
                Ok(Ok(End::TooLate)) | Err(_) => too_late(),
                Ok(Ok(End::Broken) | Err(_)) => Denial::Broken { guest: name(), request: id.to_owned() },
            }),
        }
    }
}

/// A listener without tokens knows its callers by where they are. A browser is there as well, and sends what any page tells it
/// to: whatever comes from another page than the guest's own is refused.
fn check_origin(headers: &HeaderMap) -> Result<(), Denial> {
    let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if from_elsewhere || headers.contains_key(http::header::ORIGIN) { Err(Denial::Browser) } else { Ok(()) }
}

/// The one bearer token.
fn bearer(headers: &HeaderMap) -> Result<&str, Denial> {
    credentials(headers, "bearer").ok_or(Denial::NoToken)
}

/// What follows the scheme in the one `Authorization` header.
pub(super) fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (given, credentials) = value.to_str().ok()?.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| credentials.trim_matches(' '))
}

/// The caller as headers.
fn identity(caller: &Caller) -> Result<Vec<(HeaderName, HeaderValue)>, Denial> {
    let uid = Some(&caller.uid).filter(|uid| !uid.is_empty());
    let pairs = std::iter::once(("user", &caller.user))
        .chain(uid.map(|uid| ("uid", uid)))
        .chain(caller.groups.iter().map(|group| ("group", group)));
    pairs
        .map(|(name, value)| {
            let name = HeaderName::try_from(format!("{OWN_PREFIX}{name}")).ok()?;
            Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
        })
        .collect::<Option<_>>()
        .ok_or(Denial::Caller(CallerError::Identity))
}

/// The request as the guest sees it.
fn to_guest(
    parts: http::request::Parts,
    body: Bytes,
    path: String,
    identity: Vec<(HeaderName, HeaderValue)>,
    id: &str,
) -> Result<Request<Bytes>, Denial> {
    let authority = parts.uri.authority().cloned().or_else(|| parts.headers.get(HOST)?.to_str().ok()?.parse().ok());
    // A guest may show it; whoever is called by user information in it is not meant.
    let authority = authority.filter(|authority| !authority.as_str().contains('@'));
    let uri = Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(authority.unwrap_or(Authority::from_static("localhost")))
        .path_and_query(PathAndQuery::try_from(path).map_err(|_| NoRoute::NotFound)?)
        .build()
        .map_err(|_| NoRoute::NotFound)?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    // What the connection header names belongs to the connection.
    let named: Vec<String> = parts
        .headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let length = HeaderValue::from(request.body().len());
    let has_body = !request.body().is_empty();
    let headers = request.headers_mut();
    for (name, value) in &parts.headers {
        let word = name.as_str();
        if !is_dropped_from_request(word) && name != CONTENT_LENGTH && !named.iter().any(|named| named == word) {
            headers.append(name, value.clone());
        }
    }
    if has_body {
        headers.insert(CONTENT_LENGTH, length);
    }
    for (name, value) in identity {
        headers.append(name, value);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(request_id(), id);
    }
    Ok(request)
}

/// The answer as the caller sees it. None if it is no answer: an interim one, or a change of protocol.
fn to_caller(mut response: Response<ResponseBody>) -> Option<Response<ResponseBody>> {
    if response.status().is_informational() {
        return None;
    }
    let headers = response.headers_mut();
    let dropped: Vec<HeaderName> =
        headers.keys().filter(|name| is_dropped_from_response(name.as_str())).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    for (name, value) in RESPONSE_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Some(response)
}

fn request_id() -> HeaderName {
    HeaderName::from_static("x-wasm-operator-request-id")
}

fn with_id(mut response: Response<ResponseBody>, id: &str) -> Response<ResponseBody> {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(request_id(), id);
    }
    response
}

#[cfg(test)]
mod tests {
    use wasm_operator_engine::HttpError;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn appended(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_one_bearer_token_counts() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer abc")])), Ok("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "bearer  abc ")])), Ok("abc"));
        for bad in [
            headers(&[]),
            headers(&[("authorization", "Basic abc")]),
            headers(&[("authorization", "Bearer")]),
            headers(&[("authorization", "abc")]),
            appended(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
        ] {
            assert_eq!(bearer(&bad), Err(Denial::NoToken), "{bad:?}");
        }
    }

    #[test]
    fn the_guest_sees_the_callers_identity_and_no_claim_of_another() {
        let caller = Caller {
            user: "Jürgen".into(),
            uid: String::new(),
            groups: vec!["a".into(), "b".into()],
            ..Caller::default()
        };
        let parts = Request::builder()
            .method("POST")
            .uri("/guests/hello/x?y")
            .header("host", "example.com:8443")
            .header("authorization", "Bearer abc")
            .header("x-wasm-operator-user", "root")
            .header("X_Wasm_Operator_Group", "system:masters")
            .header("x-wasm-operator-uid", "0")
            .header("connection", "close, X-Secret")
            .header("x-secret", "s")
            .header("content-length", "99")
            .header("accept", "a/b")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let request =
            to_guest(parts, Bytes::from_static(b"body"), "/x?y".into(), identity(&caller).unwrap(), "17").unwrap();
        assert_eq!(request.uri(), "https://example.com:8443/x?y");
        let mut seen: Vec<(&str, &[u8])> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        seen.sort_unstable();
        let expected: [(&str, &[u8]); 6] = [
            ("accept", b"a/b"),
            ("content-length", b"4"),
            ("x-wasm-operator-group", b"a"),
            ("x-wasm-operator-group", b"b"),
            ("x-wasm-operator-request-id", b"17"),
            ("x-wasm-operator-user", "Jürgen".as_bytes()),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_page_of_another_site_cannot_use_its_readers_place() {
        for good in
            [headers(&[]), headers(&[("sec-fetch-site", "none")]), headers(&[("sec-fetch-site", "same-origin")])]
        {
            assert_eq!(check_origin(&good), Ok(()), "{good:?}");
        }
        for bad in [
            headers(&[("origin", "https://example.com")]),
            headers(&[("origin", "null")]),
            headers(&[("sec-fetch-site", "cross-site")]),
            headers(&[("sec-fetch-site", "same-site")]),
        ] {
            assert_eq!(check_origin(&bad), Err(Denial::Browser), "{bad:?}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_not_shown_to_the_guest() {
        for host in ["user@example.com", "a b", ""] {
            let parts = Request::builder().uri("/").header("host", host).body(()).unwrap().into_parts().0;
            let request = to_guest(parts, Bytes::new(), "/".into(), Vec::new(), "1").unwrap();
            assert_eq!(request.uri(), "https://localhost/", "{host}");
        }
    }

    #[test]
    fn what_reaches_beyond_an_answer_is_dropped_and_the_sandbox_is_added() {
        let body = || http_body_util::Empty::new().map_err(|never| -> HttpError { match never {} }).boxed_unsync();
        let response = Response::builder()
            .header("set-cookie", "a=b")
            .header("content-security-policy", "default-src *")
            .header("content-type", "text/html")
            .header("x-wasm-operator-user", "x")
            .body(body())
            .unwrap();
        let response = to_caller(response).unwrap();
        let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-security-policy", "content-type", "x-content-type-options"]);
        assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
        let switching = Response::builder().status(101).body(body()).unwrap();
        assert!(to_caller(switching).is_none());
    }
}
