//! The shell around the pure [`Dispatcher`]: a lock, a clock, and one task that turns its commands into calls.
//!
//! Anyone may [`Scheduler::tell`] it what happened. The commands are taken by one task only, so the runner sees them in
//! the order in which they were decided: a guest is never put to sleep by a command that is older than its run.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wasm_operator_core::dispatch::{
    Completion, Dispatcher, GuestId, Job, Key, Options, ProgramRun, Refusal, RequestId, Serve, SleepReason, Step, Time,
};

/// What the scheduler asks of the application. Every call returns at once; longer work is spawned.
pub(crate) trait Runner: Send + Sync + 'static {
    /// Drop what there is of the guest, compile and describe its component, then tell the dispatcher `loaded` or
    /// `load_failed`.
    fn load(&self, guest: GuestId);
    /// Reconcile, and say through `run` how it ended.
    fn run(&self, job: Job, run: Run);
    /// Have the guest serve the request, and say through `serving` how that ended.
    fn serve(&self, serve: Serve, serving: Serving);
    /// Tell the caller that the request is not served.
    fn refuse(&self, request: RequestId, refusal: Refusal);
    /// Start the guest's program, and tell the dispatcher `program_ended` if it ends by itself.
    fn start(&self, guest: GuestId, run: ProgramRun);
    /// Make an instance of the guest, and say through `preparation` whether there is one.
    fn prepare(&self, guest: GuestId, preparation: Preparation);
    /// Drop the guest's instances.
    fn sleep(&self, guest: GuestId, reason: SleepReason);
    /// Drop the guest's compiled component from memory.
    fn unload(&self, guest: GuestId);
    /// Tell the dispatcher `resync` with all keys of the guest.
    fn resync(&self, guest: GuestId);
    /// Drop everything of a guest that was removed.
    fn removed(&self, guest: GuestId);
}

/// The scheduler of the whole host.
pub(crate) struct Scheduler {
    state: Mutex<State>,
    changed: Notify,
    /// Told at every turn of the loop, for those who ask whether it still turns.
    turned: Notify,
    start: Instant,
}

struct State {
    dispatcher: Dispatcher,
    /// The loop waits until then, or for ever, unless it is woken. None: it turns, and will see whatever it is told.
    waits_until: Option<Option<Time>>,
}

impl State {
    /// Whether the loop has to be woken for what the dispatcher was told.
    fn has_news(&self) -> bool {
        let Some(until) = self.waits_until else { return false };
        // The last run of a drained dispatcher is no command.
        self.dispatcher.is_draining()
            || self.dispatcher.next_time().is_some_and(|next| until.is_none_or(|until| next < until))
    }
}

impl Scheduler {
    /// A scheduler without guests. Its time starts now.
    pub(crate) fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { dispatcher: Dispatcher::new(options), waits_until: None }),
            changed: Notify::new(),
            turned: Notify::new(),
            start: Instant::now(),
        })
    }

    /// Tells the dispatcher something. The closure holds the lock: it must not block. The loop is woken only if that makes
    /// something due earlier than what it waits for: most of what is told at the end of a run does not.
    pub(crate) fn tell<T>(&self, say: impl FnOnce(&mut Dispatcher, Time) -> T) -> T {
        let mut state = self.state.lock();
        // Read under the lock, so that the dispatcher's time never goes back.
        let now = self.now();
        let answer = say(&mut state.dispatcher, now);
        let has_news = state.has_news();
        drop(state);
        if has_news {
            self.changed.notify_one();
        }
        answer
    }

    /// Asks the dispatcher something.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Dispatcher, Time) -> T) -> T {
        let state = self.state.lock();
        question(&state.dispatcher, self.now())
    }

    /// The dispatcher's time.
    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// That moment in the dispatcher's time.
    pub(crate) fn time(&self, at: Instant) -> Time {
        Time::ZERO + at.saturating_duration_since(self.start)
    }

    /// Resolves when the loop has taken a turn.
    pub(crate) async fn responds(&self) {
        let turned = self.turned.notified();
        self.changed.notify_one();
        turned.await;
    }

    /// Carries out the dispatcher's commands until it was drained and the last run has ended.
    pub(crate) async fn serve(self: Arc<Self>, runner: Arc<dyn Runner>) {
        loop {
            self.turned.notify_waiters();
            while let Some(step) = self.next_step() {
                self.carry_out(step, &*runner);
            }
            let next = {
                let mut state = self.state.lock();
                if state.dispatcher.is_drained() {
                    return;
                }
                // Under the same lock: what is told from here on leaves a permit if it matters.
                let next = state.dispatcher.next_time();
                state.waits_until = Some(next);
                next
            };
            match next {
                None => self.changed.notified().await,
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(self.start + at.since(Time::ZERO)) => {}
                },
            }
            self.state.lock().waits_until = None;
        }
    }

    fn next_step(&self) -> Option<Step> {
        let mut state = self.state.lock();
        let now = self.now();
        state.dispatcher.step(now)
    }

    fn carry_out(self: &Arc<Self>, step: Step, runner: &dyn Runner) {
        match step {
            Step::Load(guest) => runner.load(guest),
            Step::Run(job) => {
                let run = Run { scheduler: Arc::clone(self), guest: job.guest, key: Some(job.key.clone()) };
                runner.run(job, run);
            }
            Step::Serve(serve) => {
                let request = Some(serve.request);
                runner.serve(serve, Serving { scheduler: Arc::clone(self), guest: serve.guest, request });
            }
            Step::Refuse(_, request, refusal) => runner.refuse(request, refusal),
            Step::Start(guest, run) => runner.start(guest, run),
            Step::Prepare(guest) => {
                runner.prepare(guest, Preparation { scheduler: Arc::clone(self), guest, ready: false });
            }
            Step::Sleep(guest, reason) => runner.sleep(guest, reason),
            Step::Unload(guest) => runner.unload(guest),
            Step::Resync(guest) => runner.resync(guest),
            Step::Removed(guest) => runner.removed(guest),
        }
    }
}

