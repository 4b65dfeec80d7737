//! One call into a guest: driven, measured, bounded, and if it fails, explained.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use wasm_operator_core::limits::Limits;
use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use crate::error::{CallError, Limit};
use crate::meter::{Meter, Stop};
use crate::state::{HOST_CALL_BYTES, MAX_RESOURCES, State};
use crate::ticker::Ticker;

/// Why a call did not return.
pub(crate) enum Fault {
    Stop(Stop),
    Error(wasmtime::Error),
}

/// Runs a call to its end or to its limit. When it does not return, the store is of no more use.
pub(crate) async fn run<T>(
    ticker: &Ticker,
    meter: &Meter,
    deadline: Duration,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Fault> {
    let metered = metered(ticker, meter, call, |_| {});
    tokio::time::timeout(deadline, metered).await.unwrap_or(Err(Fault::Stop(Stop::Limit(Limit::Deadline))))
}

/// One poll of a guest's call, as those see it who have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It begins.
    Begins,
    /// The guest waits for the host.
    Waits,
    /// The guest handed its thread back and could go on.
    Yields,
}

/// Runs a call to its end or to a limit other than of wall time. `turn` is told of each poll.
pub(crate) async fn metered<T>(
    ticker: &Ticker,
    meter: &Meter,
    call: impl Future<Output = wasmtime::Result<T>>,
    mut turn: impl FnMut(Turn),
) -> Result<T, Fault> {
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        turn(Turn::Begins);
        if let Some(stop) = meter.stopped() {
            return Poll::Ready(Err(Fault::Stop(stop)));
        }
        let polled = {
            let _running = ticker.enter();
            let _slice = meter.slice();
            catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)))
        };
        match (polled, meter.stopped()) {
            (Err(panic), _) => Poll::Ready(Err(Fault::Stop(Stop::Panic(panic_text(&*panic))))),
            (_, Some(stop)) => Poll::Ready(Err(Fault::Stop(stop))),
            (Ok(Poll::Pending), None) => {
                turn(if meter.take_yielded() { Turn::Yields } else { Turn::Waits });
                Poll::Pending
            }
            (Ok(Poll::Ready(result)), None) => Poll::Ready(result.map_err(Fault::Error)),
        }
    })
    .await
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// What is called, and so which limits of time hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Reconcile,
    /// Has so much wall time, and no more CPU time.
    Describe(Duration),
    /// Has so much wall time.
    Serve(Duration),
    /// A program's `run`, without an end of its own: its CPU time is that between two waits for the host.
    Run,
}

/// What one call may use.
pub(crate) struct Allowance<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) stack_bytes: u64,
    pub(crate) call: Call,
}

impl Allowance<'_> {
    pub(crate) fn cpu(&self) -> Duration {
        let cpu = Duration::from_millis(self.limits.cpu_milliseconds);
        match self.call {
            Call::Describe(time) => time.min(cpu),
            Call::Reconcile | Call::Serve(_) | Call::Run => cpu,
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        match self.call {
            Call::Describe(time) | Call::Serve(time) => time,
            Call::Reconcile => Duration::from_millis(self.limits.reconcile_milliseconds),
            Call::Run => Duration::MAX,
        }
    }

    fn of(&self, limit: Limit) -> (Limit, u64) {
        let limits = self.limits;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let allowed = match (limit, self.call) {
            (Limit::Cpu | Limit::Deadline | Limit::Describe | Limit::Serve, Call::Describe(time)) => {
                return (Limit::Describe, milliseconds(time));
            }
            (Limit::Deadline | Limit::Describe | Limit::Serve, Call::Serve(time)) => {
                return (Limit::Serve, milliseconds(time));
            }
            (Limit::Cpu, _) => limits.cpu_milliseconds,
            (Limit::Deadline | Limit::Describe | Limit::Serve, Call::Reconcile | Call::Run) => {
                limits.reconcile_milliseconds
            }
            (Limit::Memory, _) => limits.memory_bytes,
            (Limit::Table, _) => limits.table_elements,
            (Limit::Stack, _) => self.stack_bytes,
            (Limit::Requests, _) => limits.requests_per_call.into(),
            (Limit::RequestsInFlight, _) => limits.requests_in_flight.into(),
            (Limit::RequestBytes, _) => limits.request_bytes,
            (Limit::ResponseBytes, _) => limits.response_bytes,
            (Limit::Resources, _) => u64::try_from(MAX_RESOURCES).unwrap_or(u64::MAX),
            (Limit::HostCall, _) => u64::try_from(HOST_CALL_BYTES).unwrap_or(u64::MAX),
        };
        (limit, allowed)
    }

    /// Says what happened. A guest that runs into a limit usually traps a little later for a reason of its own, such as a
    /// failed allocation: then the limit is the answer.
    pub(crate) fn explain(&self, fault: Fault, state: &State) -> CallError {
        state.output.flush();
        let last_stderr = state.output.last_stderr();
        let error = match fault {
            Fault::Stop(Stop::Panic(text)) => return CallError::Panic(text),
            Fault::Stop(Stop::Limit(limit)) => return self.limit(limit, last_stderr),
            Fault::Error(error) => error,
        };
        match error.downcast_ref::<Stop>() {
            Some(Stop::Limit(limit)) => return self.limit(*limit, last_stderr),
            Some(Stop::Panic(text)) => return CallError::Panic(text.clone()),
            None => {}
        }
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            return CallError::Exit { code: *code, last_stderr };
        }
        if let Some(limit) = limit_of(&error).or_else(|| state.meter.noted()) {
            return self.limit(limit, last_stderr);
        }
        let message = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        CallError::Trap { message, last_stderr }
    }

    fn limit(&self, limit: Limit, last_stderr: String) -> CallError {
        let (limit, allowed) = self.of(limit);
        CallError::Limit { limit, allowed, last_stderr }
    }
}

/// The limits that wasmtime enforces by itself.
fn limit_of(error: &wasmtime::Error) -> Option<Limit> {
    if let Some(Trap::StackOverflow) = error.downcast_ref::<Trap>() {
        return Some(Limit::Stack);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Some(Limit::Resources);
    }
    // wasmtime keeps the type of this one to itself; a test holds the text.
    error.root_cause().to_string().contains("fuel allocated for hostcalls").then_some(Limit::HostCall)
}
