//! What hibernation does to one guest's memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tokio::time::Instant;

use crate::alone::{directory, mount_overlay, with_mounts};
use crate::guest::{Event, HEAP, Kind, descriptors, open, open_files};

const PAGE: u64 = 4 << 10;
const WORDS_OF_A_PAGE: u64 = PAGE / 8;

#[test]
fn a_hibernated_guest_holds_next_to_nothing_and_wakes_as_it_was() {
    let directory = directory();
    let hibernation = open(&directory);
    let mut guest = Kind::new().guest(&hibernation.memories());
    assert_eq!(guest.ask(Event::Grow { pages: 40 }), 2);
    guest.ask(Event::Fill { value: 7 });
    let awake = guest.memories.resident().unwrap();
    assert!(awake.private >= 41 << 16, "{awake:?}");

    let report = guest.memories.hibernate().unwrap();
    assert!((41 << 16..(41 << 16) + 10 * PAGE).contains(&report.bytes), "{report:?}");
    assert_eq!(report.bytes, report.pages * PAGE);
    assert_eq!(guest.memories.resident().unwrap().total(), 0);
    assert!(hibernation.disk_bytes() >= report.bytes);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");

    assert!(guest.is_sound());
    assert_eq!(guest.ask(Event::Read { word: 5 * WORDS_OF_A_PAGE }), 7 + 5);
}

#[test]
fn later_rounds_write_what_changed_and_keep_what_did_not() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    guest.ask(Event::Grow { pages: 10 });
    guest.ask(Event::Fill { value: 1 });
    guest.memories.hibernate().unwrap();
    for round in 0..5 {
        // A page of the file that is not present in memory is unchanged, not zero: most of them are never touched here.
        guest.write(round * 3 * WORDS_OF_A_PAGE, round + 100);
        let report = guest.memories.hibernate().unwrap();
        assert_eq!(report.pages, 2, "the page of the heap and that of the account");
        assert_eq!(guest.memories.resident().unwrap().total(), 0);
    }
    // Reading is no reason to write.
    guest.ask(Event::Read { word: 17 * WORDS_OF_A_PAGE });
    assert_eq!(guest.memories.hibernate().unwrap().pages, 1);
    assert!(guest.is_sound());
}

#[test]
fn memory_that_grew_after_a_hibernation_is_zero_and_is_kept() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    guest.write(3, 33);
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.ask(Event::Grow { pages: 4 }), 2);
    let new = (64 << 10) / 8;
    assert_eq!(guest.ask(Event::Read { word: new }), 0);
    guest.write(new + 5 * WORDS_OF_A_PAGE, 55);
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.ask(Event::Grow { pages: 1 }), 6);
    assert_eq!(guest.ask(Event::Read { word: 3 }), 33);
    assert_eq!(guest.ask(Event::Read { word: new + 5 * WORDS_OF_A_PAGE }), 55);
    assert!(guest.is_sound());
}

#[test]
fn a_memory_grows_to_its_bound_and_no_further() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    assert_eq!(guest.ask(Event::Grow { pages: 63 }), u64::MAX, "the memory's own maximum is 64");
    assert_eq!(guest.ask(Event::Grow { pages: 62 }), 2);
    guest.ask(Event::Fill { value: 9 });
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.ask(Event::Grow { pages: 1 }), u64::MAX);
    assert!(guest.is_sound());

    let wat = include_str!("guest.wat").replace("2 64)", "2)");
    let mut guest = Kind::of(&wat, 10 << 16).guest(&open(&directory).memories());
    assert_eq!(guest.ask(Event::Grow { pages: 9 }), u64::MAX, "the reservation is 10 pages");
    assert_eq!(guest.ask(Event::Grow { pages: 8 }), 2);
    assert!(guest.is_sound());
}

#[test]
fn pages_that_are_zero_take_no_place_on_the_disk() {
    let directory = directory();
    let hibernation = open(&directory);
    let mut guest = Kind::new().guest(&hibernation.memories());
    guest.ask(Event::Grow { pages: 60 });
    for page in 0..60 * 16 {
        guest.ask(Event::Read { word: page * WORDS_OF_A_PAGE });
    }
    assert!(guest.memories.resident().unwrap().private > 60 << 16, "reading maps the zero page");
    let report = guest.memories.hibernate().unwrap();
    assert!(report.pages < 10, "{report:?}");
    assert!(hibernation.disk_bytes() < 1 << 16);
    // A page that was not zero and is now must not be taken for a hole.
    guest.write(0, 1);
    guest.memories.hibernate().unwrap();
    guest.write(0, 0);
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.ask(Event::Read { word: 0 }), 0);
    assert!(guest.is_sound());
}

