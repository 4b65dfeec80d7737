//! A guest runs or is written, never both.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;

use wasm_operator_hibernation::HibernateError;

use crate::alone::directory;
use crate::guest::{Event, Kind, engine, open, ready};

#[test]
fn a_guest_that_runs_is_not_hibernated() {
    let directory = directory();
    let memories = open(&directory).memories();
    let inside = || {
        assert!(matches!(memories.hibernate(), Err(HibernateError::Busy)));
        assert!(matches!(memories.share("digest"), Err(HibernateError::Busy)));
    };
    ready(memories.exclusive(async { inside() }));
    memories.hibernate().unwrap();
}

#[test]
fn a_future_inside_of_another_of_the_same_guest_has_its_turn() {
    let directory = directory();
    let memories = open(&directory).memories();
    assert_eq!(ready(memories.exclusive(async { memories.exclusive(async { 1 }).await })), 1);
    memories.hibernate().unwrap();
}

#[test]
fn a_guest_that_panics_gives_its_turn_back() {
    let directory = directory();
    let memories = open(&directory).memories();
    let panics = memories.exclusive(poll_fn(|_| -> Poll<()> { panic!("for the test") }));
    let poll = std::panic::AssertUnwindSafe(|| ready(panics));
    assert!(std::panic::catch_unwind(poll).is_err());
    memories.hibernate().unwrap();
}

#[test]
fn a_memory_that_belongs_to_no_guest_is_refused() {
    let engine = engine(1 << 20);
    let module = wasmtime::Module::new(&engine, wat::parse_str("(module (memory 1))").unwrap()).unwrap();
    let mut store = wasmtime::Store::new(&engine, ());
    let error = ready(wasmtime::Linker::new(&engine).instantiate_async(&mut store, &module)).unwrap_err();
    assert!(format!("{error:#}").contains("outside of `Memories::exclusive`"), "{error:#}");
}

#[test]
fn a_memory_that_is_larger_than_its_reservation_is_refused() {
    let directory = directory();
    let engine = engine(1 << 20);
    let module = wasmtime::Module::new(&engine, wat::parse_str("(module (memory 17))").unwrap()).unwrap();
    let mut store = wasmtime::Store::new(&engine, ());
    let linker = wasmtime::Linker::new(&engine);
    let memories = open(&directory).memories();
    let error = ready(memories.exclusive(linker.instantiate_async(&mut store, &module))).unwrap_err();
    assert!(format!("{error:#}").contains("1048576"), "{error:#}");
}

/// One thread hibernates as often as it can, another one runs the guest. Whenever the guest has to wait it must be woken, or
/// this test never ends.
#[test]
fn a_guest_that_is_hibernated_all_the_time_loses_neither_a_byte_nor_an_event() {
    const EVENTS: u64 = 4_000;
    let directory = directory();
    let mut guest = Kind::new().guest(&open(&directory).memories());
    guest.ask(Event::Grow { pages: 4 });
    let memories = guest.memories.clone();
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, rounds) = (Arc::clone(&is_over), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&rounds);
    let hibernates = thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match memories.hibernate() {
                Ok(_) => _ = count.fetch_add(1, Ordering::Relaxed),
                Err(HibernateError::Busy | HibernateError::Wanted) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..EVENTS {
        if number % 20 == 0 {
            // A guest that is always needed is never written to the end.
            let before = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
        }
        let word = number * 977 % (5 * 8192);
        guest.send(Event::Write { word, value: number });
        let mut answers = vec![];
        // Polls again only when it is woken.
        runtime.block_on(pin!(poll_fn(|context| {
            assert!(guest.poll(context.waker()));
            answers.append(&mut guest.answers());
            if answers.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })));
    }
    is_over.store(true, Ordering::Relaxed);
    hibernates.join().unwrap();
    assert!(guest.is_sound());
}
