//! Every callback does anything: a random program against a model of the order.
//!
//! Each callback, timer, done callback, source, destructor and exception handler takes the next few
//! operations of one random script and performs them. The model knows what may run next: ready
//! callbacks first in, first out, each in the very turn that the rules name; timers by deadline and
//! then by age; sources only while they are there. `TULIPA_CASES` says how many scripts.

mod common;
#[path = "common/script.rs"]
mod script;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{DropToken, Drops, OnDrop};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use script::{Op, cases, op, pick, quiet, take};
use tulipa_loop::{
    CallbackId, ErrorContext, Handle, Instrument, LoopFuture, LoopHandle, Promise, Source,
    TimerHandle,
};
use tulipa_selector::{
    Event, Interest, Readiness, Registration, Timeout, Token, VirtualHandle, VirtualId,
};
use tulipa_testing::VirtualLoop;

/// How far the loop is in its turn, as far as callbacks can see.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Between turns, or before its ready queue: what becomes ready now runs in this turn.
    Early,
    Ready,
}

#[derive(Default)]
struct Model {
    ready: VecDeque<usize>,
    /// What "other threads" asked for and the loop has not received.
    remote: Vec<usize>,
    timers: BTreeMap<(Instant, usize), usize>,
    /// The batch of timers that is firing, and the turn in which it was taken.
    due: VecDeque<usize>,
    fired: Option<u64>,
    /// The turn in which each job must run, for the ready queue.
    turns: BTreeMap<usize, u64>,
    /// The turn whose ready queue was last entered.
    received: Option<u64>,
    jobs: usize,
    ran: usize,
}

struct Job {
    id: usize,
    _token: DropToken,
}

enum Scheduled {
    Soon(usize, Handle),
    Timer(usize, Instant, TimerHandle),
}

struct Fut {
    promise: RefCell<Option<Promise<DropToken>>>,
    future: RefCell<Option<LoopFuture<DropToken>>>,
    callbacks: RefCell<Vec<(CallbackId, usize)>>,
    done: Cell<bool>,
}

struct Live {
    id: VirtualId,
    key: Token,
    _registration: Registration,
}

struct World {
    handle: LoopHandle,
    clock: VirtualHandle,
    start: Instant,
    phase: Cell<Phase>,
    script: RefCell<VecDeque<Op>>,
    model: RefCell<Model>,
    scheduled: RefCell<Vec<Rc<Scheduled>>>,
    futures: RefCell<Vec<Rc<Fut>>>,
    sources: RefCell<Vec<Rc<Live>>>,
    alive: Drops,
    made: Cell<usize>,
    panics: Cell<usize>,
    reports: Cell<usize>,
    failures: RefCell<Vec<String>>,
}

/// The most operations of one callback.
const STEP: usize = 4;

/// More than this many things at once make a script slow, not better.
const CROWD: usize = 200;

impl World {
    fn token(&self) -> DropToken {
        self.made.set(self.made.get() + 1);
        self.alive.token()
    }

    fn job(&self) -> Job {
        let id = self.model.borrow().jobs;
        self.model.borrow_mut().jobs += 1;
        Job { id, _token: self.token() }
    }

    /// The turn in which something that becomes ready now is to run.
    fn turn_for_ready(&self) -> u64 {
        self.handle.statistics().turns + u64::from(self.phase.get() == Phase::Ready)
    }

    fn becomes_ready(&self, id: usize) {
        let turn = self.turn_for_ready();
        let mut model = self.model.borrow_mut();
        model.ready.push_back(id);
        model.turns.insert(id, turn);
    }

    /// A job of the ready queue begins.
    fn enter_ready(&self, id: usize) {
        self.phase.set(Phase::Ready);
        let turn = self.handle.statistics().turns;
        let mut model = self.model.borrow_mut();
        if model.received.replace(turn) != Some(turn) {
            let remote = std::mem::take(&mut model.remote);
            model.ready.extend(remote);
        }
        assert_eq!(model.ready.pop_front(), Some(id), "first in, first out");
        assert_eq!(model.turns.remove(&id), Some(turn), "in its own turn");
        model.ran += 1;
    }

