//! The await graph against a model: tasks that wait for anything, futures that are dropped anywhere and move
//! from task to task, tasks that are cancelled, waits that end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tulipa_loop::{
    AwaiterId, Job, LoopHandle, Promise, Task, TaskRef, gather, wait_for, waiting_on,
};
use tulipa_sync::{Event, Lock, LockGuard, Queue};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

/// The tasks that wait.
const WORKERS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sleep(u8),
    Promise,
    Shared,
    Job,
    Named,
    Join,
    Gather,
    WaitFor(u8),
    Lock,
    Event,
    Get,
}

#[derive(Clone, Debug)]
enum Op {
    /// A worker begins a wait.
    Begin(usize, Kind),
    /// What a wait is for happens.
    Complete(usize),
    /// A wait is dropped outside of the loop, or by a worker.
    Drop(usize),
    DropIn(usize, usize),
    /// A wait goes to another worker.
    Move(usize, usize),
    Cancel(usize),
    Advance(u8),
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1..9u8).prop_map(Kind::Sleep),
        Just(Kind::Promise),
        Just(Kind::Shared),
        Just(Kind::Job),
        Just(Kind::Named),
        Just(Kind::Join),
        Just(Kind::Gather),
        (1..9u8).prop_map(Kind::WaitFor),
        Just(Kind::Lock),
        Just(Kind::Event),
        Just(Kind::Get),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..WORKERS, any_kind()).prop_map(|(worker, kind)| Op::Begin(worker, kind)),
        2 => any::<usize>().prop_map(Op::Complete),
        1 => any::<usize>().prop_map(Op::Drop),
        1 => (0..WORKERS, any::<usize>()).prop_map(|(worker, wait)| Op::DropIn(worker, wait)),
        2 => (0..WORKERS, any::<usize>()).prop_map(|(worker, wait)| Op::Move(worker, wait)),
        1 => (0..WORKERS).prop_map(Op::Cancel),
        1 => (0..5u8).prop_map(Op::Advance),
    ]
}

