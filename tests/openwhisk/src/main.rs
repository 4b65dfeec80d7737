//! `openwhisk`: the stand-in as a program, for demos and for trying things by hand.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use openwhisk::{Action, OpenWhisk};

/// Answers as OpenWhisk's REST API does, for actions and triggers that are named here. Prints its URL, and a line for
/// each request.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Speaks TLS, and writes the certificate of its authority to this file.
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// A namespace and its credentials. May be repeated.
    #[arg(long = "namespace", value_name = "NAME=USER:PASSWORD", value_parser = pair, required = true)]
    namespaces: Vec<(String, String)>,
    /// An action that runs an image. May be repeated.
    #[arg(long = "action", value_name = "/NAMESPACE/[PACKAGE/]NAME=IMAGE", value_parser = pair)]
    actions: Vec<(String, String)>,
    /// A trigger. May be repeated.
    #[arg(long = "trigger", value_name = "/NAMESPACE/NAME")]
    triggers: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write `NAME=VALUE`")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let whisk = OpenWhisk::listen(arguments.listen, arguments.tls.is_some()).await?;
    if let (Some(path), Some(authority)) = (&arguments.tls, whisk.authority()) {
        std::fs::write(path, authority).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    for (name, credentials) in &arguments.namespaces {
        whisk.namespace(name, credentials);
    }
    for (name, image) in &arguments.actions {
        whisk.action(name, Action::blackbox(image))?;
    }
    for name in &arguments.triggers {
        whisk.trigger(name)?;
    }
    // Line by line, also into a pipe.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", whisk.url())?;
    let mut changes = whisk.changes();
    let mut shown = 0;
    loop {
        changes.changed().await.context("the server ended")?;
        // In the order in which they arrived; one without an answer holds back those after it.
        for request in whisk.requests().iter().skip(shown) {
            let Some(status) = request.status else { break };
            writeln!(stdout, "{} {status} {}", request.line(), String::from_utf8_lossy(&request.body))?;
            shown += 1;
        }
    }
}
