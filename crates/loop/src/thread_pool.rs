//! A bounded pool of named threads for what blocks.
//!
//! Threads are started when a job finds none idle, up to the bound, and stay. All state is behind one
//! mutex and no job runs under it, so there is nothing that can go wrong between a queue and a
//! counter: a job that is queued while a thread goes to sleep is seen by that thread.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::job::{ExecutorError, Job, JobError, JobHandle};

/// Something that runs jobs in other threads. Stands for `concurrent.futures.Executor`.
pub trait Executor: Send + Sync {
    /// Runs a job at some time, in another thread, or drops it.
    ///
    /// # Errors
    /// Why it does neither now nor later.
    fn execute(&self, job: Job) -> Result<(), ExecutorError>;

    /// Takes no more jobs, and does not wait for those it has.
    fn shutdown(&self);

    /// Takes no more jobs, and waits for those it has for at most `timeout`, `None` for ever.
    ///
    /// # Errors
    /// What is still running then.
    fn shutdown_and_wait(&self, timeout: Option<Duration>) -> Result<(), Stragglers>;
}

/// A pool of threads. Stands for `ThreadPoolExecutor`.
///
/// A clone is another handle to the same pool. When the last one is dropped, the pool finishes its
/// jobs and its threads end; nobody waits for that.
///
/// ```
/// use tulipa_loop::ThreadPool;
///
/// let pool = ThreadPool::new(2);
/// let squares: Vec<i32> = pool.map(1..=4, |n| n * n).map(Result::unwrap).collect();
/// assert_eq!(squares, [1, 4, 9, 16]);
/// pool.shutdown(true, false).unwrap();
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    pool: Arc<Owner>,
}

/// Shuts the pool down when its last handle goes.
struct Owner {
    shared: Arc<Shared>,
    settings: Settings,
}

/// Sets up a [`ThreadPool`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ThreadPoolBuilder {
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    threads: usize,
    queue: usize,
    name: String,
}

/// Whether the bound of the queue holds for a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Kept,
    /// One item of a [`Map`], which looks for room before it takes one.
    Ignored,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How many threads wait for work.
    idle: usize,
    /// What each thread is running, by its name.
    threads: BTreeMap<String, Option<&'static Location<'static>>>,
    started: usize,
    /// How many threads run a job.
    busy: usize,
    shut_down: bool,
}

/// The jobs that were still running when the time for a shutdown was over. They go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("jobs are still running: {}", .threads.iter().map(|(name, job)| format!("{name}: job created at {job}")).collect::<Vec<_>>().join(", "))]
#[non_exhaustive]
pub struct Stragglers {
    /// The name of each thread, and the place that asked for the job it is running.
    pub threads: Vec<(String, &'static Location<'static>)>,
    /// How many jobs have not begun.
    pub queued: usize,
}

/// How many jobs may wait in a pool unless [`ThreadPoolBuilder::queue`] says otherwise. Each is a few
/// hundred bytes, so a forgotten limit costs megabytes, not the machine.
pub const DEFAULT_QUEUE: usize = 65_536;

impl ThreadPool {
    /// A pool of at most `threads` threads, at least one, which are named `tulipa_0` and so on.
    pub fn new(threads: usize) -> ThreadPool {
        ThreadPool::builder().threads(threads).build()
    }

    /// Sets up a pool with options. Unless told otherwise it has as many threads as asyncio's default
    /// executor: the number of cores and four, and not more than 32.
    pub fn builder() -> ThreadPoolBuilder {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings {
            threads: (cores + 4).min(32),
            queue: DEFAULT_QUEUE,
            name: "tulipa".to_owned(),
        };
        ThreadPoolBuilder { settings }
    }

