//! Memory and tables of one instance. wasmtime's own limiter takes each memory by itself; ours takes the sum, or a
//! component of ten modules could use ten times its limit.

use std::sync::Arc;

use wasmtime::{Error, ResourceLimiter, Result};

use crate::error::Limit;
use crate::meter::Meter;

/// Core instances in one component. A Python component has about 40.
const MAX_INSTANCES: usize = 256;
/// Tables in one component.
const MAX_TABLES: usize = 256;
/// Memories in one component. Each reserves address space.
const MAX_MEMORIES: usize = 32;

pub(crate) struct Limiter {
    memory: Sum,
    tables: Sum,
    meter: Arc<Meter>,
}

struct Sum {
    limit: Limit,
    used: u64,
    allowed: u64,
    /// The latest growth, to be taken back if it fails after all.
    latest: u64,
}

impl Limiter {
    pub(crate) fn new(memory_bytes: u64, table_elements: u64, meter: Arc<Meter>) -> Self {
        let sum = |limit, allowed| Sum { limit, used: 0, allowed, latest: 0 };
        Self { memory: sum(Limit::Memory, memory_bytes), tables: sum(Limit::Table, table_elements), meter }
    }

    /// Bytes of linear memory over all memories.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.used
    }
}

impl Sum {
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, meter: &Meter) -> bool {
        let growth = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        self.latest = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The component's own bound, not ours.
            return false;
        }
        let total = self.used.saturating_add(growth);
        if total > self.allowed {
            meter.note(self.limit);
            return false;
        }
        self.used = total;
        self.latest = growth;
        true
    }

    fn failed(&mut self) {
        self.used = self.used.saturating_sub(self.latest);
        self.latest = 0;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let grows = self.memory.grow(current, desired, maximum, &self.meter);
        self.meter.set_memory(self.memory.used);
        Ok(grows)
    }

    fn memory_grow_failed(&mut self, _error: Error) -> Result<()> {
        self.memory.failed();
        self.meter.set_memory(self.memory.used);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        Ok(self.tables.grow(current, desired, maximum, &self.meter))
    }

    fn table_grow_failed(&mut self, _error: Error) -> Result<()> {
        self.tables.failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(memory: u64, tables: u64) -> (Limiter, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        (Limiter::new(memory, tables, Arc::clone(&meter)), meter)
    }

    #[test]
    fn memories_count_together() {
        let (mut limiter, meter) = limiter(300, 0);
        assert!(limiter.memory_growing(0, 200, None).unwrap());
        assert!(limiter.memory_growing(0, 100, None).unwrap());
        assert_eq!(meter.noted(), None);
        assert!(!limiter.memory_growing(100, 101, None).unwrap());
        assert_eq!(meter.noted(), Some(Limit::Memory));
        assert_eq!(limiter.memory_bytes(), 300);
    }

    #[test]
    fn tables_count_together_and_apart_from_memories() {
        let (mut limiter, meter) = limiter(1, 10);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 5, None).unwrap());
        assert_eq!(meter.noted(), Some(Limit::Table));
        assert!(limiter.table_growing(6, 10, None).unwrap());
    }

    #[test]
    fn a_growth_that_fails_after_all_is_taken_back_once() {
        let (mut limiter, _) = limiter(100, 0);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        limiter.memory_grow_failed(Error::msg("no memory")).unwrap();
        limiter.memory_grow_failed(Error::msg("no memory")).unwrap();
        assert_eq!(limiter.memory_bytes(), 60);
    }

    #[test]
    fn the_components_own_maximum_is_not_our_limit() {
        let (mut limiter, meter) = limiter(100, 0);
        assert!(!limiter.memory_growing(0, 60, Some(50)).unwrap());
        limiter.memory_grow_failed(Error::msg("maximum")).unwrap();
        assert_eq!((limiter.memory_bytes(), meter.noted()), (0, None));
    }
}
