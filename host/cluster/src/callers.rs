//! Who calls a guest, and whether they may: TokenReview and SubjectAccessReview, remembered for a short while.
//!
//! Whoever can reach the front door can make the host ask. So what is asked is bounded in size, in number at once and in
//! rate, and a wrong token is remembered as well as a right one.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use wasm_operator_core::front_door::{GROUP, GUESTS, SUBRESOURCE};
use wasm_operator_core::rate_limit::{Rate, RateLimit};
use wasm_operator_core::request::Verb;
use wasm_operator_core::timer::Time;

use crate::cache::Cache;

/// Longest token in bytes. Those of the API server have about 1 KiB, with many claims some more.
pub const MAX_TOKEN: usize = 8 << 10;
/// Bytes of names and values that a caller's identity may have: it is passed on with each request.
const MAX_IDENTITY: usize = 16 << 10;

/// How long a token is believed, and so how long a revoked one still works.
pub const TOKEN_TTL: Duration = Duration::from_secs(30);
/// How long a token is known to be wrong. It may become right: clocks differ.
const WRONG_TOKEN_TTL: Duration = Duration::from_secs(10);
/// How long a right is believed, and how long the lack of one. Who has just been granted a right should not wait.
pub const RIGHT_TTL: Duration = Duration::from_secs(15);
const NO_RIGHT_TTL: Duration = Duration::from_secs(5);
/// Answers kept of each kind. Wrong tokens have a cache of their own, so that a flood of them displaces nobody.
const MAX_ANSWERS: usize = 2_048;

/// Time for one review, waiting for its turn included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews under way at once: enough for a few hundred new callers per second.
const MAX_REVIEWS: usize = 8;
/// Reviews in all, and for callers from one address. An honest caller takes two in half a minute.
const REVIEWS: Rate = Rate { per_second: 50, burst: 100 };
const REVIEWS_OF_ONE: Rate = Rate { per_second: 5, burst: 20 };
/// Addresses whose rate is remembered.
const MAX_ADDRESSES: usize = 4_096;

/// Who calls, as the API server says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The name.
    pub user: String,
    /// The uid; empty if there is none.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else is known, such as the pod of a ServiceAccount's token.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// For the caller: the token is wrong, expired, or meant for someone else.
    #[error("the token is not valid for the audience `{audience}`")]
    Token {
        /// The audience that is demanded.
        audience: Arc<str>,
    },
    /// For the caller: the identity is too large, or holds control characters, and cannot be passed on.
    #[error("the caller's identity cannot be passed on: it is too large or holds control characters")]
    Identity,
    /// For the caller: too many new tokens and questions; those that are known pass.
    #[error("too many callers at once that are not known yet; try again later")]
    TooMany,
    /// The API server did not answer, or the host may not ask. For whoever runs the host.
    #[error("the API server did not say who may call: {0}")]
    Unanswered(String),
}

/// A question as the key of its answer: an identity may have some KiB, so it is not kept.
fn question(caller: &Caller, verb: Verb, guest: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        // With its length, so that no two questions read the same.
        digest.update(text.len().to_le_bytes());
        digest.update(text.as_bytes());
    };
    let extra = caller
        .extra
        .iter()
        .flat_map(|(key, values)| [key.clone(), values.len().to_string()].into_iter().chain(values.iter().cloned()));
    let counts = [caller.groups.len().to_string(), caller.extra.len().to_string()];
    let texts = [verb.as_str(), guest, &caller.user, &caller.uid].map(str::to_owned).into_iter().chain(counts);
    texts.chain(caller.groups.iter().cloned()).chain(extra).for_each(|text| add(&text));
    digest.finalize().into()
}

/// Asks the API server about callers. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Callers(Arc<Inner>);

struct Inner {
    client: Client,
    audience: Arc<str>,
    tokens: Cache<[u8; 32], Caller>,
    wrong_tokens: Cache<[u8; 32], CallerError>,
    rights: Cache<[u8; 32], bool>,
    turns: Arc<Semaphore>,
    runtime: Handle,
    rate: Mutex<RateLimit<IpAddr>>,
    started: Instant,
}

impl Callers {
    /// Asks with the host's own identity, which needs `create` on `tokenreviews` and `subjectaccessreviews`.
    ///
    /// Reviews run on `runtime`, where the client's connections live, whoever asks.
    #[must_use]
    pub fn new(client: Client, audience: &str, runtime: Handle) -> Self {
        Self(Arc::new(Inner {
            client,
            audience: audience.into(),
            tokens: Cache::new(MAX_ANSWERS),
            wrong_tokens: Cache::new(MAX_ANSWERS),
            rights: Cache::new(MAX_ANSWERS),
            turns: Arc::new(Semaphore::new(MAX_REVIEWS)),
            runtime,
            rate: Mutex::new(RateLimit::new(REVIEWS, REVIEWS_OF_ONE, MAX_ADDRESSES)),
            started: Instant::now(),
        }))
    }

