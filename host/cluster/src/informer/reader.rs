//! Keeps one stream going. What it does next is decided in [`machine`](super::machine).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::AsyncBufReadExt;
use kube::Client;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use wasm_operator_core::backoff::{Backoff, Random};
use wasm_operator_core::object::{Object, ObjectRef};

use super::machine::{End, LONGEST_WAIT, Machine, Phase, Run, Tell};
use super::stream::Stream;
use super::wire::{self, Event, Page};

/// Waits after failures in a row; the machine sets the upper limit.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), max: LONGEST_WAIT };
/// Time for one page of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// Time until a watch begins to answer.
const WATCH_OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of a watch. etcd holds objects of 1.5 MiB; their JSON is several times that at worst.
const MAX_LINE: usize = 32 << 20;

/// Reads until the stream is dropped by all who hold it. A connection that is silent for `silence` is given up.
pub(crate) async fn run(client: Client, stream: Weak<Stream>, silence: Duration, random: Random) {
    let mut reader = Reader { client, stream, silence, random, machine: Machine::new(), heard: false };
    loop {
        reader.heard = false;
        let began = Instant::now();
        let Some(end) = reader.request().await else { return };
        let Some(stream) = reader.stream.upgrade() else { return };
        stream.count_restart(end.cause());
        let first = reader.machine.failures() == 0;
        let step = reader.machine.ended(&end, Run { heard: reader.heard, lasted: began.elapsed() });
        log(&stream, &end, step.tell, first);
        match step.tell {
            Tell::Nothing => {}
            Tell::Restarting => stream.interrupted(None),
            Tell::Parked(reason) => stream.interrupted(Some(reason)),
            Tell::Gone => stream.gone(),
        }
        drop(stream);
        if let Some((failures, longest)) = step.wait {
            sleep(BACKOFF.delay(failures, &mut reader.random).min(longest)).await;
        }
    }
}

/// One line per trouble, not one per attempt.
fn log(stream: &Stream, end: &End, tell: Tell, first: bool) {
    let resource = stream.source.resource.to_string();
    let namespace = stream.source.namespace.as_deref();
    match (end, tell) {
        (End::Expired, _) => info!(resource, namespace, "the watch fell behind what the server keeps; listing again"),
        (End::Silent(_), _) => warn!(resource, namespace, "the watch was silent for too long; reconnecting"),
        (_, Tell::Gone) => {
            warn!(resource, namespace, "the API server does not serve this kind any more; waiting for it")
        }
        (End::Forbidden(reason), _) if first => {
            warn!(resource, namespace, reason, "the host may not list and watch; trying again");
        }
        (_, Tell::Restarting) if first => warn!(resource, namespace, error = %end, "the watch failed; trying again"),
        _ => debug!(resource, namespace, %end, "the watch ended"),
    }
}

struct Reader {
    client: Client,
    stream: Weak<Stream>,
    silence: Duration,
    random: Random,
    machine: Machine,
    /// Whether the server sent anything since the request.
    heard: bool,
}

impl Reader {
    /// One request to its end, or a list and the watch after it. None: the stream is not needed any more.
    async fn request(&mut self) -> Option<End> {
        loop {
            let end = match self.machine.phase().clone() {
                Phase::StreamingList => {
                    let request = self.stream.upgrade()?.source.streaming_list(self.jitter());
                    self.watch(request, Some(BTreeMap::new())).await
                }
                Phase::PagedList => self.list().await,
                Phase::Watching(from) => {
                    let request = self.stream.upgrade()?.source.watch(&from, self.jitter());
                    self.watch(request, None).await
                }
            };
            match end {
                Ok(More::Watch) => {}
                Ok(More::Nothing) => return None,
                Err(end) => return Some(end),
            }
        }
    }

    fn jitter(&mut self) -> f64 {
        f64::from(u32::try_from(self.random.up_to(1_000)).unwrap_or(0)) / 1_000.0
    }

    /// Lists in pages. An expired continue token ends it like any expired version.
    async fn list(&mut self) -> Result<More, End> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let Some(stream) = self.stream.upgrade() else { return Ok(More::Nothing) };
            let request = stream.source.list(token.as_deref()).map_err(unsendable)?;
            let body = timeout(LIST_TIMEOUT, self.client.request_text(request))
                .await
                .map_err(|_| End::Failed(format!("no list within {} s", LIST_TIMEOUT.as_secs())))??;
            self.heard = true;
            let Page { objects: page, version, token: next } = wire::page(&body, &stream.source.resource)?;
            objects.extend(page);
            token = next;
            if token.is_none() {
                stream.replace(objects, version.clone());
                self.machine.advance(version);
                return Ok(More::Watch);
            }
        }
    }

    /// Reads a watch to its end. `listed` collects what a streaming list sends before its end.
    async fn watch(
        &mut self,
        request: Result<http::Request<Vec<u8>>, http::Error>,
        mut listed: Option<BTreeMap<ObjectRef, Arc<Object>>>,
    ) -> Result<More, End> {
        let patience = WATCH_OPEN_TIMEOUT.min(self.silence);
        let body = timeout(patience, self.client.request_stream(request.map_err(unsendable)?))
            .await
            .map_err(|_| End::Failed(format!("no answer within {} s", patience.as_secs())))??;
        let mut body = pin!(body);
        if listed.is_none() {
            let Some(stream) = self.stream.upgrade() else { return Ok(More::Nothing) };
            stream.resumed();
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = timeout(self.silence, read_line(&mut body, &mut line));
            if !read.await.map_err(|_| End::Silent(self.silence))?? {
                return Err(End::Ended);
            }
            self.heard = true;
            let Some(stream) = self.stream.upgrade() else { return Ok(More::Nothing) };
            let Some(event) = wire::event(&line, &stream.source.resource)? else { continue };
            if let Event::Error { code, message } = event {
                return Err(End::of_status(code, message));
            }
            match (event, &mut listed) {
                (Event::Bookmark { version, initial_end: true }, Some(objects)) => {
                    stream.replace(std::mem::take(objects).into_values().collect(), version.clone());
                    self.machine.advance(version);
                    listed = None;
                }
                // The list is of the past when it begins; changes since then come before its end.
                (Event::Added(object) | Event::Modified(object), Some(objects)) => {
                    objects.insert(object.object_ref(), object);
                }
                (Event::Deleted(object), Some(objects)) => drop(objects.remove(&object.object_ref())),
                (_, Some(_)) => {}
                (event, None) => {
                    let position = event.position().cloned();
                    stream.apply(event);
                    if let Some(position) = position {
                        self.machine.advance(position);
                    }
                }
            }
        }
    }
}

/// What follows when nothing went wrong.
enum More {
    /// The list is complete: a watch from its version.
    Watch,
    /// The stream is not needed any more.
    Nothing,
}

fn unsendable(error: http::Error) -> End {
    End::Failed(error.to_string())
}

/// Reads one line; false at the end.
async fn read_line<R: futures::AsyncBufRead + Unpin>(body: &mut R, line: &mut Vec<u8>) -> Result<bool, End> {
    loop {
        let chunk = body.fill_buf().await.map_err(|error| End::Failed(error.to_string()))?;
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
            return Err(End::Failed(format!("a watch event of more than {MAX_LINE} bytes")));
        }
        if ends && !line.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests;
