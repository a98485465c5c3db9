//! Tasks started from other threads: [`Remote::spawn`] and the future of their result.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

use tulipa_selector::Token;

use crate::await_graph::Shared;
use crate::job::{Job, JobHandle};
use crate::report::{ErrorContext, Origin};
use crate::task::Start;
use crate::{JoinError, Remote, RemoteError, TaskRef};

/// The result of a task on a loop of another thread: wait for it, or await it from any loop. Stands
/// for the `concurrent.futures.Future` of `run_coroutine_threadsafe`.
///
/// Dropping it leaves the task alone; if that panics, its loop's exception handler hears of it.
///
/// # Cancel safety
/// Giving up an await leaves the task alone.
#[must_use = "the task runs on without it; `drop` it to say that nobody wants the result"]
pub struct BlockingFuture<T> {
    /// `None` once the result was handed out.
    job: Option<JobHandle<Result<T, JoinError>>>,
    link: Arc<Link>,
    remote: Remote,
}

/// What the two threads share beside the result. Nothing of the program is run or dropped under the lock.
struct Link {
    state: Mutex<State>,
    thread: thread::ThreadId,
    location: &'static Location<'static>,
}

/// How far the task is, and what the holder of the future has said meanwhile: one does not wait for the
/// other, so both are kept.
struct State {
    stage: Stage,
    /// Whether the task is to be cancelled when it is started.
    cancelled: bool,
    /// Whether the future was dropped before the task had ended: the loop reports a panic.
    abandoned: bool,
}

/// What [`Link::cancel`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    ByLoop,
    Task(Token),
    TooLate,
}

/// The loop moves it on, each time under the lock, so that exactly one of the two sides hears of a panic.
#[derive(Clone, Copy)]
enum Stage {
    /// A task that is cancelled now is never started.
    Waiting,
    /// The future is being made, which is the program's code.
    Starting,
    Started(Token),
    /// If the future was there, the job has, or is about to have, the result.
    Ended,
}

impl Link {
    fn new(thread: thread::ThreadId, location: &'static Location<'static>) -> Link {
        let state = State { stage: Stage::Waiting, cancelled: false, abandoned: false };
        Link { state: Mutex::new(state), thread, location }
    }

    /// The loop: whether the task is to be started.
    fn begin(&self) -> bool {
        let mut state = self.lock();
        if !state.cancelled {
            state.stage = Stage::Starting;
        }
        !state.cancelled
    }

    /// The loop: the task is there. Whether it is to be cancelled, which nobody else does.
    fn started(&self, key: Token) -> bool {
        let mut state = self.lock();
        state.stage = Stage::Started(key);
        state.cancelled
    }

    /// The loop: the task has ended. Whether nobody else hears how.
    fn ended(&self) -> bool {
        let mut state = self.lock();
        state.stage = Stage::Ended;
        state.abandoned
    }

    /// The holder: the task is to be cancelled. Who does that: the loop, when it comes to it; or the
    /// holder, if it is told which task; or nobody any more.
    fn cancel(&self) -> Cancel {
        let mut state = self.lock();
        match state.stage {
            Stage::Started(key) => Cancel::Task(key),
            Stage::Ended => Cancel::TooLate,
            Stage::Waiting | Stage::Starting => {
                state.cancelled = true;
                Cancel::ByLoop
            }
        }
    }

    /// The holder goes. Whether the task has ended, so that the result is its own.
    fn abandon(&self) -> bool {
        let mut state = self.lock();
        let ended = matches!(state.stage, Stage::Ended);
        state.abandoned = !ended;
        ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// Runs a future as a task of the loop. `make` is sent there and makes the future, which itself
    /// need not be `Send`. Stands for `run_coroutine_threadsafe`.
    ///
    /// ```
    /// use tulipa_loop::EventLoop;
    ///
    /// let event_loop = EventLoop::new()?;
    /// let remote = event_loop.remote();
    /// let thread = std::thread::spawn(move || {
    ///     let answer = remote.spawn(|| async { 6 * 7 }).unwrap().wait();
    ///     remote.stop().unwrap();
    ///     answer
    /// });
    /// event_loop.run_forever()?;
    /// assert_eq!(thread.join().unwrap()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A panic of `make` itself goes to the loop's exception handler, and the result is
    /// [`JoinError::Cancelled`].
    ///
    /// # Order
    /// As [`call_soon`](Self::call_soon); the task's first step is in the turn after that.
    ///
    /// # Errors
    /// As [`call_soon`](Self::call_soon).
    #[track_caller]
    pub fn spawn<T, F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<BlockingFuture<T>, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let location = Location::caller();
        let result = Arc::new(Mutex::new(None));
        let take = result.clone();
        let (job, handle) = Job::at(location, move || {
            let result = take.lock().unwrap_or_else(PoisonError::into_inner).take();
            result.unwrap_or(Err(JoinError::Cancelled))
        });
        let link = Arc::new(Link::new(self.thread(), location));
        let started = link.clone();
        self.call_soon(move |handle| {
            if !started.begin() {
                // Dropping the job says that there is no result.
                return;
            }
            let task = handle.spawn_at(location, None, Start::Soon, make());
            let reference = task.reference();
            if started.started(reference.key()) {
                reference.cancel();
            }
            task.finish_with(move |task, ended| {
                let abandoned = started.ended();
                match ended {
                    Err(JoinError::Panicked(payload)) if abandoned => task.report_panic(payload),
                    ended => {
                        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                        job.run();
                    }
                }
            });
        })?;
        Ok(BlockingFuture { job: Some(handle), link, remote: self.clone() })
    }
}

