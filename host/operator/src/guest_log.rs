//! Guests' stdout and stderr as lines of the host's log.

use tracing::{info, warn};
use wasm_operator_engine::{LogSink, Stream};

/// Writes the lines of a guest. The reconcile's span, in which guests run, says whose they are.
pub(crate) struct GuestLog;

impl LogSink for GuestLog {
    fn line(&self, stream: Stream, line: &str) {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        info!(target: "guest", stream, "{line}");
    }

    fn suppressed(&self, lines: u64) {
        warn!(target: "guest", lines, "lines were dropped: the guest logs more than `limits.logLinesPerSecond`");
    }
}
