//! What the defaults of wasmtime-wasi-http leave open, closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use parking_lot::Mutex;
use tokio::time::sleep;
use wasm_operator_core::limits::Limits;
use wasm_operator_engine::HttpError;

use crate::guests::{BODY_ERROR, HEAD_ERROR, http};
use crate::support::{Dropped, Host, body, frames, instance, kind, number, request, server};

const EXCHANGE: &str = "(call $exchange)";
const CONNECTION_LIMIT: u64 = 11;
const DENIED: u64 = 15;
const REQUEST_SIZE: u64 = 17;
const RESPONSE_HEADERS: u64 = 26;
const RESPONSE_SIZE: u64 = 28;
const RESPONSE_TIMEOUT: u64 = 33;
const CONNECTION_TERMINATED: u64 = 7;

fn limits() -> Limits {
    Limits { request_milliseconds: 2_000, ..Limits::default() }
}

#[tokio::test]
async fn a_request_reaches_the_handler_and_the_body_comes_back() {
    let seen = Arc::new(Mutex::new(None));
    let record = Arc::clone(&seen);
    let answer = server(move |request, timeouts| {
        *record.lock() = Some((request, timeouts));
        async { Ok(Response::new(body(vec![b'x'; 300_000]))) }
    });
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits(), answer).await), 300_000);
    let (request, timeouts) = seen.lock().take().unwrap();
    assert_eq!(request.uri(), "https://kubernetes.default.svc/path");
    assert_eq!(request.method(), http::Method::GET);
    assert!(request.headers().is_empty(), "{:?}", request.headers());
    let ceiling = Duration::from_secs(2);
    assert_eq!([timeouts.connect, timeouts.first_byte, timeouts.between_bytes, timeouts.total], [ceiling; 4]);
}

#[tokio::test]
async fn errors_are_typed_before_the_head_and_in_the_middle_of_the_body() {
    let host = Host::new();
    let component = host.load(&http("", EXCHANGE)).await;
    let codes = [
        (HttpError::Denied, 15),
        (HttpError::Dns("NXDOMAIN".into()), 1),
        (HttpError::AddressProhibited, 4),
        (HttpError::Unavailable, 3),
        (HttpError::ConnectionRefused, 6),
        (HttpError::ConnectionTerminated, CONNECTION_TERMINATED),
        (HttpError::ConnectionTimeout, 8),
        (HttpError::TooManyRequests, CONNECTION_LIMIT),
        (HttpError::Tls, 12),
        (HttpError::TlsCertificate, 13),
        (HttpError::RequestBodySize(1), REQUEST_SIZE),
        (HttpError::MethodInvalid, 18),
        (HttpError::UriInvalid, 19),
        (HttpError::ResponseHeaderSize(1), RESPONSE_HEADERS),
        (HttpError::ResponseBodySize(1), RESPONSE_SIZE),
        (HttpError::ResponseIncomplete, 25),
        (HttpError::ResponseTimeout, RESPONSE_TIMEOUT),
        (HttpError::Protocol, 35),
        (HttpError::Internal("text".into()), 38),
    ];
    for (error, code) in codes {
        let head = error.clone();
        let at_head = server(move |_, _| std::future::ready(Err(head.clone())));
        let answer = instance(&component, limits(), at_head).await.reconcile(&request()).await;
        assert_eq!(number(answer), HEAD_ERROR + code, "{error:?}");

        let middle = error.clone();
        let in_body = server(move |_, _| {
            let parts = [Ok(Bytes::from("some")), Err(middle.clone())];
            std::future::ready(Ok(Response::new(frames(futures::stream::iter(parts)))))
        });
        let answer = instance(&component, limits(), in_body).await.reconcile(&request()).await;
        assert_eq!(number(answer), BODY_ERROR + code, "{error:?} in the body");
    }
}

