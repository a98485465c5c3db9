//! The bookkeeping of a queue: who may take or put, and who has to wait.
//!
//! # Theory of operation
//!
//! Items stay in the store until somebody takes them. A getter that waits is *granted a claim* on
//! one of them, before it is woken, and from then on that item counts as taken: nobody else gets
//! it. A putter that waits is granted a *reservation* of a free slot in the same way, but keeps its
//! item until it is polled: a `put` that was dropped has never put anything. What a dropped future
//! had been granted goes to the next, and because the items themselves did not move, their order
//! is not disturbed.
//!
//! | phase | put | get | next |
//! |---|---|---|---|
//! | `Open` | yes | yes | `Draining`, `Closed` |
//! | `Draining` | refused | while there are items | `Closed` |
//! | `Closed` | refused | refused; claims are void | |
//!
//! A store that has to compare items is *checked out* while it does, because comparing is user
//! code. The items are then counted but not available, and what is put meanwhile goes into a fresh
//! store, which is appended when the other one comes back.
//!
//! Invariants, at the end of every borrow: getters wait only while nothing is available, putters
//! wait only while no slot is free, and both only in the phases that let them.

use crate::wait_list::{Left, Ticket, WaitList};

use super::order::Store;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Draining,
    Closed,
}

/// What a released getter was released for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum GetGrant {
    /// One item is its own.
    Claim,
    /// The queue was shut down.
    ShutDown,
}

/// Who has to be woken after a change: a set of getters, putters and joiners.
///
/// A whole word, because it travels next to items: narrower, it is written and read back with
/// different widths, and the stall costs more than the rest of a `get` (`benches/sync.rs`).
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "somebody has to be woken"]
pub(super) struct Due(usize);

impl Due {
    pub(super) const NOBODY: Self = Self(0);
    pub(super) const GETTERS: Self = Self(1);
    pub(super) const PUTTERS: Self = Self(2);
    pub(super) const JOINERS: Self = Self(4);

    pub(super) fn includes(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    fn of<S: Copy>(list: &WaitList<S>, name: Self) -> Self {
        if list.has_due() { name } else { Self::NOBODY }
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a claim on an item is used.
pub(super) enum Take<S: Store> {
    /// Here is the item.
    Item(S::Item, Due),
    /// The store has to find it: prepare, pop, and bring the store back with
    /// [`check_in`](State::check_in).
    Prepare(S),
}

/// Why there is nothing to take.
pub(super) enum Nothing {
    Yet,
    AnyMore,
}

/// Why an item cannot be put.
pub(super) enum NoPut {
    Full,
    ShutDown,
}

pub(super) struct State<S> {
    pub(super) store: S,
    /// Items in the store, also while it is checked out.
    pub(super) len: usize,
    /// `usize::MAX` stands for no limit.
    pub(super) capacity: usize,
    pub(super) unfinished: usize,
    pub(super) phase: Phase,
    claimed: usize,
    reserved: usize,
    checked_out: bool,
    pub(super) getters: WaitList<GetGrant>,
    pub(super) putters: WaitList<()>,
    pub(super) joiners: WaitList<()>,
}

impl<S: Store> State<S> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            store: S::default(),
            len: 0,
            capacity,
            unfinished: 0,
            phase: Phase::Open,
            claimed: 0,
            reserved: 0,
            checked_out: false,
            getters: WaitList::new(),
            putters: WaitList::new(),
            joiners: WaitList::new(),
        }
    }

    pub(super) fn getters_mut(&mut self) -> &mut WaitList<GetGrant> {
        &mut self.getters
    }

    pub(super) fn putters_mut(&mut self) -> &mut WaitList<()> {
        &mut self.putters
    }

    pub(super) fn joiners_mut(&mut self) -> &mut WaitList<()> {
        &mut self.joiners
    }

    fn due(&self) -> Due {
        Due::of(&self.getters, Due::GETTERS)
            .and(Due::of(&self.putters, Due::PUTTERS))
            .and(Due::of(&self.joiners, Due::JOINERS))
    }

    /// Takes the item out of `item` and puts it, if there is room.
    #[inline]
    pub(super) fn put(&mut self, item: &mut Option<S::Item>) -> Result<Due, NoPut> {
        if self.phase != Phase::Open {
            return Err(NoPut::ShutDown);
        }
        if self.free_slots() == 0 {
            return Err(NoPut::Full);
        }
        self.store.push(item.take().expect("`QueuePut` polled after completion"));
        self.len += 1;
        self.unfinished += 1;
        self.grant_getters();
        Ok(Due::of(&self.getters, Due::GETTERS))
    }

    /// Puts the item of a putter that was released.
    pub(super) fn put_reserved(
        &mut self,
        ticket: Ticket,
        item: &mut Option<S::Item>,
    ) -> (Left<()>, Result<Due, NoPut>) {
        let left = self.putters.leave(ticket);
        if self.phase == Phase::Open {
            self.reserved -= 1;
        }
        (left, self.put(item))
    }

