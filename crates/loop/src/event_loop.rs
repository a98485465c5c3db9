//! The owner of a loop: making, running and closing it.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tulipa_selector::{DefaultSelector, Selector, Timeout};

use crate::await_graph::LoopObserver;
use crate::core::{Core, Phase, Ready, Settings};
use crate::handle::{Entered, LoopHandle};
use crate::instrument::Instrument;
use crate::main_future::MainFuture;
use crate::report::{ErrorContext, ExceptionHandler};
use crate::turn::Run;

/// An event loop: it owns everything that is scheduled on it, and closes with its owner.
///
/// It dereferences to its [`LoopHandle`], which has the methods that callbacks use too.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::EventLoop;
///
/// let event_loop = EventLoop::new()?;
/// event_loop.call_soon(|_| println!("first"));
/// event_loop.call_later(Duration::from_millis(5), |handle| handle.stop());
/// event_loop.run_forever()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Stands for asyncio's `SelectorEventLoop` and `new_event_loop`.
pub struct EventLoop {
    handle: LoopHandle,
}

/// Why a loop did not run, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The loop was stopped before the future was done. Stands for asyncio's `RuntimeError`.
    #[error("event loop {0} was stopped before the future was done")]
    Stopped(u64),
    /// A loop is running on this thread: this one, or another one.
    #[error("event loop {wanted} cannot run: event loop {running} is running on this thread")]
    AlreadyRunning {
        /// The loop that was asked to run.
        wanted: u64,
        /// The loop that is running.
        running: u64,
    },
    /// The loop is closed.
    #[error("event loop {0} is closed")]
    Closed(u64),
    /// The main task was cancelled by something else than Ctrl-C. Only [`run`](crate::run()) and
    /// [`Runner::run`](crate::Runner::run) give this; stands for asyncio's `CancelledError`.
    #[error("the main task of event loop {0} was cancelled")]
    Cancelled(u64),
    /// Ctrl-C cancelled the main task. Only [`run`](crate::run()) and
    /// [`Runner::run`](crate::Runner::run) give this; stands for `KeyboardInterrupt`.
    #[error("interrupted")]
    Interrupted,
    /// The process was forked since the loop was made, and this is the child.
    #[error("event loop {0} belongs to the parent process")]
    Forked(u64),
    /// The selector failed. The loop can be run again.
    #[error("the selector failed: {0}")]
    Select(#[from] io::Error),
}

/// Sets up an [`EventLoop`].
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    selector: Option<Box<dyn Selector>>,
    debug: bool,
    busy_poll: Duration,
    slow_callback_duration: Duration,
    exception_handler: Option<Rc<ExceptionHandler>>,
    instrument: Option<Rc<dyn Instrument>>,
}

/// From which duration on a callback is slow, unless the builder says otherwise: asyncio's value.
const SLOW_CALLBACK: Duration = Duration::from_millis(100);

/// The ids of loops, in the order in which they were made.
static LOOPS: AtomicU64 = AtomicU64::new(1);