    fn enter_timer(&self, id: usize) {
        let now = self.handle.time();
        let turn = self.handle.statistics().turns;
        let mut model = self.model.borrow_mut();
        if model.fired.replace(turn) != Some(turn) {
            // The first of its batch: what is due is decided now.
            assert!(model.due.is_empty(), "the whole batch fires");
            let later = model.timers.split_off(&(now + Duration::from_nanos(1), 0));
            model.due = std::mem::replace(&mut model.timers, later).into_values().collect();
        }
        assert_eq!(model.due.pop_front(), Some(id), "by deadline, then by age, never early");
        model.ran += 1;
    }

    fn call_soon(self: &Rc<World>) -> Handle {
        let (job, world) = (self.job(), self.clone());
        self.becomes_ready(job.id);
        self.handle.call_soon(move |_| {
            world.enter_ready(job.id);
            world.step();
        })
    }

    fn set_timer(self: &Rc<World>, when: Instant) {
        let (job, world) = (self.job(), self.clone());
        let id = job.id;
        let key = (when.max(self.start), id);
        self.model.borrow_mut().timers.insert(key, id);
        let handle = self.handle.call_at(when, move |_| {
            world.enter_timer(job.id);
            world.step();
        });
        self.scheduled.borrow_mut().push(Rc::new(Scheduled::Timer(id, key.0, handle)));
    }

    fn remote(self: &Rc<World>) {
        thread_local! {
            static CALLS: RefCell<BTreeMap<usize, Box<dyn FnOnce()>>> = RefCell::default();
        }
        let (job, world) = (self.job(), self.clone());
        let (id, turn) = (job.id, self.turn_for_ready());
        let mut model = self.model.borrow_mut();
        model.remote.push(id);
        model.turns.insert(id, turn);
        drop(model);
        let call: Box<dyn FnOnce()> = Box::new(move || {
            world.enter_ready(job.id);
            world.step();
        });
        CALLS.with_borrow_mut(|calls| calls.insert(id, call));
        let call = move |_: &LoopHandle| {
            let call = CALLS.with_borrow_mut(|calls| calls.remove(&id));
            call.unwrap()();
        };
        self.handle.remote().call_soon(call).unwrap();
    }

    fn settle(&self, future: &Fut) {
        if !future.done.replace(true) {
            for (_, id) in future.callbacks.take() {
                self.becomes_ready(id);
            }
        }
    }

    /// What happens when the test lets go of a future and its promise.
    fn settle_dropped(&self, future: &Fut) {
        if let Some(promise) = future.promise.take() {
            self.settle(future);
            drop(promise);
        }
    }

    fn insert_source(self: &Rc<World>) {
        let source =
            Anything { world: Rc::downgrade(self), removed: Rc::default(), _token: self.token() };
        let removed = source.removed.clone();
        let key = self.handle.insert_source(Box::new(source)).unwrap();
        let id = self.clock.new_source();
        removed.set(Some((id, key)));
        let selector = self.handle.selector();
        let registration = selector.register(id.into(), Interest::READABLE, key.to_bits()).unwrap();
        self.sources.borrow_mut().push(Rc::new(Live { id, key, _registration: registration }));
    }

    /// Performs the next few operations.
    fn step(self: &Rc<World>) {
        for _ in 0..STEP {
            let Some(op) = self.script.borrow_mut().pop_front() else { return };
            self.perform(op);
        }
    }

