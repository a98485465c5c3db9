//! The state of a loop, and the one place that calls user code.
//!
//! [`Core`] is shared by the [`EventLoop`](crate::EventLoop), which runs it, and all
//! [`LoopHandle`]s, which change it. Every cell is borrowed for one operation only: what may run or
//! drop user code (a closure, a waker, a source) is moved out first and run or dropped afterwards,
//! with nothing borrowed. So a callback may do anything, and no order of calls can make a borrow fail.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tulipa_selector::{Events, Selector, Slots, Token};

use crate::LoopHandle;
use crate::await_graph::LoopObserver;
use crate::context::{self, Context};
use crate::executor::Executor;
use crate::instrument::{Instrument, Statistics};
use crate::readers::Readers;
use crate::remote::{RemoteCall, Shared};
use crate::report::{ErrorContext, ExceptionHandler, Failure, Origin, panic_message};
use crate::source::{SourceSlot, Wires};
use crate::task::{Key, TaskRunnable, Tasks};
use crate::timers::Timers;

/// A closure that runs once, and where it comes from.
pub(crate) struct Callback {
    pub(crate) run: Box<dyn FnOnce(&LoopHandle)>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) origin: Origin,
}

impl Callback {
    #[cfg(test)]
    #[track_caller]
    pub(crate) fn nothing() -> Callback {
        Callback { run: Box::new(|_| ()), location: Location::caller(), origin: Origin::Callback }
    }
}

/// One entry of the ready queue.
pub(crate) enum Ready {
    /// To be called.
    Call(Callback),
    /// To be called, unless its other owner cancels it first.
    Remote(Arc<dyn RemoteCall>),
    /// The main future of this run of the loop is to be polled.
    Main(u64),
    /// A step of a task.
    Task(TaskRunnable),
    /// It was cancelled, and its closure dropped.
    Cancelled,
}

/// Where a loop stands.
///
/// | from | to | when |
/// |---|---|---|
/// | `Idle` | `Running` | a `run` method is entered |
/// | `Running` | `Idle` | it returns |
/// | `Idle` | `Closed` | `close`, or the loop is dropped |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Running,
    Closed,
}

pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) selector: Box<dyn Selector>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) ready: RefCell<ReadyQueue>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) tasks: RefCell<Tasks>,
    /// The task whose step this is.
    pub(crate) current_task: Cell<Option<Token>>,
    /// Whether the main future is being polled.
    pub(crate) polls_main: Cell<bool>,
    /// What the clock said when it was last read, from which waits are counted.
    pub(crate) last_reading: Cell<Instant>,
    /// What is told of waits for locks and queues while the loop runs.
    pub(crate) observer: OnceCell<Rc<LoopObserver>>,
    /// Whether a task has ever had a context or a span.
    pub(crate) dressed: Cell<bool>,
    /// Whether the task whose step this is has ended in it.
    pub(crate) task_ended: Cell<bool>,
    /// Whether tasks are to be dropped before the turn ends.
    pub(crate) doomed: Cell<bool>,
    pub(crate) sources: RefCell<Slots<SourceSlot>>,
    pub(crate) readers: RefCell<Readers>,
    pub(crate) wires: Rc<Wires>,
    /// What crates above keep here, one of each type.
    pub(crate) locals: RefCell<Vec<Rc<dyn Any>>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Cell<Events>,
    /// What the timers of a turn are collected in.
    pub(crate) due: Cell<Vec<Token>>,
    pub(crate) executor: RefCell<Option<Arc<dyn Executor>>>,
    pub(crate) executor_shut_down: Cell<bool>,
    #[cfg(all(unix, feature = "signal"))]
    pub(crate) signals: RefCell<Option<Rc<crate::signal::Signals>>>,
    pub(crate) busy_poll: Duration,
    exception_handler: RefCell<Option<Rc<ExceptionHandler>>>,
    instrument: RefCell<Option<Rc<dyn Instrument>>>,
    debug: Cell<bool>,
    /// Whether callbacks have to be watched: debug mode or an instrument.
    watched: Cell<bool>,
    pub(crate) slow_callback_duration: Cell<Duration>,
    pub(crate) statistics: RefCell<Statistics>,
    /// In the process that made the loop; a forked child has another one.
    pub(crate) process: u32,
}

/// An empty ready queue keeps room for this many entries, 1.5 megabytes; one that was larger gives its
/// memory back. Bursts below it allocate nothing.
const KEPT_WHEN_EMPTY: usize = 65_536;

/// The ready queue: first in, first out. A position is the number of entries that ever came before,
/// so an entry is found by its position for as long as it is waiting.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    entries: VecDeque<Ready>,
    /// The position of the first entry.
    first: u64,
}

