//! Many runs of one program on a simulated network, each with another seed.

mod jobs;
mod run;
mod sabotage;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tulipa_loop::{Cancelled, LoopHandle, cancellable};

pub use self::sabotage::Sabotage;

use self::jobs::{Endangered, Jobs, Owners};
use self::run::Failed;
use crate::trace::Hasher;
use crate::{Fault, FaultCounts, Faults, MemoryNetwork, Random};

/// How many seeds a simulation runs unless it is said otherwise, so that `cargo test` stays fast.
pub const DEFAULT_SEEDS: u64 = 100;

/// Replays one seed, and shows its trace.
const REPLAY: &str = "TULIPA_SIM_SEED";

/// How many seeds are run.
const SEEDS: &str = "TULIPA_SIM_SEEDS";

/// Where the seeds begin: to run others than the last time.
const FIRST: &str = "TULIPA_SIM_FIRST_SEED";

/// Runs a program on a simulated network with many seeds, each with faults of its own. What fails a run, fails
/// the test, and says with which seed.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Protocol, Transport, create_connection, create_server};
/// use tulipa_testing::Simulation;
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// Simulation::new().seeds(10).run(|sim| async move {
///     let server = sim.network().on("server", create_server(":7", || Echo)).await.unwrap();
///     if let Ok(client) = create_connection("server:7", || Echo).await {
///         client.write(b"hello");
///         client.close();
///         client.wait_closed().await;
///     }
///     server.shutdown(std::time::Duration::from_secs(60)).await;
/// });
/// ```
///
/// # One run
/// The program is a task of a virtual loop whose clock jumps. First faults are on: each run has a random half of
/// them, some often and some seldom, and a random network. After some virtual time, or when the program asks
/// for [it](Sim::calm), they are turned off, and everything has to end: within
/// [`patience`](Self::patience), and with nothing left on the loop, no task, no timer, no source, and no
/// connection in the network.
///
/// # What fails a run
/// - A panic of the program, and whatever is reported to the exception handler of its loop, except what the
///   faults themselves have caused.
/// - An [invariant](Sim::invariant), looked at after each turn of the loop.
/// - That it does not end, or leaves something.
/// - A clock that goes back.
///
/// # Environment
/// | variable | means |
/// |---|---|
/// | `TULIPA_SIM_SEEDS=20000` | how many seeds are run |
/// | `TULIPA_SIM_FIRST_SEED=5000000` | the first of them, 0 if nothing is said |
/// | `TULIPA_SIM_SEED=17` | this one only, with its trace on the standard error |
#[derive(Clone, Debug)]
#[must_use = "a simulation does nothing until `run`"]
pub struct Simulation {
    seeds: u64,
    faults: Faults,
    patience: Duration,
    stormy: Duration,
}

/// A run of a [`Simulation`], for the program that is run. Clones are the same run.
#[derive(Clone)]
pub struct Sim {
    pub(crate) shared: Rc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) handle: LoopHandle,
    pub(crate) network: MemoryNetwork,
    pub(crate) random: RefCell<Random>,
    pub(crate) invariants: RefCell<Vec<Invariant>>,
    /// Who waits for somebody outside of the loop.
    pub(crate) elsewhere: RefCell<Vec<Rc<Errand>>>,
    pub(crate) jobs: Jobs,
    pub(crate) owners: RefCell<Owners>,
    pub(crate) calm: Cell<bool>,
    pub(crate) calm_at: Cell<Instant>,
}

/// Looks at the program, and says what is wrong with it.
pub(crate) type Invariant = Rc<dyn Fn() -> Result<(), String>>;

#[derive(Default)]
pub(crate) struct Errand {
    pub(crate) done: Cell<bool>,
    pub(crate) waker: Cell<Option<Waker>>,
}

/// What all runs of a simulation were together.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How often each fault has happened.
    pub faults: FaultCounts,
    /// How much virtual time went by.
    pub virtual_time: Duration,
    /// How many turns the loops took.
    pub turns: u64,
    /// How many events the traces have.
    pub events: u64,
    /// The hash of each seed's trace.
    pub hashes: Vec<u64>,
}

impl Simulation {
    /// All faults, [`DEFAULT_SEEDS`] seeds.
    pub fn new() -> Simulation {
        Simulation {
            seeds: DEFAULT_SEEDS,
            faults: Faults::all(),
            patience: Duration::from_secs(3600),
            stormy: Duration::from_secs(30),
        }
    }

    /// How many seeds are run, unless the environment says otherwise.
    pub fn seeds(mut self, seeds: u64) -> Simulation {
        self.seeds = seeds;
        self
    }

    /// Which faults there may be, and how often: each run has a random half of them.
    pub fn faults(mut self, faults: Faults) -> Simulation {
        self.faults = faults;
        self
    }

    /// How long faults are on at most, in virtual time: half a minute unless it is set. Each run has a
    /// time of its own below it.
    pub fn stormy(mut self, most: Duration) -> Simulation {
        self.stormy = most;
        self
    }

    /// How much virtual time a run may take to end when the faults are over: an hour unless it is set.
    pub fn patience(mut self, patience: Duration) -> Simulation {
        self.patience = patience;
        self
    }

