//! A program of the world `operator` that waits for `AFTER` milliseconds, says `tick`, and begins again. Before each `tick` it writes to
//! each page of `TOUCHES` MiB, which it has from the start.

use std::time::Duration;

const PAGE_BYTES: usize = 4096;

fn main() {
    let variable = |name| std::env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let after = Duration::from_millis(variable("AFTER").unwrap());
    let mut touched = vec![1_u8; usize::try_from(variable("TOUCHES").unwrap_or(0)).unwrap() << 20];
    loop {
        std::thread::sleep(after);
        for byte in touched.iter_mut().step_by(PAGE_BYTES) {
            *byte = byte.wrapping_add(1);
        }
        println!("tick");
    }
}
