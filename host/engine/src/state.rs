//! The store of one instance: what the host holds for it, and every limit that wasmtime leaves to us.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::component::GuestSettings;
use crate::http::{Hooks, HttpLimits, OutgoingHttp};
use crate::limiter::Limiter;
use crate::logs::{GuestLogs, Output};
use crate::meter::Meter;

/// Streams, requests, pollables and the like at once. wasmtime's default of a million would be 100 MB of host memory.
pub(crate) const MAX_RESOURCES: usize = 1024;
/// Handles that a guest's own resources may take.
const MAX_HANDLES: usize = 8192;
/// Bytes of one set of HTTP headers in the host, wasmtime's bookkeeping included.
const HEADER_BYTES: usize = 32 << 10;
/// Data from the guest in one host call; the largest honest call hands over 64 KiB of a request's body.
pub(crate) const HOST_CALL_BYTES: usize = 2 << 20;
/// Random bytes in one call.
const RANDOM_BYTES: u64 = 64 << 10;
/// A guest that has run for less than this since its last wait keeps its thread at a tick: after a wait the epoch is
/// always in the past.
const MIN_SLICE: Duration = Duration::from_micros(500);

pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) hooks: Hooks,
    pub(crate) table: ResourceTable,
    pub(crate) limiter: Limiter,
    pub(crate) meter: Arc<Meter>,
    pub(crate) output: Output,
}

impl State {
    pub(crate) fn store(
        engine: &Engine,
        settings: &GuestSettings,
        handler: Option<Arc<dyn OutgoingHttp>>,
        logs: &Arc<GuestLogs>,
    ) -> Store<Self> {
        let limits = &settings.limits;
        let meter = Arc::new(Meter::default());
        let output = Output::new(logs);
        let wasi = WasiCtx::builder()
            .envs(&settings.env)
            .args(&settings.args)
            .stdout(output.stdout())
            .stderr(output.stderr())
            .max_random_size(RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut store = Store::new(
            engine,
            Self {
                wasi,
                http,
                hooks: Hooks::new(handler, HttpLimits::from(limits), Arc::clone(&meter)),
                table,
                limiter: Limiter::new(limits.memory_bytes, limits.table_elements, Arc::clone(&meter)),
                meter,
                output,
            },
        );
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOST_CALL_BYTES);
        store.set_max_component_handles(MAX_HANDLES);
        store.epoch_deadline_callback(|store| {
            let meter = &store.data().meter;
            match meter.verdict() {
                Some(stop) => Err(stop.into()),
                None if meter.in_slice() < MIN_SLICE => Ok(UpdateDeadline::Continue(1)),
                // tokio's own yield lets timers and sockets have their turn, too.
                None => Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))),
            }
        });
        store
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}
