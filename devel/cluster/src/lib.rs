//! A real Kubernetes control plane on loopback, without Docker: etcd, kube-apiserver, kube-controller-manager and, if
//! wanted, kube-scheduler and simulated nodes.
//!
//! The demo, the end-to-end tests and the benchmarks run against these instead of a fake, because a fake drifts into a
//! badly written API server.
//!
//! ```no_run
//! # async fn example() -> Result<(), wasm_operator_devel::Error> {
//! use wasm_operator_devel::{ControlPlane, Options, User};
//!
//! let mut control_plane = ControlPlane::start(Options::default().user(User::new("alice"))).await?;
//! println!("{}", control_plane.kubeconfig().display());
//! control_plane.restart_apiserver().await?;
//! control_plane.stop().await;
//! # Ok(()) }
//! ```

mod binaries;
mod clients;
mod control_plane;
mod flags;
mod kubeconfig;
mod nodes;
mod options;
mod pki;
mod port;
mod process;
mod progress;
mod state;
mod workdir;

pub use binaries::Binaries;
pub use clients::{Error as ClientError, http_client, kubernetes_client};
pub use control_plane::{ControlPlane, Error, EtcdBackup};
pub use nodes::{Node, set_container_log};
pub use options::{Options, User};
pub use port::free_port;
pub use process::{Component, Error as ProcessError, spawn};
pub use progress::Progress;
pub use state::{STATE_VARIABLE, State};
