//! Waiting for an instant.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tulipa_selector::Token;

use crate::LoopHandle;
use crate::await_graph::{On, Plain, Purpose, WaitId};
use crate::timers::Alarm;

/// Waits until `delay` is over; zero is [`yield_now`](crate::yield_now). Stands for `asyncio.sleep`.
///
/// The clock is read now, not at the first poll.
///
/// # Panics
/// Outside of a running loop; there [`LoopHandle::sleep`] serves.
///
/// # Order
/// Never early; whoever sleeps until an earlier instant wakes first, and for equal ones whoever began
/// to sleep first.
///
/// # Cancel safety
/// Dropping it removes the timer.
#[track_caller]
pub fn sleep(delay: Duration) -> Sleep {
    LoopHandle::current().sleep(delay)
}

/// Waits until the instant `when` of the loop's clock, for one turn if it is in the past.
///
/// # Panics
/// Outside of a running loop; there [`LoopHandle::sleep_until`] serves.
///
/// # Cancel safety
/// Dropping it removes the timer.
#[track_caller]
pub fn sleep_until(when: Instant) -> Sleep {
    LoopHandle::current().sleep_until(when)
}

/// A wait for an instant: see [`sleep`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Deadline,
    state: State,
}

/// A sleep is always suspended once, also one whose end is in the past.
#[derive(PartialEq, Eq)]
enum State {
    Fresh,
    Suspended,
}

impl LoopHandle {
    /// [`sleep`] on this loop, running or not.
    pub fn sleep(&self, delay: Duration) -> Sleep {
        self.sleep_until(self.deadline_after(delay))
    }

    /// [`sleep_until`] on this loop, running or not.
    pub fn sleep_until(&self, when: Instant) -> Sleep {
        self.sleep_as(when, Purpose::Sleep)
    }

    pub(crate) fn sleep_as(&self, when: Instant, purpose: Purpose) -> Sleep {
        Sleep { deadline: Deadline::new(self, when, purpose), state: State::Fresh }
    }
}

impl Sleep {
    /// When it is over.
    pub fn when(&self) -> Instant {
        self.deadline.when
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let fresh = std::mem::replace(&mut self.state, State::Suspended) == State::Fresh;
        let polled = self.deadline.poll(context);
        if fresh && polled.is_ready() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Sleep until {:?}>", self.when())
    }
}

/// An instant that can be polled. It has a timer while somebody waits.
pub(crate) struct Deadline {
    handle: LoopHandle,
    when: Instant,
    timer: Option<Token>,
    purpose: Purpose,
    wait: WaitId,
}

impl Deadline {
    pub(crate) fn new(handle: &LoopHandle, when: Instant, purpose: Purpose) -> Deadline {
        Deadline { handle: handle.clone(), when, timer: None, purpose, wait: WaitId::NONE }
    }

    pub(crate) fn when(&self) -> Instant {
        self.when
    }

    /// Ready at once if it is in the past.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let timers = &self.handle.core.timers;
        let Some(timer) = self.timer else {
            if self.when <= self.handle.time() {
                return Poll::Ready(());
            }
            if !self.handle.is_closed() {
                let alarm = Alarm::Wake(context.waker().clone());
                let inserted = timers.borrow_mut().insert(self.when, alarm);
                // With more than four billion timers pending, one more would never wake anybody.
                let timer =
                    inserted.unwrap_or_else(|_| panic!("the loop has room for no more timers"));
                self.timer = Some(timer);
                self.note_wait(timer);
            }
            return Poll::Pending;
        };
        if !timers.borrow().contains(timer) {
            self.timer = None;
            self.handle.core.wait_over(&mut self.wait);
            // A loop that is closed has dropped its timers, and wakes nobody any more.
            let early = self.handle.is_closed() && self.when > self.handle.time();
            return if early { Poll::Pending } else { Poll::Ready(()) };
        }
        let known = timers.borrow().wakes(timer, context.waker());
        if !known {
            // Wakers are the program's: cloned before the borrow and dropped after it.
            let waker = context.waker().clone();
            let old = timers.borrow_mut().set_waker(timer, waker);
            drop(old);
        }
        if !known || self.wait.is_none() {
            self.note_wait(timer);
        }
        Poll::Pending
    }

    /// Moves it. Who waits has to poll again.
    pub(crate) fn set(&mut self, when: Instant) {
        let old = self.disarm();
        self.when = when;
        drop(old);
    }

    /// Who waited has stopped to, for now; the timer stays.
    pub(crate) fn end_wait(&mut self) {
        self.handle.core.wait_over(&mut self.wait);
    }

    fn note_wait(&mut self, timer: Token) {
        let purpose = self.purpose;
        self.handle.core.wait_on(&mut self.wait, || On::Plain(Plain::Timer(purpose, timer)));
    }

    fn disarm(&mut self) -> Option<Alarm> {
        let timer = self.timer.take()?;
        self.handle.core.wait_over(&mut self.wait);
        self.handle.core.timers.borrow_mut().remove(timer)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let alarm = self.disarm();
        drop(alarm);
    }
}