#[tokio::test]
async fn an_errors_debug_string_is_one_short_line() {
    let guest = http(
        r#"(func $explain (param $stream i32) (result i32)
             (loop $more
               (call $read (local.get $stream) (i64.const 65536) (i32.const 3072))
               (br_if $more (i32.eqz (i32.load8_u (i32.const 3072)))))
             (call $debug_string (i32.load (i32.const 3080)) (i32.const 3072))
             (call $fail (i32.load (i32.const 3072)) (i32.load (i32.const 3076))))"#,
        "(call $explain (call $open (call $head (call $start))))",
    );
    let answer = server(|_, _| async {
        let long = "details ".repeat(1000);
        Ok(Response::new(frames(futures::stream::iter([Err(HttpError::Internal(long))]))))
    });
    let failure = Host::new().call(&guest, limits(), answer).await.unwrap().unwrap_err();
    let wasm_operator_core::reconcile::Failure::Retryable { message: text, .. } = failure else {
        panic!("{failure:?}")
    };
    assert!(text.contains("details") && text.len() <= 1024 && !text.contains('\n'), "{text}");
}

/// Sends a request of `chunks` times 4096 bytes.
fn upload(chunks: u32) -> Vec<u8> {
    http(
        r#"(func $upload (param $chunks i32) (result i32) (local $r i32) (local $body i32) (local $out i32) (local $future i32)
             (local.set $r (call $new))
             (drop (call $set_method (local.get $r) (i32.const 2) (i32.const 0) (i32.const 0)))
             (call $request_body (local.get $r) (i32.const 3072))
             (local.set $body (i32.load (i32.const 3076)))
             (call $body_write (local.get $body) (i32.const 3072))
             (local.set $out (i32.load (i32.const 3076)))
             (local.set $future (call $send (local.get $r) (i32.const 0) (i32.const 0)))
             (block $stop (loop $more
               (br_if $stop (i32.eqz (local.get $chunks)))
               (call $write (local.get $out) (i32.const 8192) (i32.const 4096) (i32.const 3072))
               (br_if $stop (i32.load8_u (i32.const 3072)))
               (local.set $chunks (i32.sub (local.get $chunks) (i32.const 1)))
               (br $more)))
             (call $drop_output (local.get $out))
             (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 3072))
             (call $requeue (call $report (local.get $future))))"#,
        &format!("(call $upload (i32.const {chunks}))"),
    )
}

#[tokio::test]
async fn a_request_body_up_to_the_limit_arrives_whole() {
    let answer = server(|request, _| async move {
        assert_eq!(request.method(), http::Method::POST);
        Ok(Response::new(body(vec![0; request.body().len()])))
    });
    let limits = Limits { request_bytes: 512 * 4096, ..limits() };
    assert_eq!(number(Host::new().call(&upload(512), limits, answer).await), 512 * 4096);
}

#[tokio::test]
async fn a_larger_request_body_is_refused_and_never_sent() {
    let answer = server(|_, _| async { panic!("sent") });
    let limits = Limits { request_bytes: 512 * 4096 - 1, ..limits() };
    assert_eq!(number(Host::new().call(&upload(512), limits, answer).await), HEAD_ERROR + REQUEST_SIZE);
}

#[tokio::test]
async fn a_response_body_above_the_limit_is_cut_with_an_error() {
    let endless =
        server(|_, _| async { Ok(Response::new(frames(futures::stream::repeat(Ok(Bytes::from_static(&[0; 1000])))))) });
    let limits = Limits { response_bytes: 1_000_500, ..limits() };
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits, endless).await), BODY_ERROR + RESPONSE_SIZE);
}

#[tokio::test]
async fn a_response_that_announces_too_much_is_refused_at_its_head() {
    let answer =
        server(|_, _| async { Ok(Response::builder().header("content-length", "1001").body(body("")).unwrap()) });
    let limits = Limits { response_bytes: 1000, ..limits() };
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits, answer).await), HEAD_ERROR + RESPONSE_SIZE);
}

#[tokio::test]
async fn response_headers_are_bounded() {
    let answer =
        server(|_, _| async { Ok(Response::builder().header("x", "y".repeat(40_000)).body(body("")).unwrap()) });
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits(), answer).await), HEAD_ERROR + RESPONSE_HEADERS);
}

/// Sends with `first-byte` and `between-bytes` timeouts in nanoseconds.
fn with_timeouts(nanoseconds: u64) -> Vec<u8> {
    http(
        "",
        &format!(
            "(local $o i32) (local.set $o (call $options_new))
             (drop (call $set_first_byte (local.get $o) (i32.const 1) (i64.const {nanoseconds})))
             (drop (call $set_between (local.get $o) (i32.const 1) (i64.const {nanoseconds})))
             (call $requeue (call $report (call $send (call $new) (i32.const 1) (local.get $o))))"
        ),
    )
}

