//! The address space of one memory. All of the crate's unsafe system calls are in here.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr;
use std::slice;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

use crate::PAGE_BYTES;
use crate::contexts::Slot;

/// Reserved addresses, of which the first so many bytes can be used. Unmapped when dropped.
pub(crate) struct Region {
    /// None for a mapping of its own.
    slot: Option<Slot>,
    /// Where the mapping begins: a guard lies below the memory, too.
    mapping: usize,
    mapped: usize,
    base: usize,
    reserved: usize,
}

impl Region {
    /// Reserves addresses that nothing can be read from or written to: `reserved` bytes between guards, all whole pages.
    #[allow(unsafe_code)]
    pub(crate) fn reserve(reserved: usize, guard: usize) -> io::Result<Self> {
        let mapped =
            guard.checked_mul(2).and_then(|guards| guards.checked_add(reserved)).ok_or(rustix::io::Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::empty(), flags) }?.expose_provenance();
        let region = Self { slot: None, mapping, mapped, base: mapping.saturating_add(guard), reserved };
        region.forbid_huge_pages();
        Ok(region)
    }

    /// Reserves addresses for slots, and never gives them back. Returns the first.
    #[allow(unsafe_code)]
    pub(crate) fn reserve_for_ever(bytes: usize) -> io::Result<usize> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        Ok(unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags) }?.expose_provenance())
    }

    /// Of so many bytes of addresses that are reserved already.
    pub(crate) fn slot(slot: Slot, bytes: usize) -> Self {
        let base = slot.address();
        let region = Self { slot: Some(slot), mapping: base, mapped: bytes, base, reserved: bytes };
        region.forbid_huge_pages();
        region
    }

    /// One touched byte would otherwise cost 2 MiB where huge pages are always on.
    #[allow(unsafe_code)]
    fn forbid_huge_pages(&self) {
        // Fails where the kernel has none.
        // SAFETY: the addresses are this region's own; the advice changes no content.
        let _ = unsafe { madvise(pointer(self.mapping), self.mapped, Advice::LinuxNoHugepage) };
    }

    pub(crate) fn base(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.base)
    }

    /// The addresses of these pages, or an error if they are not all inside of the reservation.
    pub(crate) fn addresses(&self, pages: &Range<usize>) -> io::Result<Range<usize>> {
        let address = |page: usize| {
            let offset = page.checked_mul(PAGE_BYTES).filter(|offset| *offset <= self.reserved);
            offset.and_then(|offset| self.base.checked_add(offset)).ok_or(rustix::io::Errno::FAULT)
        };
        Ok(address(pages.start)?..address(pages.end)?)
    }

    /// Makes pages usable that were not. They are zero.
    #[allow(unsafe_code)]
    pub(crate) fn allow(&self, pages: &Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(pages)?;
        if addresses.is_empty() {
            return Ok(());
        }
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the addresses are inside of this region's reservation, whose content this does not change.
        Ok(unsafe { mprotect(pointer(addresses.start), addresses.len(), flags) }?)
    }

    /// The content of usable pages.
    ///
    /// # Safety
    ///
    /// The pages were allowed, and nobody writes to them as long as the slice is in use.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn bytes(&self, pages: &Range<usize>) -> io::Result<&[u8]> {
        let addresses = self.addresses(pages)?;
        let start: *const u8 = ptr::with_exposed_provenance(addresses.start);
        // SAFETY: the pages are mapped as long as this region lives, and the caller answers for the rest.
        Ok(unsafe { slice::from_raw_parts(start, addresses.len()) })
    }

    /// Maps the same pages of a file in place of what was there, private to this process: what is written to them stays in
    /// memory.
    ///
    /// # Safety
    ///
    /// The pages were allowed, nobody uses them during this call, the file holds what is in them now, reaches at least to
    /// their end and never shrinks, and whoever writes to the file writes only what the memory holds at that place.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn map(&self, pages: &Range<usize>, file: &File) -> io::Result<()> {
        let addresses = self.addresses(pages)?;
        if addresses.is_empty() {
            return Ok(());
        }
        let offset = u64::try_from(addresses.start.saturating_sub(self.base)).unwrap_or(u64::MAX);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the addresses are inside of this region's reservation, so nothing of anybody else is replaced; that the
        // content is the same is the caller's part.
        unsafe { mmap(pointer(addresses.start), addresses.len(), protection, flags, file, offset) }?;
        // A guest touches few pages here and there when it wakes. By default the kernel reads what lies around each, as much as
        // the disk is set up for: with 8 MiB, the first instruction of a large guest waits 8 to 17 ms.
        // SAFETY: the addresses are this region's own; the advice changes no content.
        let _ = unsafe { madvise(pointer(addresses.start), addresses.len(), Advice::Random) };
        Ok(())
    }

    /// Forgets the pages in memory. They are read from their file again when they are touched.
    ///
    /// # Safety
    ///
    /// Each page is mapped from a file and was not written to since.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn forget(&self, pages: &Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(pages)?;
        // SAFETY: the addresses are this region's own; the caller answers for the content.
        Ok(unsafe { madvise(pointer(addresses.start), addresses.len(), Advice::LinuxDontNeed) }?)
    }

    /// Has the kernel begin to read the pages from their file.
    #[allow(unsafe_code)]
    pub(crate) fn read_ahead(&self, pages: &Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(pages)?;
        // SAFETY: the addresses are this region's own; the advice changes no content.
        Ok(unsafe { madvise(pointer(addresses.start), addresses.len(), Advice::WillNeed) }?)
    }

    /// Whether all the pages are still there after a call to [`map`](Self::map) that failed. If not, their addresses are
    /// taken again, so that nothing else is mapped there while a guest might still touch them.
    #[allow(unsafe_code)]
    pub(crate) fn is_whole(&self, pages: &Range<usize>) -> bool {
        let Ok(addresses) = self.addresses(pages) else { return false };
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        // Fails with ENOMEM where a page is not mapped, and changes nothing where it is.
        // SAFETY: the addresses are inside of this region's reservation and have this protection already.
        if unsafe { mprotect(pointer(addresses.start), addresses.len(), flags) }.is_ok() {
            return true;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the addresses are this region's own, and nobody uses their content any more: the guest is lost.
        let taken = unsafe { mmap_anonymous(pointer(addresses.start), addresses.len(), ProtFlags::empty(), flags) };
        debug_assert!(taken.is_ok());
        false
    }
}

fn pointer(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

impl Drop for Region {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: the addresses are this region's alone, and nobody uses them any more.
            let freed = unsafe { mmap_anonymous(pointer(self.mapping), self.mapped, ProtFlags::empty(), flags) };
            if freed.is_err() {
                // Whoever got it next would find what was there.
                mem::forget(slot);
            }
            return;
        }
        // SAFETY: the mapping is this region's alone, and nobody uses it any more.
        let unmapped = unsafe { munmap(pointer(self.mapping), self.mapped) };
        debug_assert!(unmapped.is_ok());
    }
}
