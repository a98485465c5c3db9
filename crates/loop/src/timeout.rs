//! Limits in time: [`timeout`], which drops a future, and [`wait_for`], which cancels a task.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::await_graph::{How, Purpose};
use crate::sleep::Deadline;
use crate::{Join, JoinError, LoopHandle, Task};

/// The time was over first. Stands for `TimeoutError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time was over first")]
pub struct Elapsed;

/// A [`Timeout`] was asked to change after it had ended. Stands for asyncio's `RuntimeError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the timeout has ended and cannot be rescheduled")]
pub struct TimeoutEnded;

/// Gives the future's value, or [`Elapsed`] after `delay`. Stands for `asyncio.timeout`.
///
/// At the deadline the future is dropped; a task that is awaited in it is cancelled with that, and not
/// waited for: see [`wait_for`]. The future is polled first, so a value that is there is given also
/// when the time is over. With a delay of zero the future runs until it is first suspended.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::{Elapsed, EventLoop, timeout};
///
/// let event_loop = EventLoop::new()?;
/// let result = event_loop.run_until_complete(async {
///     timeout(Duration::from_millis(1), std::future::pending::<()>()).await
/// })?;
/// assert_eq!(result, Err(Elapsed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Elapsed`].
///
/// # Panics
/// Outside of a running loop.
///
/// # Cancel safety
/// That of the future.
#[track_caller]
pub fn timeout<F: IntoFuture>(delay: Duration, future: F) -> TimeoutFuture<F::IntoFuture> {
    Timeout::after(delay).run(future)
}

/// [`timeout`] with an instant of the loop's clock. Stands for `asyncio.timeout_at`.
///
/// # Errors
/// [`Elapsed`].
///
/// # Panics
/// Outside of a running loop.
///
/// # Cancel safety
/// That of the future.
#[track_caller]
pub fn timeout_at<F: IntoFuture>(when: Instant, future: F) -> TimeoutFuture<F::IntoFuture> {
    Timeout::at(when).run(future)
}

/// A deadline that can be moved while its future runs. A clone of it is the same deadline.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::{EventLoop, LoopHandle, Timeout, sleep};
///
/// let event_loop = EventLoop::new()?;
/// let result = event_loop.run_until_complete(async {
///     let limit = Timeout::after(Duration::from_millis(1));
///     let more = limit.clone();
///     let work = async {
///         let later = LoopHandle::current().time() + Duration::from_secs(60);
///         more.reschedule(Some(later)).unwrap(); // it is getting on
///         sleep(Duration::from_millis(5)).await;
///         "done"
///     };
///     limit.run(work).await
/// })?;
/// assert_eq!(result, Ok("done"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Timeout {
    state: Rc<State>,
}

struct State {
    handle: LoopHandle,
    phase: Cell<Phase>,
    /// `None` never ends.
    deadline: RefCell<Option<Deadline>>,
    /// Whether it was moved, for `poll_deadline`.
    moved: Cell<bool>,
    /// Who has to poll again when the deadline is moved.
    waker: Cell<Option<Waker>>,
}

/// How far a timeout is: `New`, `Active` from the first poll of its future, then one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Active,
    Expired,
    Finished,
}

pin_project! {
    /// A future with a deadline: see [`timeout`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct TimeoutFuture<F> {
        running: Running,
        #[pin]
        future: Option<F>,
    }
}

/// Ends the timeout with the future that it runs, if that has begun.
struct Running {
    state: Rc<State>,
    begun: bool,
}

impl Timeout {
    /// The time is over after `delay`, counted from now.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn after(delay: Duration) -> Timeout {
        let handle = LoopHandle::current();
        let when = handle.deadline_after(delay);
        Timeout::new(handle, Some(when))
    }

    /// The time is over at an instant of the loop's clock.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn at(when: Instant) -> Timeout {
        Timeout::new(LoopHandle::current(), Some(when))
    }

    /// The time is never over, unless it is [rescheduled](Self::reschedule). Stands for
    /// `timeout(None)`.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn never() -> Timeout {
        Timeout::new(LoopHandle::current(), None)
    }

    fn new(handle: LoopHandle, when: Option<Instant>) -> Timeout {
        let deadline =
            RefCell::new(when.map(|when| Deadline::new(&handle, when, Purpose::Timeout)));
        let (phase, moved, waker) = (Cell::new(Phase::New), Cell::default(), Cell::default());
        Timeout { state: Rc::new(State { handle, phase, deadline, moved, waker }) }
    }

    /// Runs a future under this deadline: see [`timeout`].
    ///
    /// # Panics
    /// At the first poll, if a future has begun to run before. One that was dropped before its first
    /// poll does not count.
    pub fn run<F: IntoFuture>(&self, future: F) -> TimeoutFuture<F::IntoFuture> {
        let future = Some(future.into_future());
        TimeoutFuture { running: Running { state: self.state.clone(), begun: false }, future }
    }

    /// When the time is over; `None` is never.
    pub fn when(&self) -> Option<Instant> {
        self.state.deadline.borrow().as_ref().map(Deadline::when)
    }

    /// Moves the deadline: `None` is never, and one in the past ends the time at the next turn.
    ///
    /// # Errors
    /// If the future has ended, or its time is over.
    pub fn reschedule(&self, when: Option<Instant>) -> Result<(), TimeoutEnded> {
        let State { handle, phase, deadline, moved, waker } = &*self.state;
        if matches!(phase.get(), Phase::Expired | Phase::Finished) {
            return Err(TimeoutEnded);
        }
        let new = when.map(|when| Deadline::new(handle, when, Purpose::Timeout));
        let old = deadline.replace(new);
        moved.set(true);
        drop(old);
        if let Some(waker) = waker.take() {
            handle.core.release(handle, || waker.wake());
        }
        Ok(())
    }

    /// Whether the time was over before the future ended.
    pub fn expired(&self) -> bool {
        self.state.phase.get() == Phase::Expired
    }
}

