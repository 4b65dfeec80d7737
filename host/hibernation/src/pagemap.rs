//! What the kernel says of pages: `/proc/self/pagemap`, one little-endian word of 64 bits for each page.
//!
//! See `Documentation/admin-guide/mm/pagemap.rst` of Linux. The bits used here need no privilege.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::PAGE_BYTES;
use crate::runs::Runs;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// Of a file, or shared anonymous memory, which guests have none of.
const FILE: u64 = 1 << 61;
const ENTRY_BYTES: usize = 8;
/// Entries that are read at once: 16 MiB of a guest.
const ENTRIES: usize = 4096;

pub(crate) struct Pagemap(File);

/// The pages of a memory, numbered from its beginning.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Anonymous memory, also where it is swapped out.
    pub(crate) private: Runs,
    /// In memory, of files or not.
    pub(crate) resident: Runs,
}

impl Pagemap {
    pub(crate) fn open() -> io::Result<Self> {
        let pagemap = Self(File::open("/proc/self/pagemap")?);
        // Sandboxes may let it be opened and not be read.
        let here = std::ptr::from_ref(&pagemap).addr();
        pagemap.scan(here..here.saturating_add(PAGE_BYTES))?;
        Ok(pagemap)
    }

    /// Of the pages with these addresses.
    pub(crate) fn scan(&self, addresses: Range<usize>) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let first = addresses.start / PAGE_BYTES;
        let pages = addresses.len() / PAGE_BYTES;
        let mut buffer = vec![0; pages.min(ENTRIES).saturating_mul(ENTRY_BYTES)];
        let mut page = 0_usize;
        while page < pages {
            let entries = (pages.saturating_sub(page)).min(ENTRIES);
            let Some(bytes) = buffer.get_mut(..entries.saturating_mul(ENTRY_BYTES)) else { break };
            let offset = first.saturating_add(page).saturating_mul(ENTRY_BYTES);
            self.0.read_exact_at(bytes, u64::try_from(offset).unwrap_or(u64::MAX))?;
            for entry in bytes.as_chunks().0 {
                scan.add(page, u64::from_le_bytes(*entry));
                page = page.saturating_add(1);
            }
        }
        Ok(scan)
    }
}

impl Scan {
    fn add(&mut self, page: usize, entry: u64) {
        let run = page..page.saturating_add(1);
        if entry & PRESENT != 0 {
            self.resident.push(run.clone());
        }
        if entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0 {
            self.private.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_is_what_is_anonymous_in_memory_or_in_swap() {
        let mut scan = Scan::default();
        for (page, entry) in [0, PRESENT, SWAPPED, PRESENT | FILE, SWAPPED | FILE, FILE, PRESENT].iter().enumerate() {
            scan.add(page, *entry);
        }
        assert_eq!(scan.private, [1..3, 6..7].into_iter().collect());
        assert_eq!(scan.resident, [1..2, 3..4, 6..7].into_iter().collect());
    }

    #[test]
    fn more_pages_than_fit_the_buffer_are_all_seen() {
        let bytes = vec![1_u8; (2 * ENTRIES + 7) * PAGE_BYTES];
        let start = bytes.as_ptr().addr().next_multiple_of(PAGE_BYTES);
        let scan = Pagemap::open().unwrap().scan(start..start + (2 * ENTRIES + 5) * PAGE_BYTES).unwrap();
        assert_eq!(scan.private, Runs::from(0..2 * ENTRIES + 5));
    }
}
