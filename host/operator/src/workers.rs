//! The threads on which guests run.
//!
//! Each is a current-thread runtime: a guest's HTTP requests spawn small tasks, and on a work-stealing runtime each of
//! these would wake an idle thread, which costs more than the request. A guest stays on one of them while it is awake. One
//! further thread is for guests that keep using up their time slices: what shares a thread with them waits for a slice
//! of theirs at every turn.
//!
//! Most reconciles are over in less than the time that two threads need to wake each other a few times, so they begin on the
//! thread where their event arrived, and where their requests leave from. What turns out to be long goes on here.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;
use wasm_operator_core::dispatch::GuestId;

/// A run that costs this much CPU is slow: ten time slices of 1 ms.
const SLOW_RUN: Duration = Duration::from_millis(10);

/// After so many slow runs in a row a guest moves to the slow worker, and after so many others back. More than one, so
/// that a guest does not move for its first run, which may have to build something.
const SLOW_RUNS: u8 = 3;

/// A run that costs this much moves the guest at once.
const VERY_SLOW_RUN: Duration = Duration::from_millis(100);

/// What a run may take from the thread where it began: two time slices.
const SHORT_RUN: Duration = Duration::from_millis(2);

/// After a longer run, this many short ones are to come before the guest begins elsewhere than on its worker again. So a guest
/// that is long on purpose delays the others' events once in seventeen runs.
const SHORT_RUNS: u8 = 16;

/// Runs that may be under way on the thread where they began. More than a chain of events has at once; a crowd is for the workers,
/// which are more than one.
const SHORT_AT_ONCE: usize = 4;

/// What all runs together may take at once of the thread where they began. They pay it back at half of the time that passes: so
/// whatever guests do, half of the thread is left for everything else.
const CREDIT: Duration = Duration::from_millis(5);

type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

struct Worker {
    /// Unbounded, yet it holds at most one task per run, and the dispatcher bounds the runs.
    tasks: mpsc::UnboundedSender<Task>,
    /// Tasks that have not ended.
    in_flight: Arc<AtomicUsize>,
}

/// The threads, and which guest is on which. The last one is the slow worker.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    placement: Mutex<Placement>,
    /// Runs under way where they began.
    short: Arc<AtomicUsize>,
    debt: Mutex<Debt>,
}

