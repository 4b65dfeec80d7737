//! A guest's stdout and stderr as log lines: split, cut, escaped and rate-limited before anyone sees them.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::rate_limit::{Bucket, Rate};
use wasm_operator_core::timer::Time;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// What a guest may hand over in one write; more than the 4 KiB that guests' libraries use, and a bound for the copy.
const WRITE_BYTES: usize = 64 << 10;
/// Lines of stderr that are kept for an error message: a Rust panic has two, and a note.
const TAIL_LINES: usize = 4;
/// Bytes of each of these lines.
const TAIL_LINE_BYTES: usize = 256;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the log lines of one guest. Called while the guest executes, so it must not block.
pub trait LogSink: Send + Sync + 'static {
    /// One line without its end, at most `limits.logLineBytes` long before escaping; control characters are escaped.
    fn line(&self, stream: Stream, line: &str);
    /// So many lines were dropped since the last report because the guest wrote faster than `limits.logLinesPerSecond`.
    fn suppressed(&self, lines: u64);
}

/// The log of one guest, shared by all its instances: a guest that is made anew for each call still has one rate.
pub struct GuestLogs {
    sink: Arc<dyn LogSink>,
    line_bytes: usize,
    rate: Rate,
    start: Instant,
    passed: Mutex<Passed>,
}

#[derive(Default)]
struct Passed {
    bucket: Bucket,
    /// Lines that were held back since the last report.
    suppressed: u64,
}

impl GuestLogs {
    /// Passes lines to `sink` at the rate and length of `limits`.
    pub fn new(sink: Arc<dyn LogSink>, limits: &Limits) -> Arc<Self> {
        let per_second = limits.log_lines_per_second;
        Arc::new(Self {
            sink,
            line_bytes: usize::try_from(limits.log_line_bytes).unwrap_or(usize::MAX),
            rate: Rate { per_second, burst: per_second.saturating_mul(2) },
            start: Instant::now(),
            passed: Mutex::default(),
        })
    }

    /// Drops every line.
    pub fn discard() -> Arc<Self> {
        struct Nowhere;
        impl LogSink for Nowhere {
            fn line(&self, _: Stream, _: &str) {}
            fn suppressed(&self, _: u64) {}
        }
        Self::new(Arc::new(Nowhere), &Limits::default())
    }

    fn line(&self, stream: Stream, line: &[u8], cut: usize) {
        let suppressed = {
            let mut passed = self.passed.lock();
            if !self.rate.take(&mut passed.bucket, Time::ZERO + self.start.elapsed()) {
                passed.suppressed = passed.suppressed.saturating_add(1);
                return;
            }
            std::mem::take(&mut passed.suppressed)
        };
        if suppressed > 0 {
            self.sink.suppressed(suppressed);
        }
        let mut text = escape(line);
        if cut > 0 {
            // A `String` takes every write.
            let _ = write!(text, " [{cut} more bytes cut]");
        }
        self.sink.line(stream, &text);
    }
}

impl Drop for GuestLogs {
    fn drop(&mut self) {
        let suppressed = self.passed.get_mut().suppressed;
        if suppressed > 0 {
            self.sink.suppressed(suppressed);
        }
    }
}