/// A run under way. Dropped without an answer, by a panic for example, it counts as broken: the key is never lost.
pub(crate) struct Run {
    scheduler: Arc<Scheduler>,
    guest: GuestId,
    key: Option<Key>,
}

impl Run {
    /// Says how it ended. `cost` is charged under fair share: the CPU time of the call.
    pub(crate) fn finish(mut self, completion: Completion, cost: Duration) {
        self.end(completion, cost);
    }

    fn end(&mut self, completion: Completion, cost: Duration) {
        if let Some(key) = self.key.take() {
            self.scheduler.tell(|dispatcher, now| dispatcher.finished(now, self.guest, &key, completion, cost));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end(Completion::Broken, Duration::ZERO);
    }
}

/// A request that is being served. Dropped without an answer, by a panic for example, the guest counts as broken.
pub(crate) struct Serving {
    scheduler: Arc<Scheduler>,
    guest: GuestId,
    request: Option<RequestId>,
}

impl Serving {
    /// Says how it ended. `broken`: the guest trapped or broke a limit. `cost` is charged under fair share: the CPU time of
    /// the call.
    pub(crate) fn finish(mut self, broken: bool, cost: Duration) {
        self.end(broken, cost);
    }

    fn end(&mut self, broken: bool, cost: Duration) {
        if let Some(request) = self.request.take() {
            self.scheduler.tell(|dispatcher, now| dispatcher.served(now, self.guest, request, broken, cost));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end(true, Duration::ZERO);
    }
}

/// A guest is being made ready. Dropped without an answer, it counts as failed.
pub(crate) struct Preparation {
    scheduler: Arc<Scheduler>,
    guest: GuestId,
    ready: bool,
}

impl Preparation {
    /// Says that the guest has an instance, or needs none any more.
    pub(crate) fn succeed(mut self) {
        self.ready = true;
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.scheduler.tell(|dispatcher, now| dispatcher.prepared(now, self.guest, self.ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use wasm_operator_core::dispatch::{Mark, Settings, SleepPolicy, State};
    use wasm_operator_core::object::ObjectRef;
    use wasm_operator_core::reconcile::Cause;

    enum Call {
        Run(Job, Run),
        Sleep(GuestId),
        Removed(GuestId),
    }

    /// Loads at once, hands the rest to the test.
    struct Recorder {
        scheduler: Arc<Scheduler>,
        calls: mpsc::UnboundedSender<Call>,
    }

    impl Runner for Recorder {
        fn load(&self, guest: GuestId) {
            self.scheduler.tell(|dispatcher, now| dispatcher.loaded(now, guest));
        }
        fn run(&self, job: Job, run: Run) {
            self.calls.send(Call::Run(job, run)).ok();
        }
        fn serve(&self, _: Serve, serving: Serving) {
            serving.finish(false, Duration::ZERO);
        }
        fn start(&self, _: GuestId, _: ProgramRun) {}
        fn refuse(&self, _: RequestId, _: Refusal) {}
        fn prepare(&self, _: GuestId, preparation: Preparation) {
            preparation.succeed();
        }
        fn sleep(&self, guest: GuestId, _: SleepReason) {
            self.calls.send(Call::Sleep(guest)).ok();
        }
        fn unload(&self, _: GuestId) {}
        fn resync(&self, _: GuestId) {}
        fn removed(&self, guest: GuestId) {
            self.calls.send(Call::Removed(guest)).ok();
        }
    }

    struct Fixture {
        scheduler: Arc<Scheduler>,
        calls: mpsc::UnboundedReceiver<Call>,
        served: tokio::task::JoinHandle<()>,
        guest: GuestId,
    }

    impl Fixture {
        fn new(idle_after: Option<Duration>) -> Self {
            let scheduler = Scheduler::new(Options::default());
            let (sender, calls) = mpsc::unbounded_channel();
            let runner = Arc::new(Recorder { scheduler: Arc::clone(&scheduler), calls: sender });
            let served = tokio::spawn(Arc::clone(&scheduler).serve(runner));
            let sleep = idle_after.map_or(SleepPolicy::Never, SleepPolicy::Fixed);
            let settings = Settings { sleep, ..Settings::default() };
            let guest = scheduler.tell(|dispatcher, now| dispatcher.add(now, settings));
            Self { scheduler, calls, served, guest }
        }

        fn mark(&self) {
            let object = ObjectRef { namespace: None, name: "a".into() };
            let key = Key { controller: "c".into(), object };
            let guest = self.guest;
            self.scheduler.tell(|dispatcher, now| dispatcher.mark(now, guest, Mark::new(key, Cause::Change)));
        }

        async fn run(&mut self) -> (Job, Run) {
            match self.calls.recv().await {
                Some(Call::Run(job, run)) => (job, run),
                _ => panic!("not a run"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_requeue_wakes_a_sleeping_guest_on_time() {
        let mut host = Fixture::new(Some(Duration::from_secs(1)));
        host.mark();
        let (_, run) = host.run().await;
        let start = Instant::now();
        run.finish(Completion::RequeueAfter(Duration::from_secs(60)), Duration::ZERO);
        assert!(matches!(host.calls.recv().await, Some(Call::Sleep(guest)) if guest == host.guest));
        assert!(start.elapsed().abs_diff(Duration::from_secs(1)) <= Duration::from_millis(2));
        let (job, run) = host.run().await;
        assert_eq!(job.cause, Cause::Timer);
        assert!(start.elapsed().abs_diff(Duration::from_secs(60)) <= Duration::from_millis(2));
        run.finish(Completion::Done, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_timer_moves_the_sleep_of_the_task() {
        let mut host = Fixture::new(None);
        host.mark();
        let (_, run) = host.run().await;
        run.finish(Completion::RequeueAfter(Duration::from_secs(600)), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let start = Instant::now();
        host.mark();
        let (_, run) = host.run().await;
        run.finish(Completion::RequeueAfter(Duration::from_millis(20)), Duration::ZERO);
        let (job, _run) = host.run().await;
        assert_eq!(job.cause, Cause::Timer);
        assert!(start.elapsed().abs_diff(Duration::from_millis(20)) <= Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_is_woken_for_what_is_due_earlier_and_for_nothing_else() {
        let mut host = Fixture::new(None);
        host.mark();
        host.run().await.1.finish(Completion::RequeueAfter(Duration::from_secs(60)), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut turned = std::pin::pin!(host.scheduler.turned.notified());
        turned.as_mut().enable();
        host.scheduler.tell(|dispatcher, _| dispatcher.set_bytes(host.guest, 1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(futures::poll!(turned.as_mut()).is_pending());
        host.mark();
        turned.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_requeue_after_ever_so_long_does_no_harm() {
        let mut host = Fixture::new(None);
        host.mark();
        let (_, run) = host.run().await;
        run.finish(Completion::RequeueAfter(Duration::MAX), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(60)).await;
        host.mark();
        host.run().await.1.finish(Completion::Done, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_vanishes_counts_as_broken_and_its_key_comes_back() {
        let mut host = Fixture::new(Some(Duration::from_secs(1)));
        host.mark();
        let (_, run) = host.run().await;
        let task = tokio::spawn(async move {
            let _run = run;
            panic!("a fault of the host");
        });
        assert!(task.await.is_err());
        let state = host.scheduler.ask(|dispatcher, now| dispatcher.snapshot(now, host.guest).unwrap().state);
        assert!(matches!(state, State::Failed { attempts: 1, .. }), "{state:?}");
        assert!(matches!(host.calls.recv().await, Some(Call::Sleep(guest)) if guest == host.guest));
        let (job, _run) = host.run().await;
        assert_eq!((job.attempt, job.cause), (1, Cause::Retry));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_the_last_run_and_starts_no_other() {
        let mut host = Fixture::new(None);
        host.mark();
        let (_, run) = host.run().await;
        host.scheduler.tell(|dispatcher, now| dispatcher.drain(now));
        host.mark();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!host.served.is_finished());
        run.finish(Completion::Done, Duration::ZERO);
        host.served.await.unwrap();
        assert!(host.calls.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_guest_is_let_go_after_its_run() {
        let mut host = Fixture::new(None);
        host.mark();
        let (_, run) = host.run().await;
        host.scheduler.tell(|dispatcher, now| dispatcher.remove(now, host.guest));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(host.calls.try_recv().is_err());
        run.finish(Completion::Done, Duration::ZERO);
        assert!(matches!(host.calls.recv().await, Some(Call::Removed(guest)) if guest == host.guest));
    }
}
