//! What callbacks and programs do with a loop from its own thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_selector::{Selector, Token};

use crate::context::{self, Context};
use crate::core::{Callback, Core, Ready, log};
use crate::instrument::{Instrument, Statistics};
use crate::remote::Remote;
use crate::report::{ErrorContext, ExceptionHandler, Origin};
use crate::timers::Alarm;

/// A handle to a loop for code on the loop's own thread: cheap to clone, and harmless to keep.
///
/// Once the loop is closed its methods do nothing: what they are given is dropped, and what they
/// return is already cancelled.
#[derive(Clone)]
pub struct LoopHandle {
    pub(crate) core: Rc<Core>,
}

thread_local! {
    /// The loop that is running on this thread.
    static CURRENT: RefCell<Option<LoopHandle>> = const { RefCell::new(None) };
}

/// Makes a loop the current one of its thread until it is dropped.
pub(crate) struct Entered {
    /// What the thread had for its current context; inside of a loop each thing has its own.
    outer: Context,
}

impl Entered {
    /// Fails with the id of the loop that is already running on this thread.
    pub(crate) fn new(handle: &LoopHandle) -> Result<Entered, u64> {
        CURRENT.with_borrow_mut(|current| match current {
            Some(running) => Err(running.core.id),
            None => {
                *current = Some(handle.clone());
                Ok(Entered { outer: context::swap(Context::new()) })
            }
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // The handle may be the last owner of the loop's state, so it is dropped after the borrow.
        let handle = CURRENT.with_borrow_mut(Option::take);
        drop(handle);
        drop(context::swap(mem::take(&mut self.outer)));
    }
}

/// Runs `f`, which calls no user code, with the loop of that id if it is running on this thread.
pub(crate) fn with_current<T>(id: u64, f: impl FnOnce(&Core) -> T) -> Option<T> {
    let run = |current: &RefCell<Option<LoopHandle>>| {
        let current = current.borrow();
        current.as_ref().filter(|handle| handle.core.id == id).map(|handle| f(&handle.core))
    };
    // On a thread that is ending there is no current loop.
    CURRENT.try_with(run).ok().flatten()
}

impl LoopHandle {
    /// The loop that is running on this thread. Stands for `get_running_loop`.
    ///
    /// # Panics
    /// Outside of a running loop; [`try_current`](Self::try_current) does not.
    #[track_caller]
    pub fn current() -> LoopHandle {
        LoopHandle::try_current().expect("no event loop is running on this thread")
    }

    /// The loop that is running on this thread, if one is. It never makes one.
    pub fn try_current() -> Option<LoopHandle> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Runs `callback` at the loop's next turn, never from inside this call.
    ///
    /// # Order
    /// First in, first out, each exactly once. What a callback schedules runs in the next turn, after
    /// the loop has looked for events.
    #[track_caller]
    pub fn call_soon(&self, callback: impl FnOnce(&LoopHandle) + 'static) -> Handle {
        let location = Location::caller();
        if self.core.is_closed() {
            return Handle::cancelled(self, location);
        }
        let run = context::bind(Box::new(callback));
        let position = self.push_callback(run, location, Origin::Callback);
        Handle { handle: self.clone(), position, location, cancelled: Cell::new(false) }
    }

    /// Adds to the ready queue of a loop that is not closed.
    pub(crate) fn push_callback(
        &self,
        run: Box<dyn FnOnce(&LoopHandle)>,
        location: &'static Location<'static>,
        origin: Origin,
    ) -> u64 {
        let callback = Callback { run, location, origin };
        self.core.ready.borrow_mut().push(Ready::Call(callback))
    }

    /// Runs `callback` when `delay` is over. Stands for `call_later`.
    ///
    /// A delay that is too long to express means never. The clock is read now, so that a timer set
    /// late in a long callback is not early.
    ///
    /// # Order
    /// As [`call_at`](Self::call_at).
    #[track_caller]
    pub fn call_later(
        &self,
        delay: Duration,
        callback: impl FnOnce(&LoopHandle) + 'static,
    ) -> TimerHandle {
        self.call_at(self.deadline_after(delay), callback)
    }

    /// The instant at which a delay that begins now is over.
    pub(crate) fn deadline_after(&self, delay: Duration) -> Instant {
        let now = self.time();
        now.checked_add(delay).unwrap_or_else(|| now + FAR_AWAY)
    }

    /// Runs `callback` at the instant `when` of the loop's clock, see [`time`](Self::time), or at the
    /// next turn if that is in the past. Stands for `call_at`.
    ///
    /// # Order
    /// Never early; by deadline; in the order of the calls for equal deadlines. What was due when a
    /// turn looked at the clock runs in that turn, after events and before `call_soon` callbacks.
    #[track_caller]
    pub fn call_at(
        &self,
        when: Instant,
        callback: impl FnOnce(&LoopHandle) + 'static,
    ) -> TimerHandle {
        let location = Location::caller();
        let handle = self.clone();
        if self.core.is_closed() {
            return TimerHandle {
                handle,
                key: NO_TIMER,
                when,
                location,
                cancelled: Cell::new(true),
            };
        }
        let run = context::bind(Box::new(callback));
        let callback = Callback { run, location, origin: Origin::Timer };
        let inserted = self.core.timers.borrow_mut().insert(when, Alarm::Call(callback));
        // With more than four billion timers pending, one more would be dropped unheard otherwise.
        let key = inserted.unwrap_or_else(|_| panic!("the loop has room for no more timers"));
        TimerHandle { handle, key, when, location, cancelled: Cell::new(false) }
    }

    /// The time of the loop's clock, which never goes back and has nothing to do with the wall clock.
    pub fn time(&self) -> Instant {
        let now = self.core.selector.now();
        self.core.last_reading.set(now);
        now
    }

    /// Lets the loop end after the current turn; what was ready at its start still runs. Before a
    /// run, that run ends after one turn. Stands for `stop`.
    pub fn stop(&self) {
        self.core.stopping.set(true);
    }

    /// The number of this loop among all that the process has made, by which errors and logs name it.
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// Whether the loop is inside one of its `run` methods.
    pub fn is_running(&self) -> bool {
        self.core.phase.get() == crate::core::Phase::Running
    }

    /// Whether the loop is closed, for good.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote::new(self.core.shared.clone())
    }

    /// The selector of this loop, to register sources with.
    pub fn selector(&self) -> &dyn Selector {
        &*self.core.selector
    }

    /// When the loop has to run next without being told: now if work is at hand, else the deadline of
    /// the next timer; `None` if only an event can give it work.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.core.has_work() || self.core.selector.is_always_ready() {
            return Some(self.time());
        }
        self.core.timers.borrow().next()
    }

    /// What the loop has done so far.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = *self.core.statistics.borrow();
        statistics.ready = self.core.ready.borrow().len();
        statistics.timers = self.core.timers.borrow().len();
        statistics.tasks = self.core.tasks.borrow().pending();
        statistics.sources = self.core.sources.borrow().len();
        statistics
    }

    /// Whether the loop is in debug mode. Stands for `get_debug`.
    pub fn debug(&self) -> bool {
        self.core.debug()
    }

    /// Turns debug mode on or off, at any time. In debug mode callbacks that take longer than
    /// [`slow_callback_duration`](Self::slow_callback_duration) are logged with their origin.
    pub fn set_debug(&self, debug: bool) {
        self.core.set_debug(debug);
    }

    /// From which duration on a callback counts as slow: 100 ms at first.
    pub fn slow_callback_duration(&self) -> Duration {
        self.core.slow_callback_duration.get()
    }

    /// Sets the duration from which on a callback counts as slow.
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.core.slow_callback_duration.set(duration);
    }

    /// Sets hooks around what the loop does, or removes them.
    pub fn set_instrument(&self, instrument: Option<Rc<dyn Instrument>>) {
        self.core.set_instrument(instrument);
    }

    /// Sets what hears of failures that have no caller. `None` stands for the default, which logs
    /// them as `tracing` errors with the target `tulipa`.
    ///
    /// The handler may do anything. If it panics, its failure and the original one are logged.
    pub fn set_exception_handler(&self, handler: Option<Rc<ExceptionHandler>>) {
        self.core.set_exception_handler(handler);
    }

    /// The handler set by [`set_exception_handler`](Self::set_exception_handler); `None` is the default.
    pub fn exception_handler(&self) -> Option<Rc<ExceptionHandler>> {
        self.core.exception_handler()
    }

    /// Passes a failure to the exception handler.
    pub fn call_exception_handler(&self, context: ErrorContext) {
        self.core.report(self, context);
    }

    /// Does what happens without an exception handler: logs the failure. For handlers that want to
    /// pass it on.
    pub fn default_exception_handler(&self, context: &ErrorContext) {
        log(context);
    }
}