    /// Runs a closure in one of the threads.
    ///
    /// # Order
    /// Jobs begin in the order in which they were submitted.
    ///
    /// # Errors
    /// The handle gives [`JobError::Refused`] if the pool was shut down or its queue is full.
    #[track_caller]
    pub fn submit<T: Send + 'static>(
        &self,
        closure: impl FnOnce() -> T + Send + 'static,
    ) -> JobHandle<T> {
        let location = Location::caller();
        let (job, handle) = Job::at(location, closure);
        match self.execute(job) {
            Ok(()) => handle,
            Err(error) => JobHandle::refused(location, error),
        }
    }

    /// Runs `function` on each item, and gives the results in the order of the items. Stands for
    /// `Executor.map`.
    ///
    /// It works ahead of whoever takes the results by two items for each thread, or by as many as
    /// the queue has room for, so the items may be endless.
    #[track_caller]
    pub fn map<I, T, F>(&self, items: I, function: F) -> Map<I::IntoIter, T, F>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        T: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
    {
        Map {
            pool: self.clone(),
            items: items.into_iter(),
            function: Arc::new(function),
            ahead: VecDeque::new(),
            location: Location::caller(),
        }
    }

    /// Takes no more jobs. With `cancel_pending` those that have not begun are cancelled; with `wait`
    /// it blocks until the others are done, so a job of this pool must not wait. Stands for
    /// `shutdown(wait, cancel_futures)`.
    ///
    /// # Errors
    /// Never with `wait`; without it, what is still running.
    pub fn shutdown(&self, wait: bool, cancel_pending: bool) -> Result<(), Stragglers> {
        let timeout = if wait { None } else { Some(Duration::ZERO) };
        self.pool.shared.shut_down(cancel_pending);
        self.pool.shared.wait_for_end(timeout)
    }

    /// Takes no more jobs, and blocks until those it has are done, for at most `timeout`.
    ///
    /// # Errors
    /// What is still running then. It goes on; the pool lets go of it.
    pub fn shutdown_timeout(
        &self,
        timeout: Duration,
        cancel_pending: bool,
    ) -> Result<(), Stragglers> {
        self.pool.shared.shut_down(cancel_pending);
        self.pool.shared.wait_for_end(Some(timeout))
    }

    fn enqueue(&self, job: Job, bound: Bound) -> Result<(), ExecutorError> {
        let settings = &self.pool.settings;
        let mut state = self.pool.shared.lock();
        // Refused jobs are dropped by the caller's return, not under the lock.
        if state.shut_down {
            drop(state);
            return Err(ExecutorError::ShutDown);
        }
        if bound == Bound::Kept && !state.has_room(settings) {
            drop(state);
            return Err(ExecutorError::Full);
        }
        if state.idle <= state.jobs.len() && state.threads.len() < settings.threads {
            let name = format!("{}_{}", settings.name, state.started);
            let (shared, own_name) = (self.pool.shared.clone(), name.clone());
            let started =
                thread::Builder::new().name(name.clone()).spawn(move || shared.work(&own_name));
            match started {
                Ok(_) => {
                    state.started += 1;
                    state.threads.insert(name, None);
                }
                // The threads that there are will come to it.
                Err(_) if !state.threads.is_empty() => {}
                Err(_) => {
                    drop(state);
                    return Err(ExecutorError::NoThread);
                }
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.pool.shared.work.notify_one();
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.pool.shared.lock().has_room(&self.pool.settings)
    }
}

impl Executor for ThreadPool {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        self.enqueue(job, Bound::Kept)
    }

    fn shutdown(&self) {
        self.pool.shared.shut_down(false);
    }

    fn shutdown_and_wait(&self, timeout: Option<Duration>) -> Result<(), Stragglers> {
        self.pool.shared.shut_down(false);
        self.pool.shared.wait_for_end(timeout)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.shut_down(false);
    }
}

impl State {
    /// A job for which a thread is free, or may be started, is not one that waits.
    fn has_room(&self, settings: &Settings) -> bool {
        self.jobs.len() + self.busy < settings.queue.saturating_add(settings.threads)
    }
}

