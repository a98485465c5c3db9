//! Transports with no loop and no socket: a protocol's tests feed it bytes and look at what it wrote.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::Wires;
use tulipa_selector::{Selector, Source, VirtualId, VirtualSelector};

use crate::leaf::Leaf;
use crate::state::{Slot, State, share};
use crate::talk::{Host, Settled, Talk, Told};
use crate::{Address, Link, Protocol, Transport};

/// The far end of a transport that is [`detached`](Transport::detached): what a test does as the peer and as the
/// operating system.
///
/// ```
/// use tulipa_protocols::Transport;
///
/// let (transport, probe) = Transport::detached();
/// transport.write(b"hello ");
/// transport.write(b"there");
/// assert_eq!(probe.written(), b"hello there");
/// ```
pub struct Probe {
    transport: Transport,
    wire: Rc<Wire>,
}

#[derive(Default)]
struct Wire {
    incoming: RefCell<VecDeque<u8>>,
    ended: Cell<bool>,
    failure: RefCell<Option<io::Error>>,
    outgoing: RefCell<Vec<u8>>,
    /// How many bytes may still be written; `None` stands for any number.
    room: Cell<Option<usize>>,
    output_ended: Cell<bool>,
    reset: Cell<bool>,
    dropped: Cell<bool>,
}

struct WireLink(Rc<Wire>);

