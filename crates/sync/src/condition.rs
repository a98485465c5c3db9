use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::lock::{Lock, LockAcquire, LockGuard};
use crate::wait::{Label, Observed, ResourceId, WaitKind};
use crate::wait_list::{Ticket, WaitList, poll_turn, wake_due};

/// Lets the holders of a [`Lock`] wait for a change of what it protects: asyncio's `Condition`.
///
/// asyncio's condition contains its lock. This one stands beside it, as in `std`, so that both fit
/// in one struct and several conditions can share a lock; it learns of the lock from the guard that
/// [`wait`](Self::wait) is given.
///
/// A waiter may return without a reason, because a notification whose receiver is dropped is passed
/// on. Wait in a loop, or with [`wait_for`](Self::wait_for).
///
/// ```
/// use futures_lite::future::{block_on, zip};
/// use tulipa_sync::{Condition, Lock};
///
/// let tulips = Lock::new(0);
/// let grown = Condition::new();
/// block_on(zip(
///     async {
///         let guard = tulips.lock().await;
///         let guard = grown.wait_for(guard, |tulips| *tulips >= 3).await;
///         assert_eq!(*guard, 3);
///     },
///     async {
///         *tulips.lock().await += 3;
///         grown.notify(1);
///     },
/// ));
/// ```
pub struct Condition {
    waiters: RefCell<WaitList<Notice>>,
    label: Label,
}

/// What a released waiter was released by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// `notify`: somebody has to see it.
    One,
    /// `notify_all`: all others were told as well.
    All,
}

impl Condition {
    /// A condition nobody waits for.
    #[must_use = "a condition does nothing until it is used"]
    #[track_caller]
    pub const fn new() -> Self {
        Self { waiters: RefCell::new(WaitList::new()), label: Label::new() }
    }

    /// Gives the condition a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named condition"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.label = self.label.named(name);
        self
    }

    /// Releases the lock, waits to be notified, and takes the lock again.
    ///
    /// The lock is released by the first poll, after the future has joined the waiters: no
    /// notification falls in between. Waiting without holding the lock, which asyncio reports at run
    /// time, does not compile.
    ///
    /// # Cancel safety
    ///
    /// A dropped future does not hold the lock. Where asyncio takes the lock again before it lets a
    /// cancellation through, there is no code left here that would need it. A notification that
    /// reached the future before it could return the guard goes to the next waiter, also when it
    /// was already waiting for the lock.
    pub fn wait<'a, T: ?Sized>(&'a self, guard: LockGuard<'a, T>) -> ConditionWait<'a, T> {
        ConditionWait { condition: self, phase: Phase::Holding(guard) }
    }

    /// Waits until `predicate` holds: asyncio's `wait_for`.
    ///
    /// It is called with the lock held, before the first wait and after each notification.
    ///
    /// # Cancel safety
    ///
    /// As for [`wait`](Self::wait).
    pub async fn wait_for<'a, T: ?Sized>(
        &'a self,
        mut guard: LockGuard<'a, T>,
        mut predicate: impl FnMut(&mut T) -> bool,
    ) -> LockGuard<'a, T> {
        while !predicate(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Waits for as long as `condition` holds, as `std` spells it.
    ///
    /// # Cancel safety
    ///
    /// As for [`wait`](Self::wait).
    pub async fn wait_while<'a, T: ?Sized>(
        &'a self,
        guard: LockGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockGuard<'a, T> {
        self.wait_for(guard, |value| !condition(value)).await
    }

    /// Wakes up to `count` waiters.
    ///
    /// asyncio wants the lock to be held. On one thread nothing can happen between the change and
    /// the notification, so it is not required here; with the lock held, the waiters take it after
    /// the guard is dropped.
    ///
    /// # Order
    ///
    /// First come, first served, and the waiters ask for the lock in the order in which they are
    /// polled after that.
    pub fn notify(&self, count: usize) {
        self.release(count, Notice::One);
    }

    /// Wakes all waiters.
    ///
    /// # Order
    ///
    /// As for [`notify`](Self::notify).
    pub fn notify_all(&self) {
        self.release(usize::MAX, Notice::All);
    }

    fn release(&self, count: usize, notice: Notice) {
        self.waiters.borrow_mut().release_first(count, notice);
        wake_due(&self.waiters, itself);
    }
}

