//! Cancel frames: where a cancelled task catches the request, and cleans up after it.
//!
//! A task that is cancelled cannot be thrown an exception. Either its whole future is dropped, or it
//! has said where: `cancellable(future)` is a frame around a part of it. Frames nest as their futures
//! do. A request goes to the innermost ones, the leaves; the first of them that consumes it does so
//! for all frames around it.
//!
//! Which frame is inside of which is known from the polls: while a frame polls its future it is the
//! innermost one of its task, and the parent of every frame that is polled meanwhile.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tulipa_selector::Token;

use crate::{Cancelled, LoopHandle};

/// Makes a part of a task the place at which the task can be cancelled: gives the future's value, or
/// `Err(Cancelled)` when [`TaskRef::cancel`](crate::TaskRef::cancel) was called meanwhile. What follows
/// is clean-up and may await. Stands for `except CancelledError`.
///
/// ```
/// use tulipa_loop::{EventLoop, cancellable, spawn, yield_now};
///
/// let event_loop = EventLoop::new()?;
/// let said = event_loop.run_until_complete(async {
///     let task = spawn(async {
///         match cancellable(std::future::pending::<()>()).await {
///             Ok(()) => "done",
///             Err(_cancelled) => {
///                 yield_now().await; // cleaning up may take a while
///                 "cleaned up"
///             }
///         }
///     });
///     yield_now().await;
///     task.cancel();
///     task.await
/// })??;
/// assert_eq!(said, "cleaned up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The future is polled before a request is looked at: a value that is there is not lost, and the
/// request stays pending for what comes next. Otherwise the future is dropped and the request is
/// consumed. To end after the clean-up just return, or cancel the task again.
///
/// It is one from its first poll until it has ended or is dropped, whether anybody polls it or not. One that
/// is put aside for a while keeps a request for when it is polled again; drop it if the task is to end before.
///
/// Outside of a task, in the main future of `run_until_complete` for example, there is nothing to
/// cancel, and this is the future itself.
///
/// # Cancel safety
/// That of the future.
pub fn cancellable<F: IntoFuture>(future: F) -> Cancellable<F::IntoFuture> {
    Cancellable { place: Place { at: None }, future: Some(future.into_future()) }
}

pin_project! {
    /// A part of a task at which it can be cancelled: see [`cancellable`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct Cancellable<F> {
        // Before the future: the frame ends first, so that what its destructor does is outside of it.
        place: Place,
        #[pin]
        future: Option<F>,
    }
}

/// The frame, from the first poll on. Its drop removes the frame.
struct Place {
    at: Option<(LoopHandle, Token, Token)>,
}

/// While a frame polls its future. Its drop makes the frame around it the innermost one again.
struct Polling<'a> {
    at: &'a (LoopHandle, Token, Token),
    outer: Option<Token>,
}

impl Place {
    /// Makes this the innermost frame of the running task; `None` if none is running.
    fn enter(&mut self, context: &Context<'_>) -> Option<Polling<'_>> {
        let running = LoopHandle::try_current();
        let running = running.and_then(|handle| Some((handle.core.current_task.get()?, handle)));
        let Some((task, handle)) = running else {
            self.leave();
            return None;
        };
        // A future can be polled by one task and then by another.
        let moved = self.at.as_ref().is_some_and(|(known, known_task, _)| {
            *known_task != task || known.core.id != handle.core.id
        });
        if moved {
            self.leave();
        }
        let known = self.at.as_ref().map(|(_, _, frame)| *frame);
        let entered = handle.core.tasks.borrow_mut().enter_frame(task, known);
        let (frame, outer) = entered?;
        let at = &*self.at.insert((handle, task, frame));
        let polling = Polling { at, outer };
        let tasks = &at.0.core.tasks;
        if !tasks.borrow().frame_has_waker(task, frame, context.waker()) {
            // Wakers are the program's: cloned before the borrow and dropped after it.
            let waker = context.waker().clone();
            let old = tasks.borrow_mut().set_frame_waker(task, frame, waker);
            drop(old);
        }
        Some(polling)
    }

    fn consume_request(&self) -> bool {
        let Some((handle, task, frame)) = &self.at else { return false };
        handle.core.tasks.borrow_mut().consume_request(*task, *frame)
    }

    fn leave(&mut self) {
        if let Some((handle, task, frame)) = self.at.take() {
            let waker = handle.core.tasks.borrow_mut().remove_frame(task, frame);
            drop(waker);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let (handle, task, _) = self.at;
        handle.core.tasks.borrow_mut().leave_frame(*task, self.outer);
    }
}

impl<F: Future> Future for Cancellable<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polling = this.place.enter(context);
        let future = this.future.as_mut().as_pin_mut();
        let polled = future.expect("`cancellable` was polled after it had ended").poll(context);
        drop(polling);
        let output = match polled {
            Poll::Ready(value) => Ok(value),
            Poll::Pending if this.place.consume_request() => Err(Cancelled),
            Poll::Pending => return Poll::Pending,
        };
        this.place.leave();
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for Cancellable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<F>();
        f.debug_struct("Cancellable").field("future", &name).finish_non_exhaustive()
    }
}
