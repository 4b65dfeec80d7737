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
    let module = failure(&host, &wat::parse_str("(module)").unwrap()).await;
    assert!(
        matches!(module, PrepareError::CoreModule { .. }) && module.to_string().contains("wasm32-wasip2"),
        "{module}"
    );
    for garbage in [&b"#!/bin/sh\n"[..], b"", b"\0asm"] {
        let error = failure(&host, garbage).await;
        assert!(matches!(error, PrepareError::NotWasm { .. }), "{error}");
    }
    let error = failure(&host, &[0; 1001]).await;
    assert!(matches!(error, PrepareError::TooLarge { bytes: 1001, limit: 1000, .. }), "{error}");
    let error = host.engine.prepare(Path::new("/no/such/guest.wasm")).await.unwrap_err();
    assert!(
        matches!(error, PrepareError::Read { .. }) && error.to_string().contains("`/no/such/guest.wasm`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_component_is_the_compilers_to_refuse() {
    let host = Host::new();
    let mut broken = Guest::default().build();
    let end = broken.len() - 10;
    broken.truncate(end);
    let PrepareError::Compile { source: CompileError::Failed(text), .. } = failure(&host, &broken).await else {
        panic!()
    };
    assert!(text.contains("unexpected end"), "{text}");
}
