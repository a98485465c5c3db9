//! Tasks: futures that the loop owns and runs, asyncio's `Task`.
//!
//! The problem: a task is reached from many sides. Wakers may be used on any thread and outlive the
//! loop, while the future must be polled and dropped on the loop's thread only; its handle may be
//! gone long before it ends; and whoever cancels it wants to reach into the middle of its future.
//!
//! The trick: three parts, each with one owner.
//! - async-task's allocation has the future and later its result. Its header, which the last waker
//!   frees on whatever thread, holds only a [`Key`] and the loop's `Arc`; both are `Send + Sync`.
//! - The loop's table (`table`) has what the program can ask for, and a waker of each task that is
//!   suspended, so that a task lives until it has ended, whoever forgets it.
//! - [`Task`] is the handle; dropping it only says so to the table.
//!
//! `run::Body` wraps the future. It is the one place that polls it, and the one place that drops it,
//! each with panics caught; async-task itself only ever drops an empty shell.
//!
//! | status | what is true | next |
//! |---|---|---|
//! | `Pending` | the future exists; the entry's waker or a scheduled step keeps it | any of the others, once, in `Body::poll` |
//! | `Finished` | its value is in async-task's allocation, or taken, or dropped if detached | |
//! | `Cancelled` | the future was dropped | |
//! | `Panicked` | the payload is where a value would be, or was reported if detached | |
//!
//! An entry leaves the table when its task has ended *and* its handle is gone.

mod builder;
mod cancellable;
mod join;
mod reference;
mod run;
mod table;

pub(crate) use builder::Start;
pub use builder::{TaskBuilder, spawn, spawn_eager};
pub use cancellable::{Cancellable, cancellable};
pub(crate) use join::NO_TASK;
pub use join::{Join, JoinError, Joined, Scoped, Shield, Task, shield};
pub(crate) use reference::without_closure;
pub use reference::{TaskId, TaskRef, TaskStatus, all_tasks, current_task};
pub(crate) use table::Tasks;

use tulipa_selector::Token;

/// What async-task's header holds for us: the index in the table, in four bytes, which saves sixteen of every
/// task's allocation. It needs no generation: a task that can be run has not ended, so its entry is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u32);

impl Key {
    fn of(key: Token) -> Key {
        Key(key.index() as u32)
    }
}

pub(crate) type TaskRunnable = async_task::Runnable<Key>;

/// What a task ends with.
type Output<T> = Result<T, JoinError>;

/// The last waker may be dropped on any thread, and with it what the header holds.
const _: () = {
    const fn may_go_anywhere<T: Send + Sync>() {}
    may_go_anywhere::<Key>();
    may_go_anywhere::<std::sync::Arc<crate::remote::Shared>>();
};
