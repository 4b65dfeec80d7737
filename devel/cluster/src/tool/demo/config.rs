//! Which `wasm_config.yaml` the host reads.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::TempPath;

use super::ring::namespace;

/// As many guests has the ring of the `wasm_config.yaml` in the checkout.
pub(super) const GUESTS_IN_CHECKOUT: u16 = 10;
const CHECKED_IN: &str = "wasm_config.yaml";
pub(super) const RING: &str = "target/wasm32-wasip2/release/ring.wasm";

pub(super) enum Config {
    CheckedIn,
    Made(TempPath),
}

impl Config {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::CheckedIn => Path::new(CHECKED_IN),
            Self::Made(path) => path,
        }
    }
}

pub(super) fn for_guests(guests: u16) -> Result<Config> {
    if guests == GUESTS_IN_CHECKOUT {
        return Ok(Config::CheckedIn);
    }
    let wasm = std::path::absolute(RING).context("no current directory")?;
    let file = tempfile::Builder::new()
        .prefix("wasm_config-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a configuration file")?;
    let path = file.into_temp_path();
    std::fs::write(&path, ring(guests, &wasm)).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(Config::Made(path))
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
