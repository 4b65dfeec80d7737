//! What sleeps is gone: memory comes back when an instance is dropped.

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
