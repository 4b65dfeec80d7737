//! Keeps one stream going: list, watch, resume, relist, wait.
//!
//! ```text
//!   Start ──list──► Watching(position) ──end, cut, silence──► Watching(position)
//!     ▲                  │ 410, or silence after a resume
//!     └──────────────────┘        403, 404, 5xx, refused: wait with backoff, then where it was
//! ```

use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;

use futures::AsyncBufReadExt;
use kube::Client;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use wasm_operator_core::backoff::{Backoff, Random};
use wasm_operator_core::object::{ObjectError, ResourceVersion};

use super::stream::Stream;
use super::wire::{self, Event, Page};
use super::{Options, ParkReason, SubscriptionState};

/// Wait after a failure: first, and at most.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), max: Duration::from_secs(30) };
/// Wait for a kind that is not served, at most: a CustomResourceDefinition may come at any time.
const LONGEST_WAIT_FOR_KIND: Duration = Duration::from_secs(3);
/// So many answers in a row that the kind is not served are believed: its objects are gone. A restarting API server
/// says it too for a moment.
const GONE_AFTER: u32 = 3;
/// Time for one page of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// Time until a watch begins to answer.
const WATCH_OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of a watch. etcd holds objects of 1.5 MiB; their JSON is several times that at worst.
const MAX_LINE: usize = 32 << 20;

/// Where the reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Nothing to resume from: everything has to be listed.
    Start,
    /// What happened up to this version is in the store.
    Watching(ResourceVersion),
}

/// Why a list or watch ended.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the server ended the watch")]
    Ended,
    #[error("the version is too old")]
    Expired,
    #[error("the server does not know the request: {0}")]
    Unsupported(String),
    #[error("the connection was silent for {0:?}")]
    Silent(Duration),
    #[error("forbidden: {0}")]
    Forbidden(String),
    #[error("the kind is not served")]
    NotServed,
    #[error("{0}")]
    Failed(String),
    #[error("the server sent something unreadable: {0}")]
    Unreadable(#[from] ObjectError),
    #[error("the stream is not needed any more")]
    Abandoned,
}

impl Interruption {
    fn cause(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::Unsupported(_) => "unsupported",
            Self::Silent(_) => "silent",
            Self::Forbidden(_) => "forbidden",
            Self::NotServed => "not-served",
            Self::Failed(_) => "failed",
            Self::Unreadable(_) => "unreadable",
            Self::Abandoned => "abandoned",
        }
    }

    fn of_status(code: u16, message: String) -> Self {
        match code {
            410 => Self::Expired,
            403 => Self::Forbidden(message),
            404 | 405 => Self::NotServed,
            400 | 422 => Self::Unsupported(message),
            _ => Self::Failed(format!("{code}: {message}")),
        }
    }
}

impl From<kube::Error> for Interruption {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, status.message),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Reads until the stream is dropped by all who hold it.
pub(crate) async fn run(client: Client, stream: Weak<Stream>, options: Options) {
    let mut reader = Reader {
        client,
        stream,
        random: Random::new(options.seed),
        options,
        streaming_lists: true,
        heard: false,
    };
    let mut phase = Phase::Start;
    let mut failures = 0;
    let mut not_served = 0;
    loop {
        let began = Instant::now();
        reader.heard = false;
        let Err(end) = reader.step(&mut phase).await;
        let Some(stream) = reader.stream.upgrade() else { return };
        let what = &stream.source;
        let name = what.resource.to_string();
        stream.count_restart(end.cause());
        if reader.heard {
            failures = 0;
        }
        not_served = if matches!(end, Interruption::NotServed) { not_served + 1 } else { 0 };
        let mut longest = BACKOFF.max;
        match &end {
            Interruption::Abandoned => return,
            Interruption::Ended if began.elapsed() >= Duration::from_secs(1) => {
                debug!(resource = name, "the server ended the watch; resuming");
                continue;
            }
            Interruption::Expired => {
                info!(resource = name, "the watch fell behind what the server keeps; listing again");
                phase = Phase::Start;
                if failures == 0 {
                    failures = 1;
                    continue;
                }
            }
            Interruption::Unsupported(reason) if reader.streaming_lists && phase == Phase::Start => {
                debug!(resource = name, reason, "no streaming list; listing in pages");
                reader.streaming_lists = false;
                continue;
            }
            Interruption::Silent(_) => {
                warn!(resource = name, "the watch was silent for too long; reconnecting");
                if !reader.heard {
                    // Nothing came since it was resumed: the server's history may be another one now.
                    phase = Phase::Start;
                }
                stream.interrupted(None);
                continue;
            }
            Interruption::Unsupported(_) | Interruption::Unreadable(_) => phase = Phase::Start,
            Interruption::Forbidden(reason) => {
                if failures == 0 {
                    warn!(resource = name, namespace = what.namespace.as_deref(), reason, "the host may not watch; trying again");
                }
                stream.interrupted(Some(ParkReason::HostForbidden));
            }
            Interruption::NotServed => {
                longest = LONGEST_WAIT_FOR_KIND;
                if not_served == GONE_AFTER {
                    warn!(resource = name, "the API server does not serve this kind; waiting for it");
                    stream.clear();
                    phase = Phase::Start;
                }
                stream.interrupted(Some(ParkReason::NotServed));
            }
            Interruption::Ended | Interruption::Failed(_) => {}
        }
        if matches!(end, Interruption::Failed(_) | Interruption::Unreadable(_)) {
            if failures == 0 {
                warn!(resource = name, error = %end, "the watch failed; trying again");
            }
            stream.interrupted(None);
        }
        drop(stream);
        let wait = BACKOFF.delay(failures, &mut reader.random).min(longest);
        failures += 1;
        sleep(wait).await;
    }
}

