//! The output of an endpoint: one way into the queue, and one way out of it.
//!
//! What is sent is queued, and leaves when the callback or task step at hand returns, together with all else that
//! was: in one system call where the platform has one for several. More than the high limit leaves at once.
//!
//! A datagram that cannot be sent is lost and told, never cut and never in the way of the next. What waits is only one that
//! the link takes later: the whole queue waits with it, so the order is kept.
//!
//! Two things are the operating system's and not obvious:
//! - An error that the network sends back for one datagram is told at the next call on the socket, whatever that
//!   is. A send that fails so has sent nothing, so it is made again.
//! - A Unix socket that is not connected is writable although the receiver of the first datagram is full, so waiting for
//!   it would be a loop without an end. It is tried again by a timer, and given up for lost after about a second.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tulipa_loop::Flush;

use super::link::{Sent, Slot};
use super::protocol::DatagramError;
use super::queue::{Place, SendQueue};
use super::state::{Fixed, MOST_FAILURES, Phase, State};
use crate::{Address, Flow};

/// How many calls one flush makes that send something: a link that always takes everything must not keep the loop.
const MOST_SENDS: usize = 64;

/// When a receiver that is full is tried again: after so long at first, twice as long each time, and not more than
/// that; so many times, which is about a second in all. A program that is alive reads in less, and one that is not
/// must not keep what others wait for.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(100);
const MOST_TRIES: u32 = 16;

impl Flush for State {
    fn flush(&self) {
        if self.unflushed.get() {
            self.flush_queue();
        }
    }
}

impl State {
    pub(crate) fn send(self: &Rc<Self>, data: &[u8], to: Place) -> Flow {
        if self.phase.get() != Phase::Open {
            return Flow::Closed;
        }
        let Some(to) = self.target(to) else { return Flow::Ready };
        let before = self.queue.take();
        let mut queue = before.unwrap_or_else(|| self.leaf.datagrams.take());
        let size = queue.size();
        queue.push(data, to);
        self.queued.set(self.queued.get() + queue.size() - size);
        self.queue.set(Some(queue));
        let high = self.limits.get().high;
        if self.queued.get() > high {
            self.flush_queue();
            if self.queued.get() > high {
                self.attend();
                return Flow::Full;
            }
        } else if !self.blocked.get() && !self.unflushed.replace(true) && !self.dispatching.get() {
            self.leaf.wires.flush_soon(self.clone());
        }
        Flow::Ready
    }

    /// Where a datagram really goes. What is addressed to somebody else than whom the socket is connected to goes nowhere.
    fn target(&self, to: Place) -> Option<Place> {
        let Fixed { peer, default_to, .. } = &self.fixed;
        match (&to, peer, default_to) {
            (Place::Peer, _, Some(default)) => Some(self.place(default)),
            (Place::Peer, ..) | (_, None, _) => Some(to),
            (_, Some(peer), _) if to.is(peer) => Some(Place::Peer),
            (_, Some(peer), _) => {
                let error = format!("the endpoint is connected to {peer}");
                self.failed(&to, io::Error::new(io::ErrorKind::InvalidInput, error));
                None
            }
        }
    }

    /// An address without a copy of its path, if it is the one of last time.
    pub(crate) fn place(&self, address: &Address) -> Place {
        if let Address::Inet(inet) = address {
            return Place::Inet(*inet);
        }
        let mut known = self.known.borrow_mut();
        match &*known {
            Some(known) if **known == *address => Place::Other(known.clone()),
            _ => {
                let new = Rc::new(address.clone());
                *known = Some(new.clone());
                Place::Other(new)
            }
        }
    }

    /// The one way out of the queue: sends what the link takes.
    pub(crate) fn flush_queue(&self) {
        self.unflushed.set(false);
        if self.blocked.get() || self.phase.get() == Phase::Ended {
            return;
        }
        let Some(mut queue) = self.queue.take() else { return };
        let before = self.queued.get();
        let mut told = None;
        for _ in 0..MOST_SENDS {
            if queue.is_empty() || self.blocked.get() || self.phase.get() == Phase::Ended {
                break;
            }
            if self.failures.borrow().len() >= MOST_FAILURES {
                break;
            }
            self.send_some(&mut queue, &mut told);
        }
        if let Some(newer) = self.queue.take() {
            // A link's code has sent something in the middle of it.
            queue.append(*newer);
        }
        self.queued.set(queue.size());
        if queue.is_empty() || self.phase.get() == Phase::Ended {
            self.queued.set(0);
            self.leaf.datagrams.give(queue);
        } else {
            self.queue.set(Some(queue));
        }
        self.after_flush(before);
    }