    fn perform(self: &Rc<World>, op: Op) {
        let crowded = self.made.get() - self.alive.count() > CROWD;
        if self.scheduled.borrow().len() > CROWD {
            let oldest = self.scheduled.borrow_mut().swap_remove(0);
            drop(oldest);
        }
        if self.futures.borrow().len() > CROWD / 4 {
            let oldest = self.futures.borrow_mut().remove(0);
            self.settle_dropped(&oldest);
            drop(oldest);
        }
        match op {
            Op::CallSoon | Op::Remote | Op::CallLater(_) | Op::CallAt(_) if crowded => {}
            Op::CreateFuture | Op::AddDone(_) | Op::InsertSource if crowded => {}
            Op::CallSoon => {
                let id = self.model.borrow().jobs;
                let handle = self.call_soon();
                self.scheduled.borrow_mut().push(Rc::new(Scheduled::Soon(id, handle)));
            }
            Op::Remote => self.remote(),
            Op::CallLater(delay) => {
                self.set_timer(self.handle.time() + Duration::from_nanos(delay))
            }
            Op::CallAt(by) => {
                let (now, by) = (self.handle.time(), Duration::from_nanos(by.unsigned_abs()));
                let when = if matches!(op, Op::CallAt(..0)) {
                    now.checked_sub(by)
                } else {
                    now.checked_add(by)
                };
                self.set_timer(when.unwrap_or(now));
            }
            Op::Scheduling => {
                let (job, world) = (self.job(), self.clone());
                let id = job.id;
                let guard = OnDrop::new({
                    let world = self.clone();
                    move || {
                        if !world.handle.is_closed() {
                            drop(world.call_soon());
                        }
                    }
                });
                self.becomes_ready(id);
                let handle = self.handle.call_soon(move |_| {
                    world.enter_ready(job.id);
                    drop(guard);
                });
                self.scheduled.borrow_mut().push(Rc::new(Scheduled::Soon(id, handle)));
            }
            Op::Cancel(n) => self.cancel(n),
            Op::DropHandle(n) => drop(take(&self.scheduled, n)),
            Op::SetHandler(custom) => self.set_handler(custom),
            Op::SetInstrument(some) => {
                let instrument: Rc<dyn Instrument> = Rc::new(Looking(Rc::downgrade(self)));
                self.handle.set_instrument(some.then_some(instrument));
            }
            Op::SetDebug(debug) => self.handle.set_debug(debug),
            Op::InsertSource => self.insert_source(),
            Op::MakeReady(n) => {
                if let Some(live) = pick(&self.sources, n) {
                    self.clock.set_ready(live.id, Readiness::READABLE);
                }
            }
            Op::RemoveSource(n) => {
                if let Some(live) = take(&self.sources, n) {
                    assert!(self.handle.remove_source(live.key));
                }
            }
            Op::Mark(n) => {
                if let Some(live) = pick(&self.sources, n) {
                    self.handle.wires().mark(live.key);
                }
            }
            Op::Stop => self.handle.stop(),
            Op::Look => self.look(),
            Op::Advance(by) => self.clock.advance(Duration::from_nanos(by)),
            Op::Panic => {
                // Between turns nobody would catch it.
                if self.handle.is_running() {
                    self.panics.set(self.panics.get() + 1);
                    panic!("as the script says");
                }
            }
            Op::CreateFuture
            | Op::AddDone(_)
            | Op::RemoveDone(_)
            | Op::SetValue(_)
            | Op::DropPromise(_)
            | Op::CancelFuture(_)
            | Op::DropFuture(_) => self.perform_future(op),
        }
    }

    fn cancel(&self, n: usize) {
        let Some(scheduled) = pick(&self.scheduled, n) else { return };
        match &*scheduled {
            Scheduled::Soon(id, handle) => {
                // Out of the model first: the destructor of what is cancelled may schedule.
                self.model.borrow_mut().ready.retain(|waiting| waiting != id);
                self.model.borrow_mut().turns.remove(id);
                handle.cancel();
                assert!(handle.is_cancelled());
            }
            Scheduled::Timer(id, when, handle) => {
                self.model.borrow_mut().timers.remove(&(*when, *id));
                self.model.borrow_mut().due.retain(|due| due != id);
                handle.cancel();
                assert!(handle.is_cancelled());
            }
        }
    }

