//! [`run()`] and [`Runner`]: a whole program on a loop, from its main future to the end of its last task.
//!
//! What is left when the main future has ended is asked to end, and waited for: a clean-up may await.
//! There is no limit for how long it takes, as in asyncio; whoever wants one has a `timeout` in it. Only
//! clean-ups that start tasks which start tasks have one: [`MOST_SHUTDOWN_ROUNDS`].

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::task::Start;
use crate::{ErrorContext, EventLoop, JoinError, LoopHandle, RunError, current_task};

/// How long a program waits at its end for the jobs of its default executor: asyncio's value. Threads
/// cannot be stopped, and a program that never ends is worse than one that ends without them.
pub const EXECUTOR_SHUTDOWN: Duration = Duration::from_secs(300);

/// How many times the tasks that are there are asked to end. The second time it is those that clean-ups
/// have started; what is left after the last one is dropped with the loop, which reports it.
const MOST_SHUTDOWN_ROUNDS: usize = 16;

/// Runs a program: makes a loop, runs `main` on it as a task, and ends everything else when it has ended.
/// Stands for `asyncio.run`.
///
/// ```
/// use std::time::Duration;
///
/// let answer = tulipa_loop::run(async {
///     tulipa_loop::sleep(Duration::from_millis(1)).await;
///     42
/// })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), tulipa_loop::RunError>(())
/// ```
///
/// What happens at the end, and at Ctrl-C, is written at [`Runner`].
///
/// # Errors
/// As [`Runner::run`]; [`RunError::Select`] if the process has no descriptor left for a loop.
///
/// # Panics
/// With the panic of `main`, when everything has ended.
#[track_caller]
pub fn run<F: Future + 'static>(main: F) -> Result<F::Output, RunError> {
    Runner::new()?.run_to_the_end(main)
}

/// Runs one future after the other on one loop, and ends what they leave behind. Stands for
/// `asyncio.Runner`.
///
/// ```
/// use tulipa_loop::{Runner, spawn};
///
/// let runner = Runner::new()?;
/// let task = runner.run(async { spawn(async { 6 * 7 }) })?;
/// assert_eq!(runner.run(task.into_future())??, 42);
/// runner.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The end
/// [`close`](Self::close), or dropping it,
/// 1. asks every task to end, and waits until it has: clean-ups after a
///    [`cancellable`](crate::cancellable) run, and panics that nobody takes are reported;
/// 2. shuts the default executor down and waits for its jobs, for at most [`EXECUTOR_SHUTDOWN`];
/// 3. closes the loop.
///
/// # Ctrl-C
/// With the feature `signal`, while [`run`](Self::run) is at work, the first Ctrl-C cancels the main task,
/// and the second one ends the process, also when the loop is stuck in a callback. A main task that was
/// ended by it gives [`RunError::Interrupted`]; one that cleans up and goes on gives its value. While
/// nothing runs, and while [`close`](Self::close) waits, Ctrl-C does what it did before.
///
/// A program that listens to Ctrl-C itself, by a handler or a stream of the same loop, is left alone, and
/// so is one in which Ctrl-C does not end the process in the first place.
pub struct Runner {
    event_loop: EventLoop,
    #[cfg(all(unix, feature = "signal"))]
    listens: bool,
    interrupted: Rc<Cell<bool>>,
}

