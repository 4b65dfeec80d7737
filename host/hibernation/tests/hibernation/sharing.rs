//! Guests of one component have one image.

use std::task::Waker;

use crate::alone::directory;
use crate::guest::{Event, Kind, image, open, open_files};

const IMAGE: u64 = 30 << 16;

#[test]
fn guests_of_one_component_hold_its_image_once() {
    let directory = directory();
    let hibernation = open(&directory);
    let kind = Kind::with_image(30);
    let mut guests: Vec<_> = (0..5).map(|_| kind.guest(&hibernation.memories())).collect();
    for guest in &guests {
        assert!(guest.memories.resident().unwrap().private >= IMAGE);
        assert!(guest.memories.share("one").unwrap() >= IMAGE);
        assert!(guest.memories.resident().unwrap().private <= 4 * 4096, "what is not worth an area of its own");
    }
    assert!(hibernation.disk_bytes() < 2 * IMAGE, "one file for all");
    for guest in &mut guests {
        assert_eq!(guest.ask(Event::Read { word: 100 }), image(100));
    }
}

#[test]
fn what_one_guest_writes_into_the_image_no_other_sees() {
    let directory = directory();
    let hibernation = open(&directory);
    let kind = Kind::with_image(30);
    let mut guests: Vec<_> = (0..3).map(|_| kind.guest(&hibernation.memories())).collect();
    for guest in &guests {
        guest.memories.share("one").unwrap();
    }
    for round in 0..4_u64 {
        for (number, guest) in (0..).zip(&mut guests) {
            for word in words(round, number) {
                guest.ask(Event::Write { word, value: 1_000 * number + round });
            }
            guest.memories.hibernate().unwrap();
            assert_eq!(guest.memories.resident().unwrap().total(), 0);
        }
    }
    for (number, guest) in (0..).zip(&mut guests) {
        for word in 0..IMAGE / 8 {
            guest.send(Event::Read { word });
        }
        assert!(guest.poll(Waker::noop()));
        for (word, found) in (0..).zip(guest.answers()) {
            let written = (0..4).rev().find(|round| words(*round, number).contains(&word));
            let expected = written.map_or(image(word), |round| 1_000 * number + round);
            assert_eq!(found, expected, "word {word} of guest {number}");
        }
    }
}

/// What a guest writes to in a round: pieces of the image stay shared, become too short to be shared, or are written again.
fn words(round: u64, guest: u64) -> [u64; 3] {
    [512 * (7 + 3 * round), 512 * (100 + 40 * round * guest), 512 * 300]
}

#[test]
fn components_do_not_share_with_each_other_and_the_last_guest_takes_the_image_with_it() {
    let directory = directory();
    let hibernation = open(&directory);
    let (one, other) = (Kind::with_image(30), Kind::new());
    let (mut a, mut b) = (one.guest(&hibernation.memories()), other.guest(&hibernation.memories()));
    a.memories.share("one").unwrap();
    b.memories.share("other").unwrap();
    assert!(b.is_sound() && a.ask(Event::Read { word: 1 }) == image(1));
    assert_eq!(open_files(directory.path()), 2);
    drop((a, b));
    assert_eq!((open_files(directory.path()), hibernation.disk_bytes()), (0, 0));
}

#[test]
fn a_digest_that_lies_costs_sharing_and_no_byte() {
    let directory = directory();
    let hibernation = open(&directory);
    let (mut one, mut other) =
        (Kind::with_image(30).guest(&hibernation.memories()), Kind::new().guest(&hibernation.memories()));
    one.memories.share("same").unwrap();
    other.memories.share("same").unwrap();
    assert!(other.is_sound());
    assert_eq!(one.ask(Event::Read { word: 512 }), image(512));
}

#[test]
fn sharing_later_or_twice_changes_nothing() {
    let directory = directory();
    let hibernation = open(&directory);
    let mut guest = Kind::with_image(30).guest(&hibernation.memories());
    let shared = guest.memories.share("one").unwrap();
    guest.ask(Event::Write { word: 0, value: 1 });
    assert_eq!(guest.memories.share("one").unwrap(), shared);
    guest.memories.hibernate().unwrap();
    guest.memories.share("one").unwrap();
    assert_eq!(guest.ask(Event::Read { word: 0 }), 1);
}
