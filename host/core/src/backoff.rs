//! Exponential backoff with jitter, and the small random number generator that the jitter comes from.

use std::time::Duration;

/// `base × 2^failures`, at most `max`, less up to a fifth of it at random: the jitter keeps keys that failed together
/// from coming back together, and never makes a wait longer than the sequence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
}

/// The divisor of a wait that gives its largest jitter.
const JITTER_DIVISOR: u64 = 5;

impl Backoff {
    /// Of a key whose reconcile failed: the values of client-go.
    pub const KEY: Self = Self { base: Duration::from_millis(5), max: Duration::from_secs(1_000) };

    /// Of a guest that trapped, broke a limit or could not be loaded. Long enough that a crash loop costs nothing,
    /// short enough that a repaired cluster is noticed within minutes.
    pub const GUEST: Self = Self { base: Duration::from_secs(1), max: Duration::from_secs(300) };

    /// The wait after so many failures in a row, the first being 0.
    #[must_use]
    pub fn delay(&self, failures: u32, random: &mut Random) -> Duration {
        let full = self.base.saturating_mul(2_u32.saturating_pow(failures)).min(self.max);
        let micros = u64::try_from(full.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros.saturating_sub(random.up_to(micros / JITTER_DIVISOR)))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for jitter, and the same seed gives the same run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `most`, both included.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let scaled = (u128::from(z) * (u128::from(most) + 1)) >> 64;
        u64::try_from(scaled).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_base_to_the_maximum_and_jitter_only_shortens() {
        let mut random = Random::new(7);
        for failures in 0..200 {
            let full = Duration::from_micros(5_000).saturating_mul(2_u32.saturating_pow(failures.min(18)));
            let full = full.min(Duration::from_secs(1_000));
            let delay = Backoff::KEY.delay(failures, &mut random);
            assert!(delay <= full, "{failures}: {delay:?} > {full:?}");
            assert!(delay >= full.mul_f64(0.8), "{failures}: {delay:?} < 0.8 × {full:?}");
        }
    }

    #[test]
    fn jitter_spreads_equal_failures() {
        let mut random = Random::new(7);
        let delays: std::collections::BTreeSet<_> = (0..100).map(|_| Backoff::KEY.delay(10, &mut random)).collect();
        assert!(delays.len() > 90);
    }

    #[test]
    fn random_numbers_stay_in_range_and_reach_both_ends() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<_> = (0..1_000).map(|_| random.up_to(3)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(random.up_to(0), 0);
        random.up_to(u64::MAX);
    }
}
