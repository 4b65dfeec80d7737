//! One linear memory and the file that it sleeps in.

use std::alloc::Layout;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::PAGE_BYTES;
use crate::base::{Base, Image};
use crate::directory::Inner;
use crate::error::HibernateError;
use crate::file::SparseFile;
use crate::pagemap::{Pagemap, Scan};
use crate::plan::{plan, worth_sharing};
use crate::region::Region;
use crate::runs::Runs;

/// Pages between two pages of a working set that are read ahead as well. The kernel maps as many around each page that is
/// touched, so smaller gaps are unknown anyway.
const WORKING_SET_GAP: usize = (64 << 10) / PAGE_BYTES;
/// Runs of a working set that are remembered: one system call each when they are read ahead.
const WORKING_SET_RUNS: usize = 256;

pub(crate) struct Memory {
    region: Region,
    /// Bytes that the guest can use now.
    bytes: AtomicUsize,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None before the first hibernation.
    file: Option<SparseFile>,
    /// The component's image, and the pages that are mapped from it.
    base: Option<Arc<Base>>,
    shared: Runs,
    /// Pages that the last wake touched.
    working_set: Runs,
    is_lost: bool,
}

/// What a hibernation did to one memory.
pub(crate) struct Written {
    pub(crate) pages: usize,
}

impl Memory {
    pub(crate) fn new(bytes: usize, capacity: usize, reserved: usize, guard: usize) -> io::Result<Self> {
        let region = Region::reserve(reserved, guard)?;
        region.allow(&(0..pages(bytes)))?;
        Ok(Self { region, bytes: AtomicUsize::new(bytes), capacity, state: Mutex::default() })
    }

    /// Without any yet, see [`take`](Self::take).
    pub(crate) fn of_contexts(region: Region, capacity: usize) -> Self {
        Self { region, bytes: AtomicUsize::new(0), capacity, state: Mutex::default() }
    }

