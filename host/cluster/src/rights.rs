//! What an identity may do, asked of the API server and remembered for a short while.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use wasm_operator_core::permission::Right;

use crate::cache::Cache;

/// How long an answer is used.
pub const ANSWER_TTL: Duration = Duration::from_secs(45);

/// Answers kept at most; beyond that the expired ones are dropped, then all.
const MAX_ANSWERS: usize = 20_000;

/// Time for one review.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The question was not answered, so nothing is known. Whoever asked tries again or does without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the API server did not say whether `{user}` has the right: {reason}")]
pub struct Unanswered {
    user: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    user: Option<Box<str>>,
    verb: &'static str,
    group: Box<str>,
    resource: Box<str>,
    namespace: Option<Box<str>>,
    name: Option<Box<str>>,
}

/// Reviews under way at once. A thousand guests that start together would open as many connections, and what those take of
/// the heap does not come back in one piece.
const MAX_REVIEWS: usize = 4;

/// Asks with SelfSubjectAccessReviews *as the identity*, so that its groups count. Clones share their answers.
#[derive(Clone)]
pub struct Rights {
    client: Client,
    /// With the time of the question.
    answers: Arc<Cache<Question, (bool, Instant)>>,
    turns: Arc<Semaphore>,
}

impl Rights {
    /// Asks with this client.
    pub fn new(client: Client) -> Self {
        Self { client, answers: Arc::new(Cache::new(MAX_ANSWERS)), turns: Arc::new(Semaphore::new(MAX_REVIEWS)) }
    }

    /// Waits until another review may begin. It is under way until what this returns is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.turns.acquire().await.ok()
    }

    /// Whether `user` (None: the host itself) has the right. The answer may be [`ANSWER_TTL`] old.
    pub async fn allowed(&self, user: Option<&str>, right: &Right<'_>) -> Result<bool, Unanswered> {
        self.allowed_within(user, right, ANSWER_TTL).await
    }

    /// [`allowed`](Self::allowed), with an answer that is at most so old.
    pub async fn allowed_within(
        &self,
        user: Option<&str>,
        right: &Right<'_>,
        age: Duration,
    ) -> Result<bool, Unanswered> {
        let question = Question {
            user: user.map(Into::into),
            verb: right.verb.as_str(),
            group: right.group.into(),
            resource: right.resource().into(),
            namespace: right.namespace.map(Into::into),
            name: right.name.map(Into::into),
        };
        if let Some((allowed, asked)) = self.answers.get(&question)
            && asked.elapsed() < age
        {
            return Ok(allowed);
        }
        let asked = Instant::now();
        let allowed = self.ask(user, right).await?;
        self.answers.insert(question, (allowed, asked), asked + ANSWER_TTL);
        Ok(allowed)
    }

    async fn ask(&self, user: Option<&str>, right: &Right<'_>) -> Result<bool, Unanswered> {
        let unanswered = |reason: String| Unanswered { user: user.unwrap_or("the host").to_owned(), reason };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(right.verb.as_str().to_owned()),
                    group: Some(right.group.to_owned()),
                    resource: Some(right.plural.to_owned()),
                    subresource: right.subresource.map(str::to_owned),
                    namespace: right.namespace.map(str::to_owned),
                    name: right.name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let body = serde_json::to_vec(&review).map_err(|error| unanswered(error.to_string()))?;
        let mut request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| unanswered(error.to_string()))?;
        if let Some(user) = user {
            let value = HeaderValue::from_str(user).map_err(|error| unanswered(error.to_string()))?;
            request.headers_mut().insert("impersonate-user", value);
        }
        let _turn = self.turn().await;
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, self.client.request::<SelfSubjectAccessReview>(request))
            .await
            .map_err(|_| unanswered(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs())))?
            .map_err(|error| unanswered(error.to_string()))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
