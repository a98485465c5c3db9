//! asyncio's event loop for Rust: callbacks, timers, tasks, futures, readers, signals and threads.
//!
//! ```
//! use std::time::Duration;
//! use tulipa_loop::EventLoop;
//!
//! let event_loop = EventLoop::new()?;
//! event_loop.call_later(Duration::from_millis(2), |handle| {
//!     println!("later");
//!     handle.stop();
//! });
//! event_loop.call_soon(|handle| {
//!     println!("soon");
//!     handle.call_soon(|_| println!("at the next turn"));
//! });
//! event_loop.run_forever()?;
//!
//! let answer = event_loop.run_until_complete(async {
//!     let task = tulipa_loop::spawn(async { 6 * 7 });
//!     task.await
//! })??;
//! assert_eq!(answer, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - **Order.** Callbacks run first in, first out, each once. Timers are never early, run by deadline,
//!   and in the order in which they were set for equal deadlines. What is scheduled during a turn waits
//!   for the next one, so nothing starves: events are looked at between any two generations.
//! - **Anything from anywhere.** Inside a callback every method may be called. User code never runs
//!   while anything of the loop is borrowed, destructors and wakers included.
//! - **Nothing ends the loop by accident.** A panic in a callback is caught, reported once to the
//!   exception handler with the place that scheduled it, and the loop goes on.
//! - **A cancel is a request, and is not lost.** A [`Task`] ends where it is suspended, or where it
//!   says it can be cancelled, with clean-up that may await: see [`cancellable`].
//! - **Nothing is left behind.** Cancelling frees a closure at once. Dropping the loop drops all that was
//!   scheduled, on its own thread, and handles that live on do nothing.
//! - **The clock is the selector's.** With a `VirtualSelector` everything here runs in virtual time.
//!
//! # Limits
//! A loop lives on one thread and everything it gives out is `!Send`, except [`Remote`]. One loop runs
//! on a thread at a time. At most 2³² − 2 timers, as many tasks, and 64 loops with signal handlers.
//! After `fork` a loop refuses to run in the child, which may do no more with it than drop it.
//!
//! # Tracing
//! With a `tracing` subscriber for the level TRACE each task has a span `runtime.spawn`, and each wake is
//! an event of `runtime::waker`: the names that tokio-console knows. Failures that nobody takes, and slow
//! callbacks in debug mode, are events of the target `tulipa`.
//!
//! # Features
//! | feature | adds |
//! |---|---|
//! | `signal` | `add_signal_handler`, `ctrl_c` and signals as a stream, on unix; a [`Runner`] listens to Ctrl-C |
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `event_loop` | [`EventLoop`], the owner: making, running, closing; [`Builder`], [`RunError`] |
//! | `runner` | [`run()`] and [`Runner`]: a program from its main future to the end of its last task |
//! | `program` | what `#[tulipa::main]` calls; [`react`] |
//! | `deferred`, `looping_call` | [`Deferred`], [`LoopingCall`]: callbacks in Twisted's way |
//! | `handle` | [`LoopHandle`], what callbacks use; [`Handle`], [`TimerHandle`] |
//! | `turn` | one turn of the loop, step by step |
//! | `core`, `timers`, `source`, `claims` | the state: the ready queue, the timer queue, the sources of events, whose descriptors they are |
//! | `remote`, `blocking_future` | [`Remote`], the part that other threads may hold; [`BlockingFuture`] |
//! | `task` | [`Task`]: spawning, joining, cancelling; [`TaskRef`], [`cancellable`], [`shield`] |
//! | `context` | [`ContextVar`]: values that callbacks and tasks inherit |
//! | `group`, `group_start`, `gather` | [`task_group`], [`TaskGroup::start`], [`gather()`], [`try_gather`], [`wait`], [`as_completed`] |
//! | `exit_stack` | [`AsyncExitStack`]: clean-up that awaits |
//! | `staggered` | [`staggered_race`], for connecting to one of several addresses |
//! | `sleep`, `timeout`, `interval`, `yield_now` | [`sleep()`], [`timeout()`], [`wait_for`], [`interval()`], [`yield_now()`] |
//! | `await_graph` | [`AwaitGraph`]: who waits for what; [`format_call_graph`], [`waiting_on`] |
//! | `future`, `main_future` | [`Promise`] and [`LoopFuture`]; what `run_until_complete` drives |
//! | `readers`, `async_fd`, [`signal`], `stdin` | descriptors and signals as callbacks and futures |
//! | `executor`, `thread_pool`, `job` | [`to_thread`], [`ThreadPool`] and `run_in_executor` |
//! | `report`, `instrument`, `trace` | failures that have no caller; looking at a loop while it runs; spans by tokio-console's names |
//! | `loop_bound` | [`LoopBound`]: what is not `Send` in the hands of those who want `Send` |
//! | `sys` | the only `unsafe` code: signal dispositions, values that stay on their thread |
//!
//! It knows nothing of sockets, buffers or protocols.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod async_fd;
mod await_graph;
mod blocking_future;
mod claims;
mod context;
mod core;
mod deferred;
mod event_loop;
mod executor;
mod exit_stack;
mod future;
mod gather;
mod group;
mod group_start;
mod handle;
mod instrument;
mod interval;
mod job;
mod loop_bound;
mod looping_call;
mod main_future;
mod program;
mod readers;
mod remote;
mod report;
mod runner;
#[cfg(all(unix, feature = "signal"))]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub mod signal;
mod sleep;
mod source;
mod staggered;
#[cfg(unix)]
mod stdin;
mod sys;
mod task;
mod thread_pool;
mod timeout;
mod timers;
mod trace;
mod turn;
mod yield_now;

