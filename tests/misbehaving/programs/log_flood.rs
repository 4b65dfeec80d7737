//! Writes 100,000 lines and one line of 4 MiB, then is done.

use misbehaving::guest::{Answer, Object, done};

fn reconcile(_: Object) -> Answer {
    for number in 0..100_000 {
        println!("line {number} of a flood that nobody wants to read, {:=<60}", "");
    }
    println!("{}", "long".repeat(1 << 20));
    done()
}

misbehaving::program!(reconcile);
