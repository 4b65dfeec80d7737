//! Guests with more than one memory.

use wasm_operator_hibernation::{Hibernation, Memories};
use wasmtime::{Engine, Instance, Linker, Module, Store, WasmParams, WasmResults};

use crate::alone::directory;
use crate::guest::{engine, open, open_files, ready};

/// Its memories of 128 and 192 KiB are full of 1 and 2 when it begins.
const TWO: &str = r#"(module
  (memory $a 2 8)
  (memory $b 3 8)
  (func (export "read a") (param i32) (result i32) (i32.load8_u $a (local.get 0)))
  (func (export "read b") (param i32) (result i32) (i32.load8_u $b (local.get 0)))
  (func (export "write a") (param i32 i32) (i32.store8 $a (local.get 0) (local.get 1)))
  (func (export "write b") (param i32 i32) (i32.store8 $b (local.get 0) (local.get 1)))
  (func (export "grow b") (result i32) (memory.grow $b (i32.const 1)))
  (func $fill
    (memory.fill $a (i32.const 0) (i32.const 1) (i32.const 0x20000))
    (memory.fill $b (i32.const 0) (i32.const 2) (i32.const 0x30000)))
  (start $fill))"#;
const PAGE: i32 = 4 << 10;
const PAGES_OF_A: i32 = 32;
const PAGES_OF_B: i32 = 48;

struct Two {
    memories: Memories,
    store: Store<()>,
    instance: Instance,
}

impl Two {
    fn new(engine: &Engine, module: &Module, hibernation: &Hibernation) -> Self {
        let (memories, mut store) = (hibernation.memories(), Store::new(engine, ()));
        let linker = Linker::new(engine);
        let instance = ready(memories.exclusive(linker.instantiate_async(&mut store, module))).unwrap();
        Self { memories, store, instance }
    }

    fn call<A: WasmParams + Sync, R: WasmResults + Sync>(&mut self, name: &str, arguments: A) -> R {
        let Self { memories, store, instance } = self;
        let function = instance.get_typed_func::<A, R>(&mut *store, name).unwrap();
        ready(memories.exclusive(function.call_async(store, arguments))).unwrap()
    }

    /// What each page of the memory begins with.
    fn pages(&mut self, name: &str, pages: i32) -> Vec<i32> {
        (0..pages).map(|page| self.call(name, page * PAGE)).collect()
    }

    fn sleeps(&mut self) -> u64 {
        let report = self.memories.hibernate().unwrap();
        assert_eq!(self.memories.resident().unwrap().total(), 0);
        report.pages
    }
}

#[test]
fn a_guest_with_two_memories_sleeps_and_wakes_with_both() {
    let (directory, engine) = (directory(), engine(8 << 16));
    let module = Module::new(&engine, wat::parse_str(TWO).unwrap()).unwrap();
    let mut guest = Two::new(&engine, &module, &open(&directory));
    assert_eq!(guest.sleeps(), 32 + 48);
    assert_eq!(open_files(directory.path()), 2);
    assert_eq!(guest.pages("read a", PAGES_OF_A), [1; 32]);
    assert_eq!(guest.pages("read b", PAGES_OF_B), [2; 48]);

    // The same place in both, of which one changes and then the other.
    let () = guest.call("write b", (7 * PAGE, 20));
    assert_eq!(guest.sleeps(), 1);
    let () = guest.call("write a", (7 * PAGE, 10));
    assert_eq!(guest.call::<_, i32>("grow b", ()), 3);
    let () = guest.call("write b", (PAGES_OF_B * PAGE, 21));
    assert_eq!(guest.sleeps(), 2);
    let mut a = vec![1; 32];
    a[7] = 10;
    let mut b = [vec![2; 48], vec![21], vec![0; 15]].concat();
    b[7] = 20;
    assert_eq!(guest.pages("read a", PAGES_OF_A), a);
    assert_eq!(guest.pages("read b", PAGES_OF_B + 16), b);
}

#[test]
fn each_memory_of_a_component_has_an_image_of_its_own() {
    let (directory, engine) = (directory(), engine(8 << 16));
    let hibernation = open(&directory);
    let module = Module::new(&engine, wat::parse_str(TWO).unwrap()).unwrap();
    let mut guests: Vec<_> = (0..3).map(|_| Two::new(&engine, &module, &hibernation)).collect();
    for guest in &guests {
        assert_eq!(guest.memories.share("two").unwrap(), 5 << 16);
    }
    assert_eq!(open_files(directory.path()), 2);
    for (guest, number) in guests.iter_mut().zip(100..) {
        let () = guest.call("write a", (9 * PAGE, number));
        guest.sleeps();
    }
    for (guest, number) in guests.iter_mut().zip(100..) {
        let mut a = vec![1; 32];
        a[9] = number;
        assert_eq!(guest.pages("read a", PAGES_OF_A), a);
        assert_eq!(guest.pages("read b", PAGES_OF_B), [2; 48]);
    }
}
