//! `tulipa-sync` beside tokio's and smol's primitives.
//!
//! "on tokio" means tokio's current-thread runtime with a `LocalSet`; "tiny" is the crate's own
//! executor. Both are given for each library, so that the cost of the primitive and that of the
//! runtime can be told apart.

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_lite::future::block_on;

use crate::executor::{self, YieldNow};
use crate::measure::Cases;

/// How many tasks share the contended semaphore.
const RIVALS: u64 = 4;

/// The baseline of these tables.
const ON_TOKIO: &str = "tokio on tokio";

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn on_tiny<const N: usize>(tasks: [Task; N]) {
    executor::run(tasks);
}

fn tokio_local() -> impl Fn(Vec<Task>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    move |tasks| {
        let local = tokio::task::LocalSet::new();
        let handles: Vec<_> = tasks.into_iter().map(|task| local.spawn_local(task)).collect();
        runtime.block_on(local.run_until(async {
            for handle in handles {
                handle.await.expect("the task finishes");
            }
        }));
    }
}

pub(super) fn hand_over(title: &'static str, capacity: usize) -> Cases<'static> {
    let (runtime, other) = (tokio_local(), tokio_local());
    Cases::new(title, ON_TOKIO)
        .case("tulipa Queue, tiny", move |n| on_tiny(tulipa_queue(capacity, n)))
        .target(0.20)
        .case("no queue: wake each other, tiny", move |n| on_tiny(ping_pong(n)))
        .case("tokio mpsc, tiny", move |n| on_tiny(tokio_queue(capacity, n)))
        .case("async-channel, tiny", move |n| on_tiny(async_channel_queue(capacity, n)))
        .case("tulipa Queue on tokio", move |n| runtime(tulipa_queue(capacity, n).into()))
        .case(ON_TOKIO, move |n| other(tokio_queue(capacity, n).into()))
}

/// The least that two tasks can do to take turns: what a queue with room for one adds to.
fn ping_pong(n: u64) -> [Task; 2] {
    let turn = Rc::new(Cell::new(0));
    let parked = Rc::new(Cell::new(None::<Waker>));
    [0, 1].map(|me| {
        let (turn, parked) = (turn.clone(), parked.clone());
        Box::pin(poll_fn(move |cx| {
            while turn.get() % 2 == me && turn.get() < 2 * n {
                turn.set(turn.get() + 1);
                if let Some(other) = parked.take() {
                    other.wake();
                }
            }
            if turn.get() >= 2 * n {
                return Poll::Ready(());
            }
            parked.set(Some(cx.waker().clone()));
            Poll::Pending
        })) as Task
    })
}

fn tulipa_queue(capacity: usize, n: u64) -> [Task; 2] {
    let queue = Rc::new(tulipa_sync::Queue::bounded(capacity));
    let other = queue.clone();
    [
        Box::pin(async move {
            for item in 0..n {
                queue.put(item).await.expect("the queue is open");
            }
        }),
        Box::pin(async move {
            for item in 0..n {
                assert_eq!(other.get().await, Ok(item));
            }
        }),
    ]
}

fn tokio_queue(capacity: usize, n: u64) -> [Task; 2] {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(capacity);
    [
        Box::pin(async move {
            for item in 0..n {
                sender.send(item).await.expect("the channel is open");
            }
        }),
        Box::pin(async move {
            for item in 0..n {
                assert_eq!(receiver.recv().await, Some(item));
            }
        }),
    ]
}

fn async_channel_queue(capacity: usize, n: u64) -> [Task; 2] {
    let (sender, receiver) = async_channel::bounded(capacity);
    [
        Box::pin(async move {
            for item in 0..n {
                sender.send(item).await.expect("the channel is open");
            }
        }),
        Box::pin(async move {
            for item in 0..n {
                assert_eq!(receiver.recv().await, Ok(item));
            }
        }),
    ]
}

pub(super) fn semaphore_uncontended(title: &'static str) -> Cases<'static> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tulipa = tulipa_sync::Semaphore::new(5);
    let tokio = tokio::sync::Semaphore::new(5);
    let on_tokio = tokio::sync::Semaphore::new(5);
    let smol = async_lock::Semaphore::new(5);
    Cases::new(title, ON_TOKIO)
        .case("tulipa", move |n| {
            block_on(async {
                for _ in 0..n {
                    drop(black_box(tulipa.acquire().await));
                }
            });
        })
        .target(0.25)
        .case("tokio", move |n| {
            block_on(async {
                for _ in 0..n {
                    drop(black_box(tokio.acquire().await));
                }
            });
        })
        .case("async-lock", move |n| {
            block_on(async {
                for _ in 0..n {
                    drop(black_box(smol.acquire().await));
                }
            });
        })
        .case(ON_TOKIO, move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    drop(black_box(on_tokio.acquire().await));
                }
            });
        })
}

