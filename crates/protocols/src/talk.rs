//! What a protocol has been told, and what it is to be told: the whole contract of the callbacks' order
//! is [`Talk::settle`].
//!
//! There is no queue of notices. Whatever happens changes what is true (`state`); settling compares
//! that with what was told, and tells the difference, each thing at most once in one pass and in one
//! order. So nothing can be lost, told twice, or overtake something else, whatever the protocol does in
//! the middle of it. What changes meanwhile and has been passed already is told in the next turn.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use tulipa_loop::MarkTimer;

use crate::state::{Input, Phase, share};
use crate::{AfterEof, Protocol, Transport};

/// How often one event lets a protocol read: 1 MiB with the loop's buffer, so that one connection with
/// a fast peer does not keep the others from theirs. What is left is told by the selector again.
const MOST_READS: usize = 4;

/// Who runs the program's code: a loop, or a test without one.
pub(crate) trait Host {
    /// Runs a method of a protocol. `None` if it panicked, which was reported.
    fn call<R>(&self, method: &'static str, code: impl FnOnce() -> R) -> Option<R>;

    /// Drops something of the program's, or wakes somebody.
    fn release(&self, code: impl FnOnce());

    fn now(&self) -> Instant;
}

/// What a protocol has been told, apart from the beginning and the end, which the state knows, and what it
/// is to be told at a time.
#[derive(Default)]
pub(crate) struct Told {
    paused: bool,
    eof: bool,
    /// Only for connections that ever had a timeout.
    pub(crate) clock: Option<Box<Clock>>,
}

/// A connection's deadline.
#[derive(Default)]
pub(crate) struct Clock {
    pub(crate) deadline: Option<Instant>,
    /// A timer for it, or an earlier one from before it was put off.
    pub(crate) timer: Option<(Instant, MarkTimer)>,
}

impl Clock {
    /// Whether no timer comes early enough.
    pub(crate) fn is_unset(&self) -> bool {
        let set = self.timer.map(|(when, _)| when);
        self.deadline.is_some_and(|deadline| set.is_none_or(|set| deadline < set))
    }
}

/// A protocol and its transport.
pub(crate) struct Talk<P> {
    pub(crate) transport: Transport,
    pub(crate) protocol: P,
    pub(crate) told: Told,
}

/// What becomes of a driver after settling.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Alive,
    /// Another protocol is to take its place.
    Replaced,
    /// The protocol was told of the end.
    Over,
}

impl<P: Protocol> Talk<P> {
    pub(crate) fn new(transport: Transport, protocol: P) -> Talk<P> {
        // There is no input whose end could be told.
        let eof = transport.state.input.get() == Input::Watched;
        Talk { transport, protocol, told: Told { eof, ..Told::default() } }
    }

    /// Calls the protocol, and ends the connection if that fails. What it wrote leaves afterwards.
    #[inline]
    fn tell<R>(
        &mut self,
        host: &impl Host,
        method: &'static str,
        call: impl FnOnce(&mut P, &Transport) -> io::Result<R>,
    ) -> Option<R> {
        let (protocol, transport) = (&mut self.protocol, &self.transport);
        let told = host.call(method, || call(protocol, transport));
        match told {
            Some(Ok(value)) => {
                transport.state.flush_if_asked();
                Some(value)
            }
            Some(Err(error)) => {
                transport.state.fail(error);
                None
            }
            None => {
                let error = format!("panic in the protocol's {method}");
                transport.state.fail(io::Error::other(error));
                None
            }
        }
    }

    /// Lets the protocol read what there is, up to a limit, from which `reads` are taken that have been.
    #[inline(never)]
    pub(crate) fn deliver(&mut self, host: &impl Host, reads: usize) {
        for _ in reads..MOST_READS {
            if !self.deliver_once(host) {
                return;
            }
        }
        self.read_on_later();
    }

    /// Lets the protocol read once. Whether it has, and may read again.
    #[inline(always)]
    pub(crate) fn deliver_once(&mut self, host: &impl Host) -> bool {
        let state = &*self.transport.state;
        if !state.readable.get() || (!state.is_plain() && !self.may_read()) {
            return false;
        }
        state.progress.set(false);
        self.tell(host, "data_received", |protocol, transport| protocol.readable(transport));
        self.transport.state.progress.get()
    }

    #[inline(never)]
    fn may_read(&self) -> bool {
        let state = &*self.transport.state;
        let replaced = state.wants_attention() && state.has_successor();
        state.made.get() && state.is_to_be_read() && !replaced
    }

    /// Sees to it that what is left after so many reads is read too.
    #[inline(never)]
    fn read_on_later(&self) {
        let state = &*self.transport.state;
        if state.is_to_be_read() {
            // No event tells of what is left behind a failed write.
            if state.has_input() || state.phase() == Phase::Broken {
                state.read_again();
            } else {
                state.readable.set(false);
            }
        }
    }

