//! Unix signals as callbacks, streams and futures.
//!
//! ```no_run
//! use tulipa_loop::{EventLoop, signal::Signal};
//!
//! let event_loop = EventLoop::new()?;
//! event_loop.add_signal_handler(Signal::TERMINATE, |handle| handle.stop())?;
//! event_loop.run_forever()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A signal reaches every loop that asked for it, in any thread. Signals of one kind that come close
//! together count as one, as they do in the kernel; none vanishes. When the last loop stops to listen
//! to a signal, its disposition is what it was before the first one began. A signal that comes after
//! that meets this disposition, also one that was sent before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_lite::Stream;
use tulipa_selector::{Event, Interest, Registration, Selector, Source as Watched};

use crate::LoopHandle;
use crate::await_graph::{On, Plain, WaitId};
use crate::readers::{Repeating, closed};
use crate::report::Origin;
use crate::source::Source;
use crate::sys::Listener;

/// A signal, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(c_int);

impl Signal {
    /// `SIGHUP`: the terminal is gone; by convention, read the configuration again.
    pub const HANGUP: Signal = Signal(libc::SIGHUP);
    /// `SIGINT`: Ctrl-C.
    pub const INTERRUPT: Signal = Signal(libc::SIGINT);
    /// `SIGQUIT`: Ctrl-\.
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    /// `SIGTERM`: please end.
    pub const TERMINATE: Signal = Signal(libc::SIGTERM);
    /// `SIGUSR1`.
    pub const USER1: Signal = Signal(libc::SIGUSR1);
    /// `SIGUSR2`.
    pub const USER2: Signal = Signal(libc::SIGUSR2);
    /// `SIGCHLD`: a child process has ended or stopped.
    pub const CHILD: Signal = Signal(libc::SIGCHLD);
    /// `SIGWINCH`: the terminal has another size.
    pub const WINDOW: Signal = Signal(libc::SIGWINCH);
    /// `SIGALRM`: a timer of the operating system is over.
    pub const ALARM: Signal = Signal(libc::SIGALRM);

    /// The signal of a number, from 1 to 64.
    pub const fn from_raw(number: c_int) -> Option<Signal> {
        if number >= 1 && number <= 64 { Some(Signal(number)) } else { None }
    }

    /// Its number.
    pub const fn as_raw(self) -> c_int {
        self.0
    }

    /// Whether a program can go on after its handler: not those that cannot be caught, and not those
    /// that an instruction caused, which would cause them again.
    fn can_be_handled(self) -> bool {
        let never =
            [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
        !never.contains(&self.0)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.0)
    }
}

/// The signals of one loop.
pub(crate) struct Signals {
    /// `None` where the selector knows no descriptors: signals then come from
    /// [`deliver_signal`](LoopHandle::deliver_signal) only.
    listener: Option<Listener>,
    registration: RefCell<Option<Registration>>,
    handlers: RefCell<BTreeMap<Signal, Rc<Repeating>>>,
    streams: RefCell<Vec<Weak<StreamState>>>,
    /// What a runner does at Ctrl-C, unless the program listens to it.
    interrupt: RefCell<Option<Rc<dyn Fn()>>>,
}

/// A runner listens to Ctrl-C for as long as this lives.
pub(crate) struct InterruptWatch(LoopHandle);

struct StreamState {
    signals: Vec<Signal>,
    pending: RefCell<Vec<Signal>>,
    waker: RefCell<Option<Waker>>,
    wait: Cell<WaitId>,
    closed: Cell<bool>,
}

/// The signals that come, as a stream. It ends when the loop is closed.
///
/// # Cancel safety
/// A signal that was not handed out stays in the stream.
#[must_use = "a stream does nothing unless it is polled"]
pub struct SignalStream {
    state: Rc<StreamState>,
    handle: LoopHandle,
}

impl LoopHandle {
    /// Calls `callback` on the loop each time the signal comes. A handler that was there is replaced.
    /// Stands for `add_signal_handler`; unlike there, the loop may be in any thread.
    ///
    /// # Order
    /// Signals that are pending together are handled in the order of their numbers.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that cannot be handled; what the
    /// operating system says; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
    #[track_caller]
    pub fn add_signal_handler(
        &self,
        signal: Signal,
        callback: impl FnMut(&LoopHandle) + 'static,
    ) -> io::Result<()> {
        let callback = Repeating::new(Box::new(callback), Location::caller(), Origin::Signal);
        let signals = self.signals_for(&[signal])?;
        let old = signals.handlers.borrow_mut().insert(signal, callback);
        if let Some(old) = old {
            old.cancel();
        }
        Ok(())
    }

    /// Removes a handler, and gives the signal's disposition back if nobody else listens to it.
    /// Returns whether there was one. Stands for `remove_signal_handler`.
    pub fn remove_signal_handler(&self, signal: Signal) -> bool {
        let signals = self.core.signals.borrow().clone();
        let Some(signals) = signals else { return false };
        let old = signals.handlers.borrow_mut().remove(&signal);
        signals.forget_unwanted(&[signal]);
        if let Some(old) = &old {
            old.cancel();
        }
        old.is_some()
    }