impl State {
    /// Whether the time is over. The waker is kept for a deadline that is moved.
    fn poll_deadline(&self, context: &Context<'_>) -> Poll<()> {
        self.keep_waker(context);
        // Out of its cell, because a deadline clones and drops wakers, which are the program's.
        let Some(mut deadline) = self.deadline.take() else { return Poll::Pending };
        self.moved.set(false);
        let polled = deadline.poll(context);
        if self.moved.get() {
            // By a waker. Whoever polls this was woken by that.
            drop(deadline);
            return Poll::Pending;
        }
        self.deadline.replace(Some(deadline));
        polled
    }

    fn keep_waker(&self, context: &Context<'_>) {
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(context.waker()) => waker,
            _ => context.waker().clone(),
        };
        self.waker.set(Some(waker));
    }

    fn end(&self, phase: Phase) {
        if self.phase.get() == Phase::Active {
            self.phase.set(phase);
        }
        drop(self.waker.take());
    }
}

impl<F: Future> Future for TimeoutFuture<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !this.running.begun {
            this.running.begin();
        }
        let state = &this.running.state;
        let future = this.future.as_mut().as_pin_mut();
        let future = future.expect("a timeout was polled after it had ended");
        let (phase, output) = match future.poll(context) {
            Poll::Ready(value) => (Phase::Finished, Ok(value)),
            Poll::Pending if state.poll_deadline(context).is_ready() => {
                (Phase::Expired, Err(Elapsed))
            }
            Poll::Pending => return Poll::Pending,
        };
        state.end(phase);
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl Running {
    fn begin(&mut self) {
        let phase = self.state.phase.get();
        assert_eq!(phase, Phase::New, "a timeout runs one future");
        self.state.phase.set(Phase::Active);
        self.begun = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.begun {
            self.state.end(Phase::Finished);
        }
    }
}

/// Gives the task's result, or asks it to end after `delay` and waits until it has. Stands for
/// `asyncio.wait_for`.
///
/// A task that ends by itself meanwhile, or with a value although it was asked to end, gives that
/// value. With a delay of zero a task that has ended gives its result, and one that was never polled
/// never is.
///
/// # Errors
/// [`Elapsed`] if the task was cancelled at the deadline; [`JoinError`] inside of `Ok`, if it was cancelled
/// by somebody else or panicked.
///
/// # Panics
/// Outside of a running loop.
///
/// # Cancel safety
/// Dropping it cancels the task and does not wait.
#[track_caller]
pub fn wait_for<T>(task: Task<T>, delay: Duration) -> WaitFor<T> {
    let handle = LoopHandle::current();
    let deadline = Deadline::new(&handle, handle.deadline_after(delay), Purpose::WaitFor);
    WaitFor { join: task.into_future(), deadline, asked: Asked::No }
}

/// A task with a deadline: see [`wait_for`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitFor<T> {
    join: Join<T>,
    deadline: Deadline,
    asked: Asked,
}

/// Whether the task was asked to end.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

impl<T> Future for WaitFor<T> {
    type Output = Result<Result<T, JoinError>, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.join.poll_as(context, How::WaitFor) {
            Poll::Ready(Err(JoinError::Cancelled)) if self.asked == Asked::Yes => {
                return Poll::Ready(Err(Elapsed));
            }
            Poll::Ready(result) => return Poll::Ready(Ok(result)),
            Poll::Pending => {}
        }
        if self.asked == Asked::No && self.deadline.poll(context).is_ready() {
            self.asked = Asked::Yes;
            self.join.reference().cancel();
        }
        Poll::Pending
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Timeout {:?} when={:?}>", self.state.phase.get(), self.when())
    }
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = Timeout { state: self.running.state.clone() };
        f.debug_tuple("TimeoutFuture").field(&state).finish()
    }
}

impl<T> fmt::Debug for WaitFor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("join", &self.join).field("asked", &self.asked).finish()
    }
}