impl EventLoop {
    /// A loop over this platform's best selector. Debug mode is on if the environment says
    /// `TULIPA_DEBUG=1`.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn new() -> io::Result<EventLoop> {
        EventLoop::builder().build()
    }

    /// Sets up a loop with options.
    pub fn builder() -> Builder {
        Builder {
            selector: None,
            debug: std::env::var_os("TULIPA_DEBUG").is_some_and(|value| value == "1"),
            busy_poll: Duration::ZERO,
            slow_callback_duration: SLOW_CALLBACK,
            exception_handler: None,
            instrument: None,
        }
    }

    /// A handle for callbacks and programs on this thread.
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Runs until [`stop`](LoopHandle::stop). Stands for `run_forever`.
    ///
    /// If it was stopped before, it looks for events once without waiting, runs what is ready, and
    /// returns.
    ///
    /// # Errors
    /// [`RunError`], except [`Stopped`](RunError::Stopped).
    pub fn run_forever(&self) -> Result<(), RunError> {
        let running = self.enter()?;
        running.observed(|| running.run(&mut None))
    }

    /// Runs until `future` is done, and returns what it gives. Stands for `run_until_complete`.
    ///
    /// The future takes its turns with the callbacks, first in, first out; its first poll is at the
    /// next turn. It is dropped before this returns.
    ///
    /// # Errors
    /// [`RunError`]; [`Stopped`](RunError::Stopped) if the loop was stopped first.
    ///
    /// # Panics
    /// With the future's panic, after the turn in which it happened. The loop can be run again.
    #[track_caller]
    pub fn run_until_complete<F: Future>(&self, future: F) -> Result<F::Output, RunError> {
        let context = crate::copy_context();
        let running = self.enter()?;
        let mut future = pin!(future);
        let mut output = None;
        let mut poll = |context: &mut std::task::Context<'_>| match future.as_mut().poll(context) {
            Poll::Ready(value) => {
                output = Some(value);
                true
            }
            Poll::Pending => false,
        };
        let mut main = Some(MainFuture::new(&self.handle, context, &mut poll));
        let ran = running.observed(|| running.run(&mut main));
        // Before its panic goes on.
        self.handle.core.tasks.borrow_mut().end_main();
        let finished = main.is_some_and(MainFuture::finish);
        ran?;
        match output {
            Some(output) if finished => Ok(output),
            _ => Err(RunError::Stopped(self.handle.core.id)),
        }
    }

    /// Runs one turn, which waits for events for at most `timeout`, and not at all while there is
    /// work. With [`backend_fd`](Self::backend_fd) and [`next_deadline`](LoopHandle::next_deadline)
    /// it runs the loop inside another one. A [`stop`](LoopHandle::stop) during the turn ends no more
    /// than the turn.
    ///
    /// # Errors
    /// [`RunError`], except [`Stopped`](RunError::Stopped).
    pub fn run_once(&self, timeout: impl Into<Timeout>) -> Result<(), RunError> {
        let running = self.enter()?;
        let turn = || self.handle.turn(&mut Run::default(), timeout.into(), &mut None);
        let ran = running.observed(turn);
        self.handle.core.stopping.set(false);
        drop(running);
        Ok(ran?)
    }

    /// A descriptor that is readable when the loop has something to do, timers aside; `None` where
    /// the selector has none. See [`Selector::backend_fd`].
    #[cfg(unix)]
    pub fn backend_fd(&self) -> Option<std::os::fd::RawFd> {
        self.handle.core.selector.backend_fd()
    }

    /// Closes the loop: tells every source that it ends, drops everything that is scheduled, without
    /// running it, and gives the operating system's resources back. A second call does nothing.
    ///
    /// All destructors run here, on the loop's thread. What they schedule is dropped too.
    ///
    /// # Errors
    /// [`RunError::AlreadyRunning`] from inside the loop.
    pub fn close(&self) -> Result<(), RunError> {
        let core = &self.handle.core;
        match core.phase.get() {
            Phase::Running => Err(RunError::AlreadyRunning { wanted: core.id, running: core.id }),
            Phase::Closed => Ok(()),
            Phase::Idle => {
                self.handle.close_everything();
                Ok(())
            }
        }
    }

    fn enter(&self) -> Result<Running<'_>, RunError> {
        let core = &self.handle.core;
        let wanted = core.id;
        if core.is_closed() {
            return Err(RunError::Closed(wanted));
        }
        if core.process != std::process::id() {
            return Err(RunError::Forked(wanted));
        }
        let entered = Entered::new(&self.handle)
            .map_err(|running| RunError::AlreadyRunning { wanted, running })?;
        core.phase.set(Phase::Running);
        Ok(Running { handle: &self.handle, _entered: entered })
    }
}

/// A loop inside a `run` method; leaving it, by a panic too, makes the loop idle again.
struct Running<'a> {
    handle: &'a LoopHandle,
    _entered: Entered,
}

