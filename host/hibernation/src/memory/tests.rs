#![allow(unsafe_code, reason = "plays the guest")]

use std::cell::Cell;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::task::{Context, Waker};

use tempfile::TempDir;

use super::*;
use crate::Hibernation;

const PAGES: usize = 5_000;
const BYTES: usize = PAGES * PAGE_BYTES;
/// What is written at once.
const PIECE_BYTES: u64 = 4 << 20;

struct Stage {
    directory: Arc<TempDir>,
    hibernation: Hibernation,
    memory: Memory,
}

impl Stage {
    fn new() -> Self {
        Self::with_budget(1 << 30)
    }

    fn with_budget(bytes: u64) -> Self {
        // Beside the test program, since `/tmp` may be in memory.
        let here = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir_in(here).unwrap();
        let hibernation = Hibernation::open(directory.path(), bytes).unwrap();
        Self::with(Arc::new(directory), hibernation)
    }

    fn with(directory: Arc<TempDir>, hibernation: Hibernation) -> Self {
        let memory = Memory::new(BYTES, BYTES, BYTES, PAGE_BYTES).unwrap();
        Self { directory, hibernation, memory }
    }

    /// With another memory on the same budget.
    fn another(&self) -> Self {
        Self::with(Arc::clone(&self.directory), self.hibernation.clone())
    }

    fn page(&self, page: usize) -> &Cell<u8> {
        assert!(page < PAGES);
        // SAFETY: inside of the memory, which this test alone uses.
        unsafe { &*self.memory.base().wrapping_add(page * PAGE_BYTES).cast() }
    }

    fn fill(&self, value: usize) {
        (0..PAGES).for_each(|page| self.page(page).set(filled(page, value)));
    }

    fn holds(&self, value: usize) -> bool {
        (0..PAGES).all(|page| self.page(page).get() == filled(page, value))
    }

    fn hibernate(&self, go_on: impl Fn() -> bool) -> Result<usize, HibernateError> {
        // SAFETY: this test runs nothing meanwhile.
        unsafe { self.memory.hibernate(&self.hibernation.0, go_on) }.map(|written| written.pages)
    }

    fn resident(&self) -> Scan {
        self.memory.scan(&self.hibernation.0.pagemap).unwrap()
    }
}

/// Never zero.
fn filled(page: usize, value: usize) -> u8 {
    u8::try_from((page + value) % 255 + 1).unwrap()
}

/// Goes on so many times.
fn times(times: u32) -> impl Fn() -> bool {
    let left = Cell::new(times);
    move || {
        let now = left.get();
        left.set(now.saturating_sub(1));
        now > 0
    }
}

#[test]
fn a_guest_that_is_needed_while_it_is_written_stays_awake_and_leaves_nothing_on_disk() {
    let stage = Stage::new();
    stage.fill(1);
    for pieces in 0..4 {
        assert!(matches!(stage.hibernate(times(pieces)), Err(HibernateError::Wanted)));
        assert_eq!(stage.resident().private.pages(), PAGES);
        assert_eq!(stage.hibernation.disk_bytes(), 0);
        assert!(stage.holds(1));
    }
    assert_eq!(stage.hibernate(|| true).unwrap(), PAGES);
    assert!(stage.resident().resident.is_empty() && stage.holds(1));
}

#[test]
fn a_later_round_that_was_cut_short_is_made_up_for() {
    let stage = Stage::new();
    stage.fill(1);
    stage.hibernate(|| true).unwrap();
    for round in 2..6 {
        stage.fill(round);
        assert!(matches!(stage.hibernate(times(2)), Err(HibernateError::Wanted)));
        assert!(stage.holds(round));
        // Half of it is on disk already, and changes once more.
        stage.page(7).set(1);
        assert_eq!(stage.hibernate(|| true).unwrap(), PAGES);
        assert_eq!(stage.page(7).replace(filled(7, round)), 1);
        assert!(stage.holds(round));
    }
}

#[test]
fn a_later_round_that_was_cut_short_pays_for_what_it_wrote_and_the_next_one_asks_for_the_rest() {
    // Enough for one memory and a piece of another.
    let budget = u64::try_from(BYTES).unwrap() + PIECE_BYTES * 3 / 2;
    let stage = Stage::with_budget(budget);
    stage.page(0).set(1);
    stage.hibernate(|| true).unwrap();
    stage.fill(1);
    assert!(matches!(stage.hibernate(times(1)), Err(HibernateError::Wanted)));
    let written = stage.hibernation.disk_bytes();
    assert!((PIECE_BYTES..PIECE_BYTES * 3 / 2).contains(&written), "{written} bytes");

    let other = stage.another();
    other.fill(2);
    assert_eq!(other.hibernate(|| true).unwrap(), PAGES, "what is not on disk takes no budget");
    assert!(matches!(stage.hibernate(|| true), Err(HibernateError::Budget { .. })));
    assert!(stage.hibernation.disk_bytes() <= budget);
    assert!(stage.holds(1) && other.holds(2));

    drop(other);
    assert_eq!(stage.hibernate(|| true).unwrap(), PAGES);
    let used = stage.hibernation.disk_bytes();
    assert!((u64::try_from(BYTES).unwrap()..=budget).contains(&used), "{used} bytes");
    assert!(stage.holds(1));
    let hibernation = stage.hibernation.clone();
    drop(stage);
    assert_eq!(hibernation.disk_bytes(), 0);
}

#[test]
fn a_guest_whose_memory_is_lost_never_runs_again() {
    let Stage { directory: _directory, hibernation, memory } = Stage::new();
    let (memories, memory) = (hibernation.memories(), Arc::new(memory));
    memories.add(&memory);
    let runs =
        || Pin::new(&mut memories.exclusive(std::future::ready(()))).poll(&mut Context::from_waker(Waker::noop()));
    assert!(runs().is_ready());
    memory.state.lock().is_lost = true;
    for _ in 0..2 {
        assert!(memories.hibernate().unwrap_err().is_fatal());
        assert!(runs().is_pending());
    }
}

#[test]
fn pages_that_were_read_are_forgotten_and_not_written() {
    let stage = Stage::new();
    stage.fill(1);
    stage.hibernate(|| true).unwrap();
    assert!(stage.holds(1));
    assert_eq!(stage.resident(), Scan { private: Runs::default(), resident: Runs::from(0..PAGES) });
    assert_eq!(stage.hibernate(|| true).unwrap(), 0);
    assert!(stage.resident().resident.is_empty() && stage.holds(1));
}

#[test]
fn many_small_runs_are_written_as_well_as_large_ones() {
    let stage = Stage::new();
    (0..PAGES).step_by(2).for_each(|page| stage.page(page).set(3));
    assert_eq!(stage.hibernate(|| true).unwrap(), PAGES / 2);
    assert!((0..PAGES).all(|page| stage.page(page).get() == if page % 2 == 0 { 3 } else { 0 }));
}

#[test]
fn a_memory_does_not_grow_beyond_its_capacity() {
    let bytes = 4 * PAGE_BYTES;
    let memory = Memory::new(PAGE_BYTES, bytes, 2 * bytes, PAGE_BYTES).unwrap();
    memory.grow_to(bytes).unwrap();
    assert_eq!(memory.grow_to(bytes + 1).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    assert_eq!(memory.bytes(), bytes);
}
