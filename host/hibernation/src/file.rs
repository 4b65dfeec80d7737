//! The file of one memory or image: sparse, without a name, counted against the budget.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use libc::{SYNC_FILE_RANGE_WAIT_AFTER, SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE, sync_file_range};
use rustix::fs::{Advice, OFlags, fadvise, fcntl_setfl};

use crate::PAGE_BYTES;
use crate::budget::Charge;
use crate::directory::Inner;
use crate::error::HibernateError;
use crate::runs::Runs;

/// Runs from this size on go past the page cache, straight from the guest's memory to the disk: the cache would hold a
/// second copy of a large guest until it is synced. Smaller ones are gathered in the cache, since each write past it waits
/// for the disk.
const DIRECT_PAGES: usize = (128 << 10) / PAGE_BYTES;
/// What is written at once. Between two pieces is asked whether the guest is needed.
const PIECE_PAGES: usize = (4 << 20) / PAGE_BYTES;
/// What the page cache may hold of unsynced small runs.
const UNSYNCED_PAGES: usize = (8 << 20) / PAGE_BYTES;
/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

pub(crate) struct SparseFile {
    file: File,
    is_overlay: bool,
    /// Stands for the written pages at least.
    charge: Charge,
    /// Pages that were written, also those that an attempt that failed had begun to write. The others are holes.
    written: Runs,
    /// Pages in the page cache that the disk may not have yet.
    unsynced: usize,
}

impl SparseFile {
    pub(crate) fn create(store: &Inner) -> Result<Self, HibernateError> {
        let file = store.unlinked_file().map_err(HibernateError::io("make"))?;
        let (is_overlay, charge) = (store.is_overlay, Charge::new(&store.budget));
        Ok(Self { file, is_overlay, charge, written: Runs::default(), unsynced: 0 })
    }

