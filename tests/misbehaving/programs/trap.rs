//! Traps in each reconcile.

use misbehaving::guest::{Answer, Object};

fn reconcile(_: Object) -> Answer {
    std::process::abort()
}

misbehaving::program!(reconcile);
