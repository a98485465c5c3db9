//! Several cores: one loop for each, behind one address.
//!
//! The loop that asks for workers is their supervisor; each worker is a job of a thread pool that runs a loop of its own.
//! The two talk through [`Remote`]s only. A worker that has begun sends its own; what the supervisor has to tell it (a
//! socket, the end) is a call on that. How a worker has ended is the result of its job, a panic included.
//!
//! | worker | what is true | next |
//! |---|---|---|
//! | down | its job has not begun, or has not said that it listens | up; down again after a delay if the job ends |
//! | up | its `Remote` is known | down, when its job ends |

mod acceptor;
mod worker;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tulipa_loop::{
    ErrorContext, JobError, LoopHandle, Promise, Remote, SharedFuture, Task, ThreadPool, sleep,
};

use self::worker::{Assignment, Make, Source};
use crate::retry::RetryPolicy;
use crate::{Address, Endpoint, Protocol};

/// A worker that has died is started again after this time, then after twice as long, and so on to the longest: one that
/// dies at once must not take a core, and one that dies once a day must be back at once.
const FIRST_RESTART: Duration = Duration::from_millis(100);
const LONGEST_RESTART: Duration = Duration::from_secs(10);

/// One that has lived for longer than this is started again after the shortest time.
const LIVED_WELL: Duration = Duration::from_secs(60);

/// How connections come to the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// Each worker listens by itself, and the operating system chooses (`SO_REUSEPORT`): the fastest. A worker that is
    /// behind gets its share nevertheless, and what waits for one that dies is lost. Internet addresses only.
    #[default]
    ReusePort,
    /// The supervisor accepts, and hands connections over in turn.
    RoundRobin,
    /// The supervisor accepts, and hands each connection to the worker that has the fewest.
    LeastConnections,
}

/// How to serve with several loops, each in a thread of its own.
///
/// ```no_run
/// use std::io;
/// use tulipa_protocols::{Protocol, Transport, Workers};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// # async fn example() -> io::Result<()> {
/// let pool = Workers::on("127.0.0.1:8080").serve(|| || Echo).await?;
/// println!("{} loops listen on {}", pool.count(), pool.local_addr());
/// # tulipa_loop::sleep(std::time::Duration::MAX).await;
/// pool.shutdown(std::time::Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing listens before `serve`"]
pub struct Workers {
    endpoint: Endpoint,
    count: usize,
    distribution: Distribution,
    backlog: u32,
    restarts: RetryPolicy,
}

/// As many connections may wait to be accepted, unless it is said otherwise.
const BACKLOG: u32 = 1024;

impl Workers {
    /// Workers behind an address, one for each core. If a host has several addresses it is the first one.
    pub fn on(endpoint: impl Into<Endpoint>) -> Workers {
        let restarts =
            RetryPolicy::exponential(FIRST_RESTART, LONGEST_RESTART).reset_after(LIVED_WELL);
        Workers {
            endpoint: endpoint.into(),
            count: available_parallelism().map_or(1, usize::from),
            distribution: Distribution::default(),
            backlog: BACKLOG,
            restarts,
        }
    }

    /// So many workers.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    pub fn count(mut self, count: usize) -> Workers {
        assert!(count > 0, "there must be a worker");
        self.count = count;
        self
    }

    /// How connections come to them; [`Distribution::ReusePort`] unless it is said.
    pub fn distribution(mut self, distribution: Distribution) -> Workers {
        self.distribution = distribution;
        self
    }

    /// How many connections may wait to be accepted, by each that listens; 1024 at first.
    pub fn backlog(mut self, backlog: u32) -> Workers {
        self.backlog = backlog;
        self
    }

    /// When a worker that has died is started again: after 0.1 seconds, and up to 10 if it dies again and again. One that
    /// is not to be started again stays away.
    pub fn restarts(mut self, policy: RetryPolicy) -> Workers {
        self.restarts = policy;
        self
    }

    /// Starts the workers, and returns when all of them listen. `make` is called in each worker's thread, on its loop, and
    /// gives the factory of its protocols: what it makes need not be [`Send`].
    ///
    /// A worker whose loop ends, by a panic of `make` or by a [`stop`](LoopHandle::stop), is reported to the exception
    /// handler of the current loop, and started again. Its connections are lost.
    ///
    /// # Errors
    /// That the address cannot be had, or a thread not be started; all workers are ended then. That a panic of `make`
    /// has ended a worker before it listened.
    ///
    /// # Cancel safety
    /// Dropping the future ends the workers.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn serve<F, P>(
        self,
        make: impl Fn() -> F + Send + Sync + 'static,
    ) -> io::Result<WorkerPool>
    where
        F: FnMut() -> P + 'static,
        P: Protocol + 'static,
    {
        let handle = LoopHandle::current();
        let addresses = self.endpoint.resolve(&handle).await?;
        let first = addresses.first().copied();
        let first = first.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        // It keeps the address, with its real port, for workers to come.
        let shares = self.distribution == Distribution::ReusePort;
        let door = worker::bind(first, shares, self.backlog)?;
        let address = door.address.clone();
        let state = PoolState::new(&handle, address, &self);
        let make: Make = Arc::new(move |worker| worker::start(worker, make()));
        let pool = WorkerPool(state);
        let mut started = Vec::new();
        for index in 0..self.count {
            let (promise, listening) = handle.create_future();
            started.push(listening);
            let supervised = supervise(pool.0.clone(), index, make.clone(), promise);
            pool.0.tasks.borrow_mut().push(handle.spawn(supervised));
        }
        for listening in started {
            let gone = || io::Error::new(io::ErrorKind::NotConnected, "the workers were ended");
            listening.await.unwrap_or_else(|_| Err(gone()))?;
        }
        if shares {
            pool.0.door.replace(Some(door));
        } else {
            let accepting = acceptor::accept(pool.0.clone(), door, self.distribution);
            pool.0.tasks.borrow_mut().push(handle.spawn(accepting));
        }
        Ok(pool)
    }
}

