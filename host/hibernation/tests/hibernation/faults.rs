//! What goes wrong while a guest is written: it stays awake and whole, nobody else notices, and it works again later.

use std::fs::File;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wasm_operator_hibernation::{HibernateError, Hibernation, Memories};

use crate::alone::{directory, in_a_process, mount_overlay, system, with_mounts};
use crate::guest::{Event, Guest, Kind, open};

/// Where the heap of 31 pages of 64 KiB has one that is to be written in a later round.
const GROWN: u64 = 30;

fn guest(kind: &Kind, memories: &Memories) -> Guest {
    let mut guest = kind.guest(memories);
    guest.ask(Event::Grow { pages: GROWN });
    guest.ask(Event::Fill { value: 5 });
    guest
}

/// The guest cannot be hibernated now, neither for the first time nor later, and is as it was.
fn fails_whole(guest: &mut Guest, is_expected: impl Fn(&HibernateError) -> bool) {
    for round in 0..3 {
        guest.ask(Event::Fill { value: round });
        let error = guest.memories.hibernate().unwrap_err();
        assert!(is_expected(&error), "{error:?}");
        assert!(!error.is_fatal());
        assert!(guest.is_sound(), "after {error}");
    }
}

fn sleeps(guest: &mut Guest) {
    guest.memories.hibernate().unwrap();
    assert_eq!(guest.memories.resident().unwrap().total(), 0);
    assert!(guest.is_sound());
}

#[test]
fn over_budget_a_guest_stays_awake_until_another_is_gone() {
    let directory = directory();
    let hibernation = Hibernation::open(directory.path(), 3 << 20).unwrap();
    let kind = Kind::new();
    let (mut one, mut other) = (guest(&kind, &hibernation.memories()), guest(&kind, &hibernation.memories()));
    sleeps(&mut one);
    let used = hibernation.disk_bytes();
    fails_whole(&mut other, |error| matches!(error, HibernateError::Budget { budget: 3_145_728, .. }));
    assert_eq!(hibernation.disk_bytes(), used, "what was refused is not counted");
    sleeps(&mut one);
    drop(one);
    sleeps(&mut other);
}

#[test]
fn a_guest_that_grew_over_the_budget_stays_awake() {
    let directory = directory();
    let hibernation = Hibernation::open(directory.path(), 3 << 20).unwrap();
    let mut guest = guest(&Kind::new(), &hibernation.memories());
    sleeps(&mut guest);
    guest.ask(Event::Grow { pages: 30 });
    fails_whole(&mut guest, |error| matches!(error, HibernateError::Budget { .. }));
}

