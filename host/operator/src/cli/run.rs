//! `run`: the host itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::front_door::FrontDoorArgs;
use super::{CacheArgs, NamespaceArgs};
use crate::admin::{LogFormat, init_logging};
use crate::app::{self, HibernationOptions, Options};
use crate::graveyard::Graveyard;
use wasm_operator_prediction_client::Client;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration file; changes take effect at once
    #[arg(value_name = "CONFIG", default_value = "wasm_config.yaml")]
    config: PathBuf,
    /// Address of `/livez`, `/readyz` and `/metrics`, or `off`
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = listen)]
    admin_listen: Listen,
    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Level of the log, or a filter such as `info,guest=off`
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", hide_env_values = true, default_value = "info")]
    log_level: String,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Threads for long runs of guests, and for requests to them [default: one per processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Seconds after which a silent watch is dead; the API server sends a bookmark every minute
    #[arg(long, value_name = "SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch_silence: u64,
    /// Seconds that running reconciles and requests have to end at SIGTERM; less than the Pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain: u64,
    /// Append to this file what wakes guests and when, for `wasm-operator-prediction evaluate`
    #[arg(long, value_name = "FILE")]
    record_wakes: Option<PathBuf>,
    /// Bytes of memory of its own that the host may hold before idle guests are put to sleep early
    /// [default: the control group's limit, if there is one]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    memory_budget: Option<u64>,
    /// Where idle programs are written to, on a disk; secrets in their memory as well [default: `hibernation` in the cache
    /// directory, if that is on a disk]
    #[arg(long, value_name = "DIRECTORY")]
    hibernation_directory: Option<PathBuf>,
    /// Bytes on disk that all hibernated programs may take; what does not fit stays awake
    #[arg(long, value_name = "BYTES", default_value_t = HIBERNATION_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    hibernation_budget: u64,
    #[command(flatten)]
    front_door: FrontDoorArgs,
    /// A prediction service that is asked about idle guests, such as `http://127.0.0.1:5000/prediction`
    #[arg(long, value_name = "URL")]
    prediction_service: Option<String>,
    /// The service's function to ask for [default: the service chooses]
    #[arg(long, value_name = "NAME", requires = "prediction_service")]
    prediction_function: Option<String>,
    /// Milliseconds that the service has for an answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    prediction_timeout: u64,
}

/// Some thousand small programs, or some ten with a heap of 90 MB; the disk of most nodes has room for it.
const HIBERNATION_BYTES: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen(Option<SocketAddr>);

fn listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen(None));
    }
    text.parse().map(|address| Listen(Some(address))).map_err(|_| {
        "write an address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::]:8080`, or `off`".to_owned()
    })
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self {
            config,
            admin_listen,
            log_format,
            log_level,
            cache,
            namespace,
            threads,
            watch_silence,
            drain,
            record_wakes,
            memory_budget,
            hibernation_directory,
            hibernation_budget,
            front_door,
            prediction_service,
            prediction_function,
            prediction_timeout,
        } = self;
        init_logging(log_format, &log_level)?;
        let timeout = Duration::from_millis(prediction_timeout);
        let prediction_service = prediction_service
            .map(|url| Client::new(&url, prediction_function.as_deref(), timeout).map_err(|error| (url, error)))
            .transpose()
            .map_err(|(url, error)| anyhow::anyhow!("`--prediction-service {url}`: {error}"))?;
        let options = Options {
            config,
            engine: cache.engine_options()?,
            host_namespace: namespace.namespace(),
            admin_listen: admin_listen.0,
            threads: threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
            watch_silence: Duration::from_secs(watch_silence),
            drain: Duration::from_secs(drain),
            record_wakes,
            memory_budget,
            hibernation: HibernationOptions { directory: hibernation_directory, budget_bytes: hibernation_budget },
            front_door: front_door.options()?,
            prediction_service,
        };
        // One thread for everything but long runs of guests: waiting on sockets mostly, and now and then reading a long list.
        let graveyard = Graveyard::default();
        let idle = graveyard.clone();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().on_thread_park(move || idle.clear()).build()?;
        runtime.block_on(app::run(options, graveyard))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_endpoint_can_be_moved_or_switched_off() {
        assert_eq!(listen("off"), Ok(Listen(None)));
        assert_eq!(listen("[::1]:0"), Ok(Listen(Some("[::1]:0".parse().unwrap()))));
        for bad in ["", "on", "8080", ":8080", "localhost:8080", "127.0.0.1"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }
}
