//! One run of a simulation, turn by turn.
//!
//! The loop is driven from outside, so that between any two turns the invariants are looked at, and somebody
//! outside of the loop may wake those who wait for that.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tulipa_loop::signal::Signal;
use tulipa_loop::{
    ErrorContext, EventLoop, ExceptionHandler, Failure, JoinError, LoopHandle, Task,
};
use tulipa_selector::Timeout;

use super::jobs::Jobs;
use super::sabotage::SABOTAGE;
use super::{Shared, Sim, Simulation, Summary, say};
use crate::leaks;
use crate::{Chunking, Fault, MemoryNetwork, Path, Random, VirtualLoop};

/// A run that takes more turns than this will not end: some seconds' work, and a thousand times what our
/// own scenarios take.
const MOST_TURNS: u64 = 5_000_000;

/// How far the clock jumps at most, when it jumps: a timeout below it may end by that.
const LONGEST_JUMP: Duration = Duration::from_secs(300);

/// The signals that a program may be sent: those that are for programs.
const SIGNALS: [Signal; 4] = [Signal::HANGUP, Signal::TERMINATE, Signal::USER1, Signal::USER2];

/// One run.
struct Run {
    virtual_loop: VirtualLoop,
    sim: Sim,
    reports: Rc<RefCell<Vec<String>>>,
    random: Random,
    patience: Duration,
    turns: u64,
    last: Instant,
}

/// Why a run failed.
pub(super) enum Failed {
    /// What is wrong, in words.
    Because(String),
    /// The program's panic.
    Panic(Box<dyn Any + Send>),
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::Because(why)
    }
}

impl Simulation {
    pub(super) fn run_seed<F: Future<Output = ()> + 'static>(
        &self,
        seed: u64,
        replay: bool,
        program: &impl Fn(Sim) -> F,
    ) -> Result<Summary, Failed> {
        let mut run = Run::new(self, seed, replay);
        // Called by a running loop, so that it may use it before its first await.
        let sim = run.sim.clone();
        let future =
            run.virtual_loop.run_until_complete(poll_fn(|_| Poll::Ready(program(sim.clone()))));
        let future = future.map_err(|error| error.to_string())?;
        let mut task = run.virtual_loop.handle().task().name("simulation").spawn(future);
        let result = run.until_done(&mut task).and_then(|()| run.finish(task));
        if replay {
            let trace = run.sim.network().trace();
            for line in trace.lines() {
                say(line);
            }
            say(&format!("seed {seed}: hash {:016x}, {} events", trace.hash(), trace.events()));
        }
        let result = result.map(|()| run.summary());
        if result.is_err() {
            // What is dropped now is not worth a report.
            let ignore: Rc<ExceptionHandler> = Rc::new(|_, _| {});
            run.virtual_loop.set_exception_handler(Some(ignore));
        }
        result
    }
}

impl Run {
    fn new(simulation: &Simulation, seed: u64, replay: bool) -> Run {
        let mut random = Random::new(seed);
        let reports = Rc::<RefCell<Vec<String>>>::default();
        let builder = EventLoop::builder().debug(false).exception_handler(report_to(&reports));
        let virtual_loop = VirtualLoop::from_builder(builder);
        let network = MemoryNetwork::new(virtual_loop.world(), random.next_u64());
        if replay {
            network.keep_trace();
        }
        network.set_default_path(random_path(&mut random));
        network.set_faults(simulation.faults.swarm(&mut random));
        network.install(&virtual_loop);
        let now = virtual_loop.time();
        let stormy = random.duration(Duration::ZERO..=simulation.stormy);
        let shared = Shared {
            seed,
            handle: virtual_loop.handle(),
            network,
            random: RefCell::new(random.fork()),
            invariants: RefCell::default(),
            elsewhere: RefCell::default(),
            jobs: Jobs::default(),
            owners: RefCell::default(),
            calm: Cell::new(false),
            calm_at: Cell::new(now + stormy),
        };
        virtual_loop.set_default_executor(shared.jobs.clone());
        let sim = Sim { shared: Rc::new(shared) };
        let patience = simulation.patience;
        Run { virtual_loop, sim, reports, random, patience, turns: 0, last: now }
    }

    fn until_done(&mut self, task: &mut Task<()>) -> Result<(), Failed> {
        while !task.is_done() {
            if !self.step()? && !task.is_done() {
                self.move_clock()?;
            }
        }
        Ok(())
    }

    /// The program has ended: nothing is left, as soon as what is on its way has arrived.
    fn finish(&mut self, mut task: Task<()>) -> Result<(), Failed> {
        match task.try_result() {
            Some(Err(JoinError::Panicked(payload))) => return Err(Failed::Panic(payload)),
            Some(Err(error)) => return Err(format!("it did not end by itself: {error}").into()),
            Some(Ok(())) | None => drop(task),
        }
        self.sim.calm();
        loop {
            let busy = self.step()?;
            // A timer is left, if there is one; it is not waited for.
            let scripted = self.virtual_loop.world().next_scripted();
            match scripted.filter(|_| self.virtual_loop.next_deadline().is_none()) {
                _ if busy => {}
                Some(next) => self.virtual_loop.world().advance_to(next),
                None => break,
            }
        }
        let mut left = leaks::of(&self.sim.shared.handle);
        let connections = self.sim.network().connections();
        if connections > 0 {
            left.push(format!("{connections} connections in the network"));
        }
        if left.is_empty() {
            return Ok(());
        }
        let left = leaks::list("left", &left);
        Err(format!("the program has left something behind{left}").into())
    }

