//! A guest under test: an instance that runs as one long future, and the host's own account of what is in it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tempfile::TempDir;
use wasm_operator_hibernation::{Hibernation, InTurn, Memories, configure, guest_runs};
use wasmtime::{CallHook, Caller, Config, Engine, Instance, Linker, Module, Store, StoreContextMut};

/// What a guest may grow to, with one page of 64 KiB to spare above the 64 of `guest.wat`.
pub(crate) const RESERVATION: u64 = 65 << 16;
const WEIGHT: u64 = 0x9e37_79b9_7f4a_7c15;
const DIGEST: u64 = 0x2545_f491_4f6c_dd1d;
/// Functions that the guest's table has to begin with.
pub(crate) const FUNCTIONS: u64 = 1_000;
/// The heap begins behind the first page of 64 KiB.
pub(crate) const HEAP: usize = 64 << 10;

pub(crate) fn open(directory: &TempDir) -> Hibernation {
    Hibernation::open(directory.path(), 1 << 40).unwrap()
}

pub(crate) fn engine(reservation: u64) -> Engine {
    let mut config = Config::new();
    configure(&mut config, reservation);
    Engine::new(&config).unwrap()
}

/// A word of the image of [`Kind::with_image`].
pub(crate) fn image(word: u64) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| u8::try_from((word * 8 + byte as u64) % 251).unwrap()))
}

/// What the function at this place of the table answers.
pub(crate) fn function(element: u64) -> u64 {
    if element < FUNCTIONS { element * 31 + 5 } else { function(0) }
}

/// Functions whose records make an instance's context as large as a real program's.
fn functions() -> String {
    let names: String = (0..FUNCTIONS).map(|number| format!("$function{number} ")).collect();
    let each = (0..FUNCTIONS)
        .map(|number| format!("(func $function{number} (type $number) (i64.const {}))\n", function(number)));
    let table = format!("(table {FUNCTIONS} 100000 funcref)\n(elem (i32.const 0) {names})\n");
    each.collect::<String>() + &table
}

/// What makes guests: compiled once for many.
pub(crate) struct Kind {
    engine: Engine,
    module: Module,
    linker: Linker<Host>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    End,
    Write { word: u64, value: u64 },
    Read { word: u64 },
    Grow { pages: u64 },
    Check,
    Fill { value: u64 },
    Digest,
    Count,
    Happened { number: u64 },
    Call { element: u64 },
    GrowTable { elements: u64 },
}

impl Event {
    fn code(self) -> (i32, u64, u64) {
        match self {
            Self::End => (0, 0, 0),
            Self::Write { word, value } => (1, word, value),
            Self::Read { word } => (2, word, 0),
            Self::Grow { pages } => (3, pages, 0),
            Self::Check => (4, 0, 0),
            Self::Fill { value } => (5, value, 0),
            Self::Digest => (6, 0, 0),
            Self::Count => (7, 0, 0),
            Self::Happened { number } => (8, number, 0),
            Self::Call { element } => (9, element, 0),
            Self::GrowTable { elements } => (10, elements, 0),
        }
    }
}

/// What host and guest share besides memory.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Queues>>);

