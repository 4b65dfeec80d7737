//! A guest of the world `operator`: a program with a loop of its own.

use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasm_operator_core::limits::Limits;
use wasm_operator_hibernation::{HibernateError, InTurn, Memories, guest_runs};
use wasmtime::component::InstancePre;
use wasmtime::{CallHook, Store};
use wasmtime_wasi::p2::bindings::{Command, CommandIndices};

use crate::cache::Artifact;
use crate::call::{self, Allowance, Call, Turn};
use crate::component::{GuestSettings, loaded_bytes};
use crate::contract::Interface;
use crate::engine::Inner;
use crate::error::{CallError, LoadError};
use crate::http::OutgoingHttp;
use crate::logs::GuestLogs;
use crate::meter::Meter;
use crate::rest::{self, Code};
use crate::state::State;

const PAGE_BYTES: u64 = 4 << 10;

/// A compiled, mapped and linked program. Shared by all guests that run it.
pub struct Program {
    engine: Arc<Inner>,
    pre: InstancePre<State>,
    command: CommandIndices,
    interface: Interface,
    bytes: u64,
    /// SHA-256 of the component: what guests of the same one may share.
    digest: String,
}

/// Is told when a program has its thread and when it waits. Called by the thread that runs it: takes short locks and
/// never waits.
pub trait Turns: Send + Sync {
    /// The program goes on.
    fn begins(&self);
    /// The program waits for the host: for a socket, a request or a timer, the earliest of which is due at `timer`. Not called
    /// when it merely lets others have their turn.
    fn waits(&self, timer: Option<Instant>);
}

/// A program that is about to run: its store, with the limits of one guest.
pub struct ProgramRun {
    program: Arc<Program>,
    store: InTurn<Store<State>>,
    memories: Memories,
    meter: Arc<Meter>,
    limits: Limits,
}

/// What a running program uses.
#[derive(Clone)]
pub struct Usage(Arc<Meter>);

impl Usage {
    /// CPU time so far, host functions included.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.0.total()
    }

    /// Bytes of linear memory over all memories, touched or not.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory()
    }

    /// An estimate of the memory that is this program's alone: the pages that the kernel had to provide while it ran.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        self.0.faults().saturating_mul(PAGE_BYTES)
    }
}

impl Code for Program {
    fn code(&self) -> Range<usize> {
        rest::image(self.pre.component())
    }
}

impl Program {
    pub(crate) fn load(engine: Arc<Inner>, artifact: &Artifact) -> Result<Self, LoadError> {
        let (pre, interface) = engine.operators.map(artifact)?;
        let command = CommandIndices::new(&pre).map_err(LoadError::link)?;
        let digest = artifact.digest().to_owned();
        Ok(Self { bytes: loaded_bytes(artifact), engine, pre, command, interface, digest })
    }

    /// What it imports and exports.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// An estimate of the anonymous memory that this program holds while it is loaded; the code itself is file-backed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the store of one run. `endpoint` is the one address that the program may connect to; its linear memories will
    /// be among `memories`.
    pub fn start(
        self: &Arc<Self>,
        settings: &GuestSettings,
        memories: Memories,
        endpoint: SocketAddr,
        http: Arc<dyn OutgoingHttp>,
        logs: &Arc<GuestLogs>,
    ) -> ProgramRun {
        let wasmtime = &self.engine.operators.wasmtime;
        let mut store = memories.in_turn(State::store(wasmtime, settings, Some(http), logs, Some(endpoint)));
        store.call_hook(|_, transition| {
            if matches!(transition, CallHook::CallingWasm) {
                guest_runs();
            }
            Ok(())
        });
        let meter = Arc::clone(&store.data().meter);
        ProgramRun { program: Arc::clone(self), store, memories, meter, limits: settings.limits.clone() }
    }
}

impl ProgramRun {
    /// What it uses, for others to see while it runs.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage(Arc::clone(&self.meter))
    }

    /// Runs the program until it ends, which no controller does by itself: the answer is always an error. Dropping the
    /// future ends the program at once and gives everything back.
    pub async fn run(self, turns: &dyn Turns) -> CallError {
        let Self { program, mut store, memories, meter, limits } = self;
        let allowance = Allowance { limits: &limits, stack_bytes: program.engine.stack_bytes, call: Call::Run };
        meter.begin(allowance.cpu());
        store.data_mut().hooks.begin_call();
        let timers = Arc::clone(&store.data().timers);
        store.set_epoch_deadline(1);
        // A program that only yields goes on with the turn that it has.
        let mut goes_on = false;
        let mut turn = |turn| match turn {
            Turn::Begins if goes_on => {}
            Turn::Begins => {
                meter.renew();
                turns.begins();
            }
            Turn::Yields => goes_on = true,
            Turn::Waits => {
                goes_on = false;
                turns.waits(timers.next());
            }
        };
        let ticker = &program.engine.ticker;
        let made = memories
            .exclusive(call::metered(ticker, &meter, program.instantiate(&mut store, &memories), &mut turn))
            .await;
        let ended = match made {
            Ok(command) => {
                if let Err(error) = program.share(&memories).await {
                    return CallError::Panic(error.to_string());
                }
                let run = command.wasi_cli_run();
                memories.exclusive(call::metered(ticker, &meter, run.call_run(&mut *store), &mut turn)).await
            }
            Err(fault) => Err(fault),
        };
        let error = match ended {
            Ok(result) => {
                store.data().output.flush();
                CallError::Returned { failed: result.is_err(), last_stderr: store.data().output.last_stderr() }
            }
            Err(fault) => allowance.explain(fault, store.data()),
        };
        // After a panic, so might the drop.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
        error
    }
}

impl Program {
    async fn instantiate(&self, store: &mut Store<State>, memories: &Memories) -> wasmtime::Result<Command> {
        let instance = memories.instantiate(self.pre.instantiate_async(&mut *store)).await?;
        self.command.load(&mut *store, &instance)
    }

    /// Gives back what this instance has in common with others of the component. It waits for the disk, which others on
    /// this thread shall not. An error means that it may not run.
    async fn share(&self, memories: &Memories) -> Result<(), HibernateError> {
        let (memories, digest) = (memories.clone(), self.digest.clone());
        let shared = tokio::task::spawn_blocking(move || memories.share(&digest)).await;
        match shared {
            Ok(Ok(bytes)) => tracing::debug!(bytes, "the program shares its image with others of its component"),
            Ok(Err(HibernateError::Off)) | Err(_) => {}
            Ok(Err(error)) if error.is_fatal() => return Err(error),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the program does not share its image with others of its component");
            }
        }
        Ok(())
    }
}
