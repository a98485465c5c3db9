//! [`Task`], the handle that owns a task's result, and the ways to wait for it.

use std::any::Any;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tulipa_selector::Token;

use super::{Key, Output, TaskRef};
use crate::LoopHandle;
use crate::await_graph::{How, On, Plain, WaitId};
use crate::core::unheard;
use crate::report::panic_message;

/// Why a task has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It was cancelled, or its loop was closed.
    #[error("the task was cancelled")]
    Cancelled,
    /// It panicked; this is the payload.
    #[error("the task panicked: {}", panic_message(&**.0))]
    Panicked(Box<dyn Any + Send>),
    /// The wait would never end: a task waits for itself, or its loop's thread blocks on it.
    #[error("the wait would never end")]
    Deadlock,
}

impl JoinError {
    /// Whether the task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, JoinError::Cancelled)
    }
}

/// The handle to a task: it owns the result. What does not need the result is in [`TaskRef`], which it
/// dereferences to.
///
/// A task is not a future but becomes one:
/// - `task.await` gives the result, and cancels the task if it is given up;
/// - [`task.joined().await`](Self::joined) does not cancel;
/// - dropping the handle detaches the task, which runs on. If it panics, that is reported to the
///   loop's exception handler; its value is dropped. A task whose errors matter and that nobody awaits
///   is left with [`detach`](Self::detach).
#[must_use = "dropping a task detaches it: its value is lost, `drop` it to say so"]
pub struct Task<T> {
    reference: TaskRef,
    raw: Raw<T>,
    wait: WaitId,
}

/// Where the result is.
///
/// `Live` becomes `Taken` when the result is handed out or the handle ends. `Refused` stays.
enum Raw<T> {
    Live(async_task::Task<Output<T>, Key>),
    Taken,
    /// A closed loop did not take the task.
    Refused,
}

/// The result of a task: what `task.await` waits on. Dropping it requests that the task be cancelled,
/// as asyncio passes a cancel on to what is awaited; see [`shield`] and [`Task::joined`].
///
/// # Cancel safety
/// The task is asked to end and is not waited for; a panic while it ends is reported.
#[must_use = "futures do nothing unless awaited"]
pub struct Join<T> {
    task: Task<T>,
}

/// The result of a task that stays with its handle: see [`Task::joined`].
#[must_use = "futures do nothing unless awaited"]
pub struct Joined<'a, T> {
    task: &'a mut Task<T>,
}

/// The result of a task that is not cancelled with whoever waits: see [`shield`].
#[must_use = "futures do nothing unless awaited"]
pub struct Shield<T> {
    task: Task<T>,
}

/// A task that is cancelled when this is dropped: see [`Task::scoped`]. It dereferences to its
/// [`TaskRef`], and [`joined`](Self::joined) gives the result.
#[must_use = "dropping it cancels the task"]
pub struct Scoped<T> {
    task: Task<T>,
}

impl<T> Scoped<T> {
    /// Waits for the result without giving up the guard: see [`Task::joined`].
    pub fn joined(&mut self) -> Joined<'_, T> {
        self.task.joined()
    }
}

impl<T> Deref for Scoped<T> {
    type Target = TaskRef;

    fn deref(&self) -> &TaskRef {
        &self.task
    }
}

impl<T> Drop for Scoped<T> {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl<T> fmt::Debug for Scoped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Scoped {:?}>", self.task)
    }
}

/// Waits for a task without passing a cancel on to it: when this is dropped the task is detached, and
/// runs on. Stands for `asyncio.shield`.
///
/// # Cancel safety
/// The result is lost; a panic is reported to the loop's exception handler.
pub fn shield<T>(task: Task<T>) -> Shield<T> {
    Shield { task }
}

/// The key of a task that does not exist.
pub(crate) const NO_TASK: Token = Token::from_bits(u64::MAX);

impl<T> Task<T> {
    pub(super) fn new(reference: TaskRef, raw: async_task::Task<Output<T>, Key>) -> Task<T> {
        Task { reference, raw: Raw::Live(raw), wait: WaitId::NONE }
    }

