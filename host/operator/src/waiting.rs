//! Futures that wait for something seldom enough that a task is not worth its start: starting one wakes another thread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls the future here and now, in that runtime's context, and spawns it there when it is woken. It must be woken at some time,
/// by a timeout for example: nobody else ends it.
pub(crate) fn spawn_when_woken(runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) {
    let mut future: Boxed = Box::pin(future);
    let waiting = Arc::new(Waiting { runtime: runtime.clone(), state: Mutex::new(State::Polled) });
    let waker = Waker::from(Arc::clone(&waiting));
    let _context = runtime.enter();
    if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        return;
    }
    let mut state = waiting.state.lock();
    match *state {
        State::Woken => drop(runtime.spawn(future)),
        State::Polled | State::Waits(_) => *state = State::Waits(future),
    }
}

struct Waiting {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    /// For the first time, right now.
    Polled,
    Waits(Boxed),
    Woken,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Woken);
        if let State::Waits(future) = before {
            self.runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn what_is_ready_at_once_needs_no_task() {
        let (done, mut is_done) = oneshot::channel();
        spawn_when_woken(&Handle::current(), async move { done.send(()).unwrap() });
        assert_eq!(is_done.try_recv(), Ok(()));
    }

    #[tokio::test]
    async fn what_waits_goes_on_when_it_is_woken_even_while_it_is_polled_first() {
        for at_once in [false, true] {
            let (begin, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (begins, ended) = (Arc::clone(&begin), Arc::clone(&end));
            spawn_when_woken(&Handle::current(), async move {
                if at_once {
                    tokio::task::yield_now().await;
                } else {
                    begins.notified().await;
                }
                tokio::time::sleep(Duration::from_micros(10)).await;
                ended.notify_one();
            });
            begin.notify_one();
            end.notified().await;
        }
    }

    #[test]
    fn it_goes_on_in_the_runtime_that_was_named() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("other").enable_all().build().unwrap();
        let (name, named) = oneshot::channel();
        spawn_when_woken(runtime.handle(), async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            name.send(std::thread::current().name().map(str::to_owned)).unwrap();
        });
        assert_eq!(named.blocking_recv().unwrap().as_deref(), Some("other"));
    }
}