    /// For mapping it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn written(&self) -> &Runs {
        &self.written
    }

    /// Writes these pages, each at its place, and makes the file at least `length` pages long. Pages that are zero stay holes
    /// where nothing was written before. Returns the pages that were written. When this returns, the disk has them.
    pub(crate) fn save<'a>(
        &mut self,
        length: usize,
        pages: &Runs,
        content: impl Fn(&Range<usize>) -> io::Result<&'a [u8]>,
        go_on: impl Fn() -> bool,
    ) -> Result<usize, HibernateError> {
        let fresh = pages.minus(&self.written);
        let zero = zero_pages(&fresh, &content).map_err(HibernateError::io("read the memory for"))?;
        let pages = pages.minus(&zero);
        self.charge.grow(bytes(fresh.minus(&zero).pages()))?;
        let mut begun = vec![];
        let result = self.write(length, &pages, &mut begun, content, go_on);
        begun.sort_unstable_by_key(|run| run.start);
        self.written = self.written.union(&begun.into_iter().collect());
        if let Ok(metadata) = self.file.metadata() {
            // Nobody asks again for pages that were written once, so these stay paid for even where the write failed half way
            // and the disk has less.
            let taken = metadata.blocks().saturating_mul(BLOCK_BYTES);
            self.charge.settle(taken.max(bytes(self.written.pages())));
        }
        result.map(|()| pages.pages())
    }

    /// Adds to `begun` what was written, or begun to be before an error.
    fn write<'a>(
        &mut self,
        length: usize,
        pages: &Runs,
        begun: &mut Vec<Range<usize>>,
        content: impl Fn(&Range<usize>) -> io::Result<&'a [u8]>,
        go_on: impl Fn() -> bool,
    ) -> Result<(), HibernateError> {
        let length = bytes(length);
        if self.file.metadata().map_err(HibernateError::io("measure"))?.len() < length {
            self.file.set_len(length).map_err(HibernateError::io("extend"))?;
        }
        let (large, small): (Vec<_>, Vec<_>) = pages.iter().partition(|run| run.len() >= DIRECT_PAGES);
        // Where the file system knows no such writes, large runs are gathered as well.
        let is_direct = !large.is_empty() && fcntl_setfl(&self.file, OFlags::DIRECT).is_ok();
        let mut written = self.write_runs(large, is_direct, begun, &content, &go_on);
        if is_direct {
            fcntl_setfl(&self.file, OFlags::empty()).map_err(HibernateError::io("prepare"))?;
        }
        written = written.and_then(|()| self.write_runs(small, false, begun, &content, &go_on));
        written?;
        self.sync()
    }

    fn write_runs<'a>(
        &mut self,
        runs: Vec<Range<usize>>,
        is_direct: bool,
        begun: &mut Vec<Range<usize>>,
        content: impl Fn(&Range<usize>) -> io::Result<&'a [u8]>,
        go_on: impl Fn() -> bool,
    ) -> Result<(), HibernateError> {
        for piece in runs.into_iter().flat_map(|run| pieces(run, PIECE_PAGES)) {
            if !go_on() {
                return Err(HibernateError::Wanted);
            }
            if !is_direct {
                self.unsynced = self.unsynced.saturating_add(piece.len());
                if self.unsynced > UNSYNCED_PAGES {
                    self.sync()?;
                    self.drop_cache();
                }
            }
            let content = content(&piece).map_err(HibernateError::io("read the memory for"))?;
            let offset = bytes(piece.start);
            begun.push(piece);
            self.file.write_all_at(content, offset).map_err(HibernateError::io("write"))?;
        }
        Ok(())
    }

    /// A page that the disk turns out not to take after it was mapped would kill the host when it is touched, so this waits for
    /// all of them and for their errors. Unlike `fdatasync` not for the file system's journal, and with it for everybody else's
    /// writes: nobody reads this file after a crash.
    #[allow(unsafe_code)]
    fn sync(&mut self) -> Result<(), HibernateError> {
        if self.is_overlay {
            // The cache is that of the file below. `sync_file_range` looks into that of the overlay's own file, which is always
            // empty, and finds nothing to wait for; `fdatasync` is passed on.
            self.file.sync_data().map_err(HibernateError::io("sync"))?;
            self.unsynced = 0;
            return Ok(());
        }
        let all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: touches no memory of this process.
        let result = unsafe { sync_file_range(self.file.as_raw_fd(), 0, 0, all) };
        if result != 0 {
            return Err(HibernateError::io("sync")(io::Error::last_os_error()));
        }
        self.unsynced = 0;
        Ok(())
    }

    /// Has the kernel forget what it holds of the file in memory, which would count as the host's.
    pub(crate) fn drop_cache(&self) {
        // Of no consequence but for memory, and cannot fail for a file.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Which of these pages hold the same in the file.
    pub(crate) fn equal<'a>(
        &self,
        pages: &Runs,
        content: impl Fn(&Range<usize>) -> io::Result<&'a [u8]>,
    ) -> io::Result<Runs> {
        let mut buffer = vec![0; DIRECT_PAGES.saturating_mul(PAGE_BYTES)];
        let mut equal = Runs::default();
        for piece in pages.iter().flat_map(|run| pieces(run, DIRECT_PAGES)) {
            let memory = content(&piece)?;
            let Some(saved) = buffer.get_mut(..memory.len()) else { continue };
            self.file.read_exact_at(saved, bytes(piece.start))?;
            let both = memory.chunks(PAGE_BYTES).zip(saved.chunks(PAGE_BYTES));
            piece.zip(both).filter(|(_, (a, b))| a == b).for_each(|(page, _)| equal.push(one(page)));
        }
        Ok(equal)
    }
}

fn zero_pages<'a>(pages: &Runs, content: impl Fn(&Range<usize>) -> io::Result<&'a [u8]>) -> io::Result<Runs> {
    let mut zero = Runs::default();
    for run in pages.iter() {
        let content = content(&run)?;
        run.zip(content.chunks(PAGE_BYTES))
            .filter(|(_, page)| is_zero(page))
            .for_each(|(page, _)| zero.push(one(page)));
    }
    Ok(zero)
}

/// Most pages differ from zero in their first bytes, and comparing the rest is what the compiler does well.
fn is_zero(page: &[u8]) -> bool {
    page.as_chunks::<64>().0.iter().all(|chunk| *chunk == [0; 64])
}

fn one(page: usize) -> Range<usize> {
    page..page.saturating_add(1)
}

fn pieces(run: Range<usize>, pages: usize) -> impl Iterator<Item = Range<usize>> {
    let end = run.end;
    run.step_by(pages).map(move |start| start..start.saturating_add(pages).min(end))
}

fn bytes(pages: usize) -> u64 {
    u64::try_from(pages.saturating_mul(PAGE_BYTES)).unwrap_or(u64::MAX)
}
