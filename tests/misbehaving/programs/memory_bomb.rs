//! Allocates and writes memory until there is none.

use misbehaving::guest::{Answer, Object};

fn reconcile(_: Object) -> Answer {
    let mut bombs = Vec::new();
    loop {
        bombs.push(std::hint::black_box(vec![0xA5_u8; 1 << 20]));
    }
}

misbehaving::program!(reconcile);