#[tokio::test]
async fn the_guests_own_timeouts_are_honoured() {
    let host = Host::new();
    let component = host.load(&with_timeouts(20_000_000)).await;
    let never = server(|_, _| std::future::pending());
    let answer = instance(&component, limits(), never).await.reconcile(&request()).await;
    assert_eq!(number(answer), HEAD_ERROR + RESPONSE_TIMEOUT);

    let stalls = server(|_, timeouts| async move {
        assert_eq!(timeouts.between_bytes, Duration::from_millis(20));
        let some = futures::stream::iter([Ok(Bytes::from("some"))]);
        Ok(Response::new(frames(some.chain(futures::stream::pending()))))
    });
    let answer = instance(&component, limits(), stalls).await.reconcile(&request()).await;
    assert_eq!(number(answer), BODY_ERROR + RESPONSE_TIMEOUT);
}

#[tokio::test]
async fn a_guest_cannot_wait_longer_than_the_ceiling() {
    let an_hour = with_timeouts(3_600_000_000_000);
    let limits = Limits { request_milliseconds: 30, ..limits() };
    let never = server(|_, timeouts| {
        assert_eq!(timeouts.first_byte, Duration::from_millis(30));
        std::future::pending()
    });
    assert_eq!(number(Host::new().call(&an_hour, limits, never).await), HEAD_ERROR + RESPONSE_TIMEOUT);
}

#[tokio::test]
async fn a_response_that_trickles_for_ever_ends_at_the_ceiling() {
    let trickle = server(|_, _| async {
        let drops = futures::stream::repeat(()).then(|()| async {
            sleep(Duration::from_millis(5)).await;
            Ok(Bytes::from("."))
        });
        Ok(Response::new(frames(drops)))
    });
    let limits = Limits { request_milliseconds: 60, ..limits() };
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits, trickle).await), BODY_ERROR + RESPONSE_TIMEOUT);
}

#[tokio::test]
async fn endless_empty_frames_do_not_hold_the_thread() {
    let empty = server(|_, _| async { Ok(Response::new(frames(futures::stream::repeat(Ok(Bytes::new()))))) });
    let limits = Limits { request_milliseconds: 50, ..limits() };
    assert_eq!(number(Host::new().call(&http("", EXCHANGE), limits, empty).await), BODY_ERROR + RESPONSE_TIMEOUT);
}

/// Starts five requests, then waits for each.
fn five_at_once() -> Vec<u8> {
    http(
        r#"(func $five (result i64) (local $i i32) (local $sum i64)
             (loop $more
               (i32.store (i32.add (i32.const 512) (i32.mul (local.get $i) (i32.const 4))) (call $start))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $i) (i32.const 5))))
             (loop $more
               (local.set $i (i32.sub (local.get $i) (i32.const 1)))
               (local.set $sum (i64.add (local.get $sum)
                 (call $report (i32.load (i32.add (i32.const 512) (i32.mul (local.get $i) (i32.const 4)))))))
               (br_if $more (local.get $i)))
             (local.get $sum))"#,
        "(call $requeue (call $five))",
    )
}

#[tokio::test]
async fn requests_above_the_number_in_flight_wait_for_their_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (Arc::clone(&now), Arc::clone(&most));
    let slow = server(move |_, _| {
        let (now, most) = (Arc::clone(&count), Arc::clone(&peak));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Response::new(body("")))
        }
    });
    // An empty body is at its end at once, so the last response, which the guest reads first, gets its turn.
    let limits = Limits { requests_in_flight: 2, ..limits() };
    assert_eq!(number(Host::new().call(&five_heads(), limits, slow).await), 0);
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

/// Starts five requests, then reads each in the order of its start.
fn five_heads() -> Vec<u8> {
    http(
        r#"(func $five (result i64) (local $i i32) (local $sum i64)
             (loop $more
               (i32.store (i32.add (i32.const 512) (i32.mul (local.get $i) (i32.const 4))) (call $start))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $i) (i32.const 5))))
             (local.set $i (i32.const 0))
             (loop $more
               (local.set $sum (i64.add (local.get $sum)
                 (call $report (i32.load (i32.add (i32.const 512) (i32.mul (local.get $i) (i32.const 4)))))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $i) (i32.const 5))))
             (local.get $sum))"#,
        "(call $requeue (call $five))",
    )
}

