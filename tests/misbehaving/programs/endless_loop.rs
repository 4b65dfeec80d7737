//! Loops for ever in `reconcile`, without a host call.

use misbehaving::guest::{Answer, Object};

fn reconcile(_: Object) -> Answer {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

misbehaving::program!(reconcile);
