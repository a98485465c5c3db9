//! The loop's end of a connection: a source that owns the protocol.
//!
//! It is out of its slot while it is called, so the protocol is `&mut` with nothing borrowed, and a
//! protocol that reaches for itself through the loop finds it busy. Interests go to the selector at the
//! start of a turn, never in the middle of one: what is read in the same turn changes nothing.

use std::any::Any;
use std::io;
use std::time::Instant;

use tulipa_loop::{LoopHandle, Origin, Source};
use tulipa_selector::{Event, Interest, Registration};

use crate::state::{Input, Output, Phase, Slot, State};
use crate::talk::{Clock, Host, Settled, Talk, Told};
use crate::{Protocol, Transport};

impl Host for LoopHandle {
    #[inline]
    fn call<R>(&self, method: &'static str, code: impl FnOnce() -> R) -> Option<R> {
        self.call_user(Origin::Protocol(method), None, code)
    }

    fn release(&self, code: impl FnOnce()) {
        LoopHandle::release(self, code);
    }

    fn now(&self) -> Instant {
        self.time()
    }
}

pub(crate) struct Driver<P> {
    pub(crate) talk: Talk<P>,
    registration: Option<Registration>,
}

impl<P: Protocol + 'static> Driver<P> {
    pub(crate) fn new(transport: Transport, protocol: P) -> Driver<P> {
        Driver { talk: Talk::new(transport, protocol), registration: None }
    }

    /// Settles, and does what follows from it. `false` if there is nothing more to do here.
    fn settle(&mut self, handle: &LoopHandle) -> bool {
        match self.talk.settle(handle) {
            Settled::Alive => true,
            Settled::Replaced => {
                self.replace(handle);
                false
            }
            Settled::Over => {
                self.finish(handle);
                false
            }
        }
    }

    fn replace(&mut self, handle: &LoopHandle) {
        let state = self.talk.transport.state.clone();
        let Some(next) = self.successor() else { return };
        // It cannot fail: this driver is being called, so its slot is there and empty.
        let _ = handle.replace_source(state.key.get(), next);
        state.dispatching.set(false);
        state.mark();
    }

    /// The driver of the protocol that waits to take over, with all that this one had.
    fn successor(&mut self) -> Option<Box<dyn Source>> {
        let transport = self.talk.transport.clone();
        let successor = transport.state.extras(|extras| extras.successor.take())?;
        let (told, registration) = (std::mem::take(&mut self.talk.told), self.registration.take());
        Some(successor.into_source(Parts { transport, told, registration }))
    }

    /// The protocol knows that it is over: lets go of everything, the registration first.
    fn finish(&mut self, handle: &LoopHandle) {
        let state = self.talk.transport.state.clone();
        let clock = self.talk.told.clock.take();
        if let Some((_, timer)) = clock.and_then(|clock| clock.timer) {
            handle.cancel_mark(timer);
        }
        drop(self.registration.take());
        state.end_claim();
        state.clear_queue();
        let link = state.take_link();
        let successor = state.extras(|extras| extras.successor.take());
        let discarded = state.leaf.take_discarded();
        if let Slot::Any(link) = link {
            handle.release(|| drop(link));
        }
        handle.release(|| drop(successor));
        for bytes in discarded {
            handle.release(|| drop(bytes));
        }
        handle.remove_source(state.key.get());
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
        let Some(source) = state.with_link(|link| link.source()) else { return Ok(()) };
        if source.is_none() {
            return Ok(());
        }
        let key = state.key.get().to_bits();
        self.registration = Some(handle.selector().register(source, wanted, key)?);
        Ok(())
    }

    /// Sets a timer for the deadline, or for when a pace lets bytes go again, unless there is one that comes early
    /// enough.
    fn arm(&mut self, handle: &LoopHandle, state: &State) {
        let paced = state.paced_until(|| handle.time());
        if paced.is_some() {
            self.talk.told.clock.get_or_insert_default();
        }
        let Some(clock) = &mut self.talk.told.clock else { return };
        let Clock { deadline, timer } = &mut **clock;
        let now = handle.time();
        if timer.is_some_and(|(when, _)| when <= now) {
            *timer = None;
        }
        let Some(deadline) = deadline.iter().copied().chain(paced).min() else { return };
        if timer.is_some_and(|(when, _)| when <= deadline) {
            return;
        }
        let set = handle.mark_at(state.key.get(), deadline);
        if let Some((_, later)) = timer.replace((deadline, set)) {
            handle.cancel_mark(later);
        }
    }

    /// The end of a call: what is still to be settled, or to be asked of the selector, waits for the next
    /// turn; so does the end of events that were `unwanted`.
    #[inline(never)]
    fn leave(&mut self, handle: &LoopHandle, state: &State, unwanted: bool) {
        if state.wants_attention() && !self.settle(handle) {
            return;
        }
        if self.talk.told.clock.as_ref().is_some_and(|clock| clock.is_unset()) {
            self.arm(handle, state);
        }
        state.dispatching.set(false);
        let again = state.again.replace(false);
        if state.wants_attention() || again || unwanted || state.is_interest_due() {
            return state.mark();
        }
        state.look_whether_plain();
    }
}

