//! [`TaskRef`]: what one can ask of a task, and ask it to do, without owning its result.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use tracing::Span;
use tulipa_selector::Token;

use super::table::{Done, DoneCallback, Finisher};
use crate::context::{self, Context, copy_context};
use crate::report::Origin;
use crate::{CallbackId, LoopHandle};

/// The number of a task on its loop: 1 for the first, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

impl TaskId {
    pub(crate) fn of(id: u64) -> TaskId {
        TaskId(id)
    }

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskStatus {
    /// It has not ended.
    Pending,
    /// Its future gave a value.
    Finished,
    /// Its future was dropped before it gave a value.
    Cancelled,
    /// Its future panicked.
    Panicked,
}

/// A task without its result: cheap to clone, and harmless to keep.
///
/// [`Task`](crate::Task) dereferences to it. Once the task has ended and its handle is gone, this
/// knows only its id.
#[derive(Clone)]
pub struct TaskRef {
    pub(super) handle: LoopHandle,
    pub(super) key: Token,
    id: TaskId,
}

/// The task that is running, if it is one: `None` in callbacks and in the main future of
/// `run_until_complete`. Stands for `current_task`.
pub fn current_task() -> Option<TaskRef> {
    let handle = LoopHandle::try_current()?;
    let key = handle.core.current_task.get()?;
    Some(TaskRef::new(handle, key))
}

/// The tasks of the running loop that have not ended, in the order in which they were spawned; none
/// outside of a running loop. Stands for `all_tasks`.
pub fn all_tasks() -> Vec<TaskRef> {
    LoopHandle::try_current().map(|handle| handle.all_tasks()).unwrap_or_default()
}

impl LoopHandle {
    /// The tasks of this loop that have not ended, in the order in which they were spawned. Stands for
    /// `all_tasks(loop)`.
    pub fn all_tasks(&self) -> Vec<TaskRef> {
        let keys = self.core.tasks.borrow().all_pending();
        keys.into_iter().map(|key| TaskRef::new(self.clone(), key)).collect()
    }

    pub(super) fn schedule_done(
        &self,
        call: DoneCallback,
        location: &'static Location<'static>,
        status: TaskStatus,
    ) {
        if self.is_closed() {
            return self.core.release(self, || drop(call));
        }
        let run = Box::new(move |handle: &LoopHandle| call(handle, status));
        self.push_callback(run, location, Origin::Done);
    }
}

impl TaskRef {
    pub(super) fn new(handle: LoopHandle, key: Token) -> TaskRef {
        let id = handle.core.tasks.borrow().get(key).map_or(0, |entry| entry.id);
        TaskRef { handle, key, id: TaskId(id) }
    }

    /// The task of a key that another thread has kept.
    pub(crate) fn of(handle: LoopHandle, key: Token) -> TaskRef {
        TaskRef::new(handle, key)
    }

    pub(crate) fn key(&self) -> Token {
        self.key
    }

    pub(super) fn spawned(handle: LoopHandle, key: Token, id: u64) -> TaskRef {
        TaskRef { handle, key, id: TaskId(id) }
    }

    /// Its number on its loop; 0 for one that a closed loop refused.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Its name: `Task-N`, with its [`id`](Self::id), unless it was given another one. Stands for
    /// `get_name`.
    pub fn name(&self) -> Rc<str> {
        let name = self.handle.core.tasks.borrow().get(self.key).and_then(|entry| entry.name());
        name.unwrap_or_else(|| format!("Task-{}", self.id).into())
    }

    /// Gives it a name, for messages and [`Debug`](fmt::Debug). Stands for `set_name`.
    pub fn set_name(&self, name: impl Into<Rc<str>>) {
        // The conversion and the old name's end are the program's.
        let name = name.into();
        let mut tasks = self.handle.core.tasks.borrow_mut();
        let entry = tasks.get_mut(self.key);
        let old = entry.and_then(|entry| entry.extras().name.replace(name));
        drop(tasks);
        drop(old);
    }

    /// How far it is.
    pub fn status(&self) -> TaskStatus {
        let tasks = self.handle.core.tasks.borrow();
        tasks.get(self.key).map_or(TaskStatus::Cancelled, |entry| entry.status)
    }

    /// Whether it has ended, in whatever way. Stands for `done`.
    pub fn is_done(&self) -> bool {
        self.handle.core.tasks.borrow().has_ended(self.key)
    }

    /// Whether it has ended without a value because it was cancelled. Stands for `cancelled`; a
    /// request to cancel does not make it true.
    pub fn is_cancelled(&self) -> bool {
        self.status() == TaskStatus::Cancelled
    }

    /// Whether a [`cancel`](Self::cancel) has been requested that nothing has consumed yet. Stands for
    /// `cancelling() > 0`.
    pub fn is_cancelling(&self) -> bool {
        let mut tasks = self.handle.core.tasks.borrow_mut();
        tasks.get_pending(self.key).is_some_and(|entry| entry.is_cancelling())
    }

    /// Where it was spawned; `None` once it has ended and its handle is gone.
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.handle.core.tasks.borrow().get(self.key).map(|entry| entry.location)
    }

