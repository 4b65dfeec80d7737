//! The host's log: one line per event on stderr, for people or as JSON.

use std::io::IsTerminal;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, with the fields of the reconcile under `span`.
    Json,
}

/// Starts the log. `filter` is a level or directives such as `info,guest=off,wasm_operator_cluster=debug`.
pub(crate) fn init_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("`{filter}` is not a log level or filter; `info` or `info,guest=off` are"))?;
    // A pipe that was closed at the other end must not end the host.
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let result = match format {
        LogFormat::Text => {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colours).try_init()
        }
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}
