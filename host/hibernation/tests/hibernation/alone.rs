//! Tests that change their process: they run as the only test of a process of their own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const ALONE: &str = "HIBERNATION_TEST_ALONE";

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs the body in a process that runs the test with this name and nothing else.
pub(crate) fn in_a_process(name: &str, body: impl FnOnce()) {
    if is_alone() {
        return body();
    }
    run(Command::new(std::env::current_exe().unwrap()), name);
}

/// The same, where the body can mount what it wants. Only root can.
pub(crate) fn with_mounts(name: &str, body: impl FnOnce()) {
    if is_alone() {
        return body();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {name} needs root, to mount a file system");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(std::env::current_exe().unwrap());
    run(command, name);
}

fn run(mut command: Command, name: &str) {
    let output = command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "there is no test {name}: {text}");
}

/// Runs a program that must succeed.
pub(crate) fn system(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Mounts an overlay that keeps its files in another directory.
pub(crate) fn mount_overlay(files: &Path, on_top: &Path) {
    let [below, upper, work] = ["below", "upper", "work"].map(|name| {
        let path = files.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let options = format!("lowerdir={below},upperdir={upper},workdir={work}");
    system("mount", &["-t", "overlay", "overlay", "-o", &options, on_top.to_str().unwrap()]);
}

/// On a disk, unlike `/tmp` on many machines.
pub(crate) fn directory() -> TempDir {
    let permissions = Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(permissions).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
