//! `tulipa-loop` beside tokio's current-thread runtime: callbacks, timers, turns, other threads.
//!
//! What has no exact counterpart is set beside the nearest thing that a program would use instead: a
//! spawned task for a callback, a `sleep` that was polled once for a timer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use tulipa_benches::{Plan, Table};
use tulipa_loop::{EventLoop, LoopHandle, TimerHandle};

/// How many callbacks are scheduled between two turns.
const GENERATION: u64 = 1000;
/// How long a loop looks before it sleeps, where it does.
const SPIN: Duration = Duration::from_micros(50);
/// How many timers are pending beside those that are measured.
const PENDING: u64 = 10_000;

fn main() {
    let plan = Plan::from_args();
    call_soon().run(&plan);
    for (title, pending) in [
        ("timer set and cancelled, none pending", 0),
        ("timer set and cancelled, 10,000 pending", PENDING),
    ] {
        timers(title, pending).run(&plan);
    }
    timers_that_fire().run(&plan);
    yields().run(&plan);
    spawn_and_join().run(&plan);
    for (title, tasks) in [("a yield of one task", 1), ("a yield of a hundred tasks", 100)] {
        task_yields(title, tasks).run(&plan);
    }
    ping_pong().run(&plan);
    foreign_calls().run(&plan);
    wake_latency().run(&plan);
    executor().run(&plan);
}

fn tulipa() -> EventLoop {
    EventLoop::new().expect("there are descriptors")
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Work that the compiler cannot take away.
fn consume(i: u64) {
    black_box(i);
}

fn turn(event_loop: &EventLoop) {
    event_loop.run_once(Duration::ZERO).expect("it runs");
}

fn call_soon() -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    let local = tokio::task::LocalSet::new();
    Table::new("call_soon", "tokio spawn_local")
        .case("tulipa call_soon", move |n| {
            for _ in 0..n.div_ceil(GENERATION) {
                for i in 0..GENERATION {
                    event_loop.call_soon(move |_| consume(i));
                }
                turn(&event_loop);
            }
        })
        .case("tokio spawn_local", move |n| {
            local.block_on(&runtime, async {
                for _ in 0..n.div_ceil(GENERATION) {
                    for i in 0..GENERATION {
                        tokio::task::spawn_local(async move { consume(i) });
                    }
                    tokio::task::yield_now().await;
                }
            });
        })
}

/// Delays like those of request timeouts: all different, none due.
fn delay(i: u64) -> Duration {
    Duration::from_millis(50_000 + i % 977)
}

async fn poll_once(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

fn timers(title: &'static str, pending: u64) -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    let ours: Vec<TimerHandle> =
        (0..pending).map(|i| event_loop.call_later(delay(i), |_| ())).collect();
    let mut theirs: Vec<Pin<Box<tokio::time::Sleep>>> = runtime
        .block_on(async { (0..pending).map(|i| Box::pin(tokio::time::sleep(delay(i)))).collect() });
    runtime.block_on(async {
        for sleep in &mut theirs {
            poll_once(sleep.as_mut()).await;
        }
    });
    Table::new(title, "tokio sleep")
        .case("tulipa call_later, cancel", move |n| {
            let _pending = &ours;
            for i in 0..n {
                event_loop.call_later(delay(i), |_| ()).cancel();
            }
        })
        .case("tokio sleep", move |n| {
            let _pending = &theirs;
            runtime.block_on(async {
                for i in 0..n {
                    poll_once(tokio::time::sleep(delay(i))).await;
                }
            });
        })
}

fn timers_that_fire() -> Table<'static> {
    let event_loop = tulipa();
    Table::new("timer set and fired", "tulipa call_later").case("tulipa call_later", move |n| {
        for _ in 0..n.div_ceil(GENERATION) {
            for i in 0..GENERATION {
                event_loop.call_later(Duration::from_nanos(i % 7), |_| ());
            }
            while event_loop.statistics().timers > 0 {
                turn(&event_loop);
            }
        }
    })
}

fn again(handle: &LoopHandle, left: Rc<Cell<u64>>) {
    if left.get() == 0 {
        return handle.stop();
    }
    left.set(left.get() - 1);
    handle.call_soon(move |handle| again(handle, left));
}

fn yields() -> Table<'static> {
    let (callbacks, event_loop, runtime) = (tulipa(), tulipa(), tokio());
    Table::new("a turn of the loop for one task", "tokio yield_now")
        .case("tulipa callback after callback", move |n| {
            again(&callbacks, Rc::new(Cell::new(n)));
            callbacks.run_forever().expect("it runs");
        })
        .case("tulipa main future yields", move |n| {
            let future = async {
                for _ in 0..n {
                    futures_lite::future::yield_now().await;
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio yield_now", move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
            });
        })
}

