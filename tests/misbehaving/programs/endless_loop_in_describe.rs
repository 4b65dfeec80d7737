//! Loops for ever in `describe`: the guest never starts.

use misbehaving::guest::types::{Description, Request};
use misbehaving::guest::{Answer, bindings, done};

struct Program;

impl bindings::Guest for Program {
    fn describe() -> Result<Description, String> {
        let mut number = 0_u64;
        loop {
            number = std::hint::black_box(number.wrapping_add(1));
        }
    }

    fn reconcile(_: Request) -> Answer {
        done()
    }
}

bindings::export!(Program with_types_in bindings);
