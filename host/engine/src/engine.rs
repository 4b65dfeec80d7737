//! The engine of the whole host: one wasmtime configuration, one linker, one cache, one epoch clock.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasm_operator_core::description::Description;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Config, OptLevel};

use crate::cache::{Artifact, Cache};
use crate::compile::{self, CompileError, CompileLimits};
use crate::component::{Component, GuestSettings};
use crate::contract::{Interface, World};
use crate::error::{EngineError, LoadError, PrepareError};
use crate::program::Program;
use crate::rest::{self, Code};
use crate::stacks::Stacks;
use crate::state::State;
use crate::ticker::Ticker;

/// Address space of one linear memory. A memory that grows beyond is moved once. wasmtime's default of 4 GiB saves bounds
/// checks and takes address space that small machines do not grant.
const MEMORY_RESERVATION: u64 = 256 << 20;
/// Address space added when a memory is moved.
const MEMORY_GROWTH: u64 = 64 << 20;
/// Address space of a linear memory that never moves: whatever its limit, it fits.
const OPERATOR_MEMORY_RESERVATION: u64 = 4 << 30;
/// Stack for host functions above a guest's own. They hand work to tasks, so they are shallow.
const HOST_STACK_BYTES: usize = 512 << 10;
/// The default of [`EngineOptions::stack_bytes`]; what wasmtime and most native main programs of guests assume.
const STACK_BYTES: usize = 512 << 10;
/// The default of [`EngineOptions::cache_bytes`]: some hundred Rust guests or thirty Python ones.
pub const CACHE_BYTES: u64 = 1 << 30;

/// Files that are read at once. They are in the page cache or on one disk, and each takes a thread: a hundred guests that start
/// together would leave a hundred threads, with what they touched, for the ten seconds that idle ones live.
const READING: usize = 4;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where compiled components and descriptions are kept. Made if missing, mode 0700, the host's own.
    pub cache_directory: PathBuf,
    /// The command that compiles, such as `["/proc/self/exe", "compile"]`. It gets three more arguments: the component, the
    /// file to write, and the SHA-256 of the component in hexadecimal digits. It must call [`compile`](crate::compile()),
    /// write an error to stderr and end with 0 on success. It runs without environment, in `/`.
    pub compiler: Vec<OsString>,
    /// Bytes that the cache may hold; the least recently used files go first. Files that guests use stay, even if they alone are
    /// more: a guest whose file is gone would have to be compiled at its next wake.
    pub cache_bytes: u64,
    /// WebAssembly stack of a guest in bytes. wasmtime has one for all guests. Default 512 KiB.
    pub stack_bytes: usize,
    /// What compiling may use.
    pub compile: CompileLimits,
}

impl EngineOptions {
    /// The defaults.
    #[must_use]
    pub fn new(cache_directory: PathBuf, compiler: Vec<OsString>) -> Self {
        Self {
            cache_directory,
            compiler,
            cache_bytes: CACHE_BYTES,
            stack_bytes: STACK_BYTES,
            compile: CompileLimits::default(),
        }
    }
}

/// Compiles and loads guests. A handle: clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// One of wasmtime's engines, for the components of one world.
pub(crate) struct Machine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    /// What compiled code depends on besides the component.
    compatibility: u64,
}

impl Machine {
    /// Maps a compiled component of this world and links it. Takes 0.1-2 ms, mostly page faults.
    #[allow(unsafe_code)]
    pub(crate) fn map(&self, artifact: &Artifact) -> Result<(InstancePre<State>, Interface), LoadError> {
        if !artifact.is_current() {
            return Err(LoadError::Stale { path: artifact.path().to_owned() });
        }
        // SAFETY: the file must be the unmodified output of wasmtime's compiler. Only the host's user can write to the
        // directory; the host puts nothing there but what its own compile child wrote from a component of this digest; the
        // checksum in the file's name was compared after that, and the file is still the same one.
        let component = unsafe { wasmtime::component::Component::deserialize_file(&self.wasmtime, artifact.path()) }
            .map_err(|error| LoadError::Map { path: artifact.path().to_owned(), message: format!("{error:#}") })?;
        let interface = Interface::of(&component.component_type(), &self.wasmtime);
        interface.check()?;
        let pre = self.linker.instantiate_pre(&component).map_err(LoadError::link)?;
        Ok((pre, interface))
    }
}

pub(crate) struct Inner {
    pub(crate) controllers: Machine,
    pub(crate) operators: Machine,
    pub(crate) ticker: Ticker,
    pub(crate) stack_bytes: u64,
    cache: Cache,
    compiler: Vec<OsString>,
    compile_limits: CompileLimits,
    compiling: Semaphore,
    /// Places for work on files.
    reading: Semaphore,
    /// Components that are looked up or compiled now.
    under_way: AtomicUsize,
    /// One entry per component that is being prepared, so that twenty guests of one component compile it once.
    preparing: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// For those that are still loaded: what of their code can be let go.
    loaded: Arc<Mutex<Vec<Weak<dyn Code>>>>,
}