impl<P: Protocol + 'static> Source for Driver<P> {
    /// What most events are: a plain connection has input. It is told, and nothing follows from that.
    fn ready(&mut self, handle: &LoopHandle, event: &Event) {
        let state = &*self.talk.transport.state;
        if !state.is_plain() || state.readable.get() || event.ready() != Interest::READABLE {
            return self.ready_for_any(handle, event);
        }
        state.dispatching.set(true);
        state.readable.set(true);
        if self.talk.deliver_once(handle) && self.talk.transport.state.readable.get() {
            self.talk.deliver(handle, 1);
        }
        let state = &*self.talk.transport.state;
        if state.is_plain() {
            state.dispatching.set(false);
        } else {
            let transport = self.talk.transport.clone();
            self.leave(handle, &transport.state, false);
        }
    }

    fn attend(&mut self, handle: &LoopHandle) {
        let transport = self.talk.transport.clone();
        let state = &*transport.state;
        state.dispatching.set(true);
        if !self.settle(handle) {
            return;
        }
        self.talk.deliver(handle, 0);
        if state.wants_attention() && !self.settle(handle) {
            return;
        }
        self.apply_interest(handle, state);
        self.arm(handle, state);
        state.dispatching.set(false);
        if state.again.replace(false) || state.wants_attention() {
            return state.mark();
        }
        state.look_whether_plain();
    }

    fn closing(&mut self, handle: &LoopHandle) {
        let state = self.talk.transport.state.clone();
        state.dispatching.set(true);
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the event loop was closed");
        state.fail(error);
        if self.talk.settle(handle) != Settled::Replaced {
            return self.finish(handle);
        }
        // A protocol that was replaced just now hands the end on. A chain of such is as long as the
        // program makes it, each link by a call of its own.
        if let Some(mut next) = self.successor() {
            next.closing(handle);
        }
    }

    fn as_any(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}

impl<P: Protocol + 'static> Driver<P> {
    #[inline(never)]
    fn ready_for_any(&mut self, handle: &LoopHandle, event: &Event) {
        let transport = self.talk.transport.clone();
        let state = &*transport.state;
        state.dispatching.set(true);
        if state.wants_attention() && !self.settle(handle) {
            return;
        }
        if event.is_writable() {
            state.blocked.set(false);
            state.flush();
            if state.phase() == Phase::Closing || state.output.get() == Output::Ending {
                state.attend();
            }
        }
        let mut unwanted = false;
        match state.phase() {
            Phase::Opening => state.attend(),
            Phase::Open | Phase::Closing
                if event.is_readable() && state.input.get() == Input::Watched =>
            {
                state.look_for_reader();
            }
            Phase::Open | Phase::Broken if event.is_readable() => {
                // Known already, or nobody wants to know: the selector is not to tell it again.
                unwanted = state.input.get() != Input::Flowing || state.readable.replace(true);
                if !unwanted {
                    self.talk.deliver(handle, 0);
                }
            }
            // Nobody reads any more, so the selector would tell it for ever.
            _ => unwanted = event.is_readable(),
        }
        self.leave(handle, state, unwanted);
    }
}

/// What a protocol takes over from the one before it.
pub(crate) struct Parts {
    transport: Transport,
    told: Told,
    registration: Option<Registration>,
}

/// A protocol that waits to take the place of another.
pub(crate) trait Successor {
    fn into_source(self: Box<Self>, parts: Parts) -> Box<dyn Source>;

    /// The same without a loop.
    fn into_talk(
        self: Box<Self>,
        transport: Transport,
        told: Told,
    ) -> Box<dyn crate::detached::AnyTalk>;
}

struct Next<P>(P);

pub(crate) fn successor<P: Protocol + 'static>(protocol: P) -> Box<dyn Successor> {
    Box::new(Next(protocol))
}

impl<P: Protocol + 'static> Successor for Next<P> {
    fn into_source(self: Box<Self>, parts: Parts) -> Box<dyn Source> {
        let Parts { transport, told, registration } = parts;
        Box::new(Driver { talk: Talk { transport, protocol: self.0, told }, registration })
    }

    fn into_talk(
        self: Box<Self>,
        transport: Transport,
        told: Told,
    ) -> Box<dyn crate::detached::AnyTalk> {
        Box::new(Talk { transport, protocol: self.0, told })
    }
}
