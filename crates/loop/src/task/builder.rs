//! Making tasks.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::run::Body;
use super::{Key, Task, TaskRef};
use crate::LoopHandle;
use crate::context::{Context, copy_context};
use crate::core::Ready;
use crate::trace;

/// Sets up a task: see [`LoopHandle::task`].
#[must_use = "a builder does nothing until `spawn`"]
#[derive(Clone)]
pub struct TaskBuilder {
    handle: LoopHandle,
    name: Option<Rc<str>>,
    start: Start,
    context: Option<Context>,
}

/// When a task takes its first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// In its turn.
    Soon,
    /// Inside `spawn`.
    Now,
}

/// Runs a future as a task whose first step is inside this call: see [`LoopHandle::spawn_eager`].
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn spawn_eager<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
{
    LoopHandle::current().spawn_eager(future)
}

/// Runs a future as a task of the loop that is running on this thread. Stands for
/// `asyncio.create_task`; see [`LoopHandle::spawn`].
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
{
    LoopHandle::current().spawn(future)
}

impl LoopHandle {
    /// Runs a future as a task of this loop, side by side with everything else. It need not be `Send`.
    ///
    /// The loop owns the task: dropping the handle detaches it. On a closed loop the future is dropped
    /// and the task has been cancelled.
    ///
    /// ```
    /// use tulipa_loop::{EventLoop, spawn, yield_now};
    ///
    /// let event_loop = EventLoop::new()?;
    /// let sum = event_loop.run_until_complete(async {
    ///     let one = spawn(async {
    ///         yield_now().await;
    ///         1
    ///     });
    ///     let two = spawn(async { 2 });
    ///     Ok::<_, tulipa_loop::JoinError>(one.await? + two.await?)
    /// })??;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Order
    /// The first step is at the loop's next turn, never inside this call; first in, first out with the
    /// callbacks of [`call_soon`](Self::call_soon).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        self.spawn_at(Location::caller(), None, Start::Soon, future)
    }

    /// [`spawn`](Self::spawn), by asyncio's name.
    #[track_caller]
    pub fn create_task<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        self.spawn_at(Location::caller(), None, Start::Soon, future)
    }

    /// A task that takes its first step inside this call: one that has no need to wait ends without a
    /// turn of the loop. Stands for `eager_start=True`.
    ///
    /// Its panic goes to the task, as always, and its done callbacks through the ready queue. While the
    /// loop is not running this is [`spawn`](Self::spawn).
    ///
    /// # Order
    /// The first step comes before whatever is in the ready queue, and inside of the step that spawns
    /// it; [`current_task`](crate::current_task) is the new task meanwhile.
    #[track_caller]
    pub fn spawn_eager<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        self.spawn_at(Location::caller(), None, Start::Now, future)
    }

    /// A task with options: `handle.task().name("fetch").spawn(future)`.
    pub fn task(&self) -> TaskBuilder {
        TaskBuilder { handle: self.clone(), name: None, start: Start::Soon, context: None }
    }

    pub(crate) fn spawn_at<F>(
        &self,
        location: &'static Location<'static>,
        name: Option<Rc<str>>,
        start: Start,
        future: F,
    ) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        if self.is_closed() {
            return Task::refused(self);
        }
        let future_type = std::any::type_name::<F>;
        let context = copy_context();
        if !context.is_empty() {
            self.core.dressed.set(true);
        }
        let inserted = self.core.tasks.borrow_mut().insert(location, future_type, name, context);
        // With more than four billion tasks pending, one more would be dropped unheard otherwise.
        let (key, id) = inserted.expect("the loop has room for no more tasks");
        let shared = self.core.shared.clone();
        let body = Body::new(self.clone(), future);
        let (runnable, raw) = async_task::Builder::new()
            .metadata(Key::of(key))
            .spawn_local(|_| body, move |runnable| shared.schedule_task(runnable));
        let task = Task::new(TaskRef::spawned(self.clone(), key, id), raw);
        let eager = start == Start::Now && self.is_running();
        let eager = if eager {
            Some(runnable)
        } else {
            // Before anybody hears of the task, who might close the loop.
            self.core.ready.borrow_mut().push(Ready::Task(runnable));
            None
        };
        if trace::is_on() {
            task.open_span();
        }
        if self.core.is_watched() {
            self.core.instrument(self, |instrument| instrument.task_spawned(&task));
        }
        if let Some(runnable) = eager {
            self.run_task(runnable);
        }
        task
    }
}

impl TaskBuilder {
    /// Its name, instead of `Task-N`.
    pub fn name(mut self, name: impl Into<Rc<str>>) -> TaskBuilder {
        self.name = Some(name.into());
        self
    }

    /// Has it take its first step inside [`spawn`](Self::spawn): see [`LoopHandle::spawn_eager`].
    pub fn eager(mut self) -> TaskBuilder {
        self.start = Start::Now;
        self
    }

    /// Its context, instead of a copy of the current one. Stands for `context=`; what the task sets is
    /// seen through [`TaskRef::context`] and not in what was given here.
    pub fn context(mut self, context: Context) -> TaskBuilder {
        self.context = Some(context);
        self
    }

    /// Makes the task: see [`LoopHandle::spawn`].
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        let location = Location::caller();
        let spawn = || self.handle.spawn_at(location, self.name, self.start, future);
        match self.context {
            Some(mut context) => context.run(spawn),
            None => spawn(),
        }
    }
}

impl fmt::Debug for TaskBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
