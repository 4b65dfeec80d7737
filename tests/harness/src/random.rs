//! Chosen at random, and the same again from the same seed.

/// Environment variable that repeats the random choices of an earlier run.
const SEED_VARIABLE: &str = "WASM_OPERATOR_TEST_SEED";

/// SplitMix64. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// With a seed of `WASM_OPERATOR_TEST_SEED`, or a new one. The seed is in the test's output.
    #[allow(clippy::print_stderr)]
    pub fn from_environment() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        eprintln!("random choices from {SEED_VARIABLE}={seed}");
        Self(seed)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}
