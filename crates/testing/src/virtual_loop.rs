//! A loop in virtual time.

use std::ops::Deref;
use std::time::{Duration, Instant};

use tulipa_loop::{
    Builder, EventLoop, Executor, ExecutorError, Job, RunError, Stragglers, ThreadPool,
};
use tulipa_selector::{Holder, Timeout, VirtualHandle, VirtualSelector};

/// An event loop whose clock moves only when it is told to, and never jumps while a job is in its default
/// executor. Stands for asynctest's
/// `ClockedTestCase`.
///
/// It dereferences to its [`EventLoop`].
#[derive(Debug)]
pub struct VirtualLoop {
    event_loop: EventLoop,
    world: VirtualHandle,
    start: Instant,
}

/// A program that is still at work after so many turns at one instant will never be idle: more than
/// any test schedules, and below a second.
pub(crate) const MOST_TURNS_AT_ONE_INSTANT: usize = 1_000_000;

impl VirtualLoop {
    /// A loop at the time zero.
    pub fn new() -> VirtualLoop {
        VirtualLoop::from_builder(EventLoop::builder())
    }

    /// A loop with options; the builder's selector is replaced.
    ///
    /// # Panics
    /// Never: a virtual selector needs nothing of the operating system.
    pub fn from_builder(builder: Builder) -> VirtualLoop {
        let selector = VirtualSelector::new();
        let world = selector.handle();
        let event_loop = builder.selector(selector).build().expect("a virtual loop needs nothing");
        event_loop.set_default_executor(HoldingPool {
            pool: ThreadPool::builder().build(),
            holder: world.holder(),
        });
        VirtualLoop { event_loop, start: world.now(), world }
    }

    /// The outside world: sources and their readiness.
    pub fn world(&self) -> &VirtualHandle {
        &self.world
    }

    /// How much virtual time has gone by.
    pub fn elapsed(&self) -> Duration {
        self.world.now().saturating_duration_since(self.start)
    }

    /// Moves the clock by `duration`, and runs all that is due on the way, each at its own time, in
    /// order, including what is scheduled meanwhile. It ends exactly at the target, with nothing left
    /// to do there. A `stop` on the way ends no more than its turn.
    ///
    /// # Panics
    /// If the program is never idle at some instant, or the loop cannot run.
    #[track_caller]
    pub fn advance(&self, duration: Duration) {
        let target = self.world.now() + duration;
        self.run_until_idle();
        while let Some(next) = self.next_event().filter(|next| *next <= target) {
            self.world.advance_to(next);
            self.run_until_idle();
        }
        self.world.advance_to(target);
        self.run_until_idle();
    }

    /// Runs all that can run without the clock moving.
    ///
    /// # Panics
    /// As [`advance`](Self::advance).
    #[track_caller]
    pub fn run_until_idle(&self) {
        for _ in 0..MOST_TURNS_AT_ONE_INSTANT {
            let before = self.seen();
            self.event_loop.run_once(Timeout::Immediate).expect("a virtual loop runs");
            let now = self.world.now();
            let at_work = self.next_event().is_some_and(|next| next <= now);
            if !at_work && before == self.seen() {
                return;
            }
        }
        panic!(
            "the program is still at work after {MOST_TURNS_AT_ONE_INSTANT} turns at one instant"
        );
    }

    /// Runs until `future` is done; whenever nothing can run, the clock jumps to what is next.
    ///
    /// # Errors
    /// As [`EventLoop::run_until_complete`]; a [`RunError::Select`] of the kind
    /// [`Deadlock`](std::io::ErrorKind::Deadlock) if nothing can ever happen any more.
    #[track_caller]
    pub fn run_until_complete<F: Future>(&self, future: F) -> Result<F::Output, RunError> {
        let _autojump = Autojump::new(&self.world);
        self.event_loop.run_until_complete(future)
    }

    /// The events so far, and the waits that were interrupted before they could bring any.
    pub(crate) fn seen(&self) -> (u64, u64) {
        (self.event_loop.statistics().events, self.world.interruptions())
    }

    /// When the next timer or entry of the script is due: now, if a source is ready, which it may have become in
    /// the turn that has just ended, after its wait.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        if self.world.has_events() {
            return Some(self.world.now());
        }
        let candidates = [self.event_loop.next_deadline(), self.world.next_scripted()];
        candidates.into_iter().flatten().min()
    }
}

/// While it lives the clock jumps; a panic ends it too.
struct Autojump<'a>(&'a VirtualHandle);

impl Autojump<'_> {
    fn new(world: &VirtualHandle) -> Autojump<'_> {
        world.set_autojump(true);
        Autojump(world)
    }
}

impl Drop for Autojump<'_> {
    fn drop(&mut self) {
        self.0.set_autojump(false);
    }
}

/// The default executor of a virtual loop: while a job is in it the clock does not jump.
struct HoldingPool {
    pool: ThreadPool,
    holder: Holder,
}

impl Executor for HoldingPool {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        let hold = self.holder.hold();
        let (held, _result) = Job::new(move || {
            job.run();
            // After the result has been handed over, so that its waker came before.
            drop(hold);
        });
        self.pool.execute(held)
    }

    fn shutdown(&self) {
        Executor::shutdown(&self.pool);
    }

    fn shutdown_and_wait(&self, timeout: Option<Duration>) -> Result<(), Stragglers> {
        self.pool.shutdown_and_wait(timeout)
    }
}

impl Default for VirtualLoop {
    fn default() -> VirtualLoop {
        VirtualLoop::new()
    }
}

impl Deref for VirtualLoop {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}
