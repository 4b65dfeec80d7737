//! The configuration of a ring.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::super::config::{Config, absolute};
use super::laps::namespace;

/// As many guests has the ring of the `wasm_config.yaml` in the checkout.
pub(in crate::demo) const GUESTS_IN_CHECKOUT: u16 = 10;
pub(super) const RING: &str = "target/wasm32-wasip2/guest/ring.wasm";

pub(super) fn for_guests(guests: u16) -> Result<Config> {
    if guests == GUESTS_IN_CHECKOUT {
        return Ok(Config::CheckedIn);
    }
    Config::made(&ring(guests, &absolute(RING)?))
}

fn ring(guests: u16, wasm: &Path) -> String {
    let mut documents = String::new();
    for index in 0..guests {
        let (from, to) = (namespace(index), namespace((index + 1) % guests));
        // Writing to a string cannot fail.
        let _ = write!(
            documents,
            "---\nname: {from}\nwasm: {wasm:?}\npermissions: as-requested\nsleep: {{mode: Fixed, idleAfter: 1s}}\n\
             env:\n  - {{name: IN_NAMESPACE, value: {from}}}\n  - {{name: OUT_NAMESPACE, value: {to}}}\n"
        );
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_guest_closes_the_ring() {
        let documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&ring(3, Path::new("/a b/ring.wasm"))).unwrap();
        assert_eq!(documents.len(), 3);
        assert_eq!(documents[2]["wasm"], "/a b/ring.wasm");
        assert_eq!(documents[2]["env"][1]["value"], "ring-0");
    }
}
