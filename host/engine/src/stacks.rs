//! The stacks on which guests run, used again.
//!
//! A fresh stack costs three system calls and a page fault for each page that is touched, and unmapping it interrupts every
//! thread of the host. That is a tenth of a short reconcile, so a few stacks are kept.
//!
//! What a guest leaves on its stack stays there for the next one. Compiled code cannot read a slot that it has not
//! written, and host functions are safe Rust; wasmtime's own pool of stacks relies on the same.

use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use wasmtime::{StackCreator, StackMemory};

/// Stacks that are kept: for as many guests as a small machine runs at once.
const KEPT: usize = 4;
/// Bytes that a kept stack may hold: what a reconcile without deep recursion touches. The rest is given back.
const WARM_BYTES: usize = 64 << 10;
/// The size of a page on x86-64, and of the guard below each stack.
const PAGE_BYTES: usize = 4 << 10;

/// Makes stacks, and keeps those that are given back.
#[derive(Clone, Default)]
pub(crate) struct Stacks(Arc<Mutex<Vec<Mapping>>>);

/// A stack with its guard page, mapped as long as this lives.
struct Mapping {
    base: usize,
    bytes: usize,
}

/// A stack in use. Dropped, it is kept for the next guest.
struct Stack {
    /// None only while it is dropped.
    mapping: Option<Mapping>,
    kept: Arc<Mutex<Vec<Mapping>>>,
}

impl Mapping {
    /// A stack of so many bytes, which must be whole pages, above a guard page.
    #[allow(unsafe_code)]
    fn new(bytes: usize) -> rustix::io::Result<Self> {
        let all = bytes.checked_add(PAGE_BYTES).ok_or(rustix::io::Errno::NOMEM)?;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), all, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        // From here on an error unmaps it.
        let mapping = Self { base: base.addr(), bytes: all };
        let usable = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: these pages are inside of the mapping, which nobody else knows.
        unsafe { mprotect(base.wrapping_byte_add(PAGE_BYTES), bytes, usable) }?;
        Ok(mapping)
    }

    fn usable(&self) -> Range<usize> {
        self.base.saturating_add(PAGE_BYTES)..self.base.saturating_add(self.bytes)
    }

    /// Gives back what lies below the part that every reconcile uses.
    #[allow(unsafe_code)]
    fn cool(&self) {
        let usable = self.usable();
        let cold = usable.len().saturating_sub(WARM_BYTES);
        // SAFETY: the pages are inside of the mapping, and nobody uses the stack now. They read as zero afterwards.
        let given_back = unsafe { madvise(ptr::without_provenance_mut(usable.start), cold, Advice::LinuxDontNeed) };
        // Cannot fail for a private mapping of our own; if it does, the pages just stay.
        debug_assert!(given_back.is_ok());
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and its stack is not in use any more.
        let unmapped = unsafe { munmap(ptr::without_provenance_mut(self.base), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: `new_stack` returns whole, page-aligned, readable and writable pages above a guard page, for this stack alone.
#[allow(unsafe_code)]
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let bytes = size.next_multiple_of(PAGE_BYTES);
        let found = if zeroed { None } else { self.0.lock().pop() };
        let mapping = match found.filter(|mapping| mapping.usable().len() == bytes) {
            Some(mapping) => mapping,
            None => Mapping::new(bytes)?,
        };
        Ok(Box::new(Stack { mapping: Some(mapping), kept: self.0.clone() }))
    }
}

// SAFETY: the ranges are those of the mapping, which lives as long as this value.
#[allow(unsafe_code)]
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.range().end)
    }

    fn range(&self) -> Range<usize> {
        self.mapping.as_ref().map_or(0..0, Mapping::usable)
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let base = self.mapping.as_ref().map_or(0, |mapping| mapping.base);
        ptr::with_exposed_provenance_mut(base)..ptr::with_exposed_provenance_mut(base.saturating_add(PAGE_BYTES))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        mapping.cool();
        let mut kept = self.kept.lock();
        if kept.len() < KEPT {
            kept.push(mapping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 256 << 10;

    fn byte(stack: &dyn StackMemory, below_top: usize) -> *mut u8 {
        stack.top().wrapping_sub(below_top)
    }

    #[allow(unsafe_code)]
    fn write(stack: &dyn StackMemory, below_top: usize) {
        // SAFETY: inside of the stack, which this test alone uses.
        unsafe { byte(stack, below_top).write(1) };
    }

    #[allow(unsafe_code)]
    fn read(stack: &dyn StackMemory, below_top: usize) -> u8 {
        // SAFETY: as above.
        unsafe { byte(stack, below_top).read() }
    }

    #[test]
    fn a_stack_is_used_again_and_only_its_top_stays_in_memory() {
        let stacks = Stacks::default();
        let stack = stacks.new_stack(BYTES, false).unwrap();
        let range = stack.range();
        assert_eq!((range.len(), stack.top().addr()), (BYTES, range.end));
        assert_eq!(stack.guard_range().end.addr(), range.start);
        write(&*stack, 1);
        write(&*stack, BYTES);
        drop(stack);
        let again = stacks.new_stack(BYTES, false).unwrap();
        assert_eq!(again.range(), range);
        assert_eq!(read(&*again, BYTES), 0, "what a deep recursion left is given back");
    }

    #[test]
    fn a_few_stacks_are_kept_and_each_is_one_guests() {
        let stacks = Stacks::default();
        let many: Vec<_> = (0..KEPT + 3).map(|_| stacks.new_stack(BYTES, false).unwrap()).collect();
        for (number, stack) in many.iter().enumerate() {
            let others = many.iter().skip(number + 1);
            assert!(others.into_iter().all(|other| other.range().start != stack.range().start));
        }
        drop(many);
        assert_eq!(stacks.0.lock().len(), KEPT);
    }

    #[test]
    fn a_stack_that_has_to_be_zero_is_fresh() {
        let stacks = Stacks::default();
        let stack = stacks.new_stack(BYTES, false).unwrap();
        write(&*stack, 1);
        drop(stack);
        assert_eq!(read(&*stacks.new_stack(BYTES, true).unwrap(), 1), 0);
    }
}
