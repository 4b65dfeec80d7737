//! Whether the host is alive, and whether it is ready: lists of named checks that the parts of the host add.

use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

/// A part that does not answer within this time is not alive. Less than the timeout of usual probes would be too hasty on a
/// machine that is short of CPU; kubelet's own default is 1 s, so probes should say 5.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a check says: a note that may be empty, or what is wrong.
pub(crate) type Verdict = Result<String, String>;
type Answer = Pin<Box<dyn Future<Output = Verdict> + Send>>;
type Check = Box<dyn Fn() -> Answer + Send + Sync>;

/// The checks of `/livez` and `/readyz`.
#[derive(Clone, Default)]
pub(crate) struct Health {
    live: Arc<Vec<(&'static str, Check)>>,
    ready: Arc<Vec<(&'static str, Check)>>,
}

/// Collects checks.
#[derive(Default)]
pub(crate) struct HealthBuilder {
    live: Vec<(&'static str, Check)>,
    ready: Vec<(&'static str, Check)>,
}

impl Health {
    pub(crate) fn builder() -> HealthBuilder {
        HealthBuilder::default()
    }

    /// Whether the parts of the host respond. The API server is none of them: a restart would not bring it back.
    pub(crate) async fn live(&self) -> Report {
        Report::of("livez", &self.live).await
    }

    /// Whether the host does its work, which takes an API server.
    pub(crate) async fn ready(&self) -> Report {
        Report::of("readyz", &self.ready).await
    }
}

impl HealthBuilder {
    /// Adds a part that responds by ending its future; too late is as bad as an error.
    #[must_use]
    pub(crate) fn live<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.live.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// Adds a condition of being ready; the error says what is missing.
    #[must_use]
    pub(crate) fn ready<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.ready.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    pub(crate) fn build(self) -> Health {
        Health { live: Arc::new(self.live), ready: Arc::new(self.ready) }
    }
}

/// The answers of all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    title: &'static str,
    checks: Vec<(&'static str, Verdict)>,
}

impl Report {
    async fn of(title: &'static str, checks: &[(&'static str, Check)]) -> Self {
        let answers = checks.iter().map(|(name, check)| async move {
            let answer = timeout(PATIENCE, check()).await;
            (*name, answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))))
        });
        Self { title, checks: futures::future::join_all(answers).await }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(|(_, answer)| answer.is_ok())
    }

    /// In the words of Kubernetes' own components: `ok`, or with `verbose` or a failure one line per check.
    pub(crate) fn text(&self, verbose: bool) -> String {
        if self.is_good() && !verbose {
            return "ok".to_owned();
        }
        let mut text = String::new();
        for (name, answer) in &self.checks {
            // A `String` takes every write.
            let _ = match answer {
                Ok(note) if note.is_empty() => writeln!(text, "[+]{name} ok"),
                Ok(note) => writeln!(text, "[+]{name} ok: {note}"),
                Err(why) => writeln!(text, "[-]{name} failed: {why}"),
            };
        }
        let _ = writeln!(text, "{} check {}", self.title, if self.is_good() { "passed" } else { "failed" });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_failure_fails_the_whole_and_is_named() {
        let health = Health::builder()
            .ready("informers", || async { Err("`testresources` has not been listed yet".into()) })
            .ready("guests", || async { Ok("3 run, 1 cannot".into()) })
            .build();
        let report = health.ready().await;
        assert!(!report.is_good());
        assert_eq!(
            report.text(false),
            "[-]informers failed: `testresources` has not been listed yet\n[+]guests ok: 3 run, 1 cannot\nreadyz check failed\n"
        );
    }

    #[tokio::test]
    async fn a_good_report_is_short_unless_asked() {
        let health = Health::builder().live("scheduler", || async { Ok(String::new()) }).build();
        let report = health.live().await;
        assert_eq!(report.text(false), "ok");
        assert_eq!(report.text(true), "[+]scheduler ok\nlivez check passed\n");
        assert!(health.ready().await.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_answer_is_not_alive() {
        let health = Health::builder()
            .live("workers", std::future::pending)
            .live("scheduler", || async { Ok(String::new()) })
            .build();
        let report = health.live().await;
        assert_eq!(
            report.text(false),
            "[-]workers failed: no answer within 3 s\n[+]scheduler ok\nlivez check failed\n"
        );
    }
}
