//! A program of the world `operator` that allocates and writes memory without end.

fn main() {
    misbehaving::unless_well_behaved();
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
    }
}
