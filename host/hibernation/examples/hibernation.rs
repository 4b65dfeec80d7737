//! What sleep and wake cost by the size of a guest's heap.
//!
//! `cargo run --release -p wasm-operator-hibernation --example hibernation -- DIRECTORY [WAKES]`
//!
//! A wake is an event after which the guest touches 2 % of its heap, always the same part, in pieces of 32 KiB. The first
//! instruction is over when the guest has read one word of it. *Cold* is with nothing of the guest in the page cache, which is how a
//! hibernation leaves it; *warm* with all of it there. *Wake* is cold, and begins with reading what the wake before touched;
//! *ahead* is the same, 50 ms before the event.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program whose output is its purpose"
)]

#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests")]
#[path = "../tests/hibernation/guest.rs"]
mod guest;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use guest::{Event, Guest, Kind};
use rand_core::{Rng, SeedableRng};
use rand_xorshift::XorShiftRng;
use tokio::time::Instant;
use wasm_operator_hibernation::Hibernation;

const WAKES: usize = 40;
const PAGE: u64 = 4 << 10;
/// Pages of one piece of the heap that a wake touches.
const PIECE: u64 = 8;
/// A prediction comes so long before the event.
const AHEAD: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Cold,
    Warm,
    Wake,
    Ahead,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("usage: hibernation DIRECTORY [WAKES]")?;
    let wakes = arguments.next().map_or(Ok(WAKES), |wakes| wakes.parse())?;
    let hibernation = Hibernation::open(Path::new(&directory), 1 << 30)?;
    let wat = include_str!("../tests/hibernation/guest.wat").replace("2 64)", "2 4000)");
    let kind = Kind::of(&wat, 256 << 20);
    println!(
        "heap    to sleep      written   later         written   asleep    cache  first instruction       2 % of the heap         faults"
    );
    println!(
        "MB      ms            MB        ms            KiB       KiB              ms p50      ms p95      ms p50      ms p95      from disk"
    );
    for megabytes in [1, 10, 90] {
        for cache in [Cache::Cold, Cache::Warm, Cache::Wake, Cache::Ahead] {
            row(&hibernation, &kind, megabytes, cache, wakes, Path::new(&directory))?;
        }
    }
    Ok(())
}

fn row(
    hibernation: &Hibernation,
    kind: &Kind,
    megabytes: u64,
    cache: Cache,
    wakes: usize,
    directory: &Path,
) -> anyhow::Result<()> {
    let mut guest = kind.guest(&hibernation.memories());
    guest.ask(Event::Grow { pages: megabytes * 16 });
    guest.ask(Event::Fill { value: 1 });
    let first = guest.memories.hibernate()?;
    let asleep = guest.memories.resident()?.total();
    let pages = working_set(megabytes << 20);
    let (mut instructions, mut works, mut laters, mut written) = (vec![], vec![], vec![], vec![]);
    let mut faults = 0;
    for wake in 0..=wakes {
        match cache {
            Cache::Cold | Cache::Wake => {}
            Cache::Warm => warm(directory)?,
            Cache::Ahead => {
                guest.memories.prefetch()?;
                thread::sleep(AHEAD);
            }
        }
        let faults_before = major_faults()?;
        let start = Instant::now();
        if cache == Cache::Wake {
            guest.memories.prefetch()?;
        }
        let word = pages.first().copied().unwrap_or(0) * PAGE / 8;
        guest.ask(Event::Read { word });
        let instruction = start.elapsed();
        work(&mut guest, &pages);
        let work = start.elapsed();
        faults += major_faults()? - faults_before;
        let later = guest.memories.hibernate()?;
        // From the first wake is learnt what the next ones touch.
        if wake > 0 {
            instructions.push(milliseconds(instruction));
            works.push(milliseconds(work));
            laters.push(later.microseconds as f64 / 1e3);
            written.push(later.bytes as f64 / 1024.0);
        } else {
            faults = 0;
        }
    }
    assert_eq!(guest.ask(Event::Check), 1, "the heap is not what it was");
    let cache = match cache {
        Cache::Cold => "cold",
        Cache::Warm => "warm",
        Cache::Wake => "wake",
        Cache::Ahead => "ahead",
    };
    println!(
        "{megabytes:<7} {:<13.2} {:<9.2} {:<13.2} {:<9.0} {:<9} {cache:<6} {:<11.3} {:<11.3} {:<11.3} {:<11.3} {:.1}",
        first.microseconds as f64 / 1e3,
        first.bytes as f64 / 1e6,
        quantile(&mut laters, 50),
        quantile(&mut written, 50),
        asleep >> 10,
        quantile(&mut instructions, 50),
        quantile(&mut instructions, 95),
        quantile(&mut works, 50),
        quantile(&mut works, 95),
        faults as f64 / wakes as f64,
    );
    Ok(())
}

/// The first pages of the pieces that a wake touches.
fn working_set(heap: u64) -> Vec<u64> {
    let pieces = (heap / 50 / (PIECE * PAGE)).max(1);
    let mut random = XorShiftRng::seed_from_u64(heap);
    (0..pieces).map(|_| random.next_u64() % (heap / PAGE - PIECE)).collect()
}

fn work(guest: &mut Guest, pieces: &[u64]) {
    for piece in pieces {
        for page in *piece..piece + PIECE {
            let word = page * PAGE / 8;
            // Every eighth page is written.
            let event = if page == *piece { Event::Write { word, value: page } } else { Event::Read { word } };
            guest.send(event);
        }
    }
    guest.ask(Event::Happened { number: 0 });
}

/// Reads the files of all guests, and so into the page cache.
fn warm(directory: &Path) -> anyhow::Result<()> {
    let directory = directory.canonicalize()?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|file| file.starts_with(&directory)) {
            io::copy(&mut File::open(path)?, &mut io::sink())?;
        }
    }
    Ok(())
}

/// Page faults of this process that had to wait for the disk.
fn major_faults() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("no fields in /proc/self/stat")?;
    Ok(fields.split_whitespace().nth(9).context("no faults in /proc/self/stat")?.parse()?)
}

fn quantile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