impl Runner {
    /// A runner with a loop of its own.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn new() -> io::Result<Runner> {
        Ok(Runner::with_loop(EventLoop::new()?))
    }

    /// A runner for a loop with options. Stands for `loop_factory`.
    pub fn with_loop(event_loop: EventLoop) -> Runner {
        Runner {
            event_loop,
            #[cfg(all(unix, feature = "signal"))]
            listens: true,
            interrupted: Rc::default(),
        }
    }

    /// Whether it listens to Ctrl-C while it runs; it does unless told otherwise.
    #[cfg(all(unix, feature = "signal"))]
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    #[must_use = "it is the runner"]
    pub fn ctrl_c(mut self, listens: bool) -> Runner {
        self.listens = listens;
        self
    }

    /// Runs a future as a task of the loop, and gives its value. Other tasks stay, and go on when this
    /// is called again. Stands for `Runner.run`.
    ///
    /// # Errors
    /// [`RunError`]; [`Interrupted`](RunError::Interrupted) or [`Cancelled`](RunError::Cancelled) if
    /// the task was cancelled, [`Closed`](RunError::Closed) after [`close`](Self::close).
    ///
    /// # Panics
    /// With the future's panic. The runner can be used again.
    #[track_caller]
    pub fn run<F: Future + 'static>(&self, future: F) -> Result<F::Output, RunError> {
        let joined = self.run_task(future)?;
        self.settle(joined)
    }

    /// Ends everything, as written [above](Runner#the-end). A second call does nothing.
    ///
    /// # Errors
    /// [`RunError::AlreadyRunning`] inside of a running loop. If the loop failed or was stopped while
    /// it waited for the end of its tasks, it is closed nevertheless.
    pub fn close(&self) -> Result<(), RunError> {
        if self.event_loop.is_closed() {
            return Ok(());
        }
        let handle = self.event_loop.handle();
        let ended = self.event_loop.run_until_complete(async move {
            handle.cancel_all_tasks().await;
            if let Err(late) = handle.shutdown_default_executor(Some(EXECUTOR_SHUTDOWN)).await {
                let message = "the default executor did not end with the program";
                handle.call_exception_handler(ErrorContext::error(message, late.to_string()));
            }
        });
        if let Err(RunError::AlreadyRunning { .. }) = ended {
            return ended;
        }
        self.event_loop.close()?;
        ended
    }

    /// The loop. Stands for `get_loop`.
    pub fn get_loop(&self) -> LoopHandle {
        self.event_loop.handle()
    }

    /// Runs a main future, closes, and only then resumes its panic if it had one.
    #[track_caller]
    pub(crate) fn run_to_the_end<F: Future + 'static>(
        self,
        main: F,
    ) -> Result<F::Output, RunError> {
        let joined = self.run_task(main);
        let closed = self.close();
        let value = self.settle(joined?);
        closed?;
        value
    }

    #[track_caller]
    fn run_task<F>(&self, future: F) -> Result<Result<F::Output, JoinError>, RunError>
    where
        F: Future + 'static,
    {
        let location = Location::caller();
        let handle = self.event_loop.handle();
        self.interrupted.set(false);
        #[cfg(all(unix, feature = "signal"))]
        let (listens, interrupted) = (self.listens, self.interrupted.clone());
        // Spawned inside, so that a loop that cannot run has no task that was never run.
        self.event_loop.run_until_complete(async move {
            let task = handle.spawn_at(location, None, Start::Soon, future);
            #[cfg(all(unix, feature = "signal"))]
            let _watch = listens.then(|| {
                let task = task.reference();
                handle.watch_interrupt(move || interrupted.set(task.cancel()))
            });
            task.await
        })
    }

    fn settle<T>(&self, joined: Result<T, JoinError>) -> Result<T, RunError> {
        match joined {
            Ok(value) => Ok(value),
            Err(JoinError::Panicked(payload)) => resume_unwind(payload),
            Err(_) if self.interrupted.get() => Err(RunError::Interrupted),
            Err(_) => Err(RunError::Cancelled(self.event_loop.id())),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Where it cannot run, the loop's own end drops the tasks and reports each.
        let _reported = self.close();
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Runner {:?}>", self.event_loop)
    }
}

impl LoopHandle {
    /// Asks all tasks of this loop but the one that calls this to end, and waits until they have. What
    /// a [`Runner`] does at its end, for loops that are run by other means.
    ///
    /// A task that consumes the request and goes on is waited for all the same. What clean-ups spawn is
    /// cancelled in its turn, up to sixteen times.
    ///
    /// # Cancel safety
    /// The tasks have been asked to end and are not waited for.
    pub async fn cancel_all_tasks(&self) {
        let current = current_task();
        for _ in 0..MOST_SHUTDOWN_ROUNDS {
            let mut tasks = self.all_tasks();
            tasks.retain(|task| Some(task) != current.as_ref());
            if tasks.is_empty() {
                return;
            }
            let waits = Rc::new((Cell::new(tasks.len()), Cell::new(None::<Waker>)));
            for task in tasks {
                let waits = waits.clone();
                task.add_done_callback(move |_, _| {
                    waits.0.set(waits.0.get() - 1);
                    let waker = if waits.0.get() == 0 { waits.1.take() } else { None };
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                });
                task.cancel();
            }
            poll_fn(|context| {
                if waits.0.get() == 0 {
                    return Poll::Ready(());
                }
                drop(waits.1.replace(Some(context.waker().clone())));
                Poll::Pending
            })
            .await;
        }
    }
}
