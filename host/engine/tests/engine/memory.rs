//! What sleeps is gone: memory comes back when an instance is dropped.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use wasm_operator_core::limits::Limits;

use crate::guests::Guest;
use crate::support::{Host, instance, nothing, request};

/// Kilobytes: resident, and address space.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("RssAnon:"), field("VmSize:"))
}

#[tokio::test]
async fn the_memory_of_an_instance_is_known_and_comes_back() {
    // Touches 4 MiB.
    let guest = Guest {
        pages: 80,
        reconcile: "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 4194304)) (call $done)",
        ..Guest::default()
    };
    let host = Host::new();
    let component = host.load(&guest.build()).await;
    let wake = async || {
        let mut instance = instance(&component, Limits::default(), nothing()).await;
        instance.reconcile(&request()).await.unwrap().unwrap();
        assert_eq!(instance.memory_bytes(), 80 * 65536);
        instance
    };
    drop(wake().await);
    let awake = wake().await;
    let (with_one, _) = memory();
    drop(awake);
    let (before, space_before) = memory();
    for _ in 0..500 {
        drop(wake().await);
    }
    let (after, space_after) = memory();
    // Other tests run in this process at the same time; 500 leaks would be 2,000 MiB.
    assert!(after < before + (64 << 10), "{with_one} with one, {before} before, {after} after");
    assert!(space_after < space_before + (16 << 20), "{space_before} before, {space_after} after");
}

/// Kilobytes of that file that are mapped and resident.
fn resident(file: &Path) -> u64 {
    let (file, smaps) = (file.to_str().unwrap(), std::fs::read_to_string("/proc/self/smaps").unwrap());
    let mut of_file = false;
    let mut resident = 0;
    for line in smaps.lines() {
        match line.strip_prefix("Rss:") {
            Some(rss) if of_file => resident += rss.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap(),
            None if line.contains('-') && !line.contains(": ") => of_file = line.ends_with(file),
            _ => {}
        }
    }
    resident
}

#[tokio::test]
async fn code_that_nobody_runs_is_let_go_and_comes_back() {
    let host = Host::new();
    let artifact = host.prepare(&Guest { reconcile: "(call $done)", ..Guest::default() }.build()).await;
    let component = host.engine.load(&artifact).unwrap();
    let run = async || {
        let mut instance = instance(&component, Limits::default(), nothing()).await;
        instance.reconcile(&request()).await.unwrap().unwrap();
        instance
    };
    let awake = run().await;
    assert_ne!(resident(artifact.path()), 0);
    // An instance that only waits keeps no code in memory either.
    let let_go = async {
        while resident(artifact.path()) != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), let_go).await.expect("the code is still mapped");
    drop(awake);
    run().await;
    assert_ne!(resident(artifact.path()), 0);
}