struct Reader {
    client: Client,
    stream: Weak<Stream>,
    options: Options,
    random: Random,
    streaming_lists: bool,
    /// Whether the server said anything since the last connect.
    heard: bool,
}

/// Never: a step ends with the reason why it ended.
enum Never {}

impl Reader {
    async fn step(&mut self, phase: &mut Phase) -> Result<Never, Interruption> {
        if *phase == Phase::Start {
            if self.streaming_lists {
                return self.streaming_list(phase).await;
            }
            *phase = Phase::Watching(self.list().await?);
        }
        let Phase::Watching(from) = phase.clone() else { return Err(Interruption::Ended) };
        let request = {
            let jitter = self.jitter();
            self.stream()?.source.watch(&from, jitter)
        };
        self.watch(request, phase, None).await
    }

    fn stream(&self) -> Result<std::sync::Arc<Stream>, Interruption> {
        self.stream.upgrade().ok_or(Interruption::Abandoned)
    }

    fn jitter(&mut self) -> f64 {
        let part = u32::try_from(self.random.up_to(1_000)).unwrap_or(0);
        f64::from(part) / 1_000.0
    }

    async fn list(&mut self) -> Result<ResourceVersion, Interruption> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let stream = self.stream()?;
            let request = stream.source.list(token.as_deref()).map_err(|error| Interruption::Failed(error.to_string()))?;
            let body = timeout(LIST_TIMEOUT, self.client.request_text(request))
                .await
                .map_err(|_| Interruption::Failed(format!("no list within {} s", LIST_TIMEOUT.as_secs())))??;
            self.heard = true;
            let Page { objects: page, version, token: next } = wire::page(&body, &stream.source.resource)?;
            objects.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => {
                    stream.replace(objects, version.clone());
                    return Ok(version);
                }
            }
        }
    }

    async fn streaming_list(&mut self, phase: &mut Phase) -> Result<Never, Interruption> {
        let jitter = self.jitter();
        let request = self.stream()?.source.streaming_list(jitter);
        self.watch(request, phase, Some(Vec::new())).await
    }

    /// Reads a watch to its end. `listed` collects the initial events of a streaming list.
    async fn watch(
        &mut self,
        request: Result<http::Request<Vec<u8>>, http::Error>,
        phase: &mut Phase,
        mut listed: Option<Vec<std::sync::Arc<wasm_operator_core::object::Object>>>,
    ) -> Result<Never, Interruption> {
        let request = request.map_err(|error| Interruption::Failed(error.to_string()))?;
        let body = timeout(WATCH_OPEN_TIMEOUT, self.client.request_stream(request))
            .await
            .map_err(|_| Interruption::Failed(format!("no answer within {} s", WATCH_OPEN_TIMEOUT.as_secs())))??;
        let mut body = pin!(body);
        if listed.is_none() {
            self.stream()?.set_state(SubscriptionState::Synced);
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            let silence = self.options.silence;
            let read = timeout(silence, read_line(&mut body, &mut line)).await.map_err(|_| Interruption::Silent(silence))??;
            if !read {
                return Err(Interruption::Ended);
            }
            self.heard = true;
            let stream = self.stream()?;
            let Some(event) = wire::event(&line, &stream.source.resource)? else { continue };
            match (event, &mut listed) {
                (Event::Error { code, message }, _) => return Err(Interruption::of_status(code, message)),
                (Event::Bookmark { version, initial_end: true }, Some(objects)) => {
                    stream.replace(std::mem::take(objects), version.clone());
                    *phase = Phase::Watching(version);
                    listed = None;
                }
                (Event::Added(object) | Event::Modified(object), Some(objects)) => objects.push(object),
                (_, Some(_)) => {}
                (event, None) => {
                    stream.apply(event);
                    if let Some(position) = stream.position() {
                        *phase = Phase::Watching(position);
                    }
                }
            }
        }
    }
}

/// Reads one line; false at the end.
async fn read_line<R: futures::AsyncBufRead + Unpin>(body: &mut R, line: &mut Vec<u8>) -> Result<bool, Interruption> {
    loop {
        let chunk = body.fill_buf().await.map_err(|error| Interruption::Failed(error.to_string()))?;
        if chunk.is_empty() {
            // A line without its end was cut: it is read again after the resume.
            return Ok(false);
        }
        let (part, ends) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end, true),
            None => (chunk.len(), false),
        };
        line.extend_from_slice(chunk.get(..part).unwrap_or_default());
        body.consume_unpin(if ends { part + 1 } else { part });
        if line.len() > MAX_LINE {
            return Err(Interruption::Failed(format!("a watch event of more than {MAX_LINE} bytes")));
        }
        if ends && !line.is_empty() {
            return Ok(true);
        }
    }
}
