//! A counter of permits with a strictly first-in, first-out queue: the core of [`Lock`](crate::Lock),
//! [`RwLock`](crate::RwLock) and the semaphores.
//!
//! # Theory of operation
//!
//! A request for `n` permits is served at once only if that many are free *and nobody waits*; else
//! it joins the queue, so nobody overtakes. Releasing grants from the front while the front's
//! request fits: the permits are taken out of the counter in the name of the waiter, before it is
//! woken. A newcomer cannot snatch them in between, and a waiter that is woken owns what it was
//! woken for. The price is that a granted waiter which is dropped has to give back what it never
//! used; [`Acquire`] does that.
//!
//! A lock is one permit. A read-write lock is [`ALL`] permits, of which a reader takes one and a
//! writer takes all, which makes its preference the queue's: first come, first served.
//!
//! Invariant, at the end of every borrow: the first waiter asks for more than is free.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};

use crate::wait::{self, Label, OwnerId, ResourceId, WaitKind};
use crate::wait_list::{Left, Ticket, WaitList, Waiting, poll_turn, wake_due};

/// As many permits as there can be.
pub(crate) const ALL: usize = usize::MAX;

pub(crate) struct Permits {
    state: RefCell<State>,
    owner: Cell<Option<OwnerId>>,
    label: Label,
}

struct State {
    free: usize,
    /// A release never lifts `free` above this.
    bound: usize,
    /// Each waiter with the number it asks for.
    queue: WaitList<usize>,
}

impl State {
    fn queue_mut(&mut self) -> &mut WaitList<usize> {
        &mut self.queue
    }

    #[inline]
    fn try_take(&mut self, wanted: usize) -> bool {
        let fits = self.free >= wanted && self.queue.is_empty();
        if fits {
            self.free -= wanted;
        }
        fits
    }

    /// Returns whether somebody has to be woken.
    #[inline]
    fn give(&mut self, count: usize) -> bool {
        self.free = self.free.saturating_add(count).min(self.bound);
        !self.queue.is_unused() && self.grant()
    }

    fn grant(&mut self) -> bool {
        while let Some(wanted) = self.queue.front() {
            if wanted > self.free {
                break;
            }
            self.free -= wanted;
            self.queue.release_front();
        }
        self.queue.has_due()
    }

    fn cancel(&mut self, ticket: Ticket) -> (Left<usize>, bool) {
        let left = self.queue.leave(ticket);
        let unused = left.released.unwrap_or(0);
        // Also when the future only waited: the one behind it may ask for less.
        let due = self.give(unused);
        (left, due)
    }
}

impl Permits {
    pub(crate) const fn new(free: usize, bound: usize, label: Label) -> Self {
        let state = State { free, bound, queue: WaitList::new() };
        Self { state: RefCell::new(state), owner: Cell::new(None), label }
    }

    pub(crate) const fn set_name(&mut self, name: &'static str) {
        self.label = self.label.named(name);
    }

    #[inline]
    pub(crate) fn try_acquire(&self, wanted: usize) -> Option<Hold<'_>> {
        let taken = self.state.borrow_mut().try_take(wanted);
        if taken { Some(Hold { permits: self, count: wanted }) } else { None }
    }

    #[inline]
    pub(crate) fn acquire(&self, wanted: usize) -> Acquire<'_> {
        Acquire { permits: self, wanted, waiting: None }
    }

    #[inline]
    pub(crate) fn release(&self, count: usize) {
        let due = self.state.borrow_mut().give(count);
        if due {
            wake_due(&self.state, State::queue_mut);
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.state.borrow().free
    }

    pub(crate) fn bound(&self) -> usize {
        self.state.borrow().bound
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.borrow().queue.len()
    }

    pub(crate) fn owner(&self) -> Option<OwnerId> {
        self.owner.get()
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.label.name()
    }

    fn resource(&self) -> ResourceId {
        ResourceId::of(self)
    }
}

