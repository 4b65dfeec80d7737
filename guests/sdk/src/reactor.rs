//! Waiting for wasi pollables from tokio tasks.
//!
//! tokio's parker knows timers but not wasi pollables. So before the runtime parks, when no task is ready, its hook
//! polls all pollables that a task waits for. Nothing tells the hook when tokio's next timer is due: while a request is
//! under way it looks up in growing intervals, an eighth of the time it has waited already. So a tokio timer that
//! runs beside a request is late by at most an eighth or [`MIN_SLICE`]; without a request it is exact.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Builder;
use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{self, Pollable};

/// The first look-up interval: 5 ms in nanoseconds, longer than most requests take.
const MIN_SLICE: u64 = 5_000_000;

struct Entry {
    pollable: Pollable,
    waker: Option<Waker>,
    ready: bool,
}

/// A pollable that a task may wait for. Dropping it drops the pollable, which must happen before its parent is dropped.
#[derive(Debug)]
pub(crate) struct Registration(usize);

struct Reactor {
    entries: Vec<Option<Entry>>,
    /// Polls of tasks since the runtime was built, and what it was at the last park.
    polls: u64,
    parked_at: u64,
    /// How long nothing but look-ups happened.
    waited: u64,
}

thread_local! {
    static REACTOR: RefCell<Reactor> =
        const { RefCell::new(Reactor { entries: Vec::new(), polls: 0, parked_at: 0, waited: 0 }) };
}

pub(crate) fn install(builder: &mut Builder) {
    builder.on_thread_park(park).on_before_task_poll(|_| count_poll());
}

/// Tells the reactor that a task ran. tokio's hook sees spawned tasks only.
pub(crate) fn count_poll() {
    REACTOR.with_borrow_mut(|reactor| reactor.polls += 1);
}

impl Registration {
    pub(crate) fn new(pollable: Pollable) -> Self {
        REACTOR.with_borrow_mut(|reactor| {
            let entry = Some(Entry { pollable, waker: None, ready: false });
            match reactor.entries.iter_mut().enumerate().find(|(_, slot)| slot.is_none()) {
                Some((index, slot)) => {
                    *slot = entry;
                    Self(index)
                }
                None => {
                    reactor.entries.push(entry);
                    Self(reactor.entries.len() - 1)
                }
            }
        })
    }

    /// Ready once after each time that the pollable was.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        REACTOR.with_borrow_mut(|reactor| {
            let Some(Some(entry)) = reactor.entries.get_mut(self.0) else { return Poll::Ready(()) };
            if std::mem::take(&mut entry.ready) {
                return Poll::Ready(());
            }
            match &mut entry.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }

    pub(crate) async fn wait(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = REACTOR.with_borrow_mut(|reactor| reactor.entries.get_mut(self.0).and_then(Option::take));
        drop(entry);
    }
}

/// Waits until a pollable is ready or the next look at the timers is due, and wakes tasks.
fn park() {
    let woken = REACTOR.with_borrow_mut(Reactor::wait);
    match woken {
        // Nobody waits for a pollable: tokio's own parker sleeps until its next timer.
        None => {}
        // A task with nothing to do keeps the runtime from sleeping, and it looks at its timers.
        Some(wakers) if wakers.is_empty() => drop(tokio::spawn(std::future::ready(()))),
        Some(wakers) => wakers.into_iter().for_each(Waker::wake),
    }
}

impl Reactor {
    fn wait(&mut self) -> Option<Vec<Waker>> {
        let waiting: Vec<usize> = (0..self.entries.len())
            .filter(|index| self.entries.get(*index).is_some_and(|slot| slot.as_ref().is_some_and(Entry::waits)))
            .collect();
        if waiting.is_empty() {
            return None;
        }
        // One poll since the last look-up is that of the task with nothing to do.
        if self.polls - self.parked_at > 1 {
            self.waited = 0;
        }
        self.parked_at = self.polls;
        let slice = MIN_SLICE.max(self.waited / 8);
        let timer = monotonic_clock::subscribe_duration(slice);
        let mut pollables: Vec<&Pollable> = waiting
            .iter()
            .filter_map(|index| self.entries.get(*index)?.as_ref())
            .map(|entry| &entry.pollable)
            .collect();
        pollables.push(&timer);
        let ready = poll::poll(&pollables);
        let wakers: Vec<Waker> = ready
            .into_iter()
            .filter_map(|position| waiting.get(usize::try_from(position).ok()?))
            .filter_map(|index| self.entries.get_mut(*index)?.as_mut()?.fire())
            .collect();
        self.waited = if wakers.is_empty() { self.waited + slice } else { 0 };
        Some(wakers)
    }
}

impl Entry {
    fn waits(&self) -> bool {
        self.waker.is_some()
    }

    fn fire(&mut self) -> Option<Waker> {
        self.ready = true;
        self.waker.take()
    }
}