    /// Has this loop's handlers and streams told of a signal, in its next turn, as if it had come; the process gets
    /// none. Returns whether anybody listens to it on this loop.
    ///
    /// For tests above all: a loop in virtual time hears of no signal in any other way, so that its tests
    /// need no process of their own. A [`Runner`](crate::Runner) takes it for Ctrl-C if it is
    /// [`INTERRUPT`](Signal::INTERRUPT). asyncio's tests call `signal.raise_signal`.
    ///
    /// # Order
    /// As [`call_soon`](Self::call_soon).
    pub fn deliver_signal(&self, signal: Signal) -> bool {
        let signals = self.core.signals.borrow().clone();
        let Some(signals) = signals else { return false };
        let interrupts = signal == Signal::INTERRUPT && signals.interrupt.borrow().is_some();
        if !interrupts && !signals.is_heard(signal) {
            return false;
        }
        self.call_soon(move |handle| signals.deliver(handle, signal));
        true
    }

    /// The signals that come from now on, as a stream.
    ///
    /// # Errors
    /// As [`add_signal_handler`](Self::add_signal_handler).
    pub fn signals(&self, signals: &[Signal]) -> io::Result<SignalStream> {
        let mine = self.signals_for(signals)?;
        let state = Rc::new(StreamState {
            signals: signals.to_vec(),
            pending: RefCell::default(),
            waker: RefCell::default(),
            wait: Cell::default(),
            closed: Cell::new(false),
        });
        mine.streams.borrow_mut().push(Rc::downgrade(&state));
        Ok(SignalStream { state, handle: self.clone() })
    }

    /// Waits for Ctrl-C. From this call on, not from the first poll, Ctrl-C does not end the program
    /// any more, until the future is dropped.
    ///
    /// # Errors
    /// As [`add_signal_handler`](Self::add_signal_handler); the future itself gives
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the loop is closed.
    pub fn ctrl_c(&self) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
        let mut signals = self.signals(&[Signal::INTERRUPT])?;
        Ok(async move {
            match futures_lite::StreamExt::next(&mut signals).await {
                Some(_) => Ok(()),
                None => Err(closed()),
            }
        })
    }

    /// Calls `interrupted` at Ctrl-C if the program does not listen to it on this loop by itself, and
    /// has the second one end the process; `None` if Ctrl-C does not end the process anyway, or the
    /// loop cannot listen.
    pub(crate) fn watch_interrupt(
        &self,
        interrupted: impl Fn() + 'static,
    ) -> Option<InterruptWatch> {
        if !crate::sys::is_default(Signal::INTERRUPT.0) {
            return None;
        }
        let known = self.core.signals.borrow().clone();
        let heard = known.is_some_and(|signals| signals.is_heard(Signal::INTERRUPT));
        let signals = self.signals_for(&[Signal::INTERRUPT]).ok()?;
        if let Some(listener) = signals.listener.as_ref().filter(|_| !heard) {
            listener.end_at_second(Signal::INTERRUPT.0);
        }
        let old = signals.interrupt.replace(Some(Rc::new(interrupted)));
        drop(old);
        Some(InterruptWatch(self.clone()))
    }

    /// The loop's signals, listening to these; made at the first use.
    fn signals_for(&self, wanted: &[Signal]) -> io::Result<Rc<Signals>> {
        if self.is_closed() {
            return Err(closed());
        }
        if let Some(signal) = wanted.iter().find(|signal| !signal.can_be_handled()) {
            let message = format!("signal {} cannot be handled", signal.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let known = self.core.signals.borrow().clone();
        let signals = match known {
            Some(signals) => signals,
            None => self.start_signals()?,
        };
        let Some(listener) = &signals.listener else { return Ok(signals) };
        for signal in wanted {
            if let Err(error) = listener.listen(signal.0) {
                signals.forget_unwanted(wanted);
                return Err(error);
            }
            listener.end_never(signal.0);
        }
        Ok(signals)
    }

    fn start_signals(&self) -> io::Result<Rc<Signals>> {
        let listener = Listener::new()?;
        let ear = Ear(listener.ear());
        let signals = Rc::new(Signals::new(Some(listener)));
        let source = Box::new(SignalSource(signals.clone()));
        let key = self.insert_source(source).map_err(|_| closed())?;
        let registered =
            self.core.selector.register(Watched::new(ear), Interest::READABLE, key.to_bits());
        let signals = match registered {
            Ok(registration) => {
                *signals.registration.borrow_mut() = Some(registration);
                signals
            }
            // A virtual selector. The process's signals are none of its loop's business.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.remove_source(key);
                Rc::new(Signals::new(None))
            }
            Err(error) => {
                self.remove_source(key);
                return Err(error);
            }
        };
        *self.core.signals.borrow_mut() = Some(signals.clone());
        Ok(signals)
    }

    pub(crate) fn close_signals(&self) {
        let signals = self.core.signals.borrow_mut().take();
        if let Some(signals) = &signals {
            signals.end(self);
        }
        self.core.release(self, || drop(signals));
    }
}

