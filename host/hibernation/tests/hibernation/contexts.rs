//! What wasmtime keeps of an instance besides its memory goes to disk as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use wasm_operator_hibernation::{HibernateError, Hibernation, Memories};
use wasmtime::{Linker, Module, Store};

use crate::alone::{directory, in_a_process};
use crate::guest::{Event, FUNCTIONS, Guest, Kind, engine, function, open, ready, running};

/// Of the record of a function in a context.
const RECORD_BYTES: u64 = 32;
/// Guests whose contexts have a place at once.
const PLACES: usize = 4096;

fn calls_all(guest: &mut Guest) {
    for element in 0..FUNCTIONS {
        assert_eq!(guest.ask(Event::Call { element }), function(element));
    }
}

#[test]
fn contexts_are_written_once_and_read_back() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    calls_all(&mut guest);
    guest.memories.hibernate().unwrap();
    let first = guest.memories.hibernate_contexts().unwrap();
    assert!(first.bytes > FUNCTIONS * RECORD_BYTES, "{first:?}");
    assert_eq!(guest.memories.hibernate_contexts().unwrap().pages, 0, "nothing of them is in memory");

    calls_all(&mut guest);
    let later = guest.memories.hibernate_contexts().unwrap();
    assert!(later.pages < first.pages / 2, "records do not change: {later:?} after {first:?}");
    calls_all(&mut guest);
    assert!(guest.is_sound());
}

#[test]
fn a_table_that_grows_after_its_hibernation_keeps_what_it_had() {
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    calls_all(&mut guest);
    for round in 0..4 {
        guest.memories.hibernate_contexts().unwrap();
        let size = FUNCTIONS + round * 3_000;
        assert_eq!(guest.ask(Event::GrowTable { elements: 3_000 }), size);
        assert_eq!(guest.ask(Event::Call { element: size + 2_999 }), function(size));
        calls_all(&mut guest);
    }
    assert!(guest.is_sound());
}

#[test]
fn over_budget_contexts_stay_in_memory_and_the_guest_goes_on() {
    let directory = directory();
    let hibernation = Hibernation::open(directory.path(), 16 << 10).unwrap();
    let mut guest = Kind::new().guest(&hibernation.memories());
    calls_all(&mut guest);
    for _ in 0..3 {
        assert!(matches!(guest.memories.hibernate_contexts(), Err(HibernateError::Budget { .. })));
        calls_all(&mut guest);
    }
    assert!(guest.is_sound());
}

#[test]
fn contexts_of_a_guest_that_is_never_hibernated_stay_where_they_are() {
    let mut guest = Kind::new().guest(&Memories::never_hibernated());
    assert!(matches!(guest.memories.hibernate_contexts(), Err(HibernateError::Off)));
    calls_all(&mut guest);
}

/// Somebody else may write to it while the guest is hibernated.
#[test]
fn what_the_host_allocates_for_a_guest_that_runs_is_not_placed() {
    const WORDS: usize = 1 << 17;
    // So many that its context is worth a place.
    let globals = "(global (mut i64) (i64.const 1))".repeat(100);
    let wat = format!(r#"(module (import "host" "allocate" (func $allocate)) (memory 1) {globals} (start $allocate))"#);
    let directory = directory();
    let (engine, memories) = (engine(1 << 20), open(&directory).memories());
    let module = Module::new(&engine, wat::parse_str(wat).unwrap()).unwrap();
    let mut linker = Linker::<Vec<u64>>::new(&engine);
    linker
        .func_wrap("host", "allocate", |mut caller: wasmtime::Caller<'_, Vec<u64>>| {
            *caller.data_mut() = vec![0; WORDS];
            caller.data_mut().fill(1);
        })
        .unwrap();
    let mut store = memories.in_turn(Store::new(&engine, vec![]));
    store.call_hook(running);
    let instantiation = memories.instantiate(linker.instantiate_async(&mut *store, &module));
    ready(memories.exclusive(instantiation)).unwrap();
    assert_eq!(store.data().len(), WORDS);
    let report = memories.hibernate_contexts().unwrap();
    assert!(report.pages > 0 && report.bytes < 1 << 16, "{report:?}");
}

#[test]
fn guests_that_are_gone_make_room_for_others() {
    let directory = directory();
    let (hibernation, kind) = (open(&directory), Kind::new());
    for _ in 0..PLACES + 100 {
        drop(kind.guest(&hibernation.memories()));
    }
    let mut guest = kind.guest(&hibernation.memories());
    calls_all(&mut guest);
    assert!(guest.memories.hibernate_contexts().unwrap().bytes > FUNCTIONS * RECORD_BYTES);
    calls_all(&mut guest);
}

#[test]
fn the_contexts_of_too_many_guests_stay_in_memory() {
    in_a_process("contexts::the_contexts_of_too_many_guests_stay_in_memory", || {
        let directory = directory();
        let (hibernation, kind) = (open(&directory), Kind::new());
        let mut guests: Vec<_> = (0..PLACES + 1).map(|_| kind.guest(&hibernation.memories())).collect();
        for (number, placed) in [(0, true), (PLACES - 1, true), (PLACES, false)] {
            let guest = &mut guests[number];
            calls_all(guest);
            assert_eq!(guest.memories.hibernate_contexts().unwrap().pages > 0, placed, "guest {number}");
            calls_all(guest);
        }
        drop(guests);
        assert_eq!(hibernation.disk_bytes(), 0);
    });
}

/// wasmtime changes contexts while it drops them. If a hibernation undid that, they would be freed twice.
#[test]
fn a_guest_that_is_dropped_while_it_is_hibernated_all_the_time_is_freed_once() {
    const GUESTS: u64 = 300;
    let directory = directory();
    let (hibernation, kind) = (open(&directory), Kind::new());
    for number in 0..GUESTS {
        let mut guest = kind.guest(&hibernation.memories());
        let (memories, is_over) = (guest.memories.clone(), Arc::new(AtomicBool::new(false)));
        let (over, begun) = (is_over.clone(), Arc::new(AtomicBool::new(false)));
        let begins = begun.clone();
        let hibernates = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match memories.hibernate_contexts() {
                    Ok(_) | Err(HibernateError::Busy | HibernateError::Wanted) => {}
                    Err(error) => panic!("{error}"),
                }
                begins.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        if number % 2 == 0 {
            // From here on it is dropped with the stack that it waits on.
            guest.poll(std::task::Waker::noop());
        }
        drop(guest);
        is_over.store(true, Ordering::Relaxed);
        hibernates.join().unwrap();
    }
    assert_eq!(hibernation.disk_bytes(), 0);
}