/// What ends a wait.
enum Trigger {
    Time(Instant),
    Promise(Promise<()>),
    Job(Job),
    Never,
    /// The promises that targets wait for, and the targets.
    Tasks(Vec<Promise<()>>, Vec<TaskRef>),
    Guard(LockGuard<'static, ()>),
    Event(&'static Event),
    Queue(&'static Queue<()>),
}

struct Held {
    worker: usize,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Whether what it waited for has happened.
    over: bool,
    /// Whether its worker has polled it.
    polled: bool,
}

/// What the workers share with the test.
#[derive(Default)]
struct Shared {
    waits: RefCell<Vec<Rc<RefCell<Held>>>>,
    drops: RefCell<Vec<(usize, Rc<RefCell<Held>>)>>,
    wakers: [Cell<Option<Waker>>; WORKERS],
}

impl Shared {
    fn wake(&self) {
        self.wakers.iter().filter_map(Cell::take).for_each(Waker::wake);
    }
}

async fn work(me: usize, shared: Rc<Shared>) {
    poll_fn(|context| {
        let drops = shared.drops.take();
        let (mine, others): (Vec<_>, _) = drops.into_iter().partition(|(worker, _)| *worker == me);
        shared.drops.borrow_mut().extend(others);
        mine.iter().for_each(|(_, held)| drop_now(held));
        let waits = shared.waits.borrow().clone();
        for held in waits {
            if held.borrow().worker != me {
                continue;
            }
            let future = held.borrow_mut().future.take();
            let Some(mut future) = future else { continue };
            held.borrow_mut().polled = true;
            if future.as_mut().poll(context).is_pending() {
                held.borrow_mut().future = Some(future);
            }
        }
        shared.wakers[me].set(Some(context.waker().clone()));
        Poll::Pending
    })
    .await
}

fn drop_now(held: &Rc<RefCell<Held>>) {
    let future = held.borrow_mut().future.take();
    drop(future);
}

/// One wait, with what the graph has to show for it.
struct Wait {
    held: Rc<RefCell<Held>>,
    trigger: Trigger,
    kind: Kind,
}

impl Wait {
    /// The kinds of its edges.
    fn expected(&self, workers: &[Task<()>], now: Instant) -> Vec<&'static str> {
        let held = self.held.borrow();
        let shown = held.future.is_some() && held.polled && !workers[held.worker].is_done();
        if !shown || held.over || matches!(self.trigger, Trigger::Time(when) if when <= now) {
            return Vec::new();
        }
        let pending = |tasks: &[TaskRef]| tasks.iter().filter(|task| !task.is_done()).count();
        match (self.kind, &self.trigger) {
            (Kind::Sleep(_), _) => vec!["sleep"],
            (Kind::Promise | Kind::Shared, _) => vec!["future"],
            (Kind::Job, _) => vec!["job"],
            (Kind::Named, _) => vec!["named"],
            (Kind::Join, _) => vec!["join"],
            (Kind::Gather, Trigger::Tasks(_, tasks)) => vec!["gather"; pending(tasks)],
            (Kind::WaitFor(_), _) => vec!["wait_for"; 2],
            (Kind::Lock, _) => vec!["lock"],
            (Kind::Event, _) => vec!["event"],
            (Kind::Get, _) => vec!["queue get"],
            (Kind::Gather, _) => unreachable!(),
        }
    }
}

/// Primitives live as long as the test: a wait borrows them.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A task that ends when its promise is set.
fn target(handle: &LoopHandle) -> (Promise<()>, Task<()>) {
    let (promise, future) = handle.create_future();
    let task = handle.spawn(async {
        let _ = future.await;
    });
    (promise, task)
}

fn begin(handle: &LoopHandle, worker: usize, kind: Kind) -> Wait {
    type Boxed = Pin<Box<dyn Future<Output = ()>>>;
    let (trigger, future): (Trigger, Boxed) = match kind {
        Kind::Sleep(seconds) => {
            let when = handle.time() + u32::from(seconds) * SECOND;
            (Trigger::Time(when), Box::pin(handle.sleep_until(when)))
        }
        Kind::Promise => {
            let (promise, future) = handle.create_future();
            (
                Trigger::Promise(promise),
                Box::pin(async {
                    let _ = future.await;
                }),
            )
        }
        Kind::Shared => {
            let (promise, future) = handle.create_future();
            let future = future.shared();
            (
                Trigger::Promise(promise),
                Box::pin(async {
                    let _ = future.await;
                }),
            )
        }
        Kind::Job => {
            let (job, handle) = Job::new(|| ());
            (
                Trigger::Job(job),
                Box::pin(async {
                    let _ = handle.await;
                }),
            )
        }
        Kind::Named => (Trigger::Never, Box::pin(waiting_on("named", std::future::pending()))),
        Kind::Join => {
            let (promise, task) = target(handle);
            let tasks = vec![task.reference()];
            let future = Box::pin(async {
                let _ = task.await;
            });
            (Trigger::Tasks(vec![promise], tasks), future)
        }
        Kind::Gather => {
            let ((one, first), (two, second)) = (target(handle), target(handle));
            let tasks = vec![first.reference(), second.reference()];
            let future = Box::pin(async { drop(gather([first, second]).await) });
            (Trigger::Tasks(vec![one, two], tasks), future)
        }
        Kind::WaitFor(seconds) => {
            let (promise, task) = target(handle);
            // The deadline counts from the first poll, which is at this instant.
            let delay = u32::from(seconds) * SECOND;
            let tasks = vec![task.reference()];
            let future = Box::pin(async move {
                let _ = wait_for(task, delay).await;
            });
            (Trigger::Tasks(vec![promise], tasks), future)
        }
        Kind::Lock => {
            let lock = leaked(Lock::new(()));
            let guard = lock.try_lock().expect("nobody has it");
            (Trigger::Guard(guard), Box::pin(async { drop(lock.lock().await) }))
        }
        Kind::Event => {
            let event = leaked(Event::new());
            (Trigger::Event(event), Box::pin(event.wait()))
        }
        Kind::Get => {
            let queue = leaked(Queue::unbounded());
            (
                Trigger::Queue(queue),
                Box::pin(async {
                    let _ = queue.get().await;
                }),
            )
        }
    };
    let held = Held { worker, future: Some(future), over: false, polled: false };
    Wait { held: Rc::new(RefCell::new(held)), trigger, kind }
}

fn complete(wait: &mut Wait) {
    wait.held.borrow_mut().over = match std::mem::replace(&mut wait.trigger, Trigger::Never) {
        trigger @ (Trigger::Never | Trigger::Time(_)) => {
            wait.trigger = trigger;
            false
        }
        Trigger::Promise(promise) => {
            let _ = promise.set(());
            true
        }
        Trigger::Job(job) => {
            job.run();
            true
        }
        Trigger::Tasks(mut promises, tasks) => {
            // One at a time: a gather then has an edge less.
            let promise = promises.pop();
            let over = promises.is_empty();
            drop(promise);
            wait.trigger = Trigger::Tasks(promises, tasks);
            over
        }
        Trigger::Guard(guard) => {
            drop(guard);
            true
        }
        Trigger::Event(event) => {
            event.set();
            true
        }
        Trigger::Queue(queue) => queue.try_put(()).is_ok(),
    };
}

/// Compares the graph with the model.
fn check(
    virtual_loop: &VirtualLoop,
    workers: &[Task<()>],
    waits: &[Wait],
) -> Result<(), TestCaseError> {
    let graph = virtual_loop.await_graph();
    let mut alive: Vec<_> =
        virtual_loop.all_tasks().iter().map(TaskRef::id).map(AwaiterId::Task).collect();
    alive.sort();
    let nodes: Vec<_> = graph.nodes.iter().map(|node| node.id).collect();
    prop_assert_eq!(nodes, alive);
    for (worker, task) in workers.iter().enumerate() {
        let mine = waits.iter().filter(|wait| wait.held.borrow().worker == worker);
        let mut expected: Vec<_> =
            mine.flat_map(|wait| wait.expected(workers, virtual_loop.time())).collect();
        let node = graph.node(AwaiterId::Task(task.id()));
        let mut found: Vec<_> =
            node.iter().flat_map(|node| &node.waits).map(|wait| wait.kind).collect();
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected, "worker {} in\n{}", worker, graph);
    }
    prop_assert!(graph.cycles().is_empty());
    Ok(())
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let virtual_loop = VirtualLoop::new();
    let shared = Rc::new(Shared::default());
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| virtual_loop.spawn(work(worker, shared.clone()))).collect();
    let mut waits: Vec<Wait> = Vec::new();
    for op in ops {
        let picked = |at: usize| waits.get(at.checked_rem(waits.len()).unwrap_or(0));
        match op {
            Op::Begin(worker, kind) => {
                let wait = begin(&virtual_loop, worker, kind);
                shared.waits.borrow_mut().push(wait.held.clone());
                waits.push(wait);
            }
            Op::Complete(at) => {
                let count = waits.len();
                if let Some(wait) = waits.get_mut(at.checked_rem(count).unwrap_or(0)) {
                    complete(wait);
                }
            }
            Op::Drop(at) => {
                if let Some(wait) = picked(at) {
                    drop_now(&wait.held);
                    // At once, before anything has run; what ends with it may take a turn.
                    if !matches!(wait.kind, Kind::Join | Kind::Gather | Kind::WaitFor(_)) {
                        check(&virtual_loop, &workers, &waits)?;
                    }
                }
            }
            Op::DropIn(worker, at) => {
                if let Some(wait) = picked(at) {
                    shared.drops.borrow_mut().push((worker, wait.held.clone()));
                }
            }
            Op::Move(worker, at) => {
                if let Some(wait) = picked(at) {
                    let mut held = wait.held.borrow_mut();
                    if !workers[worker].is_done() {
                        held.worker = worker;
                    }
                }
            }
            Op::Cancel(worker) => drop(workers[worker].cancel()),
            Op::Advance(seconds) => virtual_loop.advance(u32::from(seconds) * SECOND),
        }
        shared.wake();
        virtual_loop.run_until_idle();
        check(&virtual_loop, &workers, &waits)?;
    }
    let left: Vec<_> = waits.iter().map(|wait| wait.held.clone()).collect();
    left.iter().for_each(drop_now);
    drop(waits);
    let graph = virtual_loop.await_graph();
    prop_assert!(
        graph.nodes.iter().all(|node| node.waits.iter().all(|w| w.kind == "future")),
        "{}",
        graph
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
    ))]

    #[test]
    fn the_await_graph_follows_the_model(ops in prop::collection::vec(any_op(), 1..40)) {
        run(ops)?;
    }
}

#[test]
fn a_wait_that_moves_and_loses_its_task_is_followed() {
    let ops = [
        Op::Begin(0, Kind::Lock),
        Op::Begin(0, Kind::Sleep(5)),
        Op::Move(1, 0),
        Op::Cancel(1),
        Op::Move(2, 0),
        Op::Move(2, 1),
        Op::Cancel(0),
        Op::Complete(0),
        Op::Advance(5),
    ];
    run(ops.to_vec()).unwrap();
}
