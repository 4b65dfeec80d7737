//! The flags of the front door.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use wasm_operator_core::front_door::AUDIENCE;

use crate::front_door::Options;

#[derive(Debug, Args)]
pub(super) struct FrontDoorArgs {
    /// Address of `/guests/<name>/`, where guests that serve HTTP are called [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    front_door_address: Option<SocketAddr>,
    /// Certificate chain of the front door, a PEM file; read again when it changes
    #[arg(long, value_name = "FILE", requires_all = ["front_door_address", "front_door_key"])]
    front_door_certificate: Option<PathBuf>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "front_door_certificate")]
    front_door_key: Option<PathBuf>,
    /// Plain HTTP at the front door; on a loopback address only, since callers send tokens
    #[arg(long, requires = "front_door_address", conflicts_with = "front_door_certificate")]
    front_door_plain: bool,
    /// The audience that callers' tokens must be meant for
    #[arg(long, value_name = "AUDIENCE", default_value = AUDIENCE)]
    front_door_audience: String,
}

impl FrontDoorArgs {
    pub(super) fn options(self) -> anyhow::Result<Options> {
        let Self { front_door_address, front_door_certificate, front_door_key, front_door_plain, front_door_audience } =
            self;
        let tls = front_door_certificate.zip(front_door_key);
        if let Some(address) = front_door_address {
            if front_door_plain && !address.ip().is_loopback() {
                bail!(
                    "`--front-door-plain` with `{address}` would show callers' tokens to the network; choose a loopback \
                     address, or set `--front-door-certificate` and `--front-door-key`"
                );
            }
            if !front_door_plain && tls.is_none() {
                bail!(
                    "the front door at `{address}` has no certificate; set `--front-door-certificate` and \
                     `--front-door-key`, or on a loopback address `--front-door-plain`"
                );
            }
        }
        if front_door_audience.is_empty() {
            bail!("`--front-door-audience` is empty: every token of the API server would do");
        }
        Ok(Options { address: front_door_address, tls, audience: front_door_audience })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: FrontDoorArgs,
    }

    fn options(line: &str) -> Result<Options, String> {
        let line = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        line.args.options().map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_front_door_unless_it_is_asked_for() {
        let options = options("").unwrap();
        assert_eq!((options.address, options.audience.as_str()), (None, "wasm-operator.dev"));
    }

    #[test]
    fn tokens_never_cross_a_network_in_the_clear() {
        assert!(options("--front-door-address 127.0.0.1:80 --front-door-plain").unwrap().tls.is_none());
        assert!(options("--front-door-address [::1]:80 --front-door-plain").is_ok());
        for (line, expected) in [
            ("--front-door-address 0.0.0.0:80 --front-door-plain", "loopback"),
            ("--front-door-address 10.0.0.1:80 --front-door-plain", "loopback"),
            ("--front-door-address 127.0.0.1:80", "no certificate"),
            ("--front-door-address 127.0.0.1:80 --front-door-certificate a", "--front-door-key"),
            ("--front-door-plain", "--front-door-address"),
            ("--front-door-address 127.0.0.1:80 --front-door-audience= --front-door-plain", "every token"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        let tls = "--front-door-address 0.0.0.0:80 --front-door-certificate a --front-door-key b";
        assert!(options(tls).unwrap().tls.is_some());
    }
}
