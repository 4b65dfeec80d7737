//! The store of one instance: what the host holds for it, and every limit that wasmtime leaves to us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::component::GuestSettings;
use crate::http::{Hooks, HttpLimits, OutgoingHttp};
use crate::limiter::Limiter;
use crate::logs::{GuestLogs, Output};
use crate::meter::Meter;
use crate::timers::Timers;

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
    pub(crate) timers: Arc<Timers>,
    pub(crate) output: Output,
}

impl State {
    pub(crate) fn store(
        engine: &Engine,
        settings: &GuestSettings,
        handler: Option<Arc<dyn OutgoingHttp>>,
        logs: &Arc<GuestLogs>,
        endpoint: Option<SocketAddr>,
    ) -> Store<Self> {
        let limits = &settings.limits;
        let meter = Arc::new(Meter::default());
        let output = Output::new(logs);
        let mut http_limits = HttpLimits::from(limits);
        let mut wasi = WasiCtx::builder();
        wasi.envs(&settings.env)
            .args(&settings.args)
            .stdout(output.stdout())
            .stderr(output.stderr())
            .max_random_size(RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Some(endpoint) = endpoint {
            // A program's one call has no end.
            http_limits.per_call = u32::MAX;
            wasi.allow_tcp(true).socket_addr_check(move |address, use_| {
                let allowed = may_use(endpoint, address, use_);
                Box::pin(std::future::ready(allowed))
            });
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut store = Store::new(
            engine,
            Self {
                wasi: wasi.build(),
                http,
                hooks: Hooks::new(handler, http_limits, Arc::clone(&meter)),
                table,
                limiter: Limiter::new(limits.memory_bytes, limits.table_elements, Arc::clone(&meter)),
                meter,
                timers: Arc::default(),
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
                None => {
                    meter.yields();
                    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
                }
            }
        });
        store
    }
}

/// A program connects to its endpoint and does nothing else with sockets. The bind is the one that belongs to connecting.
fn may_use(endpoint: SocketAddr, address: SocketAddr, use_: SocketAddrUse) -> bool {
    match use_ {
        SocketAddrUse::TcpConnect => address == endpoint,
        SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_connects_to_its_endpoint_and_to_nothing_else() {
        let endpoint = "127.0.0.1:4000".parse().unwrap();
        let connects = |address: &str| may_use(endpoint, address.parse().unwrap(), SocketAddrUse::TcpConnect);
        assert!(connects("127.0.0.1:4000"));
        for other in [
            "127.0.0.1:4001",
            "127.0.0.2:4000",
            "0.0.0.0:4000",
            "10.0.0.1:443",
            "[::1]:4000",
            "[::ffff:127.0.0.1]:4000",
        ] {
            assert!(!connects(other), "{other}");
        }
        let binds = |address: &str| may_use(endpoint, address.parse().unwrap(), SocketAddrUse::TcpBind);
        assert!(binds("0.0.0.0:0") && !binds("0.0.0.0:80") && !binds("127.0.0.1:0"));
        for other in
            [SocketAddrUse::TcpListen, SocketAddrUse::TcpAccept, SocketAddrUse::UdpBind, SocketAddrUse::UdpSend]
        {
            assert!(!may_use(endpoint, endpoint, other), "{other:?}");
            assert!(!may_use(endpoint, "0.0.0.0:0".parse().unwrap(), other), "{other:?}");
        }
    }
}