/// wasmtime's version, which is part of the cache's key.
const WASMTIME: &str = "48.0.8";

/// The configuration that shapes the generated code: the same in the host and in the compile child.
pub(crate) fn config(world: World, stack_bytes: usize) -> Config {
    let mut config = Config::new();
    match world {
        World::Controller => {
            config
                .memory_reservation(MEMORY_RESERVATION)
                .memory_reservation_for_growth(MEMORY_GROWTH)
                .memory_init_cow(true);
        }
        World::Operator => wasm_operator_hibernation::configure(&mut config, OPERATOR_MEMORY_RESERVATION),
    }
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // Only needed to unwind through guests from outside, which nothing here does; registering it costs memory.
        .native_unwind_info(false)
        .max_wasm_stack(stack_bytes)
        .async_stack_size(stack_bytes.saturating_add(HOST_STACK_BYTES));
    config
}

/// What compiled code depends on besides the component. wasmtime's own hash of that needs a compiler in this process,
/// which is some hundred KiB that would stay. wasmtime checks what it loads once more.
fn compatibility(config: &Config) -> u64 {
    let mut hasher = DefaultHasher::new();
    let text = format!("{config:?}");
    // Some of it comes out of a hash map, in any order.
    let mut settings: Vec<_> = text.split([',', '{', '}']).map(str::trim).collect();
    settings.sort_unstable();
    (WASMTIME, settings, processor()).hash(&mut hasher);
    hasher.finish()
}

/// What Cranelift makes use of where the processor has it.
fn processor() -> Vec<bool> {
    macro_rules! has {
        ($($feature:tt)*) => { vec![$(std::arch::is_x86_feature_detected!($feature)),*] };
    }
    has!("sse3" "ssse3" "sse4.1" "sse4.2" "cmpxchg16b" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma"
        "avx512f" "avx512dq" "avx512vl" "avx512bitalg" "avx512vbmi")
}

impl Engine {
    /// Makes the cache directory and starts the epoch thread, which is idle until a guest runs.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let EngineOptions { cache_directory, compiler, cache_bytes, stack_bytes, compile } = options;
        if compiler.is_empty() {
            return Err(EngineError::NoCompiler);
        }
        let describe = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let stacks = Stacks::default();
        let machine = |world| Machine::new(world, stack_bytes, &stacks).map_err(describe);
        let (controllers, operators) = (machine(World::Controller)?, machine(World::Operator)?);
        let engines = [controllers.wasmtime.weak(), operators.wasmtime.weak()];
        let tick = move || {
            for engine in engines.iter().filter_map(wasmtime::EngineWeak::upgrade) {
                engine.increment_epoch();
            }
        };
        let loaded = Arc::<Mutex<Vec<Weak<dyn Code>>>>::default();
        let to_rest = Arc::clone(&loaded);
        let rest = move || {
            let loaded: Vec<_> = to_rest.lock().iter().filter_map(Weak::upgrade).collect();
            loaded.iter().for_each(|component| rest::release(component.code()));
            rest::release_host();
        };
        let ticker = Ticker::start(tick, rest).map_err(EngineError::Thread)?;
        Ok(Self(Arc::new(Inner {
            controllers,
            operators,
            ticker,
            stack_bytes: u64::try_from(stack_bytes).unwrap_or(u64::MAX),
            cache: Cache::open(cache_directory, cache_bytes)?,
            compiler,
            compiling: Semaphore::new(compile.at_once.max(1)),
            reading: Semaphore::new(READING),
            under_way: AtomicUsize::new(0),
            compile_limits: compile,
            preparing: Mutex::default(),
            loaded,
        })))
    }

    /// Looks the component up in the cache and compiles it in a child process if it is not there, or no longer whole.
    pub async fn prepare(&self, wasm: &Path) -> Result<Artifact, PrepareError> {
        let inner = &self.0;
        let under_way = UnderWay::new(inner);
        let prepared = self.find_or_compile(wasm).await;
        // While many guests start, what one of them will look up must not go to make room for another one's.
        drop(under_way);
        if inner.under_way.load(Ordering::Relaxed) == 0 && inner.cache.has_grown() {
            let inner = Arc::clone(inner);
            let evict = move || {
                inner.cache.evict();
                Ok(())
            };
            // What was prepared is good all the same.
            if let Err(error) = self.0.in_background(evict).await {
                tracing::warn!(%error, "cannot evict from the cache");
            }
        }
        prepared
    }

    async fn find_or_compile(&self, wasm: &Path) -> Result<Artifact, PrepareError> {
        let inner = &self.0;
        let path = std::path::absolute(wasm).map_err(|source| PrepareError::Read { path: wasm.into(), source })?;
        let limit = inner.compile_limits.component_bytes;
        let (digest, world) = inner.in_background(move || compile::digest_component(&path, limit)).await?;
        let key = format!("{digest}-{:016x}", inner.machine(world).compatibility);
        let turn = inner.turn(&key);
        let _turn = turn.lock().await;
        // The second guest of a component need not read its file again.
        if let Some(artifact) = inner.cache.used(&key) {
            return Ok(artifact);
        }
        match self.look_up(&key, world).await? {
            Some(artifact) => Ok(artifact),
            None => self.compile(wasm, &digest, &key, world).await,
        }
    }

    async fn look_up(&self, key: &str, world: World) -> Result<Option<Artifact>, PrepareError> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        self.0.in_background(move || inner.cache.look_up(&key, world).map_err(PrepareError::Cache)).await
    }

    async fn compile(&self, wasm: &Path, digest: &str, key: &str, world: World) -> Result<Artifact, PrepareError> {
        let inner = &self.0;
        let failed = |source| PrepareError::Compile { path: wasm.into(), source };
        let output = inner.cache.scratch().map_err(PrepareError::Cache)?;
        let took = {
            // Closed never, so this only waits.
            let _permit = inner.compiling.acquire().await;
            let began = Instant::now();
            let compiled = compile::in_child(&inner.compiler, wasm, output.file(), digest, &inner.compile_limits).await;
            if let Err(error) = compiled {
                let (path, limit) = (wasm.to_owned(), inner.compile_limits.component_bytes);
                let now = inner.in_background(move || compile::digest_component(&path, limit)).await;
                // While it is written it may be anything, or nothing.
                let is_same = now.is_ok_and(|(now, _)| now == digest);
                return Err(if is_same { failed(error) } else { PrepareError::Changed { path: wasm.into() } });
            }
            began.elapsed()
        };
        let kind = wasmtime::Engine::detect_precompiled_file(output.file());
        if !matches!(kind, Ok(Some(wasmtime::Precompiled::Component))) {
            return Err(failed(CompileError::NoComponent));
        }
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        self.0.in_background(move || inner.cache.insert(&key, output, world, took).map_err(PrepareError::Cache)).await
    }

    /// Maps the compiled component and links it: from cold to dormant. Takes 0.1-2 ms, mostly page faults.
    pub fn load(&self, artifact: &Artifact) -> Result<Arc<Component>, LoadError> {
        let component = Component::load(Arc::clone(&self.0), artifact).map(Arc::new)?;
        self.0.note(component.clone());
        Ok(component)
    }

    /// Maps the compiled program and links it. Takes 0.1-2 ms, mostly page faults.
    pub fn load_program(&self, artifact: &Artifact) -> Result<Arc<Program>, LoadError> {
        let program = Program::load(Arc::clone(&self.0), artifact).map(Arc::new)?;
        self.0.note(program.clone());
        Ok(program)
    }

    /// The description that was stored for this component with the same environment and arguments.
    #[must_use]
    pub fn cached_description(&self, artifact: &Artifact, settings: &GuestSettings) -> Option<Description> {
        self.0.cache.description(artifact, settings)
    }

    /// Keeps a description beside the compiled component, so that a restart of the host wakes nobody.
    pub fn store_description(
        &self,
        artifact: &Artifact,
        settings: &GuestSettings,
        description: &Description,
    ) -> std::io::Result<()> {
        self.0.cache.store_description(artifact, settings, description)
    }
}

