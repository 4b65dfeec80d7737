//! A guest that is awake.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::reconcile::{Failure, Outcome, Request};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use crate::bindings::Controller;
use crate::call::{self, Allowance, Call, Fault};
use crate::component::DESCRIBE_TIME;
use crate::convert;
use crate::engine::Inner;
use crate::error::CallError;
use crate::http::{Answer, Answering, ServeLimits};
use crate::meter::Meter;
use crate::state::{MAX_RESOURCES, State};

const PAGE_BYTES: u64 = 4 << 10;

/// One instance: its memories, its tables and what it holds of the host. Dropping it gives all of that back.
pub struct Instance {
    engine: Arc<Inner>,
    /// None after a call that did not return, or that left too much behind.
    live: Option<Live>,
    meter: Arc<Meter>,
    limits: Limits,
}

struct Live {
    store: Store<State>,
    exports: Exports,
}

/// What the host calls of an instance.
pub(crate) struct Exports {
    pub(crate) controller: Controller,
    pub(crate) handler: Option<Proxy>,
}

/// What a call runs in. It borrows nothing of the instance, whose parts are not `Sync`: so a call is `Send`.
struct Frame {
    engine: Arc<Inner>,
    meter: Arc<Meter>,
    deadline: Duration,
}

impl Frame {
    async fn run<T>(self, call: impl Future<Output = wasmtime::Result<T>>) -> Result<T, Fault> {
        call::run(&self.engine.ticker, &self.meter, self.deadline, call).await
    }
}

impl Instance {
    pub(crate) fn new(engine: Arc<Inner>, store: Store<State>, exports: Exports, limits: Limits) -> Self {
        let meter = Arc::clone(&store.data().meter);
        Self { engine, live: Some(Live { store, exports }), meter, limits }
    }

    /// Has the guest describe itself, and ignores what it says: what it does once, in its first call, is done then. It has no HTTP
    /// and one second, as in [`Component::describe`](crate::Component::describe). After an error the instance is of no more use.
    pub async fn warm_up(&mut self) -> Result<(), CallError> {
        let mut live = self.live.take().ok_or(CallError::Gone)?;
        let call = Call::Describe(DESCRIBE_TIME);
        let Live { store, exports } = &mut live;
        let handler = store.data_mut().hooks.take_handler();
        let result = self.begin(call, store).run(exports.controller.call_describe(store)).await;
        live.store.data_mut().hooks.give_handler(handler);
        self.end(call, live, result).map(|_| ())
    }

    /// Runs one reconcile. Whether another one is possible says [`is_alive`](Self::is_alive). After an error, or when the future is
    /// dropped before its end, none is: the instance's memory and its requests are already gone.
    pub async fn reconcile(&mut self, request: &Request) -> Result<Result<Outcome, Failure>, CallError> {
        // Taken out, so that nothing is left when this future is dropped half-way.
        let mut live = self.live.take().ok_or(CallError::Gone)?;
        let Live { store, exports } = &mut live;
        let result = {
            let deleted = convert::tombstones(request);
            let request = convert::request(request, &deleted);
            self.begin(Call::Reconcile, store).run(exports.controller.call_reconcile(store, request)).await
        };
        self.end(Call::Reconcile, live, result).map(convert::answer)
    }

    /// Has the guest answer one HTTP request, whose URI has scheme, authority and path. The answer's head and body go to
    /// `answer`; if the guest gives none, `answer` is dropped. The call may go on after the answer, and the body is read
    /// while the call runs. After an error, or when the future is dropped before its end, the body ends with an error
    /// unless the guest had completed it, and the instance is of no more use, as with
    /// [`reconcile`](Self::reconcile).
    pub async fn serve(
        &mut self,
        request: http::Request<Bytes>,
        limits: ServeLimits,
        answer: Answer,
    ) -> Result<(), CallError> {
        let mut live = self.live.take().ok_or(CallError::Gone)?;
        if live.exports.handler.is_none() {
            self.live = Some(live);
            return Err(CallError::ServesNothing);
        }
        let call = Call::Serve(limits.time);
        // Declared after `live`, and so dropped before it: a body whose writer is gone asks it whether that was right.
        let answering = Answering::new();
        let Live { store, exports } = &mut live;
        let frame = self.begin(call, store);
        let handle = async {
            let Some(handler) = &exports.handler else { return Ok(()) };
            let (request, answer) = answering.resources(store.data_mut(), request, limits, answer)?;
            handler.wasi_http_incoming_handler().call_handle(store, request, answer).await
        };
        let result = frame.run(handle).await;
        if result.is_ok() {
            answering.returned();
        }
        drop(answering);
        self.end(call, live, result)
    }

    fn allowance(&self, call: Call) -> Allowance<'_> {
        Allowance { limits: &self.limits, stack_bytes: self.engine.stack_bytes, call }
    }

    /// Sets all that a call may use to its beginning.
    fn begin(&self, call: Call, store: &mut Store<State>) -> Frame {
        let allowance = self.allowance(call);
        self.meter.begin(allowance.cpu());
        store.data_mut().hooks.begin_call();
        store.set_epoch_deadline(1);
        Frame { engine: Arc::clone(&self.engine), meter: Arc::clone(&self.meter), deadline: allowance.deadline() }
    }

    /// Keeps the instance after a call that returned, and explains one that did not.
    fn end<T>(&mut self, call: Call, mut live: Live, result: Result<T, Fault>) -> Result<T, CallError> {
        match result {
            Ok(answer) => {
                live.store.data().output.flush();
                live.store.data_mut().hooks.end_call();
                // What a garbage collector has not come to yet adds up from call to call. Before it meets the limit in the middle of
                // one, a fresh instance does the next.
                if live.store.data_mut().table.iter_mut().count() <= MAX_RESOURCES / 2 {
                    self.live = Some(live);
                }
                Ok(answer)
            }
            Err(fault) => {
                let error = self.allowance(call).explain(fault, live.store.data());
                // The requests that the guest had under way end here. After a panic, so might the drop.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(live)));
                Err(error)
            }
        }
    }

    /// Whether another call is possible.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.live.is_some()
    }

    /// Bytes of linear memory over all memories of the instance, touched or not.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.store.data().limiter.memory_bytes())
    }

    /// An estimate of the memory that is this instance's alone: the pages that the kernel had to provide while it ran, which
    /// are those of its memories, its stack and its store that it has touched. Code pages that it was the first to use count
    /// too.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.store.data().meter.faults().saturating_mul(PAGE_BYTES))
    }

    /// CPU time over all calls of the instance, host functions included, and the call included that ended it.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.meter.total()
    }
}
