//! Guests that use too much. Each is stopped, told apart, and leaves the engine as it was.

use std::time::Duration;

use tokio::time::Instant;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::reconcile::Failure;
use wasm_operator_engine::{CallError, GuestLogs};

use crate::guests::{Guest, STDERR_IMPORTS, STDERR_ITEMS, http};
use crate::support::{Dropped, Host, Recorder, instance, kind, nothing, request, server, settings};

const FOREVER: &str = "(loop $more (br $more)) unreachable";

async fn call(guest: Guest<'_>, limits: Limits) -> CallError {
    let host = Host::new();
    let error = host.call(&guest.build(), limits, nothing()).await.unwrap_err();
    // Whatever it did, the next guest works.
    host.call(&Guest::default().build(), Limits::default(), nothing()).await.unwrap().unwrap();
    error
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_cpu_limit_and_the_neighbour_has_its_turns() {
    let host = Host::new();
    let looping = host.load(&Guest { reconcile: FOREVER, ..Guest::default() }.build()).await;
    let well = host.load(&Guest::default().build()).await;
    let limits = Limits { cpu_milliseconds: 300, ..Limits::default() };
    let mut looping = instance(&looping, limits, nothing()).await;
    // Both on the one thread of this test.
    let neighbour = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let start = Instant::now();
            instance(&well, Limits::default(), nothing()).await.reconcile(&request()).await.unwrap().unwrap();
            slowest = slowest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slowest
    };
    let looping_request = request();
    let looper = looping.reconcile(&looping_request);
    tokio::pin!(looper);
    let slowest = tokio::select! {
        biased;
        _ = &mut looper => panic!("the neighbour had to wait for the end of the loop"),
        slowest = neighbour => slowest,
    };
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    let error = looper.await.unwrap_err();
    assert_eq!(error.kind(), "cpu-limit");
    assert!(
        error.to_string().contains("more than 300 ms of CPU time in one call (`limits.cpuMilliseconds`)"),
        "{error}"
    );
}