impl Link for WireLink {
    fn source(&self) -> Source {
        Source::from_virtual(VirtualId(0))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.0.incoming.borrow_mut();
        let count = incoming.len().min(buffer.len());
        if count > 0 {
            for (place, byte) in buffer.iter_mut().zip(incoming.drain(..count)) {
                *place = byte;
            }
            return Ok(count);
        }
        if let Some(failure) = &*self.0.failure.borrow() {
            return Err(share(failure));
        }
        if self.0.ended.get() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(failure) = &*self.0.failure.borrow() {
            return Err(share(failure));
        }
        let mut taken = 0;
        for piece in pieces {
            let count = self.0.room.get().unwrap_or(usize::MAX).min(piece.len());
            self.0.outgoing.borrow_mut().extend_from_slice(&piece[..count]);
            self.0.room.set(self.0.room.get().map(|room| room - count));
            taken += count;
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn has_input(&self) -> bool {
        let at_once = self.0.ended.get() || self.0.failure.borrow().is_some();
        at_once || !self.0.incoming.borrow().is_empty()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.0.output_ended.set(true);
        Ok(())
    }

    fn reset(&mut self) {
        self.0.reset.set(true);
    }

    fn peer_addr(&self) -> Option<Address> {
        Some(Address::Unnamed)
    }
}

impl Drop for WireLink {
    fn drop(&mut self) {
        self.0.dropped.set(true);
    }
}

impl Transport {
    /// A transport with no loop and no socket, and its far end: for tests that call a protocol's methods
    /// themselves. What drives a protocol by the contract of its callbacks is [`Detached`].
    pub fn detached() -> (Transport, Probe) {
        let wire = Rc::new(Wire::default());
        let link = Slot::Any(Box::new(WireLink(wire.clone())));
        let leaf = Rc::new(Leaf::new(Rc::new(Wires::cut())));
        let transport = Transport { state: Rc::new(State::new(leaf, link)) };
        transport.state.advance();
        transport.state.made.set(true);
        (transport.clone(), Probe { transport, wire })
    }
}

impl Probe {
    /// What was written since the last look, as far as there was [room](Self::set_room).
    pub fn written(&self) -> Vec<u8> {
        self.transport.state.flush();
        mem::take(&mut *self.wire.outgoing.borrow_mut())
    }

    /// How many bytes can be written from now on before writing blocks; `None`, as at first, stands for
    /// any number.
    pub fn set_room(&self, room: Option<usize>) {
        self.wire.room.set(room);
        self.transport.state.blocked.set(room == Some(0));
        self.transport.state.flush();
    }

    /// Bytes come from the peer.
    pub fn feed(&self, data: &[u8]) {
        self.wire.incoming.borrow_mut().extend(data);
        self.transport.state.readable.set(true);
    }

    /// The peer ends its side.
    pub fn feed_eof(&self) {
        self.wire.ended.set(true);
        self.transport.state.readable.set(true);
    }

    /// The connection breaks: what has come can still be read, then reading and writing fail.
    pub fn fail(&self, error: io::Error) {
        *self.wire.failure.borrow_mut() = Some(error);
        self.transport.state.readable.set(true);
    }

    /// Whether our side was ended, by `write_eof`.
    pub fn is_output_ended(&self) -> bool {
        self.wire.output_ended.get()
    }

    /// Whether the connection was reset.
    pub fn is_reset(&self) -> bool {
        self.wire.reset.get()
    }

    /// Whether the connection is over and the link was let go, as a socket is closed then.
    pub fn is_closed(&self) -> bool {
        self.wire.dropped.get()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.is_closed();
        f.debug_struct("Probe").field("closed", &closed).finish_non_exhaustive()
    }
}

/// A protocol on a transport with no loop: every callback comes as a loop would make it, at once and in the
/// thread of the test. Panics are not caught.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Detached, Protocol, Transport};
///
/// struct Upper;
/// impl Protocol for Upper {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(&data.to_ascii_uppercase());
///         Ok(())
///     }
/// }
///
/// let mut connection = Detached::new(Upper);
/// connection.feed(b"abc");
/// assert_eq!(connection.written(), b"ABC");
/// ```
pub struct Detached {
    transport: Transport,
    probe: Probe,
    talk: Box<dyn AnyTalk>,
    bench: Bench,
    over: bool,
}

/// A protocol that always finds something to do would never be at rest; no test needs so many rounds.
const MOST_ROUNDS: usize = 100_000;

impl Detached {
    /// A connection that was just made.
    pub fn new(protocol: impl Protocol + 'static) -> Detached {
        Detached::with_filter(protocol, None)
    }

    /// One whose bytes go through a filter from the start.
    pub fn filtered(
        protocol: impl Protocol + 'static,
        filter: impl crate::Filter + 'static,
    ) -> Detached {
        Detached::with_filter(protocol, Some(Box::new(filter)))
    }

    fn with_filter(
        protocol: impl Protocol + 'static,
        filter: Option<Box<dyn crate::Filter>>,
    ) -> Detached {
        let (transport, probe) = Transport::detached();
        transport.state.made.set(false);
        if let Some(filter) = filter {
            transport.state.upgrade(filter, &[]).expect("a new transport is open");
        }
        let talk = Box::new(Talk::new(transport.clone(), protocol));
        let clock = VirtualSelector::new();
        let bench = Bench { now: Cell::new(clock.now()) };
        let mut detached = Detached { transport, probe, talk, bench, over: false };
        detached.run();
        detached
    }

    /// The transport.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The far end. What is done there has its effect at the next [`run`](Self::run).
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The protocol, if it is still of this type.
    pub fn protocol<P: 'static>(&mut self) -> Option<&mut P> {
        self.talk.protocol().downcast_mut()
    }

    /// Whether `connection_lost` was called.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes come from the peer.
    pub fn feed(&mut self, data: &[u8]) {
        self.probe.feed(data);
        self.run();
    }

    /// The peer ends its side.
    pub fn feed_eof(&mut self) {
        self.probe.feed_eof();
        self.run();
    }

    /// The connection breaks, see [`Probe::fail`].
    pub fn fail(&mut self, error: io::Error) {
        self.probe.fail(error);
        self.run();
    }

    /// See [`Probe::set_room`].
    pub fn set_room(&mut self, room: Option<usize>) {
        self.probe.set_room(room);
        self.run();
    }

    /// What was written since the last look.
    pub fn written(&mut self) -> Vec<u8> {
        self.run();
        self.probe.written()
    }

    /// Time goes by, for [`Transport::set_timeout`].
    pub fn advance(&mut self, duration: Duration) {
        // A timeout that was set just now begins before.
        self.run();
        self.bench.now.set(self.bench.now.get() + duration);
        self.transport.state.attend();
        self.run();
    }

    /// Calls all that is to be called.
    ///
    /// # Panics
    /// As the protocol does; and if it is never at rest.
    pub fn run(&mut self) {
        let state = self.transport.state.clone();
        for _ in 0..MOST_ROUNDS {
            if self.over {
                return;
            }
            if state.blocked.get()
                && self.probe.wire.room.get() != Some(0)
                && !state.held_by_pace().1
            {
                state.blocked.set(false);
                state.attend();
            }
            state.dispatching.set(true);
            self.round();
            state.watched.set(state.interest());
            state.dispatching.set(false);
            let again = state.again.replace(false) || state.progress.get();
            let reads = state.is_to_be_read() && again;
            if !state.wants_attention() && !reads {
                return;
            }
        }
        panic!("the protocol is never at rest");
    }

    fn round(&mut self) {
        let state = self.transport.state.clone();
        if state.phase() == crate::state::Phase::Open && self.probe_has_input() {
            state.readable.set(true);
        }
        match self.talk.settle(&self.bench) {
            Settled::Alive => self.talk.deliver(&self.bench),
            Settled::Replaced => {
                let Some(next) = state.extras(|extras| extras.successor.take()) else { return };
                let told = self.talk.take_told();
                self.talk = next.into_talk(self.transport.clone(), told);
                state.attend();
            }
            Settled::Over => {
                self.over = true;
                state.clear_queue();
                drop(state.take_link());
                drop(state.extras(|extras| extras.successor.take()));
            }
        }
    }

    fn probe_has_input(&self) -> bool {
        let wire = &self.probe.wire;
        let at_once = wire.ended.get() || wire.failure.borrow().is_some();
        at_once || !wire.incoming.borrow().is_empty()
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("over", &self.over).finish_non_exhaustive()
    }
}

/// Runs the program's code as it is.
pub(crate) struct Bench {
    now: Cell<Instant>,
}

impl Host for Bench {
    fn call<R>(&self, _: &'static str, code: impl FnOnce() -> R) -> Option<R> {
        Some(code())
    }

    fn release(&self, code: impl FnOnce()) {
        code();
    }

    fn now(&self) -> Instant {
        self.now.get()
    }
}

/// A [`Talk`] with a protocol of any type.
pub(crate) trait AnyTalk {
    fn settle(&mut self, bench: &Bench) -> Settled;
    fn deliver(&mut self, bench: &Bench);
    fn take_told(&mut self) -> Told;
    fn protocol(&mut self) -> &mut dyn Any;
}

impl<P: Protocol + 'static> AnyTalk for Talk<P> {
    fn settle(&mut self, bench: &Bench) -> Settled {
        Talk::settle(self, bench)
    }

    fn deliver(&mut self, bench: &Bench) {
        Talk::deliver(self, bench, 0);
    }

    fn take_told(&mut self) -> Told {
        mem::take(&mut self.told)
    }

    fn protocol(&mut self) -> &mut dyn Any {
        &mut self.protocol
    }
}