    /// Who the bearer of this token is. `from` is where the request came from.
    ///
    /// # Errors
    /// When the token is not one of ours, or nothing is known.
    pub async fn authenticate(&self, token: &str, from: IpAddr) -> Result<Caller, CallerError> {
        let inner = &*self.0;
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(inner.wrong());
        }
        // Tokens are not kept, so nothing that dumps or leaks memory finds the keys.
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = inner.tokens.get(&key) {
            return Ok(caller);
        }
        if let Some(error) = inner.wrong_tokens.get(&key) {
            return Err(error);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![inner.audience.to_string()]) },
            ..TokenReview::default()
        };
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer: TokenReview = inner.review(path, &review, from).await?;
        let caller = inner.judge(answer.status.unwrap_or_default());
        match &caller {
            Ok(caller) => inner.tokens.insert(key, caller.clone(), Instant::now() + TOKEN_TTL),
            Err(error) => inner.wrong_tokens.insert(key, error.clone(), Instant::now() + WRONG_TOKEN_TTL),
        }
        caller
    }

    /// Whether the caller has `verb` on `guests/proxy` with the guest's name.
    ///
    /// # Errors
    /// When nothing is known.
    pub async fn may_call(&self, caller: &Caller, verb: Verb, guest: &str, from: IpAddr) -> Result<bool, CallerError> {
        let inner = &*self.0;
        let question = question(caller, verb, guest);
        if let Some(allowed) = inner.rights.get(&question) {
            return Ok(allowed);
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some(&caller.user),
                uid: some(&caller.uid),
                groups: Some(caller.groups.clone()),
                extra: Some(caller.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: some(verb.as_str()),
                    group: some(GROUP),
                    version: some("*"),
                    resource: some(GUESTS),
                    subresource: some(SUBRESOURCE),
                    name: some(guest),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer: SubjectAccessReview = inner.review(path, &review, from).await?;
        // What could not be evaluated in full denies nothing, and allows nothing either.
        let allowed = answer.status.is_some_and(|status| status.allowed && !status.denied.unwrap_or_default());
        let lifetime = if allowed { RIGHT_TTL } else { NO_RIGHT_TTL };
        inner.rights.insert(question, allowed, Instant::now() + lifetime);
        Ok(allowed)
    }
}

impl Inner {
    fn wrong(&self) -> CallerError {
        CallerError::Token { audience: Arc::clone(&self.audience) }
    }

    /// Believes a review only if it says that the token is meant for us: without audiences of its own, an authenticator may
    /// have taken a token of the API server.
    fn judge(&self, status: TokenReviewStatus) -> Result<Caller, CallerError> {
        let authenticated = status.authenticated.unwrap_or_default() && status.error.unwrap_or_default().is_empty();
        let ours = status.audiences.unwrap_or_default().iter().any(|audience| **audience == *self.audience);
        let user = status.user.unwrap_or_default();
        let caller = Caller {
            user: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        };
        if !authenticated || !ours || caller.user.is_empty() {
            return Err(self.wrong());
        }
        if caller.is_passable() { Ok(caller) } else { Err(CallerError::Identity) }
    }

    async fn review<R: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        review: &R,
        from: IpAddr,
    ) -> Result<R, CallerError> {
        let now = Time::ZERO + self.started.elapsed();
        if !self.rate.lock().take(now, network_of(from)) {
            return Err(CallerError::TooMany);
        }
        let unanswered = |reason: &dyn std::fmt::Display| CallerError::Unanswered(reason.to_string());
        let body = serde_json::to_vec(review).map_err(|error| unanswered(&error))?;
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| unanswered(&error))?;
        let (turns, client) = (Arc::clone(&self.turns), self.client.clone());
        let asked = self.runtime.spawn(timeout(REVIEW_TIMEOUT, async move {
            // Never closed.
            let _turn = turns.acquire().await;
            client.request::<R>(request).await
        }));
        asked
            .await
            .map_err(|error| unanswered(&error))?
            .map_err(|_| unanswered(&format_args!("no answer within {} s", REVIEW_TIMEOUT.as_secs())))?
            .map_err(|error| unanswered(&error))
    }
}

impl Caller {
    /// Whether it can be written into headers.
    #[must_use]
    pub fn is_passable(&self) -> bool {
        let texts = [&self.user, &self.uid].into_iter().chain(&self.groups);
        let extra = self.extra.iter().flat_map(|(key, values)| std::iter::once(key).chain(values));
        // Each is a header, or an entry in a review.
        let bytes: usize = texts.clone().chain(extra).map(|text| text.len().saturating_add(32)).sum();
        bytes <= MAX_IDENTITY && texts.into_iter().all(|text| !text.chars().any(char::is_control))
    }
}

/// One party: in IPv6 everybody has as many addresses as they like.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
    }
}
