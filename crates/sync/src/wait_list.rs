//! The list of waiting futures that every primitive of this crate is built on.
//!
//! # Theory of operation
//!
//! A waiting future needs a place in a queue that it can give up from the middle when it is
//! dropped, and that costs nothing once the program has warmed up. Both come from a slab: the nodes
//! live in one `Vec`, are linked by index in both directions, and return to a free list. Joining is
//! a push, leaving is an unlink, neither searches, and no waiter owns an allocation.
//!
//! Releasing a waiter and waking it are two steps, because `Waker::wake` is user code and user code
//! must find every `RefCell` free. Under the borrow, a release moves nodes from the *waiting* chain
//! to the *due* chain and thereby decides who goes on; afterwards [`wake_due`] takes one waker at a
//! time out of the cell and calls it with nothing borrowed. Whatever a waker does, calls back,
//! drops other waiters, panics, it finds a list in which all decisions are already made.
//!
//! | state | chain | waker | next states |
//! |---|---|---|---|
//! | `Free` | free list | no | `Waiting` when a future joins |
//! | `Waiting` | waiting | yes | `Due` when released, `Free` when the future leaves |
//! | `Due` | due | yes | `Woken` when its waker is taken, `Free` when the future leaves |
//! | `Woken` | none | no | `Free` when the future leaves |
//!
//! Invariant: a node that is not `Free` belongs to exactly one [`Ticket`], and the future that holds
//! the ticket is the only one to free it. Forgetting a waiting future (`mem::forget`) therefore
//! leaves its place taken for as long as the primitive lives.

use std::cell::RefCell;
use std::fmt;
use std::task::Waker;

use crate::wait::Observed;

/// The end of a chain. Also the limit on simultaneous waiters, which memory reaches first.
const NIL: u32 = u32::MAX;

/// An idle list keeps at most this many nodes, so that a burst of waiters does not pin its memory.
/// Below it, steady traffic never allocates (`tests/allocations.rs`).
const KEPT_NODES: usize = 64;

/// The place of one future in a [`WaitList`].
pub(crate) struct Ticket(u32);

/// What a future keeps while it waits: its place, and the report of the wait if it is observed.
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) observed: Option<Observed>,
}

impl Waiting {
    /// Not reported yet: an observer is user code, and whatever it does, panicking included, the
    /// future that owns the place has to have it by then.
    pub(crate) fn unobserved(ticket: Ticket) -> Self {
        Self { ticket, observed: None }
    }
}

/// What a future learns when it asks for its turn.
pub(crate) enum Turn {
    /// It has been released and may go on.
    Released,
    /// It has to wait, and the waker kept for it is still the right one.
    Waiting,
    /// It has to wait, but is now polled with another waker: see [`WaitList::renew`].
    OtherWaker,
}

/// What remains of a place that was given up. Drop it with nothing borrowed: it may hold a waker.
#[must_use = "holds a waker, which must be dropped outside the borrow"]
pub(crate) struct Left<S> {
    /// The data of a future that had been released before it left.
    pub(crate) released: Option<S>,
    _waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Due,
    Woken,
}

struct Node<S> {
    state: State,
    prev: u32,
    next: u32,
    waker: Option<Waker>,
    data: S,
}

#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    tail: u32,
}

impl Chain {
    const EMPTY: Self = Self { head: NIL, tail: NIL };
}

/// Futures that wait, in the order in which they began to.
pub(crate) struct WaitList<S> {
    nodes: Vec<Node<S>>,
    free: u32,
    waiting: Chain,
    due: Chain,
    waiting_len: u32,
    live: u32,
}

