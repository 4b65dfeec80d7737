//! The tokio runtime of an instance: one thread, created at the first call, kept for the next ones.

use std::future::Future;
use std::pin::pin;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = build();
}

// A guest without a runtime can do nothing at all, and a panic is how a guest tells the host.
#[allow(clippy::expect_used)]
fn build() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time();
    #[cfg(target_os = "wasi")]
    crate::reactor::install(&mut builder);
    builder.build().expect("a current-thread runtime needs nothing that could be missing")
}

/// Runs a future to its end. Requests and timers of spawned tasks go on meanwhile, and wait between two calls.
///
/// [`main!`](crate::main) does this for `reconcile`; use it only for exports of your own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    RUNTIME.with(|runtime| {
        runtime.block_on(std::future::poll_fn(|context| {
            #[cfg(target_os = "wasi")]
            crate::reactor::count_poll();
            future.as_mut().poll(context)
        }))
    })
}

/// Runs a function in the runtime's context, where `tokio::spawn` works.
pub fn enter<T>(function: impl FnOnce() -> T) -> T {
    RUNTIME.with(|runtime| {
        let _context = runtime.enter();
        function()
    })
}
