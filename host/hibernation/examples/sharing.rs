//! What instances of one component hold of their own, before and after they share their image, and asleep.
//!
//! `cargo run --release -p wasm-operator-hibernation --example sharing -- DIRECTORY COMPONENT.wasm...`
//!
//! The components are instantiated and not run; their imports are never called.

#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::path::Path;

use futures::FutureExt;
use wasm_operator_hibernation::{Hibernation, configure};
use wasmtime::component::{Component, Linker};
use wasmtime::error::Context;
use wasmtime::{Config, Engine, Store};

const INSTANCES: u64 = 20;
const RESERVATION: u64 = 256 << 20;

fn main() -> wasmtime::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("usage: sharing DIRECTORY COMPONENT.wasm...")?;
    let hibernation = Hibernation::open(Path::new(&directory), 1 << 30)?;
    let mut config = Config::new();
    configure(&mut config, RESERVATION);
    let engine = Engine::new(&config)?;
    println!("KiB of linear memory per instance ({INSTANCES} of each)");
    println!(
        "copied    private when shared    of files    asleep    on disk in all    first ms    others ms    component"
    );
    for path in arguments {
        let component = Component::from_file(&engine, &path)?;
        let mut linker = Linker::<()>::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let mut instances = vec![];
        let (mut copied, mut private, mut file, mut asleep) = (0, 0, 0, 0);
        let (mut first, mut others) = (0.0, 0.0);
        for number in 0..INSTANCES {
            let memories = hibernation.memories();
            let mut store = Store::new(&engine, ());
            let instance = memories.exclusive(linker.instantiate_async(&mut store, &component));
            instance.now_or_never().context("it waits for something")??;
            copied += memories.resident()?.private;
            let start = tokio::time::Instant::now();
            memories.share(&path)?;
            let took = start.elapsed().as_secs_f64() * 1e3;
            if number == 0 {
                first = took
            } else {
                others += took
            }
            private += memories.resident()?.private;
            file += memories.resident()?.file;
            instances.push((memories, store));
        }
        for (memories, _) in &instances {
            memories.hibernate()?;
            asleep += memories.resident()?.total();
        }
        let each = |bytes: u64| (bytes / INSTANCES) >> 10;
        println!(
            "{:<9} {:<22} {:<11} {:<9} {:<17} {first:<11.2} {:<12.2} {path}",
            each(copied),
            each(private),
            each(file),
            each(asleep),
            hibernation.disk_bytes() >> 10,
            others / (INSTANCES - 1) as f64,
        );
    }
    Ok(())
}
