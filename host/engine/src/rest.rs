//! What is let go when no guest has run for a while: mapped pages of code, the host's own and those of loaded components.
//!
//! The kernel maps sixteen pages around each page of code that is touched, and nothing unmaps them again while memory is
//! plentiful: after its start a host holds most of its program and of every component, though what it runs for one event
//! is a tenth of that. The pages stay in the page cache, so the next event maps what it needs again, without reading a disk.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;

use rustix::mm::{Advice, madvise};
use wasmtime::component::Component;

const PAGE_BYTES: usize = 4096;

/// Bits of an entry of `/proc/self/pagemap`, as in the kernel's `Documentation/admin-guide/mm/pagemap.rst`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// What is loaded and holds mapped code for as long as it lives.
pub(crate) trait Code: Send + Sync {
    /// Where the code is mapped.
    fn code(&self) -> Range<usize>;
}

/// Where a component's compiled file is mapped.
pub(crate) fn image(component: &Component) -> Range<usize> {
    let image = component.image_range();
    image.start.addr()..image.end.addr()
}

/// Lets go of the host's own code and constants.
pub(crate) fn release_host() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for range in program(&maps, (release_host as *const ()).addr()) {
        release(range);
    }
}

/// Unmaps the pages of a mapped file that holds code, if none of them was written to since it was mapped; else nothing.
///
/// The caller keeps the range mapped, and nobody writes to it.
pub(crate) fn release(range: Range<usize>) {
    if is_unwritten(&range).unwrap_or(false) {
        discard(range);
    }
}

#[allow(unsafe_code)]
fn discard(range: Range<usize>) {
    // SAFETY: the range is mapped for as long as this takes. No page in it differs from the file's, so whoever touches
    // one afterwards finds what was there. Where it fails, everything stays as it was.
    let _ = unsafe { madvise(ptr::without_provenance_mut(range.start), range.len(), Advice::LinuxDontNeed) };
}

/// Whether each page is either absent or the file's own.
fn is_unwritten(range: &Range<usize>) -> std::io::Result<bool> {
    let pages = range.len().div_ceil(PAGE_BYTES);
    let mut entries = vec![0; pages * size_of::<u64>()];
    File::open("/proc/self/pagemap")?
        .read_exact_at(&mut entries, (range.start / PAGE_BYTES * size_of::<u64>()) as u64)?;
    let (entries, _) = entries.as_chunks();
    Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry)).all(|entry| {
        let is_own = entry & PRESENT != 0 && entry & OF_FILE == 0;
        !is_own && entry & SWAPPED == 0
    }))
}

/// The ranges of the file that is mapped at `address` which cannot be written to.
fn program(maps: &str, address: usize) -> Vec<Range<usize>> {
    let mappings: Vec<_> = maps.lines().filter_map(mapping).collect();
    let Some((_, _, program)) = mappings.iter().find(|(range, _, _)| range.contains(&address)) else {
        return Vec::new();
    };
    let of_program = mappings.iter().filter(|(_, permissions, path)| path == program && !permissions.contains('w'));
    of_program.map(|(range, _, _)| range.clone()).collect()
}

/// Range, permissions and path of a line of `/proc/self/maps`; None for memory without a file.
fn mapping(line: &str) -> Option<(Range<usize>, &str, &str)> {
    let (fields, path) = line.split_at_checked(line.find('/')?)?;
    let mut fields = fields.split(' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?..address(end)?, fields.next()?, path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    /// A private mapping of a file of some pages, each full of its number.
    struct Mapped(Range<usize>);

    impl Mapped {
        #[allow(unsafe_code)]
        fn new(pages: u8) -> Self {
            let mut file = tempfile::tempfile().unwrap();
            (1..=pages).for_each(|page| file.write_all(&[page; PAGE_BYTES]).unwrap());
            let (bytes, all) = (usize::from(pages) * PAGE_BYTES, ProtFlags::READ | ProtFlags::WRITE);
            // SAFETY: a new mapping, which nothing else knows.
            let start =
                unsafe { mmap(ptr::null_mut(), bytes, all, MapFlags::PRIVATE, &file, 0) }.unwrap().expose_provenance();
            Self(start..start + bytes)
        }

        #[allow(unsafe_code)]
        fn read(&self, page: usize) -> u8 {
            // SAFETY: inside the mapping.
            unsafe { ptr::with_exposed_provenance::<u8>(self.0.start + page * PAGE_BYTES).read() }
        }

        #[allow(unsafe_code)]
        fn write(&self, page: usize, byte: u8) {
            // SAFETY: inside the mapping, which this thread alone uses.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(self.0.start + page * PAGE_BYTES).write(byte) }
        }

        fn resident(&self) -> usize {
            let mut entries = vec![0; self.0.len() / PAGE_BYTES * 8];
            let at = (self.0.start / PAGE_BYTES * 8) as u64;
            File::open("/proc/self/pagemap").unwrap().read_exact_at(&mut entries, at).unwrap();
            entries.chunks(8).filter(|entry| u64::from_ne_bytes((*entry).try_into().unwrap()) & PRESENT != 0).count()
        }
    }

    impl Drop for Mapped {
        #[allow(unsafe_code)]
        fn drop(&mut self) {
            // SAFETY: whole and only here.
            unsafe { munmap(ptr::with_exposed_provenance_mut(self.0.start), self.0.len()) }.unwrap();
        }
    }

    #[test]
    fn pages_of_a_file_are_let_go_and_come_back_as_they_were() {
        let mapped = Mapped::new(3);
        assert_eq!(mapped.read(2), 3);
        assert_ne!(mapped.resident(), 0);
        release(mapped.0.clone());
        assert_eq!(mapped.resident(), 0);
        assert_eq!([0, 1, 2].map(|page| mapped.read(page)), [1, 2, 3]);
    }

    #[test]
    fn pages_that_were_written_to_are_never_lost() {
        let mapped = Mapped::new(3);
        mapped.write(1, 42);
        release(mapped.0.clone());
        assert_eq!([0, 1, 2].map(|page| mapped.read(page)), [1, 42, 3]);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        release_host();
        assert!(
            !program(&std::fs::read_to_string("/proc/self/maps").unwrap(), (release as *const ()).addr()).is_empty()
        );
    }

    #[test]
    fn only_what_the_program_cannot_write_to_is_the_programs() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 7 /opt/a program\n\
            2000-5000 r-xp 00001000 fe:00 7 /opt/a program\n\
            5000-6000 rw-p 00004000 fe:00 7 /opt/a program\n\
            6000-7000 rw-p 00000000 00:00 0 \n\
            7000-8000 r-xp 00000000 fe:00 8 /cache/guest.cwasm\n\
            8000-9000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(program(maps, 0x2345), [0x1000..0x2000, 0x2000..0x5000]);
        assert_eq!(program(maps, 0x6500), []);
        assert_eq!(program("", 0x2345), []);
    }
}
