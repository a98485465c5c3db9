//! The loop of a test, and how it is driven until the test has ended.
//!
//! A loop in real time runs by itself. One in virtual time is driven turn by turn, from outside, because
//! only there one can see that nothing can run any more: then, and only then, the clock may move. What
//! moves it is, in this order,
//!
//! 1. nothing, while a job is at work in another thread: the loop waits for it, in real time;
//! 2. the test, with [`advance`](crate::advance): to what is next, but no further than it asks for;
//! 3. with [`Clock::Autojump`] nobody has to ask: to what is next.
//!
//! If none of these moves it, the test waits for something that can never happen.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tulipa_loop::{Builder, EventLoop, TaskRef, timeout};
use tulipa_selector::Timeout;

use crate::clock::{TestClock, Wishes};
use crate::virtual_loop::MOST_TURNS_AT_ONE_INSTANT;
use crate::{Clock, VirtualLoop};

/// A test in virtual time that takes more turns than this will not end: more than any test needs, and
/// less than a minute.
const MOST_TURNS: usize = 10_000_000;

/// How long clean-ups may take in virtual time where the test has no limit: with a second heart beating
/// meanwhile, a thousandth of [`MOST_TURNS`].
const LONGEST_CLEAN_UP: Duration = Duration::from_secs(3600);

/// The loop of a test.
pub(crate) enum Stage {
    Real(EventLoop),
    Virtual { virtual_loop: VirtualLoop, wishes: Rc<Wishes>, autojump: bool },
}

/// How long a test may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// By the clock of the loop.
    pub(crate) clock: Option<Duration>,
    /// In real time: how long the loop waits for another thread.
    pub(crate) threads: Duration,
}

impl Stage {
    pub(crate) fn new(clock: Clock, builder: Builder) -> Stage {
        if clock == Clock::Real {
            let built = builder.build();
            return Stage::Real(built.expect("a test needs descriptors for its loop"));
        }
        let virtual_loop = VirtualLoop::from_builder(builder);
        let wishes = Rc::new(Wishes::new(virtual_loop.world().clone()));
        Stage::Virtual { virtual_loop, wishes, autojump: clock == Clock::Autojump }
    }

    pub(crate) fn event_loop(&self) -> &EventLoop {
        match self {
            Stage::Real(event_loop) => event_loop,
            Stage::Virtual { virtual_loop, .. } => virtual_loop,
        }
    }

    pub(crate) fn clock(&self) -> TestClock {
        let wishes = match self {
            Stage::Real(_) => None,
            Stage::Virtual { wishes, .. } => Some(wishes.clone()),
        };
        TestClock::new(self.event_loop().handle(), wishes)
    }

    /// Runs until the task has ended. Fails, with the reason, if it does not.
    pub(crate) fn run_until_done(&self, task: &TaskRef, limits: Limits) -> Result<(), String> {
        match self {
            Stage::Real(event_loop) => run_real(event_loop, task, limits),
            Stage::Virtual { virtual_loop, wishes, autojump } => {
                let driver = Driver { virtual_loop, wishes, autojump: *autojump, limits };
                driver.run_until_done(task)
            }
        }
    }

    /// Cancels all tasks and runs until they have ended, with a clock that jumps where it is virtual:
    /// nobody is there to advance it. Fails, with the reason, if they do not end.
    pub(crate) fn cancel_all_tasks(&self, limits: Limits) -> Result<(), String> {
        let handle = self.event_loop().handle();
        let all = handle.clone();
        let task = handle.spawn(async move { all.cancel_all_tasks().await });
        let ended = match self {
            Stage::Real(event_loop) => run_real(event_loop, &task, limits),
            Stage::Virtual { virtual_loop, wishes, .. } => {
                let limits = Limits { clock: limits.clock.or(Some(LONGEST_CLEAN_UP)), ..limits };
                let driver = Driver { virtual_loop, wishes, autojump: true, limits };
                driver.run_until_done(&task)
            }
        };
        if ended.is_err() {
            // It is not to be listed with those that it waits for.
            task.cancel();
            self.settle(1);
        }
        ended
    }

    /// Lets what can run without waiting run, for at most so many turns.
    pub(crate) fn settle(&self, turns: usize) {
        let event_loop = self.event_loop();
        for _ in 0..turns {
            if event_loop.next_deadline().is_none_or(|next| next > event_loop.time()) {
                return;
            }
            let ran = event_loop.run_once(Timeout::Immediate);
            ran.expect("a loop that has run once runs again");
        }
    }

    /// Ends the threads of the default executor.
    pub(crate) fn shut_down_executor(&self, limit: Duration) -> Result<(), String> {
        let handle = self.event_loop().handle();
        let mut outcome = Ok(());
        // The clock does not jump to the end of the limit: threads take real time.
        let _hold = match self {
            Stage::Real(_) => None,
            Stage::Virtual { wishes, .. } => Some(wishes.world.hold()),
        };
        let ended = self.event_loop().run_until_complete(async {
            outcome = handle.shutdown_default_executor(Some(limit)).await;
        });
        ended.map_err(|error| error.to_string())?;
        outcome.map_err(|late| late.to_string())
    }
}