    fn after_flush(&self, before: usize) {
        let (left, limits) = (self.queued.get(), self.limits.get());
        let resumed = before > limits.low && left <= limits.low;
        let ended = left == 0 && self.phase.get() == Phase::Closing;
        let failed = !self.failures.borrow().is_empty();
        let unwatched = !self.dispatching.get() && self.is_interest_due();
        let waits = left > 0 && !self.blocked.get();
        if resumed
            || ended
            || failed
            || unwatched
            || waits
            || self.tries.get() > 0
            || self.awaited.get()
        {
            self.attend();
        }
    }

    /// One call of the link, and what follows from it. `told` is what the protocol was told of the first datagram,
    /// which is being sent again.
    fn send_some(&self, queue: &mut SendQueue, told: &mut Option<i32>) {
        let Some((sent, result)) = self.send_to_link(queue) else { return };
        if sent > 0 {
            *told = None;
            self.tries.set(0);
            self.forgive(queue, sent);
            queue.pop(sent);
        }
        let Err(error) = result else { return };
        let Some((_, to)) = queue.first() else { return };
        let (to, code) = (to.clone(), error.raw_os_error());
        if error.kind() == io::ErrorKind::WouldBlock {
            return self.wait_for(to, queue);
        }
        let known = told.take();
        if known.is_none() || known != code {
            self.failed(&to, error);
        }
        if known.is_none() && is_of_another(code) {
            *told = code;
        } else {
            queue.pop(1);
        }
    }

    fn send_to_link(&self, queue: &SendQueue) -> Option<Sent> {
        self.with_link(|link| match link {
            Slot::Socket(socket) => socket.send(queue),
            Slot::Any(link) => {
                let Some((data, to)) = queue.first() else { return (0, Ok(())) };
                match link.send(data, to.address().as_ref()) {
                    Ok(()) => (1, Ok(())),
                    Err(error) => (0, Err(error)),
                }
            }
            Slot::Out | Slot::Gone => (0, Ok(())),
        })
    }

    /// The link takes no more now.
    fn wait_for(&self, to: Place, queue: &mut SendQueue) {
        let socket = matches!(&*self.link.borrow(), Slot::Socket(_));
        if !socket || !matches!(to, Place::Other(_)) {
            return self.blocked.set(true);
        }
        let tries = self.tries.get() + 1;
        let given_up = self.full.borrow().as_ref() == Some(&to);
        if tries < MOST_TRIES && !given_up {
            self.tries.set(tries);
            let pause = FIRST_RETRY.saturating_mul(1 << (tries - 1)).min(LAST_RETRY);
            self.retry.set(Some(pause));
            return self.blocked.set(true);
        }
        self.tries.set(0);
        let error = io::Error::new(io::ErrorKind::WouldBlock, "the receiver stays full");
        self.failed(&to, error);
        self.full.replace(Some(to));
        queue.pop(1);
    }

    /// Who was given up and has taken something is waited for again.
    fn forgive(&self, queue: &SendQueue, sent: usize) {
        let Some(full) = self.full.take() else { return };
        let took = queue.iter().take(sent).any(|(_, to)| *to == full);
        self.full.replace((!took).then_some(full));
    }

    /// The protocol is to be told. What a program does wrong again and again in one callback is told so many times.
    fn failed(&self, to: &Place, error: io::Error) {
        let address = to.address().or_else(|| self.fixed.peer.clone());
        tracing::debug!(target: "tulipa::net", key = ?self.key.get(), ?address, %error, "not sent");
        let mut failures = self.failures.borrow_mut();
        if failures.len() < MOST_FAILURES {
            failures.push_back(DatagramError::send(address, error));
        }
        drop(failures);
        self.attend();
    }

    /// Gives the queue's memory back; called by the driver at the end.
    pub(crate) fn clear_queue(&self) {
        self.queued.set(0);
        if let Some(queue) = self.queue.take() {
            self.leaf.datagrams.give(queue);
        }
    }
}

/// Whether an error may be what the network has sent back for an earlier datagram.
fn is_of_another(code: Option<i32>) -> bool {
    let sent_back = [
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::PROTO,
    ];
    code.is_some_and(|code| sent_back.iter().any(|errno| errno.raw_os_error() == code))
}