impl ReadyQueue {
    #[inline]
    pub(crate) fn push(&mut self, entry: Ready) -> u64 {
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Ready> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        if self.entries.is_empty() && self.entries.capacity() > KEPT_WHEN_EMPTY {
            self.entries = VecDeque::new();
        }
        Some(entry)
    }

    /// Takes the entry at a position out and leaves [`Ready::Cancelled`] in its place.
    pub(crate) fn cancel(&mut self, position: u64) -> Option<Ready> {
        let place = usize::try_from(position.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get_mut(place)?;
        Some(mem::replace(entry, Ready::Cancelled))
    }

    /// Takes out the steps of the tasks that `wanted` picks, in their order.
    pub(crate) fn take_tasks(&mut self, wanted: impl Fn(Key) -> bool) -> Vec<TaskRunnable> {
        let picks = |entry: &Ready| matches!(entry, Ready::Task(task) if wanted(*task.metadata()));
        let picked = self.entries.iter_mut().filter(|entry| picks(entry));
        let picked = picked.map(|entry| mem::replace(entry, Ready::Cancelled));
        let task = |entry| if let Ready::Task(task) = entry { Some(task) } else { None };
        picked.filter_map(task).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ready> {
        self.entries.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes everything out; the positions of what was in there are over.
    pub(crate) fn take(&mut self) -> VecDeque<Ready> {
        self.first += self.entries.len() as u64;
        mem::take(&mut self.entries)
    }
}

/// How a [`Core`] is set up.
pub(crate) struct Settings {
    pub(crate) debug: bool,
    pub(crate) busy_poll: Duration,
    pub(crate) slow_callback_duration: Duration,
    pub(crate) exception_handler: Option<Rc<ExceptionHandler>>,
    pub(crate) instrument: Option<Rc<dyn Instrument>>,
}

impl Core {
    pub(crate) fn new(id: u64, selector: Box<dyn Selector>, settings: Settings) -> Core {
        let start = selector.now();
        Core {
            id,
            phase: Cell::new(Phase::Idle),
            stopping: Cell::new(false),
            ready: RefCell::default(),
            timers: RefCell::new(Timers::new(start)),
            tasks: RefCell::default(),
            current_task: Cell::new(None),
            polls_main: Cell::new(false),
            last_reading: Cell::new(start),
            observer: OnceCell::new(),
            dressed: Cell::new(false),
            task_ended: Cell::new(false),
            doomed: Cell::new(false),
            sources: RefCell::default(),
            readers: RefCell::default(),
            wires: Rc::default(),
            locals: RefCell::default(),
            shared: Arc::new(Shared::new(id, selector.notifier())),
            events: Cell::default(),
            due: Cell::default(),
            executor: RefCell::default(),
            executor_shut_down: Cell::new(false),
            #[cfg(all(unix, feature = "signal"))]
            signals: RefCell::default(),
            busy_poll: settings.busy_poll,
            exception_handler: RefCell::new(settings.exception_handler),
            watched: Cell::new(settings.debug || settings.instrument.is_some()),
            instrument: RefCell::new(settings.instrument),
            debug: Cell::new(settings.debug),
            slow_callback_duration: Cell::new(settings.slow_callback_duration),
            statistics: RefCell::default(),
            process: std::process::id(),
            selector,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    pub(crate) fn debug(&self) -> bool {
        self.debug.get()
    }

    pub(crate) fn set_debug(&self, debug: bool) {
        self.debug.set(debug);
        let instrumented = self.instrument.borrow().is_some();
        self.watched.set(debug || instrumented);
    }

    pub(crate) fn set_instrument(&self, instrument: Option<Rc<dyn Instrument>>) {
        let instrument = instrument.filter(|_| !self.is_closed());
        self.watched.set(self.debug() || instrument.is_some());
        let old = self.instrument.replace(instrument);
        drop(old);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.get()
    }

    pub(crate) fn exception_handler(&self) -> Option<Rc<ExceptionHandler>> {
        self.exception_handler.borrow().clone()
    }

    pub(crate) fn set_exception_handler(&self, handler: Option<Rc<ExceptionHandler>>) {
        let handler = handler.filter(|_| !self.is_closed());
        let old = self.exception_handler.replace(handler);
        drop(old);
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        change(&mut self.statistics.borrow_mut());
    }

    /// Tells the instrument, if there is one.
    pub(crate) fn instrument(&self, handle: &LoopHandle, tell: impl FnOnce(&dyn Instrument)) {
        let Some(instrument) = self.instrument.borrow().clone() else { return };
        // Moved in: it may be the last owner of an instrument that was just replaced.
        let told = catch_unwind(AssertUnwindSafe(move || tell(&*instrument)));
        if let Err(payload) = told {
            self.report(handle, ErrorContext::panic(Origin::Instrument, None, payload));
        }
    }

    /// Runs user code, the only way in which the loop does. A panic is reported and goes no further;
    /// `None` says that there was one.
    #[inline]
    pub(crate) fn run_user<T>(
        &self,
        handle: &LoopHandle,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        code: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.isolated(handle, || self.watch(handle, origin, location, code)) {
            Ok(value) => Some(value),
            Err(payload) => {
                self.report(handle, ErrorContext::panic(origin, location, payload));
                None
            }
        }
    }

    /// Runs code, which does not unwind, in an empty context, so that what it sets does not leak into
    /// what runs next.
    #[inline]
    pub(crate) fn isolated<T>(&self, handle: &LoopHandle, code: impl FnOnce() -> T) -> T {
        let outer = context::is_active().then(|| context::swap(Context::new()));
        let value = code();
        if outer.is_some() || context::is_active() {
            self.restore_context(handle, outer.unwrap_or_default());
        }
        value
    }

    #[cold]
    fn restore_context(&self, handle: &LoopHandle, outer: Context) {
        let left = context::swap(outer);
        if !left.is_empty() {
            self.release(handle, || drop(left));
        }
    }

    /// Runs user code whose panic somebody else takes.
    #[inline]
    pub(crate) fn watch<T>(
        &self,
        handle: &LoopHandle,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        code: impl FnOnce() -> T,
    ) -> std::thread::Result<T> {
        let started = self.is_watched().then(|| self.before(handle, origin, location));
        let result = catch_unwind(AssertUnwindSafe(code));
        if let Some(started) = started {
            self.after(handle, origin, location, started);
        }
        result
    }

    #[cold]
    fn before(
        &self,
        handle: &LoopHandle,
        origin: Origin,
        location: Option<&'static Location<'static>>,
    ) -> Instant {
        self.instrument(handle, |instrument| instrument.before_callback(origin, location));
        self.selector.now()
    }

    #[cold]
    fn after(
        &self,
        handle: &LoopHandle,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        started: Instant,
    ) {
        let took = self.selector.now().saturating_duration_since(started);
        self.instrument(handle, |instrument| instrument.after_callback(origin, took));
        if self.debug() && took >= self.slow_callback_duration.get() {
            let place = location.map(ToString::to_string).unwrap_or_default();
            unheard(|| {
                tracing::warn!(target: "tulipa", "executing {origin} created at {place} took {took:?}");
            });
            self.instrument(handle, |instrument| instrument.slow_callback(origin, location, took));
        }
    }

    /// Drops something of the user's, or wakes a waker.
    pub(crate) fn release(&self, handle: &LoopHandle, release: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(release)) {
            self.report(handle, ErrorContext::panic(Origin::Release, None, payload));
        }
    }

    /// Gives a failure to the exception handler. If that panics, both go to the default one.
    pub(crate) fn report(&self, handle: &LoopHandle, context: ErrorContext) {
        let handled = match self.exception_handler() {
            // Moved in: it may be the last owner of a handler that has just replaced itself.
            Some(handler) => {
                let context = &context;
                catch_unwind(AssertUnwindSafe(move || handler(handle, context)))
            }
            None => {
                log(&context);
                Ok(())
            }
        };
        if let Err(payload) = handled {
            log(&context);
            let second = ErrorContext::panic(Origin::ExceptionHandler, None, payload);
            log(&second);
            forget_payload(second);
        }
        forget_payload(context);
    }
}

/// The default exception handler: an error event of `tracing`.
pub(crate) fn log(context: &ErrorContext) {
    unheard(|| {
        let location = context.location.map(ToString::to_string).unwrap_or_default();
        let failure = match &context.failure {
            Failure::Panic(payload) => panic_message(&**payload).to_owned(),
            Failure::Error(error) => error.to_string(),
        };
        tracing::error!(target: "tulipa", %location, "{}: {failure}", context.message);
    });
}

/// Logs something. Subscribers are user code too, and when they panic there is nobody left to tell.
pub(crate) fn unheard(log: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(log)) {
        forget_payload(ErrorContext::panic(Origin::ExceptionHandler, None, payload));
    }
}

/// Drops a context whose payload may panic when it is dropped; there is nobody left to tell.
fn forget_payload(context: ErrorContext) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(context))) {
        mem::forget::<Box<dyn Any + Send>>(payload);
    }
}
