//! A program of the world `operator` whose `main` returns.

fn main() {
    misbehaving::unless_well_behaved();
}
