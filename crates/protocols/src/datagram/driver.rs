//! The loop's end of an endpoint: a source that owns the protocol. All that the protocol is told is told in
//! [`Driver::settle`] and [`Driver::deliver`].

use std::any::Any;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use tulipa_loop::{LoopHandle, MarkTimer, Origin, Source};
use tulipa_selector::{Event, Interest, Registration};

use super::link::Slot;
use super::state::{MOST_FAILURES, Phase, State};
use crate::{DatagramProtocol, DatagramTransport};

/// How many datagrams one event lets a protocol receive, so that one endpoint with busy peers does not keep the others
/// from theirs. What is left is told by the selector again.
const MOST_RECEIVES: usize = 64;

pub(crate) struct Driver<P> {
    pub(crate) transport: DatagramTransport,
    pub(crate) protocol: P,
    /// Whether the protocol was told to pause, and not yet to resume.
    paused: bool,
    registration: Option<Registration>,
    /// When a receiver that is full is tried again.
    retry: Option<(Instant, MarkTimer)>,
}

impl<P: DatagramProtocol + 'static> Driver<P> {
    pub(crate) fn new(transport: DatagramTransport, protocol: P) -> Driver<P> {
        Driver { transport, protocol, paused: false, registration: None, retry: None }
    }

    /// Calls the protocol, and ends the endpoint if that fails. What it sent leaves afterwards.
    fn tell(
        &mut self,
        handle: &LoopHandle,
        method: &'static str,
        call: impl FnOnce(&mut P, &DatagramTransport) -> io::Result<()>,
    ) {
        let (protocol, transport) = (&mut self.protocol, &self.transport);
        let told = handle.call_user(Origin::Protocol(method), None, || call(protocol, transport));
        let state = &*transport.state;
        match told {
            Some(Ok(())) => {
                if state.unflushed.get() {
                    state.flush_queue();
                }
            }
            Some(Err(error)) => state.fail(error),
            None => state.fail(io::Error::other(format!("panic in the protocol's {method}"))),
        }
    }

    /// Lets the protocol receive what there is, up to a limit.
    fn deliver(&mut self, handle: &LoopHandle) {
        for _ in 0..MOST_RECEIVES {
            let state = &*self.transport.state;
            if !state.is_to_be_read() || !state.made.get() {
                return;
            }
            state.progress.set(false);
            self.tell(handle, "datagram_received", |protocol, transport| {
                protocol.readable(transport)
            });
            if !self.transport.state.progress.get() {
                return;
            }
        }
        // The selector tells of the rest.
        self.transport.state.readable.set(false);
    }

    /// Tells what is true and has not been told. `false` if the endpoint is over, and all was let go of.
    fn settle(&mut self, handle: &LoopHandle) -> bool {
        let state = self.transport.state.clone();
        state.attention.set(false);
        if !state.made.replace(true) {
            self.tell(handle, "connection_made", |protocol, transport| {
                protocol.connection_made(transport)
            });
            wake(handle, &state);
        }
        self.look_at_retry(handle);
        state.flush_queue();
        self.tell_failures(handle);
        self.tell_flow(handle);
        state.finish_closing();
        if state.awaited.replace(false) {
            wake(handle, &state);
        }
        if state.phase.get() != Phase::Ended {
            return true;
        }
        self.tell_end(handle);
        self.finish(handle);
        false
    }

    fn tell_failures(&mut self, handle: &LoopHandle) {
        for _ in 0..MOST_FAILURES {
            let state = &*self.transport.state;
            if state.phase.get() == Phase::Ended {
                return;
            }
            let failure = state.failures.borrow_mut().pop_front();
            let Some(error) = failure else { return };
            self.tell(handle, "error_received", |protocol, transport| {
                protocol.error_received(transport, error)
            });
        }
        if !self.transport.state.failures.borrow().is_empty() {
            self.transport.state.attend();
        }
    }

    fn tell_flow(&mut self, handle: &LoopHandle) {
        let state = &*self.transport.state;
        let (size, limits) = (state.queued.get(), state.limits.get());
        if state.phase.get() == Phase::Ended {
            return;
        }
        if !self.paused && size > limits.high {
            self.paused = true;
            self.tell(handle, "pause_writing", |protocol, transport| {
                protocol.pause_writing(transport)
            });
        } else if self.paused && size <= limits.low {
            self.paused = false;
            self.tell(handle, "resume_writing", |protocol, transport| {
                protocol.resume_writing(transport)
            });
        }
    }

    fn tell_end(&mut self, handle: &LoopHandle) {
        let state = self.transport.state.clone();
        if state.lost.replace(true) {
            return;
        }
        // Two of them are ours.
        if Rc::strong_count(&state) > 2 {
            state.remember_addresses();
        }
        let error = state.error.take();
        let (protocol, transport) = (&mut self.protocol, &self.transport);
        handle.call_user(Origin::Protocol("connection_lost"), None, || {
            protocol.connection_lost(transport, error);
        });
        wake(handle, &state);
    }

    /// The protocol knows that it is over: lets go of everything, the registration first.
    fn finish(&mut self, handle: &LoopHandle) {
        let state = self.transport.state.clone();
        if let Some((_, timer)) = self.retry.take() {
            handle.cancel_mark(timer);
        }
        drop(self.registration.take());
        if let Some(number) = state.descriptor() {
            state.leaf.wires.end_claim(number);
        }
        state.clear_queue();
        let link = state.link.replace(Slot::Gone);
        if let Slot::Any(link) = link {
            handle.release(|| drop(link));
        }
        if let Some(file) = state.fixed.file.take() {
            file.remove();
        }
        state.failures.take();
        handle.remove_source(state.key.get());
    }

    /// Whether a receiver that is full is to be tried now, or when.
    fn look_at_retry(&mut self, handle: &LoopHandle) {
        let state = &*self.transport.state;
        if self.retry.is_some_and(|(when, _)| when <= handle.time()) {
            self.retry = None;
            state.retry.set(None);
            state.blocked.set(false);
        }
    }

    fn arm(&mut self, handle: &LoopHandle, state: &State) {
        let Some(pause) = state.retry.get().filter(|_| self.retry.is_none()) else { return };
        // A clock that ends before that tries again at once.
        let now = handle.time();
        let when = now.checked_add(pause).unwrap_or(now);
        self.retry = Some((when, handle.mark_at(state.key.get(), when)));
    }

    /// Asks the selector for what is wanted now.
    fn apply_interest(&mut self, handle: &LoopHandle, state: &State) {
        let wanted = state.interest();
        if wanted == state.watched.get() {
            return;
        }
        let applied = match &self.registration {
            Some(registration) => registration.set_interest(wanted),
            None => self.register(handle, state, wanted),
        };
        match applied {
            Ok(()) => state.watched.set(wanted),
            Err(error) => {
                state.watched.set(Interest::NONE);
                state.fail(error);
            }
        }
    }

    fn register(&mut self, handle: &LoopHandle, state: &State, wanted: Interest) -> io::Result<()> {
        let source = state.with_link(|link| match link {
            Slot::Socket(socket) => Some(socket.source()),
            Slot::Any(link) => Some(link.source()),
            Slot::Out | Slot::Gone => None,
        });
        let Some(source) = source.flatten() else { return Ok(()) };
        let key = state.key.get().to_bits();
        self.registration = Some(handle.selector().register(source, wanted, key)?);
        Ok(())
    }
}