/// Runs what ends with user destructors. The panic hook has told of a panic in one, and there is
/// nobody else to tell.
fn drop_quietly(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        std::mem::forget(payload);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self, name: &str) {
        loop {
            let mut state = self.lock();
            state.idle += 1;
            let nothing = |state: &mut State| state.jobs.is_empty() && !state.shut_down;
            let waited = self.work.wait_while(state, nothing);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            let Some(job) = state.jobs.pop_front() else {
                state.threads.remove(name);
                drop(state);
                self.ended.notify_all();
                return;
            };
            state.threads.insert(name.to_owned(), Some(job.location()));
            state.busy += 1;
            drop(state);
            // The job's own panic goes to its handle. What is left is the destructor of a result
            // that nobody wants.
            drop_quietly(|| job.run());
            let mut state = self.lock();
            state.busy -= 1;
            if let Some(running) = state.threads.get_mut(name) {
                *running = None;
            }
        }
    }

    fn shut_down(&self, cancel_pending: bool) {
        let mut state = self.lock();
        state.shut_down = true;
        let cancelled =
            if cancel_pending { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
        drop(state);
        self.work.notify_all();
        // Dropping them cancels them, which runs destructors: not under the lock, and one by one, so
        // that two that panic do not end the process.
        for job in cancelled {
            drop_quietly(|| drop(job));
        }
    }

    fn wait_for_end(&self, timeout: Option<Duration>) -> Result<(), Stragglers> {
        let running = |state: &mut State| !state.threads.is_empty();
        let state = match timeout {
            None => {
                let waited = self.ended.wait_while(self.lock(), running);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
            Some(timeout) => {
                let waited = self.ended.wait_timeout_while(self.lock(), timeout, running);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let busy = state.threads.iter();
        let threads: Vec<_> =
            busy.filter_map(|(name, job)| job.map(|location| (name.clone(), location))).collect();
        let queued = state.jobs.len();
        if threads.is_empty() && queued == 0 { Ok(()) } else { Err(Stragglers { threads, queued }) }
    }
}

impl ThreadPoolBuilder {
    /// How many threads there may be, at least one.
    pub fn threads(mut self, threads: usize) -> ThreadPoolBuilder {
        self.settings.threads = threads.max(1);
        self
    }

    /// How many jobs may wait for a thread: [`DEFAULT_QUEUE`] unless set. A job that is cancelled keeps
    /// its place until a thread comes to it.
    pub fn queue(mut self, jobs: usize) -> ThreadPoolBuilder {
        self.settings.queue = jobs;
        self
    }

    /// The beginning of the threads' names, less any NUL in it. Stands for `thread_name_prefix`.
    pub fn name(mut self, name: impl Into<String>) -> ThreadPoolBuilder {
        self.settings.name = name.into().replace('\0', "");
        self
    }

    /// Makes the pool. It starts no thread yet.
    pub fn build(self) -> ThreadPool {
        let shared =
            Shared { state: Mutex::default(), work: Condvar::new(), ended: Condvar::new() };
        ThreadPool { pool: Arc::new(Owner { shared: Arc::new(shared), settings: self.settings }) }
    }
}

/// The iterator of [`ThreadPool::map`].
#[must_use = "an iterator does nothing until it is used"]
pub struct Map<I: Iterator, T, F> {
    pool: ThreadPool,
    items: I,
    function: Arc<F>,
    ahead: VecDeque<JobHandle<T>>,
    location: &'static Location<'static>,
}

impl<I, T, F> Iterator for Map<I, T, F>
where
    I: Iterator,
    I::Item: Send + 'static,
    T: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
{
    type Item = Result<T, JobError>;

    fn next(&mut self) -> Option<Result<T, JobError>> {
        let most = 2 * self.pool.pool.settings.threads;
        while self.ahead.len() < most && (self.ahead.is_empty() || self.pool.has_room()) {
            let Some(item) = self.items.next() else { break };
            let function = self.function.clone();
            let (job, handle) = Job::at(self.location, move || function(item));
            // The item is taken, so its job goes in also if others have filled the queue meanwhile.
            self.ahead.push_back(match self.pool.enqueue(job, Bound::Ignored) {
                Ok(()) => handle,
                Err(error) => JobHandle::refused(self.location, error),
            });
        }
        self.ahead.pop_front().map(JobHandle::wait)
    }
}

impl<I: Iterator, T, F> Drop for Map<I, T, F> {
    fn drop(&mut self) {
        for job in &self.ahead {
            job.cancel();
        }
    }
}

impl<I: Iterator, T, F> fmt::Debug for Map<I, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let state = self.pool.shared.lock();
        let (threads, jobs, shut_down) = (state.threads.len(), state.jobs.len(), state.shut_down);
        drop(state);
        f.debug_struct("ThreadPool")
            .field("threads", &threads)
            .field("jobs", &jobs)
            .field("shut_down", &shut_down)
            .finish_non_exhaustive()
    }
}