#[tokio::test]
async fn a_guest_that_blocks_its_own_requests_gets_a_typed_error() {
    let open = server(|_, _| async { Ok(Response::new(frames(futures::stream::pending()))) });
    let limits = Limits { requests_in_flight: 2, request_milliseconds: 30, ..limits() };
    // Read last to first: three that found no place, two whose bodies never came.
    let expected = 3 * (HEAD_ERROR + CONNECTION_LIMIT) + 2 * (BODY_ERROR + RESPONSE_TIMEOUT);
    assert_eq!(number(Host::new().call(&five_at_once(), limits, open).await), expected);
}

#[tokio::test]
async fn an_endless_row_of_requests_ends_the_call() {
    let guest = http("", "(loop $more (drop (call $report (call $start))) (br $more)) unreachable");
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let answer = server(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(body(""))) }
    });
    let limits = Limits { requests_per_call: 20, ..limits() };
    let error = Host::new().call(&guest, limits, answer).await.unwrap_err();
    assert_eq!(error.kind(), "request-limit");
    assert!(error.to_string().contains("more than 20 HTTP requests in one call (`limits.requestsPerCall`)"), "{error}");
    assert_eq!(sent.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn the_number_of_requests_is_per_call() {
    let host = Host::new();
    let component = host.load(&http("", EXCHANGE)).await;
    let answer = server(|_, _| async { Ok(Response::new(body("ok"))) });
    let mut instance = instance(&component, Limits { requests_per_call: 1, ..limits() }, answer).await;
    for _ in 0..3 {
        assert_eq!(number(instance.reconcile(&request()).await), 2);
    }
}

#[tokio::test]
async fn what_a_call_leaves_unread_is_given_up_and_holds_nothing_back_in_the_next() {
    let host = Host::new();
    for leaves in ["(call $start)", "(call $head (call $start))", "(call $open (call $head (call $start)))"] {
        let component = host.load(&http("", &format!("(drop {leaves}) (call $done)"))).await;
        let (sent, bodies) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(()));
        let (count, body) = (Arc::clone(&sent), Arc::clone(&bodies));
        let answer = server(move |_, _| {
            let body = Arc::clone(&body);
            count.add_permits(1);
            async move {
                Ok(Response::new(frames(futures::stream::poll_fn(move |_| {
                    let _held = &body;
                    std::task::Poll::Pending
                }))))
            }
        });
        let limits = Limits { requests_in_flight: 1, ..limits() };
        let mut instance = instance(&component, limits, answer).await;
        for call in 1..=3 {
            instance.reconcile(&request()).await.unwrap().unwrap();
            sent.acquire().await.unwrap().forget();
            // This one and the server's.
            while Arc::strong_count(&bodies) > 2 {
                tokio::task::yield_now().await;
            }
            assert!(instance.is_alive(), "{leaves}, call {call}");
        }
    }
}

#[tokio::test]
async fn resources_that_calls_leave_behind_end_the_instance_and_no_call() {
    let host = Host::new();
    let leak = "(local $left i32)
        (local.set $left (i32.const 100))
        (loop $more
          (drop (call $fields))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $more (local.get $left)))
        (call $done)";
    let component = host.load(&http("", leak)).await;
    let fresh = async || instance(&component, limits(), server(|_, _| std::future::pending())).await;
    let (mut current, mut instances) = (fresh().await, 1);
    for _ in 0..20 {
        if !current.is_alive() {
            (current, instances) = (fresh().await, instances + 1);
        }
        current.reconcile(&request()).await.unwrap().unwrap();
    }
    assert!((2..20).contains(&instances), "{instances}");
}

