use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::wait::{Label, ResourceId, WaitKind};
use crate::wait_list::{WaitList, Waiting, poll_turn, wake_due};

/// A flag that tasks wait for: asyncio's `Event`.
///
/// [`set`](Self::set) releases everybody who waits, and the event stays set until it is
/// [cleared](Self::clear). A release is final: a `clear` right after the `set` does not take it
/// back.
///
/// ```
/// use futures_lite::future::{block_on, zip};
/// use tulipa_sync::Event;
///
/// let started = Event::new();
/// block_on(zip(started.wait(), async { started.set() }));
/// assert!(started.is_set());
/// ```
pub struct Event {
    state: RefCell<State>,
    label: Label,
}

struct State {
    is_set: bool,
    /// How often the event went from clear to set.
    sets: u64,
    waiters: WaitList<()>,
}

impl State {
    fn waiters_mut(&mut self) -> &mut WaitList<()> {
        &mut self.waiters
    }

    /// Returns whether somebody has to be woken.
    fn set(&mut self) -> bool {
        if self.is_set {
            return false;
        }
        self.is_set = true;
        self.sets += 1;
        while self.waiters.release_front() {}
        self.waiters.has_due()
    }

    fn was_set_since(&self, seen: u64) -> bool {
        self.is_set || self.sets != seen
    }
}

impl Event {
    /// An event that is not set.
    #[must_use = "an event does nothing until it is used"]
    #[track_caller]
    pub const fn new() -> Self {
        let state = State { is_set: false, sets: 0, waiters: WaitList::new() };
        Self { state: RefCell::new(state), label: Label::new() }
    }

    /// Gives the event a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named event"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.label = self.label.named(name);
        self
    }

    /// Sets the event and releases all who wait. Does nothing when it is set already.
    ///
    /// # Order
    ///
    /// Waiters are woken in the order in which they began to wait.
    pub fn set(&self) {
        let due = self.state.borrow_mut().set();
        if due {
            wake_due(&self.state, State::waiters_mut);
        }
    }

    /// Clears the event: who calls [`wait`](Self::wait) from now on waits for the next `set`.
    pub fn clear(&self) {
        self.state.borrow_mut().is_set = false;
    }

    /// Whether the event is set.
    ///
    /// ```
    /// let event = tulipa_sync::Event::new();
    /// event.set();
    /// assert!(event.is_set());
    /// event.clear();
    /// assert!(!event.is_set());
    /// ```
    #[must_use = "asking has no effect"]
    pub fn is_set(&self) -> bool {
        self.state.borrow().is_set
    }

    /// Waits until the event is set. Ready at once, without a turn of the executor, if it is.
    ///
    /// A `set` after this call counts, also when the future is polled only after a `clear`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops waiting: a `set` is for everybody, so nothing is lost.
    pub fn wait(&self) -> EventWait<'_> {
        EventWait { event: self, seen: self.state.borrow().sets, waiting: None }
    }
}

impl Default for Event {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read out first: a formatter writes to whatever the program made it of.
        let waiting = self.state.borrow().waiters.len();
        f.debug_struct("Event")
            .field("name", &self.label.name())
            .field("set", &self.is_set())
            .field("waiting", &waiting)
            .finish()
    }
}

/// The future of [`Event::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct EventWait<'a> {
    event: &'a Event,
    /// The event's count of sets when the future was made.
    seen: u64,
    waiting: Option<Waiting>,
}

impl EventWait<'_> {
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { event, seen, .. } = *self;
        // Cloning a waker may run anything, so the flag is read again.
        let waker = cx.waker().clone();
        let was_set = event.state.borrow().was_set_since(seen);
        if was_set {
            return Poll::Ready(());
        }
        let ticket = event.state.borrow_mut().waiters.join(waker, ());
        let waiting = self.waiting.insert(Waiting::unobserved(ticket));
        waiting.observed = event.label.begin(WaitKind::Event, ResourceId::of(event), None);
        Poll::Pending
    }

    fn leave(&mut self) {
        if let Some(Waiting { ticket, observed: _observed }) = self.waiting.take() {
            let _left = self.event.state.borrow_mut().waiters.leave(ticket);
        }
    }
}

impl Future for EventWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let event = self.event;
        if let Some(waiting) = &self.waiting {
            if !poll_turn(
                &event.state,
                State::waiters_mut,
                &waiting.ticket,
                waiting.observed.as_ref(),
                cx.waker(),
            ) {
                return Poll::Pending;
            }
            self.leave();
            return Poll::Ready(());
        }
        let was_set = event.state.borrow().was_set_since(self.seen);
        if was_set { Poll::Ready(()) } else { self.begin(cx) }
    }
}

impl Drop for EventWait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for EventWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWait").field("event", &self.event).finish_non_exhaustive()
    }
}
