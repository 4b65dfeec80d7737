//! The binary `wasm-operator`.

mod admin;
mod app;
mod guest;
mod guest_log;
mod host;
mod metrics;
mod outgoing;
mod pool;
mod reconcile;
mod revision;
mod scheduler;
mod subscriber;
mod workers;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<_> = args.map(std::path::PathBuf::from).collect();
    if command == "compile" {
        return Ok(wasm_operator_engine::compile(&rest[0], &rest[1], rest[2].to_str())?);
    }
    tracing_subscriber::fmt().init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(app::run(app::Options {
        config: rest[0].clone(),
        cache_directory: "/tmp/wocache".into(),
        host_namespace: None,
        admin_listen: None,
        threads: 2,
        watch_silence: std::time::Duration::from_secs(75),
        drain: std::time::Duration::from_secs(10),
    }))
}