/// What an impossible delay is cut down to: 1,000 years, which is further than timers ever fire, see
/// `timers`, so that it means never in virtual time too.
const FAR_AWAY: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// The key of a timer that was never set.
const NO_TIMER: Token = Token::from_bits(u64::MAX);

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.core;
        let (id, phase, name) = (core.id, core.phase.get(), core.selector.name());
        write!(f, "<LoopHandle loop={id} {phase:?} selector={name} debug={}>", core.debug())
    }
}

/// A callback that was scheduled with `call_soon`. Dropping it leaves the callback alone.
pub struct Handle {
    handle: LoopHandle,
    position: u64,
    location: &'static Location<'static>,
    cancelled: Cell<bool>,
}

impl Handle {
    fn cancelled(handle: &LoopHandle, location: &'static Location<'static>) -> Handle {
        let handle = handle.clone();
        Handle { handle, position: u64::MAX, location, cancelled: Cell::new(true) }
    }

    /// Keeps the callback from running, and drops it now with all that it holds. After the callback
    /// has run this does nothing but set [`is_cancelled`](Self::is_cancelled).
    pub fn cancel(&self) {
        if !self.cancelled.replace(true) {
            let callback = self.handle.core.ready.borrow_mut().cancel(self.position);
            drop(callback);
        }
    }

    /// Whether it was cancelled. Stands for `cancelled`.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_cancelled() { " cancelled" } else { "" };
        write!(f, "<Handle{state} created at {}>", self.location)
    }
}

/// A callback that was scheduled with `call_later` or `call_at`. Dropping it leaves the timer alone.
pub struct TimerHandle {
    handle: LoopHandle,
    key: Token,
    when: Instant,
    location: &'static Location<'static>,
    cancelled: Cell<bool>,
}

impl TimerHandle {
    /// Removes the timer, and drops its callback now with all that it holds. After the callback has
    /// run this does nothing but set [`is_cancelled`](Self::is_cancelled).
    pub fn cancel(&self) {
        if !self.cancelled.replace(true) {
            let callback = self.handle.core.timers.borrow_mut().remove(self.key);
            drop(callback);
        }
    }

    /// Whether it was cancelled. Stands for `cancelled`.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// The deadline, in the loop's time.
    pub fn when(&self) -> Instant {
        self.when
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_cancelled() { " cancelled" } else { "" };
        write!(f, "<TimerHandle{state} when={:?} created at {}>", self.when, self.location)
    }
}
