//! Whether the API server answers.

use std::time::Duration;

use http::Request;
use kube::Client;
use kube::client::Body;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::gateway::chain;

/// The API server counts as lost when its last answer is older than this and it does not answer now. 10 s: a restart behind
/// a load balancer, or a slow moment, is no reason to take the host out of service.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
/// An answer is enough for so long, so that many probes of the host are few requests to the API server.
const ANSWER_TTL: Duration = Duration::from_secs(5);
/// The same for a request that was not answered; short, so that a host is ready soon after its API server.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// Time for one answer. Less than the patience of a probe of the host.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Everyone may read it, and it costs the API server nothing.
const PATH: &str = "/version";

/// The API server is out of reach. Whoever looks after the network or the API server has to act; the host goes on trying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It has not answered since the host was started.
    #[error("the API server has not been reached yet: {0}")]
    Never(String),
    /// It has answered before.
    #[error("the API server has not answered for {} s: {reason}", since.as_secs())]
    Lost {
        /// Time since its last answer.
        since: Duration,
        /// Why the last request failed.
        reason: String,
    },
}

/// Asks the API server for its version when somebody wants to know, and remembers the answer for a moment.
pub struct Reachability {
    client: Client,
    /// Held while it is asked, so that one request answers all who wait.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    answered: Option<Instant>,
    failed: Option<(Instant, String)>,
}

impl Reachability {
    /// Asks with this client. Nothing is sent before [`Reachability::check`].
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// Whether the API server answers, or did less than [`LOST_AFTER`] ago. Takes two seconds at most beside those who asked before.
    pub async fn check(&self) -> Result<(), Unreachable> {
        let mut known = self.known.lock().await;
        if !known.is_fresh() {
            known.note(self.ask().await);
        }
        known.verdict()
    }

    async fn ask(&self) -> Result<(), String> {
        let request = Request::get(PATH).body(Body::empty()).map_err(|error| error.to_string())?;
        match timeout(ANSWER_TIMEOUT, self.client.send(request)).await {
            // Whatever it says of the request itself, such as 401, it was reached.
            Ok(Ok(answer)) if !answer.status().is_server_error() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answers `{PATH}` with {}", answer.status())),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        match (&self.failed, self.answered) {
            (Some((at, _)), _) => at.elapsed() < FAILURE_TTL,
            (None, Some(at)) => at.elapsed() < ANSWER_TTL,
            (None, None) => false,
        }
    }

    fn note(&mut self, answer: Result<(), String>) {
        match answer {
            Ok(()) => *self = Self { answered: Some(Instant::now()), failed: None },
            Err(reason) => self.failed = Some((Instant::now(), reason)),
        }
    }

    fn verdict(&self) -> Result<(), Unreachable> {
        let Some((_, reason)) = &self.failed else { return Ok(()) };
        match self.answered.map(|at| at.elapsed()) {
            None => Err(Unreachable::Never(reason.clone())),
            Some(since) if since >= LOST_AFTER => Err(Unreachable::Lost { since, reason: reason.clone() }),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use tokio::time::advance;

    use super::*;

    const REFUSE: u16 = 0;
    const SILENT: u16 = 1;

    /// An API server that answers with a status code, refuses connections or says nothing.
    struct Server {
        reachability: Arc<Reachability>,
        answer: Arc<AtomicU16>,
        asked: Arc<AtomicUsize>,
    }

    impl Server {
        fn new(answer: u16) -> Self {
            let (answer, asked) = (Arc::new(AtomicU16::new(answer)), Arc::new(AtomicUsize::new(0)));
            let (answers, count) = (answer.clone(), asked.clone());
            let service = tower::service_fn(move |request: Request<Body>| {
                assert_eq!(request.uri().path(), PATH);
                count.fetch_add(1, Ordering::Relaxed);
                let code = answers.load(Ordering::Relaxed);
                async move {
                    match code {
                        REFUSE => Err("connection refused"),
                        SILENT => std::future::pending().await,
                        code => Ok(Response::builder().status(code).body(Full::<Bytes>::default()).unwrap()),
                    }
                }
            });
            Self { reachability: Arc::new(Reachability::new(Client::new(service, "default"))), answer, asked }
        }

        fn answers(&self, answer: u16) {
            self.answer.store(answer, Ordering::Relaxed);
        }

        async fn check(&self) -> Result<(), Unreachable> {
            self.reachability.check().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_never_reached_is_not_forgiven() {
        let server = Server::new(REFUSE);
        let error = server.check().await.unwrap_err();
        assert!(error.to_string().starts_with("the API server has not been reached yet: "), "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
        server.answers(200);
        advance(FAILURE_TTL).await;
        assert_eq!(server.check().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answered_is_lost_after_its_time_and_found_again() {
        let server = Server::new(200);
        server.check().await.unwrap();
        server.answers(REFUSE);
        advance(LOST_AFTER.checked_sub(Duration::from_secs(1)).unwrap()).await;
        assert_eq!(server.check().await, Ok(()), "a moment without an answer is no loss");
        advance(Duration::from_secs(1)).await;
        let error = server.check().await.unwrap_err();
        assert!(error.to_string().starts_with("the API server has not answered for 10 s: "), "{error}");
        server.answers(200);
        advance(FAILURE_TTL).await;
        assert_eq!(server.check().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_the_request_is_reached_and_one_that_fails_is_not() {
        for (code, reached) in [(200, true), (401, true), (403, true), (429, true), (500, false), (503, false)] {
            assert_eq!(Server::new(code).check().await.is_ok(), reached, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_two_seconds() {
        let server = Server::new(SILENT);
        let started = Instant::now();
        let error = server.check().await.unwrap_err();
        assert_eq!((started.elapsed(), error), (ANSWER_TIMEOUT, Unreachable::Never("no answer within 2 s".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn many_probes_are_one_request() {
        for (answer, ttl) in [(200, ANSWER_TTL), (SILENT, FAILURE_TTL)] {
            let server = Server::new(answer);
            futures::future::join_all((0..50).map(|_| server.check())).await;
            assert_eq!(server.asked.load(Ordering::Relaxed), 1);
            advance(ttl).await;
            let _ = server.check().await;
            assert_eq!(server.asked.load(Ordering::Relaxed), 2);
        }
    }
}
