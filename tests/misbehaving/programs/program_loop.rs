//! A program of the world `operator` that loops without a host call.

fn main() {
    misbehaving::unless_well_behaved();
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count).wrapping_add(1);
    }
}