    pub(super) fn cancel_put(&mut self, ticket: Ticket) -> (Left<()>, Due) {
        let left = self.putters.leave(ticket);
        if left.released.is_some() && self.phase == Phase::Open {
            self.reserved -= 1;
            self.grant_putters();
        }
        (left, self.due())
    }

    /// Takes the item whose turn it is, if one is available.
    #[inline]
    pub(super) fn take(&mut self) -> Result<Take<S>, Nothing> {
        if self.available() > 0 {
            self.claimed += 1;
            return Ok(self.use_claim());
        }
        if self.is_drained() { Err(Nothing::AnyMore) } else { Err(Nothing::Yet) }
    }

    /// Gives up the place of a getter that was released, and takes its item if it has a claim.
    pub(super) fn take_granted(&mut self, ticket: Ticket) -> (Left<GetGrant>, Option<Take<S>>) {
        let (left, claims) = self.leave_getters(ticket);
        (left, claims.then(|| self.use_claim()))
    }

    #[inline]
    fn use_claim(&mut self) -> Take<S> {
        if S::PREPARES {
            self.checked_out = true;
            return Take::Prepare(std::mem::take(&mut self.store));
        }
        let item = self.store.pop().expect("a claim stands for an item in the store");
        self.after_take();
        Take::Item(item, Due::of(&self.putters, Due::PUTTERS))
    }

    #[inline]
    fn after_take(&mut self) {
        self.claimed -= 1;
        self.len -= 1;
        self.grant_putters();
    }

    /// Returns whether the getter that left has a claim.
    fn leave_getters(&mut self, ticket: Ticket) -> (Left<GetGrant>, bool) {
        let left = self.getters.leave(ticket);
        let claims = left.released == Some(GetGrant::Claim) && self.phase != Phase::Closed;
        (left, claims)
    }

    pub(super) fn cancel_get(&mut self, ticket: Ticket) -> (Left<GetGrant>, Due) {
        let (left, claims) = self.leave_getters(ticket);
        if claims {
            self.claimed -= 1;
            self.settle_getters();
        }
        (left, self.due())
    }

    /// Brings the store back, one item shorter if `took`. Returns what to drop, if the queue was
    /// closed meanwhile.
    pub(super) fn check_in(&mut self, mut store: S, took: bool) -> (Option<S>, Due) {
        self.checked_out = false;
        if self.phase == Phase::Closed {
            return (Some(store), self.due());
        }
        std::mem::swap(&mut self.store, &mut store);
        self.store.append(store);
        if took {
            self.after_take();
        } else {
            self.claimed -= 1;
        }
        self.settle_getters();
        (None, self.due())
    }

    /// Returns `None` when there was nothing unfinished.
    pub(super) fn task_done(&mut self) -> Option<Due> {
        self.unfinished = self.unfinished.checked_sub(1)?;
        self.release_joiners();
        Some(self.due())
    }

    /// Returns the items to drop.
    pub(super) fn shut_down(&mut self, immediate: bool) -> (Option<S>, Due) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.reserved = 0;
            while self.putters.release_front() {}
        }
        let mut dropped = None;
        if immediate && self.phase == Phase::Draining {
            self.phase = Phase::Closed;
            dropped = Some(std::mem::take(&mut self.store));
            self.unfinished = self.unfinished.saturating_sub(self.len);
            self.len = 0;
            self.claimed = 0;
            self.release_joiners();
        }
        self.settle_getters();
        (dropped, self.due())
    }

    pub(super) fn is_checked_out(&self) -> bool {
        self.checked_out
    }

    /// Whether no getter that comes now will ever get an item, unless one that was granted an item
    /// is dropped.
    fn is_drained(&self) -> bool {
        self.phase != Phase::Open && self.len == self.claimed
    }

    #[inline]
    fn available(&self) -> usize {
        if self.checked_out { 0 } else { self.len - self.claimed }
    }

    #[inline]
    fn free_slots(&self) -> usize {
        // An item may be put past a reservation only by its holder, so the sum cannot pass the
        // capacity.
        self.capacity - self.len - self.reserved
    }

    fn release_joiners(&mut self) {
        if self.unfinished == 0 {
            while self.joiners.release_front() {}
        }
    }

    #[inline]
    fn grant_getters(&mut self) {
        while !self.getters.is_empty() && self.available() > 0 {
            self.claimed += 1;
            self.getters.release_front_with(GetGrant::Claim);
        }
    }

    #[inline]
    fn grant_putters(&mut self) {
        while !self.putters.is_empty() && self.free_slots() > 0 {
            self.reserved += 1;
            self.putters.release_front();
        }
    }

    fn settle_getters(&mut self) {
        self.grant_getters();
        if self.is_drained() {
            while self.getters.release_front_with(GetGrant::ShutDown) {}
        }
    }
}
