//! An honest stand-in for the part of OpenWhisk's REST API that outsiders use: actions are looked up and invoked,
//! triggers are fired. It knows namespaces with credentials, answers in OpenWhisk's shapes and with its status codes,
//! records every request, and spoils its answers exactly as a test tells it.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use openwhisk::{Action, Behaviour, OpenWhisk};
//!
//! let whisk = OpenWhisk::start_tls().await?;
//! whisk.namespace("guest", "user:key");
//! whisk.action("/guest/5g-media/ping", Action::blackbox("example/ping:1"))?;
//! whisk.trigger("/guest/done")?;
//! whisk.script("POST /api/v1/namespaces/guest/triggers/done", [Behaviour::Status(503), Behaviour::Status(503)]);
//! println!("{} {:?}", whisk.url(), whisk.authority());
//! let fired = whisk.wait_for(1, "the trigger fires", |request| request.is_accepted()).await?;
//! # Ok(()) }
//! ```
//!
//! Shapes and status codes are those of `core/controller` in apache/openwhisk: `Actions.scala`, `Triggers.scala`,
//! `WhiskAction.scala`, `ErrorResponse.scala`.

mod action;
mod answer;
mod model;
mod record;
mod script;
mod server;
mod tls;

pub use action::Action;
pub use record::Request;
pub use script::Behaviour;
pub use server::OpenWhisk;
