//! A guest that is loaded and does not run: the dormant state.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use wasm_operator_core::description::Description;
use wasm_operator_core::limits::Limits;
use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use crate::bindings::ControllerIndices;
use crate::cache::Artifact;
use crate::call::{self, Allowance, Call, Fault};
use crate::contract::Interface;
use crate::convert;
use crate::engine::Inner;
use crate::error::{CallError, LoadError};
use crate::http::OutgoingHttp;
use crate::instance::{Exports, Instance};
use crate::logs::GuestLogs;
use crate::rest::{self, Code};
use crate::state::State;

/// Wall and CPU time of `describe`. It only builds its answer.
pub(crate) const DESCRIBE_TIME: Duration = Duration::from_secs(1);

/// Anonymous memory of a loaded component besides its mapped file: wasmtime's tables of functions, types and names. As
/// measured by `examples/wake.rs`: 16 KiB for a component of three functions, 223 KiB for one with the kube client, whose
/// compiled file has 4.6 MB.
const LOADED_BYTES: u64 = 16 << 10;
/// One byte of heap for so many bytes of the compiled file.
const FILE_BYTES_PER_HEAP_BYTE: u64 = 22;

/// What the configuration says of one guest, as far as the engine needs it.
#[derive(Debug, Clone)]
pub struct GuestSettings {
    /// The guest's name, for the host's log.
    pub name: Arc<str>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The arguments, without a program name.
    pub args: Vec<String>,
    /// What it may use.
    pub limits: Limits,
}

/// A compiled, mapped and linked component. Shared by all guests and instances that run it.
pub struct Component {
    engine: Arc<Inner>,
    pre: InstancePre<State>,
    controller: ControllerIndices,
    /// None for a guest that serves no requests.
    handler: Option<ProxyIndices>,
    interface: Interface,
    bytes: u64,
}

/// An estimate of the anonymous memory that a loaded component holds besides its mapped file.
pub(crate) fn loaded_bytes(artifact: &Artifact) -> u64 {
    LOADED_BYTES.saturating_add(artifact.bytes() / FILE_BYTES_PER_HEAP_BYTE)
}

impl Code for Component {
    fn code(&self) -> Range<usize> {
        rest::image(self.pre.component())
    }
}

impl Component {
    pub(crate) fn load(engine: Arc<Inner>, artifact: &Artifact) -> Result<Self, LoadError> {
        let (pre, interface) = engine.controllers.map(artifact)?;
        let controller = ControllerIndices::new(&pre).map_err(LoadError::link)?;
        let handler = interface.serves_requests().then(|| ProxyIndices::new(&pre)).transpose();
        let handler = handler.map_err(LoadError::link)?;
        let bytes = loaded_bytes(artifact);
        Ok(Self { engine, pre, controller, handler, interface, bytes })
    }

    /// What it imports and exports.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// An estimate of the anonymous memory that this component holds while it is loaded; the code itself is file-backed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Asks the guest for its controllers and the permissions that it wants. It has no HTTP and one second.
    pub async fn describe(&self, settings: &GuestSettings, logs: &Arc<GuestLogs>) -> Result<Description, CallError> {
        let allowance = self.allowance(&settings.limits, Call::Describe(DESCRIBE_TIME));
        let mut store = State::store(&self.engine.controllers.wasmtime, settings, None, logs, None);
        let meter = Arc::clone(&store.data().meter);
        meter.begin(allowance.cpu());
        store.set_epoch_deadline(1);
        let answer = call::run(&self.engine.ticker, &meter, allowance.deadline(), async {
            let Exports { controller, .. } = self.exports(&mut store).await?;
            controller.call_describe(&mut store).await
        })
        .await
        .map_err(|fault| allowance.explain(fault, store.data()))?;
        store.data().output.flush();
        convert::description(answer.map_err(|text| CallError::Describe(convert::shorten(text)))?)
    }

    /// Makes a fresh instance: from dormant to awake.
    pub async fn instantiate(
        &self,
        settings: &GuestSettings,
        http: Arc<dyn OutgoingHttp>,
        logs: &Arc<GuestLogs>,
    ) -> Result<Instance, CallError> {
        let mut store = State::store(&self.engine.controllers.wasmtime, settings, Some(http), logs, None);
        let exports = self
            .start(&mut store, &settings.limits)
            .await
            .map_err(|fault| self.allowance(&settings.limits, Call::Reconcile).explain(fault, store.data()))?;
        Ok(Instance::new(Arc::clone(&self.engine), store, exports, settings.limits.clone()))
    }

    async fn start(&self, store: &mut Store<State>, limits: &Limits) -> Result<Exports, Fault> {
        let allowance = self.allowance(limits, Call::Reconcile);
        let meter = Arc::clone(&store.data().meter);
        meter.begin(allowance.cpu());
        store.set_epoch_deadline(1);
        call::run(&self.engine.ticker, &meter, allowance.deadline(), self.exports(store)).await
    }

    async fn exports(&self, store: &mut Store<State>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let controller = self.controller.load(&mut *store, &instance)?;
        let handler = self.handler.as_ref().map(|handler| handler.load(&mut *store, &instance)).transpose()?;
        Ok(Exports { controller, handler })
    }

    fn allowance<'a>(&self, limits: &'a Limits, call: Call) -> Allowance<'a> {
        Allowance { limits, stack_bytes: self.engine.stack_bytes, call }
    }
}