impl<T> BlockingFuture<T> {
    /// Blocks this thread until the task has ended, and gives its result.
    ///
    /// # Errors
    /// [`JoinError`]; [`JoinError::Deadlock`] on the thread of the task's loop, which could not run
    /// meanwhile, unless the task has ended.
    pub fn wait(mut self) -> Result<T, JoinError> {
        if self.would_deadlock() {
            return Err(JoinError::Deadlock);
        }
        let job = self.job.take();
        job.map_or(Err(JoinError::Cancelled), |job| flatten(job.wait().ok()))
    }

    /// Blocks this thread until the task has ended, for at most `timeout`; gives this back if that was
    /// too short. Stands for `result(timeout)`.
    ///
    /// # Errors
    /// This future, when the time is over. Inside of `Ok` as [`wait`](Self::wait).
    pub fn wait_timeout(
        mut self,
        timeout: Duration,
    ) -> Result<Result<T, JoinError>, BlockingFuture<T>> {
        if self.would_deadlock() {
            return Ok(Err(JoinError::Deadlock));
        }
        let Some(job) = self.job.take() else { return Ok(Err(JoinError::Cancelled)) };
        match job.wait_timeout(timeout) {
            Ok(result) => Ok(flatten(result.ok())),
            Err(job) => {
                self.job = Some(job);
                Err(self)
            }
        }
    }

    /// Asks the task to end, as [`TaskRef::cancel`] does, from any thread. Returns `false` if it has
    /// ended, or its loop is closed. A task that was not started yet never is.
    pub fn cancel(&self) -> bool {
        if self.is_done() {
            return false;
        }
        let key = match self.link.cancel() {
            Cancel::Task(key) => key,
            Cancel::ByLoop => return !self.remote.is_closed(),
            Cancel::TooLate => return false,
        };
        let asked = self.remote.call_soon(move |handle| {
            TaskRef::of(handle.clone(), key).cancel();
        });
        asked.is_ok()
    }

    /// Whether the task has ended.
    pub fn is_done(&self) -> bool {
        self.job.as_ref().is_none_or(JobHandle::is_done)
    }

    /// Whether only this thread could end the task for which it is to wait.
    fn would_deadlock(&self) -> bool {
        !self.is_done() && self.link.thread == thread::current().id()
    }
}

/// A job without a result is one whose loop was closed.
fn flatten<T>(result: Option<Result<T, JoinError>>) -> Result<T, JoinError> {
    result.unwrap_or(Err(JoinError::Cancelled))
}

impl<T> Future for BlockingFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let loop_id = self.remote.loop_id();
        let job = self.job.as_mut().expect("a task was asked for its result a second time");
        let polled = job.poll_as(context, |job| Shared::Remote { job, loop_id });
        let Poll::Ready(result) = polled else { return Poll::Pending };
        self.job = None;
        Poll::Ready(flatten(result.ok()))
    }
}

impl<T> Drop for BlockingFuture<T> {
    fn drop(&mut self) {
        let Some(job) = self.job.take() else { return };
        if !self.link.abandon() {
            return;
        }
        // The result is there or on its way. A panic has nobody else to take it any more.
        if let Ok(Err(JoinError::Panicked(payload))) = job.wait() {
            let location = Some(self.link.location);
            // A closed loop has no exception handler either.
            let _ = self.remote.call_soon(move |handle| {
                handle.call_exception_handler(ErrorContext::panic(Origin::Task, location, payload));
            });
        }
    }
}

impl<T> fmt::Debug for BlockingFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_done() { "done" } else { "pending" };
        write!(f, "<BlockingFuture {state} spawned at {}>", self.link.location)
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p tulipa-loop --lib loom`
#[cfg(all(test, loom))]
mod loom_tests;