/// Tasks that hold what `$acquire` gives across one turn, `$n` times in all.
macro_rules! rivals {
    ($n:expr, $shared:expr, $acquire:ident) => {{
        let shared = Rc::new($shared);
        std::array::from_fn::<Task, { RIVALS as usize }, _>(|_| {
            let shared = shared.clone();
            Box::pin(async move {
                for _ in 0..$n.div_ceil(RIVALS) {
                    let permit = shared.$acquire().await;
                    YieldNow::default().await;
                    drop(permit);
                }
            })
        })
    }};
}

pub(super) fn semaphore_contended(title: &'static str) -> Cases<'static> {
    let (runtime, other) = (tokio_local(), tokio_local());
    Cases::new(title, ON_TOKIO)
        .case("tulipa, tiny", |n| on_tiny(rivals!(n, tulipa_sync::Semaphore::new(1), acquire)))
        .target(0.40)
        .case("tokio, tiny", |n| on_tiny(rivals!(n, tokio::sync::Semaphore::new(1), acquire)))
        .case("async-lock, tiny", |n| on_tiny(rivals!(n, async_lock::Semaphore::new(1), acquire)))
        .case("tulipa on tokio", move |n| {
            runtime(rivals!(n, tulipa_sync::Semaphore::new(1), acquire).into());
        })
        .case(ON_TOKIO, move |n| {
            other(rivals!(n, tokio::sync::Semaphore::new(1), acquire).into());
        })
}

pub(super) fn lock_uncontended(title: &'static str) -> Cases<'static> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tulipa = tulipa_sync::Lock::new(0_u64);
    let tokio = tokio::sync::Mutex::new(0_u64);
    let on_tokio = tokio::sync::Mutex::new(0_u64);
    let smol = async_lock::Mutex::new(0_u64);
    Cases::new(title, ON_TOKIO)
        .case("tulipa", move |n| {
            block_on(async {
                for _ in 0..n {
                    *tulipa.lock().await += 1;
                }
            });
        })
        .case("tokio", move |n| {
            block_on(async {
                for _ in 0..n {
                    *tokio.lock().await += 1;
                }
            });
        })
        .case("async-lock", move |n| {
            block_on(async {
                for _ in 0..n {
                    *smol.lock().await += 1;
                }
            });
        })
        .case(ON_TOKIO, move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    *on_tokio.lock().await += 1;
                }
            });
        })
}

pub(super) fn lock_contended(title: &'static str) -> Cases<'static> {
    let (runtime, other) = (tokio_local(), tokio_local());
    Cases::new(title, ON_TOKIO)
        .case("tulipa, tiny", |n| on_tiny(rivals!(n, tulipa_sync::Lock::new(()), lock)))
        .case("tokio, tiny", |n| on_tiny(rivals!(n, tokio::sync::Mutex::new(()), lock)))
        .case("async-lock, tiny", |n| on_tiny(rivals!(n, async_lock::Mutex::new(()), lock)))
        .case("tulipa on tokio", move |n| {
            runtime(rivals!(n, tulipa_sync::Lock::new(()), lock).into());
        })
        .case(ON_TOKIO, move |n| {
            other(rivals!(n, tokio::sync::Mutex::new(()), lock).into());
        })
}