/// Permits that were taken. Dropping them gives them back.
pub(crate) struct Hold<'a> {
    permits: &'a Permits,
    count: usize,
}

impl<'a> Hold<'a> {
    /// Makes who is running the owner.
    #[inline]
    pub(crate) fn into_owned(self) -> Owned<'a> {
        let owned = Owned { hold: self };
        owned.set_owner(wait::current_owner());
        owned
    }

    pub(crate) fn permits(&self) -> &'a Permits {
        self.permits
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes the permits out of circulation.
    pub(crate) fn forget(mut self) {
        self.count = 0;
    }
}

impl Drop for Hold<'_> {
    #[inline]
    fn drop(&mut self) {
        self.permits.release(self.count);
    }
}

/// All the permits of a lock, held by one owner.
pub(crate) struct Owned<'a> {
    hold: Hold<'a>,
}

impl<'a> Owned<'a> {
    /// Keeps one permit, as a reader, and gives the others back.
    pub(crate) fn downgrade(mut self) -> Hold<'a> {
        let kept = Hold { permits: self.hold.permits, count: 1 };
        self.hold.count -= 1;
        drop(self);
        kept
    }

    #[inline]
    fn set_owner(&self, owner: Option<OwnerId>) {
        let permits = self.hold.permits;
        permits.owner.set(owner);
        if wait::is_observed() && permits.waiting() > 0 {
            wait::owner_changed(permits.resource(), owner);
        }
    }
}

impl Drop for Owned<'_> {
    #[inline]
    fn drop(&mut self) {
        // The permits are a field, so they are given back even if the observer panics.
        self.set_owner(None);
    }
}

/// Waits for permits.
///
/// Dropped while it waits, it leaves the queue; dropped after it was granted its permits and before
/// it could return them, it passes them on.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Acquire<'a> {
    permits: &'a Permits,
    wanted: usize,
    waiting: Option<Waiting>,
}

impl<'a> Acquire<'a> {
    pub(crate) fn permits(&self) -> &'a Permits {
        self.permits
    }

    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, kind: WaitKind) -> Poll<Hold<'a>> {
        if self.waiting.is_some() {
            return self.poll_waiting(cx);
        }
        match self.permits.try_acquire(self.wanted) {
            Some(hold) => Poll::Ready(hold),
            None => self.begin(cx, kind),
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, kind: WaitKind) -> Poll<Hold<'a>> {
        let Self { permits, wanted, .. } = *self;
        // Cloning a waker may run anything, so the second try is not idle.
        let waker = cx.waker().clone();
        if let Some(hold) = permits.try_acquire(wanted) {
            drop(waker);
            return Poll::Ready(hold);
        }
        let ticket = permits.state.borrow_mut().queue.join(waker, wanted);
        let waiting = self.waiting.insert(Waiting::unobserved(ticket));
        waiting.observed = permits.label.begin(kind, permits.resource(), permits.owner.get());
        Poll::Pending
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Hold<'a>> {
        let Self { permits, wanted, .. } = *self;
        let state = &permits.state;
        let released = self.waiting.as_ref().is_some_and(|waiting| {
            poll_turn(
                state,
                State::queue_mut,
                &waiting.ticket,
                waiting.observed.as_ref(),
                cx.waker(),
            )
        });
        if !released {
            return Poll::Pending;
        }
        let Some(waiting) = self.waiting.take() else { return Poll::Pending };
        let left = state.borrow_mut().queue.leave(waiting.ticket);
        let hold = Hold { permits, count: wanted };
        // The permits are held by now: if one of these destructors panics, they are given back.
        drop(left);
        drop(waiting.observed);
        Poll::Ready(hold)
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.cancel(waiting);
        }
    }
}

impl Acquire<'_> {
    fn cancel(&self, waiting: Waiting) {
        let Waiting { ticket, observed: _observed } = waiting;
        let (_left, due) = self.permits.state.borrow_mut().cancel(ticket);
        if due {
            wake_due(&self.permits.state, State::queue_mut);
        }
    }
}
