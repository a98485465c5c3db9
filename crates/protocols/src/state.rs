//! The state of a connection, which its transport and its driver share.
//!
//! The problem: the program may call any method of any transport from anywhere, the middle of a
//! callback of the same connection included, and nothing may be told twice, lost, or told in the wrong order.
//!
//! The trick: methods only change what is true here, and make at most one attempt at reading or writing.
//! None calls the program's code. What has to be told is found out by the driver, which compares what is
//! true with what it has told (`talk`). Methods that change what may have to be told ask for its
//! [`attention`](State::attend).
//!
//! Nothing here is borrowed for longer than one operation on it; a link that may run the program's code
//! is taken out while it does. What the program's destructors are part of is left for the driver to drop.
//!
//! | phase | what is true | next |
//! |---|---|---|
//! | `Opening` | the link shakes hands; writes are queued | `Open`; `Ended` by a failure, `close` or `abort` |
//! | `Open` | bytes flow | `Closing` by `close`; `Broken` when a write fails; `Ended` by any other failure or `abort`; `Opening` by `upgrade` |
//! | `Closing` | nothing is read or accepted; what is queued goes out | `Ended` when it has, by a failure, or by `abort` |
//! | `Broken` | nothing is accepted or goes out; what has come is still delivered | `Ended` when it is |
//! | `Ended` | the link does nothing any more; the driver tells, and drops it | |
//!
//! | input | what is true | next |
//! |---|---|---|
//! | `Flowing` | what comes is read | `Paused` by `pause_reading`; `Ended` when 0 bytes were read |
//! | `Paused` | nothing is read unasked | `Flowing` by `resume_reading` |
//! | `Ended` | the peer has ended its side | |
//!
//! | output | what is true | next |
//! |---|---|---|
//! | `Flowing` | writes are accepted | `Ending` by `write_eof` |
//! | `Ending` | they are not; the end follows what is queued | `Ended` |
//! | `Ended` | the peer has been told | |

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tulipa_selector::{Interest, Token};

use crate::driver::Successor;
use crate::filter::{Filter, Filtered};
use crate::leaf::Leaf;
use crate::link::SocketLink;
use crate::write_queue::{MOST_PIECES, WriteQueue};
use crate::{Address, Flow, Link};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Open,
    Closing,
    Broken,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Flowing,
    Paused,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Flowing,
    Ending,
    Ended,
}

/// The limits of the write queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBufferLimits {
    /// At this size or below writing is resumed.
    pub low: usize,
    /// Above this size it is paused.
    pub high: usize,
}

/// asyncio's: 64 KiB, and a quarter of it.
pub(crate) const LIMITS: WriteBufferLimits = WriteBufferLimits { low: 16 * 1024, high: 64 * 1024 };

/// A write of this size or more on an empty queue goes to the link at once: copying it would cost as much
/// as the system call that gathering may save.
const LARGE: usize = 16 * 1024;

/// How many writes one flush makes: a link that always takes everything must not keep the loop.
const MOST_WRITES: usize = 16;

/// The one who is told of changes: a server that counts its connections.
pub(crate) trait Owner {
    /// The connection has ended and its protocol was told. Gives back whom to wake.
    fn lost(&self, key: Token) -> Vec<Waker>;
}

/// Where the link is.
pub(crate) enum Slot {
    /// A socket, whose operations call nothing of the program's.
    Socket(SocketLink),
    /// Any other.
    Any(Box<dyn Link>),
    /// At work, further up the stack.
    Out,
    Gone,
}

