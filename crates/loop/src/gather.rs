//! Waiting for several tasks: [`gather`], [`try_gather`], [`wait`], [`as_completed`].
//!
//! All four stand on [`Completions`]: each task says once which one it is when it has ended, so a
//! wait for n tasks costs n, in whatever order they end.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::Stream;
use tulipa_selector::Token;

use crate::await_graph::{How, On, Purpose, Shared, Targets, WaitId};
use crate::sleep::Deadline;
use crate::{JoinError, LoopHandle, Task, TaskStatus};

/// Which tasks have ended, by their places.
#[derive(Default)]
pub(crate) struct Completions {
    ended: RefCell<VecDeque<usize>>,
    waker: Cell<Option<Waker>>,
    /// The loop of the first task, and the tasks of that loop, for the await graph.
    handle: OnceCell<LoopHandle>,
    tasks: RefCell<Vec<Token>>,
}

/// A wait for tasks. While there is one it is in the await graph.
pub(crate) struct Waiting {
    completions: Rc<Completions>,
    how: How,
    wait: WaitId,
}

impl Completions {
    /// One more task to hear of.
    fn add<T>(self: &Rc<Completions>, place: usize, task: &Task<T>) {
        let handle = self.handle.get_or_init(|| task.get_loop());
        if handle.id() == task.get_loop().id() {
            self.tasks.borrow_mut().push(task.key());
        }
        let completions = self.clone();
        task.reference().on_end(move || {
            completions.ended.borrow_mut().push_back(place);
            if let Some(waker) = completions.waker.take() {
                waker.wake();
            }
        });
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<usize> {
        let next = self.ended.borrow_mut().pop_front();
        if let Some(place) = next {
            return Poll::Ready(place);
        }
        drop(self.waker.replace(Some(context.waker().clone())));
        Poll::Pending
    }
}

impl Targets for Completions {
    fn targets(&self) -> Vec<Token> {
        self.tasks.borrow().clone()
    }
}

impl Waiting {
    /// A wait for no task yet.
    pub(crate) fn new(how: How) -> Waiting {
        Waiting { completions: Rc::default(), how, wait: WaitId::NONE }
    }

    fn of<T>(tasks: &[Option<Task<T>>], how: How) -> Waiting {
        let waiting = Waiting::new(how);
        for (place, task) in tasks.iter().enumerate() {
            let Some(task) = task else { continue };
            waiting.completions.add(place, task);
        }
        waiting
    }

    /// A wait that whoever is polled begins now.
    fn begin<T>(tasks: &[Option<Task<T>>], how: How) -> Waiting {
        let mut waiting = Waiting::of(tasks, how);
        waiting.note();
        waiting
    }

    /// One more task to wait for, from now on.
    pub(crate) fn add<T>(&mut self, place: usize, task: &Task<T>) {
        self.completions.add(place, task);
        self.note();
    }

    fn note(&mut self) {
        let Waiting { completions, how, wait } = self;
        if let Some(handle) = completions.handle.get() {
            handle.core.wait_on(wait, || On::Shared(Shared::Tasks(*how, completions.clone())));
        }
    }

    fn over(&mut self) {
        if let Some(handle) = self.completions.handle.get() {
            handle.core.wait_over(&mut self.wait);
        }
    }

    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<usize> {
        let polled = self.completions.poll_next(context);
        if polled.is_pending() {
            self.note();
        }
        polled
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.over();
    }
}

/// Tasks that are cancelled when they are given up.
pub(crate) struct CancelOnDrop<T>(pub(crate) Vec<Option<Task<T>>>);

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        for task in self.0.iter().flatten() {
            task.cancel();
        }
    }
}

/// Waits for all tasks and gives their results in the order of the arguments. Stands for
/// `asyncio.gather(.., return_exceptions=True)`; see [`try_gather`] for the other one.
///
/// # Cancel safety
/// Dropping it cancels the tasks.
pub async fn gather<T>(tasks: impl IntoIterator<Item = Task<T>>) -> Vec<Result<T, JoinError>> {
    let mut tasks = CancelOnDrop(tasks.into_iter().map(Some).collect());
    let mut waiting = Waiting::begin(&tasks.0, How::Gather);
    for _ in 0..tasks.0.len() {
        poll_fn(|context| waiting.poll_next(context)).await;
    }
    let tasks = std::mem::take(&mut tasks.0);
    tasks.into_iter().flatten().map(|mut task| task.take()).collect()
}

