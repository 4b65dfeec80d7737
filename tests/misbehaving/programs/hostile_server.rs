//! Answers HTTP requests as no guest should, as the path says; built on `wasi:http` itself.
//!
//! | Path | Answer |
//! |---|---|
//! | `/endless` | a body without end |
//! | `/trap-in-body` | 64 KiB of a body, then traps |
//! | `/short` | says 1,000 bytes in its head and sends 10 |
//! | `/none` | returns without an answer |
//! | `/error` | an error for an answer |
//! | `/interim` | the status 101 |
//! | `/headers` | 8 KiB of headers |
//! | `/leak` | keeps the handles of its request |
//! | `/after` | `ok`, and works on for 200 ms afterwards |
//! | anything else | `ok` |

use misbehaving::guest::bindings::Guest;
use misbehaving::guest::{Answer, Object, description, done, types};
use wasip2::exports::http::incoming_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Program;

impl Guest for Program {
    fn describe() -> Result<types::Description, String> {
        Ok(description(env!("CARGO_CRATE_NAME")))
    }

    fn reconcile(request: types::Request) -> Answer {
        let _ = Object::from(request);
        done()
    }
}

const PART: [u8; 4096] = [b'x'; 4096];

/// Sends the head and returns the body that is to be written.
fn begin(out: ResponseOutparam, status: u16, headers: &[(&str, Vec<u8>)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> bool {
    body.write().is_ok_and(|stream| stream.blocking_write_and_flush(bytes).is_ok())
}

fn ok(out: ResponseOutparam) {
    let body = begin(out, 200, &[]);
    write(&body, b"ok");
    let _ = OutgoingBody::finish(body, None);
}

impl incoming_handler::Guest for Program {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.as_str() {
            "/endless" => {
                let body = begin(out, 200, &[]);
                let stream = body.write().unwrap();
                while stream.blocking_write_and_flush(&PART).is_ok() {}
            }
            "/trap-in-body" => {
                let body = begin(out, 200, &[]);
                let stream = body.write().unwrap();
                for _ in 0..16 {
                    let _ = stream.blocking_write_and_flush(&PART);
                }
                std::process::abort();
            }
            "/short" => {
                let body = begin(out, 200, &[("content-length", b"1000".to_vec())]);
                write(&body, b"0123456789");
                let _ = OutgoingBody::finish(body, None);
            }
            "/none" => drop(out),
            "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("no idea".to_owned())))),
            "/interim" => drop(begin(out, 101, &[])),
            "/headers" => drop(begin(out, 200, &[("x-large", vec![b'x'; 8 << 10])])),
            "/leak" => {
                std::mem::forget(request);
                ok(out);
            }
            "/after" => {
                ok(out);
                let later = wasip2::clocks::monotonic_clock::subscribe_duration(200_000_000);
                later.block();
                println!("after");
            }
            _ => ok(out),
        }
    }
}

misbehaving::guest::bindings::export!(Program with_types_in misbehaving::guest::bindings);
wasip2::http::proxy::export!(Program);