    fn perform_future(self: &Rc<World>, op: Op) {
        let (Op::AddDone(n)
        | Op::RemoveDone(n)
        | Op::SetValue(n)
        | Op::DropPromise(n)
        | Op::CancelFuture(n)
        | Op::DropFuture(n)) = op
        else {
            let (promise, future) = self.handle.create_future();
            let (promise, future) = (RefCell::new(Some(promise)), RefCell::new(Some(future)));
            let future =
                Fut { promise, future, callbacks: RefCell::default(), done: Cell::new(false) };
            self.futures.borrow_mut().push(Rc::new(future));
            return;
        };
        let Some(chosen) = pick(&self.futures, n) else { return };
        match op {
            Op::AddDone(_) => {
                let (job, world) = (self.job(), self.clone());
                let future = chosen.future.borrow();
                let Some(future) = &*future else { return };
                let id = job.id;
                if chosen.done.get() {
                    self.becomes_ready(id);
                }
                let callback = future.add_done_callback(move |_, _| {
                    world.enter_ready(job.id);
                    world.step();
                });
                if !chosen.done.get() {
                    chosen.callbacks.borrow_mut().push((callback, id));
                }
            }
            Op::RemoveDone(_) => {
                let removed = chosen.callbacks.borrow_mut().pop();
                let future = chosen.future.borrow();
                if let (Some(future), Some((callback, _))) = (&*future, removed) {
                    assert!(future.remove_done_callback(callback));
                } else if let Some(removed) = removed {
                    chosen.callbacks.borrow_mut().push(removed);
                }
            }
            Op::SetValue(_) => {
                let promise = chosen.promise.take();
                if let Some(promise) = promise {
                    let cancelled = chosen.done.get();
                    self.settle(&chosen);
                    assert_eq!(promise.set(self.token()).is_err(), cancelled);
                }
            }
            Op::DropPromise(_) => {
                if let Some(promise) = chosen.promise.take() {
                    self.settle(&chosen);
                    drop(promise);
                }
            }
            Op::CancelFuture(_) => {
                let future = chosen.future.borrow();
                if let Some(future) = &*future {
                    let pending = !chosen.done.get();
                    self.settle(&chosen);
                    assert_eq!(future.cancel(), pending);
                }
            }
            _ => drop(chosen.future.take()),
        }
    }

    fn set_handler(self: &Rc<World>, custom: bool) {
        let world = Rc::downgrade(self);
        self.handle.set_exception_handler(Some(Rc::new(
            move |handle: &LoopHandle, context: &ErrorContext| {
                let Some(world) = world.upgrade() else { return };
                match context.failure.to_string() {
                    text if text == "as the script says" => {
                        world.reports.set(world.reports.get() + 1);
                    }
                    // An assertion of the model.
                    text => world.failures.borrow_mut().push(text),
                }
                let _ = format!("{context} {handle:?}");
                if custom {
                    // A failure of the handler would be one too many for the count.
                    let next = world.script.borrow_mut().pop_front();
                    if let Some(op) = next.filter(|op| !matches!(op, Op::Panic)) {
                        world.perform(op);
                    }
                }
            },
        )));
    }

    fn look(&self) {
        let statistics = self.handle.statistics();
        assert!(statistics.timers >= self.model.borrow().timers.len());
        let _ = (self.handle.next_deadline(), self.handle.exception_handler());
        let _ = format!("{:?} {statistics:?} {:?}", self.handle, self.handle.wires());
        for scheduled in self.scheduled.borrow().iter() {
            let _ = match &**scheduled {
                Scheduled::Soon(_, handle) => format!("{handle:?}"),
                Scheduled::Timer(_, _, handle) => format!("{handle:?} {:?}", handle.when()),
            };
        }
        for future in self.futures.borrow().iter() {
            let _ = format!("{:?} {:?}", future.future, future.promise);
        }
    }
}

struct Anything {
    world: std::rc::Weak<World>,
    removed: Rc<Cell<Option<(VirtualId, Token)>>>,
    _token: DropToken,
}

