//! Percentiles of samples.

use std::time::Duration;

/// The smallest sample that at least that share of all are not above (nearest rank); zero without samples. `sorted` ascends.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_nearest_rank() {
        let samples: Vec<Duration> = (1..=200).map(Duration::from_secs).collect();
        let of = |share| percentile(&samples, share).as_secs();
        assert_eq!((of(0.0), of(0.5), of(0.99), of(1.0)), (1, 100, 198, 200));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
        assert_eq!(percentile(&samples[..1], 0.99), Duration::from_secs(1));
    }
}
