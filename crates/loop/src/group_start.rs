//! [`TaskGroup::start`]: a child of a group that somebody waits for until it has started.
//!
//! The problem: until a child has started, its failure belongs to whoever starts it, and later to the
//! group. The starter may be dropped at any time, the child may fail, panic, end or be cancelled without a
//! word, and nothing of that may be lost or be told twice.
//!
//! The trick: one flag, `settled`, says whose the child is. It is set once, by the child when it says that
//! it has started, or by the starter when it gives up. What happens before belongs to the starter, and
//! what the starter has not taken when it is dropped goes to the group.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::await_graph::{How, On, Plain};
use crate::task::NO_TASK;
use crate::{GroupClosed, GroupTask, JoinError, LoopFuture, Promise, TaskGroup};

/// Why a task of a group has not started: see [`TaskGroup::start`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError<E> {
    /// It failed before it had started. The group does not hear of this error.
    #[error("the task failed before it had started")]
    Failed(E),
    /// It ended without an error and before anybody called [`Starting::started`].
    #[error("the task ended without having started")]
    NotStarted,
    /// It was cancelled, by itself or with its group.
    #[error("the task was cancelled before it had started")]
    Cancelled,
    /// The group takes no more tasks.
    #[error(transparent)]
    Closed(#[from] GroupClosed),
}

/// With what a task says that it has started: see [`TaskGroup::start`]. Stands for trio's `task_status`.
#[must_use = "who starts the task waits until `started` is called"]
pub struct Starting<V> {
    promise: Promise<V>,
    settled: Rc<Cell<bool>>,
}

/// What a child leaves for its starter.
pub(crate) struct Starter<E> {
    settled: Rc<Cell<bool>>,
    failure: RefCell<Option<Failure<E>>>,
    /// Whether the child has ended: it may have given its [`Starting`] to somebody else.
    ended: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// A child that is being waited for. Its drop gives up.
struct Begun<V, T, E: 'static> {
    group: TaskGroup<E>,
    starter: Rc<Starter<E>>,
    ready: LoopFuture<V>,
    /// `None` once it was handed out.
    task: Option<GroupTask<T>>,
}

impl<E: 'static> TaskGroup<E> {
    /// Runs a future as a task of the group, and waits until it says that it has started: that a server
    /// listens, that a connection is there. Gives what it says, and the task, which from then on is one
    /// like others of the group. Stands for trio's and anyio's `start`.
    ///
    /// ```
    /// use tulipa_loop::{EventLoop, Starting, StartError, task_group, yield_now};
    ///
    /// async fn serve(starting: Starting<u16>) -> Result<(), std::io::Error> {
    ///     yield_now().await; // binds a port
    ///     starting.started(8080).ok();
    ///     yield_now().await; // serves
    ///     Ok(())
    /// }
    ///
    /// let event_loop = EventLoop::new()?;
    /// let port = event_loop.run_until_complete(task_group(async |group| {
    ///     match group.start(serve).await {
    ///         Ok((port, _server)) => Ok(port),
    ///         Err(StartError::Failed(error)) => Err(error),
    ///         Err(other) => Err(std::io::Error::other(other)),
    ///     }
    /// }))??;
    /// assert_eq!(port, 8080);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Order
    /// The child is spawned by this call, as [`spawn`](Self::spawn) does; only the waiting is left to
    /// the future.
    ///
    /// # Errors
    /// [`StartError`]. An error of the child before it has started is given here, and does not end the
    /// group; a later one does.
    ///
    /// # Panics
    /// With the panic of a child that had not started.
    ///
    /// # Cancel safety
    /// Giving it up cancels a child that has not started, and whose failure is then the group's.
    #[track_caller]
    pub fn start<V, T, F, C>(
        &self,
        child: C,
    ) -> impl Future<Output = Result<(V, GroupTask<T>), StartError<E>>> + use<V, T, E, F, C>
    where
        V: 'static,
        T: 'static,
        F: Future<Output = Result<T, E>> + 'static,
        C: FnOnce(Starting<V>) -> F,
    {
        let begun = self.is_open().then(|| self.begin(Location::caller(), child));
        async move { begun.ok_or(GroupClosed)?.wait().await }
    }

    fn begin<V, T, F>(
        &self,
        location: &'static Location<'static>,
        child: impl FnOnce(Starting<V>) -> F,
    ) -> Begun<V, T, E>
    where
        T: 'static,
        F: Future<Output = Result<T, E>> + 'static,
    {
        let (promise, ready) = self.get_loop().create_future();
        let settled = Rc::new(Cell::new(false));
        let starter = Starter::new(settled.clone());
        let (group, starter) = (self.clone(), Rc::new(starter));
        let future = child(Starting { promise, settled });
        let task = self.spawn_child(location, future, Some(starter.clone()));
        Begun { group, starter, ready, task: Some(task) }
    }
}

