//! Random interleavings of events, hibernation, growth, sharing, and failures. Each guest keeps account of its heap and of its
//! events, and so does the host.
//!
//! A failure names its seed: `HIBERNATION_STRESS_SEED=<seed>` runs the same again. A million takes some minutes:
//! `cargo test --release -p wasm-operator-hibernation --test hibernation -- --ignored a_million`

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use rand_core::{Rng, SeedableRng};
use rand_xorshift::XorShiftRng;
use wasm_operator_hibernation::{HibernateError, Hibernation};

use crate::alone::directory;
use crate::guest::{Event, FUNCTIONS, Guest, Kind, function, image};

const GUESTS: usize = 8;
/// Pages of 64 KiB that a guest begins with.
const IMAGE: u64 = 3;
/// Pages of 64 KiB that a guest of the test grows to.
const PAGES: u64 = 12;
const WORDS_OF_64_KIB: u64 = 8192;
/// Too little for all guests, so that some hibernations are refused.
const BUDGET: u64 = 3 << 20;

struct Tried {
    guest: Guest,
    /// What the heap holds.
    mirror: Vec<u64>,
    /// Of its table.
    elements: u64,
}

fn interleavings(seed: u64, steps: u64) {
    let mut random = XorShiftRng::seed_from_u64(seed);
    let mut below = move |bound: u64| random.next_u64() % bound;
    let directory = directory();
    let hibernation = Hibernation::open(directory.path(), BUDGET).unwrap();
    let kind = Kind::with_image(IMAGE);
    let tried = |share: bool| {
        let guest = kind.guest(&hibernation.memories());
        if share {
            match guest.memories.share("digest") {
                Ok(_) | Err(HibernateError::Budget { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Tried { guest, mirror: (0..IMAGE * WORDS_OF_64_KIB).map(image).collect(), elements: FUNCTIONS }
    };
    let mut guests: Vec<_> = (0..GUESTS).map(|number| tried(number % 2 == 0)).collect();
    let (mut slept, mut contexts, mut refused) = (0_u64, 0_u64, 0_u64);
    for step in 0..steps {
        let number = usize::try_from(below(u64::try_from(GUESTS).unwrap())).unwrap();
        let Tried { guest, mirror, elements } = &mut guests[number];
        let words = u64::try_from(mirror.len()).unwrap();
        let word = below(words);
        let index = usize::try_from(word).unwrap();
        match below(1000) {
            0..300 => match guest.memories.hibernate() {
                Ok(_) => {
                    slept += 1;
                    let resident = guest.memories.resident().unwrap();
                    assert_eq!(resident.total(), 0, "step {step}: guest {number} sleeps and holds {resident:?}");
                }
                Err(HibernateError::Budget { .. }) => refused += 1,
                Err(error) => panic!("step {step}: {error}"),
            },
            300..550 => {
                let value = below(3).wrapping_mul(step | 1);
                guest.ask(Event::Write { word, value });
                mirror[index] = value;
            }
            550..700 => {
                assert_eq!(guest.ask(Event::Read { word }), mirror[index], "step {step}: word {word} of guest {number}")
            }
            // Comes while it sleeps, and waits until it is polled.
            700..930 => guest.send(Event::Happened { number: step }),
            930..960 => assert!(guest.poll(Waker::noop())),
            960..970 => _ = guest.memories.prefetch().unwrap(),
            970..978 => match guest.memories.hibernate_contexts() {
                Ok(_) => contexts += 1,
                Err(HibernateError::Budget { .. }) => refused += 1,
                Err(error) => panic!("step {step}: {error}"),
            },
            978..984 => {
                let element = below(*elements);
                assert_eq!(guest.ask(Event::Call { element }), function(element), "step {step}");
            }
            984 if *elements < FUNCTIONS * 4 => {
                assert_eq!(guest.ask(Event::GrowTable { elements: FUNCTIONS }), *elements, "step {step}");
                *elements += FUNCTIONS;
            }
            985..990 if words < PAGES * WORDS_OF_64_KIB => {
                let pages = 1 + below(2);
                assert_eq!(guest.ask(Event::Grow { pages }), 1 + words / WORDS_OF_64_KIB, "step {step}");
                mirror.resize(usize::try_from(words + pages * WORDS_OF_64_KIB).unwrap(), 0);
            }
            990..993 => {
                guest.ask(Event::Fill { value: step });
                for (page, word) in (0..).zip(mirror.iter_mut().step_by(512)) {
                    *word = step + page;
                }
            }
            993..997 => assert!(guest.is_sound(), "step {step}: guest {number}"),
            997 => {
                whole(&mut guests[number], step);
                guests[number] = tried(below(2) == 0);
            }
            _ => assert!(guest.is_sound(), "step {step}: guest {number}"),
        }
    }
    for tried in &mut guests {
        whole(tried, steps);
    }
    let counts = format!("{slept} hibernations and {contexts} of contexts in {steps} steps, {refused} refused");
    assert!(slept > steps / 20 && contexts > steps / 1_000 && refused > 0, "{counts}");
    drop(guests);
    assert_eq!(hibernation.disk_bytes(), 0);
}

/// Compares every word.
fn whole(Tried { guest, mirror, .. }: &mut Tried, step: u64) {
    guest.poll(Waker::noop());
    let _ = guest.answers();
    for word in 0..u64::try_from(mirror.len()).unwrap() {
        guest.send(Event::Read { word });
    }
    assert!(guest.poll(Waker::noop()));
    assert!(guest.answers() == *mirror, "step {step}: a heap is not what was written to it");
    assert!(guest.is_sound(), "step {step}");
    guest.send(Event::End);
    assert!(!guest.poll(Waker::noop()), "it ended");
}

fn run(seeds: std::ops::Range<u64>, steps: u64) {
    let chosen = std::env::var("HIBERNATION_STRESS_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in chosen.map_or(seeds, |seed: u64| seed..seed + 1) {
        let outcome = catch_unwind(AssertUnwindSafe(|| interleavings(seed, steps)));
        assert!(outcome.is_ok(), "HIBERNATION_STRESS_SEED={seed} with {steps} steps");
    }
}

#[test]
fn no_interleaving_loses_an_event_or_a_byte() {
    run(0..4, 10_000);
}

#[test]
#[ignore = "takes minutes"]
fn a_million_interleavings_lose_no_event_and_no_byte() {
    run(1_000..1_040, 25_000);
}
