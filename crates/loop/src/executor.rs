//! Blocking work from a loop: `run_in_executor` and the loop's default executor.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

pub use crate::job::{ExecutorError, Job, JobError, JobHandle};
pub use crate::thread_pool::{
    DEFAULT_QUEUE, Executor, Map, Stragglers, ThreadPool, ThreadPoolBuilder,
};

use crate::LoopHandle;
use crate::context::copy_context;

/// A job that is awaited: dropping it cancels the job if it has not begun, as cancelling the await
/// does in asyncio.
///
/// # Cancel safety
/// A job that has begun runs to its end, and its result is dropped.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct ExecutorJob<T> {
    job: JobHandle<T>,
}

impl<T> Future for ExecutorJob<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.job).poll(context)
    }
}

impl<T> Drop for ExecutorJob<T> {
    fn drop(&mut self) {
        self.job.cancel();
    }
}

/// Runs a closure that blocks in the running loop's default executor, in a copy of the current
/// [`Context`](crate::Context), and gives its result. Stands for `asyncio.to_thread`.
///
/// ```
/// use tulipa_loop::{EventLoop, to_thread};
///
/// let event_loop = EventLoop::new()?;
/// let manifest = event_loop.run_until_complete(async {
///     to_thread(|| std::fs::read_to_string("Cargo.toml")).await
/// })???;
/// assert!(manifest.contains("[package]"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The job is submitted now, not at the first poll.
///
/// # Errors
/// A [`JobError`] if the closure panicked or was refused.
///
/// # Panics
/// Outside of a running loop.
///
/// # Cancel safety
/// As [`ExecutorJob`]: a closure that runs is not stopped.
#[track_caller]
pub fn to_thread<T: Send + 'static>(
    closure: impl FnOnce() -> T + Send + 'static,
) -> ExecutorJob<T> {
    let mut context = copy_context();
    LoopHandle::current().run_in_executor(None, move || context.run(closure))
}

impl LoopHandle {
    /// Runs a closure that blocks, in another thread, and gives its result in a future. Stands for
    /// `run_in_executor`; `None` means the loop's default executor, which is a [`ThreadPool`] made at
    /// the first use.
    ///
    /// The job is submitted now, not at the first poll. It does not inherit the current context; one
    /// started with [`to_thread`] does.
    ///
    /// # Errors
    /// The future gives a [`JobError`] if the job panicked, was cancelled or was refused.
    #[track_caller]
    pub fn run_in_executor<T: Send + 'static>(
        &self,
        executor: Option<&dyn Executor>,
        closure: impl FnOnce() -> T + Send + 'static,
    ) -> ExecutorJob<T> {
        let location = Location::caller();
        let (job, handle) = Job::at(location, closure);
        let executed = match executor {
            Some(executor) => executor.execute(job),
            None => self.default_executor().and_then(|executor| executor.execute(job)),
        };
        let job = executed.map_or_else(|error| JobHandle::refused(location, error), |()| handle);
        ExecutorJob { job }
    }

    /// Replaces the default executor; the old one is shut down without waiting. On a closed loop the
    /// new one is. Stands for `set_default_executor`.
    pub fn set_default_executor(&self, executor: impl Executor + 'static) {
        if self.is_closed() {
            return executor.shutdown();
        }
        let old = self.core.executor.replace(Some(Arc::new(executor)));
        if let Some(old) = old {
            old.shutdown();
        }
    }

    /// Shuts the default executor down and waits for its jobs, for at most `timeout`, while the loop
    /// runs on. Later uses of the default executor are refused. Stands for
    /// `shutdown_default_executor`.
    ///
    /// # Errors
    /// What is still running when the time is over; it goes on, and nobody waits for it any more.
    ///
    /// # Cancel safety
    /// Once it was polled the executor is shut down; giving this up only ends the wait.
    pub async fn shutdown_default_executor(
        &self,
        timeout: Option<Duration>,
    ) -> Result<(), Stragglers> {
        self.core.executor_shut_down.set(true);
        let executor = self.core.executor.take();
        let Some(executor) = executor else { return Ok(()) };
        let (job, ended) = Job::new({
            let executor = executor.clone();
            move || executor.shutdown_and_wait(timeout)
        });
        let waiting = thread::Builder::new().name("tulipa_shutdown".to_owned());
        if waiting.spawn(move || job.run()).is_err() {
            // With no thread to wait in, there is no waiting.
            return executor.shutdown_and_wait(Some(Duration::ZERO));
        }
        match ended.await {
            Ok(ended) => ended,
            Err(_) => executor.shutdown_and_wait(Some(Duration::ZERO)),
        }
    }

    fn default_executor(&self) -> Result<Arc<dyn Executor>, ExecutorError> {
        if self.is_closed() || self.core.executor_shut_down.get() {
            return Err(ExecutorError::ShutDown);
        }
        let mut executor = self.core.executor.borrow_mut();
        let pool = || -> Arc<dyn Executor> { Arc::new(ThreadPool::builder().build()) };
        Ok(executor.get_or_insert_with(pool).clone())
    }
}
