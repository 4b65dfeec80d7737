//! Seconds as floating point numbers, and back without a panic.

use std::time::Duration;

/// The longest age that is told apart from forever: 30 days. Longer gaps are learnt as this long, so that sums stay finite.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Seconds, at most [`LONGEST`].
pub(crate) fn seconds(time: Duration) -> f64 {
    time.min(LONGEST).as_secs_f64()
}

/// A duration of so many seconds. Negative and NaN is zero, beyond [`LONGEST`] is forever.
pub(crate) fn duration(seconds: f64) -> Duration {
    if seconds > LONGEST.as_secs_f64() { Duration::MAX } else { Duration::from_secs_f64(seconds.max(0.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_becomes_a_duration() {
        assert_eq!(duration(f64::NAN), Duration::ZERO);
        assert_eq!(duration(-1.0), Duration::ZERO);
        assert_eq!(duration(f64::INFINITY), Duration::MAX);
        assert_eq!(duration(1.5), Duration::from_millis(1500));
        assert_eq!(seconds(Duration::MAX), 2_592_000.0);
    }
}
