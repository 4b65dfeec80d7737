//! Futures that run wherever they are polled, with the connections and timers of another runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Polls `future` in the context of `runtime`: what it spawns and what it sleeps on lives there, although the caller's
/// thread does the polling. Cheaper than a task when most answers are at hand.
pub(crate) fn within<F: Future>(runtime: &Handle, future: F) -> Within<F> {
    Within { runtime: runtime.clone(), future: Box::pin(future) }
}

pub(crate) struct Within<F> {
    runtime: Handle,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _context = this.runtime.enter();
        this.future.as_mut().poll(cx)
    }
}
