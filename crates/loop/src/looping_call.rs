//! Calls at equal distances: Twisted's `LoopingCall`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::{LoopHandle, Origin, Promise, TimerHandle};

/// Calls a function at equal distances until it is stopped. Stands for Twisted's `LoopingCall`, with `withCount`.
///
/// The distances are those from the start: what a call takes does not add up, and calls for which there was no time are
/// left out. The next call is told how many those were.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::{LoopingCall, sleep};
///
/// tulipa_loop::run(async {
///     let mut ticks = 0;
///     let call = LoopingCall::now(Duration::from_millis(5), move |missed| {
///         ticks += 1 + missed;
///         println!("{ticks} ticks");
///     });
///     sleep(Duration::from_millis(12)).await;
///     call.stop();
/// })?;
/// # Ok::<(), tulipa_loop::RunError>(())
/// ```
///
/// Dropping it leaves it alone; clones are the same. A panic of the function is reported, and the last call.
#[derive(Clone)]
pub struct LoopingCall {
    state: Rc<State>,
}

struct State {
    handle: LoopHandle,
    location: &'static Location<'static>,
    interval: Duration,
    start: Cell<Instant>,
    /// How many intervals were over at the last call.
    seen: Cell<u128>,
    /// Out while it is called.
    call: Cell<Option<Call>>,
    timer: RefCell<Option<TimerHandle>>,
    running: Cell<bool>,
    ended: RefCell<Vec<Promise<()>>>,
}

type Call = Box<dyn FnMut(u64)>;

impl LoopingCall {
    /// Calls `function` now, before this returns, and then after each interval. Stands for `start(interval, now=True)`.
    ///
    /// # Panics
    /// If the interval is zero; outside of a running loop.
    #[track_caller]
    pub fn now(interval: Duration, function: impl FnMut(u64) + 'static) -> LoopingCall {
        let call = LoopingCall::new(interval, Box::new(function));
        call.state.tick(0);
        call
    }

    /// Calls `function` after each interval. Stands for `start(interval, now=False)`.
    ///
    /// # Panics
    /// If the interval is zero; outside of a running loop.
    #[track_caller]
    pub fn later(interval: Duration, function: impl FnMut(u64) + 'static) -> LoopingCall {
        let call = LoopingCall::new(interval, Box::new(function));
        call.state.arm();
        call
    }

    #[track_caller]
    fn new(interval: Duration, function: Call) -> LoopingCall {
        assert!(!interval.is_zero(), "a looping call has an interval");
        let handle = LoopHandle::current();
        let start = Cell::new(handle.time());
        let state = State {
            handle,
            location: Location::caller(),
            interval,
            start,
            seen: Cell::new(0),
            call: Cell::new(Some(function)),
            timer: RefCell::default(),
            running: Cell::new(true),
            ended: RefCell::default(),
        };
        LoopingCall { state: Rc::new(state) }
    }

    /// Calls it no more. Inside of the function: this was the last time. Stands for `stop`.
    pub fn stop(&self) {
        self.state.stop();
    }

    /// Begins anew: the next call is one interval from now. Stands for `reset`.
    pub fn reset(&self) {
        let state = &self.state;
        if state.running.get() {
            state.start.set(state.handle.time());
            state.seen.set(0);
            state.arm();
        }
    }

    /// Whether it goes on. Stands for `running`.
    pub fn is_running(&self) -> bool {
        self.state.running.get()
    }

    /// The distance of two calls.
    pub fn interval(&self) -> Duration {
        self.state.interval
    }

    /// Waits until it was stopped, or has panicked. Stands for the deferred that `start` returns.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn stopped(&self) {
        if !self.is_running() {
            return;
        }
        let (promise, future) = self.state.handle.create_future();
        self.state.ended.borrow_mut().push(promise);
        let _ = future.await;
    }
}

impl State {
    /// How many intervals are over.
    fn intervals(&self) -> u128 {
        let since = self.handle.time().saturating_duration_since(self.start.get());
        since.as_nanos() / self.interval.as_nanos()
    }

    /// Sets the timer for the next interval's end.
    fn arm(self: &Rc<Self>) {
        let into = self.handle.time().saturating_duration_since(self.start.get()).as_nanos()
            % self.interval.as_nanos();
        // Less than the interval, so only of one of 500 years it can be too large.
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
        let own = self.clone();
        let timer = self.handle.call_later(self.interval.saturating_sub(into), move |_| {
            let over = own.intervals();
            let missed = over.saturating_sub(own.seen.replace(over) + 1);
            own.tick(u64::try_from(missed).unwrap_or(u64::MAX));
        });
        self.set_timer(Some(timer));
    }

    fn set_timer(&self, timer: Option<TimerHandle>) {
        let old = self.timer.replace(timer);
        if let Some(old) = old {
            old.cancel();
        }
    }

    fn tick(self: &Rc<Self>, missed: u64) {
        let Some(mut call) = self.call.take() else { return };
        let before = self.start.get();
        let result = self.handle.call_user(Origin::Timer, Some(self.location), || call(missed));
        if result.is_none() || !self.running.get() {
            self.handle.release(|| drop(call));
            return self.stop();
        }
        self.call.set(Some(call));
        // A reset inside of the call has set the timer.
        if self.start.get() == before {
            self.arm();
        }
    }

    fn stop(&self) {
        if !self.running.replace(false) {
            return;
        }
        self.set_timer(None);
        let call = self.call.take();
        self.handle.release(|| drop(call));
        let ended = self.ended.take();
        for promise in ended {
            let _ = promise.set(());
        }
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { interval, running, location, .. } = &*self.state;
        let state = if running.get() { "running" } else { "stopped" };
        write!(f, "<LoopingCall {state} interval={interval:?} created at {location}>")
    }
}
