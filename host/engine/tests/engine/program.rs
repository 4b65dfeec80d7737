//! Programs: one call without an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wasm_operator_core::limits::Limits;
use wasm_operator_engine::{CallError, GuestLogs, OutgoingHttp, Turns};
use wasm_operator_hibernation::Memories;

use crate::guests::{HTTP_IMPORTS, HTTP_ITEMS, program};
use crate::support::{Host, body, server, settings};

const CLOCK_IMPORTS: &str = r#"
  (import "wasi:clocks/monotonic-clock@0.2.9" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.9" "subscribe-instant" (func $at (param i64) (result i32)))
  (import "wasi:clocks/monotonic-clock@0.2.9" "subscribe-duration" (func $after (param i64) (result i32)))
  (import "wasi:io/poll@0.2.9" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.9" "poll" (func $poll (param i32 i32 i32)))"#;

/// `$either` waits for the first of two.
const CLOCK_ITEMS: &str = r#"
  (func $either (param $one i32) (param $other i32)
    (i32.store (i32.const 64) (local.get $one)) (i32.store (i32.const 68) (local.get $other))
    (call $poll (i32.const 64) (i32.const 2) (i32.const 3072)))"#;

/// Passes on when the program waits, and for which timer.
struct Waits(mpsc::UnboundedSender<Option<Instant>>);

impl Turns for Waits {
    fn begins(&self) {}

    fn waits(&self, timer: Option<Instant>) {
        // Nobody may look any more.
        let _ = self.0.send(timer);
    }
}

fn nothing() -> Arc<dyn OutgoingHttp> {
    server(|_, _| std::future::pending())
}

/// Runs a program to its end.
async fn run(host: &Host, component: &[u8], limits: Limits, http: Arc<dyn OutgoingHttp>, turns: &Waits) -> CallError {
    let program = host.engine.load_program(&host.prepare(component).await).unwrap();
    let endpoint = SocketAddr::from(([127, 0, 0, 1], 1));
    let memories = Memories::never_hibernated();
    program.start(&settings(limits), memories, endpoint, http, &GuestLogs::discard()).run(turns).await
}

async fn end(component: &[u8], limits: Limits, http: Arc<dyn OutgoingHttp>) -> CallError {
    run(&Host::new(), component, limits, http, &Waits(mpsc::unbounded_channel().0)).await
}

#[tokio::test]
async fn the_host_knows_when_a_program_that_waits_will_go_on() {
    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(20);
    let guest = program(
        CLOCK_IMPORTS,
        CLOCK_ITEMS,
        "(local $long i32)
         (local.set $long (call $after (i64.const 3600000000000)))
         (call $either (local.get $long) (call $after (i64.const 20000000)))
         (call $block (call $at (i64.add (call $now) (i64.const 20000000))))
         (call $block (local.get $long))
         (i32.const 0)",
    );
    let (host, start) = (Host::new(), Instant::now());
    let (sender, mut waits) = mpsc::unbounded_channel();
    let turns = Waits(sender);
    let running = run(&host, &guest, Limits::default(), nothing(), &turns);
    // Whoever polls it for no reason is told again.
    let seen = async {
        let mut short = Vec::new();
        loop {
            let timer = waits.recv().await.unwrap().expect("it waits for a timer");
            if timer >= start + LONG {
                return short;
            }
            assert!(timer <= Instant::now() + SHORT, "the earliest of two, or one that is given as a moment");
            short.push(timer);
        }
    };
    let mut short = tokio::select! {
        error = running => panic!("{error}"),
        short = seen => short,
    };
    short.dedup();
    assert_eq!(short.len(), 2, "what was due before is forgotten");
}

#[tokio::test]
async fn timers_of_no_time_and_of_ever_so_long_do_no_harm() {
    let guest = program(
        CLOCK_IMPORTS,
        CLOCK_ITEMS,
        "(call $either (call $after (i64.const -1)) (call $after (i64.const 0)))
         (call $block (call $at (i64.const 0)))
         (call $either (call $at (i64.const -1)) (call $after (i64.const 1)))
         (i32.const 0)",
    );
    let error = end(&guest, Limits::default(), nothing()).await;
    assert!(matches!(error, CallError::Returned { failed: false, .. }), "{error}");
}

#[tokio::test]
async fn a_program_may_send_any_number_of_requests() {
    let guest = program(
        HTTP_IMPORTS,
        &format!("{HTTP_ITEMS} (func $requeue (param i64) (result i32) unreachable)"),
        "(local $left i32)
         (local.set $left (i32.const 10))
         (loop $more
           (drop (call $report (call $start)))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $more (local.get $left)))
         (i32.const 1)",
    );
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let answer = server(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(body("ok"))) }
    });
    let error = end(&guest, Limits { requests_per_call: 1, ..Limits::default() }, answer).await;
    assert!(matches!(error, CallError::Returned { failed: true, .. }), "{error}");
    assert_eq!(sent.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_program_that_computes_without_a_wait_is_ended() {
    let guest = program(CLOCK_IMPORTS, "", "(loop $more (br $more)) (i32.const 0)");
    let error = end(&guest, Limits { cpu_milliseconds: 5, ..Limits::default() }, nothing()).await;
    assert_eq!(error.kind(), "cpu-limit", "{error}");
}

#[tokio::test]
async fn the_cpu_time_of_a_program_is_that_between_two_waits() {
    // Ten times 2 ms, with a limit of 10 ms.
    let guest = program(
        CLOCK_IMPORTS,
        r#"(func $compute (local $end i64)
             (local.set $end (i64.add (call $now) (i64.const 2000000)))
             (loop $more (br_if $more (i64.lt_u (call $now) (local.get $end)))))"#,
        "(local $left i32)
         (local.set $left (i32.const 10))
         (loop $more
           (call $compute)
           (call $block (call $after (i64.const 1)))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $more (local.get $left)))
         (i32.const 0)",
    );
    let error = end(&guest, Limits { cpu_milliseconds: 10, ..Limits::default() }, nothing()).await;
    assert!(matches!(error, CallError::Returned { failed: false, .. }), "{error}");
}

#[tokio::test]
async fn a_trap_of_a_program_is_reported_as_one() {
    let error = end(&program(CLOCK_IMPORTS, "", "unreachable"), Limits::default(), nothing()).await;
    assert_eq!(error.kind(), "trap", "{error}");
}
