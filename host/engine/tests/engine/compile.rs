//! The compile child: what it gets, what it may use, and what comes of a bad file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use wasm_operator_engine::{CompileError, PrepareError};

use crate::guests::Guest;
use crate::support::{Host, shell_compiler};

async fn failure(host: &Host, component: &[u8]) -> PrepareError {
    host.engine.prepare(&host.write(component)).await.unwrap_err()
}

async fn compile_failure(host: &Host) -> CompileError {
    match failure(host, &Guest::default().build()).await {
        PrepareError::Compile { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_child_has_no_environment_no_descriptors_and_limits() {
    // A descriptor that the host was started with: not closed on exec.
    let inherited = tempfile::NamedTempFile::new().unwrap();
    let _open = rustix::fs::open(inherited.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    let report = tempfile::tempdir().unwrap();
    let host = Host::with(|options| {
        let script = "cat /proc/$$/environ > R/environ; ls -l /proc/$$/fd > R/descriptors; cat /proc/$$/limits > R/limits; \
                      pwd > R/directory; cat /proc/$$/stat > R/stat; exit 1";
        options.compiler = shell_compiler(&script.replace('R', report.path().to_str().unwrap()));
        options.compile.memory_bytes = 3 << 30;
        options.compile.time = Duration::from_secs(77);
    });
    compile_failure(&host).await;
    let read = |name: &str| fs::read_to_string(report.path().join(name)).unwrap();
    assert_eq!(read("environ"), "");
    assert!(!read("descriptors").contains(inherited.path().to_str().unwrap()), "{}", read("descriptors"));
    assert!(read("descriptors").contains("0 -> /dev/null"), "{}", read("descriptors"));
    assert_eq!(read("directory").trim(), "/");
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let columns: Vec<_> = line[name.len()..].split_whitespace().collect();
        (columns[0].to_owned(), columns[1].to_owned())
    };
    let both = |value: u64| (value.to_string(), value.to_string());
    assert_eq!(limit("Max address space"), both(3 << 30));
    assert_eq!(limit("Max file size"), both(512 << 20));
    assert_eq!(limit("Max cpu time"), both(77));
    assert_eq!(limit("Max core file size"), both(0));
    let niceness = read("stat").rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned();
    assert_eq!(niceness, "10");
}

#[tokio::test]
async fn a_compiler_that_hangs_is_killed_and_reaped() {
    let pid_file = tempfile::NamedTempFile::new().unwrap();
    let host = Host::with(|options| {
        options.compiler = shell_compiler(&format!("echo $$ > '{}'; exec sleep 1000", pid_file.path().display()));
        options.compile.time = Duration::from_millis(300);
    });
    let error = compile_failure(&host).await;
    assert!(matches!(error, CompileError::Timeout(_)), "{error}");
    let pid = fs::read_to_string(pid_file.path()).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[tokio::test]
async fn a_compiler_that_writes_too_much_is_stopped() {
    let host = Host::with(|options| {
        options.compiler = shell_compiler("exec head -c 2000000 /dev/zero > \"$2\"");
        options.compile.output_bytes = 1_000_000;
    });
    let error = compile_failure(&host).await;
    assert!(matches!(error, CompileError::OutputTooLarge(1_000_000)), "{error}");
}

#[tokio::test]
async fn a_compiler_that_talks_without_end_neither_blocks_nor_fills_the_host() {
    let host = Host::with(|options| {
        options.compiler = shell_compiler("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1");
    });
    let CompileError::Failed(text) = compile_failure(&host).await else { panic!() };
    assert_eq!(text.len(), 4096);
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_named() {
    let host = Host::with(|options| options.compiler = vec!["/no/such/compiler".into()]);
    let error = compile_failure(&host).await;
    assert!(error.to_string().contains("`/no/such/compiler`"), "{error}");
}

#[tokio::test]
async fn what_is_not_compiled_code_is_not_kept() {
    for script in ["exit 0", "echo garbage > \"$2\"", "cp \"$1\" \"$2\""] {
        let host = Host::with(|options| options.compiler = shell_compiler(script));
        let error = compile_failure(&host).await;
        assert!(matches!(error, CompileError::NoComponent), "{script}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_meanwhile_is_tried_again_by_the_caller() {
    let host = Host::with(|options| options.compiler = shell_compiler("echo more >> \"$1\"; exit 1"));
    let error = failure(&host, &Guest::default().build()).await;
    assert!(matches!(error, PrepareError::Changed { .. }) && error.is_transient(), "{error}");
}

#[test]
fn compiling_checks_the_digest_of_what_it_read() {
    let directory = tempfile::tempdir().unwrap();
    let (wasm, output) = (directory.path().join("a.wasm"), directory.path().join("a.cwasm"));
    fs::write(&wasm, Guest::default().build()).unwrap();
    let error = wasm_operator_engine::compile(&wasm, &output, Some("00")).unwrap_err();
    assert!(matches!(error, CompileError::Changed { .. }), "{error}");
    assert!(!output.exists());
    wasm_operator_engine::compile(&wasm, &output, None).unwrap();
    assert!(output.exists());
}

#[tokio::test]
async fn what_is_no_component_is_named_before_anything_runs() {
    let host = Host::with(|options| {
        options.compiler = shell_compiler("exit 1");
        options.compile.component_bytes = 1000;
    });
    let module = wat::parse_str("(module)").unwrap();
    let mut cut = Guest::default().build();
    cut.truncate(900);
    for (file, word) in [
        (&module[..], "wasm32-wasip2"),
        (b"#!/bin/sh\n", "text file"),
        (b"", "empty"),
        (b"\0asm", "cut off after 4 bytes"),
        (&cut, "cut off"),
    ] {
        let error = failure(&host, file).await;
        let text = error.to_string();
        assert!(matches!(error, PrepareError::NotAComponent(_)) && text.contains(word), "{text}");
    }
    let error = failure(&host, &[0; 1001]).await;
    assert!(matches!(error, PrepareError::TooLarge { bytes: 1001, limit: 1000, .. }), "{error}");
    let error = host.engine.prepare(Path::new("/no/such/guest.wasm")).await.unwrap_err();
    assert!(
        matches!(error, PrepareError::Read { .. }) && error.to_string().contains("`/no/such/guest.wasm`"),
        "{error}"
    );
}

#[test]
fn compiling_names_what_is_no_component() {
    let directory = tempfile::tempdir().unwrap();
    let (wasm, output) = (directory.path().join("a.wasm"), directory.path().join("a.cwasm"));
    for file in [&b"garbage"[..], b"", b"\0asm\x01\0\0\0"] {
        fs::write(&wasm, file).unwrap();
        let error = wasm_operator_engine::compile(&wasm, &output, None).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CompileError::NotAComponent(_)) && text.contains("a.wasm` is not a"), "{text}");
        assert!(!output.exists());
    }
}

#[tokio::test]
async fn a_component_of_nonsense_is_the_compilers_to_refuse() {
    let host = Host::new();
    // A custom section without a name, and a section of types that are none.
    for section in [&b"\0\0"[..], b"\x07\x02\x01\xff"] {
        let broken = [b"\0asm\x0d\0\x01\0", section].concat();
        let error = failure(&host, &broken).await;
        let PrepareError::Compile { source: CompileError::Failed(text), .. } = error else { panic!("{error}") };
        assert!(!text.is_empty() && !text.starts_with("error"), "{text}");
    }
}
