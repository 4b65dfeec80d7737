//! Why there is no forecast.

/// No forecast this time. None of these is worth another try before the guest is idle again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The guest has no event yet. For no one to mend.
    #[error("the guest has had no event yet")]
    NoHistory,
    /// The guest's last request is still under way. The service is slow, or the guest is quick.
    #[error("the guest's last request is still under way")]
    GuestBusy,
    /// [`crate::MAX_IN_FLIGHT`] requests are under way. The service is too slow for this number of guests.
    #[error("too many requests are under way")]
    HostBusy,
    /// The name of the service has no address, or the answer took too long. For whoever configured the URL, or for DNS.
    #[error("the service's name could not be resolved")]
    Unresolved,
    /// No connection: refused, unreachable, or not in time. For whoever runs the service.
    #[error("the service cannot be reached")]
    Unreachable,
    /// Connected, and no answer in time.
    #[error("the service did not answer in time")]
    Silent,
    /// The answer began and did not end in time.
    #[error("the service's answer did not end in time")]
    Slow,
    /// The connection broke off, or what came was no HTTP.
    #[error("the service's answer broke off or is not HTTP")]
    Broken,
    /// An answer other than 200. The service's log, or a request of one's own, tells why.
    #[error("the service answered with another status than 200")]
    Status,
    /// More than [`crate::MAX_ANSWER_BYTES`].
    #[error("the service's answer is too large")]
    TooLarge,
    /// The answer is not JSON.
    #[error("the service's answer is not JSON")]
    NotJson,
    /// The answer has no text named `prediction`.
    #[error("the service's answer holds no prediction")]
    NoPrediction,
    /// The prediction is not an RFC 3339 time; `NaN`, say.
    #[error("the service's prediction is not a time")]
    NotATime,
    /// The prediction is not after the last event.
    #[error("the service's prediction is not after the last event")]
    Past,
    /// The prediction is more than [`crate::MAX_AHEAD`] after the last event.
    #[error("the service's prediction is too far ahead")]
    FarFuture,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::NoHistory,
        Self::GuestBusy,
        Self::HostBusy,
        Self::Unresolved,
        Self::Unreachable,
        Self::Silent,
        Self::Slow,
        Self::Broken,
        Self::Status,
        Self::TooLarge,
        Self::NotJson,
        Self::NoPrediction,
        Self::NotATime,
        Self::Past,
        Self::FarFuture,
    ];

    /// The value of a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoHistory => "no_history",
            Self::GuestBusy => "guest_busy",
            Self::HostBusy => "host_busy",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::NoPrediction => "no_prediction",
            Self::NotATime => "not_a_time",
            Self::Past => "past",
            Self::FarFuture => "far_future",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_labels() {
        let mut names = Refused::ALL.map(Refused::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(names.iter().all(|name| name.chars().all(|char| char.is_ascii_lowercase() || char == '_')));
    }
}
