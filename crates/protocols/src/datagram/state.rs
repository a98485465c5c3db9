//! The state of a datagram endpoint, which its transport and its driver share. See `crate::state`, which is the same
//! for connections.
//!
//! | phase | what is true | next |
//! |---|---|---|
//! | `Open` | datagrams come and go | `Closing` by `close`; `Ended` by `abort`, or when the protocol fails |
//! | `Closing` | none is received or accepted; what is queued goes out | `Ended` when it has, by `abort`, or when the protocol fails |
//! | `Ended` | nothing is sent any more; the driver tells, and drops the link | |
//!
//! What the network says is no phase: it is kept in `failures` until the protocol is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tulipa_selector::{Interest, Token};

use super::link::Slot;
use super::queue::{Place, SendQueue};
use crate::Address;
use crate::leaf::Leaf;
use crate::output::{LIMITS, WriteBufferLimits};
use crate::state::{Waiters, panic_text};
use crate::unix::SocketFile;

/// How many errors wait for the protocol to be told; nothing is sent while there are so many.
pub(crate) const MOST_FAILURES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Closing,
    Ended,
}

pub(crate) struct State {
    pub(crate) leaf: Rc<Leaf>,
    pub(crate) key: Cell<Token>,
    pub(crate) link: RefCell<Slot>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) error: Cell<Option<io::Error>>,
    /// There only if there is something in it, and out while a flush is at it.
    pub(crate) queue: Cell<Option<Box<SendQueue>>>,
    /// What the queue counts, that which is out included.
    pub(crate) queued: Cell<usize>,
    /// What the protocol is to be told of.
    pub(crate) failures: RefCell<VecDeque<io::Error>>,
    pub(crate) limits: Cell<WriteBufferLimits>,
    /// Whether the protocol was told that the endpoint is there.
    pub(crate) made: Cell<bool>,
    /// Whether it was told of the end.
    pub(crate) lost: Cell<bool>,
    /// Whether there is something to receive, as far as is known.
    pub(crate) readable: Cell<bool>,
    /// Whether anything was received since the driver last looked.
    pub(crate) progress: Cell<bool>,
    /// How many receives in a row have failed.
    pub(crate) failed_receives: Cell<usize>,
    /// Whether the driver is to settle.
    pub(crate) attention: Cell<bool>,
    /// Whether the driver is being called and settles anyway.
    pub(crate) dispatching: Cell<bool>,
    /// Whether a flush was asked for.
    pub(crate) unflushed: Cell<bool>,
    /// Whether the link takes nothing until its source is writable, or until the time of a retry.
    pub(crate) blocked: Cell<bool>,
    /// For a receiver that is full and whose readiness nobody tells: how often its datagram was tried.
    pub(crate) tries: Cell<u32>,
    /// After which time it is tried again.
    pub(crate) retry: Cell<Option<Duration>>,
    /// Who was given up for full, and has taken nothing since.
    pub(crate) full: RefCell<Option<Place>>,
    /// Whether somebody waits for what was queued to leave.
    pub(crate) awaited: Cell<bool>,
    pub(crate) watched: Cell<Interest>,
    pub(crate) waiters: RefCell<Waiters>,
    pub(crate) fixed: Fixed,
    /// The last Unix socket that was sent to, so that its name is not copied again.
    pub(crate) known: RefCell<Option<Rc<Address>>>,
    /// As they were when the link went.
    pub(crate) addresses: RefCell<Option<(Option<Address>, Option<Address>)>>,
}

/// What an endpoint is made with.
#[derive(Default)]
pub(crate) struct Fixed {
    /// To whom the socket is connected.
    pub(crate) peer: Option<Address>,
    /// To whom goes what is sent without an address, where the socket is not connected.
    pub(crate) default_to: Option<Address>,
    /// The most that is received of one datagram.
    pub(crate) max_datagram: usize,
    /// The file of a Unix socket, removed at the end.
    pub(crate) file: Cell<Option<SocketFile>>,
}