    /// The type of its future, for messages: `my_crate::my_function` for an `async fn`. Stands for the
    /// name that `get_coro` leads to. Empty once it has ended and its handle is gone.
    pub fn future_type_name(&self) -> &'static str {
        let name =
            self.handle.core.tasks.borrow().get(self.key).map_or("", |entry| (entry.future)());
        without_closure(name)
    }

    /// The loop it belongs to. Stands for `get_loop`.
    pub fn get_loop(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// A copy of its context, as its last step has left it; empty once it has ended and its handle is
    /// gone. Stands for `get_context`.
    pub fn context(&self) -> Context {
        if self.handle.core.current_task.get() == Some(self.key) {
            return copy_context();
        }
        self.handle.core.tasks.borrow().context(self.key)
    }

    /// Asks the task to end. Returns `false` if it has ended already. Stands for `cancel`.
    ///
    /// The request goes to every innermost [`cancellable`](crate::cancellable) that was polled and lives:
    /// that one gives `Err(Cancelled)`, which consumes the request, and the task goes on. Without any
    /// the task's future is dropped at its next suspension, or at the loop's next turn if it is
    /// suspended now; one that was never polled never is. Nothing is dropped inside this call.
    ///
    /// A task that gives its value before it is suspended again has not been cancelled.
    ///
    /// # Order
    /// Two requests before the task had a chance to run are one. A request after one that was consumed
    /// is a new one.
    pub fn cancel(&self) -> bool {
        let wakers = self.handle.core.tasks.borrow_mut().request(self.key);
        let pending = wakers.is_some();
        for waker in wakers.into_iter().flatten() {
            self.handle.core.release(&self.handle, || waker.wake());
        }
        pending
    }

    /// The running task has consumed a request on behalf of what is around, which is to have it now.
    pub(crate) fn pass_cancel_on(&self) {
        self.handle.core.tasks.borrow_mut().pass_on(self.key);
    }

    /// Calls `callback` once the task has ended. Stands for `add_done_callback`.
    ///
    /// # Order
    /// As by [`LoopHandle::call_soon`]: never inside this call, also if the task has ended; in the order
    /// in which they were added. A loop that is closed before drops it.
    #[track_caller]
    pub fn add_done_callback(
        &self,
        callback: impl FnOnce(&LoopHandle, TaskStatus) + 'static,
    ) -> CallbackId {
        let location = Location::caller();
        let call = bind(Box::new(callback));
        let mut tasks = self.handle.core.tasks.borrow_mut();
        if let Some(entry) = tasks.get_pending(self.key) {
            let extras = entry.extras();
            extras.added += 1;
            let number = extras.added;
            extras.callbacks.push(Done { number, call, location });
            return CallbackId(number);
        }
        drop(tasks);
        self.handle.schedule_done(call, location, self.status());
        CallbackId(0)
    }

    /// Calls a closure of the library's when the task has ended, or now. There is one for each task: it
    /// belongs to whoever owns the handle, and a later one takes the place of an earlier one.
    pub(crate) fn on_end(self, call: impl FnOnce() + 'static) {
        if self.is_done() {
            return call();
        }
        let finisher: Finisher = Box::new(move |_| call());
        let mut tasks = self.handle.core.tasks.borrow_mut();
        let entry = tasks.get_pending(self.key);
        let old = entry.and_then(|entry| entry.extras().finisher.replace(finisher));
        drop(tasks);
        drop(old);
    }

    pub(crate) fn set_span(&self, span: Option<Rc<Span>>) {
        if span.is_none() {
            return;
        }
        self.handle.core.dressed.set(true);
        let mut tasks = self.handle.core.tasks.borrow_mut();
        let old = tasks
            .get_pending(self.key)
            .and_then(|entry| std::mem::replace(&mut entry.extras().span, span));
        drop(tasks);
        drop(old);
    }

    /// Has it dropped before the turn ends.
    pub(crate) fn doom(&self) {
        self.handle.doom(self.key);
    }

    /// Removes a done callback that has not been scheduled yet; returns whether it was there. Stands
    /// for `remove_done_callback`.
    pub fn remove_done_callback(&self, id: CallbackId) -> bool {
        let mut tasks = self.handle.core.tasks.borrow_mut();
        let extras = tasks.get_pending(self.key).and_then(|entry| entry.extras.as_mut());
        let removed = extras.and_then(|extras| {
            let place = extras.callbacks.iter().position(|done| done.number == id.0)?;
            Some(extras.callbacks.remove(place))
        });
        drop(tasks);
        removed.is_some()
    }
}

/// The path of an `async fn`, of which the future is a closure.
pub(crate) fn without_closure(name: &'static str) -> &'static str {
    name.strip_suffix("::{{closure}}").unwrap_or(name)
}

/// Has a done callback run in a copy of the current context.
fn bind(call: DoneCallback) -> DoneCallback {
    if !context::is_active() {
        return call;
    }
    let mut context = copy_context();
    Box::new(move |handle, status| context.run(|| call(handle, status)))
}

impl PartialEq for TaskRef {
    /// Whether both are the same task.
    fn eq(&self, other: &TaskRef) -> bool {
        self.id == other.id && self.handle.core.id == other.handle.core.id
    }
}

impl Eq for TaskRef {}

impl fmt::Debug for TaskRef {
    /// As asyncio has it:
    /// `<Task pending name='Task-1' fut=my::future spawned at src/main.rs:12 waiting on sleep>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status() {
            TaskStatus::Pending if self.is_cancelling() => "cancelling",
            TaskStatus::Pending => "pending",
            TaskStatus::Finished => "finished",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Panicked => "panicked",
        };
        let Some(location) = self.location() else {
            return write!(f, "<Task done name='{}'>", self.name());
        };
        let (name, future) = (self.name(), self.future_type_name());
        let (file, line) = (location.file(), location.line());
        let waits = crate::await_graph::described(&self.handle, self.key);
        write!(f, "<Task {status} name='{name}' fut={future} spawned at {file}:{line}")?;
        if waits.is_empty() { f.write_str(">") } else { write!(f, " waiting on {waits}>") }
    }
}