fn spawn_and_join() -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    let local = tokio::task::LocalSet::new();
    Table::new("task spawned and joined", "tokio spawn_local")
        .case("tulipa spawn", move |n| {
            let future = async {
                for i in 0..n {
                    tulipa_loop::spawn(async move { consume(i) }).await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio spawn_local", move |n| {
            local.block_on(&runtime, async {
                for i in 0..n {
                    tokio::task::spawn_local(async move { consume(i) }).await.expect("no panic");
                }
            });
        })
}

fn task_yields(title: &'static str, tasks: u64) -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    let local = tokio::task::LocalSet::new();
    Table::new(title, "tokio yield_now")
        .case("tulipa yield_now", move |n| {
            let yields = || async move {
                for _ in 0..n.div_ceil(tasks) {
                    tulipa_loop::yield_now().await;
                }
            };
            let future = async {
                let tasks: Vec<_> = (0..tasks).map(|_| tulipa_loop::spawn(yields())).collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio yield_now", move |n| {
            let yields = || async move {
                for _ in 0..n.div_ceil(tasks) {
                    tokio::task::yield_now().await;
                }
            };
            local.block_on(&runtime, async {
                let tasks: Vec<_> =
                    (0..tasks).map(|_| tokio::task::spawn_local(yields())).collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            });
        })
}

/// One of two sides that take turns: waits for its own and wakes the other.
async fn side(
    mine: usize,
    rounds: u64,
    turn: Rc<Cell<usize>>,
    wakers: Rc<[Cell<Option<Waker>>; 2]>,
) {
    for _ in 0..rounds {
        poll_fn(|context| {
            if turn.get() == mine {
                return Poll::Ready(());
            }
            wakers[mine].set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        turn.set(1 - mine);
        if let Some(waker) = wakers[1 - mine].take() {
            waker.wake();
        }
    }
}

fn ping_pong() -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    let local = tokio::task::LocalSet::new();
    let sides = |n: u64| {
        let (turn, wakers) =
            (Rc::new(Cell::new(0)), Rc::new(<[Cell<Option<Waker>>; 2]>::default()));
        [0, 1].map(|mine| side(mine, n.div_ceil(2), turn.clone(), wakers.clone()))
    };
    Table::new("wake between two tasks", "tokio spawn_local")
        .case("tulipa spawn", move |n| {
            let future = async {
                for task in sides(n).map(tulipa_loop::spawn) {
                    task.await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio spawn_local", move |n| {
            local.block_on(&runtime, async {
                for task in sides(n).map(tokio::task::spawn_local) {
                    task.await.expect("no panic");
                }
            });
        })
}

fn foreign_calls() -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    Table::new("calls from another thread", "tokio Handle::spawn")
        .case("tulipa Remote::call_soon", move |n| {
            let remote = event_loop.remote();
            let caller = thread::spawn(move || {
                for i in 0..n {
                    remote.call_soon(move |_| consume(i)).expect("the loop is open");
                }
                remote.stop().expect("the loop is open");
            });
            event_loop.run_forever().expect("it runs");
            caller.join().expect("no panic");
        })
        .case("tokio Handle::spawn", move |n| {
            let handle = runtime.handle().clone();
            let (done, all_done) = tokio::sync::oneshot::channel();
            let caller = thread::spawn(move || {
                for i in 0..n {
                    handle.spawn(async move { consume(i) });
                }
                handle.spawn(async move { done.send(()) });
            });
            runtime.block_on(all_done).expect("it is sent");
            caller.join().expect("no panic");
        })
}

/// A thread asks the sleeping loop for something and waits for the answer: two wake-ups in turn.
fn wake_latency() -> Table<'static> {
    let ask = |event_loop: &EventLoop, n: u64| {
        let remote = event_loop.remote();
        let asker = thread::spawn(move || {
            for _ in 0..n {
                let (answer, answered) = mpsc::channel();
                let asked = remote.call_soon(move |_| answer.send(()).expect("it is awaited"));
                asked.expect("the loop is open");
                answered.recv().expect("the loop answers");
            }
            remote.stop().expect("the loop is open");
        });
        event_loop.run_forever().expect("it runs");
        asker.join().expect("no panic");
    };
    let sleeping = tulipa();
    let spinning = EventLoop::builder().busy_poll(SPIN).build().expect("there are descriptors");
    let runtime = tokio();
    Table::new("question from a thread to a sleeping loop, and answer", "tokio Handle::spawn")
        .case("tulipa Remote::call_soon", move |n| ask(&sleeping, n))
        .case("the same with busy_poll", move |n| ask(&spinning, n))
        .case("tokio Handle::spawn", move |n| {
            let handle = runtime.handle().clone();
            let (done, all_done) = tokio::sync::oneshot::channel();
            let asker = thread::spawn(move || {
                for _ in 0..n {
                    let (answer, answered) = mpsc::channel();
                    handle.spawn(async move { answer.send(()) });
                    answered.recv().expect("the runtime answers");
                }
                handle.spawn(async move { done.send(()) });
            });
            runtime.block_on(all_done).expect("it is sent");
            asker.join().expect("no panic");
        })
}

fn executor() -> Table<'static> {
    let (event_loop, runtime) = (tulipa(), tokio());
    Table::new("executor round trip", "tokio spawn_blocking")
        .case("tulipa run_in_executor", move |n| {
            let future = async {
                for _ in 0..n {
                    event_loop.run_in_executor(None, || ()).await.expect("it runs");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio spawn_blocking", move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    tokio::task::spawn_blocking(|| ()).await.expect("it runs");
                }
            });
        })
}
