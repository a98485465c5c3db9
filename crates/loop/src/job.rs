//! A piece of work in another thread, and its result.

use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::await_graph::{On, RemoteWait, Shared};
use crate::report::panic_message;

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// It was cancelled before it began.
    #[error("the job was cancelled before it began")]
    Cancelled,
    /// It panicked; this is the payload.
    #[error("the job panicked: {}", panic_message(&**.0))]
    Panicked(Box<dyn Any + Send>),
    /// The executor takes no more jobs, because it was shut down or its queue is full.
    #[error("the executor refused the job: {0}")]
    Refused(#[from] ExecutorError),
}

/// Why an executor refused a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// It was shut down.
    #[error("it was shut down")]
    ShutDown,
    /// As many jobs are waiting as its queue has room for.
    #[error("its queue is full")]
    Full,
    /// There is no thread, and none could be started.
    #[error("no thread could be started")]
    NoThread,
}

/// A job as an executor sees it: to be run once, or dropped, which cancels it.
pub struct Job {
    work: Arc<dyn Work>,
}

/// The result of a job, in the future: await it, from any loop, or [`wait`](Self::wait) for it.
///
/// Dropping it leaves the job alone; its result is then dropped, in the job's thread.
#[must_use = "a job gives its result to whoever awaits or waits for it"]
pub struct JobHandle<T> {
    cell: Arc<Cell<T>>,
    work: Arc<dyn Work>,
    wait: RemoteWait,
}

/// What is shared by whoever runs a job and whoever waits for it.
pub(crate) trait Work: Send + Sync {
    fn run(&self);
    fn cancel(&self) -> bool;
    /// Whether it has ended in any way.
    fn is_done(&self) -> bool;
    fn location(&self) -> &'static Location<'static>;
}

struct Task<T, F> {
    closure: Mutex<Option<F>>,
    cell: Arc<Cell<T>>,
    location: &'static Location<'static>,
}

struct Cell<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

/// How far a job is: `Pending` until it has ended in any way; `Taken` once its result was handed out.
enum State<T> {
    Pending(Option<Waker>),
    Done(Result<T, JobError>),
    Taken,
}

impl Job {
    /// A job and the handle to its result.
    #[track_caller]
    pub fn new<T, F>(closure: F) -> (Job, JobHandle<T>)
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Job::at(Location::caller(), closure)
    }

    pub(crate) fn at<T, F>(location: &'static Location<'static>, closure: F) -> (Job, JobHandle<T>)
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let cell = Arc::new(Cell { state: Mutex::new(State::Pending(None)), done: Condvar::new() });
        let closure = Mutex::new(Some(closure));
        let work: Arc<dyn Work> = Arc::new(Task { closure, cell: cell.clone(), location });
        (Job { work: work.clone() }, JobHandle { cell, work, wait: RemoteWait::default() })
    }

    /// Runs it, unless it was cancelled. A panic ends up in its handle.
    pub fn run(self) {
        self.work.run();
    }

    /// The place in the program that asked for it.
    pub fn location(&self) -> &'static Location<'static> {
        self.work.location()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.work.cancel();
    }
}

impl<T: Send, F: FnOnce() -> T + Send> Task<T, F> {
    /// Whoever takes the closure decides what becomes of the job.
    fn take(&self) -> Option<F> {
        self.closure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T: Send, F: FnOnce() -> T + Send> Work for Task<T, F> {
    fn run(&self) {
        if let Some(closure) = self.take() {
            let result = catch_unwind(AssertUnwindSafe(closure));
            self.cell.finish(result.map_err(JobError::Panicked));
        }
    }

    fn cancel(&self) -> bool {
        let Some(closure) = self.take() else { return false };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(closure)));
        self.cell.finish(Err(JobError::Cancelled));
        if let Err(payload) = dropped {
            // Only now: whoever waits for the job must hear of its end.
            resume_unwind(payload);
        }
        true
    }

    fn is_done(&self) -> bool {
        self.cell.is_done()
    }

    fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        !matches!(&*self.lock(), State::Pending(_))
    }

    fn finish(&self, result: Result<T, JobError>) {
        let before = mem::replace(&mut *self.lock(), State::Done(result));
        self.done.notify_all();
        if let State::Pending(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Takes the result out, or leaves a waker.
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        // A waker is user code: cloned before the lock, the old one dropped after it.
        let waker = waker.cloned();
        let mut state = self.lock();
        match mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            State::Taken => panic!("a job was asked for its result a second time"),
            State::Pending(old) => {
                *state = State::Pending(waker);
                drop(state);
                drop(old);
                None
            }
        }
    }
}

impl<T> JobHandle<T> {
    /// Keeps the job from running if it has not begun, and drops its closure now. Returns whether it
    /// was in time. A job that is running runs to its end.
    pub fn cancel(&self) -> bool {
        self.work.cancel()
    }

    /// Whether it has ended in any way.
    pub fn is_done(&self) -> bool {
        self.cell.is_done()
    }

    /// Blocks this thread until the result is there. On a loop's thread await it instead.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn wait(self) -> Result<T, JobError> {
        let mut state = self.cell.lock();
        while matches!(*state, State::Pending(_)) {
            state = self.cell.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.cell.take(None).unwrap_or(Err(JobError::Cancelled))
    }

    /// Blocks this thread until the result is there, for at most `timeout`; gives the handle back if
    /// that was too short.
    ///
    /// # Errors
    /// The handle, when the time is over.
    #[cfg_attr(all(test, loom), allow(unused, reason = "loom knows no time"))]
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<T, JobError>, JobHandle<T>> {
        #[cfg(not(all(test, loom)))]
        let pending = |state: &mut State<T>| matches!(state, State::Pending(_));
        #[cfg(not(all(test, loom)))]
        let waited = self.cell.done.wait_timeout_while(self.cell.lock(), timeout, pending);
        #[cfg(not(all(test, loom)))]
        drop(waited);
        self.cell.take(None).ok_or(self)
    }

    /// Gives the result, or notes what the wait is for.
    pub(crate) fn poll_as(
        &mut self,
        context: &Context<'_>,
        on: impl FnOnce(Weak<dyn Work>) -> Shared,
    ) -> Poll<Result<T, JobError>> {
        match self.cell.take(Some(context.waker())) {
            Some(result) => {
                self.wait.over();
                Poll::Ready(result)
            }
            None => {
                let work = &self.work;
                self.wait.wait_on(|| On::Shared(on(Arc::downgrade(work))));
                Poll::Pending
            }
        }
    }

    /// A handle to a job that an executor refused.
    pub(crate) fn refused(
        location: &'static Location<'static>,
        error: ExecutorError,
    ) -> JobHandle<T>
    where
        T: Send + 'static,
    {
        let (_, handle) = Job::at(location, || -> T { unreachable!("it is dropped at once") });
        *handle.cell.lock() = State::Done(Err(error.into()));
        handle
    }
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_as(context, Shared::Job)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Job created at {}>", self.location())
    }
}

impl<T> fmt::Debug for JobHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_done() { "done" } else { "pending" };
        write!(f, "<JobHandle {state} created at {}>", self.work.location())
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p tulipa-loop --lib loom`
#[cfg(all(test, loom))]
mod loom_tests;