fn wake(handle: &LoopHandle, state: &State) {
    for (_, waker) in state.take_waiters() {
        handle.release(|| waker.wake());
    }
}

impl<P: DatagramProtocol + 'static> Source for Driver<P> {
    fn ready(&mut self, handle: &LoopHandle, event: &Event) {
        let state = self.transport.state.clone();
        state.dispatching.set(true);
        if event.is_writable() && state.retry.get().is_none() {
            state.blocked.set(false);
            state.flush_queue();
        }
        // Known already, or nobody wants to know: the selector is not to tell it again.
        let mut unwanted = event.is_readable();
        if unwanted && state.phase.get() == Phase::Open {
            unwanted = state.readable.replace(true);
            if !unwanted {
                self.deliver(handle);
            }
        }
        if state.attention.get() && !self.settle(handle) {
            return;
        }
        state.dispatching.set(false);
        let timer_due = state.retry.get().is_some() && self.retry.is_none();
        if state.attention.get() || unwanted || timer_due || state.is_interest_due() {
            state.mark();
        }
    }

    fn attend(&mut self, handle: &LoopHandle) {
        let state = self.transport.state.clone();
        state.dispatching.set(true);
        if !self.settle(handle) {
            return;
        }
        self.deliver(handle);
        if state.attention.get() && !self.settle(handle) {
            return;
        }
        self.apply_interest(handle, &state);
        self.arm(handle, &state);
        state.dispatching.set(false);
        if state.attention.get() {
            state.mark();
        }
    }

    fn closing(&mut self, handle: &LoopHandle) {
        let state = self.transport.state.clone();
        state.dispatching.set(true);
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the event loop was closed");
        state.fail(error);
        self.settle(handle);
    }

    fn as_any(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}