fn run_real(event_loop: &EventLoop, task: &TaskRef, limits: Limits) -> Result<(), String> {
    let (promise, ended) = event_loop.create_future();
    task.add_done_callback(|_, _| {
        // The receiver is gone if the time is over.
        let _unheard = promise.set(());
    });
    let limit = limits.clock.unwrap_or(Duration::MAX);
    match event_loop.run_until_complete(async { timeout(limit, ended).await }) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_elapsed)) => Err(format!("it is not done after {limit:?}")),
        Err(error) => Err(error.to_string()),
    }
}

struct Driver<'a> {
    virtual_loop: &'a VirtualLoop,
    wishes: &'a Wishes,
    autojump: bool,
    limits: Limits,
}

impl Driver<'_> {
    fn run_until_done(&self, task: &TaskRef) -> Result<(), String> {
        let world = self.virtual_loop.world();
        let horizon = self.limits.clock.and_then(|limit| world.now().checked_add(limit));
        let mut at_this_instant = 0;
        for _ in 0..MOST_TURNS {
            let before = self.virtual_loop.seen();
            let ran = self.virtual_loop.run_once(Timeout::Immediate);
            ran.map_err(|error| error.to_string())?;
            if task.is_done() {
                return Ok(());
            }
            // Looked at first: a job that has ended by now has left its message.
            let held = world.is_held();
            if self.is_at_work() || self.virtual_loop.seen() != before {
                at_this_instant += 1;
                if at_this_instant == MOST_TURNS_AT_ONE_INSTANT {
                    let turns = MOST_TURNS_AT_ONE_INSTANT;
                    return Err(format!("it is still at work after {turns} turns at one instant"));
                }
                continue;
            }
            at_this_instant = 0;
            if held {
                self.wait_for_threads()?;
            } else {
                self.move_clock(horizon)?;
            }
        }
        Err(format!("it is not done after {MOST_TURNS} turns of its loop"))
    }

    /// Whether something can run without the clock moving.
    fn is_at_work(&self) -> bool {
        let now = self.virtual_loop.time();
        self.virtual_loop.next_event().is_some_and(|next| next <= now)
    }

    fn wait_for_threads(&self) -> Result<(), String> {
        let watchdog = Watchdog::start(self.virtual_loop, self.limits.threads);
        let ran = self.virtual_loop.run_once(Timeout::Never);
        ran.map_err(|error| error.to_string())?;
        watchdog.check()
    }

    fn move_clock(&self, horizon: Option<Instant>) -> Result<(), String> {
        let world = self.virtual_loop.world();
        let next = self.virtual_loop.next_event();
        let wish = self.wishes.next();
        if let Some(wish) = wish.as_ref().filter(|wish| wish.target <= world.now()) {
            wish.fulfil();
            return Ok(());
        }
        let target = match wish {
            Some(wish) => next.map_or(wish.target, |next| next.min(wish.target)),
            None => self.without_a_wish(next)?,
        };
        if let Some(horizon) = horizon.filter(|horizon| target > *horizon) {
            world.advance_to(horizon);
            let limit = self.limits.clock.unwrap_or_default();
            return Err(format!("it is not done after {limit:?} of its clock"));
        }
        world.advance_to(target);
        Ok(())
    }

    fn without_a_wish(&self, next: Option<Instant>) -> Result<Instant, String> {
        let deadlock = "something is awaited that can never happen";
        match next {
            Some(next) if self.autojump => Ok(next),
            Some(next) => {
                let left = next.saturating_duration_since(self.virtual_loop.time());
                Err(format!(
                    "{deadlock}: nothing can run, a timer is due in {left:?}, and the clock moves \
                     only when the test awaits `advance`"
                ))
            }
            None => {
                let stuck = "nothing can make progress: nothing can run and no timer is set";
                Err(format!("{deadlock}; {stuck}"))
            }
        }
    }
}

/// Wakes a loop that has waited for other threads for too long.
struct Watchdog {
    expired: Arc<AtomicBool>,
    limit: Duration,
    /// Its end disarms the watchdog.
    _armed: Sender<()>,
}

impl Watchdog {
    fn start(event_loop: &EventLoop, limit: Duration) -> Watchdog {
        let (armed, disarmed) = mpsc::channel::<()>();
        let expired = Arc::new(AtomicBool::new(false));
        let (flag, remote) = (expired.clone(), event_loop.remote());
        let watch = move || {
            if let Err(RecvTimeoutError::Timeout) = disarmed.recv_timeout(limit) {
                flag.store(true, Ordering::Relaxed);
                // A loop that is closed does not wait any more.
                let _closed = remote.stop();
            }
        };
        // Without a thread to spare there is no watchdog.
        let _started = thread::Builder::new().name("tulipa_watchdog".to_owned()).spawn(watch);
        Watchdog { expired, limit, _armed: armed }
    }

    fn check(&self) -> Result<(), String> {
        match self.expired.load(Ordering::Relaxed) {
            true => Err(format!("another thread is at work for longer than {:?}", self.limit)),
            false => Ok(()),
        }
    }
}
