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
//! | `Broken` | nothing is accepted or goes out; what has come is still delivered, unless reading is paused | `Ended` when it is |
//! | `Ended` | the link does nothing any more; the driver tells, and drops it | |
//!
//! | input | what is true | next |
//! |---|---|---|
//! | `Flowing` | what comes is read | `Paused` by `pause_reading`; `Ended` when 0 bytes were read |
//! | `Paused` | nothing is read unasked | `Flowing` by `resume_reading` |
//! | `Ended` | the peer has ended its side | |
//! | `Watched` | there is none, as the bytes go the other way; that there is says that the reader is gone | `Absent` when it does not say so |
//! | `Absent` | there is none | |
//!
//! | output | what is true | next |
//! |---|---|---|
//! | `Flowing` | writes are accepted | `Ending` by `write_eof`; `Held` while a file is sent |
//! | `Held` | a file is sent, and writes are accepted behind it | `Flowing` when it is; `HeldEnding` by `write_eof` |
//! | `HeldEnding` | a file is sent, and no writes are accepted | `Ending` when it is |
//! | `Ending` | they are not; the end follows what is queued | `Ended` |
//! | `Ended` | the peer has been told | |

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tulipa_selector::{Interest, Token};

use crate::driver::Successor;
use crate::leaf::Leaf;
use crate::link::SocketLink;
use crate::output::{LIMITS, WriteBufferLimits};
use crate::policies::Gauge;
use crate::send_file::Hold;
use crate::server::ServerState;
use crate::write_queue::WriteQueue;
use crate::{Address, Bell, Direction, Link};

/// The key of a state that no loop has.
pub(crate) const NO_KEY: Token = Token::from_bits(u64::MAX);

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
    Watched,
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Flowing,
    Held,
    HeldEnding,
    Ending,
    Ended,
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
    pub(crate) link: RefCell<Slot>,
    pub(crate) queue: Cell<Option<Box<WriteQueue>>>,
    /// How many bytes are in the queue, which is there only if there are any.
    pub(crate) queued: Cell<usize>,
    pub(crate) error: Cell<Option<io::Error>>,
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
    /// Whether the driver, which is being called, is to read again in the next turn: no event will tell of
    /// what is left. Settling does not answer it, as it does a call for attention.
    pub(crate) again: Cell<bool>,
    /// Whether the driver is to settle.
    pub(crate) attention: Cell<bool>,
    /// Whether the driver is being called and settles anyway.
    pub(crate) dispatching: Cell<bool>,
    /// Whether a flush was asked for.
    pub(crate) unflushed: Cell<bool>,
    /// Whether nothing at all is out of the ordinary, see [`State::is_plain`].
    pub(crate) plain: Cell<bool>,
    /// Whether the link takes nothing until its source is writable.
    pub(crate) blocked: Cell<bool>,
    /// Whether somebody waits for what was written to leave.
    pub(crate) awaited: Cell<bool>,
    /// What the selector was asked for.
    pub(crate) watched: Cell<Interest>,
    /// The server that it came to.
    pub(crate) server: Cell<Option<Rc<ServerState>>>,
    /// Out while one of them is looked at, which calls nothing.
    extras: Cell<Option<Box<Extras>>>,
}

/// Every connection has one. With the counts of its `Rc` it is 120 bytes, the most that allocators with classes of
/// 16 bytes and a header of 8 put into 128.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(mem::size_of::<State>() <= 104);

/// What most connections have not.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) peer: Option<Address>,
    pub(crate) local: Option<Address>,
    /// A `set_timeout` that the driver has not seen.
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) successor: Option<Box<dyn Successor>>,
    /// What was read and not used, to be delivered before anything else.
    pub(crate) unread: VecDeque<u8>,
    /// Whether the protocol keeps bytes of its own until reading goes on, and is to be called for them first.
    pub(crate) kept: bool,
    /// What policies measure and decide; the link has it too.
    pub(crate) gauge: Option<Rc<Gauge>>,
    /// Other limits than the usual ones.
    pub(crate) limits: Option<WriteBufferLimits>,
    /// The queue may not grow beyond this.
    pub(crate) cap: Option<usize>,
    /// Who waits for the beginning, the end, or room.
    pub(crate) waiters: Waiters,
    /// What is written while a file is being sent.
    pub(crate) hold: Option<Box<Hold>>,
    /// Why the connection never came to be, for whoever asked for it.
    pub(crate) failed: Option<io::Error>,
}

