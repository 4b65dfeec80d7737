//! Write Kubernetes controllers that run as WebAssembly components under wasm-operator.
//!
//! # With kube-rs (feature `kube`, on by default)
//!
//! A controller is what it is in kube-rs: an `async fn reconcile(object, context) -> Result<Action, Error>`, an error
//! policy, and a `kube::Client`. Watches, caches, queues and timers live in the host, so instead of a `main` that runs
//! streams there is a set-up function that says what is watched:
//!
//! ```no_run
//! use std::sync::Arc;
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use wasm_operator_sdk::{Action, Config, Controller, IntoGuest, Rule, client, kube};
//!
//! struct Context { client: kube::Client }
//!
//! async fn reconcile(object: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, kube::Error> {
//!     Ok(Action::await_change())
//! }
//!
//! fn error_policy(_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Context>) -> Action {
//!     Action::retry()
//! }
//!
//! fn setup() -> impl IntoGuest {
//!     Controller::<ConfigMap>::new(Config::default().labels("app=hello"))
//!         .asks_for(Rule::on::<ConfigMap>().patch())
//!         .run(reconcile, error_policy, Arc::new(Context { client: client() }))
//! }
//!
//! wasm_operator_sdk::main!(setup);
//! # fn main() {}
//! ```
//!
//! What a port from kube-rs has to know:
//!
//! - A guest keeps nothing between two calls: the instance may be dropped after any of them. State belongs in the
//!   cluster; what the context holds is a cache at best.
//! - `reconcile` gets the object from the host's cache, which watched it. Further reads are requests; those that may be
//!   answered from the host's cache say so ([`ApiExt::get_cached`], [`ApiExt::list_cached`]).
//! - [`Action::retry`] leaves the backoff to the host; that is the best error policy for most controllers.
//! - `tokio::spawn`, `tokio::time` and everything in `futures` work. There are no threads, files or sockets.
//!
//! # Serving HTTP
//!
//! `main!(setup, serve = handle)` exports `wasi:http/incoming-handler` besides: the guest answers requests behind the host's
//! front door, which wake it. See [`serve`].
//!
//! # The thin level (`default-features = false`)
//!
//! Implement [`bindings::Guest`] yourself and [`bindings::export!`] it; [`http`](mod@http) sends requests. The component is five times
//! smaller. The programs in `tests/misbehaving` are written this way.

pub mod bindings;
pub mod http;

#[cfg(feature = "kube")]
mod action;
#[cfg(feature = "kube")]
mod api;
#[cfg(feature = "kube")]
mod client;
#[cfg(feature = "kube")]
pub mod conditions;
#[cfg(feature = "kube")]
mod config;
#[cfg(feature = "kube")]
mod controller;
#[cfg(feature = "kube")]
pub mod events;
#[cfg(feature = "kube")]
pub mod finalizer;
#[cfg(feature = "kube")]
mod guest;
#[cfg(feature = "kube")]
pub mod logging;
#[cfg(feature = "kube")]
pub mod names;
#[cfg(feature = "kube")]
pub mod owners;
#[cfg(feature = "kube")]
mod permission;
#[cfg(all(feature = "kube", target_os = "wasi"))]
mod reactor;
#[cfg(feature = "kube")]
pub mod runtime;
#[cfg(feature = "kube")]
pub mod serve;

#[cfg(feature = "kube")]
pub use self::{
    action::Action,
    api::ApiExt,
    client::client,
    config::{Config, Mapping},
    controller::{Controller, Deleted, Reconciler},
    guest::{Cause, Guest, IntoGuest, RequestInfo, request},
    permission::Rule,
};
#[cfg(feature = "kube")]
pub use {k8s_openapi, kube};

/// What [`main!`] expands to; not for direct use.
#[cfg(feature = "kube")]
#[doc(hidden)]
pub mod export {
    pub use crate::guest::{describe, reconcile};
    #[cfg(target_os = "wasi")]
    pub use wasip2;
}

/// Makes this crate a guest: `main!(setup)`, where `setup` is a function without arguments that returns something that
/// is [`IntoGuest`]: the result of [`Controller::run`], a `Vec` or an array of them, or a `Result` of one of these.
///
/// `setup` runs once per instance and also for `describe`: it must depend on environment and arguments only and must
/// not send requests.
///
/// `main!(setup, serve = handle)` also answers HTTP requests behind the host's front door, with
/// `async fn handle(request: http::Request<Bytes>) -> http::Response<Bytes>`; see [`serve`].
#[cfg(feature = "kube")]
#[macro_export]
macro_rules! main {
    ($setup:path, serve = $handle:path) => {
        $crate::main!($setup);

        #[cfg(target_os = "wasi")]
        impl $crate::export::wasip2::exports::http::incoming_handler::Guest for WasmOperatorGuest {
            fn handle(
                request: $crate::export::wasip2::http::types::IncomingRequest,
                answer: $crate::export::wasip2::http::types::ResponseOutparam,
            ) {
                $crate::serve::serve($setup, $handle, request, answer)
            }
        }

        #[cfg(target_os = "wasi")]
        $crate::export::wasip2::http::proxy::export!(WasmOperatorGuest with_types_in $crate::export::wasip2);

        #[cfg(not(target_os = "wasi"))]
        const _: fn() = || $crate::serve::check($handle);
    };
    ($setup:path) => {
        #[doc(hidden)]
        struct WasmOperatorGuest;

        impl $crate::bindings::Guest for WasmOperatorGuest {
            fn describe() -> ::core::result::Result<
                $crate::bindings::wasm_operator::controller::types::Description,
                ::std::string::String,
            > {
                $crate::export::describe($setup)
            }

            fn reconcile(
                request: $crate::bindings::wasm_operator::controller::types::Request,
            ) -> ::core::result::Result<
                $crate::bindings::wasm_operator::controller::types::Outcome,
                $crate::bindings::wasm_operator::controller::types::Failure,
            > {
                $crate::export::reconcile($setup, request)
            }
        }

        #[cfg(target_os = "wasi")]
        $crate::bindings::export!(WasmOperatorGuest with_types_in $crate::bindings);

        // On the build machine nobody calls the guest, and the compiler would call it dead code.
        #[cfg(not(target_os = "wasi"))]
        const _: fn() = || {
            let _ = <WasmOperatorGuest as $crate::bindings::Guest>::describe;
            let _ = <WasmOperatorGuest as $crate::bindings::Guest>::reconcile;
        };
    };
}
