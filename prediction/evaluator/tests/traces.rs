//! The traces in the repository.

#[path = "../examples/generate-traces.rs"]
#[allow(dead_code, unreachable_pub, reason = "the example's `main` is not called here")]
mod generate_traces;

use std::path::Path;

#[test]
fn the_generated_traces_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    for (name, text) in generate_traces::traces() {
        let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            stored == text,
            "`prediction/traces/{name}` is stale; renew it with `cargo run -p wasm-operator-evaluator --example generate-traces`"
        );
    }
}