/// Loops that serve together: what [`Workers::serve`] starts. Dropping it ends them at once.
#[must_use = "dropping it ends the workers"]
pub struct WorkerPool(Rc<PoolState>);

struct PoolState {
    id: u64,
    handle: LoopHandle,
    address: Address,
    backlog: u32,
    restarts: RetryPolicy,
    shares: bool,
    threads: ThreadPool,
    workers: Vec<Worker>,
    tasks: RefCell<Vec<Task<()>>>,
    door: RefCell<Option<worker::Door>>,
    /// With the grace that workers have; `None` while they serve.
    ending: Cell<Option<Duration>>,
    aborted: Cell<usize>,
    restarted: Cell<u64>,
    /// How many supervisors are at work.
    supervisors: Cell<usize>,
    /// Ends what waits: `over` is awaited.
    ended: Cell<Option<Promise<()>>>,
    over: SharedFuture<()>,
}

/// What the supervisor knows of a worker.
#[derive(Default)]
struct Worker {
    remote: RefCell<Option<Remote>>,
    connections: Arc<AtomicUsize>,
    /// Which of its lives this is; messages of earlier ones mean nothing.
    life: Cell<u64>,
    /// Who waits for it to listen.
    started: Cell<Option<Promise<io::Result<()>>>>,
}

/// The pools of a loop, by number: what messages from threads find theirs by.
#[derive(Default)]
struct Pools {
    pools: RefCell<BTreeMap<u64, Rc<PoolState>>>,
    last: Cell<u64>,
}

impl PoolState {
    fn new(handle: &LoopHandle, address: Address, workers: &Workers) -> Rc<PoolState> {
        let pools = handle.local(|_| Pools::default());
        let id = pools.last.get() + 1;
        pools.last.set(id);
        let (ended, over) = handle.create_future();
        let state = Rc::new(PoolState {
            id,
            handle: handle.clone(),
            address,
            backlog: workers.backlog,
            restarts: workers.restarts.clone(),
            shares: workers.distribution == Distribution::ReusePort,
            threads: ThreadPool::builder().threads(workers.count).name("worker").build(),
            workers: (0..workers.count).map(|_| Worker::default()).collect(),
            tasks: RefCell::default(),
            door: RefCell::default(),
            ending: Cell::new(None),
            aborted: Cell::new(0),
            restarted: Cell::new(0),
            supervisors: Cell::new(0),
            ended: Cell::new(Some(ended)),
            over: over.shared(),
        });
        pools.pools.borrow_mut().insert(id, state.clone());
        state
    }

    /// A worker says that it listens.
    fn is_up(&self, index: usize, life: u64, remote: Remote) {
        let worker = &self.workers[index];
        if worker.life.get() != life {
            return;
        }
        if let Some(grace) = self.ending.get() {
            // It was told to end before it could be.
            let _gone = remote.call_soon(move |handle| worker::end(handle, grace));
        }
        worker.remote.replace(Some(remote));
        if let Some(started) = worker.started.take() {
            let _ = started.set(Ok(()));
        }
    }

    /// Waits for something, unless the pool ends before.
    async fn unless_ended(&self, wait: impl Future<Output = ()>) {
        let over = self.over.clone();
        let over = async move {
            let _ = over.await;
        };
        futures_lite::future::or(wait, over).await;
    }

    fn end(&self, grace: Duration) {
        self.ending.set(Some(grace));
        drop(self.door.take());
        drop(self.ended.take());
        for worker in &self.workers {
            let remote = worker.remote.borrow().clone();
            if let Some(remote) = remote {
                let _gone = remote.call_soon(move |handle| worker::end(handle, grace));
            }
        }
    }
}