impl Default for Condition {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read out first: a formatter writes to whatever the program made it of.
        let waiting = self.waiters.borrow().len();
        f.debug_struct("Condition")
            .field("name", &self.label.name())
            .field("waiting", &waiting)
            .finish()
    }
}

fn itself<T>(list: &mut WaitList<T>) -> &mut WaitList<T> {
    list
}

/// The future of [`Condition::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct ConditionWait<'a, T: ?Sized> {
    condition: &'a Condition,
    phase: Phase<'a, T>,
}

/// | phase | holds the lock | next |
/// |---|---|---|
/// | `Holding` | yes | `Waiting` at the first poll |
/// | `Waiting` | no | `Returning` when notified |
/// | `Returning` | no, but stands in its queue | `Done` when it has the lock |
/// | `Done` | the guard was returned | |
enum Phase<'a, T: ?Sized> {
    Holding(LockGuard<'a, T>),
    Waiting(Place<'a>, &'a Lock<T>),
    /// The fields are dropped in this order: the claim on the lock, then the notification.
    Returning(LockAcquire<'a, T>, Notified<'a>),
    Done,
}

/// A place among the waiters. Dropping it gives it up and passes on a notification.
struct Place<'a> {
    condition: &'a Condition,
    ticket: Option<Ticket>,
    observed: Option<Observed>,
}

impl<'a> Place<'a> {
    /// Leaves the waiters. The notice is there if the place had been notified.
    fn leave(&mut self) -> Option<Notified<'a>> {
        let left = self.condition.waiters.borrow_mut().leave(self.ticket.take()?);
        let condition = self.condition;
        let notified = left.released.map(|notice| Notified { condition, notice });
        drop(left);
        drop(self.observed.take());
        notified
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// A notification nobody has acted on. Dropping it passes it on.
struct Notified<'a> {
    condition: &'a Condition,
    notice: Notice,
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if self.notice == Notice::One {
            self.condition.notify(1);
        }
    }
}

impl<'a, T: ?Sized> ConditionWait<'a, T> {
    /// Joins the waiters and releases the lock.
    fn begin(&mut self, cx: &mut Context<'_>) {
        let condition = self.condition;
        let waker = cx.waker().clone();
        let Phase::Holding(guard) = std::mem::replace(&mut self.phase, Phase::Done) else {
            unreachable!("a wait begins with the lock held");
        };
        let ticket = condition.waiters.borrow_mut().join(waker, Notice::All);
        let mut place = Place { condition, ticket: Some(ticket), observed: None };
        place.observed =
            condition.label.begin(WaitKind::Condition, ResourceId::of(condition), None);
        self.phase = Phase::Waiting(place, LockGuard::source(&guard));
        drop(guard);
    }
}

impl<'a, T: ?Sized> Future for ConditionWait<'a, T> {
    type Output = LockGuard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.phase {
            Phase::Holding(_) => {
                self.begin(cx);
                return Poll::Pending;
            }
            Phase::Waiting(place, lock) => {
                let released = place.ticket.as_ref().is_some_and(|ticket| {
                    poll_turn(
                        &place.condition.waiters,
                        itself,
                        ticket,
                        place.observed.as_ref(),
                        cx.waker(),
                    )
                });
                if !released {
                    return Poll::Pending;
                }
                let lock = *lock;
                if let Some(notified) = place.leave() {
                    self.phase = Phase::Returning(lock.lock(), notified);
                }
            }
            Phase::Returning(..) => {}
            Phase::Done => panic!("`ConditionWait` polled after completion"),
        }
        let Phase::Returning(acquire, _) = &mut self.phase else { return Poll::Pending };
        let guard = ready!(Pin::new(acquire).poll(cx));
        if let Phase::Returning(_, notified) = std::mem::replace(&mut self.phase, Phase::Done) {
            // The caller has the guard and will look: the notification has arrived.
            std::mem::forget(notified);
        }
        Poll::Ready(guard)
    }
}

impl<T: ?Sized> fmt::Debug for ConditionWait<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionWait").field("condition", &self.condition).finish_non_exhaustive()
    }
}
