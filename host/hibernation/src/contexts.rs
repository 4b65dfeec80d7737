//! Places for what wasmtime keeps of an instance besides its memory: contexts and tables.
//!
//! The context of a large program has a record for each function that can be called indirectly, 42 KiB for a kube-rs controller, and
//! nobody touches it while the program waits. wasmtime takes it from the process's allocator and gives an embedder no say in
//! where it lies. So the process's allocator is [`Allocator`]: the system's, except for what a guest is instantiated
//! with ([`Memories::instantiate`]), which gets a place in a region of the guest's own that is hibernated as its memories are.
//!
//! Nobody but the guest's own thread may write there, or a hibernation could undo it. So a place is given only to what has
//! the shape of a context or of a table, and only while wasmtime itself is at work: from the first instruction of the guest on,
//! which could have the host allocate anything, there are none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::memory::Memory;
use crate::region::Region;

/// What one guest can place. The rest of a larger one stays where it would be otherwise.
const SLOT_BYTES: usize = 4 << 20;
/// Guests that can place something at once.
const SLOTS: usize = 4096;
/// What is smaller is not worth its place.
const MIN_BYTES: usize = 512;
/// Of a context, and of few other things.
const CONTEXT_ALIGN: usize = 16;
/// Of a table, which is made of pointers and begins as zero.
const TABLE_ALIGN: usize = 8;
/// No address of a program is less than so much above it.
const NOWHERE: usize = 1 << 63;

/// Where the slots begin.
static BASE: AtomicUsize = AtomicUsize::new(NOWHERE);
/// Whose slot it is. Each allocation in a slot holds its owner.
static OWNERS: [AtomicPtr<Memory>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];
static FREE: Mutex<Free> = Mutex::new(Free { unused: 0, given_back: Vec::new() });

thread_local! {
    /// Where contexts are placed now. Neither lazy nor dropped, as the allocator must not allocate.
    static OPEN: Cell<*const Memory> = const { Cell::new(ptr::null()) };
}

struct Free {
    /// The first slot that was never used.
    unused: usize,
    given_back: Vec<usize>,
}

/// A part of the address space for one guest's contexts. Dropped, it can be another's.
pub(crate) struct Slot(usize);

impl Slot {
    /// The first one reserves the addresses of all.
    fn take() -> io::Result<Self> {
        let mut free = FREE.lock();
        if BASE.load(Ordering::Relaxed) == NOWHERE {
            BASE.store(Region::reserve_for_ever(SLOTS.saturating_mul(SLOT_BYTES))?, Ordering::Relaxed);
        }
        if let Some(slot) = free.given_back.pop() {
            return Ok(Self(slot));
        }
        if free.unused == SLOTS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        free.unused = free.unused.saturating_add(1);
        Ok(Self(free.unused.saturating_sub(1)))
    }

    pub(crate) fn address(&self) -> usize {
        BASE.load(Ordering::Relaxed).saturating_add(self.0.saturating_mul(SLOT_BYTES))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        FREE.lock().given_back.push(self.0);
    }
}

/// Room for one guest's contexts. It stays as long as one of them.
pub(crate) fn room() -> io::Result<Arc<Memory>> {
    let slot = Slot::take()?;
    let number = slot.0;
    let room = Arc::new(Memory::of_contexts(Region::slot(slot, SLOT_BYTES), SLOT_BYTES));
    if let Some(owner) = OWNERS.get(number) {
        owner.store(Arc::as_ptr(&room).cast_mut(), Ordering::Relaxed);
    }
    Ok(room)
}

/// The system's allocator, except for what wasmtime keeps of guests that are hibernated. A binary that hibernates
/// contexts has it as `#[global_allocator]`; with another one they stay where that puts them.
#[derive(Debug)]
pub struct Allocator;

/// The owner of what lies there, if it was placed.
fn owner(address: *mut u8) -> Option<*const Memory> {
    let offset = address.addr().wrapping_sub(BASE.load(Ordering::Relaxed));
    OWNERS.get(offset / SLOT_BYTES).map(|owner| owner.load(Ordering::Relaxed).cast_const())
}

#[allow(unsafe_code)]
fn place(layout: Layout) -> Option<*mut u8> {
    let room = OPEN.get();
    // SAFETY: where contexts are placed is kept alive by the future that is polled, see `Instantiation`.
    let place = unsafe { room.as_ref() }?.take(layout)?;
    // SAFETY: `room` comes from an `Arc`, which lives as said.
    unsafe { Arc::increment_strong_count(room) };
    Some(place)
}

// SAFETY: what is placed is aligned, zero, nobody else's, and mapped until `dealloc` gives up its hold on the region;
// everything else is the system's.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() == CONTEXT_ALIGN
            && layout.size() >= MIN_BYTES
            && let Some(place) = place(layout)
        {
            return place;
        }
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if matches!(layout.align(), TABLE_ALIGN | CONTEXT_ALIGN)
            && layout.size() >= MIN_BYTES
            && let Some(place) = place(layout)
        {
            return place;
        }
        // SAFETY: as the caller says.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        match owner(address) {
            // SAFETY: the allocation that ends here has held it.
            Some(owner) => unsafe { Arc::decrement_strong_count(owner) },
            // SAFETY: as the caller says; it was not placed, so it is the system's.
            None => unsafe { System.dealloc(address, layout) },
        }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if owner(address).is_none() {
            // SAFETY: as the caller says; it was not placed, so it is the system's.
            return unsafe { System.realloc(address, layout, bytes) };
        }
        // A table that grows. What is placed has no room to grow.
        // SAFETY: the caller answers for the new size; both are at least as large as what is copied, and apart.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(bytes, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(address, moved, layout.size().min(bytes));
                self.dealloc(address, layout);
            }
            moved
        }
    }
}

/// To be called when a guest's code is about to run, from a hook of its store: what the host allocates from then on is
/// not placed.
pub fn guest_runs() {
    OPEN.set(ptr::null());
}

/// An instantiation whose contexts are placed. Made by [`Memories::instantiate`](crate::Memories::instantiate).
#[must_use = "futures do nothing unless they are polled"]
pub struct Instantiation<F> {
    /// None once the guest's code has run.
    room: Option<Arc<Memory>>,
    future: Pin<Box<F>>,
}

impl<F> Instantiation<F> {
    pub(crate) fn new(room: Option<Arc<Memory>>, future: F) -> Self {
        Self { room, future: Box::pin(future) }
    }
}

/// Places contexts until it is dropped.
struct Placing;

impl Drop for Placing {
    fn drop(&mut self) {
        OPEN.set(ptr::null());
    }
}

impl<F: Future> Future for Instantiation<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { room, future } = self.get_mut();
        let Some(open) = room else { return future.as_mut().poll(context) };
        OPEN.set(Arc::as_ptr(open));
        let _placing = Placing;
        let polled = future.as_mut().poll(context);
        if OPEN.get().is_null() {
            *room = None;
        }
        polled
    }
}