    /// Runs the program with each seed.
    ///
    /// # Panics
    /// As soon as a run fails.
    pub fn run<F: Future<Output = ()> + 'static>(&self, program: impl Fn(Sim) -> F) -> Summary {
        let replay = number(REPLAY);
        let first = replay.or_else(|| number(FIRST)).unwrap_or(0);
        let seeds = if replay.is_some() { 1 } else { number(SEEDS).unwrap_or(self.seeds) };
        let mut summary = Summary::default();
        for seed in first..first.saturating_add(seeds) {
            match self.run_seed(seed, replay.is_some(), &program) {
                Ok(one) => summary.add(one),
                Err(Failed::Because(why)) => {
                    panic!("seed {seed} failed: {why}\n{}", replay_hint(seed))
                }
                Err(Failed::Panic(payload)) => {
                    say(&format!("seed {seed} failed\n{}", replay_hint(seed)));
                    resume_unwind(payload)
                }
            }
        }
        summary
    }
}

impl Default for Simulation {
    fn default() -> Simulation {
        Simulation::new()
    }
}

/// Runs a program with [`DEFAULT_SEEDS`] seeds and all faults: see [`Simulation`].
///
/// # Panics
/// As [`Simulation::run`].
pub fn simulate<F: Future<Output = ()> + 'static>(program: impl Fn(Sim) -> F) -> Summary {
    Simulation::new().run(program)
}

/// A number in the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is to be a number, not {text:?}")))
}

fn replay_hint(seed: u64) -> String {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("the test").to_owned();
    format!("to see it again: {REPLAY}={seed} cargo test {test}")
}

#[expect(clippy::print_stderr, reason = "a test harness shows what a test writes")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

impl Summary {
    /// One hash for the traces of all seeds: the same for the same seeds, in any build.
    pub fn hash(&self) -> u64 {
        let mut hash = Hasher::new();
        self.hashes.iter().for_each(|one| hash.bytes(&one.to_le_bytes()));
        hash.0
    }

    fn add(&mut self, one: Summary) {
        self.seeds += one.seeds;
        self.faults.add(&one.faults);
        self.virtual_time += one.virtual_time;
        self.turns += one.turns;
        self.events += one.events;
        self.hashes.extend(one.hashes);
    }
}

impl Sim {
    /// The seed.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The network, in which the program's connections and servers are made.
    pub fn network(&self) -> &MemoryNetwork {
        &self.shared.network
    }

    /// Random numbers of the seed.
    pub fn random<R>(&self, draw: impl FnOnce(&mut Random) -> R) -> R {
        // Out while it is used: `draw` is the program's.
        let mut random = self.shared.random.borrow_mut().fork();
        draw(&mut random)
    }

    /// Has something looked at after each turn of the loop; `Err` fails the run.
    pub fn invariant(&self, check: impl Fn() -> Result<(), String> + 'static) {
        self.shared.invariants.borrow_mut().push(Rc::new(check));
    }

    /// Whether the faults are over.
    pub fn is_calm(&self) -> bool {
        self.shared.calm.get()
    }

    /// Ends the faults, if they are not over yet.
    pub fn calm(&self) {
        if !self.shared.calm.replace(true) {
            self.shared.calm_at.set(self.shared.handle.time());
            self.shared.network.set_faults(Faults::none());
        }
    }

    /// Waits until the faults are over by themselves.
    pub async fn wait_for_calm(&self) {
        tulipa_loop::sleep_until(self.shared.calm_at.get()).await;
    }

    /// Waits for somebody outside of the loop, as another thread would be: who waits together is woken in any
    /// order, while the loop is between two turns.
    pub async fn elsewhere(&self) {
        let errand = Rc::new(Errand::default());
        self.shared.elsewhere.borrow_mut().push(errand.clone());
        WaitFor(errand).await;
    }

    /// A future whose task may be cancelled at each of its polls, and before and after the end of the jobs that it
    /// submits: [`Fault::TaskCancelled`], [`Fault::JobBeforeCancel`], [`Fault::JobAfterCancel`]. The request ends
    /// here, so that the task goes on.
    ///
    /// # Errors
    /// [`Cancelled`] if that happened.
    ///
    /// # Cancel safety
    /// That of the future, which is what it is for.
    pub async fn endanger<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        cancellable(Endangered::new(self.clone(), future)).await
    }

    /// A protocol whose callbacks panic, close and do other things where [`Fault::CallbackPanic`] and
    /// [`Fault::ReentrantCall`] say so.
    pub fn sabotage<P>(&self, protocol: P) -> Sabotage<P> {
        Sabotage::new(&self.shared.network, protocol)
    }

    /// Whether a fault happens now, for those who make something else go wrong.
    pub fn strikes(&self, fault: Fault) -> bool {
        self.shared.network.strikes(fault)
    }

    /// Writes something into the trace.
    pub fn note(&self, event: impl fmt::Display) {
        self.shared.network.note(&event.to_string());
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed()).finish_non_exhaustive()
    }
}

struct WaitFor(Rc<Errand>);

impl Future for WaitFor {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.done.get() {
            return Poll::Ready(());
        }
        drop(self.0.waker.replace(Some(context.waker().clone())));
        Poll::Pending
    }
}

impl Drop for WaitFor {
    fn drop(&mut self) {
        self.0.done.set(true);
        drop(self.0.waker.take());
    }
}