    /// The next free place for such an allocation. Zero, and never given to another.
    pub(crate) fn take(&self, layout: Layout) -> Option<*mut u8> {
        let start = self.bytes().next_multiple_of(layout.align());
        self.grow_to(start.checked_add(layout.size())?).ok()?;
        Some(self.base().wrapping_add(start))
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.region.base()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn pages(&self) -> usize {
        pages(self.bytes())
    }

    /// Called by wasmtime while the guest runs, and so never during a hibernation.
    pub(crate) fn grow_to(&self, bytes: usize) -> io::Result<()> {
        let _state = self.state.lock();
        if bytes > self.capacity {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.region.allow(&(self.pages()..pages(bytes)))?;
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    pub(crate) fn scan(&self, pagemap: &Pagemap) -> io::Result<Scan> {
        pagemap.scan(self.region.addresses(&(0..self.pages()))?)
    }

    /// # Safety
    ///
    /// The guest does not run as long as the slice is in use.
    #[allow(unsafe_code)]
    unsafe fn content(&self, run: &Range<usize>) -> io::Result<&[u8]> {
        if run.end > self.pages() {
            return Err(rustix::io::Errno::FAULT.into());
        }
        // SAFETY: the pages are in use and so were allowed; nobody but the guest writes to them.
        unsafe { self.region.bytes(run) }
    }

    /// Writes what the guest changed and forgets its memory.
    ///
    /// # Safety
    ///
    /// The guest does not run during this call.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn hibernate(&self, store: &Inner, go_on: impl Fn() -> bool) -> Result<Written, HibernateError> {
        let state = &mut *self.state.lock();
        if state.is_lost {
            return Err(HibernateError::Lost(rustix::io::Errno::FAULT.into()));
        }
        let length = self.pages();
        let Scan { private, resident } =
            self.scan(&store.pagemap).map_err(HibernateError::io("read the page map for"))?;
        if resident.is_empty() && private.is_empty() {
            if let Some(file) = &state.file {
                // What was read ahead for a wake that did not come.
                file.drop_cache();
            }
            return Ok(Written { pages: 0 });
        }
        let is_first = state.file.is_none();
        let plan = plan(length, &private, &state.shared);
        let mut file = match state.file.take() {
            Some(file) => file,
            None => SparseFile::create(store)?,
        };
        // SAFETY: the guest does not run during this call.
        let saved = file.save(length, &plan.write, |run| unsafe { self.content(run) }, go_on);
        if saved.is_err() && is_first {
            // Nothing of it is mapped, so it can go.
            return saved.map(|pages| Written { pages });
        }
        // From the second time on, the file holds what the memory holds wherever it is mapped, and otherwise does not matter.
        let file = &*state.file.insert(file);
        let written = saved?;
        for run in plan.map.iter() {
            // SAFETY: the guest does not run. The file now holds the run's private pages as they are, its saved pages from
            // earlier, and holes for pages that were never touched. `save` made it long enough, nothing ever shortens it,
            // and it is only ever written to from the same pages of this memory.
            unsafe { self.map(&run, file, &mut state.is_lost) }?;
        }
        for run in plan.shared.iter() {
            // SAFETY: these pages are mapped from the image and not private.
            unsafe { self.region.forget(&run) }.map_err(HibernateError::io("unmap"))?;
        }
        file.drop_cache();
        state.shared = plan.shared;
        if !is_first {
            state.working_set = resident.bridged(WORKING_SET_GAP).longest(WORKING_SET_RUNS, 1);
        }
        Ok(Written { pages: written })
    }

    /// # Safety
    ///
    /// As for [`Region::map`].
    #[allow(unsafe_code)]
    unsafe fn map(&self, run: &Range<usize>, file: &SparseFile, is_lost: &mut bool) -> Result<(), HibernateError> {
        // SAFETY: the caller answers for it.
        let Err(error) = (unsafe { self.region.map(run, file.file()) }) else { return Ok(()) };
        if self.region.is_whole(run) {
            return Err(HibernateError::io("map")(error));
        }
        *is_lost = true;
        Err(HibernateError::Lost(error))
    }

    /// Has the kernel begin to read the pages that the last wake touched. Returns how many.
    pub(crate) fn prefetch(&self) -> Result<usize, HibernateError> {
        // During a hibernation there is nothing to be read ahead.
        let Some(state) = self.state.try_lock() else { return Ok(0) };
        for run in state.working_set.iter() {
            self.region.read_ahead(&run).map_err(HibernateError::io("read ahead"))?;
        }
        Ok(state.working_set.pages())
    }

    /// Maps what this memory has in common with its component's image, which is made from this one if there is none.
    ///
    /// # Safety
    ///
    /// The guest does not run during this call.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn share(&self, store: &Inner, image: Image) -> Result<usize, HibernateError> {
        let state = &mut *self.state.lock();
        if state.file.is_some() || state.base.is_some() {
            // What it had in common with others is in its own file by now.
            return Ok(state.shared.pages());
        }
        let length = self.pages();
        let Scan { private, .. } = self.scan(&store.pagemap).map_err(HibernateError::io("read the page map for"))?;
        // SAFETY: the guest does not run during this call.
        let content = |run: &Range<usize>| unsafe { self.content(run) };
        let base = store.base(image, || {
            let mut file = SparseFile::create(store)?;
            file.save(length, &private, content, || true)?;
            Ok(Base { file })
        })?;
        let candidates = private.and(base.file.written());
        let equal = base.file.equal(&candidates, content).map_err(HibernateError::io("compare"))?;
        for run in worth_sharing(&equal).iter() {
            // SAFETY: the guest does not run. The file holds the same in these pages, which were compared, so it is long
            // enough, and it is never written to again.
            unsafe { self.map(&run, &base.file, &mut state.is_lost) }?;
            state.shared.push(run);
        }
        state.base = Some(base);
        Ok(state.shared.pages())
    }
}

fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests;