impl Workers {
    /// Starts so many threads (at least one) and the slow worker; `name` is what their names begin with.
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let mut workers = Vec::with_capacity(threads.saturating_add(1));
        for number in 0..threads {
            workers.push(start_worker(format!("{name}-{number}"))?);
        }
        workers.push(start_worker(format!("{name}-slow"))?);
        Ok(Self { workers, placement: Mutex::default(), short: Arc::default(), debt: Mutex::default() })
    }

    /// Runs a guest's future on `runtime` for as long as it is short, and on the guest's thread after that; from the beginning
    /// there if the guest was long lately, or if others take enough of the thread already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        runtime: &Handle,
        guest: GuestId,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let is_crowd = self.short.load(Ordering::Relaxed) >= SHORT_AT_ONCE;
        if is_crowd || self.debt.lock().at(Instant::now()) >= CREDIT || self.placement.lock().is_long(guest) {
            return self.submit(guest, move || future);
        }
        let (workers, counted) = (Arc::clone(self), Counted::new(&self.short));
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        runtime.spawn(Short { future: Some(future), taken: Duration::ZERO, guest, workers, _counted: counted });
    }

    /// Has a guest's thread make a future and run it. The future need not be `Send`.
    pub(crate) fn submit<F>(&self, guest: GuestId, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let loads: Vec<_> = self.workers.iter().map(|worker| worker.in_flight.load(Ordering::Relaxed)).collect();
        let place = self.placement.lock().place(guest, &loads);
        let Some(worker) = self.workers.get(place) else { return };
        let counted = Counted::new(&worker.in_flight);
        let task: Task = Box::new(move || {
            let future = make();
            Box::pin(async move {
                let _counted = counted;
                future.await;
            })
        });
        if worker.tasks.send(task).is_err() {
            tracing::error!("the worker thread `{place}` has ended; the run is lost and will be repeated");
        }
    }

    /// Resolves when the guest's thread has done all that was due when this was called, timers included.
    pub(crate) fn turn(&self, guest: GuestId) -> impl Future<Output = ()> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.submit(guest, move || async move {
            // The thread looks at its timers before this one's.
            tokio::time::sleep(Duration::from_millis(1)).await;
            // Whoever asked may have lost interest.
            let _ = answer.send(());
        });
        async move {
            // A thread that has ended has nothing due.
            let _ = answered.await;
        }
    }

    /// The guest has no instance any more: its next run may go to another thread.
    pub(crate) fn slept(&self, guest: GuestId) {
        self.placement.lock().leave(guest);
    }

    /// Says what CPU time a run of the guest has used. Returns whether the guest counts as slow now.
    pub(crate) fn used(&self, guest: GuestId, cpu: Duration) -> bool {
        self.placement.lock().used(guest, cpu)
    }

    /// Resolves when every thread has taken a turn.
    pub(crate) fn respond(&self) -> impl Future<Output = ()> + Send + use<> {
        let answers: Vec<_> = self
            .workers
            .iter()
            .filter_map(|worker| {
                let (answer, answered) = oneshot::channel();
                let task: Task = Box::new(move || {
                    Box::pin(async move {
                        // Whoever asked may have lost patience.
                        let _ = answer.send(());
                    })
                });
                worker.tasks.send(task).ok().map(|()| answered)
            })
            .collect();
        async move {
            for answered in answers {
                // A thread that has ended never answers, and so never responds.
                if answered.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// The guest was removed.
    pub(crate) fn removed(&self, guest: GuestId) {
        self.placement.lock().forget(guest);
    }
}

/// A run on the thread where it began.
struct Short {
    /// None once it has moved.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Of the thread.
    taken: Duration,
    guest: GuestId,
    workers: Arc<Workers>,
    _counted: Counted,
}

impl Future for Short {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(mut future) = self.future.take() else { return Poll::Ready(()) };
        let began = Instant::now();
        let polled = future.as_mut().poll(context);
        let now = Instant::now();
        let taken = now.saturating_duration_since(began);
        self.taken += taken;
        self.workers.debt.lock().grow(now, taken);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if self.taken >= SHORT_RUN {
            self.workers.submit(self.guest, move || future);
            return Poll::Ready(());
        }
        self.future = Some(future);
        Poll::Pending
    }
}

/// What runs have taken of the thread where they began, less what is paid back.
#[derive(Debug, Default)]
struct Debt {
    amount: Duration,
    /// When it was that much; None before the first run.
    since: Option<Instant>,
}

impl Debt {
    fn at(&self, now: Instant) -> Duration {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.amount.saturating_sub(passed / 2)
    }

    fn grow(&mut self, now: Instant, taken: Duration) {
        *self = Self { amount: self.at(now).saturating_add(taken), since: Some(now) };
    }
}

/// Counts a task for as long as it exists, even if it panics.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The thread ends when its sender is dropped.
fn start_worker(name: String) -> io::Result<Worker> {
    let (tasks, mut received) = mpsc::unbounded_channel::<Task>();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(name).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            while let Some(task) = received.recv().await {
                // A panic ends its task only.
                tokio::task::spawn_local(async move { task().await });
            }
        });
    })?;
    Ok(Worker { tasks, in_flight: Arc::default() })
}

/// Which guest is on which worker.
#[derive(Debug, Default)]
struct Placement {
    /// Guests that are awake.
    places: BTreeMap<GuestId, usize>,
    /// Guests that had long or slow runs lately.
    pace: BTreeMap<GuestId, Pace>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pace {
    slow: bool,
    /// Runs in a row that speak for the other side.
    against: u8,
    /// Short runs that are to come since the last longer one.
    short_runs_due: u8,
}

impl Placement {
    /// The guest's worker, or the least loaded one of its kind; of equally loaded ones that with the fewest guests.
    fn place(&mut self, guest: GuestId, loads: &[usize]) -> usize {
        if let Some(place) = self.places.get(&guest) {
            return *place;
        }
        let slow_worker = loads.len().saturating_sub(1);
        let place = if self.pace.get(&guest).is_some_and(|pace| pace.slow) {
            slow_worker
        } else {
            let mut guests = vec![0_usize; slow_worker];
            for place in self.places.values() {
                if let Some(count) = guests.get_mut(*place) {
                    *count += 1;
                }
            }
            let candidates = loads.iter().zip(&guests).enumerate();
            candidates.min_by_key(|(_, load)| *load).map_or(0, |(place, _)| place)
        };
        self.places.insert(guest, place);
        place
    }

