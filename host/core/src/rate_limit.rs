//! How often something may happen: a token bucket, and one bucket per key where one party must not use up what is there for
//! all.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::timer::Time;

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Times per second, averaged. 0: never.
    pub per_second: u32,
    /// Times at once after a pause. 0: never.
    pub burst: u32,
}

/// What is left of a rate's burst, full at first. Virtual scheduling (GCRA, ITU-T I.371): it is the time at which it would be full again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Time,
}

impl Rate {
    /// Whether it may happen now; if so, it is counted.
    pub fn take(self, bucket: &mut Bucket, now: Time) -> bool {
        let Some(interval) = Duration::from_secs(1).checked_div(self.per_second) else { return false };
        let used = bucket.full_at.since(now).saturating_add(interval);
        if used > interval.saturating_mul(self.burst) {
            return false;
        }
        bucket.full_at = now + used;
        true
    }
}

/// A rate for all, and a lower one for each.
#[derive(Debug)]
pub struct RateLimit<K> {
    all: Rate,
    each: Rate,
    total: Bucket,
    buckets: HashMap<K, Bucket>,
    max_keys: usize,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// Remembers at most so many keys; who comes when there are more shares the rate for all only.
    #[must_use]
    pub fn new(all: Rate, each: Rate, max_keys: usize) -> Self {
        Self { all, each, total: Bucket::default(), buckets: HashMap::new(), max_keys }
    }

    /// Whether it may happen now; if so, it is counted.
    pub fn take(&mut self, now: Time, key: K) -> bool {
        if self.buckets.len() >= self.max_keys {
            // A bucket that is full again says no more than none.
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.max_keys {
            return self.all.take(&mut self.total, now);
        }
        let bucket = self.buckets.entry(key).or_default();
        let before = *bucket;
        if !self.each.take(bucket, now) {
            return false;
        }
        if self.all.take(&mut self.total, now) {
            return true;
        }
        *bucket = before;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limit(max_keys: usize) -> RateLimit<u32> {
        RateLimit::new(Rate { per_second: 10, burst: 6 }, Rate { per_second: 2, burst: 3 }, max_keys)
    }

    fn taken(limit: &mut RateLimit<u32>, now: Time, key: u32) -> usize {
        (0..100).filter(|_| limit.take(now, key)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut limit = limit(10);
        let start = Time::from_micros(1);
        assert_eq!(taken(&mut limit, start, 1), 3);
        assert_eq!(taken(&mut limit, start + 499 * MS, 1), 0);
        assert_eq!(taken(&mut limit, start + 500 * MS, 1), 1);
        assert_eq!(taken(&mut limit, start + 60_000 * MS, 1), 3);
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        for rate in [Rate { per_second: 0, burst: 2 }, Rate { per_second: 2, burst: 0 }] {
            assert!(!rate.take(&mut Bucket::default(), Time::from_micros(1)), "{rate:?}");
        }
    }

    #[test]
    fn one_key_leaves_the_others_their_part_and_all_together_have_a_limit() {
        let mut limit = limit(10);
        assert_eq!(taken(&mut limit, Time::ZERO, 1), 3);
        assert_eq!(taken(&mut limit, Time::ZERO, 2), 3);
        assert_eq!(taken(&mut limit, Time::ZERO, 3), 0);
        // What was refused to it was not counted against it.
        assert_eq!(taken(&mut limit, Time::ZERO + 300 * MS, 3), 3);
    }

    #[test]
    fn keys_are_forgotten_when_there_are_too_many() {
        let mut limit = limit(2);
        assert_eq!(taken(&mut limit, Time::ZERO, 1), 3);
        assert_eq!(taken(&mut limit, Time::ZERO, 2), 3);
        let later = Time::ZERO + 1_000 * MS;
        assert!(limit.take(later, 3) && limit.take(later, 4) && limit.take(later, 5));
        assert!(limit.buckets.len() <= 2);
    }
}