impl State {
    pub(crate) fn new(leaf: Rc<Leaf>, link: Slot, fixed: Fixed) -> State {
        State {
            leaf,
            key: Cell::new(Token::from_bits(u64::MAX)),
            link: RefCell::new(link),
            phase: Cell::new(Phase::Open),
            error: Cell::default(),
            queue: Cell::default(),
            queued: Cell::new(0),
            failures: RefCell::default(),
            limits: Cell::new(LIMITS),
            made: Cell::new(false),
            lost: Cell::new(false),
            readable: Cell::new(false),
            progress: Cell::new(false),
            failed_receives: Cell::new(0),
            attention: Cell::new(false),
            dispatching: Cell::new(false),
            unflushed: Cell::new(false),
            blocked: Cell::new(false),
            tries: Cell::new(0),
            retry: Cell::new(None),
            full: RefCell::default(),
            awaited: Cell::new(false),
            watched: Cell::new(Interest::NONE),
            waiters: RefCell::default(),
            fixed,
            known: RefCell::default(),
            addresses: RefCell::default(),
        }
    }

    /// Asks the driver to settle: at the end of the call at hand, or at the start of the next turn.
    pub(crate) fn attend(&self) {
        if !self.attention.replace(true) && !self.dispatching.get() {
            self.leaf.wires.mark(self.key.get());
        }
    }

    /// Asks for a mark although attention was asked for before, when the driver's call was too early for it.
    pub(crate) fn mark(&self) {
        self.attention.set(true);
        self.leaf.wires.mark(self.key.get());
    }

    /// Ends the endpoint: with an error, or as the program asked. The first error counts.
    pub(crate) fn end(&self, error: Option<io::Error>) {
        let before = self.phase.replace(Phase::Ended);
        let known = self.error.take();
        self.error.set(known.or(error));
        if before != Phase::Ended {
            self.attend();
        }
    }

    pub(crate) fn fail(&self, error: io::Error) {
        self.end(Some(error));
    }

    pub(crate) fn close(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Closing);
            self.attend();
        }
    }

    /// Ends an endpoint that is closing and has nothing left to do.
    pub(crate) fn finish_closing(&self) {
        let told = self.failures.borrow().is_empty();
        if self.phase.get() == Phase::Closing && self.queued.get() == 0 && told {
            self.end(None);
        }
    }

    /// Does something with the link, with nothing borrowed if it is no socket. `None` if it is at work further up the
    /// stack, or gone.
    pub(crate) fn with_link<R>(&self, work: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let mut place = self.link.borrow_mut();
        match &mut *place {
            Slot::Out | Slot::Gone => return None,
            Slot::Socket(_) => return Some(work(&mut place)),
            Slot::Any(_) => {}
        }
        let mut slot = mem::replace(&mut *place, Slot::Out);
        drop(place);
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut slot)));
        self.link.replace(slot);
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

    /// Whether the selector is to be asked for something else, at the start of the next turn. That it tells of input which
    /// is known is borne until it does.
    pub(crate) fn is_interest_due(&self) -> bool {
        let (wanted, watched) = (self.interest(), self.watched.get());
        wanted != watched && (wanted | Interest::READABLE) != watched
    }

    /// What the selector is to be asked for.
    pub(crate) fn interest(&self) -> Interest {
        let phase = self.phase.get();
        let read = phase == Phase::Open && !self.readable.get();
        let write = phase != Phase::Ended && self.blocked.get() && self.retry.get().is_none();
        let read = if read { Interest::READABLE } else { Interest::NONE };
        if write { read | Interest::WRITABLE } else { read }
    }

    pub(crate) fn addresses(&self) -> (Option<Address>, Option<Address>) {
        if let Some(kept) = &*self.addresses.borrow() {
            return kept.clone();
        }
        let asked = self.with_link(|link| match link {
            Slot::Socket(socket) => (socket.local_addr(), socket.peer_addr()),
            Slot::Any(link) => (link.local_addr(), link.peer_addr()),
            Slot::Out | Slot::Gone => (None, None),
        });
        asked.unwrap_or_default()
    }

    pub(crate) fn remember_addresses(&self) {
        let asked = self.addresses();
        self.addresses.replace(Some(asked));
    }

    pub(crate) fn take_waiters(&self) -> Vec<(u64, Waker)> {
        self.waiters.borrow_mut().take()
    }
}

/// Why nothing can be done with an endpoint any more.
pub(crate) fn closed(operation: &str) -> io::Error {
    let message = format!("cannot {operation}: the endpoint is closed");
    io::Error::new(io::ErrorKind::NotConnected, message)
}
