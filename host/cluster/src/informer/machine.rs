//! What a stream's reader does next. Pure: the reader reports how a request ended, the machine says what comes then.
//!
//! ```text
//!   list ──complete──► Watching(position) ──ended, cut, silent──► Watching(position)
//!    ▲                     │ 410, silence after a resume, unreadable, kind gone
//!    └─────────────────────┘         403, 404, failures: wait with backoff, then where it was
//! ```

use std::time::Duration;

use wasm_operator_core::object::{ObjectError, ResourceVersion};

use super::ParkReason;

/// Wait for a kind that is not served, at most: its CustomResourceDefinition may come at any time.
pub(crate) const LONGEST_WAIT_FOR_KIND: Duration = Duration::from_secs(3);
/// Wait for a right of the host, at most: somebody is mending it and looks at the result.
pub(crate) const LONGEST_WAIT_FOR_RIGHT: Duration = Duration::from_secs(10);
/// Wait after any other failure, at most.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// So many answers in a row that the kind is not served are believed: its objects are gone. An API server that starts
/// says it too for a moment.
const GONE_AFTER: u32 = 3;
/// A request that lasted so long and was answered ends a row of failures.
const HEALTHY: Duration = Duration::from_secs(5);
/// A watch that the server ends sooner is a failure, so that a server which ends every watch at once is left in peace.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// Where a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing to resume from. A watch begins with the present objects (KEP-3157).
    StreamingList,
    /// Nothing to resume from, and the server does not stream lists: they come in pages.
    PagedList,
    /// What happened up to this version is in the store.
    Watching(ResourceVersion),
}

/// Why a request ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
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
}

impl End {
    /// The label of the metric.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::Unsupported(_) => "unsupported",
            Self::Silent(_) => "silent",
            Self::Forbidden(_) => "forbidden",
            Self::NotServed => "not-served",
            Self::Failed(_) => "failed",
            Self::Unreadable(_) => "unreadable",
        }
    }

    pub(crate) fn of_status(code: u16, message: String) -> Self {
        match code {
            410 => Self::Expired,
            403 => Self::Forbidden(message),
            404 | 405 => Self::NotServed,
            400 | 422 => Self::Unsupported(message),
            _ => Self::Failed(format!("{code}: {message}")),
        }
    }
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, status.message),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// How a request went before it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The server sent at least one line or page.
    pub(crate) heard: bool,
    pub(crate) lasted: Duration,
}

/// What subscribers are to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    Nothing,
    /// Nobody knows what happens meanwhile.
    Restarting,
    Parked(ParkReason),
    /// The kind is gone, and all its objects with it.
    Gone,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) tell: Tell,
    /// None: at once. Else failures in a row before this one, and the longest wait.
    pub(crate) wait: Option<(u32, Duration)>,
}

/// The state of a reader.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    streams_lists: bool,
    failures: u32,
    absences: u32,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::StreamingList, streams_lists: true, failures: 0, absences: 0 }
    }

    /// What to ask for.
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Everything up to this version was received: a list is complete, an event or a bookmark came.
    pub(crate) fn advance(&mut self, position: ResourceVersion) {
        self.phase = Phase::Watching(position);
    }

    /// A request ended.
    pub(crate) fn ended(&mut self, end: &End, run: Run) -> Step {
        if run.heard && run.lasted >= HEALTHY {
            self.failures = 0;
        }
        self.absences = if matches!(end, End::NotServed) { self.absences.saturating_add(1) } else { 0 };
        match end {
            End::Ended if run.lasted >= SHORTEST_WATCH => Step { tell: Tell::Nothing, wait: None },
            End::Ended => self.retry(Tell::Nothing, LONGEST_WAIT),
            End::Expired => {
                self.list_again();
                let step = self.retry(Tell::Nothing, LONGEST_WAIT);
                Step { wait: step.wait.filter(|(failures, _)| *failures > 0), ..step }
            }
            End::Unsupported(_) if self.phase == Phase::StreamingList => {
                self.streams_lists = false;
                self.list_again();
                Step { tell: Tell::Nothing, wait: None }
            }
            End::Unsupported(_) | End::Unreadable(_) => {
                self.list_again();
                self.retry(Tell::Restarting, LONGEST_WAIT)
            }
            End::Silent(_) => {
                // A watch from a version that the server has not reached yet, as after a restored backup, is accepted
                // and stays silent, without bookmarks.
                if !run.heard {
                    self.list_again();
                }
                Step { tell: Tell::Restarting, wait: None }
            }
            End::Forbidden(_) => self.retry(Tell::Parked(ParkReason::HostForbidden), LONGEST_WAIT_FOR_RIGHT),
            End::NotServed if self.absences == GONE_AFTER => {
                self.list_again();
                self.retry(Tell::Gone, LONGEST_WAIT_FOR_KIND)
            }
            End::NotServed => self.retry(Tell::Parked(ParkReason::NotServed), LONGEST_WAIT_FOR_KIND),
            End::Failed(_) => self.retry(Tell::Restarting, LONGEST_WAIT),
        }
    }

    fn list_again(&mut self) {
        self.phase = if self.streams_lists { Phase::StreamingList } else { Phase::PagedList };
    }

    fn retry(&mut self, tell: Tell, longest: Duration) -> Step {
        let wait = Some((self.failures, longest));
        self.failures = self.failures.saturating_add(1);
        Step { tell, wait }
    }
}

#[cfg(test)]
mod tests;