pub use async_fd::{AsyncFd, Ready};
pub use await_graph::{
    AwaitEdge, AwaitGraph, AwaitNode, AwaitTarget, AwaiterId, AwaiterState, Cycle,
    FrameCallGraphEntry, FutureCallGraph, WaitingOn, capture_call_graph, format_call_graph,
    print_call_graph, waiting_on,
};
pub use blocking_future::BlockingFuture;
pub use context::{Context, ContextScope, ContextToken, ContextVar, copy_context};
pub use deferred::{
    Deferred, DeferredError, DeferredFuture, DeferredResult, MaybeDeferred, Trigger,
};
pub use event_loop::{Builder, EventLoop, RunError};
pub use executor::{
    DEFAULT_QUEUE, Executor, ExecutorError, ExecutorJob, Job, JobError, JobHandle, Map, Stragglers,
    ThreadPool, ThreadPoolBuilder, to_thread,
};
pub use exit_stack::AsyncExitStack;
pub use future::{CallbackId, Cancelled, LoopFuture, Outcome, Promise, SharedFuture};
pub use gather::{AsCompleted, ReturnWhen, as_completed, gather, try_gather, wait};
pub use group::{GroupClosed, GroupError, GroupTask, TaskGroup, task_group};
pub use group_start::{StartError, Starting};
pub use handle::{Handle, LoopHandle, TimerHandle};
pub use instrument::{Instrument, Statistics};
pub use interval::{Interval, MissedTicks, interval, interval_at};
pub use loop_bound::LoopBound;
pub use looping_call::LoopingCall;
pub use program::react;
pub use remote::{LoopClosed, Remote, RemoteError, RemoteHandle};
pub use report::{ErrorContext, ExceptionHandler, Failure, Origin};
pub use runner::{EXECUTOR_SHUTDOWN, Runner, run};
pub use sleep::{Sleep, sleep, sleep_until};
pub use source::{BorrowedSource, Flush, MarkTimer, Source, SourceUnavailable, Wires};
pub use staggered::{Winner, staggered_race};
#[cfg(unix)]
pub use stdin::Stdin;
pub use task::{
    Cancellable, Join, JoinError, Joined, Scoped, Shield, Task, TaskBuilder, TaskId, TaskRef,
    TaskStatus, all_tasks, cancellable, current_task, shield, spawn, spawn_eager,
};
pub use timeout::{
    Elapsed, Timeout, TimeoutEnded, TimeoutFuture, WaitFor, timeout, timeout_at, wait_for,
};
pub use yield_now::yield_now;

/// For the macros and the test kit of tulipa. Not part of the interface: it changes with any version.
#[doc(hidden)]
pub mod __private {
    pub use crate::program::{Exit, Program};
    pub use crate::source::own_sources;
}
