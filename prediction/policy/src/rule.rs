//! The rules that compete.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A way to plan residency. The order is that of preference among equals: what adapts comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Resident while the expected saving exceeds the rent, solved over a decayed histogram of the guest's gaps.
    Hazard,
    /// Resident until that has cost as much as a reload (Karlin et al. 1988). Rules guests that are not known yet.
    SkiRental,
    /// A window around the forecast of simple exponential smoothing.
    Ses,
    /// A window around the forecast of exponential smoothing with a trend (Holt 1957).
    Holt,
    /// A window around the forecast of an autoregressive model.
    AutoRegressive,
    /// From the 5th to the 99th percentile of the gaps (Shahrad et al. 2020, Serverless in the Wild).
    HybridHistogram,
    /// A window around the forecast that was given with [`crate::GuestPolicy::advise`].
    Advised,
    /// Dropped at once.
    Immediately,
    /// Dropped after a second.
    OneSecond,
    /// Dropped after ten seconds.
    TenSeconds,
    /// Dropped after a minute.
    OneMinute,
    /// Never dropped.
    Never,
}

/// How many rules there are.
pub(crate) const RULES: usize = Rule::ALL.len();

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 12] = [
        Self::Hazard,
        Self::SkiRental,
        Self::Ses,
        Self::Holt,
        Self::AutoRegressive,
        Self::HybridHistogram,
        Self::Advised,
        Self::Immediately,
        Self::OneSecond,
        Self::TenSeconds,
        Self::OneMinute,
        Self::Never,
    ];

    /// Its name in tables, metrics and explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hazard => "hazard",
            Self::SkiRental => "ski-rental",
            Self::Ses => "ses",
            Self::Holt => "holt",
            Self::AutoRegressive => "autoregressive",
            Self::HybridHistogram => "hybrid-histogram",
            Self::Advised => "advised",
            Self::Immediately => "immediately",
            Self::OneSecond => "1s",
            Self::TenSeconds => "10s",
            Self::OneMinute => "60s",
            Self::Never => "never",
        }
    }

    /// The age at which a rule of fixed time drops the guest; None for the others.
    #[must_use]
    pub const fn fixed(self) -> Option<Duration> {
        match self {
            Self::Immediately => Some(Duration::ZERO),
            Self::OneSecond => Some(Duration::from_secs(1)),
            Self::TenSeconds => Some(Duration::from_secs(10)),
            Self::OneMinute => Some(Duration::from_secs(60)),
            Self::Never => Some(Duration::MAX),
            _ => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