pub(crate) struct State {
    pub(crate) leaf: Rc<Leaf>,
    pub(crate) key: Cell<Token>,
    link: RefCell<Slot>,
    queue: RefCell<Option<Box<WriteQueue>>>,
    error: Cell<Option<io::Error>>,
    limits: Cell<WriteBufferLimits>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) input: Cell<Input>,
    pub(crate) output: Cell<Output>,
    /// Whether the link was ever open, so that the program is to hear of it.
    pub(crate) opened: Cell<bool>,
    /// Whether the program has heard of it.
    pub(crate) made: Cell<bool>,
    /// Whether it has heard of the end.
    pub(crate) lost: Cell<bool>,
    /// Whether there is something to read, as far as is known without asking the operating system.
    pub(crate) readable: Cell<bool>,
    /// Whether anything was read since the driver last looked.
    pub(crate) progress: Cell<bool>,
    /// Whether the driver is to settle.
    attention: Cell<bool>,
    /// Whether the driver is being called and settles anyway.
    pub(crate) dispatching: Cell<bool>,
    /// Whether a flush was asked for.
    unflushed: Cell<bool>,
    /// Whether the link takes nothing until its source is writable.
    pub(crate) blocked: Cell<bool>,
    /// What the selector was asked for.
    pub(crate) watched: Cell<Interest>,
    pub(crate) owner: RefCell<Option<Rc<dyn Owner>>>,
    extras: RefCell<Option<Box<Extras>>>,
}

/// What most connections have not.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) peer: Option<Address>,
    pub(crate) local: Option<Address>,
    /// A `set_timeout` that the driver has not seen.
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) successor: Option<Box<dyn Successor>>,
    /// What was read and not used, to be delivered before anything else.
    unread: Vec<u8>,
    /// The queue may not grow beyond this.
    cap: Option<usize>,
    /// Who waits for the beginning or the end.
    pub(crate) waiters: Waiters,
    /// Why the connection never came to be, for whoever asked for it.
    pub(crate) failed: Option<io::Error>,
}

/// Wakers by number.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Vec<(u64, Waker)>,
    next: u64,
}

impl Waiters {
    /// Sets the waker of a number, or of a new one; gives back the one it had.
    pub(crate) fn set(&mut self, id: Option<u64>, waker: Waker) -> (u64, Option<Waker>) {
        let known = self.wakers.iter_mut().find(|(known, _)| Some(*known) == id);
        if let Some((id, old)) = known {
            return (*id, Some(mem::replace(old, waker)));
        }
        let id = self.next;
        self.next += 1;
        self.wakers.push((id, waker));
        (id, None)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Waker> {
        let place = self.wakers.iter().position(|(known, _)| *known == id)?;
        Some(self.wakers.swap_remove(place).1)
    }

    pub(crate) fn take(&mut self) -> Vec<(u64, Waker)> {
        mem::take(&mut self.wakers)
    }
}

impl State {
    pub(crate) fn new(leaf: Rc<Leaf>, link: Slot) -> State {
        let phase = if matches!(link, Slot::Socket(_)) { Phase::Open } else { Phase::Opening };
        State {
            leaf,
            key: Cell::new(Token::from_bits(u64::MAX)),
            link: RefCell::new(link),
            queue: RefCell::default(),
            error: Cell::default(),
            limits: Cell::new(LIMITS),
            phase: Cell::new(phase),
            input: Cell::new(Input::Flowing),
            output: Cell::new(Output::Flowing),
            opened: Cell::new(phase == Phase::Open),
            made: Cell::new(false),
            lost: Cell::new(false),
            readable: Cell::new(false),
            progress: Cell::new(false),
            attention: Cell::new(false),
            dispatching: Cell::new(false),
            unflushed: Cell::new(false),
            blocked: Cell::new(false),
            watched: Cell::new(Interest::NONE),
            owner: RefCell::default(),
            extras: RefCell::default(),
        }
    }

    /// Asks the driver to settle: at the end of the call at hand, or at the start of the next turn.
    pub(crate) fn attend(&self) {
        if !self.attention.replace(true) && !self.dispatching.get() {
            self.leaf.wires.mark(self.key.get());
        }
    }

    pub(crate) fn take_attention(&self) -> bool {
        self.attention.replace(false)
    }

    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.get() || self.leaf.has_discarded()
    }

    /// Asks for a mark although attention was asked for before, when the driver's call was too early for it.
    pub(crate) fn mark(&self) {
        self.attention.set(true);
        self.leaf.wires.mark(self.key.get());
    }