#[tokio::test]
async fn an_endless_loop_in_describe_ends_within_its_second() {
    let host = Host::new();
    let describe = "(loop $more (br $more)) unreachable";
    let component = host.load(&Guest { describe, ..Guest::default() }.build()).await;
    let start = Instant::now();
    let error = component.describe(&settings(Limits::default()), &GuestLogs::discard()).await.unwrap_err();
    assert_eq!(error.kind(), "describe-limit");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_endless_loop_at_the_start_ends() {
    let items = "(func $loop (loop $more (br $more))) (start $loop)";
    let component = Host::new().load(&Guest { items, ..Guest::default() }.build()).await;
    let limits = Limits { cpu_milliseconds: 20, ..Limits::default() };
    let error = component.instantiate(&settings(limits), nothing(), &GuestLogs::discard()).await.err().unwrap();
    assert_eq!(error.kind(), "cpu-limit");
}

#[tokio::test]
async fn cpu_time_is_per_call_and_waiting_costs_none() {
    let guest = http("", "(drop (call $report (call $start))) (call $done)");
    let component = Host::new().load(&guest).await;
    let slow = server(|_, _| async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(http::Response::new(crate::support::body("")))
    });
    let limits = Limits { cpu_milliseconds: 25, ..Limits::default() };
    let mut instance = instance(&component, limits, slow).await;
    for _ in 0..3 {
        instance.reconcile(&request()).await.unwrap().unwrap();
    }
    assert!(instance.cpu_time() > Duration::ZERO && instance.cpu_time() < Duration::from_millis(25));
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_takes_the_request_along() {
    let dropped = Dropped::default();
    let watch = dropped.clone();
    let never = server(move |_, _| {
        let guard = watch.guard();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let guest = http("", "(call $exchange)");
    let component = Host::new().load(&guest).await;
    let mut instance = instance(&component, Limits { reconcile_milliseconds: 50, ..Limits::default() }, never).await;
    let error = instance.reconcile(&request()).await.unwrap_err();
    assert_eq!(error.kind(), "deadline");
    assert!(error.to_string().contains("`limits.reconcileMilliseconds`"), "{error}");
    tokio::task::yield_now().await;
    assert!(dropped.is());
    assert_eq!(kind(instance.reconcile(&request()).await), "gone");
}

#[tokio::test]
async fn a_call_that_the_host_gives_up_leaves_nothing_running() {
    let dropped = Dropped::default();
    let watch = dropped.clone();
    let never = server(move |_, _| {
        let guard = watch.guard();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let component = Host::new().load(&http("", "(call $exchange)")).await;
    let mut instance = instance(&component, Limits::default(), never).await;
    tokio::time::timeout(Duration::from_millis(20), instance.reconcile(&request())).await.unwrap_err();
    tokio::task::yield_now().await;
    assert!(dropped.is() && !instance.is_alive());
}

const GROW: &str = "(block $denied (loop $more
    (br_if $denied (i32.eq (i32.const -1) (memory.grow (i32.const 16)))) (br $more)))";

#[tokio::test]
async fn a_memory_bomb_is_told_from_other_traps() {
    let reconcile = format!("{GROW} unreachable");
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let error = call(Guest { reconcile: &reconcile, ..Guest::default() }, limits.clone()).await;
    assert_eq!(error.kind(), "memory-limit");
    assert!(error.to_string().contains("more than 8388608 bytes of linear memory (`limits.memoryBytes`)"), "{error}");

    // A guest may live with a refusal.
    let reconcile = format!("{GROW} (call $requeue (i64.extend_i32_u (memory.size)))");
    let guest = Guest { reconcile: &reconcile, ..Guest::default() }.build();
    let pages = crate::support::number(Host::new().call(&guest, limits, nothing()).await);
    assert_eq!(pages, 113, "one page, then steps of sixteen below 128");
}

#[tokio::test]
async fn a_guest_that_starts_too_big_never_runs() {
    let component = Host::new().load(&Guest { pages: 200, ..Guest::default() }.build()).await;
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let error = component.instantiate(&settings(limits), nothing(), &GuestLogs::discard()).await.err().unwrap();
    assert_eq!(error.kind(), "memory-limit");
}

#[tokio::test]
async fn several_memories_share_one_limit() {
    let items = r#"(memory $second 0) (memory $third 0)
        (func $grow (result i64) (local $pages i64)
          (block $denied (loop $more
            (br_if $denied (i32.eq (i32.const -1) (memory.grow $second (i32.const 10))))
            (br_if $denied (i32.eq (i32.const -1) (memory.grow $third (i32.const 10))))
            (br $more)))
          (i64.extend_i32_u (i32.add (memory.size) (i32.add (memory.size $second) (memory.size $third)))))"#;
    let guest = Guest { items, reconcile: "(call $requeue (call $grow))", ..Guest::default() }.build();
    let limits = Limits { memory_bytes: 100 * 65536, ..Limits::default() };
    assert_eq!(crate::support::number(Host::new().call(&guest, limits, nothing()).await), 91);
}

#[tokio::test]
async fn a_table_bomb_is_told_from_other_traps() {
    let guest = Guest {
        items: "(table $t 0 funcref)",
        reconcile: "(loop $more (br_if $more (i32.ne (i32.const -1)
            (table.grow $t (ref.null func) (i32.const 1000))))) unreachable",
        ..Guest::default()
    };
    assert_eq!(call(guest, Limits::default()).await.kind(), "table-limit");
}

#[tokio::test]
async fn deep_recursion_ends_at_the_stack_limit() {
    let guest = Guest {
        items: "(func $deeper (param i64) (result i64)
            (i64.add (local.get 0) (call $deeper (i64.add (local.get 0) (i64.const 1)))))",
        reconcile: "(call $requeue (call $deeper (i64.const 0)))",
        ..Guest::default()
    };
    let error = call(guest, Limits::default()).await;
    assert_eq!(error.kind(), "stack-limit");
    assert!(error.to_string().contains("524288"), "{error}");
}

