use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::BrokenBarrier;
use crate::wait::{Label, ResourceId, WaitKind};
use crate::wait_list::{Ticket, WaitList, Waiting, poll_turn, wake_due};

/// Holds tasks back until a given number has arrived, then lets all of them go: asyncio's `Barrier`.
///
/// It is used again and again: the moment the last party arrives, the next generation begins. A
/// party that arrives while the released ones have not run yet belongs to that next generation.
///
/// ```
/// use futures_lite::future::{block_on, zip};
/// use tulipa_sync::Barrier;
///
/// let barrier = Barrier::new(2);
/// let (first, last) = block_on(zip(barrier.wait(), barrier.wait()));
/// assert_eq!((first, last), (Ok(0), Ok(1)));
/// ```
pub struct Barrier {
    parties: usize,
    state: RefCell<State>,
    label: Label,
}

struct State {
    is_broken: bool,
    waiters: WaitList<Outcome>,
}

/// What a released party is told.
type Outcome = Result<usize, BrokenBarrier>;

/// What the data of a party says before it is released; it is overwritten then.
const UNDECIDED: Outcome = Err(BrokenBarrier);

/// What became of a party that arrived.
enum Arrival {
    Decided(Outcome),
    Joined(Ticket),
}

impl State {
    fn waiters_mut(&mut self) -> &mut WaitList<Outcome> {
        &mut self.waiters
    }

    /// What a party that arrives now is told, if it need not wait.
    fn arrive(&mut self, parties: usize) -> Option<Outcome> {
        if self.is_broken {
            return Some(Err(BrokenBarrier));
        }
        let last = parties - 1;
        if self.waiters.len() < last {
            return None;
        }
        // Numbered now and not on arrival, so that the numbers of one generation are distinct also
        // when a party left while it was filling.
        for index in 0..last {
            self.waiters.release_front_with(Ok(index));
        }
        Some(Ok(last))
    }

    fn arrive_or_join(&mut self, parties: usize, waker: &mut Option<Waker>) -> Arrival {
        if let Some(outcome) = self.arrive(parties) {
            return Arrival::Decided(outcome);
        }
        let waker = waker.take().expect("a party brings its waker");
        Arrival::Joined(self.waiters.join(waker, UNDECIDED))
    }

    fn close(&mut self, broken: bool) {
        self.is_broken = broken;
        self.waiters.release_first(usize::MAX, Err(BrokenBarrier));
    }
}

impl Barrier {
    /// A barrier for that many parties.
    ///
    /// # Panics
    ///
    /// When `parties` is zero.
    #[must_use = "a barrier does nothing until it is used"]
    #[track_caller]
    pub const fn new(parties: usize) -> Self {
        assert!(parties > 0, "a barrier needs at least one party");
        let state = State { is_broken: false, waiters: WaitList::new() };
        Self { parties, state: RefCell::new(state), label: Label::new() }
    }

    /// Gives the barrier a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named barrier"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.label = self.label.named(name);
        self
    }

    /// Arrives, and waits for the others. Returns a number from `0` to `parties - 1` that no other
    /// party of this generation gets; the last to arrive gets the highest, at once.
    ///
    /// A party arrives when its future is first polled.
    ///
    /// # Errors
    ///
    /// [`BrokenBarrier`] when the barrier is broken, is [reset](Self::reset) or is
    /// [aborted](Self::abort) while waiting. A party that had already been released is not affected.
    ///
    /// # Cancel safety
    ///
    /// Dropping a future that waits takes its arrival back. Dropping one that was released but not
    /// polled since changes nothing for the others: they have gone through.
    pub fn wait(&self) -> BarrierWait<'_> {
        BarrierWait { barrier: self, waiting: None }
    }

    /// Sends everybody who waits away with [`BrokenBarrier`] and makes the barrier usable again.
    ///
    /// ```
    /// let barrier = tulipa_sync::Barrier::new(2);
    /// barrier.abort();
    /// assert!(barrier.is_broken());
    /// barrier.reset();
    /// assert!(!barrier.is_broken());
    /// ```
    pub fn reset(&self) {
        self.close(false);
    }

    /// Breaks the barrier: those who wait and those who come get [`BrokenBarrier`], until it is
    /// [reset](Self::reset).
    pub fn abort(&self) {
        self.close(true);
    }

    /// How many parties it waits for.
    #[must_use = "asking has no effect"]
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many parties are waiting now.
    #[must_use = "asking has no effect"]
    pub fn n_waiting(&self) -> usize {
        self.state.borrow().waiters.len()
    }

    /// Whether it is broken: asyncio's `broken`.
    #[doc(alias = "broken")]
    #[must_use = "asking has no effect"]
    pub fn is_broken(&self) -> bool {
        self.state.borrow().is_broken
    }

    fn close(&self, broken: bool) {
        self.state.borrow_mut().close(broken);
        self.wake();
    }

    fn wake(&self) {
        wake_due(&self.state, State::waiters_mut);
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("name", &self.label.name())
            .field("parties", &self.parties)
            .field("n_waiting", &self.n_waiting())
            .field("broken", &self.is_broken())
            .finish()
    }
}

/// The future of [`Barrier::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct BarrierWait<'a> {
    barrier: &'a Barrier,
    waiting: Option<Waiting>,
}

impl BarrierWait<'_> {
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let barrier = self.barrier;
        let outcome = barrier.state.borrow_mut().arrive(barrier.parties);
        let arrival = match outcome {
            Some(outcome) => Arrival::Decided(outcome),
            None => {
                // Cloning a waker may run anything, another arrival for instance.
                let waker = cx.waker().clone();
                let mut waker = Some(waker);
                // In one borrow: an arrival in between would find a place that is not taken yet.
                barrier.state.borrow_mut().arrive_or_join(barrier.parties, &mut waker)
            }
        };
        match arrival {
            Arrival::Decided(outcome) => {
                barrier.wake();
                Poll::Ready(outcome)
            }
            Arrival::Joined(ticket) => {
                let waiting = self.waiting.insert(Waiting::unobserved(ticket));
                let resource = ResourceId::of(barrier);
                waiting.observed = barrier.label.begin(WaitKind::Barrier, resource, None);
                Poll::Pending
            }
        }
    }

    /// What the party was told, if it had been released.
    fn leave(&mut self) -> Option<Outcome> {
        let Waiting { ticket, observed: _observed } = self.waiting.take()?;
        let left = self.barrier.state.borrow_mut().waiters.leave(ticket);
        left.released
    }
}

impl Future for BarrierWait<'_> {
    type Output = Result<usize, BrokenBarrier>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &self.barrier.state;
        let Some(waiting) = &self.waiting else { return self.begin(cx) };
        if !poll_turn(
            state,
            State::waiters_mut,
            &waiting.ticket,
            waiting.observed.as_ref(),
            cx.waker(),
        ) {
            return Poll::Pending;
        }
        self.leave().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for BarrierWait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for BarrierWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWait").field("barrier", &self.barrier).finish_non_exhaustive()
    }
}