impl<S: Copy> WaitList<S> {
    pub(crate) const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NIL,
            waiting: Chain::EMPTY,
            due: Chain::EMPTY,
            waiting_len: 0,
            live: 0,
        }
    }

    /// Takes the last place in the queue.
    pub(crate) fn join(&mut self, waker: Waker, data: S) -> Ticket {
        let node = Node { state: State::Waiting, prev: NIL, next: NIL, waker: Some(waker), data };
        let index = self.free;
        let index = if index == NIL {
            let index = u32::try_from(self.nodes.len()).unwrap_or(NIL);
            assert!(index != NIL, "a wait list holds fewer than 2^32 - 1 waiters");
            self.nodes.push(node);
            index
        } else {
            let slot = &mut self.nodes[index as usize];
            self.free = slot.next;
            *slot = node;
            index
        };
        link_back(&mut self.nodes, &mut self.waiting, index);
        self.waiting_len += 1;
        self.live += 1;
        Ticket(index)
    }

    /// Gives a place up, whatever its state.
    // Inlined by force: through memory, the result stalls the contended paths by a tenth.
    #[inline(always)]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Left<S> {
        let index = ticket.0;
        let state = self.nodes[index as usize].state;
        match state {
            State::Waiting => {
                self.waiting_len -= 1;
                unlink(&mut self.nodes, &mut self.waiting, index);
            }
            State::Due => unlink(&mut self.nodes, &mut self.due, index),
            State::Woken => {}
            State::Free => unreachable!("a ticket belongs to a place that is taken"),
        }
        let node = &mut self.nodes[index as usize];
        let released = (state != State::Waiting).then_some(node.data);
        let left = Left { released, _waker: node.waker.take() };
        node.state = State::Free;
        node.next = self.free;
        self.free = index;
        self.live -= 1;
        if self.live == 0 && self.nodes.len() > KEPT_NODES {
            *self = Self::new();
        }
        left
    }

    /// Releases the first in the queue. Returns whether there was one.
    pub(crate) fn release_front(&mut self) -> bool {
        let index = self.waiting.head;
        if index == NIL {
            return false;
        }
        unlink(&mut self.nodes, &mut self.waiting, index);
        link_back(&mut self.nodes, &mut self.due, index);
        self.nodes[index as usize].state = State::Due;
        self.waiting_len -= 1;
        true
    }

    /// Releases the first in the queue and leaves it `data`. Returns whether there was one.
    pub(crate) fn release_front_with(&mut self, data: S) -> bool {
        let index = self.waiting.head;
        if index != NIL {
            self.nodes[index as usize].data = data;
        }
        self.release_front()
    }

    /// Releases the first `count` in the queue, or all of them, and leaves them `data`.
    pub(crate) fn release_first(&mut self, count: usize, data: S) {
        for _ in 0..count {
            if !self.release_front_with(data) {
                break;
            }
        }
    }

    /// Takes the next waker to call. Only [`wake_due`] has a use for it.
    fn next_due(&mut self) -> Option<Waker> {
        let index = self.due.head;
        if index == NIL {
            return None;
        }
        unlink(&mut self.nodes, &mut self.due, index);
        let node = &mut self.nodes[index as usize];
        node.state = State::Woken;
        node.waker.take()
    }

    /// Replaces the waker of a future that still waits. Returns whether it was released meanwhile,
    /// and the waker to drop.
    pub(crate) fn renew(&mut self, ticket: &Ticket, waker: Waker) -> (bool, Option<Waker>) {
        let node = &mut self.nodes[ticket.0 as usize];
        if node.state == State::Waiting {
            (false, node.waker.replace(waker))
        } else {
            (true, Some(waker))
        }
    }

    pub(crate) fn turn(&self, ticket: &Ticket, waker: &Waker) -> Turn {
        let node = &self.nodes[ticket.0 as usize];
        if node.state != State::Waiting {
            Turn::Released
        } else if node.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            Turn::Waiting
        } else {
            Turn::OtherWaker
        }
    }

    /// What the first in the queue waits for.
    pub(crate) fn front(&self) -> Option<S> {
        self.nodes.get(self.waiting.head as usize).map(|node| node.data)
    }

    /// Whether nobody waits. Futures that were released but not polled since do not count.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.head == NIL
    }

    /// Whether nobody has a place, released or not.
    #[inline]
    pub(crate) fn is_unused(&self) -> bool {
        self.live == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting_len as usize
    }

    /// Whether [`wake_due`] has something to do.
    pub(crate) fn has_due(&self) -> bool {
        self.due.head != NIL
    }
}

impl<S> fmt::Debug for WaitList<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitList").field("waiting", &self.waiting_len).finish_non_exhaustive()
    }
}

fn link_back<S>(nodes: &mut [Node<S>], chain: &mut Chain, index: u32) {
    #[cfg(test)]
    steps::count();
    let node = &mut nodes[index as usize];
    node.prev = chain.tail;
    node.next = NIL;
    match chain.tail {
        NIL => chain.head = index,
        tail => nodes[tail as usize].next = index,
    }
    chain.tail = index;
}

fn unlink<S>(nodes: &mut [Node<S>], chain: &mut Chain, index: u32) {
    #[cfg(test)]
    steps::count();
    let Node { prev, next, .. } = nodes[index as usize];
    match prev {
        NIL => chain.head = next,
        prev => nodes[prev as usize].next = next,
    }
    match next {
        NIL => chain.tail = prev,
        next => nodes[next as usize].prev = prev,
    }
}

/// Wakes every released waiter, in the order of release, with nothing borrowed.
///
/// A waker that panics does not strand the ones behind it: they are woken while the panic passes.
pub(crate) fn wake_due<T, S: Copy>(cell: &RefCell<T>, list: fn(&mut T) -> &mut WaitList<S>) {
    let rest = WakeRest { cell, list };
    rest.wake_all();
    // Only a panic leaves something to do for the destructor.
    std::mem::forget(rest);
}

