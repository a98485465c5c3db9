//! Running tasks: the future's wrapper, one step, the end, and the end of the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tulipa_selector::Token;

use super::table::Step;
use super::{JoinError, Output, TaskRef, TaskRunnable, TaskStatus};
use crate::LoopHandle;
use crate::context::{self, Context as Inherited};
use crate::core::Core;
use crate::report::{ErrorContext, Failure, Origin};
use crate::trace;

/// How often a closing loop collects tasks. One round is enough unless another thread is in the middle
/// of a wake, or destructors wake what was collected already; a thread that does not get to run for
/// this many rounds leaks the task it is waking.
const MOST_CLOSING_ROUNDS: usize = 1000;

/// How many generations of groups within groups are dropped in the turn in which the outermost one
/// was; deeper ones follow in the next turn.
const MOST_REAPING_ROUNDS: usize = 64;

pin_project! {
    /// The future of a task. It finds its entry through the loop's `current_task`.
    pub(super) struct Body<F: Future> {
        handle: LoopHandle,
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future> Body<F> {
    pub(super) fn new(handle: LoopHandle, future: F) -> Body<F> {
        Body { handle, future: Some(future) }
    }
}

impl<F: Future> Future for Body<F> {
    type Output = Output<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let handle = &*this.handle;
        let core = &*handle.core;
        let key = core.current_task.get().expect("only its loop polls a task");
        let (step, location) = core.tasks.borrow().before_poll(key);
        let mut ended = Err(JoinError::Cancelled);
        if step == Step::Poll {
            let polled = core.watch(handle, Origin::Task, location, || {
                let future = this.future.as_mut().as_pin_mut();
                future.expect("a task that has ended is not polled").poll(context)
            });
            match polled {
                Ok(Poll::Ready(value)) => ended = Ok(value),
                Err(payload) => ended = Err(JoinError::Panicked(payload)),
                Ok(Poll::Pending) => {
                    let step = core.tasks.borrow_mut().after_poll(key, context.waker());
                    if step == Step::Poll {
                        return Poll::Pending;
                    }
                }
            }
        } else if core.debug() {
            handle.warn_never_polled(key);
        }
        // The future is dropped here, while the task still counts as running, and not by async-task,
        // which aborts the process when a destructor panics.
        let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
        if let Err(payload) = dropped {
            if matches!(ended, Err(JoinError::Cancelled)) {
                ended = Err(JoinError::Panicked(payload));
            } else {
                core.report(handle, ErrorContext::panic(Origin::Release, location, payload));
            }
        }
        let status = match &ended {
            Ok(_) => TaskStatus::Finished,
            Err(JoinError::Panicked(_)) => TaskStatus::Panicked,
            Err(_) => TaskStatus::Cancelled,
        };
        // From here to the end of the step nothing of the program's is called while the handle exists: it
        // may not go before its result is where it looks for that.
        let detached = core.tasks.borrow_mut().end(key, status);
        core.task_ended.set(true);
        if detached {
            match ended {
                Err(JoinError::Panicked(payload)) => {
                    TaskRef::new(handle.clone(), key).report_panic(payload);
                }
                ended => core.release(handle, || drop(ended)),
            }
            ended = Err(JoinError::Cancelled);
        }
        Poll::Ready(ended)
    }
}

impl LoopHandle {
    /// Says that a task ends without having begun, if that is so. Stands for "coroutine was never awaited".
    #[cold]
    fn warn_never_polled(&self, key: Token) {
        // The first poll that was pending has left a waker.
        if self.core.tasks.borrow().waker(key).is_none() {
            let task = TaskRef::new(self.clone(), key);
            self.core.release(self, || {
                tracing::warn!(target: "tulipa", "{task:?} was never polled");
            });
        }
    }

    /// One step of a task.
    pub(crate) fn run_task(&self, task: TaskRunnable) {
        let core = &self.core;
        let key = core.tasks.borrow().key_of(*task.metadata());
        // A step may run inside of another: of a task that is begun eagerly, by a destructor for example.
        let outer = core.current_task.replace(Some(key));
        let outer_ended = core.task_ended.replace(false);
        if core.dressed.get() || context::is_active() {
            self.run_dressed(key, task);
        } else {
            task.run();
            if context::is_active() {
                self.keep_context(key, Inherited::new());
            }
        }
        core.current_task.set(outer);
        if core.task_ended.replace(outer_ended) {
            self.finish_task(key);
        }
    }

    #[cold]
    fn run_dressed(&self, key: Token, task: TaskRunnable) {
        let tasks = self.core.tasks.borrow();
        let (inherited, span) = (tasks.context(key), tasks.span(key));
        drop(tasks);
        let outer = context::swap(inherited);
        trace::inside(span.as_deref(), || {
            task.run();
        });
        self.keep_context(key, outer);
        // The table has another share of the span.
        drop(span);
    }

    /// Puts the context that a step has left away for the next one.
    #[cold]
    fn keep_context(&self, key: Token, outer: Inherited) {
        let core = &self.core;
        let left = context::swap(outer);
        let known = core.tasks.borrow().context(key);
        let unneeded = if left.is_same(&known) {
            left
        } else {
            core.dressed.set(true);
            core.tasks.borrow_mut().set_context(key, left)
        };
        // The last share of a value may go with it.
        core.release(self, || drop((known, unneeded)));
    }

    /// If the task has ended, tells who waits for it.
    fn finish_task(&self, key: Token) {
        let core = &self.core;
        let ended = core.tasks.borrow_mut().take_ended(key);
        let Some(ended) = ended else { return };
        let status = ended.status;
        if core.is_watched() {
            let task = TaskRef::new(self.clone(), key);
            core.instrument(self, |instrument| instrument.task_ended(&task, status));
        }
        if let Some(joiner) = ended.joiner {
            core.release(self, || joiner.wake());
        }
        if let Some(finisher) = ended.finisher {
            core.release(self, || finisher(self));
        }
        for done in ended.callbacks {
            self.schedule_done(done.call, done.location, status);
        }
        let entry = core.tasks.borrow_mut().remove_detached(key);
        core.release(self, || drop((ended.own_waker, entry, ended.span)));
    }

    /// Drops the tasks that are to be dropped before the turn ends, wherever their steps wait.
    pub(crate) fn reap_tasks(&self) {
        let core = &self.core;
        for _ in 0..MOST_REAPING_ROUNDS {
            if !core.doomed.replace(false) {
                return;
            }
            core.receive();
            for task in core.take_doomed() {
                self.run_task(task);
            }
        }
    }

    /// Drops the futures of all tasks, on this thread, and reports each.
    ///
    /// The queue of messages is still open: a task that another thread, or a destructor here, has just
    /// woken is scheduled there, and only who holds that step can drop its future. Once all have ended
    /// no wake schedules anything any more.
    pub(crate) fn close_tasks(&self) {
        let core = &self.core;
        let all = core.tasks.borrow().all_pending();
        for key in all {
            TaskRef::new(self.clone(), key).report_destroyed();
            self.doom(key);
        }
        for _ in 0..MOST_CLOSING_ROUNDS {
            core.receive();
            for task in core.take_doomed() {
                self.run_task(task);
            }
            if core.tasks.borrow().pending() == 0 {
                break;
            }
            let left = core.tasks.borrow().all_pending();
            for key in left {
                let waker = core.tasks.borrow().waker(key);
                waker.into_iter().for_each(|waker| waker.wake());
            }
            std::thread::yield_now();
        }
        core.doomed.set(false);
    }

    /// Has a task dropped before the turn ends.
    pub(crate) fn doom(&self, key: Token) {
        let doomed = self.core.tasks.borrow_mut().doom(key);
        if let Some(waker) = doomed {
            self.core.doomed.set(true);
            waker.into_iter().for_each(|waker| waker.wake());
        }
    }
}

impl Core {
    fn take_doomed(&self) -> Vec<TaskRunnable> {
        let tasks = self.tasks.borrow();
        self.ready.borrow_mut().take_tasks(|key| tasks.is_doomed(tasks.key_of(key)))
    }
}

impl TaskRef {
    /// Reports a panic that nobody took.
    pub(crate) fn report_panic(&self, payload: Box<dyn std::any::Any + Send>) {
        let mut context = ErrorContext::panic(Origin::Task, self.location(), payload);
        context.message = format!("panic in task '{}'", self.name());
        self.handle.core.report(&self.handle, context);
    }

    /// Reports an error that nobody took.
    pub(super) fn report_error(&self, error: impl Into<Box<dyn std::error::Error>>) {
        self.report_failure(
            format!("error in task '{}' that nobody awaits", self.name()),
            Failure::Error(error.into()),
        );
    }

    fn report_destroyed(&self) {
        let message = "task was destroyed but it is pending".to_owned();
        self.report_failure(message, Failure::Error(format!("{self:?}").into()));
    }

    fn report_failure(&self, message: String, failure: Failure) {
        let origin = Some(Origin::Task);
        let context = ErrorContext { message, origin, location: self.location(), failure };
        self.handle.core.report(&self.handle, context);
    }
}