impl Extras {
    /// A future that waited with extras which are gone keeps its number, so no other may have it.
    fn new(leaf: &Leaf) -> Box<Extras> {
        let waiters = Waiters { next: leaf.next_extras() << 32, ..Waiters::default() };
        Box::new(Extras { waiters, ..Extras::default() })
    }

    /// Whether nothing is in it.
    fn is_empty(&self) -> bool {
        let addresses = self.peer.is_some() || self.local.is_some();
        let waiting = !self.waiters.wakers.is_empty() || self.failed.is_some();
        !addresses && !waiting && self.gauge.is_none() && self.hold.is_none() && self.is_plain()
    }

    /// Whether none of it has to be looked at when the program reads or writes.
    fn is_plain(&self) -> bool {
        let asked = self.timeout.is_some() || self.successor.is_some();
        let limited = self.limits.is_some() || self.cap.is_some();
        !asked && !limited && !self.kept && self.unread.is_empty()
    }
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
        let direction = match &link {
            Slot::Any(link) => link.direction(),
            _ => Direction::Both,
        };
        // What does not go in one direction is as if it had ended in order.
        let (reads, writes) = (direction != Direction::Write, direction != Direction::Read);
        State {
            leaf,
            key: Cell::new(NO_KEY),
            link: RefCell::new(link),
            queue: Cell::default(),
            queued: Cell::new(0),
            error: Cell::default(),
            phase: Cell::new(phase),
            input: Cell::new(if reads { Input::Flowing } else { Input::Watched }),
            output: Cell::new(if writes { Output::Flowing } else { Output::Ended }),
            opened: Cell::new(phase == Phase::Open),
            made: Cell::new(false),
            lost: Cell::new(false),
            readable: Cell::new(false),
            progress: Cell::new(false),
            again: Cell::new(false),
            attention: Cell::new(false),
            dispatching: Cell::new(false),
            unflushed: Cell::new(false),
            plain: Cell::new(false),
            blocked: Cell::new(false),
            awaited: Cell::new(false),
            watched: Cell::new(Interest::NONE),
            server: Cell::default(),
            extras: Cell::default(),
        }
    }

    /// Whether the connection is as nearly all are nearly all the time: a socket, open both ways, watched for input,
    /// with nothing to tell and nothing special asked for. What most reads, writes and flushes do in that case is
    /// short, and this is all they look at. `false` is always safe: whatever changes one of the conditions says so
    /// (mostly by asking for attention), and the driver [looks](Self::look_whether_plain) when it has settled.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        let plain = self.plain.get();
        debug_assert!(!plain || self.nothing_is_special(), "what makes it special says so");
        plain
    }

    /// Looks anew whether the connection is plain. The driver has settled, so the protocol is not told to pause
    /// unless more than the low limit waits.
    pub(crate) fn look_whether_plain(&self) {
        let settled = !self.attention.get() && self.queued.get() <= LIMITS.low;
        self.plain.set(settled && self.nothing_is_special());
    }

    fn nothing_is_special(&self) -> bool {
        let open = self.phase.get() == Phase::Open && self.made.get();
        let flowing = self.input.get() == Input::Flowing && self.output.get() == Output::Flowing;
        let quiet = !self.attention.get() && !self.again.get() && !self.awaited.get();
        let extras = self.look_at_extras(|extras| extras.is_none_or(|extras| extras.is_plain()));
        let watched = self.watched.get() == Interest::READABLE && !self.blocked.get();
        open && flowing && quiet && extras && watched && self.is_socket()
    }

    /// Asks the driver to settle: at the end of the call at hand, or at the start of the next turn.
    pub(crate) fn attend(&self) {
        self.plain.set(false);
        if !self.attention.replace(true) && !self.dispatching.get() {
            self.leaf.wires.mark(self.key.get());
        }
    }

    /// Asks for one more reading in the next turn.
    pub(crate) fn read_again(&self) {
        self.plain.set(false);
        if self.dispatching.get() {
            self.again.set(true);
        } else {
            self.attend();
        }
    }

    pub(crate) fn take_attention(&self) -> bool {
        self.attention.replace(false)
    }

    #[inline]
    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.get()
    }

    /// Asks for a mark although attention was asked for before, when the driver's call was too early for it.
    pub(crate) fn mark(&self) {
        self.plain.set(false);
        self.attention.set(true);
        self.leaf.wires.mark(self.key.get());
    }

    pub(crate) fn with_extras<R>(&self, change: impl FnOnce(&mut Extras) -> R) -> R {
        self.plain.set(false);
        let mut extras = self.extras.take().unwrap_or_else(|| Extras::new(&self.leaf));
        let result = change(&mut extras);
        self.extras.set(Some(extras));
        result
    }

    pub(crate) fn extras<R: Default>(&self, look: impl FnOnce(&mut Extras) -> R) -> R {
        let Some(mut extras) = self.extras.take() else { return R::default() };
        let result = look(&mut extras);
        self.extras.set(Some(extras));
        result
    }

    /// Takes who waits; a connection that nobody asks for anything else has no extras then.
    pub(crate) fn take_waiters(&self) -> Vec<(u64, Waker)> {
        let Some(mut extras) = self.extras.take() else { return Vec::new() };
        let waiters = extras.waiters.take();
        if !extras.is_empty() {
            self.extras.set(Some(extras));
        }
        waiters
    }

    fn look_at_extras<R>(&self, look: impl FnOnce(Option<&Extras>) -> R) -> R {
        let extras = self.extras.take();
        let result = look(extras.as_deref());
        self.extras.set(extras);
        result
    }

    /// Whether the link is a socket, which has no more to it than its descriptor.
    #[inline]
    pub(crate) fn is_socket(&self) -> bool {
        matches!(&*self.link.borrow(), Slot::Socket(_))
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
        self.look_at_pace();
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

    /// Gives the link its bell. Sockets have a source.
    pub(crate) fn set_bell(&self, bell: Bell) {
        if !self.is_socket() {
            self.with_link(|link| link.set_bell(bell));
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
        self.extras(|extras| extras.successor.is_some())
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
        self.fail_hold();
        if before != Phase::Ended {
            self.attend();
        }
    }

    pub(crate) fn fail(&self, error: io::Error) {
        self.end(Some(error));
    }

    /// Whether the selector is to be asked for something else, at the start of the next turn.
    ///
    /// That it tells of input which is known, or not wanted, is borne until it does: a task that is woken
    /// by input has read it by then, mostly, and nothing has to be changed and changed back.
    #[inline]
    pub(crate) fn is_interest_due(&self) -> bool {
        let (wanted, watched) = (self.interest(), self.watched.get());
        wanted != watched && (wanted | Interest::READABLE) != watched
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
                read |= phase != Phase::Broken && self.input.get() == Input::Watched;
                write = phase != Phase::Broken && (self.has_output() || self.is_file_blocked());
            }
        }
        if (read || write) && !self.is_socket() {
            let held = self.held_by_pace();
            (read, write) = (read && !held.0, write && !held.1);
        }
        let read = if read { Interest::READABLE } else { Interest::NONE };
        if write { read | Interest::WRITABLE } else { read }
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
            // A filter's code has ended the connection meanwhile.
            Some(Ok(())) if self.phase.get() != Phase::Opening => {}
            Some(Ok(())) => {
                self.phase.set(Phase::Open);
                self.opened.set(true);
                if self.has_input() {
                    // What came with the handshake is told by no event.
                    self.readable.set(true);
                    self.attend();
                }
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    fn finish_output(&self) {
        if self.queued.get() > 0 || self.is_held() {
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
        let no_input = !matches!(self.input.get(), Input::Flowing | Input::Paused);
        let both = no_input && self.output.get() == Output::Ended;
        if both && self.phase.get() == Phase::Open && self.held_back() == 0 {
            self.end(None);
        }
    }

    /// All is written. A link with a goodbye of its own says it, and that has to be sent too.
    fn say_goodbye(&self) {
        if self.is_socket() {
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

pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
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