#[tokio::test]
async fn a_trap_in_the_middle_of_a_request_ends_the_request() {
    let dropped = Dropped::default();
    let watch = dropped.clone();
    let started = Arc::new(tokio::sync::Notify::new());
    let starts = Arc::clone(&started);
    let answer = server(move |request, _| {
        let guard = watch.guard();
        let starts = Arc::clone(&starts);
        async move {
            let _guard = guard;
            if request.method() == http::Method::GET {
                starts.notified().await;
                return Ok(Response::new(body("")));
            }
            starts.notify_one();
            std::future::pending().await
        }
    });
    // The first request is answered once the second is under way; then the guest traps.
    let guest = http(
        "",
        r#"(local $first i32) (local $second i32)
           (local.set $first (call $start))
           (local.set $second (call $new))
           (drop (call $set_method (local.get $second) (i32.const 2) (i32.const 0) (i32.const 0)))
           (drop (call $send (local.get $second) (i32.const 0) (i32.const 0)))
           (drop (call $report (local.get $first)))
           unreachable"#,
    );
    let host = Host::new();
    let component = host.load(&guest).await;
    let mut instance = instance(&component, limits(), answer).await;
    assert_eq!(kind(instance.reconcile(&request()).await), "trap");
    assert!(!instance.is_alive());
    tokio::task::yield_now().await;
    assert!(dropped.is(), "aborted although the instance is still there");
}

#[tokio::test]
async fn a_panic_of_the_handler_ends_the_call_and_nothing_else() {
    let host = Host::new();
    let component = host.load(&http("", EXCHANGE)).await;
    let handlers = [
        server(|_, _| -> std::future::Ready<_> { panic!("in send") }),
        server(|_, _| async {
            tokio::task::yield_now().await;
            panic!("in the future")
        }),
        server(|_, _| async {
            Ok(Response::new(frames(futures::stream::poll_fn(|_| -> std::task::Poll<_> { panic!("in the body") }))))
        }),
    ];
    for (handler, place) in handlers.into_iter().zip(["in send", "in the future", "in the body"]) {
        let error = instance(&component, limits(), handler).await.reconcile(&request()).await.unwrap_err();
        assert_eq!(error.kind(), "host-panic");
        assert!(error.to_string().contains(place), "{error}");
    }
    let good = server(|_, _| async { Ok(Response::new(body("ok"))) });
    assert_eq!(number(instance(&component, limits(), good).await.reconcile(&request()).await), 2);
}

#[tokio::test]
async fn a_header_set_cannot_grow_in_the_host() {
    let fill = |kilobytes: u32| {
        http(
            r#"(data (i32.const 256) "x-name")
               (func $fill (param $count i32) (local $fields i32)
                 (local.set $fields (call $fields))
                 (memory.fill (i32.const 8192) (i32.const 97) (i32.const 1024))
                 (loop $more
                   (call $append (local.get $fields) (i32.const 256) (i32.const 6)
                     (i32.const 8192) (i32.const 1024) (i32.const 3072))
                   (if (i32.load8_u (i32.const 3072)) (then unreachable))
                   (local.set $count (i32.sub (local.get $count) (i32.const 1)))
                   (br_if $more (local.get $count))))"#,
            &format!("(call $fill (i32.const {kilobytes})) (call $done)"),
        )
    };
    let host = Host::new();
    let unused = || server(|_, _| std::future::pending());
    host.call(&fill(20), limits(), unused()).await.unwrap().unwrap();
    assert_eq!(kind(host.call(&fill(40), limits(), unused()).await), "trap");
}

#[tokio::test]
async fn describing_itself_a_guest_has_no_http() {
    let guest = crate::guests::Guest {
        imports: crate::guests::HTTP_IMPORTS,
        items: crate::guests::HTTP_ITEMS,
        // An error whose text is as long as the number of the code.
        describe: "(local $code i32)
            (local.set $code (i32.wrap_i64 (i64.sub (call $report (call $start)) (i64.const 1000000000))))
            (i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 38))
            (i32.store (i32.const 1032) (local.get $code)) (i32.const 1024)",
        ..Default::default()
    };
    let host = Host::new();
    let component = host.load(&guest.build()).await;
    let logs = wasm_operator_engine::GuestLogs::discard();
    let error = component.describe(&crate::support::settings(limits()), &logs).await.unwrap_err();
    let wasm_operator_engine::CallError::Describe(text) = error else { panic!("{error:?}") };
    assert_eq!(text.len() as u64, DENIED);
}