#[derive(Default)]
struct Queues {
    events: VecDeque<Event>,
    answers: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Kind {
    pub(crate) fn new() -> Self {
        Self::of(include_str!("guest.wat"), RESERVATION)
    }

    /// Of a guest whose image has so many pages of 64 KiB, see [`image`].
    pub(crate) fn with_image(pages: u64) -> Self {
        let bytes: String = (0..pages << 16).map(|byte| format!("\\{:02x}", byte % 251)).collect();
        let data = format!("(data (i32.const {HEAP}) \"{bytes}\")\n  (global $heap");
        // What `$weight` of the guest gives.
        let weigh = |word: u64| (word.wrapping_mul(WEIGHT) | 1).wrapping_mul(image(word));
        let sum = (0..pages << 13).fold(0_u64, |sum, word| sum.wrapping_add(weigh(word)));
        let sum: String = sum.to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect();
        let memory = format!("{} 64)\n  (data (i32.const 0) \"{sum}\")", pages + 1);
        let wat = include_str!("guest.wat").replace("2 64)", &memory).replace("(global $heap", &data);
        Self::of(&wat, RESERVATION)
    }

    pub(crate) fn of(wat: &str, reservation: u64) -> Self {
        let engine = engine(reservation);
        let wat = wat.replace("  ;; functions", &functions());
        let module = Module::new(&engine, wat::parse_str(wat).unwrap()).unwrap();
        let mut linker = Linker::new(&engine);
        linker
            .func_wrap_async("host", "next", |caller: Caller<'_, Host>, ()| {
                let Host(queues) = caller.data().clone();
                Box::new(poll_fn(move |context| {
                    let mut queues = queues.lock();
                    let Some(event) = queues.events.pop_front() else {
                        queues.waker = Some(context.waker().clone());
                        return Poll::Pending;
                    };
                    Poll::Ready(event.code())
                }))
            })
            .unwrap();
        linker
            .func_wrap("host", "answer", |caller: Caller<'_, Host>, answer: u64| {
                caller.data().0.lock().answers.push_back(answer);
            })
            .unwrap();
        Self { engine, module, linker }
    }

    pub(crate) fn guest(&self, memories: &Memories) -> Guest {
        let host = Host::default();
        let mut store = memories.in_turn(Store::new(&self.engine, host.clone()));
        store.call_hook(running);
        let instantiation = memories.instantiate(self.linker.instantiate_async(&mut *store, &self.module));
        let instance = ready(memories.exclusive(instantiation)).unwrap();
        Guest { memories: memories.clone(), host, store: Some((store, instance)), running: None, digest: 0, count: 0 }
    }
}

/// The hook of a store whose guest can be hibernated.
pub(crate) fn running<T>(_: StoreContextMut<'_, T>, transition: CallHook) -> wasmtime::Result<()> {
    if matches!(transition, CallHook::CallingWasm) {
        guest_runs();
    }
    Ok(())
}

/// Of a future that never waits.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("it waits")
}

pub(crate) struct Guest {
    pub(crate) memories: Memories,
    host: Host,
    store: Option<(InTurn<Store<Host>>, Instance)>,
    running: Option<Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>>,
    digest: u64,
    count: u64,
}

impl Guest {
    /// Tells the guest of an event, without having it run.
    pub(crate) fn send(&mut self, event: Event) {
        let (_, a, b) = event.code();
        self.count += 1;
        self.digest = self.digest.wrapping_mul(DIGEST).wrapping_add(a ^ b.rotate_left(32));
        let mut queues = self.host.0.lock();
        queues.events.push_back(event);
        if let Some(waker) = queues.waker.take() {
            waker.wake();
        }
    }

    /// Has the guest run until it waits. Whether it is still there.
    pub(crate) fn poll(&mut self, waker: &Waker) -> bool {
        if let Some((mut store, instance)) = self.store.take() {
            let run = self.memories.exclusive(async move {
                let run = instance.get_typed_func::<(), ()>(&mut *store, "run")?;
                run.call_async(&mut *store, ()).await
            });
            self.running = Some(Box::pin(run));
        }
        match self.running.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                result.unwrap();
                false
            }
        }
    }

    pub(crate) fn ask(&mut self, event: Event) -> u64 {
        self.send(event);
        assert!(self.poll(Waker::noop()));
        let mut queues = self.host.0.lock();
        let answer = queues.answers.pop_back().expect("no answer");
        queues.answers.clear();
        answer
    }

    /// Everything that was answered since.
    pub(crate) fn answers(&self) -> Vec<u64> {
        self.host.0.lock().answers.drain(..).collect()
    }

    pub(crate) fn write(&mut self, word: u64, value: u64) {
        self.ask(Event::Write { word, value });
    }

    /// The guest's heap adds up, and it has seen every event in order.
    pub(crate) fn is_sound(&mut self) -> bool {
        // These two questions are events themselves.
        let expected = (self.count + 1, self.digest.wrapping_mul(DIGEST).wrapping_mul(DIGEST));
        let found = (self.ask(Event::Count), self.ask(Event::Digest));
        self.ask(Event::Check) == 1 && found == expected
    }
}

/// How many files this process has open in the directory.
pub(crate) fn open_files(directory: &Path) -> usize {
    descriptors(directory).len()
}

/// The files that this process has open in the directory, by paths that lead to files without a name as well.
pub(crate) fn descriptors(directory: &Path) -> Vec<PathBuf> {
    // The kernel knows no symbolic links on the way.
    let directory = directory.canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    open.filter(|path| std::fs::read_link(path).is_ok_and(|file| file.starts_with(&directory))).collect()
}
