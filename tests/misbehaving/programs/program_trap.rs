//! A program of the world `operator` that traps at once.

fn main() {
    misbehaving::unless_well_behaved();
    std::process::abort()
}