/// Waits for all tasks and gives their values in the order of the arguments, or the first failure as
/// soon as it happens; the other tasks then run on, detached. Stands for `asyncio.gather`.
///
/// A group cancels the others instead: see [`task_group`](crate::task_group).
///
/// # Errors
/// The error of the first task that failed, or its [`JoinError`] as one.
///
/// # Cancel safety
/// Dropping it cancels the tasks.
pub async fn try_gather<T, E: From<JoinError>>(
    tasks: impl IntoIterator<Item = Task<Result<T, E>>>,
) -> Result<Vec<T>, E> {
    let mut tasks = CancelOnDrop(tasks.into_iter().map(Some).collect());
    let mut values: Vec<_> = tasks.0.iter().map(|_| None).collect();
    let mut waiting = Waiting::begin(&tasks.0, How::TryGather);
    for _ in 0..tasks.0.len() {
        let place = poll_fn(|context| waiting.poll_next(context)).await;
        let task = tasks.0[place].take();
        let result = task.map_or(Err(JoinError::Cancelled), |mut task| task.take());
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(value) => values[place] = Some(value),
            Err(error) => {
                drop(std::mem::take(&mut tasks.0));
                return Err(error);
            }
        }
    }
    Ok(values.into_iter().flatten().collect())
}

/// When [`wait`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnWhen {
    /// When a task has ended. Stands for `FIRST_COMPLETED`.
    FirstCompleted,
    /// When a task has panicked, or all have ended; being cancelled is no failure. Stands for
    /// `FIRST_EXCEPTION`. The errors that tasks give as values are not looked at.
    FirstPanic,
    /// When all have ended. Stands for `ALL_COMPLETED`.
    AllCompleted,
}

/// Waits until some of the tasks have ended, or for at most `limit`; gives those that have and those
/// that have not, each in the order of the arguments. It neither fails nor cancels. Stands for
/// `asyncio.wait`.
///
/// With no tasks it returns at once, where asyncio raises.
///
/// # Panics
/// With a limit, outside of a running loop.
///
/// # Cancel safety
/// Dropping it detaches the tasks.
pub async fn wait<T>(
    tasks: impl IntoIterator<Item = Task<T>>,
    when: ReturnWhen,
    limit: Option<Duration>,
) -> (Vec<Task<T>>, Vec<Task<T>>) {
    let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    let mut waiting = Waiting::begin(&tasks, How::Wait);
    let mut deadline = limit.map(|limit| {
        let handle = LoopHandle::current();
        Deadline::new(&handle, handle.deadline_after(limit), Purpose::Wait)
    });
    let mut left = tasks.len();
    poll_fn(|context| {
        while left > 0 {
            match waiting.poll_next(context) {
                Poll::Ready(place) => {
                    left -= 1;
                    let status = tasks[place].as_ref().map(|task| task.status());
                    let enough = match when {
                        ReturnWhen::FirstCompleted => true,
                        ReturnWhen::FirstPanic => status == Some(TaskStatus::Panicked),
                        ReturnWhen::AllCompleted => false,
                    };
                    if enough {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => {
                    return deadline.as_mut().map_or(Poll::Pending, |d| d.poll(context));
                }
            }
        }
        Poll::Ready(())
    })
    .await;
    tasks.into_iter().flatten().partition(|task| task.is_done())
}

/// The tasks in the order in which they end. Stands for `asyncio.as_completed`.
///
/// It is a stream of the tasks themselves, each of which has ended; [`next`](AsCompleted::next) waits
/// for one. For a limit in time wrap that: `timeout(d, tasks.next())`.
///
/// # Cancel safety
/// Dropping it detaches what is left; a task that was not given out comes the next time.
pub fn as_completed<T>(tasks: impl IntoIterator<Item = Task<T>>) -> AsCompleted<T> {
    let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    AsCompleted { waiting: Waiting::of(&tasks, How::AsCompleted), left: tasks.len(), tasks }
}

/// Tasks in the order in which they end: see [`as_completed`].
#[must_use = "a stream does nothing until it is asked"]
pub struct AsCompleted<T> {
    waiting: Waiting,
    tasks: Vec<Option<Task<T>>>,
    left: usize,
}

impl<T> AsCompleted<T> {
    /// The next task that has ended; `None` after the last.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Task<T>> {
        let next = GiveUp(self);
        poll_fn(|context| next.0.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Task<T>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.waiting.poll_next(context).map(|place| {
            self.waiting.over();
            self.left -= 1;
            self.tasks[place].take()
        })
    }
}

/// Ends the wait when it is given up; the stream may live on.
struct GiveUp<'a, T>(&'a mut AsCompleted<T>);

impl<T> Drop for GiveUp<'_, T> {
    fn drop(&mut self) {
        self.0.waiting.over();
    }
}

// The tasks are not pinned.
impl<T> Unpin for AsCompleted<T> {}

impl<T> Stream for AsCompleted<T> {
    type Item = Task<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Task<T>>> {
        self.poll(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<AsCompleted left={}>", self.left)
    }
}
