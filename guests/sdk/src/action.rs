//! What a reconcile ends with.

use std::time::Duration;

/// The result of a reconcile, and of the error policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(pub(crate) Next);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Change,
    After(Duration),
    Backoff,
}

impl Action {
    /// Reconcile this object again after `duration`, or at its next change. The guest sleeps meanwhile.
    ///
    /// From an error policy: the host reports the failure and tries again after `duration`, whatever the object's
    /// backoff.
    #[must_use]
    pub const fn requeue(duration: Duration) -> Self {
        Self(Next::After(duration))
    }

    /// Wait for the next change.
    ///
    /// From an error policy: the failure is terminal. The host reports it and does not try again before a change.
    #[must_use]
    pub const fn await_change() -> Self {
        Self(Next::Change)
    }

    /// Try again with the host's per-object exponential backoff. From `reconcile` itself it means the same, with the
    /// message that the guest asked for it.
    #[must_use]
    pub const fn retry() -> Self {
        Self(Next::Backoff)
    }
}