    pub(crate) fn with_extras<R>(&self, change: impl FnOnce(&mut Extras) -> R) -> R {
        change(self.extras.borrow_mut().get_or_insert_default())
    }

    pub(crate) fn extras<R: Default>(&self, look: impl FnOnce(&mut Extras) -> R) -> R {
        self.extras.borrow_mut().as_mut().map(|extras| look(extras)).unwrap_or_default()
    }

    /// Does something with the link, with nothing borrowed if it may run the program's code. `None` if
    /// it is at work further up the stack, or gone.
    #[inline]
    pub(crate) fn with_link<R>(&self, work: impl FnOnce(&mut dyn Link) -> R) -> Option<R> {
        let mut slot = self.link.borrow_mut();
        if let Slot::Socket(link) = &mut *slot {
            return Some(work(link));
        }
        drop(slot);
        self.with_any_link(work)
    }

    #[inline(never)]
    fn with_any_link<R>(&self, work: impl FnOnce(&mut dyn Link) -> R) -> Option<R> {
        let slot = mem::replace(&mut *self.link.borrow_mut(), Slot::Out);
        let Slot::Any(mut link) = slot else {
            let out = self.link.replace(slot);
            drop(out);
            return None;
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut *link)));
        self.link.replace(Slot::Any(link));
        match result {
            Ok(result) => Some(result),
            Err(payload) => {
                self.fail(io::Error::other(format!("panic in a link: {}", panic_text(&*payload))));
                // It may panic again when it is dropped.
                mem::forget(payload);
                None
            }
        }
    }

    /// Takes the link, for the driver to drop.
    pub(crate) fn take_link(&self) -> Slot {
        self.link.replace(Slot::Gone)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether another protocol waits to take over.
    pub(crate) fn has_successor(&self) -> bool {
        let extras = self.extras.borrow();
        extras.as_ref().is_some_and(|extras| extras.successor.is_some())
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.error.take()
    }

    /// Ends the connection: with an error, or as the program asked. The first error counts.
    pub(crate) fn end(&self, error: Option<io::Error>) {
        let before = self.phase.replace(Phase::Ended);
        let known = self.error.take();
        // A later error counts only if there was none, as when a protocol aborts and then fails.
        self.error.set(known.or(error));
        if before != Phase::Ended {
            self.attend();
        }
    }

    pub(crate) fn fail(&self, error: io::Error) {
        self.end(Some(error));
    }

    /// What the selector is to be asked for.
    pub(crate) fn interest(&self) -> Interest {
        let (mut read, mut write) = (false, false);
        match self.phase.get() {
            Phase::Ended => {}
            Phase::Opening => {
                read = true;
                write = self.held_back() > 0;
            }
            phase => {
                let known = self.readable.get();
                read = phase != Phase::Closing && self.input.get() == Input::Flowing && !known;
                write = phase != Phase::Broken && self.has_output();
            }
        }
        let read = if read { Interest::READABLE } else { Interest::NONE };
        if write { read | Interest::WRITABLE } else { read }
    }
}

/// Input.
impl State {
    /// Whether the driver is to call the protocol to read.
    pub(crate) fn is_to_be_read(&self) -> bool {
        self.readable.get()
            && self.input.get() == Input::Flowing
            && matches!(self.phase.get(), Phase::Open | Phase::Broken)
    }

    /// Whether there is input that no event tells of.
    pub(crate) fn has_input(&self) -> bool {
        let unread = self.extras(|extras| !extras.unread.is_empty());
        let socket = matches!(&*self.link.borrow(), Slot::Socket(_));
        unread || (!socket && self.with_link(|link| link.has_input()).unwrap_or(false))
    }