#[tokio::test]
async fn a_trap_tells_what_the_guest_said_last() {
    let guest = Guest {
        imports: STDERR_IMPORTS,
        items: &format!("(data (i32.const 64) \"starting\\npanicked at lib.rs:7: \\1b[31mno\"){STDERR_ITEMS}"),
        reconcile: "(call $stderr (i32.const 64) (i32.const 38)) unreachable",
        ..Guest::default()
    };
    let host = Host::new();
    let component = host.load(&guest.build()).await;
    let recorder = std::sync::Arc::new(Recorder::default());
    let logs = GuestLogs::new(recorder.clone(), &Limits::default());
    let mut instance = component.instantiate(&settings(Limits::default()), nothing(), &logs).await.unwrap();
    let error = instance.reconcile(&request()).await.unwrap_err();
    assert_eq!(error.kind(), "trap");
    let text = error.to_string();
    assert!(text.contains("unreachable") && text.contains("starting / panicked at lib.rs:7: \\u{1b}[31mno"), "{text}");
    assert_eq!(*recorder.0.lock(), ["Stderr: starting", "Stderr: panicked at lib.rs:7: \\u{1b}[31mno"]);
}

#[tokio::test]
async fn leaving_by_exit_is_an_error() {
    let guest = Guest {
        imports: r#"(import "wasi:cli/exit@0.2.9" "exit" (func $exit (param i32)))"#,
        reconcile: "(call $exit (i32.const 1)) unreachable",
        ..Guest::default()
    };
    let error = call(guest, Limits::default()).await;
    assert!(matches!(error, CallError::Exit { code: 1, .. }), "{error}");
}

#[tokio::test]
async fn handles_of_host_resources_run_out() {
    let guest = http("", "(loop $more (drop (call $fields)) (br $more)) unreachable");
    assert_eq!(kind(Host::new().call(&guest, Limits::default(), nothing()).await), "resource-limit");
}

#[tokio::test]
async fn one_host_call_carries_no_more_than_two_mebibytes() {
    let append = |bytes: u32| {
        http(
            "",
            &format!(
                "(drop (memory.grow (i32.const 64)))
                 (call $append (call $fields) (i32.const 16) (i32.const 4) (i32.const 65536) (i32.const {bytes}) (i32.const 3072))
                 (call $done)"
            ),
        )
    };
    let host = Host::new();
    let error = host.call(&append(3 << 20), Limits::default(), nothing()).await.unwrap_err();
    assert_eq!(error.kind(), "host-call-limit");
    let error = host.call(&append(1 << 20), Limits::default(), nothing()).await;
    assert_ne!(error.err().map(|error| error.kind()), Some("host-call-limit"));
}

#[tokio::test]
async fn random_bytes_come_in_small_portions() {
    let random = |bytes: u32| {
        Guest {
            imports: r#"(import "wasi:random/random@0.2.9" "get-random-bytes" (func $random (param i64 i32)))"#,
            reconcile: &format!("(call $random (i64.const {bytes}) (i32.const 3072)) (call $done)"),
            ..Guest::default()
        }
        .build()
    };
    let host = Host::new();
    host.call(&random(64 << 10), Limits::default(), nothing()).await.unwrap().unwrap();
    assert_eq!(kind(host.call(&random((64 << 10) + 1), Limits::default(), nothing()).await), "trap");
}

#[tokio::test]
async fn a_failure_of_the_guest_is_no_error_of_the_engine_and_is_bounded() {
    let guest = Guest {
        pages: 20,
        reconcile: "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 1000000))
            (call $fail (i32.const 65536) (i32.const 1000000))",
        ..Guest::default()
    };
    let component = Host::new().load(&guest.build()).await;
    let mut instance = instance(&component, Limits::default(), nothing()).await;
    let Failure::Retryable { message, after: None } = instance.reconcile(&request()).await.unwrap().unwrap_err() else {
        panic!()
    };
    assert!(message.starts_with("aaaa") && message.len() < 5000);
    assert!(instance.is_alive());
}

#[tokio::test]
async fn a_failure_keeps_the_delay_that_the_guest_gave_it() {
    for after in [0, 1_500, u64::MAX] {
        let guest = Guest {
            items: r#"(data (i32.const 16) "later")"#,
            reconcile: &format!("(call $fail_after (i32.const 16) (i32.const 5) (i64.const {after}))"),
            ..Guest::default()
        };
        let answer = Host::new().call(&guest.build(), Limits::default(), nothing()).await.unwrap();
        let expected = Failure::Retryable { message: "later".to_owned(), after: Some(Duration::from_millis(after)) };
        assert_eq!(answer, Err(expected));
    }
}