    /// One turn, and everything that is to be true after each. Returns whether there is more to do without
    /// the clock moving.
    fn step(&mut self) -> Result<bool, String> {
        self.turns += 1;
        if self.turns > MOST_TURNS {
            return Err(self.stuck(&format!("it is at work after {MOST_TURNS} turns of its loop")));
        }
        let seen = self.virtual_loop.seen();
        let ran = self.virtual_loop.run_once(Timeout::Immediate);
        ran.map_err(|error| error.to_string())?;
        self.wake_from_elsewhere();
        self.check()?;
        let (now, next) = (self.virtual_loop.time(), self.virtual_loop.next_event());
        Ok(self.virtual_loop.seen() != seen || next.is_some_and(|next| next <= now))
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.virtual_loop.time();
        if now < self.last {
            return Err("the clock went back".to_owned());
        }
        self.last = now;
        if let Some(report) = self.reports.borrow().first() {
            return Err(format!("reported to the exception handler: {report}"));
        }
        let invariants = self.sim.shared.invariants.borrow().clone();
        invariants.iter().try_for_each(|invariant| invariant())
    }

    fn move_clock(&mut self) -> Result<(), String> {
        let next = self.virtual_loop.next_event();
        if next.is_none() && !self.sim.shared.elsewhere.borrow().is_empty() {
            return Ok(());
        }
        let calm = self.sim.shared.calm_at.get();
        let next = if self.sim.is_calm() { next } else { Some(next.map_or(calm, |n| n.min(calm))) };
        let Some(next) = next else {
            let why = "nothing can make progress: nothing can run and no timer is set";
            return Err(self.stuck(why));
        };
        if next > calm + self.patience {
            let patience = self.patience;
            return Err(self.stuck(&format!("it is not done {patience:?} after the last fault")));
        }
        let network = self.sim.network().clone();
        if network.strikes(Fault::ClockStall) {
            return Ok(());
        }
        let suspended = if network.strikes(Fault::ClockJump) {
            self.random.duration(Duration::from_secs(1)..=LONGEST_JUMP)
        } else {
            Duration::ZERO
        };
        self.virtual_loop.world().advance_to(next + suspended);
        if next + suspended >= calm {
            self.sim.calm();
        }
        Ok(())
    }

    fn stuck(&self, why: &str) -> String {
        let pending = leaks::of(&self.sim.shared.handle);
        let graph = leaks::await_graph(&self.sim.shared.handle);
        format!("the program cannot end: {why}{}{graph}", leaks::list("pending", &pending))
    }

    /// Wakes those who wait for somebody outside of the loop, and does what other threads do.
    fn wake_from_elsewhere(&mut self) {
        let network = self.sim.network().clone();
        if network.strikes(Fault::ForeignWake) {
            // It is open: it has just run.
            let _ = self.virtual_loop.remote().call_soon(|_| {});
        }
        self.send_signal(&network);
        self.sim.shared.begin_jobs(&mut self.random, self.sim.is_calm());
        let late = !self.sim.is_calm() && self.random.chance(500);
        if late || self.sim.shared.elsewhere.borrow().is_empty() {
            return;
        }
        let mut waiting = self.sim.shared.elsewhere.take();
        self.random.shuffle(&mut waiting);
        for errand in waiting {
            errand.done.set(true);
            if let Some(waker) = errand.waker.take() {
                waker.wake();
            }
        }
    }

    fn send_signal(&mut self, network: &MemoryNetwork) {
        let strikes = network.would_strike(Fault::Signal);
        if strikes && self.virtual_loop.deliver_signal(*self.random.pick(&SIGNALS)) {
            network.count(Fault::Signal);
        }
    }

    fn summary(&self) -> Summary {
        let trace = self.sim.network().trace();
        Summary {
            seeds: 1,
            faults: self.sim.network().fault_counts(),
            virtual_time: self.virtual_loop.elapsed(),
            turns: self.turns,
            events: trace.events(),
            hashes: vec![trace.hash()],
        }
    }
}

/// Keeps what is reported, unless a fault is its cause.
fn report_to(
    reports: &Rc<RefCell<Vec<String>>>,
) -> impl Fn(&LoopHandle, &ErrorContext) + 'static + use<> {
    let reports = reports.clone();
    move |_, context| {
        let text = context.to_string();
        let caused = match &context.failure {
            Failure::Panic(payload) => payload.downcast_ref() == Some(&SABOTAGE),
            // A listener that rests, which only a fault makes it do.
            _ => text.contains("accepts nothing for"),
        };
        if !caused {
            reports.borrow_mut().push(text);
        }
    }
}

/// A network of any kind.
fn random_path(random: &mut Random) -> Path {
    let chunking = *random.pick(&[Chunking::Whole, Chunking::OneByte, Chunking::Random]);
    let path = Path::new().chunking(chunking).buffer(1 << random.within(4..=16));
    let fastest = Duration::from_micros(random.below(20_000));
    let path = match random.below(3) {
        0 => path,
        1 => path.latency(fastest..=fastest),
        _ => path.latency(fastest..=fastest * 10),
    };
    if random.chance(300) { path.bandwidth(1 << random.within(10..=20)) } else { path }
}