    fn leave(&mut self, guest: GuestId) {
        self.places.remove(&guest);
    }

    fn is_long(&self, guest: GuestId) -> bool {
        self.pace.get(&guest).is_some_and(|pace| pace.short_runs_due > 0)
    }

    fn used(&mut self, guest: GuestId, cpu: Duration) -> bool {
        let slow_run = cpu >= SLOW_RUN;
        let mut pace = self.pace.get(&guest).copied().unwrap_or_default();
        pace.short_runs_due = if cpu >= SHORT_RUN { SHORT_RUNS } else { pace.short_runs_due.saturating_sub(1) };
        pace.against = if slow_run == pace.slow { 0 } else { pace.against.saturating_add(1) };
        if pace.against >= SLOW_RUNS || (cpu >= VERY_SLOW_RUN && !pace.slow) {
            pace = Pace { slow: slow_run, against: 0, ..pace };
            self.places.remove(&guest);
        }
        if pace == Pace::default() {
            self.pace.remove(&guest);
        } else {
            self.pace.insert(guest, pace);
        }
        pace.slow
    }

    fn forget(&mut self, guest: GuestId) {
        self.places.remove(&guest);
        self.pace.remove(&guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use tokio::sync::oneshot;
    use wasm_operator_core::dispatch::{Dispatcher, Options, Settings, Time};

    fn guests<const N: usize>() -> [GuestId; N] {
        let mut dispatcher = Dispatcher::new(Options::default());
        [(); N].map(|()| dispatcher.add(Time::ZERO, Settings::default()))
    }

    fn thread_of(workers: &Workers, guest: GuestId) -> String {
        let (sender, receiver) = oneshot::channel();
        workers.submit(guest, move || {
            // Not Send: it must be made on the thread that runs it.
            let name = Rc::new(here());
            async move {
                tokio::task::yield_now().await;
                sender.send((*name).clone()).unwrap();
            }
        });
        receiver.blocking_recv().unwrap()
    }

    #[test]
    fn a_guest_stays_on_its_thread_and_others_go_elsewhere() {
        let workers = Workers::start("guests", 2).unwrap();
        let [one, two, three] = guests();
        let thread = thread_of(&workers, one);
        let other = thread_of(&workers, two);
        assert_ne!(thread, other);
        thread_of(&workers, three);
        for _ in 0..10 {
            assert_eq!(thread_of(&workers, one), thread);
            assert_eq!(thread_of(&workers, two), other);
        }
    }

    /// Begins a run that keeps its thread for so long, by a clock that stands still otherwise, and says where it ends.
    fn begin(workers: &Arc<Workers>, guest: GuestId, keeps: Duration) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        workers.begin(&Handle::current(), guest, async move {
            // The worker's own clock does not stand still.
            if !keeps.is_zero() && !here().starts_with("guests") {
                // Hands the thread back at its end.
                tokio::time::advance(keeps).await;
            }
            sender.send(here()).unwrap();
        });
        receiver
    }

    fn here() -> String {
        thread::current().name().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_run_ends_where_it_began_and_a_longer_one_goes_on_on_a_worker() {
        let workers = Arc::new(Workers::start("guests", 1).unwrap());
        let [guest] = guests();
        let nearly = SHORT_RUN.saturating_sub(Duration::from_millis(1));
        assert_eq!(begin(&workers, guest, nearly).await.unwrap(), here());
        assert_eq!(begin(&workers, guest, SHORT_RUN).await.unwrap(), "guests-0");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_run_a_guest_begins_on_its_worker_until_it_was_short_many_times() {
        let workers = Arc::new(Workers::start("guests", 1).unwrap());
        let [guest] = guests();
        workers.used(guest, SHORT_RUN);
        for _ in 0..SHORT_RUNS {
            assert_eq!(begin(&workers, guest, Duration::ZERO).await.unwrap(), "guests-0");
            workers.used(guest, Duration::ZERO);
        }
        assert_eq!(begin(&workers, guest, Duration::ZERO).await.unwrap(), here());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_goes_to_the_workers() {
        let workers = Arc::new(Workers::start("guests", 1).unwrap());
        let [guest] = guests();
        let runs: Vec<_> = (0..=SHORT_AT_ONCE).map(|_| begin(&workers, guest, Duration::ZERO)).collect();
        let mut elsewhere = Vec::new();
        for run in runs {
            elsewhere.push(run.await.unwrap() == "guests-0");
        }
        assert_eq!(elsewhere, [false, false, false, false, true]);
        assert_eq!(begin(&workers, guest, Duration::ZERO).await.unwrap(), here(), "they have ended");
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_thread_is_left_for_everything_else() {
        let workers = Arc::new(Workers::start("guests", 1).unwrap());
        let [guest] = guests();
        let run = Duration::from_millis(1);
        let (began, mut taken) = (Instant::now(), Duration::ZERO);
        for _ in 0..1_000 {
            if begin(&workers, guest, run).await.unwrap() == here() {
                taken += run;
            } else {
                tokio::time::advance(run).await;
            }
        }
        let half = began.elapsed() / 2;
        assert!(taken.abs_diff(half) <= CREDIT + run, "{taken:?} of twice {half:?}");
    }

    #[test]
    fn a_panic_ends_one_task_and_not_its_thread() {
        let workers = Workers::start("guests", 1).unwrap();
        let [guest] = guests();
        let (sender, receiver) = oneshot::channel::<()>();
        workers.submit(guest, move || async move {
            let _sender = sender;
            panic!("a fault of the host");
        });
        assert!(receiver.blocking_recv().is_err());
        assert_eq!(thread_of(&workers, guest), "guests-0");
    }

    #[tokio::test]
    async fn a_turn_ends_after_what_was_due_while_another_guest_had_the_thread() {
        let workers = Workers::start("guests", 1).unwrap();
        let [guest, other] = guests();
        // Whatever is submitted until the start is taken up at once.
        let (start, started) = std::sync::mpsc::channel();
        workers.submit(other, move || async move { started.recv().unwrap() });
        let (sender, mut receiver) = oneshot::channel();
        let computes = Duration::from_millis(20);
        workers.submit(guest, move || async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            thread::sleep(computes);
            sender.send(()).unwrap();
        });
        workers.submit(other, move || async move { thread::sleep(computes) });
        let turn = workers.turn(guest);
        start.send(()).unwrap();
        turn.await;
        assert_eq!(receiver.try_recv(), Ok(()));
    }

    #[test]
    fn a_guest_that_keeps_using_up_its_slices_moves_to_the_slow_worker_and_back() {
        let workers = Workers::start("guests", 1).unwrap();
        let [guest] = guests();
        assert!(!workers.used(guest, SLOW_RUN));
        assert!(!workers.used(guest, SLOW_RUN));
        assert!(!workers.used(guest, Duration::ZERO));
        for run in 1..=SLOW_RUNS {
            assert_eq!(workers.used(guest, SLOW_RUN), run == SLOW_RUNS);
        }
        assert_eq!(thread_of(&workers, guest), "guests-slow");
        workers.slept(guest);
        assert_eq!(thread_of(&workers, guest), "guests-slow", "sleep is no excuse");
        for run in 1..=SLOW_RUNS {
            assert_eq!(workers.used(guest, Duration::ZERO), run < SLOW_RUNS);
        }
        assert_eq!(thread_of(&workers, guest), "guests-0");
        assert!(workers.used(guest, VERY_SLOW_RUN));
        assert_eq!(thread_of(&workers, guest), "guests-slow");
    }

    #[test]
    fn an_awake_guest_goes_to_the_least_loaded_thread_and_nothing_is_kept_of_a_removed_one() {
        let mut placement = Placement::default();
        let [one, two, three, four] = guests();
        assert_eq!(placement.place(one, &[3, 1, 2, 0]), 1);
        assert_eq!(placement.place(two, &[1, 1, 1, 0]), 0);
        assert_eq!(placement.place(three, &[1, 1, 1, 0]), 2);
        placement.leave(one);
        assert_eq!(placement.place(four, &[1, 1, 1, 0]), 1);
        placement.used(one, SLOW_RUN);
        assert!(placement.is_long(one));
        for guest in [one, two, three, four] {
            placement.forget(guest);
        }
        assert!(placement.places.is_empty() && placement.pace.is_empty());
    }
}