#[test]
fn dropping_a_guest_gives_back_its_file_and_its_budget() {
    let directory = directory();
    let hibernation = open(&directory);
    let kind = Kind::new();
    for _ in 0..20 {
        let mut guest = kind.guest(&hibernation.memories());
        guest.ask(Event::Fill { value: 3 });
        guest.memories.share("digest").unwrap();
        guest.memories.hibernate().unwrap();
        assert!(guest.is_sound());
        assert!(open_files(directory.path()) > 0);
    }
    assert_eq!((open_files(directory.path()), hibernation.disk_bytes()), (0, 0));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let directory = directory.path().canonicalize().unwrap();
    assert!(!maps.contains(directory.to_str().unwrap()), "a file is still mapped:\n{maps}");
}

#[test]
fn what_a_wake_touched_is_read_ahead_of_the_next_one() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    guest.ask(Event::Grow { pages: 60 });
    guest.ask(Event::Fill { value: 1 });
    assert_eq!(guest.memories.prefetch().unwrap(), 0, "it never slept");
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.memories.prefetch().unwrap(), 0, "it never woke");
    for page in [100, 101, 500, 900] {
        guest.ask(Event::Read { word: page * WORDS_OF_A_PAGE });
    }
    guest.memories.hibernate().unwrap();
    let read = guest.memories.prefetch().unwrap();
    assert!((5 * PAGE..5 * 33 * PAGE).contains(&read), "{read} bytes");
    assert_eq!(guest.memories.resident().unwrap().total(), 0, "the kernel reads, nothing is mapped");
    // A hibernation of a guest that did not wake forgets nothing.
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.memories.prefetch().unwrap(), read);
    assert!(guest.is_sound());
}

#[test]
fn every_wake_begins_with_reading_what_the_last_one_touched() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    guest.ask(Event::Grow { pages: 60 });
    guest.ask(Event::Fill { value: 1 });
    guest.memories.hibernate().unwrap();
    for page in [100, 300, 500, 900] {
        guest.ask(Event::Read { word: page * WORDS_OF_A_PAGE });
    }
    guest.memories.hibernate().unwrap();
    let heap = HEAP / 4096;
    let touched = [100, 300, 500, 900].map(|page| heap + page);
    let are_cached = || cached_pages(directory.path()).is_superset(&touched.into());
    assert!(touched.iter().all(|page| !cached_pages(directory.path()).contains(page)), "it sleeps");
    guest.ask(Event::Happened { number: 1 });
    // The disk takes its time.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !are_cached() {
        assert!(Instant::now() < deadline, "{:?}", cached_pages(directory.path()));
        std::thread::yield_now();
    }
}

#[test]
fn a_guest_that_sleeps_on_an_overlay_is_on_the_disk_and_not_in_the_page_cache() {
    with_mounts("memory::a_guest_that_sleeps_on_an_overlay_is_on_the_disk_and_not_in_the_page_cache", || {
        let (files, overlay) = (directory(), directory());
        mount_overlay(files.path(), overlay.path());
        let mut guest = Kind::new().guest(&open(&overlay).memories());
        guest.ask(Event::Grow { pages: 60 });
        for page in (0..60 * 16).step_by(2) {
            guest.write(page * WORDS_OF_A_PAGE, 1);
        }
        guest.memories.hibernate().unwrap();
        // What the disk has not confirmed cannot be dropped.
        assert_eq!(cached_pages(overlay.path()), BTreeSet::new());
        assert!(guest.is_sound());
    });
}

/// Pages of the directory's one open file that the page cache holds.
#[allow(unsafe_code)]
fn cached_pages(directory: &Path) -> BTreeSet<usize> {
    let file = File::open(descriptors(directory).first().unwrap()).unwrap();
    let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut cached = vec![0; bytes / 4096];
    // SAFETY: a new mapping that is not read from and is unmapped at once; the kernel writes a byte for each of its pages.
    unsafe {
        let mapping = mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, 0).unwrap();
        assert_eq!(libc::mincore(mapping, bytes, cached.as_mut_ptr()), 0);
        munmap(mapping, bytes).unwrap();
    }
    (0..).zip(cached).filter(|(_, page)| page & 1 == 1).map(|(page, _)| page).collect()
}
