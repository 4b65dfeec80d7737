//! One call of a guest's `reconcile`: what goes in and what comes out. The shapes mirror `wit/controller.wit`.

use std::sync::Arc;
use std::time::Duration;

use crate::object::ObjectRef;

/// Why a key is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The object was there when the watch began.
    Initial,
    /// A matching change.
    Change,
    /// A requeue-after is due.
    Timer,
    /// An earlier reconcile failed.
    Retry,
    /// The periodic resync of the configuration.
    Resync,
}

/// What is known of an object that was deleted since the last reconcile of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// The last seen `metadata` as JSON.
    pub metadata: Arc<[u8]>,
}

/// How many tombstones a key keeps; the oldest go first. A reconcile that needs more than these has to read the cluster.
pub const MAX_TOMBSTONES: usize = 8;

/// The argument of a `reconcile` call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The controller's name in the description.
    pub controller: Arc<str>,
    /// The primary.
    pub object: ObjectRef,
    /// The primary from the cache as JSON.
    pub content: Option<Arc<[u8]>>,
    /// Deleted primaries of this name, oldest first.
    pub deleted: Vec<Tombstone>,
    /// Failures in a row before this attempt.
    pub attempt: u32,
    /// Why.
    pub cause: Cause,
    /// Identifies the call in the log.
    pub id: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A successful answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Wait for the next change.
    Done,
    /// Reconcile again after this time.
    RequeueAfter(Duration),
}

/// An answer of the guest that it failed. A trap or a broken limit is not one of these: it is the engine's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Try again.
    Retryable {
        /// What went wrong.
        message: String,
        /// The wait before the next attempt; None for the key's backoff.
        after: Option<Duration>,
    },
    /// Wait for a change.
    Terminal(String),
}
