use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use wasm_operator_devel::{Binaries, Node, Options, Progress, User};

use crate::{demo, run};

/// Runs a real Kubernetes control plane on this machine, without Docker: for the demo, the tests and development.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Builds the programs of the control plane and of the simulated nodes, if they are missing, and prints where they are.
    Build,
    /// Runs a command with a control plane of its own, and returns its exit code.
    ///
    /// The command finds `KUBECONFIG` (the administrator) and `WASM_OPERATOR_DEVEL_STATE` (a JSON file with addresses,
    /// kubeconfigs, logs and process ids) in its environment.
    Run {
        #[command(flatten)]
        control_plane: ControlPlaneArguments,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Runs a control plane until Ctrl-C, and prints what to export to use it.
    Up {
        #[command(flatten)]
        control_plane: ControlPlaneArguments,
    },
    /// Shows the project at work, on a control plane of its own. `devel/demo` builds what it needs and calls it.
    Demo(demo::Arguments),
}

#[derive(Debug, Args)]
struct ControlPlaneArguments {
    /// Runs kube-scheduler too.
    #[arg(long)]
    scheduler: bool,
    /// Simulates so many nodes, and runs kube-scheduler: pods become Running and do what their images say.
    #[arg(long, default_value_t = 0, value_name = "N")]
    nodes: u16,
    /// Leaves out kube-controller-manager.
    #[arg(long)]
    no_controller_manager: bool,
    /// Where kube-apiserver listens, for pods on this machine; default: 127.0.0.1 and a free port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A further user, optionally with groups. May be repeated.
    #[arg(long = "user", value_name = "NAME[=GROUP,...]", value_parser = parse_user)]
    users: Vec<User>,
    /// A further flag of kube-apiserver, such as `--watch-cache=false`. May be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    apiserver_arg: Vec<String>,
    /// Keeps the components' logs in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    log_dir: Option<PathBuf>,
}

impl From<ControlPlaneArguments> for Options {
    fn from(arguments: ControlPlaneArguments) -> Self {
        Self {
            controller_manager: !arguments.no_controller_manager,
            scheduler: arguments.scheduler,
            nodes: (0..arguments.nodes).map(|index| Node::new(format!("node-{index}"))).collect(),
            listen: arguments.listen,
            users: arguments.users,
            extra_apiserver_args: arguments.apiserver_arg,
            extra_etcd_args: Vec::new(),
            log_directory: arguments.log_dir,
        }
    }
}

fn parse_user(text: &str) -> Result<User, String> {
    let (name, groups) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("the user needs a name: `NAME` or `NAME=GROUP,GROUP`".to_owned());
    }
    let groups = groups.split(',').filter(|group| !group.is_empty());
    Ok(groups.fold(User::new(name), User::group))
}

pub(crate) async fn execute(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Subcommands::Build => {
            let progress = Progress::default();
            for binaries in [Binaries::control_plane(progress).await?, Binaries::kwok(progress).await?] {
                run::print(&binaries.directory().display().to_string())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Subcommands::Run { control_plane, command } => run::command(control_plane.into(), &command).await,
        Subcommands::Up { control_plane } => run::until_interrupted(control_plane.into()).await,
        Subcommands::Demo(arguments) => demo::execute(arguments).await,
    }
}
