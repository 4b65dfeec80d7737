//! Guests whose wake is dear.

use std::path::PathBuf;

use harness::{Result, component, target};

/// Ballast of the guests: what the reference's experiment on prediction used.
const BALLAST_BYTES: u64 = 90 << 20;

/// A guest to replay traces with.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// As it is called in the results.
    pub(super) name: &'static str,
    /// Its component.
    pub(super) wasm: PathBuf,
    /// Bytes that an instance allocates and writes to when it starts.
    pub(super) ballast: u64,
}

/// The guests that are built, and why the others are not.
pub(super) fn programs() -> Result<(Vec<Program>, Vec<String>)> {
    let mut built = vec![Program { name: "Rust, 90 MiB", wasm: component("ring")?, ballast: BALLAST_BYTES }];
    let mut skipped = Vec::new();
    for (name, file) in [("JavaScript", "ring-javascript"), ("Python", "ring-python")] {
        let wasm = target()?.join("guests").join(format!("{file}.wasm"));
        if wasm.is_file() {
            built.push(Program { name, wasm, ballast: 0 });
        } else {
            skipped.push(format!("{name}: `{}` does not exist; `guests/{file}/build` builds it", wasm.display()));
        }
    }
    Ok((built, skipped))
}
