//! Bytes on disk over all guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::HibernateError;

pub(crate) struct Budget {
    bytes: u64,
    used: AtomicU64,
}

/// What one file takes. Given back when dropped.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, used: AtomicU64::new(0) })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Asks for more, before it is written.
    pub(crate) fn grow(&mut self, needed: u64) -> Result<(), HibernateError> {
        let Budget { bytes: budget, used } = &*self.budget;
        used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(needed).filter(|sum| sum <= budget || needed == 0)
        })
        .map_err(|used| HibernateError::Budget { needed, used, budget: *budget })?;
        self.bytes = self.bytes.saturating_add(needed);
        Ok(())
    }

    /// What the file system really took, its own blocks for the file included: that may be more than was asked for.
    pub(crate) fn settle(&mut self, bytes: u64) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_share_the_budget_and_give_it_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (Charge::new(&budget), Charge::new(&budget));
        one.grow(60).unwrap();
        let refused = other.grow(50).unwrap_err();
        assert!(matches!(refused, HibernateError::Budget { needed: 50, used: 60, budget: 100 }));
        other.grow(40).unwrap();
        drop(one);
        assert_eq!(budget.used(), 40);
    }

    #[test]
    fn what_was_really_taken_counts_and_a_file_that_does_not_grow_is_never_refused() {
        let budget = Budget::new(100);
        let mut file = Charge::new(&budget);
        file.grow(90).unwrap();
        file.settle(110);
        assert_eq!(budget.used(), 110);
        file.grow(0).unwrap();
        assert!(file.grow(1).is_err());
        file.settle(20);
        assert_eq!(budget.used(), 20);
    }
}
