//! Looking at a loop while it runs.

use std::panic::Location;
use std::time::Duration;

use crate::{Origin, TaskRef, TaskStatus};

/// Hooks around what a loop does. All do nothing by default; a loop without an instrument pays
/// nothing for them.
///
/// A hook must not block. A panic in one is reported, and the loop goes on.
pub trait Instrument {
    /// The loop is about to look for events; `timeout` is how long it may wait, `None` for ever.
    fn before_select(&self, timeout: Option<Duration>) {
        let _ = timeout;
    }

    /// The loop has `events` events, after having waited for `waited`.
    fn after_select(&self, events: usize, waited: Duration) {
        let _ = (events, waited);
    }

    /// A piece of user code is about to run.
    fn before_callback(&self, origin: Origin, location: Option<&'static Location<'static>>) {
        let _ = (origin, location);
    }

    /// It has run, for `took`.
    fn after_callback(&self, origin: Origin, took: Duration) {
        let _ = (origin, took);
    }

    /// A task was made; it has not run yet. Stands for `_register_task`; with
    /// [`task_ended`](Self::task_ended) it takes the place of a task factory. Its steps are
    /// [`before_callback`](Self::before_callback) with [`Origin::Task`].
    fn task_spawned(&self, task: &TaskRef) {
        let _ = task;
    }

    /// A task has ended; nobody who waits for it has been told yet. A panic that nobody takes was reported.
    /// Stands for `_unregister_task`.
    fn task_ended(&self, task: &TaskRef, status: TaskStatus) {
        let _ = (task, status);
    }

    /// It took longer than the loop's `slow_callback_duration`. Only in debug mode.
    fn slow_callback(
        &self,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        took: Duration,
    ) {
        let _ = (origin, location, took);
    }
}

/// What a loop has done and what it has before it: a snapshot from
/// [`LoopHandle::statistics`](crate::LoopHandle::statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Turns of the loop.
    pub turns: u64,
    /// Looks at the operating system, fewer than turns where work was at hand.
    pub selects: u64,
    /// Events that the operating system reported.
    pub events: u64,
    /// Callbacks run, cancelled ones not counted.
    pub callbacks: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Callbacks waiting for their turn now.
    pub ready: usize,
    /// The most callbacks that were ever waiting at the start of a turn.
    pub most_ready: usize,
    /// Timers pending now.
    pub timers: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Sources registered now: readers and writers, transports.
    pub sources: usize,
    /// The largest time that a timer fired after its deadline.
    pub most_lag: Duration,
    /// The time spent waiting for events. Counted only while the loop has an instrument or is in debug
    /// mode, because it costs two readings of the clock for each wait.
    pub idle: Duration,
}
