//! Connections that are ended because of the time.
//!
//! Timers here are apart from the transport's own ([`Transport::set_timeout`]), which belongs to the protocol inside.
//! They are cancelled when the connection is over.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::{LoopHandle, TimerHandle};

use super::gauge::Gauge;
use super::{around, pass_on};
use crate::{AfterEof, Protocol, Transport};

/// Nobody can see when output leaves but by looking. It is looked so often in the time of an idle timeout.
const LOOKS: u32 = 4;

/// A timer that lives no longer than the connection.
#[derive(Clone, Default)]
struct Timer(Rc<TimerState>);

#[derive(Default)]
struct TimerState {
    timer: RefCell<Option<TimerHandle>>,
    lifted: Cell<bool>,
}

impl Timer {
    fn set(&self, timer: TimerHandle) {
        let old = self.0.timer.replace(Some(timer));
        drop(old);
    }

    fn lift(&self) {
        self.0.lifted.set(true);
        self.cancel();
    }

    fn cancel(&self) {
        // Out before it is cancelled, which drops what it was to call.
        let timer = self.0.timer.take();
        if let Some(timer) = timer {
            timer.cancel();
        }
    }
}

/// Cancels a timer when the connection is over.
struct CancelOnDrop(Timer);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn end(transport: &Transport, why: fmt::Arguments<'_>) {
    let peer = transport.peer_addr().map(|peer| format!(" with {peer}")).unwrap_or_default();
    let error = format!("the connection{peer} {why}");
    transport.state.fail(io::Error::new(io::ErrorKind::TimedOut, error));
}

/// Ends a connection on which nothing has come or gone for some time, with an error of the kind
/// [`TimedOut`](io::ErrorKind::TimedOut). Stands for Twisted's `TimeoutProtocol` and `TimeoutMixin`.
///
/// What waits to be written and does not leave is nothing that goes: a peer that reads nothing is idle too.
///
/// ```
/// # use tulipa_protocols::{IdleTimeout, Protocol, Transport};
/// # use std::time::Duration;
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, t: &Transport, d: &[u8]) -> std::io::Result<()> { t.write(d); Ok(()) }
/// # }
/// let factory = || IdleTimeout::new(Duration::from_secs(60), Echo);
/// # let _ = factory;
/// ```
///
/// # Limits
/// After input the time is exact; after output it may be up to a quarter longer. Without a loop
/// ([`Detached`](crate::Detached)) there is no time.
pub struct IdleTimeout<P> {
    inner: P,
    limit: Duration,
    watch: Option<Rc<Watch>>,
}

struct Watch {
    handle: LoopHandle,
    gauge: Rc<Gauge>,
    limit: Duration,
    seen: Cell<(u64, u64)>,
    active: Cell<Instant>,
    timer: Timer,
}

impl Watch {
    /// Whether anything has moved since the last look is noted with the time.
    fn look(&self) -> Instant {
        let now = self.handle.time();
        let counts = self.gauge.counts();
        if self.seen.replace(counts) != counts {
            self.active.set(now);
        }
        now
    }

    fn arm(self: &Rc<Self>, transport: &Transport, now: Instant) {
        let end = self.active.get().checked_add(self.limit);
        let look = now.checked_add(self.limit / LOOKS);
        let Some(when) = end.into_iter().chain(look).min() else { return };
        let (watch, transport) = (self.clone(), transport.clone());
        self.timer.set(self.handle.call_at(when, move |_| watch.tick(&transport)));
    }

    fn tick(self: &Rc<Self>, transport: &Transport) {
        let now = self.look();
        if now.saturating_duration_since(self.active.get()) < self.limit {
            return self.arm(transport, now);
        }
        let limit = self.limit;
        end(transport, format_args!("is idle: nothing has come or gone for {limit:?}"));
    }
}

