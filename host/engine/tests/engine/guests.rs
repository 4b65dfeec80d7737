//! Guests in WebAssembly text: small enough to say exactly what they do.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Wraps a core module as a component of `world`.
pub(crate) fn component(world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let package = resolve.push_str("guests.wit", include_str!("guests.wit")).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// A controller. `imports` and `items` are items of the module, `reconcile` the body of that function; what it leaves on
/// the stack is the pointer to its answer: `(call $done)`, `(call $requeue (i64))`, `(call $fail (pointer) (length))`,
/// `(call $fail_after (pointer) (length) (i64))`.
///
/// Memory: below 4096 is scratch (answers at 2048, results of imports at 3072), above is a heap that only grows.
/// The request is at `(local.get $request)`, its content's pointer 32 and its length 36 bytes further on.
pub(crate) struct Guest<'a> {
    pub(crate) imports: &'a str,
    pub(crate) items: &'a str,
    pub(crate) pages: u32,
    pub(crate) describe: &'a str,
    pub(crate) reconcile: &'a str,
}

const HEAP: &str = r#"(global $heap (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $start) (local.get $size)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $fits (i32.ne (i32.const -1) (memory.grow
        (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1)))))
      unreachable)
    (local.get $start))"#;

impl Default for Guest<'_> {
    fn default() -> Self {
        Self { imports: "", items: "", pages: 1, describe: "(i32.const 1024)", reconcile: "(call $done)" }
    }
}

impl Guest<'_> {
    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_for("guest")
    }

    pub(crate) fn build_for(&self, world: &str) -> Vec<u8> {
        let Self { imports, items, pages, describe, reconcile } = self;
        component(
            world,
            &format!(
                r#"(module
  {imports}
  (memory (export "memory") {pages})
  {HEAP}
  (func $done (result i32)
    (i64.store (i32.const 2048) (i64.const 0)) (i64.store (i32.const 2056) (i64.const 0)) (i32.const 2048))
  (func $requeue (param $after i64) (result i32)
    (i64.store (i32.const 2048) (i64.const 0)) (i64.store (i32.const 2056) (i64.const 1))
    (i64.store (i32.const 2064) (local.get $after)) (i32.const 2048))
  (func $fail (param $text i32) (param $length i32) (result i32)
    (i64.store (i32.const 2048) (i64.const 1)) (i64.store (i32.const 2056) (i64.const 0))
    (i32.store (i32.const 2064) (local.get $text)) (i32.store (i32.const 2068) (local.get $length))
    (i64.store (i32.const 2072) (i64.const 0)) (i32.const 2048))
  (func $fail_after (param $text i32) (param $length i32) (param $after i64) (result i32)
    (drop (call $fail (local.get $text) (local.get $length)))
    (i64.store (i32.const 2072) (i64.const 1)) (i64.store (i32.const 2080) (local.get $after)) (i32.const 2048))
  {items}
  (func (export "describe") (result i32) {describe})
  (func (export "reconcile") (param $request i32) (result i32) {reconcile}))"#
            ),
        )
    }
}

/// `(call $stderr (pointer) (length))`.
pub(crate) const STDERR_IMPORTS: &str = r#"
  (import "wasi:cli/stderr@0.2.9" "get-stderr" (func $get_stderr (result i32)))
  (import "wasi:io/streams@0.2.9" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))"#;
pub(crate) const STDERR_ITEMS: &str = r#"
  (func $stderr (param $text i32) (param $length i32)
    (call $write (call $get_stderr) (local.get $text) (local.get $length) (i32.const 3072)))"#;