    /// Puts bytes before all that is still to be read.
    pub(crate) fn unread(&self, leftover: &[u8]) {
        if !leftover.is_empty() {
            self.with_extras(|extras| {
                extras.unread.splice(0..0, leftover.iter().copied());
            });
            if self.input.get() == Input::Ended {
                // The link says again that it has ended.
                self.input.set(Input::Flowing);
            }
            self.readable.set(true);
            self.attend();
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.phase.get() {
            Phase::Open | Phase::Broken => {}
            Phase::Opening => return Err(io::ErrorKind::WouldBlock.into()),
            Phase::Closing | Phase::Ended => return Err(closed("read")),
        }
        if buffer.is_empty() || self.input.get() == Input::Ended {
            return Ok(0);
        }
        if !self.readable.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = self.read_into(buffer);
        if !self.dispatching.get() && self.interest() != self.watched.get() {
            self.attend();
        }
        result
    }

    fn read_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.take_unread(buffer);
        if count > 0 {
            self.progress.set(true);
            return Ok(count);
        }
        let Some(read) = self.with_link(|link| link.read(buffer)) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        match read {
            Ok(0) => {
                self.input.set(Input::Ended);
                self.readable.set(false);
                self.attend();
                Ok(0)
            }
            Ok(count) => {
                self.progress.set(true);
                // A socket that gives less than it could has no more.
                if count < buffer.len() && !self.has_input() {
                    self.readable.set(false);
                }
                self.want_flush();
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable.set(false);
                self.want_flush();
                Err(error)
            }
            Err(error) => {
                self.readable.set(false);
                let copy = share(&error);
                self.fail(error);
                Err(copy)
            }
        }
    }

    fn take_unread(&self, buffer: &mut [u8]) -> usize {
        if self.extras.borrow().is_none() {
            return 0;
        }
        self.extras(|extras| {
            let count = extras.unread.len().min(buffer.len());
            buffer[..count].copy_from_slice(&extras.unread[..count]);
            extras.unread.drain(..count);
            if extras.unread.is_empty() {
                extras.unread = Vec::new();
            }
            count
        })
    }

    /// A filter that was only read from may have answers to send.
    fn want_flush(&self) {
        let socket = matches!(&*self.link.borrow(), Slot::Socket(_));
        if !socket && self.held_back() > 0 && !self.watched.get().is_writable() {
            self.attend();
        }
    }
}

/// Output.
impl State {
    pub(crate) fn limits(&self) -> WriteBufferLimits {
        self.limits.get()
    }

    pub(crate) fn set_limits(&self, limits: WriteBufferLimits) {
        self.limits.set(limits);
        self.attend();
    }

    pub(crate) fn set_cap(&self, cap: Option<usize>) {
        self.with_extras(|extras| extras.cap = cap);
    }