    /// Tells what is true and has not been told.
    pub(crate) fn settle(&mut self, host: &impl Host) -> Settled {
        let state = self.transport.state.clone();
        state.take_attention();
        if state.leaf.has_discarded() {
            for bytes in state.leaf.take_discarded() {
                host.release(|| drop(bytes));
            }
        }
        if state.has_successor() {
            return Settled::Replaced;
        }
        state.fill_buckets(|| host.now());
        state.advance();
        if state.opened.get() && !state.made.replace(true) {
            self.tell(host, "connection_made", |protocol, transport| {
                protocol.connection_made(transport)
            });
            self.wake(host);
        }
        self.tell_flow(host);
        self.tell_eof(host);
        self.tell_time(host);
        if state.has_successor() {
            return Settled::Replaced;
        }
        if state.phase() == Phase::Broken {
            self.deliver(host, 0);
            if !state.is_to_be_read() || !state.progress.get() {
                state.end(None);
            }
        }
        // What was closed or ended just now may be all written.
        state.advance();
        if state.awaited.replace(false) {
            self.wake(host);
        }
        if self.told.eof {
            state.end_if_both_have();
        }
        self.tell_end(host)
    }

    fn tell_flow(&mut self, host: &impl Host) {
        let state = &*self.transport.state;
        let (size, limits) = (state.buffered(), state.limits());
        let alive = matches!(state.phase(), Phase::Opening | Phase::Open | Phase::Closing);
        if !alive || !state.made.get() || state.has_successor() {
            return;
        }
        if !self.told.paused && size > limits.high {
            self.told.paused = true;
            tracing::trace!(target: "tulipa::net", key = ?state.key.get(), size, "writing paused");
            self.tell(host, "pause_writing", |protocol, transport| {
                protocol.pause_writing(transport)
            });
        } else if self.told.paused && size <= limits.low {
            self.told.paused = false;
            tracing::trace!(target: "tulipa::net", key = ?state.key.get(), size, "writing resumed");
            self.tell(host, "resume_writing", |protocol, transport| {
                protocol.resume_writing(transport)
            });
        }
    }

    fn tell_eof(&mut self, host: &impl Host) {
        let state = self.transport.state.clone();
        let ended = state.input.get() == Input::Ended && state.phase() == Phase::Open;
        if !ended || self.told.eof || state.has_successor() {
            return;
        }
        self.told.eof = true;
        tracing::trace!(target: "tulipa::net", key = ?state.key.get(), "end of input");
        let after =
            self.tell(host, "eof_received", |protocol, transport| protocol.eof_received(transport));
        if after == Some(AfterEof::Close) {
            state.close();
        }
    }

    fn tell_time(&mut self, host: &impl Host) {
        let state = self.transport.state.clone();
        if let Some(timeout) = state.extras(|extras| extras.timeout.take()) {
            let deadline = timeout.and_then(|timeout| host.now().checked_add(timeout));
            self.told.clock.get_or_insert_default().deadline = deadline;
        }
        let Some(clock) = &mut self.told.clock else { return };
        let alive = matches!(state.phase(), Phase::Open | Phase::Opening | Phase::Closing);
        let due = clock.deadline.is_some_and(|deadline| deadline <= host.now());
        if due && alive && !state.has_successor() {
            clock.deadline = None;
            if !state.made.get() {
                let error = "the connection's timeout is over before its handshake";
                return state.fail(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            self.tell(host, "timed_out", |protocol, transport| protocol.timed_out(transport));
        }
    }

    fn tell_end(&mut self, host: &impl Host) -> Settled {
        let state = self.transport.state.clone();
        if state.has_successor() {
            return Settled::Replaced;
        }
        if state.phase() != Phase::Ended {
            return Settled::Alive;
        }
        if state.lost.replace(true) {
            return Settled::Over;
        }
        // Two of them are ours.
        if Rc::strong_count(&state) > 2 {
            state.remember_addresses();
        }
        let error = state.take_error();
        if let Some(error) = error.as_ref().filter(|_| !state.made.get()) {
            state.with_extras(|extras| extras.failed = Some(share(error)));
        }
        let (protocol, transport) = (&mut self.protocol, &self.transport);
        host.call("connection_lost", || protocol.connection_lost(transport, error));
        let server = state.server.take();
        for waker in server.map(|server| server.lost(state.key.get())).unwrap_or_default() {
            host.release(|| waker.wake());
        }
        self.wake(host);
        Settled::Over
    }

    fn wake(&self, host: &impl Host) {
        for (_, waker) in self.transport.state.take_waiters() {
            host.release(|| waker.wake());
        }
    }
}
