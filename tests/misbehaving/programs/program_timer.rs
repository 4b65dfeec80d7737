//! A program of the world `operator` that waits for `AFTER` milliseconds, says `tick`, and begins again.

use std::time::Duration;

fn main() {
    let after = std::env::var("AFTER").unwrap().parse().unwrap();
    loop {
        std::thread::sleep(Duration::from_millis(after));
        println!("tick");
    }
}
