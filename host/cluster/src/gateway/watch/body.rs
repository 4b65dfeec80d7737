//! The body of a watch: events as they happen, one line each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use wasm_operator_core::history::Item;
use wasm_operator_core::request::{Refusal, Shape, WatchOptions};
use wasm_operator_core::watch::Resource;

use super::Watches;
use crate::gateway::render;
use crate::informer::{Next, SharedWatch, WatchEnd};

/// Bytes of events that are handed over at once, and an event more. Default 64 KiB, as for other bodies.
const CHUNK: usize = 64 << 10;

/// Time between two bookmarks. Default 1 min, as the API server has it.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Ends when the client drops it, when its time is over, or when the watch ends on the host's side.
pub(crate) struct WatchBody {
    watch: Arc<SharedWatch>,
    guard: AbortHandle,
    watches: Arc<Watches>,
    id: u64,
    resource: Resource,
    shape: Shape,
    marks_initial_end: bool,
    timeout: Option<Pin<Box<Sleep>>>,
    /// When the next bookmark may be sent; None: the client takes none.
    bookmark: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl WatchBody {
    /// Must be made on a runtime with a timer; it may be read on another.
    pub(super) fn new(
        watch: Arc<SharedWatch>,
        guard: AbortHandle,
        watches: Arc<Watches>,
        resource: Resource,
        shape: Shape,
        options: &WatchOptions,
    ) -> Self {
        let id = watches.add(watch.watcher().clone());
        Self {
            watch,
            guard,
            watches,
            id,
            resource,
            shape,
            marks_initial_end: options.marks_initial_end,
            timeout: options.timeout_seconds.map(|seconds| Box::pin(sleep(Duration::from_secs(seconds)))),
            bookmark: options.bookmarks.then(|| Box::pin(sleep(BOOKMARK_INTERVAL))),
            ended: false,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next lines; None at the end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let is_over = |timeout: &mut Pin<Box<Sleep>>| timeout.as_mut().poll(cx).is_ready();
        if self.ended || self.timeout.as_mut().is_some_and(is_over) {
            self.ended = true;
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        while out.len() < CHUNK && !self.ended {
            match self.watch.next(cx.waker()) {
                Next::Item(Item::Event(event)) => {
                    self.watch.count(event.r#type.as_str());
                    render::watch_event(&mut out, &event, self.shape);
                }
                Next::Item(Item::InitialEnd(position)) => {
                    if self.marks_initial_end {
                        render::bookmark(&mut out, &self.resource, self.shape, &position, true);
                    }
                }
                Next::End(end) => self.end(&mut out, end),
                Next::Nothing => break,
            }
        }
        self.watch.count_compacted();
        if out.is_empty() && !self.ended {
            self.bookmark(cx, &mut out);
        }
        match (out.is_empty(), self.ended) {
            (false, _) => Poll::Ready(Some(out.into())),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, end: WatchEnd) {
        self.ended = true;
        match end {
            WatchEnd::Closed => {}
            WatchEnd::Expired(message) => {
                self.watch.count_expired();
                render::error(out, &expired(message));
            }
            WatchEnd::Forbidden(message) => render::error(out, &Refusal::forbidden(message)),
        }
    }

    /// Only a guest that is awake is told that nothing happened.
    fn bookmark(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let Some(bookmark) = self.bookmark.as_mut().filter(|_| self.watches.is_awake()) else { return };
        while out.is_empty() && bookmark.as_mut().poll(cx).is_ready() {
            if let Some(position) = self.watch.bookmark() {
                render::bookmark(out, &self.resource, self.shape, &position, false);
            }
            bookmark.set(sleep_until(Instant::now() + BOOKMARK_INTERVAL));
        }
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.guard.abort();
        self.watches.remove(self.id);
    }
}

/// The whole body of a watch whose version is too old. The answer's code is 200 nevertheless, as from the server.
pub(super) fn expired_at_once(message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    render::error(&mut out, &expired(message.to_owned()));
    out
}

fn expired(message: String) -> Refusal {
    Refusal { code: 410, reason: "Expired", message }
}
