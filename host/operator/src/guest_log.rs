//! Guests' stdout and stderr as lines of the host's log.

use tokio::task_local;
use tracing::{Instrument, Span, info, warn};
use wasm_operator_engine::{LogSink, Stream};

task_local! {
    /// The span of the call under way.
    static CALL: Span;
}

/// Runs a call of a guest in this span. The lines that the guest writes bear its fields, whatever spans the engine has opened
/// in between: it does so at level `trace`.
pub(crate) async fn within<C: Future>(span: Span, call: C) -> C::Output {
    CALL.scope(span.clone(), call.instrument(span)).await
}

/// Writes the lines of a guest, each with the span of the call.
pub(crate) struct GuestLog;

impl GuestLog {
    fn span() -> Span {
        CALL.try_with(Clone::clone).unwrap_or_else(|_| Span::current())
    }
}

impl LogSink for GuestLog {
    fn line(&self, stream: Stream, line: &str) {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        info!(target: "guest", parent: &Self::span(), stream, "{line}");
    }

    fn suppressed(&self, lines: u64) {
        warn!(
            target: "guest",
            parent: &Self::span(),
            lines,
            "lines were dropped: the guest logs more than `limits.logLinesPerSecond`"
        );
    }
}