impl<V> Starting<V> {
    /// Says that the task has started, and gives `value` to whoever waits for that.
    ///
    /// # Errors
    /// The value, if nobody waits any more; the task has been asked to end.
    pub fn started(self, value: V) -> Result<(), V> {
        if self.settled.replace(true) {
            return Err(value);
        }
        self.promise.set(value)
    }
}

impl<V, T, E> Begun<V, T, E> {
    async fn wait(mut self) -> Result<(V, GroupTask<T>), StartError<E>> {
        let key = self.task.as_ref().map_or(NO_TASK, |task| task.key());
        let on = || On::Plain(Plain::Task(How::Start, key));
        let ready = poll_fn(|context| match self.ready.poll_as(context, on) {
            Poll::Ready(ready) => Poll::Ready(ready.ok()),
            Poll::Pending => self.starter.poll_ended(context).map(|()| None),
        });
        if let Some(value) = ready.await {
            let task = self.task.take().expect("it is handed out once");
            return Ok((value, task));
        }
        // Nobody can say any more that it has started, so there is only its end to wait for.
        let ended = match &mut self.task {
            Some(task) => task.await.is_ok(),
            None => unreachable!("a child that was handed out has started"),
        };
        self.starter.settled.set(true);
        match self.starter.take() {
            Some(Failure::Error(error)) => Err(StartError::Failed(error)),
            Some(Failure::Panic(payload)) => resume_unwind(payload),
            None if ended => Err(StartError::NotStarted),
            None => Err(StartError::Cancelled),
        }
    }
}

impl<V, T, E: 'static> Drop for Begun<V, T, E> {
    fn drop(&mut self) {
        let settled = self.starter.settled.replace(true);
        drop(self.starter.waker.take());
        let Some(task) = self.task.take() else { return };
        match self.starter.take() {
            Some(Failure::Error(error)) => self.group.fail(error),
            Some(Failure::Panic(payload)) => self.group.fail_with_panic(&task, payload),
            None if !settled => drop(task.cancel()),
            None => {}
        }
    }
}

impl<E> Starter<E> {
    fn new(settled: Rc<Cell<bool>>) -> Starter<E> {
        let (failure, ended, waker) = (RefCell::default(), Cell::default(), Cell::default());
        Starter { settled, failure, ended, waker }
    }

    /// The child has ended.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_ended(&self, context: &Context<'_>) -> Poll<()> {
        if self.ended.get() {
            return Poll::Ready(());
        }
        drop(self.waker.replace(Some(context.waker().clone())));
        Poll::Pending
    }

    /// Keeps an error for the starter; gives it back if that is not for it.
    pub(crate) fn take_error(starter: Option<&Starter<E>>, error: E) -> Option<E> {
        let Some(starter) = starter.filter(|starter| !starter.settled.get()) else {
            return Some(error);
        };
        starter.failure.replace(Some(Failure::Error(error)));
        None
    }

    /// Keeps a panic for the starter; gives the result back if that is not for it.
    pub(crate) fn take_panic(
        starter: Option<&Starter<E>>,
        result: Result<(), JoinError>,
    ) -> Result<(), JoinError> {
        match (starter.filter(|starter| !starter.settled.get()), result) {
            (Some(starter), Err(JoinError::Panicked(payload))) => {
                starter.failure.replace(Some(Failure::Panic(payload)));
                Ok(())
            }
            (_, result) => result,
        }
    }

    fn take(&self) -> Option<Failure<E>> {
        self.failure.borrow_mut().take()
    }
}

impl<V> fmt::Debug for Starting<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.settled.get() { "given up" } else { "waited for" };
        write!(f, "<Starting {state}>")
    }
}