impl Running<'_> {
    /// Runs `f`, during which the waits for locks and queues are noted.
    fn observed<T>(&self, f: impl FnOnce() -> T) -> T {
        let core = &self.handle.core;
        let observer = core.observer.get_or_init(|| Rc::new(LoopObserver(Rc::downgrade(core))));
        tulipa_sync::wait::with_observer(observer.clone(), f)
    }

    fn run(&self, main: &mut Option<MainFuture<'_>>) -> Result<(), RunError> {
        let mut run = Run::default();
        let core = &self.handle.core;
        loop {
            let turned = self.handle.turn(&mut run, Timeout::Never, main);
            let stopped = core.stopping.replace(false);
            turned?;
            if stopped {
                return Ok(());
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handle.core.phase.set(Phase::Idle);
    }
}

impl LoopHandle {
    fn close_everything(&self) {
        let core = &self.core;
        // From here on whatever is given to the loop is dropped.
        core.phase.set(Phase::Closed);
        if core.process != std::process::id() {
            // A child shares the parent's set of watched descriptors: closing its own end first
            // keeps what is dropped below from being deregistered there.
            core.selector.close();
        }
        self.close_tasks();
        core.close_shared(self);
        self.close_sources();
        #[cfg(all(unix, feature = "signal"))]
        self.close_signals();
        let readers = core.readers.take();
        for watch in readers.into_values() {
            core.release(self, || drop(watch));
        }
        core.wires.close();
        let start = self.time();
        let timers = core.timers.replace(crate::timers::Timers::new(start));
        // One at a time: two destructors that panic in one go would abort the process.
        for timer in timers.into_alarms() {
            core.release(self, || drop(timer));
        }
        let ready = core.ready.borrow_mut().take();
        for entry in ready {
            core.release(self, || {
                if let Ready::Remote(call) = &entry {
                    // Drops the closure here, on the loop's thread, also while a handle to it lives.
                    call.cancel();
                }
                drop(entry);
            });
        }
        if let Some(executor) = core.executor.take() {
            core.release(self, || executor.shutdown());
        }
        core.selector.close();
        let locals = core.locals.take();
        for local in locals {
            core.release(self, || drop(local));
        }
        core.release(self, || core.set_instrument(None));
        core.release(self, || core.set_exception_handler(None));
    }
}

impl Deref for EventLoop {
    type Target = LoopHandle;

    fn deref(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Dropped while it runs, by unwinding out of a `run` method: that has ended.
        if self.handle.core.phase.get() != Phase::Closed {
            self.handle.close_everything();
        }
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.handle.core;
        let (id, phase, name) = (core.id, core.phase.get(), core.selector.name());
        write!(f, "<EventLoop {id} {phase:?} selector={name} debug={}>", core.debug())
    }
}

impl Builder {
    /// Waits with this selector, which is also the clock.
    pub fn selector(mut self, selector: impl Selector + 'static) -> Builder {
        self.selector = Some(Box::new(selector));
        self
    }

    /// Turns debug mode on or off, whatever the environment says.
    pub fn debug(mut self, debug: bool) -> Builder {
        self.debug = debug;
        self
    }

    /// Before each wait looks for events again and again for this long without sleeping.
    ///
    /// A message that comes within that time is answered without the cost of being woken, which is
    /// several times the cost of the message. The price is a core that is busy for this long before
    /// each sleep, and for ever if messages come closer together than this. Zero, the default, never
    /// spins. It does nothing good on a machine where the other side needs the same core.
    pub fn busy_poll(mut self, duration: Duration) -> Builder {
        self.busy_poll = duration;
        self
    }

    /// From which duration on a callback is reported as slow in debug mode: 100 ms unless set.
    pub fn slow_callback_duration(mut self, duration: Duration) -> Builder {
        self.slow_callback_duration = duration;
        self
    }

    /// See [`LoopHandle::set_exception_handler`].
    pub fn exception_handler(
        mut self,
        handler: impl Fn(&LoopHandle, &ErrorContext) + 'static,
    ) -> Builder {
        self.exception_handler = Some(Rc::new(handler));
        self
    }

    /// See [`LoopHandle::set_instrument`].
    pub fn instrument(mut self, instrument: Rc<dyn Instrument>) -> Builder {
        self.instrument = Some(instrument);
        self
    }

    /// Makes the loop.
    ///
    /// # Errors
    /// Where no selector was given and the process has no descriptor left for one.
    pub fn build(self) -> io::Result<EventLoop> {
        let selector = match self.selector {
            Some(selector) => selector,
            None => Box::new(DefaultSelector::new()?),
        };
        let id = LOOPS.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "tulipa::loop", id, selector = selector.name(), "event loop made");
        let settings = Settings {
            debug: self.debug,
            busy_poll: self.busy_poll,
            slow_callback_duration: self.slow_callback_duration,
            exception_handler: self.exception_handler,
            instrument: self.instrument,
        };
        let core = Rc::new(Core::new(id, selector, settings));
        Ok(EventLoop { handle: LoopHandle { core } })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("selector", &self.selector)
            .field("debug", &self.debug)
            .field("busy_poll", &self.busy_poll)
            .finish_non_exhaustive()
    }
}
