//! Operations of one process, beside the same operation of the peers.
//!
//! What has no exact counterpart is set beside the nearest thing that a program would use instead: a
//! spawned task for a callback, a `sleep` that was polled once for a timer.

mod callbacks;
mod sync;
mod tasks;
mod threads;
mod timers;

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tulipa_loop::EventLoop;

use crate::measure::Cases;
use crate::plan::Plan;
use crate::report::Report;

/// The baseline of these tables.
const TOKIO: &str = "tokio LocalSet";

/// A table that is made when it is wanted.
type Make = fn(&'static str) -> Cases<'static>;

/// All tables, in their order.
const TABLES: &[(&str, Make)] = &[
    ("call_soon", callbacks::call_soon),
    ("a turn of the loop for one callback, or a future that yields", callbacks::turns),
    ("task spawned and joined", tasks::spawn_and_join),
    ("a yield of one task", |title| tasks::yields(title, 1, 1.0)),
    ("a yield of a hundred tasks", |title| tasks::yields(title, 100, 0.95)),
    ("wake ping-pong between two tasks", tasks::ping_pong),
    ("timer set and cancelled, none pending", |title| timers::set_and_cancelled(title, 0, 0.20)),
    ("timer set and cancelled, 10,000 pending", |title| {
        timers::set_and_cancelled(title, 10_000, 0.25)
    }),
    ("timer set and fired", timers::fired),
    ("lateness of a sleep of 1 ms", timers::lateness),
    ("queue hand-over between two tasks, room for 64", |title| sync::hand_over(title, 64)),
    ("queue hand-over between two tasks, room for 1", |title| sync::hand_over(title, 1)),
    ("semaphore, uncontended", sync::semaphore_uncontended),
    ("semaphore, 4 tasks, 1 permit held for a turn", sync::semaphore_contended),
    ("lock, uncontended", sync::lock_uncontended),
    ("lock, 4 tasks, held for a turn", sync::lock_contended),
    ("calls from another thread", threads::calls),
    ("question from another core, and answer", threads::questions),
    ("executor round trip", threads::executor),
];

/// Those of one thread, whose instructions can be counted: what other threads do depends on chance.
pub fn countable() -> impl Iterator<Item = (&'static str, Cases<'static>)> {
    let counted = TABLES.iter().filter(|(title, _)| !TIMED_ONLY.contains(title));
    counted.map(|(title, make)| (*title, make(title)))
}

/// Does one operation so often, and nothing else.
pub fn repeat(title: &str, case: &str, times: u64) {
    for (_, make) in TABLES.iter().filter(|(known, _)| *known == title) {
        make("").repeat(case, times);
    }
}

/// Tables whose operations wait for a clock or for another thread.
const TIMED_ONLY: [&str; 4] = [
    "lateness of a sleep of 1 ms",
    "calls from another thread",
    "question from another core, and answer",
    "executor round trip",
];

/// Runs what the plan wants.
pub fn run(plan: &Plan, report: &mut Report) {
    for (title, make) in TABLES.iter().filter(|(title, _)| plan.wants(title)) {
        make(title).run(plan, report);
    }
}

fn tulipa() -> EventLoop {
    EventLoop::new().expect("there are descriptors")
}

/// tokio's current-thread runtime and a set of tasks that stay on its thread.
fn tokio_local() -> (tokio::runtime::Runtime, tokio::task::LocalSet) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    (runtime.expect("a runtime"), tokio::task::LocalSet::new())
}

/// Work that the compiler cannot take away.
fn consume(i: u64) {
    black_box(i);
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

/// Two sides that take `n` turns together.
fn sides(n: u64) -> [impl Future<Output = ()> + 'static; 2] {
    let (turn, wakers) = (Rc::new(Cell::new(0)), Rc::new(<[Cell<Option<Waker>>; 2]>::default()));
    [0, 1].map(|mine| side(mine, n.div_ceil(2), turn.clone(), wakers.clone()))
}
