//! The ring as its users would write it with kube-rs: what the benchmark compares guests with.
//!
//! One controller per process, in the namespaces of `IN_NAMESPACE` and `OUT_NAMESPACE`, or with `--all N` a controller for
//! each of the namespaces `<prefix>0` to `<prefix>N-1` in one process, with one watch and one cache.

mod controller;
mod floor;
// The program that is a guest keeps to the same rules.
#[path = "../../../../../guests/operators/ring/src/resource.rs"]
mod resource;

use anyhow::Context as _;
use clap::Parser;
use kube::Client;

#[derive(Debug, Parser)]
struct Arguments {
    /// Run so many controllers in this process
    #[arg(long)]
    all: Option<usize>,
    /// With --all: what the names of the namespaces begin with
    #[arg(long, default_value = "ring-")]
    prefix: String,
    /// With --all: a bare watch and PUT loop instead of controllers
    #[arg(long, requires = "all")]
    floor: bool,
}

/// The namespaces of a controller.
struct Pair {
    from: String,
    out: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let client = Client::try_default().await?;
    let Some(count) = arguments.all else {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("set `{name}`, or use `--all`"));
        return controller::one(client, Pair { from: variable("IN_NAMESPACE")?, out: variable("OUT_NAMESPACE")? })
            .await;
    };
    let namespace = |index: usize| format!("{}{index}", arguments.prefix);
    // A single controller needs a second namespace to write to.
    let namespaces = count.max(2);
    let pairs =
        (0..count).map(|index| Pair { from: namespace(index), out: namespace((index + 1) % namespaces) }).collect();
    if arguments.floor { floor::run(client, pairs).await } else { controller::all(client, pairs).await }
}
