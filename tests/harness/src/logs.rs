//! The host's log while it is written.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::wait::PATIENCE;

/// Lines that a failure shows.
const SHOWN_LINES: usize = 60;

/// A line, parsed when it is JSON.
#[derive(Debug, Clone)]
pub struct LogLine {
    text: String,
    json: Value,
}

impl LogLine {
    fn new(text: String) -> Self {
        let json = serde_json::from_str(&text).unwrap_or_default();
        Self { text, json }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a JSON object.
    pub fn is_json(&self) -> bool {
        self.json.is_object()
    }

    /// `INFO`, `WARN`, ...
    pub fn level(&self) -> &str {
        self.field("level").unwrap_or_default()
    }

    /// The message, the whole text if it is not JSON.
    pub fn message(&self) -> &str {
        self.field("message").unwrap_or(&self.text)
    }

    /// A text field of the event or of one of its spans.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// A field of the event or of one of its spans.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let spans = self.json.get("spans").and_then(Value::as_array).into_iter().flatten().rev();
        let places =
            [self.json.get("fields"), Some(&self.json), self.json.get("span")].into_iter().flatten().chain(spans);
        places.filter_map(|place| place.get(name)).next()
    }

    /// Whether it is about this guest.
    pub fn is_of(&self, guest: &str) -> bool {
        self.field("guest") == Some(guest)
    }
}

#[derive(Debug)]
struct Shared {
    lines: Mutex<Vec<LogLine>>,
    file: Mutex<File>,
    length: watch::Sender<usize>,
}

/// Everything that a host wrote, over its restarts, or a part of it from a mark on.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
    path: PathBuf,
    start: usize,
}

impl Log {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create `{}`", path.display()))?;
        let shared = Shared { lines: Mutex::default(), file: Mutex::new(file), length: watch::channel(0).0 };
        Ok(Self { shared: Arc::new(shared), path: path.to_owned(), start: 0 })
    }

    /// Reads a pipe to its end, on a thread of its own.
    pub(crate) fn read_from(&self, pipe: impl Read + Send + 'static) {
        let shared = self.shared.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                shared.push(LogLine::new(String::from_utf8_lossy(&line).into_owned()));
            }
        });
    }

    /// From now on.
    #[must_use]
    pub fn mark(&self) -> Self {
        Self { start: self.shared.lines.lock().len(), ..self.clone() }
    }

    /// The lines so far that pass.
    pub fn lines(&self, mut filter: impl FnMut(&LogLine) -> bool) -> Vec<LogLine> {
        let lines = self.shared.lines.lock();
        lines.iter().skip(self.start).filter(|line| filter(line)).cloned().collect()
    }

    /// The first line that passes; waits for it.
    pub async fn wait(&self, what: &str, filter: impl Fn(&LogLine) -> bool) -> Result<LogLine> {
        let mut found = self.wait_for(1, what, filter).await?;
        found.pop().context("no line")
    }

    /// The first so many lines that pass; waits for them.
    pub async fn wait_for(&self, count: usize, what: &str, filter: impl Fn(&LogLine) -> bool) -> Result<Vec<LogLine>> {
        let mut length = self.shared.length.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Seen before the lines are read, so that a line written in between wakes us.
            length.borrow_and_update();
            let mut found = self.lines(&filter);
            if found.len() >= count {
                found.truncate(count);
                return Ok(found);
            }
            if timeout_at(deadline, length.changed()).await.is_err() {
                bail!(
                    "not within {} s: {what}: {} of {count} lines in `{}`",
                    PATIENCE.as_secs(),
                    found.len(),
                    self.path.display()
                );
            }
        }
    }

    /// The file that has everything.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end of the log, for people.
    pub(crate) fn report(&self) -> String {
        let lines = self.shared.lines.lock();
        let tail: Vec<_> =
            lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).map(|line| line.text.as_str()).collect();
        format!("\n--- the end of `{}`:\n{}\n", self.path.display(), tail.join("\n"))
    }
}

impl Shared {
    fn push(&self, line: LogLine) {
        // A full disk must not stop the host that we are watching.
        let _ = writeln!(self.file.lock(), "{}", line.text);
        let mut lines = self.lines.lock();
        lines.push(line);
        self.length.send_replace(lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_events_and_spans() {
        let line = LogLine::new(
            r#"{"level":"INFO","fields":{"message":"done","n":3},"span":{"key":"a/b"},"spans":[{"guest":"outer"},{"guest":"g"}]}"#.to_owned(),
        );
        assert_eq!((line.level(), line.message(), line.field("key")), ("INFO", "done", Some("a/b")));
        assert!(line.is_of("g"));
        assert_eq!(line.value("n"), Some(&Value::from(3)));
        assert_eq!(LogLine::new("plain".to_owned()).message(), "plain");
    }

    #[tokio::test]
    async fn a_mark_hides_what_was_before() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let log = Log::create(file.path())?;
        log.read_from(&b"one\ntwo\n"[..]);
        log.wait("two", |line| line.text() == "two").await?;
        let later = log.mark();
        assert!(later.lines(|_| true).is_empty());
        assert_eq!(log.lines(|_| true).len(), 2);
        Ok(())
    }
}