impl<P> IdleTimeout<P> {
    /// Around `inner`.
    ///
    /// # Panics
    /// If the time is zero.
    #[track_caller]
    pub fn new(limit: Duration, inner: P) -> IdleTimeout<P> {
        assert!(!limit.is_zero(), "every connection is idle for no time");
        IdleTimeout { inner, limit, watch: None }
    }
}

around!(IdleTimeout);

impl<P: Protocol> Protocol for IdleTimeout<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        if let (Some(handle), Some(gauge)) = (LoopHandle::try_current(), transport.state.gauge()) {
            let now = handle.time();
            let timer = Timer::default();
            gauge.keep(CancelOnDrop(timer.clone()));
            let (seen, active) = (Cell::new(gauge.counts()), Cell::new(now));
            let watch = Watch { handle, gauge, limit: self.limit, seen, active, timer };
            let watch = Rc::new(watch);
            watch.arm(transport, now);
            self.watch = Some(watch);
        }
        self.inner.connection_made(transport)
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        let read = self.inner.readable(transport);
        if let Some(watch) = &self.watch {
            watch.look();
        }
        read
    }

    pass_on!(connection_lost);
}

impl<P: fmt::Debug> fmt::Debug for IdleTimeout<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdleTimeout { inner, limit, .. } = self;
        f.debug_struct("IdleTimeout")
            .field("limit", limit)
            .field("inner", inner)
            .finish_non_exhaustive()
    }
}

/// Ends a connection after some time, however much comes and goes, with an error of the kind
/// [`TimedOut`](io::ErrorKind::TimedOut). A peer that sends its request one byte at a time, to keep the connection
/// for ever, is never idle; this is against it.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use tulipa_protocols::{Deadline, Lift, Protocol, Transport};
///
/// /// Waits for a request; after that it may take its time.
/// struct Request(Lift);
///
/// impl Protocol for Request {
///     fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
///         if data.ends_with(b"\n") {
///             self.0.lift();
///         }
///         Ok(())
///     }
/// }
///
/// let factory = || Deadline::with(Duration::from_secs(10), Request);
/// # let _ = factory;
/// ```
///
/// # Limits
/// Without a loop ([`Detached`](crate::Detached)) there is no time.
pub struct Deadline<P> {
    inner: P,
    limit: Duration,
    timer: Timer,
}

/// Lifts a [`Deadline`].
#[derive(Clone)]
pub struct Lift(Timer);

impl Lift {
    /// There is no deadline any more. Doing it twice is doing it once.
    pub fn lift(&self) {
        self.0.lift();
    }
}

impl fmt::Debug for Lift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lift").field(&self.0.0.lifted.get()).finish()
    }
}

impl<P> Deadline<P> {
    /// Around `inner`; the time begins when the connection is made.
    pub fn new(limit: Duration, inner: P) -> Deadline<P> {
        Deadline { inner, limit, timer: Timer::default() }
    }

    /// Around what is made with the means to lift the deadline.
    pub fn with(limit: Duration, make: impl FnOnce(Lift) -> P) -> Deadline<P> {
        let timer = Timer::default();
        let inner = make(Lift(timer.clone()));
        Deadline { inner, limit, timer }
    }
}

around!(Deadline);

impl<P: Protocol> Protocol for Deadline<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        let (handle, gauge) = (LoopHandle::try_current(), transport.state.gauge());
        if let (Some(handle), Some(gauge), false) = (handle, gauge, self.timer.0.lifted.get()) {
            gauge.keep(CancelOnDrop(self.timer.clone()));
            let (ended, limit) = (transport.clone(), self.limit);
            self.timer.set(handle.call_later(limit, move |_| {
                end(&ended, format_args!("has taken longer than {limit:?}"));
            }));
        }
        self.inner.connection_made(transport)
    }

    pass_on!(readable connection_lost);
}

impl<P: fmt::Debug> fmt::Debug for Deadline<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deadline { inner, limit, .. } = self;
        f.debug_struct("Deadline")
            .field("limit", limit)
            .field("inner", inner)
            .finish_non_exhaustive()
    }
}