impl Machine {
    fn new(world: World, stack_bytes: usize, stacks: &Stacks) -> wasmtime::Result<Self> {
        let mut config = config(world, stack_bytes);
        let compatibility = compatibility(&config);
        config.enable_compiler(false);
        config.with_host_stack(Arc::new(stacks.clone()));
        let wasmtime = wasmtime::Engine::new(&config)?;
        let linker = crate::linker::linker(&wasmtime)?;
        Ok(Self { wasmtime, linker, compatibility })
    }
}

/// Counts a component among those that are prepared, as long as this lives.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.under_way.fetch_add(1, Ordering::Relaxed);
        Self(&inner.under_way)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    /// Runs work on files outside of the threads that serve guests.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
    ) -> Result<T, PrepareError> {
        // Closed never, so this only waits.
        let _permit = self.reading.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(PrepareError::Cache(std::io::Error::other(error))),
        }
    }

    /// Has its code let go when no guest runs.
    fn note(&self, code: Arc<dyn Code>) {
        let mut loaded = self.loaded.lock();
        loaded.retain(|code| code.strong_count() > 0);
        loaded.push(Arc::downgrade(&code));
    }

    fn machine(&self, world: World) -> &Machine {
        match world {
            World::Controller => &self.controllers,
            World::Operator => &self.operators,
        }
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut preparing = self.preparing.lock();
        preparing.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = preparing.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        preparing.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_key_is_that_of_the_dependency() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"\n")));
    }

    #[test]
    fn the_key_changes_with_what_shapes_the_code() {
        let config = |world| config(world, STACK_BYTES);
        let one = config(World::Controller);
        let mut other = config(World::Controller);
        other.cranelift_opt_level(OptLevel::None);
        let mut third = config(World::Controller);
        third.epoch_interruption(false);

        assert_eq!(compatibility(&one), compatibility(&config(World::Controller)));
        assert_ne!(compatibility(&one), compatibility(&config(World::Operator)));
        assert_ne!(compatibility(&one), compatibility(&other));
        assert_ne!(compatibility(&one), compatibility(&third));
    }
}
