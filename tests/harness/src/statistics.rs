//! Durations of many samples.

use std::fmt;
use std::time::Duration;

/// Measured durations.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds a sample.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sample that `percent` of all do not exceed (nearest rank); zero without samples.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or_default()
    }

    /// Samples that took longer than this.
    #[must_use]
    pub fn longer_than(&self, duration: Duration) -> usize {
        self.0.iter().filter(|sample| **sample > duration).count()
    }

    /// The middle sample.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {:.2} ms, p95 {:.2} ms, most {:.2} ms, {} samples",
            milliseconds(50),
            milliseconds(95),
            milliseconds(100),
            self.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(95), Duration::ZERO);
        (1..=20).rev().for_each(|n| latencies.add(Duration::from_millis(n)));
        assert_eq!(latencies.median(), Duration::from_millis(10));
        assert_eq!(latencies.percentile(95), Duration::from_millis(19));
        assert_eq!(latencies.percentile(100), Duration::from_millis(20));
    }
}