#[test]
fn on_a_full_disk_guests_stay_awake_until_there_is_room() {
    with_mounts("faults::on_a_full_disk_guests_stay_awake_until_there_is_room", || {
        let (directory, disk) = (directory(), directory());
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        system("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        system("mount", &["-o", "loop", image.to_str().unwrap(), disk.path().to_str().unwrap()]);
        system("chmod", &["700", disk.path().to_str().unwrap()]);
        let hibernation = open(&disk);
        let kind = Kind::new();
        let mut asleep = guest(&kind, &hibernation.memories());
        sleeps(&mut asleep);
        let mut later = guest(&kind, &hibernation.memories());

        let filler = disk.path().join("filler");
        std::fs::write(&filler, vec![1; 11 << 20]).unwrap();
        let is_full = |error: &HibernateError| matches!(error, HibernateError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
        fails_whole(&mut later, is_full);
        // A guest that has its file can be written again where it was, but cannot grow.
        sleeps(&mut asleep);
        asleep.ask(Event::Grow { pages: 30 });
        fails_whole(&mut asleep, is_full);

        std::fs::remove_file(filler).unwrap();
        sleeps(&mut later);
        sleeps(&mut asleep);
    });
}

/// The disk under the file system ends before the file system does.
#[test]
fn a_disk_that_fails_leaves_guests_awake() {
    with_mounts("faults::a_disk_that_fails_leaves_guests_awake", || {
        let disk = directory();
        a_disk_fails(disk.path(), || open(&disk));
    });
}

#[test]
fn a_disk_that_fails_below_an_overlay_leaves_guests_awake() {
    with_mounts("faults::a_disk_that_fails_below_an_overlay_leaves_guests_awake", || {
        let (disk, overlay) = (directory(), directory());
        a_disk_fails(disk.path(), || {
            mount_overlay(disk.path(), overlay.path());
            open(&overlay)
        });
    });
}

/// `open` is for guests on a file system that is mounted on `disk`.
fn a_disk_fails(disk: &Path, open: impl FnOnce() -> Hibernation) {
    let memory = directory();
    system("mount", &["-t", "tmpfs", "-o", "size=10m", "none", memory.path().to_str().unwrap()]);
    let image = memory.path().join("image");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    system("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal", image.to_str().unwrap()]);
    system("mount", &["-o", "loop", image.to_str().unwrap(), disk.to_str().unwrap()]);
    system("chmod", &["700", disk.to_str().unwrap()]);
    let hibernation = open();
    let kind = Kind::new();
    let mut asleep = guest(&kind, &hibernation.memories());
    sleeps(&mut asleep);
    // From here on every new block is an error of the disk.
    let filler = std::fs::write(memory.path().join("filler"), vec![1; 10 << 20]);
    assert!(filler.is_err(), "the disk is not full: {filler:?}");

    // The loop device passes on what its own file answers, which is one of these.
    let disk_errors = [rustix::io::Errno::IO, rustix::io::Errno::NOSPC].map(|error| Some(error.raw_os_error()));
    let failed = |error: &HibernateError, on: &str| matches!(error, HibernateError::Io { operation, source } if *operation == on && disk_errors.contains(&source.raw_os_error()));
    let mut large = guest(&kind, &hibernation.memories());
    fails_whole(&mut large, |error| failed(error, "write"));
    // Small runs go to the page cache, which takes them: the disk's error comes later, and still in time.
    let mut small = kind.guest(&hibernation.memories());
    for page in (0..16).step_by(2) {
        small.write(page * 512, 1);
    }
    let error = small.memories.hibernate().unwrap_err();
    assert!(failed(&error, "sync"), "{error}");
    assert!(small.is_sound() && asleep.is_sound());
}

#[test]
fn a_file_that_cannot_grow_or_is_written_half_way_leaves_the_guest_awake() {
    in_a_process("faults::a_file_that_cannot_grow_or_is_written_half_way_leaves_the_guest_awake", || {
        ignore_the_signal_of_large_files();
        let directory = directory();
        let mut guest = guest(&Kind::new(), &open(&directory).memories());
        let limit = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
        let mut fails_to = |change: Option<Event>, operation| {
            if let Some(change) = change {
                guest.ask(change);
            }
            limit(Some(1 << 20));
            fails_whole(&mut guest, |error| {
                matches!(error, HibernateError::Io { operation: failed, source }
                    if *failed == operation && source.kind() == std::io::ErrorKind::FileTooLarge)
            });
            limit(None);
            sleeps(&mut guest);
        };
        fails_to(None, "extend");
        fails_to(Some(Event::Grow { pages: GROWN }), "extend");
        // The file is long enough now: only its first MiB can be written.
        fails_to(Some(Event::Fill { value: 6 }), "write");
    });
}

#[test]
fn a_write_that_ends_half_way_stays_within_the_budget_later() {
    in_a_process("faults::a_write_that_ends_half_way_stays_within_the_budget_later", || {
        ignore_the_signal_of_large_files();
        const BUDGET: u64 = 7 << 19;
        let directory = directory();
        let hibernation = Hibernation::open(directory.path(), BUDGET).unwrap();
        let kind = Kind::new();
        let mut one = kind.guest(&hibernation.memories());
        one.ask(Event::Grow { pages: GROWN });
        sleeps(&mut one);
        one.ask(Event::Fill { value: 5 });
        setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 20), maximum: None }).unwrap();
        assert!(matches!(one.memories.hibernate(), Err(HibernateError::Io { operation: "write", .. })));
        setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();

        // There is room for one of them only, half of which is on disk already.
        let mut other = guest(&kind, &hibernation.memories());
        fails_whole(&mut other, |error| matches!(error, HibernateError::Budget { .. }));
        sleeps(&mut one);
        assert!(hibernation.disk_bytes() <= BUDGET);
        drop(one);
        sleeps(&mut other);
    });
}

/// Which would end the process before it sees the error.
fn ignore_the_signal_of_large_files() {
    // Inherited by a process that is started with it ignored, which is how a shell does it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    if ignored >> (25 - 1) & 1 == 1 {
        return;
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(arguments),
    );
    panic!("cannot start anew: {error}");
}

#[test]
fn without_descriptors_a_guest_stays_awake() {
    in_a_process("faults::without_descriptors_a_guest_stays_awake", || {
        let directory = directory();
        let hibernation = open(&directory);
        let kind = Kind::new();
        let (mut one, mut other) = (guest(&kind, &hibernation.memories()), guest(&kind, &hibernation.memories()));
        sleeps(&mut one);
        let before = getrlimit(Resource::Nofile);
        let mut held = vec![];
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        fails_whole(&mut other, |error| {
            let too_many = rustix::io::Errno::MFILE.raw_os_error();
            matches!(error, HibernateError::Io { source, .. } if source.raw_os_error() == Some(too_many))
        });
        // Which has its file.
        sleeps(&mut one);
        drop(held);
        sleeps(&mut other);
    });
}

#[test]
fn without_its_directory_a_guest_stays_awake_and_others_sleep_on() {
    let directory = directory();
    let hibernation = open(&directory);
    let kind = Kind::new();
    let (mut one, mut other) = (guest(&kind, &hibernation.memories()), guest(&kind, &hibernation.memories()));
    sleeps(&mut one);
    std::fs::remove_dir(directory.path()).unwrap();
    fails_whole(
        &mut other,
        |error| matches!(error, HibernateError::Io { operation: "make", source } if source.kind() == std::io::ErrorKind::NotFound),
    );
    one.ask(Event::Fill { value: 3 });
    sleeps(&mut one);
    remake(directory.path());
    sleeps(&mut other);
}

fn remake(path: &Path) {
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path).unwrap();
}

#[test]
fn a_guest_that_is_never_hibernated_runs_as_any_other() {
    let mut guest = guest(&Kind::new(), &Memories::never_hibernated());
    fails_whole(&mut guest, |error| matches!(error, HibernateError::Off));
    assert!(matches!(guest.memories.share("digest"), Err(HibernateError::Off)));
}