pub(crate) const HTTP_IMPORTS: &str = r#"
  (import "wasi:cli/stderr@0.2.9" "get-stderr" (func $get_stderr (result i32)))
  (import "wasi:io/streams@0.2.9" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.9" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.9" "[resource-drop]output-stream" (func $drop_output (param i32)))
  (import "wasi:io/poll@0.2.9" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/error@0.2.9" "[method]error.to-debug-string" (func $debug_string (param i32 i32)))
  (import "wasi:http/types@0.2.9" "http-error-code" (func $error_code (param i32 i32)))
  (import "wasi:http/types@0.2.9" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.9" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.9" "[constructor]outgoing-request" (func $request_new (param i32) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]outgoing-request.set-method"
    (func $set_method (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]outgoing-request.set-authority"
    (func $set_authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]outgoing-request.body" (func $request_body (param i32 i32)))
  (import "wasi:http/types@0.2.9" "[method]outgoing-body.write" (func $body_write (param i32 i32)))
  (import "wasi:http/types@0.2.9" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.9" "[constructor]request-options" (func $options_new (result i32)))
  (import "wasi:http/types@0.2.9" "[method]request-options.set-first-byte-timeout"
    (func $set_first_byte (param i32 i32 i64) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]request-options.set-between-bytes-timeout"
    (func $set_between (param i32 i32 i64) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]future-incoming-response.subscribe"
    (func $subscribe (param i32) (result i32)))
  (import "wasi:http/types@0.2.9" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.9" "[method]incoming-response.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.9" "[method]incoming-body.stream" (func $body_stream (param i32 i32)))
  (import "wasi:http/outgoing-handler@0.2.9" "handle" (func $handle (param i32 i32 i32 i32)))"#;

/// Reports come back as `requeue-after`: bytes read, or one of these plus the number of the error code (its place in the
/// variant). 38 is `internal-error`.
pub(crate) const HEAD_ERROR: u64 = 1_000_000_000;
pub(crate) const BODY_ERROR: u64 = 2_000_000_000;

/// `$new` a request to `kubernetes.default.svc/path`; `$send` it with an option of options, giving the future;
/// `$start` both; `$head` waits, giving the response or a negative code - 1; `$slurp` the body of a response, giving the
/// report; `$exchange` all of it.
pub(crate) const HTTP_ITEMS: &str = r#"
  (data (i32.const 16) "kubernetes.default.svc/path")
  (func $new (result i32) (local $r i32)
    (local.set $r (call $request_new (call $fields)))
    (drop (call $set_authority (local.get $r) (i32.const 1) (i32.const 16) (i32.const 22)))
    (drop (call $set_path (local.get $r) (i32.const 1) (i32.const 38) (i32.const 5)))
    (local.get $r))
  (func $send (param $request i32) (param $some i32) (param $options i32) (result i32)
    (call $handle (local.get $request) (local.get $some) (local.get $options) (i32.const 3072))
    (if (i32.load8_u (i32.const 3072)) (then unreachable))
    (i32.load (i32.const 3080)))
  (func $start (result i32) (call $send (call $new) (i32.const 0) (i32.const 0)))
  (func $head (param $future i32) (result i32)
    (call $block (call $subscribe (local.get $future)))
    (call $get (local.get $future) (i32.const 3072))
    (if (i32.ne (i32.load8_u (i32.const 3072)) (i32.const 1)) (then unreachable))
    (if (i32.load8_u (i32.const 3080)) (then unreachable))
    (if (result i32) (i32.load8_u (i32.const 3088))
      (then (i32.sub (i32.const -1) (i32.load8_u (i32.const 3096))))
      (else (i32.load (i32.const 3096)))))
  (func $open (param $response i32) (result i32)
    (call $consume (local.get $response) (i32.const 3072))
    (if (i32.load8_u (i32.const 3072)) (then unreachable))
    (call $body_stream (i32.load (i32.const 3076)) (i32.const 3072))
    (if (i32.load8_u (i32.const 3072)) (then unreachable))
    (i32.load (i32.const 3076)))
  (func $slurp (param $response i32) (result i64) (local $stream i32) (local $bytes i64) (local $heap i32)
    (local.set $heap (global.get $heap))
    (local.set $stream (call $open (local.get $response)))
    (loop $more (result i64)
      (global.set $heap (local.get $heap))
      (call $read (local.get $stream) (i64.const 65536) (i32.const 3072))
      (if (i32.eqz (i32.load8_u (i32.const 3072))) (then
        (local.set $bytes (i64.add (local.get $bytes) (i64.extend_i32_u (i32.load (i32.const 3080)))))
        (br $more)))
      (if (result i64) (i32.load8_u (i32.const 3076)) ;; closed
        (then (local.get $bytes))
        (else (call $body_error (i32.load (i32.const 3080)))))))
  (func $body_error (param $error i32) (result i64)
    (call $error_code (local.get $error) (i32.const 3072))
    (i64.add (i64.const 2000000000) (if (result i64) (i32.load8_u (i32.const 3072))
      (then (i64.load8_u (i32.const 3080)))
      (else (i64.const 99)))))
  (func $report (param $future i32) (result i64) (local $head i32)
    (local.set $head (call $head (local.get $future)))
    (if (result i64) (i32.lt_s (local.get $head) (i32.const 0))
      (then (i64.add (i64.const 1000000000) (i64.extend_i32_u (i32.sub (i32.const -1) (local.get $head)))))
      (else (call $slurp (local.get $head)))))
  (func $exchange (result i32) (call $requeue (call $report (call $start))))"#;

/// A guest that uses HTTP.
pub(crate) fn http(items: &str, reconcile: &str) -> Vec<u8> {
    Guest { imports: HTTP_IMPORTS, items: &format!("{HTTP_ITEMS}{items}"), reconcile, ..Guest::default() }.build()
}

/// A program. `run` is the body of its `run`, which leaves 0 or, if it has failed, 1 on the stack. Memory is as in [`Guest`].
pub(crate) fn program(imports: &str, items: &str, run: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
  {imports}
  (memory (export "memory") 1)
  {HEAP}
  {items}
  (func (export "wasi:cli/run@0.2.9#run") (result i32) {run}))"#
    );
    component("program", &module)
}
