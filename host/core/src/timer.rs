//! The host's time as a value, and timers that are set, moved and cancelled by key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;
use std::time::Duration;

/// A point in time: microseconds since the host's start. The pure core gets it as an argument and never asks a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The host's start. As an answer to "when next?" it means "at once".
    pub const ZERO: Self = Self(0);

    /// So many microseconds after the host's start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the host's start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time that passed since `earlier`; zero if that is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Rounds up to the next microsecond, so that no timer fires early.
    fn add(self, delay: Duration) -> Self {
        let micros = delay.as_nanos().div_ceil(1_000);
        Self(self.0.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

/// At most one timer per key. Cancelled timers leave nothing behind, so [`Timers::next`] is exact and nobody is woken
/// for a timer that no longer exists. Every operation is O(log n).
#[derive(Debug)]
pub struct Timers<K> {
    due: BTreeMap<K, Time>,
    order: BTreeSet<(Time, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the key's timer, replacing an earlier one.
    pub fn set(&mut self, key: K, at: Time) {
        if let Some(old) = self.due.insert(key.clone(), at) {
            if old == at {
                return;
            }
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// Sets the key's timer unless an earlier one is set. Returns whether it was set.
    pub fn set_earliest(&mut self, key: K, at: Time) -> bool {
        if self.due.get(&key).is_some_and(|old| *old <= at) {
            return false;
        }
        self.set(key, at);
        true
    }

    /// Removes the key's timer.
    pub fn cancel(&mut self, key: &K) -> Option<Time> {
        let (key, at) = self.due.remove_entry(key)?;
        self.order.remove(&(at, key));
        Some(at)
    }

    /// When the first timer is due.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes and returns the first timer that is due.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        if self.next()? > now {
            return None;
        }
        let (at, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some((at, key))
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn the_earliest_of_two_delays_wins_whatever_their_order() {
        let mut timers = Timers::default();
        assert!(timers.set_earliest("a", at(20)));
        assert!(timers.set_earliest("a", at(10)));
        assert!(!timers.set_earliest("a", at(15)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(10)), Some((at(10), "a")));
        assert_eq!(timers.pop_due(at(100)), None);
    }

    #[test]
    fn a_cancelled_timer_leaves_nothing_behind() {
        let mut timers = Timers::default();
        timers.set("a", at(10));
        timers.set("a", at(30));
        timers.set("b", at(20));
        assert_eq!(timers.cancel(&"b"), Some(at(20)));
        assert_eq!(timers.cancel(&"b"), None);
        assert_eq!(timers.next(), Some(at(30)));
        assert_eq!(timers.cancel(&"a"), Some(at(30)));
        assert!(timers.is_empty());
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_delay_is_rounded_up_and_never_overflows() {
        assert_eq!(at(1) + Duration::from_nanos(1), at(2));
        assert_eq!(at(1) + Duration::MAX, at(u64::MAX));
        assert_eq!(at(1).since(at(2)), Duration::ZERO);
    }
}