/// Asks whether the holder of `ticket` may go on, and keeps the waker it is polled with otherwise.
pub(crate) fn poll_turn<T, S: Copy>(
    cell: &RefCell<T>,
    list: fn(&mut T) -> &mut WaitList<S>,
    ticket: &Ticket,
    observed: Option<&Observed>,
    waker: &Waker,
) -> bool {
    let turn = list(&mut cell.borrow_mut()).turn(ticket, waker);
    match turn {
        Turn::Released => true,
        Turn::Waiting => false,
        Turn::OtherWaker => {
            let fresh = waker.clone();
            let (released, unused) = list(&mut cell.borrow_mut()).renew(ticket, fresh);
            drop(unused);
            if let Some(observed) = observed.filter(|_| !released) {
                observed.moved();
            }
            released
        }
    }
}

/// Wakes what is due, also when it is dropped by a panic.
struct WakeRest<'a, T, S: Copy> {
    cell: &'a RefCell<T>,
    list: fn(&mut T) -> &mut WaitList<S>,
}

impl<T, S: Copy> WakeRest<'_, T, S> {
    fn wake_all(&self) {
        loop {
            let due = (self.list)(&mut self.cell.borrow_mut()).next_due();
            let Some(waker) = due else { return };
            debug_assert!(self.cell.try_borrow_mut().is_ok(), "no borrow spans a waker");
            waker.wake();
        }
    }
}

impl<T, S: Copy> Drop for WakeRest<'_, T, S> {
    fn drop(&mut self) {
        self.wake_all();
    }
}

/// Counts the work done on lists, so that a test can bound it without a clock.
#[cfg(test)]
mod steps {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        STEPS.set(STEPS.get() + 1);
    }

    pub(super) fn of(f: impl FnOnce()) -> usize {
        let before = STEPS.get();
        f();
        STEPS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = if cfg!(miri) { 300 } else { 10_000 };

    fn list_of(count: usize) -> (WaitList<usize>, Vec<Option<Ticket>>) {
        let mut list = WaitList::new();
        let tickets = (0..count).map(|n| Some(list.join(Waker::noop().clone(), n))).collect();
        (list, tickets)
    }

    fn itself(list: &mut WaitList<usize>) -> &mut WaitList<usize> {
        list
    }

    /// Orders in which to leave: from the front, from the back, and jumping about.
    fn orders() -> [Vec<usize>; 3] {
        let stride = 7919;
        [
            (0..MANY).collect(),
            (0..MANY).rev().collect(),
            (0..MANY).map(|n| n * stride % MANY).collect(),
        ]
    }

    #[test]
    fn joining_and_leaving_in_any_order_takes_a_constant_number_of_steps_each() {
        for order in orders() {
            let cost = steps::of(|| {
                let (mut list, mut tickets) = list_of(MANY);
                for index in order {
                    let ticket = tickets[index].take().expect("the order visits each place once");
                    drop(list.leave(ticket));
                }
                assert!(list.is_empty());
            });
            assert_eq!(cost, 2 * MANY);
        }
    }

    #[test]
    fn releasing_and_waking_takes_a_constant_number_of_steps_each() {
        let (mut list, tickets) = list_of(MANY);
        let cost = steps::of(|| {
            list.release_first(usize::MAX, 0);
            let cell = RefCell::new(list);
            wake_due(&cell, itself);
            let mut list = cell.into_inner();
            tickets.into_iter().flatten().for_each(|ticket| drop(list.leave(ticket)));
        });
        assert!(cost <= 4 * MANY, "{cost} steps for {MANY} waiters");
    }

    #[test]
    fn waiters_are_released_in_the_order_in_which_they_joined_around_gaps() {
        let (mut list, mut tickets) = list_of(6);
        for gone in [0, 3, 5] {
            drop(list.leave(tickets[gone].take().expect("each leaves once")));
        }
        tickets.push(Some(list.join(Waker::noop().clone(), 6)));
        let mut released = Vec::new();
        while let Some(front) = list.front() {
            released.push(front);
            list.release_front();
        }
        assert_eq!(released, [1, 2, 4, 6]);
        assert!(list.has_due() && list.is_empty());
    }

    #[test]
    fn places_are_used_again() {
        let (mut list, mut tickets) = list_of(3);
        for _ in 0..100 {
            let ticket = tickets.remove(1).expect("the place is taken");
            drop(list.leave(ticket));
            tickets.push(Some(list.join(Waker::noop().clone(), 9)));
        }
        assert_eq!(list.nodes.len(), 3);
    }

    #[test]
    fn a_list_lets_go_of_the_memory_of_a_crowd_and_keeps_that_of_a_few() {
        for (crowd, kept) in [(KEPT_NODES, KEPT_NODES), (KEPT_NODES + 1, 0)] {
            let (mut list, tickets) = list_of(crowd);
            tickets.into_iter().flatten().for_each(|ticket| drop(list.leave(ticket)));
            assert_eq!(list.nodes.len(), kept);
        }
    }

    #[test]
    fn leaving_after_the_release_and_before_the_wake_takes_the_waker_along() {
        let (mut list, mut tickets) = list_of(2);
        list.release_first(2, 7);
        let left = list.leave(tickets[0].take().expect("the place is taken"));
        assert!(left.released == Some(7) && left._waker.is_some());
        assert!(list.next_due().is_some() && list.next_due().is_none());
    }
}
