//! A guest that is awake.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use wasm_operator_core::limits::Limits;
use wasm_operator_core::reconcile::{Failure, Outcome, Request};
use wasmtime::Store;

use crate::bindings::Controller;
use crate::call::{self, Allowance};
use crate::convert;
use crate::engine::Inner;
use crate::error::CallError;
use crate::state::State;

const PAGE_BYTES: u64 = 4 << 10;

/// One instance: its memories, its tables and what it holds of the host. Dropping it gives all of that back.
pub struct Instance {
    engine: Arc<Inner>,
    /// None after a call that did not return.
    live: Option<Live>,
    limits: Limits,
}

struct Live {
    store: Store<State>,
    controller: Controller,
}

impl Instance {
    pub(crate) fn new(engine: Arc<Inner>, store: Store<State>, controller: Controller, limits: Limits) -> Self {
        Self { engine, live: Some(Live { store, controller }), limits }
    }

    /// Runs one reconcile. After an error, or when the future is dropped before its end, the instance is of no more use:
    /// its memory and its requests are already gone.
    pub async fn reconcile(&mut self, request: &Request) -> Result<Result<Outcome, Failure>, CallError> {
        // Taken out, so that nothing is left when this future is dropped half-way.
        let mut live = self.live.take().ok_or(CallError::Gone)?;
        let allowance = Allowance { limits: &self.limits, stack_bytes: self.engine.stack_bytes, describe: None };
        let Live { store, controller } = &mut live;
        let meter = Arc::clone(&store.data().meter);
        meter.begin(allowance.cpu());
        store.data_mut().hooks.begin_call();
        store.set_epoch_deadline(1);
        let result = {
            let deleted = convert::tombstones(request);
            let request = convert::request(request, &deleted);
            let call = controller.call_reconcile(&mut *store, request);
            call::run(&self.engine.ticker, &meter, allowance.deadline(), call).await
        };
        match result {
            Ok(answer) => {
                store.data().output.flush();
                self.live = Some(live);
                Ok(convert::answer(answer))
            }
            Err(fault) => {
                let error = allowance.explain(fault, store.data());
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

    /// CPU time over all calls of the instance, host functions included.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.live.as_ref().map_or(Duration::ZERO, |live| live.store.data().meter.total())
    }
}
