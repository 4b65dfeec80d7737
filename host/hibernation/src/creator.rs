//! Makes the memories of an engine's guests.

use std::sync::Arc;

use wasmtime::{Config, LinearMemory, MemoryCreator, MemoryType};

use crate::PAGE_BYTES;
use crate::memory::Memory;
use crate::turn;

/// The size of a page of WebAssembly, which reservations are made of.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// Sets up an engine whose guests can be hibernated. The compiler of its components needs the same call with the same value.
///
/// Each memory reserves `reservation_bytes` of address space (whole pages of 64 KiB) and can grow to that and no further, since
/// compiled code then takes its address for fixed. So this is at least what the largest guest may use.
pub fn configure(config: &mut Config, reservation_bytes: u64) {
    config
        // wasmtime maps images only into memories that it made itself.
        .memory_init_cow(false)
        .memory_may_move(false)
        .memory_reservation(reservation_bytes.next_multiple_of(WASM_PAGE_BYTES))
        .with_host_memory(Arc::new(Creator));
}

struct Creator;

// SAFETY: each memory is a region of its own that is zero when it is made, of which as much as the current size can be used,
// and which is followed by as much unusable address space as is asked for. What hibernation does to it changes no content and no address,
// and does not happen while the guest runs.
#[allow(unsafe_code)]
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let Some(memories) = turn::current() else {
            return Err("a guest that can be hibernated was instantiated outside of `Memories::exclusive`".to_owned());
        };
        let Some(reserved) = reserved_size_in_bytes else {
            return Err("the engine reserves no address space for memories".to_owned());
        };
        if ty.is_shared() {
            return Err("the component has a memory that several threads share, which cannot be hibernated".to_owned());
        }
        if !ty.page_size().is_multiple_of(u64::try_from(PAGE_BYTES).unwrap_or(u64::MAX)) {
            return Err(format!(
                "the component has a memory with pages of {} bytes, which cannot be hibernated",
                ty.page_size()
            ));
        }
        if minimum > reserved {
            return Err(format!(
                "the component needs {minimum} bytes of memory to begin with; guests that can be hibernated have at most {reserved}"
            ));
        }
        let capacity = maximum.map_or(reserved, |maximum| maximum.min(reserved));
        let memory = Memory::new(minimum, capacity, reserved, guard_size_in_bytes)
            .map_err(|error| format!("cannot reserve {reserved} bytes of address space for a memory: {error}"))?;
        let memory = Arc::new(memory);
        memories.add(&memory);
        Ok(Box::new(Guest(memory)))
    }
}

/// A memory in the hands of wasmtime. Dropping it frees everything, at the latest when a hibernation ends that is
/// under way.
struct Guest(Arc<Memory>);

// SAFETY: see `Creator`; the base never changes.
#[allow(unsafe_code)]
unsafe impl LinearMemory for Guest {
    fn byte_size(&self) -> usize {
        self.0.bytes()
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.0.grow_to(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}