impl Anything {
    fn act(&self, world: &Rc<World>) {
        let (id, key) = self.removed.get().unwrap();
        world.clock.set_ready(id, Readiness::NONE);
        let there = world.sources.borrow().iter().any(|live| live.key == key);
        assert!(there, "a source that was removed is not called");
        let script: Vec<_> = {
            let mut script = world.script.borrow_mut();
            let count = script.len().min(STEP);
            script.drain(..count).collect()
        };
        for op in script {
            // A source that panics is taken away by the loop, which the model leaves out.
            if !matches!(op, Op::Panic) {
                world.perform(op);
            }
        }
    }
}

impl Source for Anything {
    fn ready(&mut self, _: &LoopHandle, _: &Event) {
        if let Some(world) = self.world.upgrade() {
            self.act(&world);
        }
    }

    fn attend(&mut self, _: &LoopHandle) {
        if let Some(world) = self.world.upgrade() {
            self.act(&world);
        }
    }
}

struct Looking(std::rc::Weak<World>);

impl Instrument for Looking {
    fn after_select(&self, _: usize, _: Duration) {
        if let Some(world) = self.0.upgrade() {
            world.look();
        }
    }
}

/// Runs one script to its end; returns how many jobs ran.
fn run_script(script: Vec<Op>) -> usize {
    let virtual_loop = VirtualLoop::new();
    let world = Rc::new(World {
        handle: virtual_loop.handle(),
        clock: virtual_loop.world().clone(),
        start: virtual_loop.time(),
        phase: Cell::new(Phase::Early),
        script: RefCell::new(script.into()),
        model: RefCell::default(),
        scheduled: RefCell::default(),
        futures: RefCell::default(),
        sources: RefCell::default(),
        alive: Drops::default(),
        made: Cell::new(0),
        panics: Cell::new(0),
        reports: Cell::new(0),
        failures: RefCell::default(),
    });
    world.set_handler(false);
    let mut round = 0u32;
    while !world.script.borrow().is_empty() {
        world.phase.set(Phase::Early);
        if round.is_multiple_of(7) {
            world.step();
        }
        round += 1;
        if round.is_multiple_of(3) {
            // One turn too, through the other door.
            virtual_loop.stop();
            virtual_loop.run_forever().unwrap();
        } else {
            virtual_loop.run_once(Timeout::Immediate).unwrap();
        }
    }
    // Nothing is done any more but to run what is left.
    for _ in 0..3 {
        world.phase.set(Phase::Early);
        world.clock.advance(Duration::from_nanos(100));
        virtual_loop.run_once(Timeout::Immediate).unwrap();
    }
    world.scheduled.take();
    world.phase.set(Phase::Early);
    for future in world.futures.take() {
        world.settle_dropped(&future);
    }
    for _ in 0..3 {
        world.phase.set(Phase::Early);
        virtual_loop.run_once(Timeout::Immediate).unwrap();
    }
    let model = world.model.borrow();
    assert!(model.ready.is_empty() && model.remote.is_empty() && model.due.is_empty());
    assert!(model.turns.is_empty(), "all that was ready ran");
    let next = model.timers.keys().next().map(|(when, _)| *when);
    assert!(next.is_none_or(|next| next > virtual_loop.time()), "all that was due fired");
    drop(model);
    assert_eq!(world.failures.take(), Vec::<String>::new());
    assert_eq!(world.panics.get(), world.reports.get(), "each panic is reported once");
    let ran = world.model.borrow().ran;
    world.sources.take();
    drop(virtual_loop);
    let (made, alive) = (world.made.get(), world.alive.clone());
    drop(world);
    assert_eq!(alive.count(), made, "everything is dropped, once");
    ran
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn b35_any_call_inside_any_callback_is_allowed_and_keeps_the_order(
        script in prop::collection::vec(op(), 0..400),
    ) {
        quiet();
        run_script(script);
    }
}

#[test]
fn b35_a_hundred_thousand_random_calls() {
    quiet();
    let count = if cases() > 256 { 1_000_000 } else { 100_000 };
    let mut runner = TestRunner::deterministic();
    let script = (0..count).map(|_| op().new_tree(&mut runner).unwrap().current()).collect();
    let ran = run_script(script);
    assert!(ran > count / 20, "{ran} jobs of {count} operations ran");
}