/// The readable end of the doorbell, which belongs to the process and is never closed.
struct Ear(BorrowedFd<'static>);

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

struct SignalSource(Rc<Signals>);

impl Source for SignalSource {
    fn ready(&mut self, handle: &LoopHandle, _event: &Event) {
        let Some(listener) = &self.0.listener else { return };
        for signal in listener.take_pending().map(Signal) {
            self.0.deliver(handle, signal);
        }
    }

    fn closing(&mut self, handle: &LoopHandle) {
        self.0.end(handle);
    }
}

impl Signals {
    fn new(listener: Option<Listener>) -> Signals {
        Signals {
            listener,
            registration: RefCell::default(),
            handlers: RefCell::default(),
            streams: RefCell::default(),
            interrupt: RefCell::default(),
        }
    }

    /// The loop is closed: everything that listens ends. A second time it does nothing.
    fn end(&self, handle: &LoopHandle) {
        let handlers = self.handlers.take();
        for handler in handlers.into_values() {
            handle.core.release(handle, || handler.cancel());
        }
        for stream in self.streams() {
            stream.closed.set(true);
            stream.wake(handle);
        }
        let interrupt = self.interrupt.take();
        handle.core.release(handle, || drop(interrupt));
        let registration = self.registration.borrow_mut().take();
        handle.core.release(handle, || drop(registration));
    }

    fn deliver(&self, handle: &LoopHandle, signal: Signal) {
        if signal == Signal::INTERRUPT && !self.is_heard(signal) {
            let interrupt = self.interrupt.borrow().clone();
            if let Some(interrupt) = interrupt {
                handle.core.release(handle, || interrupt());
            }
        }
        let handler = self.handlers.borrow().get(&signal).cloned();
        if let Some(handler) = handler {
            handler.run(handle);
        }
        for stream in self.streams().filter(|stream| stream.signals.contains(&signal)) {
            let mut pending = stream.pending.borrow_mut();
            if !pending.contains(&signal) {
                pending.push(signal);
            }
            drop(pending);
            stream.wake(handle);
        }
    }

    /// Whether the loop has a source for them.
    pub(crate) fn is_registered(&self) -> bool {
        self.registration.borrow().is_some()
    }

    /// Whether the program listens to a signal.
    fn is_heard(&self, signal: Signal) -> bool {
        let handled = self.handlers.borrow().contains_key(&signal);
        handled || self.streams().any(|stream| stream.signals.contains(&signal))
    }

    /// The streams that are alive; forgets the others.
    fn streams(&self) -> impl Iterator<Item = Rc<StreamState>> + use<> {
        let mut streams = self.streams.borrow_mut();
        streams.retain(|stream| stream.strong_count() > 0);
        let alive: Vec<_> = streams.iter().filter_map(Weak::upgrade).collect();
        alive.into_iter()
    }

    /// Stops to listen to those of these signals that nobody wants any more.
    fn forget_unwanted(&self, signals: &[Signal]) {
        let Some(listener) = &self.listener else { return };
        for signal in signals {
            let interrupts = *signal == Signal::INTERRUPT && self.interrupt.borrow().is_some();
            if !interrupts && !self.is_heard(*signal) {
                listener.ignore(signal.0);
            }
        }
    }
}

impl Drop for InterruptWatch {
    fn drop(&mut self) {
        let signals = self.0.core.signals.borrow().clone();
        if let Some(signals) = signals {
            let interrupt = signals.interrupt.take();
            if let Some(listener) = &signals.listener {
                listener.end_never(Signal::INTERRUPT.0);
            }
            signals.forget_unwanted(&[Signal::INTERRUPT]);
            drop(interrupt);
        }
    }
}

impl StreamState {
    fn wake(&self, handle: &LoopHandle) {
        let waker = self.waker.borrow_mut().take();
        handle.core.wait_over(&mut self.wait.take());
        if let Some(waker) = waker {
            handle.core.release(handle, || waker.wake());
        }
    }
}

impl Stream for SignalStream {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        let state = &self.state;
        let mut pending = state.pending.borrow_mut();
        if !pending.is_empty() {
            return Poll::Ready(Some(pending.remove(0)));
        }
        drop(pending);
        if state.closed.get() {
            return Poll::Ready(None);
        }
        let waker = context.waker().clone();
        let old = state.waker.borrow_mut().replace(waker);
        drop(old);
        let mut wait = state.wait.take();
        self.handle.core.wait_on(&mut wait, || On::Plain(Plain::Signal));
        state.wait.set(wait);
        Poll::Pending
    }
}

impl Drop for SignalStream {
    fn drop(&mut self) {
        self.handle.core.wait_over(&mut self.state.wait.take());
        let signals = self.handle.core.signals.borrow().clone();
        if let Some(signals) = signals {
            // Not counted among the streams any more: this is its last owner.
            let own = self.state.clone();
            signals.streams.borrow_mut().retain(|other| !std::ptr::eq(other.as_ptr(), &*own));
            signals.forget_unwanted(&own.signals);
        }
    }
}

impl fmt::Debug for SignalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalStream").field("signals", &self.state.signals).finish_non_exhaustive()
    }
}