/// Starts a worker, again and again, until the pool ends.
async fn supervise(
    state: Rc<PoolState>,
    index: usize,
    make: Make,
    started: Promise<io::Result<()>>,
) {
    let _at_work = AtWork::new(&state);
    let worker = &state.workers[index];
    worker.started.set(Some(started));
    let mut retries = state.restarts.retries();
    loop {
        let began = state.handle.time();
        let life = worker.life.get() + 1;
        worker.life.set(life);
        let (parent, id, make) = (state.handle.remote(), state.id, make.clone());
        let source = match state.shares {
            true => Source::Listens(state.address.clone(), state.backlog),
            false => Source::IsHanded,
        };
        let assignment = Assignment {
            source,
            connections: worker.connections.clone(),
            up: Box::new(move |remote| {
                let told = parent.call_soon(move |handle| {
                    let pools = handle.local(|_| Pools::default());
                    let state = pools.pools.borrow().get(&id).cloned();
                    if let Some(state) = state {
                        state.is_up(index, life, remote);
                    }
                });
                told.is_ok()
            }),
        };
        let ended = state.threads.submit(move || worker::run(assignment, &make)).await;
        worker.remote.take();
        worker.connections.store(0, Ordering::Relaxed);
        let error = match ended {
            Ok(Ok(aborted)) if state.ending.get().is_some() => {
                state.aborted.set(state.aborted.get() + aborted);
                return;
            }
            _ if state.ending.get().is_some() => return,
            Ok(Ok(_)) => io::Error::other("its loop has ended"),
            Ok(Err(error)) => error,
            Err(JobError::Panicked(payload)) => {
                let text = JobError::Panicked(payload).to_string();
                io::Error::other(text)
            }
            Err(error) => io::Error::other(error.to_string()),
        };
        if let Some(started) = worker.started.take() {
            // Nobody has seen it listen: whoever has asked for it hears of it.
            let _ = started.set(Err(error));
            return;
        }
        retries.worked_for(state.handle.time().saturating_duration_since(began));
        let delay = retries.next_delay();
        let what = match delay {
            Some(delay) => format!("is started again in {delay:?}"),
            None => "is not started again".to_owned(),
        };
        let message = format!("worker {index} of {} has died and {what}", state.address);
        state.handle.call_exception_handler(ErrorContext::error(message, error));
        let Some(delay) = delay else { return };
        state.unless_ended(sleep(delay)).await;
        if state.ending.get().is_some() {
            return;
        }
        state.restarted.set(state.restarted.get() + 1);
    }
}

impl WorkerPool {
    /// The address that they listen on, with the real port.
    pub fn local_addr(&self) -> Address {
        self.0.address.clone()
    }

    /// How many workers there are to be.
    pub fn count(&self) -> usize {
        self.0.workers.len()
    }

    /// How many of them serve now.
    pub fn running(&self) -> usize {
        self.0.workers.iter().filter(|worker| worker.remote.borrow().is_some()).count()
    }

    /// How often one was started again.
    pub fn restarts(&self) -> u64 {
        self.0.restarted.get()
    }

    /// How many connections each worker has, about.
    pub fn connections(&self) -> Vec<usize> {
        let count = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        self.0.workers.iter().map(count).collect()
    }

    /// The loop of each worker that serves, to run something there.
    pub fn remotes(&self) -> Vec<Remote> {
        self.0.workers.iter().filter_map(|worker| worker.remote.borrow().clone()).collect()
    }

    /// Ends all in order: nothing more is accepted, connections are closed, and those that have not written what they have
    /// to within `grace` are aborted. How many those were.
    ///
    /// # Cancel safety
    /// Dropping the future ends the workers without waiting for them.
    pub async fn shutdown(self, grace: Duration) -> usize {
        self.0.end(grace);
        let tasks = self.0.tasks.take();
        for task in tasks {
            let _panics_are_reported = task.await;
        }
        self.0.aborted.get()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        if self.0.ending.get().is_none() {
            self.0.end(Duration::ZERO);
        }
    }
}

/// The loop of the supervisor is gone before its workers.
impl Drop for PoolState {
    fn drop(&mut self) {
        self.end(self.ending.get().unwrap_or_default());
    }
}

/// A supervisor; the last one takes the pool out of the list.
struct AtWork(Rc<PoolState>);

impl AtWork {
    fn new(state: &Rc<PoolState>) -> AtWork {
        state.supervisors.set(state.supervisors.get() + 1);
        AtWork(state.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let state = &self.0;
        state.supervisors.set(state.supervisors.get() - 1);
        // A loop that is closed has let go of the list.
        if state.supervisors.get() == 0 && !state.handle.is_closed() {
            let pools = state.handle.local(|_| Pools::default());
            let own = pools.pools.borrow_mut().remove(&state.id);
            drop(own);
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("address", &self.0.address)
            .field("count", &self.count())
            .field("running", &self.running())
            .field("restarts", &self.restarts())
            .finish_non_exhaustive()
    }
}