/// Makes a line safe to print: one line, no terminal control, no characters that change the direction of what follows.
fn escape(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let hides = matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if hides || (character.is_control() && character != '\t') {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// The two streams of one instance.
pub(crate) struct Output {
    stdout: Arc<Mutex<Lines>>,
    stderr: Arc<Mutex<Lines>>,
}

impl Output {
    pub(crate) fn new(logs: &Arc<GuestLogs>) -> Self {
        let lines = |stream| Arc::new(Mutex::new(Lines::new(Arc::clone(logs), stream)));
        Self { stdout: lines(Stream::Stdout), stderr: lines(Stream::Stderr) }
    }

    pub(crate) fn stdout(&self) -> Writer {
        Writer(Arc::clone(&self.stdout))
    }

    pub(crate) fn stderr(&self) -> Writer {
        Writer(Arc::clone(&self.stderr))
    }

    /// Ends unfinished lines: a call is over.
    pub(crate) fn flush(&self) {
        self.stdout.lock().end_unfinished();
        self.stderr.lock().end_unfinished();
    }

    /// The last lines of stderr in this instance, also those that the rate held back.
    pub(crate) fn last_stderr(&self) -> String {
        self.stderr.lock().tail.join(" / ")
    }
}

struct Lines {
    logs: Arc<GuestLogs>,
    stream: Stream,
    unfinished: Vec<u8>,
    cut: usize,
    tail: Vec<String>,
}

impl Lines {
    fn new(logs: Arc<GuestLogs>, stream: Stream) -> Self {
        Self { logs, stream, unfinished: Vec::new(), cut: 0, tail: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = self.logs.line_bytes.saturating_sub(self.unfinished.len());
            let (kept, cut) = text.split_at(room.min(text.len()));
            self.unfinished.extend_from_slice(kept);
            self.cut = self.cut.saturating_add(cut.len());
            if ended {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let line = self.unfinished.strip_suffix(b"\r").unwrap_or(&self.unfinished);
        if self.stream == Stream::Stderr && !line.is_empty() {
            if self.tail.len() == TAIL_LINES {
                self.tail.remove(0);
            }
            self.tail.push(escape(line.get(..TAIL_LINE_BYTES).unwrap_or(line)));
        }
        self.logs.line(self.stream, line, self.cut);
        self.unfinished.clear();
        self.cut = 0;
    }

    fn end_unfinished(&mut self) {
        if !self.unfinished.is_empty() || self.cut > 0 {
            self.end();
        }
    }
}

/// One stream as wasmtime wants it. It never blocks, so a guest that floods its log pays with its own CPU time only.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Mutex<Lines>>);

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.lock().write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

// Written out as `async_trait` expands it.
impl Pollable for Writer {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl IsTerminal for Writer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Writer {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl LogSink for Recorder {
        fn line(&self, stream: Stream, line: &str) {
            self.0.lock().push(format!("{stream:?}: {line}"));
        }
        fn suppressed(&self, lines: u64) {
            self.0.lock().push(format!("suppressed {lines}"));
        }
    }

    fn setup(lines_per_second: u32, line_bytes: u32) -> (Arc<Recorder>, Arc<GuestLogs>, Output) {
        let recorder = Arc::new(Recorder::default());
        let limits = Limits { log_lines_per_second: lines_per_second, log_line_bytes: line_bytes, ..Limits::default() };
        let logs = GuestLogs::new(recorder.clone(), &limits);
        let output = Output::new(&logs);
        (recorder, logs, output)
    }

    fn write(mut writer: Writer, text: &[u8]) {
        OutputStream::write(&mut writer, Bytes::copy_from_slice(text)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_split_and_the_last_one_is_flushed() {
        let (recorder, _logs, output) = setup(100, 100);
        write(output.stdout(), b"one\r\ntw");
        write(output.stderr(), b"error\n");
        write(output.stdout(), b"o\n\nthree");
        output.flush();
        output.flush();
        assert_eq!(*recorder.0.lock(), ["Stdout: one", "Stderr: error", "Stdout: two", "Stdout: ", "Stdout: three"]);
        assert_eq!(output.last_stderr(), "error");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_is_cut_and_holds_no_more_memory() {
        let (recorder, _logs, output) = setup(100, 4);
        for _ in 0..1000 {
            write(output.stdout(), &[b'x'; 1000]);
        }
        assert_eq!(output.stdout.lock().unfinished.len(), 4);
        write(output.stdout(), b"\nok\n");
        assert_eq!(*recorder.0.lock(), ["Stdout: xxxx [999996 more bytes cut]", "Stdout: ok"]);
    }

    #[tokio::test(start_paused = true)]
    async fn control_characters_and_bad_utf8_are_escaped() {
        let (recorder, _logs, output) = setup(100, 100);
        write(output.stdout(), b"\x1b[31mred\rover\ttab \xff\n");
        write(output.stdout(), "a\u{202e}b\n".as_bytes());
        assert_eq!(*recorder.0.lock(), ["Stdout: \\u{1b}[31mred\\rover\ttab \u{fffd}", "Stdout: a\\u{202e}b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_held_back_and_counted() {
        let (recorder, _logs, output) = setup(2, 100);
        for _ in 0..10 {
            write(output.stdout(), b"x\n");
        }
        assert_eq!(recorder.0.lock().len(), 4, "bursts of twice the rate pass");
        tokio::time::advance(Duration::from_secs(1)).await;
        write(output.stdout(), b"y\n");
        assert_eq!(recorder.0.lock()[4..], ["suppressed 6", "Stdout: y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn instances_share_the_rate_and_the_last_drops_are_reported() {
        let (recorder, logs, first) = setup(1, 100);
        let second = Output::new(&logs);
        for output in [&first, &second] {
            write(output.stdout(), b"1\n2\n");
        }
        assert_eq!(recorder.0.lock().len(), 2);
        drop((first, second, logs));
        assert_eq!(recorder.0.lock()[2..], ["suppressed 2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_stderr_is_kept_although_the_rate_holds_it_back() {
        let (recorder, _logs, output) = setup(0, 100);
        for line in 0..10 {
            write(output.stderr(), format!("line {line}\n").as_bytes());
        }
        assert!(recorder.0.lock().is_empty());
        assert_eq!(output.last_stderr(), "line 6 / line 7 / line 8 / line 9");
    }
}
