//! Histograms of times, small enough to have some for each of a thousand guests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds: eight upper ends in microseconds; what is longer counts in a ninth bucket.
pub(super) type Bounds = [u64; BOUNDS];
const BOUNDS: usize = 8;

/// From a reconcile that has nothing to do to one that waits for its deadline.
pub(super) const RECONCILE: Bounds = [500, 2_000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000, 30_000_000];
/// From a queue that is empty to one behind a start-up storm.
pub(super) const QUEUED: Bounds = [100, 1_000, 5_000, 20_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// From an instance of a small component to mapping a large one from a slow disk.
pub(super) const WAKE: Bounds = [50, 100, 250, 1_000, 5_000, 20_000, 100_000, 1_000_000];
/// From a program that asks for what its event was about to one whose whole heap is read from a slow disk.
pub(super) const FIRST_REQUEST: Bounds = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000, 1_000_000];

/// A histogram. Its numbers are read one by one, so a scrape during an update may be one observation apart.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static Bounds,
    counts: [AtomicU64; BOUNDS],
    longer: AtomicU64,
    sum: AtomicU64,
}

/// What a histogram shows.
#[derive(Debug)]
pub(super) struct Reading {
    /// In seconds.
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper ends in seconds, each bucket with its own count.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS],
            longer: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.iter().position(|bound| micros <= *bound);
        let bucket = place.and_then(|place| self.counts.get(place)).unwrap_or(&self.longer);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// None if nothing was observed.
    pub(super) fn read(&self) -> Option<Reading> {
        let mut buckets: Vec<(f64, u64)> = self
            .bounds
            .iter()
            .zip(&self.counts)
            .map(|(bound, count)| (Duration::from_micros(*bound).as_secs_f64(), count.load(Ordering::Relaxed)))
            .collect();
        buckets.push((f64::INFINITY, self.longer.load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.sum.load(Ordering::Relaxed)).as_secs_f64();
        (count > 0).then_some(Reading { sum, count, buckets })
    }
}
