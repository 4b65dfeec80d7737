//! Recurses without end.

use misbehaving::guest::{Answer, Object, report};

#[inline(never)]
#[expect(unconditional_recursion, reason = "it is the point")]
fn down(depth: u64) -> u64 {
    down(std::hint::black_box(depth + 1)).rotate_left(1) ^ depth
}

fn reconcile(object: Object) -> Answer {
    report(format!("came back with {}", down(u64::from(object.attempt))))
}

misbehaving::program!(reconcile);