    pub(super) fn refused(handle: &LoopHandle) -> Task<T> {
        let reference = TaskRef::spawned(handle.clone(), NO_TASK, 0);
        Task { reference, raw: Raw::Refused, wait: WaitId::NONE }
    }

    /// The task without its result, to keep or to cancel it from elsewhere.
    pub fn reference(&self) -> TaskRef {
        self.reference.clone()
    }

    /// Waits for the result without taking the handle: giving up waiting leaves the task alone, and
    /// one can wait again.
    ///
    /// # Errors
    /// [`JoinError`].
    ///
    /// # Panics
    /// When it is awaited after the result was handed out.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub fn joined(&mut self) -> Joined<'_, T> {
        Joined { task: self }
    }

    /// Binds the task to a scope: it is cancelled when the guard is dropped, instead of detached.
    pub fn scoped(self) -> Scoped<T> {
        Scoped { task: self }
    }

    /// Takes the result without waiting; `None` while there is none. Stands for `result` and
    /// `exception`.
    ///
    /// # Panics
    /// If the result was handed out before.
    pub fn try_result(&mut self) -> Option<Result<T, JoinError>> {
        self.is_done().then(|| self.take())
    }

    /// Gives the result, or arranges for `context` to be woken when there is one. For combinators.
    pub(crate) fn poll_joined(
        &mut self,
        context: &Context<'_>,
        how: How,
    ) -> Poll<Result<T, JoinError>> {
        match self.poll_done(context, how) {
            Poll::Ready(Ok(())) => Poll::Ready(self.take()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when the task has ended; the result stays. An error if the task itself asks.
    fn poll_done(&mut self, context: &Context<'_>, how: How) -> Poll<Result<(), JoinError>> {
        let TaskRef { handle, key, .. } = &self.reference;
        let (core, key) = (&handle.core, *key);
        if core.tasks.borrow().has_ended(key) {
            core.wait_over(&mut self.wait);
            return Poll::Ready(Ok(()));
        }
        if core.current_task.get() == Some(key) {
            return Poll::Ready(Err(JoinError::Deadlock));
        }
        let known = core.tasks.borrow().is_joined_by(key, context.waker());
        if !known {
            // Wakers are the program's: cloned before the borrow and dropped after it.
            let waker = context.waker().clone();
            let old = core.tasks.borrow_mut().set_joiner(key, waker);
            drop(old);
        }
        if !known || self.wait.is_none() {
            core.wait_on(&mut self.wait, || On::Plain(Plain::Task(how, key)));
        }
        Poll::Pending
    }

    /// Gives the result to a closure, when the task has ended or now. The loop calls it in the turn in
    /// which the task ends, also when it closes.
    pub(crate) fn finish_with(mut self, f: impl FnOnce(&TaskRef, Result<T, JoinError>) + 'static)
    where
        T: 'static,
    {
        let reference = self.reference();
        reference.clone().on_end(move || {
            let result = self.take();
            // Before the handle goes, and with it the task's name and place.
            f(&reference, result);
            drop(self);
        });
    }

    /// Takes the result of a task that has ended.
    pub(crate) fn take(&mut self) -> Result<T, JoinError> {
        match mem::replace(&mut self.raw, Raw::Taken) {
            Raw::Live(raw) => take_result(raw),
            Raw::Taken => panic!("a task was asked for its result a second time"),
            Raw::Refused => {
                self.raw = Raw::Refused;
                Err(JoinError::Cancelled)
            }
        }
    }
}

impl Task<()> {
    /// Lets the task run on by itself; a panic is reported to the loop's exception handler. The same as
    /// dropping the handle.
    ///
    /// Tasks with a `Result` have [`detach`](Task::detach) too, which reports their error. Others have
    /// a value that nobody would see: `drop` them to say so.
    pub fn detach(self) {}
}

impl<T: 'static, E: fmt::Display + 'static> Task<Result<T, E>> {
    /// Lets the task run on by itself; an error or a panic is reported to the loop's exception handler,
    /// with the task's name and place.
    pub fn detach(self) {
        if matches!(self.raw, Raw::Taken) {
            return;
        }
        self.finish_with(|task, result| match result {
            Ok(Err(error)) => task.report_error(error.to_string()),
            Err(JoinError::Panicked(payload)) => task.report_panic(payload),
            Ok(Ok(_)) | Err(_) => {}
        });
    }
}

/// Gets the result of a task that has ended. Without one its step was leaked: see `schedule_task`.
fn take_result<T>(raw: async_task::Task<Output<T>, Key>) -> Output<T> {
    let mut raw = raw.fallible();
    let polled = Pin::new(&mut raw).poll(&mut Context::from_waker(Waker::noop()));
    // A drop would cancel it first, which is one more atomic operation.
    raw.detach();
    match polled {
        Poll::Ready(Some(output)) => output,
        Poll::Ready(None) | Poll::Pending => Err(JoinError::Cancelled),
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        let TaskRef { handle, key, .. } = &self.reference;
        handle.core.wait_over(&mut self.wait);
        if let Raw::Live(raw) = mem::replace(&mut self.raw, Raw::Taken) {
            let ended = handle.core.tasks.borrow().has_ended(*key);
            if !ended {
                raw.detach();
            } else {
                match take_result(raw) {
                    Err(JoinError::Panicked(payload)) => self.reference.report_panic(payload),
                    output => {
                        warn_unread(&self.reference, &output);
                        // The value is the program's, and so may be what goes with the entry.
                        let entry = handle.core.tasks.borrow_mut().detach(*key);
                        drop((output, entry));
                        return;
                    }
                }
            }
        }
        let entry = handle.core.tasks.borrow_mut().detach(*key);
        drop(entry);
    }
}

/// Debug mode names a `Result` that nobody asked for, which may be an error.
fn warn_unread<T>(task: &TaskRef, output: &Output<T>) {
    let name = std::any::type_name::<T>();
    if task.handle.debug() && output.is_ok() && name.starts_with("core::result::Result<") {
        unheard(|| {
            tracing::warn!(target: "tulipa", "the {name} of {task:?} was dropped unread");
        });
    }
}

impl<T> Deref for Task<T> {
    type Target = TaskRef;

    fn deref(&self) -> &TaskRef {
        &self.reference
    }
}

impl<T> IntoFuture for Task<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = Join<T>;

    fn into_future(self) -> Join<T> {
        Join { task: self }
    }
}

impl<T> Join<T> {
    /// The task that is waited for.
    pub fn reference(&self) -> TaskRef {
        self.task.reference()
    }

    pub(crate) fn poll_as(
        &mut self,
        context: &Context<'_>,
        how: How,
    ) -> Poll<Result<T, JoinError>> {
        self.task.poll_joined(context, how)
    }
}

impl<T> Future for Join<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_as(context, How::Join)
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        let TaskRef { handle, key, .. } = &self.task.reference;
        // A task that tried to wait for itself has got its error, and goes on.
        let own = handle.core.current_task.get() == Some(*key);
        if matches!(self.task.raw, Raw::Live(_)) && !own {
            self.task.cancel();
        }
    }
}

impl<T> Future for Joined<'_, T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.poll_joined(context, How::Joined)
    }
}

impl<T> Drop for Joined<'_, T> {
    fn drop(&mut self) {
        let Task { reference, wait, .. } = &mut *self.task;
        reference.handle.core.wait_over(wait);
    }
}

impl<T> Future for Shield<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.poll_joined(context, How::Shield)
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl<T> fmt::Debug for Join<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Join {:?}>", self.task)
    }
}

impl<T> fmt::Debug for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Joined {:?}>", self.task)
    }
}

impl<T> fmt::Debug for Shield<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Shield {:?}>", self.task)
    }
}