    /// What waits to be written, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        if matches!(self.phase.get(), Phase::Ended | Phase::Broken) {
            return 0;
        }
        let queued = self.queue.borrow().as_ref().map_or(0, |queue| queue.size());
        queued + self.held_back()
    }

    fn held_back(&self) -> usize {
        match &*self.link.borrow() {
            Slot::Any(_) => {}
            _ => return 0,
        }
        self.with_link(|link| link.held_back()).unwrap_or(0)
    }

    fn has_output(&self) -> bool {
        self.queue.borrow().is_some() || self.held_back() > 0
    }

    fn flow(&self) -> Flow {
        if self.buffered() > self.limits.get().high { Flow::Full } else { Flow::Ready }
    }

    fn accepts_writes(&self) -> bool {
        matches!(self.phase.get(), Phase::Opening | Phase::Open)
            && self.output.get() == Output::Flowing
    }

    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> Flow {
        if !self.accepts_writes() {
            return Flow::Closed;
        }
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if total == 0 {
            return self.flow();
        }
        let mut written = 0;
        if total >= LARGE && self.phase.get() == Phase::Open && !self.has_output() {
            match self.write_now(pieces, total) {
                Some(count) => written = count,
                None => return Flow::Closed,
            }
            self.blocked.set(written < total);
        }
        if written < total {
            self.append(|queue, leaf| {
                let mut skip = written;
                for piece in pieces {
                    let skipped = skip.min(piece.len());
                    skip -= skipped;
                    queue.append(&piece[skipped..], leaf);
                }
            });
        }
        self.after_write()
    }

    pub(crate) fn write_bytes(&self, mut data: Bytes) -> Flow {
        if !self.accepts_writes() {
            self.discard(data);
            return Flow::Closed;
        }
        let total = data.len();
        if total >= LARGE && self.phase.get() == Phase::Open && !self.has_output() {
            let Some(count) = self.write_now(&[IoSlice::new(&data)], total) else {
                self.discard(data);
                return Flow::Closed;
            };
            self.blocked.set(count < total);
            let written = data.split_to(count);
            self.discard(written);
        }
        if data.is_empty() {
            self.discard(data);
            return self.flow();
        }
        self.append(|queue, leaf| queue.append_bytes(data, leaf));
        self.after_write()
    }

    fn discard(&self, data: Bytes) {
        self.leaf.discard(data);
        self.attend();
    }

    /// The one way into the queue.
    fn append(&self, put: impl FnOnce(&mut WriteQueue, &Leaf)) {
        let mut queue = self.queue.borrow_mut();
        put(queue.get_or_insert_with(|| self.leaf.take_queue()), &self.leaf);
    }

    /// One attempt to write to the link, the queue being empty. `None` if writing has failed.
    fn write_now(&self, pieces: &[IoSlice<'_>], total: usize) -> Option<usize> {
        let mut rest = pieces;
        let mut few = [IoSlice::new(&[]); MOST_PIECES];
        if pieces.len() > MOST_PIECES {
            // The rest comes by the queue. Empty ones alone would look like a write that failed.
            let full = pieces.iter().filter(|piece| !piece.is_empty());
            let count = few.iter_mut().zip(full).map(|(place, piece)| *place = *piece).count();
            rest = &few[..count];
        }
        match self.with_link(|link| link.write(rest)) {
            None => (self.phase.get() == Phase::Open).then_some(0),
            Some(Ok(0)) => self.broken(io::ErrorKind::WriteZero.into()),
            Some(Ok(count)) => {
                debug_assert!(count <= total, "no more can be written than is there");
                Some(count.min(total))
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Some(Err(error)) => self.broken(error),
        }
    }

    fn after_write(&self) -> Flow {
        let size = self.buffered();
        let over = |cap: usize| size > cap;
        if self.extras.borrow().as_ref().and_then(|extras| extras.cap).is_some_and(over) {
            let error =
                format!("{size} bytes wait to be written, more than the connection may keep");
            self.fail(io::Error::other(error));
            return Flow::Closed;
        }
        if size > self.limits.get().high {
            self.flush();
            if !self.accepts_writes() {
                return Flow::Closed;
            }
            if self.flow() == Flow::Full {
                self.attend();
                return Flow::Full;
            }
        } else if self.blocked.get() {
            if !self.watched.get().is_writable() {
                self.attend();
            }
        } else if size > 0 && !self.unflushed.replace(true) && !self.dispatching.get() {
            self.leaf.wires.mark_flush(self.key.get());
        }
        Flow::Ready
    }

    /// Flushes if that was asked for.
    #[inline]
    pub(crate) fn flush_if_asked(&self) {
        if self.unflushed.get() {
            self.flush();
        }
    }

    /// The one way out of the queue: writes what the link takes.
    pub(crate) fn flush(&self) {
        self.unflushed.set(false);
        if self.blocked.get() || !matches!(self.phase.get(), Phase::Open | Phase::Closing) {
            return;
        }
        let before = self.buffered();
        // Out of its cell: what a link's code writes meanwhile comes behind it.
        let queue = self.queue.borrow_mut().take();
        let (queue, result) = match queue {
            Some(queue) => self.flush_queue(queue),
            None => (None, Ok(())),
        };
        let left = queue.is_some();
        self.put_back(queue);
        let result = result.and_then(|()| self.flush_link());
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked.set(true),
            Err(error) => {
                let _ = self.broken::<()>(error);
            }
            Ok(()) => {}
        }
        let ending = self.phase.get() == Phase::Closing || self.output.get() == Output::Ending;
        let told = before > 0 && (!left && ending || self.passed_low(before));
        // A driver that is being called looks at the interest itself.
        let unwatched = !self.dispatching.get() && self.interest() != self.watched.get();
        let discarded = !self.dispatching.get() && self.leaf.has_discarded();
        if told || (left && !self.blocked.get()) || unwatched || discarded {
            self.attend();
        }
    }

    /// Whether a flush of what was so large has brought it down to the low limit.
    fn passed_low(&self, before: usize) -> bool {
        let low = self.limits.get().low;
        before > low && self.buffered() <= low
    }

    fn flush_queue(&self, mut queue: Box<WriteQueue>) -> (Option<Box<WriteQueue>>, io::Result<()>) {
        for _ in 0..MOST_WRITES {
            let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
            let (count, bytes) = queue.pieces(&mut pieces);
            let written = match self.with_link(|link| link.write(&pieces[..count])) {
                None => return (Some(queue), Ok(())),
                Some(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Some(written) => written,
            };
            match written {
                Ok(written) => {
                    queue.advance(written, &self.leaf);
                    if queue.size() == 0 {
                        self.leaf.give_queue(queue);
                        return (None, Ok(()));
                    }
                    if written < bytes {
                        self.blocked.set(true);
                        break;
                    }
                }
                Err(error) => return (Some(queue), Err(error)),
            }
        }
        (Some(queue), Ok(()))
    }

    /// Puts back what was not written, in front of what was added meanwhile.
    fn put_back(&self, queue: Option<Box<WriteQueue>>) {
        let Some(mut queue) = queue else { return };
        let mut slot = self.queue.borrow_mut();
        if let Some(newer) = slot.take() {
            queue.append_queue(*newer, &self.leaf);
        }
        *slot = Some(queue);
    }

    fn flush_link(&self) -> io::Result<()> {
        if matches!(&*self.link.borrow(), Slot::Socket(_)) {
            return Ok(());
        }
        self.with_link(|link| link.flush()).unwrap_or(Ok(()))
    }

    /// Writing has failed. What has come is still delivered, then the connection ends with the error.
    fn broken<T>(&self, error: io::Error) -> Option<T> {
        match self.phase.get() {
            Phase::Open => {
                self.phase.set(Phase::Broken);
                self.error.set(Some(error));
                if self.input.get() == Input::Flowing {
                    self.readable.set(true);
                }
                self.attend();
            }
            _ => self.fail(error),
        }
        None
    }

    /// Gives the queue's memory back; called by the driver at the end.
    pub(crate) fn clear_queue(&self) {
        let queue = self.queue.borrow_mut().take();
        if let Some(queue) = queue {
            self.leaf.give_queue(queue);
        }
    }

    pub(crate) fn write_eof(&self) {
        if self.accepts_writes() {
            self.output.set(Output::Ending);
            self.attend();
        }
    }

    pub(crate) fn close(&self) {
        match self.phase.get() {
            Phase::Opening if self.buffered() > 0 => {
                let error = "closed during the handshake, before what was written could be sent";
                self.fail(io::Error::new(io::ErrorKind::ConnectionAborted, error));
            }
            Phase::Opening => self.end(None),
            Phase::Open => {
                self.phase.set(Phase::Closing);
                self.attend();
            }
            // Who closes wants no more data either.
            Phase::Broken => self.end(None),
            Phase::Closing | Phase::Ended => {}
        }
    }

    pub(crate) fn reset(&self) {
        if self.phase.get() != Phase::Ended {
            self.with_link(|link| link.reset());
            self.end(None);
        }
    }
}

/// What the driver does before it tells anything.
impl State {
    /// Goes on with everything that needs no telling: a handshake, the queue, the end of the output, the
    /// end of the connection.
    pub(crate) fn advance(&self) {
        if self.phase.get() == Phase::Opening {
            self.open();
        }
        if matches!(self.phase.get(), Phase::Open | Phase::Closing) {
            self.flush();
            self.finish_output();
        }
    }

    fn open(&self) {
        match self.with_link(|link| link.open()) {
            Some(Ok(())) => {
                self.phase.set(Phase::Open);
                self.opened.set(true);
                if self.has_input() {
                    self.readable.set(true);
                }
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    fn finish_output(&self) {
        if self.queue.borrow().is_some() {
            return;
        }
        match self.phase.get() {
            Phase::Open if self.output.get() == Output::Ending => {
                self.output.set(Output::Ended);
                if let Some(Err(error)) = self.with_link(|link| link.shutdown()) {
                    // The peer was faster: whoever reads or writes will hear of it.
                    if error.kind() != io::ErrorKind::NotConnected {
                        let _ = self.broken::<()>(error);
                    }
                }
            }
            Phase::Closing => self.say_goodbye(),
            _ => {}
        }
    }

    /// Ends the connection if both sides have ended, which the protocol knows of its peer's.
    pub(crate) fn end_if_both_have(&self) {
        let both = self.input.get() == Input::Ended && self.output.get() == Output::Ended;
        if both && self.phase.get() == Phase::Open && self.held_back() == 0 {
            self.end(None);
        }
    }

    /// All is written. A link with a goodbye of its own says it, and that has to be sent too.
    fn say_goodbye(&self) {
        if matches!(&*self.link.borrow(), Slot::Socket(_)) {
            return self.end(None);
        }
        if self.output.get() != Output::Ended {
            match self.with_link(|link| link.flush()) {
                Some(Ok(())) => {}
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                Some(Err(error)) => return self.fail(error),
                None => return,
            }
            self.output.set(Output::Ended);
            self.with_link(|link| link.close());
        }
        match self.with_link(|link| link.flush()) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A peer that is gone misses a goodbye, and nothing of the program's.
            Some(_) => self.end(None),
            None => {}
        }
    }

    /// Puts a filter in front of the link.
    pub(crate) fn upgrade(&self, filter: Box<dyn Filter>, leftover: &[u8]) -> io::Result<()> {
        if self.phase.get() != Phase::Open || self.output.get() != Output::Flowing {
            return Err(closed("upgrade"));
        }
        let slot = mem::replace(&mut *self.link.borrow_mut(), Slot::Out);
        let link: Box<dyn Link> = match slot {
            Slot::Socket(socket) => Box::new(socket),
            Slot::Any(link) => link,
            other => {
                self.link.replace(other);
                let error = "cannot upgrade: the connection's link is at work";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, error));
            }
        };
        // What was written in clear goes out in clear, before anything of the filter's.
        let mut queued = Vec::new();
        let queue = self.queue.borrow_mut().take();
        if let Some(queue) = queue {
            queue.copy_to(&mut queued);
            self.leaf.give_queue(queue);
        }
        let mut early = Vec::from(leftover);
        self.extras(|extras| early.append(&mut extras.unread));
        self.link.replace(Slot::Any(Box::new(Filtered::with(link, filter, queued, early))));
        self.phase.set(Phase::Opening);
        self.opened.set(self.made.get());
        self.blocked.set(false);
        self.readable.set(false);
        self.attend();
        Ok(())
    }

    /// The link's and the program's word on something by name.
    pub(crate) fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.with_link(|link| link.extra_info(name)).flatten()
    }

    /// Asks the link for the addresses, for when it is gone.
    pub(crate) fn remember_addresses(&self) {
        let asked = self.with_link(|link| (link.peer_addr(), link.local_addr()));
        let Some((peer, local)) = asked else { return };
        self.with_extras(|extras| {
            extras.peer = extras.peer.take().or(peer);
            extras.local = extras.local.take().or(local);
        });
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Why nothing can be done with a connection any more.
pub(crate) fn closed(operation: &str) -> io::Error {
    let message = format!("cannot {operation}: the connection is closed");
    io::Error::new(io::ErrorKind::NotConnected, message)
}

/// An error of the same kind and text, for one more who waits.
pub(crate) fn share(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
