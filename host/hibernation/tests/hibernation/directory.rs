//! Where guests may be written to.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use wasm_operator_hibernation::{Hibernation, OpenError};

use crate::alone::{directory, in_a_process, mount_overlay, system, with_mounts};
use crate::guest::{Event, Kind, descriptors, open};

fn refusal(path: &Path) -> OpenError {
    Hibernation::open(path, 1 << 30).err().expect("it was not refused")
}

#[test]
fn a_missing_directory_is_made_for_us_alone() {
    let parent = directory();
    let path = parent.path().join("a/b");
    Hibernation::open(&path, 1 << 30).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    Hibernation::open(&path, 1 << 30).unwrap();
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let directory = directory();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o750)).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::NotOurs { mode: 0o750, .. }));
    assert!(error.to_string().contains("with mode 750"), "{error}");
}

#[test]
fn somebody_elses_directory_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let directory = directory();
    std::os::unix::fs::chown(directory.path(), Some(12_345), None).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::NotOurs { owner: 12_345, .. }));
}

#[test]
fn a_file_is_no_directory() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(refusal(&file), OpenError::Directory { .. }));
}

#[test]
fn what_a_killed_host_left_is_removed_and_nothing_else() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    fs::write(path(".tmpA1b2C3"), "a guest's secret").unwrap();
    fs::write(path("mine"), "").unwrap();
    open(&directory);
    assert!(!path(".tmpA1b2C3").exists() && path("mine").exists());
}

#[test]
fn file_systems_in_memory_are_refused() {
    with_mounts("directory::file_systems_in_memory_are_refused", || {
        let directory = directory();
        let path = directory.path().to_str().unwrap();
        for (filesystem, expected) in [("tmpfs", "tmpfs"), ("ramfs", "ramfs")] {
            system("mount", &["-t", filesystem, "-o", "mode=700", "none", path]);
            let error = refusal(directory.path());
            assert!(matches!(error, OpenError::InMemory { filesystem, .. } if filesystem == expected), "{error}");
            assert!(error.to_string().contains("choose a directory on a disk"), "{error}");
            system("umount", &[path]);
        }
    });
}

#[test]
fn an_overlay_is_as_good_as_what_is_below() {
    with_mounts("directory::an_overlay_is_as_good_as_what_is_below", || {
        let (directory, overlay) = (directory(), directory());
        mount_overlay(directory.path(), overlay.path());
        let mut guest = Kind::new().guest(&open(&overlay).memories());
        guest.ask(Event::Fill { value: 1 });
        guest.memories.hibernate().unwrap();
        assert!(guest.is_sound());
        drop(guest);
        system("umount", &[overlay.path().to_str().unwrap()]);

        system("mount", &["-t", "tmpfs", "none", directory.path().to_str().unwrap()]);
        mount_overlay(directory.path(), overlay.path());
        assert!(matches!(refusal(overlay.path()), OpenError::InMemory { filesystem: "an overlay of a tmpfs", .. }));
    });
}

#[test]
fn files_are_for_us_alone_whatever_the_umask() {
    in_a_process("directory::files_are_for_us_alone_whatever_the_umask", || {
        let directory = directory();
        let kind = Kind::new();
        let hibernation = open(&directory);
        for mask in [0o000, 0o022, 0o277] {
            rustix::process::umask(mask.into());
            let mut guest = kind.guest(&hibernation.memories());
            guest.ask(Event::Fill { value: 1 });
            guest.memories.share("digest").unwrap();
            guest.memories.hibernate().unwrap();
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            let modes: Vec<_> = descriptors(directory.path()).into_iter().map(mode).collect();
            assert_eq!(modes, [0o600; 2], "the image and the guest's own");
        }
    });
}

#[test]
fn nothing_is_left_after_a_kill() {
    const DIRECTORY: &str = "HIBERNATION_TEST_DIRECTORY";
    if let Some(path) = std::env::var_os(DIRECTORY) {
        let hibernation = Hibernation::open(Path::new(&path), 1 << 30).unwrap();
        let mut guest = Kind::new().guest(&hibernation.memories());
        guest.ask(Event::Fill { value: 1 });
        guest.memories.share("digest").unwrap();
        guest.memories.hibernate().unwrap();
        assert!(hibernation.disk_bytes() > 0);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    let directory = directory();
    let name = "directory::nothing_is_left_after_a_kill";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(DIRECTORY, directory.path()).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
