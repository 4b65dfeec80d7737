//! Whose turn it is: a guest never runs while its memory is written and mapped.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::memories::Memories;

#[derive(Default)]
pub(crate) struct Turn {
    state: Mutex<State>,
    /// Notified when a hibernation ends for which a drop waits.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    holder: Holder,
    /// The guest, if it had to wait for a hibernation.
    waiting: Option<Waker>,
    /// It is about to be dropped.
    is_to_be_dropped: bool,
    /// The guest gets no turn any more.
    is_locked_out: bool,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Holder {
    #[default]
    Nobody,
    Guest,
    Hibernation,
}

/// The turn as long as this lives.
pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    /// None while the guest is being polled, or another hibernation is under way.
    pub(crate) fn for_hibernation(&self) -> Option<Held<'_>> {
        self.take(Holder::Hibernation, None)
    }

    /// None during a hibernation, after which `waker` is called, and forever once the guest is locked out.
    fn for_guest(&self, waker: &Waker) -> Option<Held<'_>> {
        self.take(Holder::Guest, Some(waker))
    }

    fn take(&self, holder: Holder, waker: Option<&Waker>) -> Option<Held<'_>> {
        let mut state = self.state.lock();
        if state.holder != Holder::Nobody {
            if let Some(waker) = waker {
                state.waiting = Some(waker.clone());
            }
            return None;
        }
        if holder == Holder::Guest && state.is_locked_out {
            return None;
        }
        state.holder = holder;
        Some(Held(self))
    }

    /// For dropping what is the guest's. Blocks the thread until a hibernation that is under way has ended, which it does as soon as it
    /// can.
    fn for_drop(&self) -> Held<'_> {
        let mut state = self.state.lock();
        while state.holder != Holder::Nobody {
            state.is_to_be_dropped = true;
            self.ended.wait(&mut state);
        }
        (state.is_to_be_dropped, state.holder) = (false, Holder::Guest);
        Held(self)
    }

    /// Whether somebody waits for the end of the hibernation.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        state.is_to_be_dropped || state.waiting.is_some()
    }
}

impl Held<'_> {
    /// From now on the guest waits until it is dropped. What is left of its memory is not to be touched by anybody: in a
    /// function of the host that would end the host.
    pub(crate) fn lock_guest_out(&self) {
        self.0.state.lock().is_locked_out = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.holder = Holder::Nobody;
            if state.is_to_be_dropped {
                self.0.ended.notify_one();
            }
            state.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

thread_local! {
    /// Whose future this thread polls. wasmtime does not tell the maker of memories which guest they are for, and polls
    /// guests on the thread of the caller.
    static CURRENT: RefCell<Option<Memories>> = const { RefCell::new(None) };
}

/// The guest whose future is being polled by this thread.
pub(crate) fn current() -> Option<Memories> {
    CURRENT.with_borrow(Clone::clone)
}

/// Sets the current guest, and the one before again when dropped.
struct Entered(Option<Memories>);

impl Entered {
    fn new(memories: &Memories) -> Self {
        Self(CURRENT.replace(Some(memories.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// What is a guest's and may touch its memory or its contexts when it is dropped: then it is dropped while no hibernation is
/// under way. Made by [`Memories::in_turn`].
pub struct InTurn<T> {
    memories: Memories,
    /// None only while it is dropped.
    value: Option<T>,
}

impl<T> InTurn<T> {
    pub(crate) fn new(memories: Memories, value: T) -> Self {
        Self { memories, value: Some(value) }
    }
}

impl<T> Deref for InTurn<T> {
    type Target = T;

    #[allow(clippy::expect_used, reason = "it is there until the drop")]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("in use while it is dropped")
    }
}

impl<T> DerefMut for InTurn<T> {
    #[allow(clippy::expect_used, reason = "it is there until the drop")]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("in use while it is dropped")
    }
}

impl<T> Drop for InTurn<T> {
    fn drop(&mut self) {
        let is_in_turn = current().is_some_and(|current| current.is_same(&self.memories));
        let _turn = (!is_in_turn).then(|| self.memories.turn().for_drop());
        let _entered = Entered::new(&self.memories);
        drop(self.value.take());
    }
}

/// Polls a future of a guest, but not while the guest is being hibernated: then it waits for the end of that, and for ever if
/// the guest's memory was lost. Made by [`Memories::exclusive`].
#[must_use = "futures do nothing unless they are polled"]
pub struct Exclusive<F>(InTurn<Pin<Box<F>>>);

impl<F> Exclusive<F> {
    pub(crate) fn new(memories: Memories, future: F) -> Self {
        Self(InTurn::new(memories, Box::pin(future)))
    }
}

impl<F: Future> Future for Exclusive<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self(InTurn { memories, value: Some(future) }) = self.get_mut() else { return Poll::Pending };
        if current().is_some_and(|current| current.is_same(memories)) {
            // Inside of another one of the same guest, which has the turn.
            return future.as_mut().poll(context);
        }
        let Some(_turn) = memories.turn().for_guest(context.waker()) else { return Poll::Pending };
        memories.wake();
        let _entered = Entered::new(memories);
        future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_guest_that_is_polled_during_a_hibernation_waits_says_so_and_is_woken_after_it() {
        let memories = Memories::never_hibernated();
        let mut guest = memories.exclusive(std::future::ready(1));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);

        let hibernation = memories.turn().for_hibernation().unwrap();
        assert!(!memories.turn().is_wanted());
        assert!(Pin::new(&mut guest).poll(&mut context).is_pending());
        assert!(memories.turn().is_wanted());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        drop(hibernation);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(!memories.turn().is_wanted());
        assert!(Pin::new(&mut guest).poll(&mut context).is_ready());
    }

    #[test]
    fn a_guest_that_is_locked_out_waits_for_ever_and_can_still_be_looked_at() {
        let memories = Memories::never_hibernated();
        let mut guest = memories.exclusive(std::future::ready(1));
        let mut context = Context::from_waker(Waker::noop());
        let hibernation = memories.turn().for_hibernation().unwrap();
        assert!(Pin::new(&mut guest).poll(&mut context).is_pending());
        hibernation.lock_guest_out();
        drop(hibernation);
        assert!(Pin::new(&mut guest).poll(&mut context).is_pending());
        assert!(!memories.turn().is_wanted());
        assert!(memories.turn().for_hibernation().is_some());
    }

    #[test]
    fn what_is_dropped_during_a_hibernation_hurries_it_and_is_dropped_after_it() {
        struct Told(Arc<AtomicUsize>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (memories, count) = (Memories::never_hibernated(), Arc::new(AtomicUsize::new(0)));
        let held = memories.in_turn(Told(Arc::clone(&count)));
        let hibernation = memories.turn().for_hibernation().unwrap();
        let drops = std::thread::spawn(move || drop(held));
        while !memories.turn().is_wanted() {
            std::thread::yield_now();
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
        drop(hibernation);
        drops.join().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(memories.turn().for_hibernation().is_some());
    }

    #[test]
    fn what_a_guest_drops_while_it_runs_is_in_its_turn_already() {
        let memories = Memories::never_hibernated();
        let inner = memories.in_turn(1);
        let mut guest = memories.exclusive(async { drop(inner) });
        assert!(Pin::new(&mut guest).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn two_hibernations_of_one_guest_exclude_each_other() {
        let turn = Turn::default();
        let first = turn.for_hibernation();
        assert!(first.is_some() && turn.for_hibernation().is_none());
        drop(first);
        assert!(turn.for_hibernation().is_some());
    }
}
