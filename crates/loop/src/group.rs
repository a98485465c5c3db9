//! Task groups: tasks that end before whoever started them goes on.
//!
//! The problem: a group ends in one of several ways at once. A child fails while another one does, or
//! while the group is being cancelled, or spawns a third one; the future of the group may be dropped at
//! any await.
//!
//! The trick: children report to the group's state, each once, through the hook that the loop calls
//! when a task has ended in whatever way. The future of the group only looks at that state. What ends
//! the group early is one transition, out of `Open`, which cancels all children once; errors that come
//! later are still collected.
//!
//! | phase | next | when |
//! |---|---|---|
//! | `Open` | `Ending` | a child or the body fails, or `cancel` |
//! | `Open`, `Ending` | `Ended` | the body and all children have ended, or the future is dropped |

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::panic::{Location, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tulipa_selector::Token;

use crate::await_graph::{How, On, Plain, Shared, Targets, WaitId};
use crate::group_start::Starter;
use crate::report::{ErrorContext, Origin};
use crate::task::Start;
use crate::{Cancelled, JoinError, LoopFuture, LoopHandle, TaskRef};

/// Why a group gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError<E> {
    /// Children failed, or the body did. The errors are in the order in which they happened; the
    /// body's is the last.
    #[error("{} in a task group failed", Count(.0.len()))]
    Failed(Vec<E>),
    /// [`TaskGroup::cancel`] was called before the body had given its value, and nothing failed.
    #[error("the task group was cancelled")]
    Cancelled,
}

impl<E> GroupError<E> {
    /// The errors; none if it was cancelled.
    pub fn into_errors(self) -> Vec<E> {
        match self {
            GroupError::Failed(errors) => errors,
            GroupError::Cancelled => Vec::new(),
        }
    }
}

struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 task"),
            count => write!(f, "{count} tasks"),
        }
    }
}

/// The group takes no more tasks: it is ending, or has ended. Stands for asyncio's `RuntimeError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task group takes no more tasks")]
pub struct GroupClosed;

/// A handle to a running group: see [`task_group`]. Clones are handles to the same group; children
/// may have one, and spawn with it.
pub struct TaskGroup<E> {
    group: Rc<Group<E>>,
}

struct Group<E> {
    handle: LoopHandle,
    state: RefCell<State<E>>,
    /// The wait of its parent for the children.
    wait: Cell<WaitId>,
}

struct State<E> {
    phase: Phase,
    children: BTreeMap<u64, TaskRef>,
    /// The number of children ever spawned.
    spawned: u64,
    errors: Vec<E>,
    /// The first panic of a child, with which the group ends.
    panic: Option<Box<dyn Any + Send>>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Ending,
    Ended,
}

/// A task of a group. Awaiting it gives the value, or [`Cancelled`] if it ended without one; its error
/// goes to the group. It dereferences to its [`TaskRef`].
///
/// # Cancel safety
/// Giving it up leaves the task alone: the group waits for it.
#[must_use = "the group waits for the task; `drop` this if nobody wants the value"]
pub struct GroupTask<T> {
    reference: TaskRef,
    value: LoopFuture<T>,
}

/// Runs `body` with a group in which it can [spawn](TaskGroup::spawn), and waits for all that was
/// spawned. Stands for `async with TaskGroup()`.
///
/// When a child fails, the others are cancelled and waited for, the body is dropped where it is
/// suspended, and all errors come together. When the body fails the children are cancelled too. A child that is
/// cancelled by itself is no failure. A panic of a child ends the group in the same way, and goes on
/// here when all have ended.
///
/// ```
/// use tulipa_loop::{EventLoop, GroupError, task_group, yield_now};
///
/// let event_loop = EventLoop::new()?;
/// let sum = event_loop.run_until_complete(task_group(async |group| {
///     let one = group.spawn(async { Ok(1) }).unwrap();
///     let two = group.spawn(async { Ok(2) }).unwrap();
///     Ok::<_, std::io::Error>(one.await.unwrap() + two.await.unwrap())
/// }))??;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GroupError`].
///
/// # Panics
/// With the panic of a child, or of the body, and then the errors are dropped; outside of a running loop.
///
/// # Cancel safety
/// When it is dropped, all children are dropped before the loop's turn ends, without clean-up that
/// awaits. To let them clean up call [`TaskGroup::cancel`], and wait.
pub async fn task_group<T, E: 'static>(
    body: impl AsyncFnOnce(TaskGroup<E>) -> Result<T, E>,
) -> Result<T, GroupError<E>> {
    let group = Rc::new(Group::new(LoopHandle::current()));
    let scope = Scope(group.clone());
    group.note_wait();
    let value = {
        let mut body = pin!(body(TaskGroup { group: group.clone() }));
        poll_fn(|context| group.poll_body(body.as_mut(), context)).await
    };
    let (value, error) = match value {
        Some(Ok(value)) => (Some(value), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    if error.is_some() {
        group.end_early();
    }
    poll_fn(|context| group.poll_children(context)).await;
    let (mut errors, panic) = group.end();
    drop(scope);
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
    errors.extend(error);
    match value {
        _ if !errors.is_empty() => Err(GroupError::Failed(errors)),
        Some(value) => Ok(value),
        None => Err(GroupError::Cancelled),
    }
}

/// Drops the children with the future of their group.
struct Scope<E>(Rc<Group<E>>);

impl<E> Drop for Scope<E> {
    fn drop(&mut self) {
        self.0.handle.core.wait_over(&mut self.0.wait.take());
        let children = self.0.children();
        let left = self.0.end();
        // Before the errors, whose destructors may panic.
        children.iter().for_each(TaskRef::doom);
        drop(left);
    }
}

impl<E: 'static> TaskGroup<E> {
    /// Runs a future as a task of the group. Its error ends the group. Stands for
    /// `TaskGroup.create_task`.
    ///
    /// # Errors
    /// [`GroupClosed`] once the group is ending; the future is dropped.
    ///
    /// # Order
    /// As [`LoopHandle::spawn`].
    #[track_caller]
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = Result<T, E>> + 'static,
    ) -> Result<GroupTask<T>, GroupClosed> {
        let location = Location::caller();
        if !self.is_open() {
            return Err(GroupClosed);
        }
        Ok(self.spawn_child(location, future, None))
    }

    /// Ends the group early: cancels the children, drops the body where it is suspended, and takes no
    /// more tasks. That is no failure. Once the group is ending this does nothing. Stands for
    /// `TaskGroup.cancel`.
    pub fn cancel(&self) {
        self.group.end_early();
    }

    /// Whether it takes tasks.
    pub(crate) fn is_open(&self) -> bool {
        self.group.phase() == Phase::Open && !self.group.handle.is_closed()
    }

    pub(crate) fn get_loop(&self) -> &LoopHandle {
        &self.group.handle
    }

    /// Runs a future as a task of the group, which is open. Until it has started, if somebody waits for
    /// that, its failure is theirs.
    pub(crate) fn spawn_child<T: 'static>(
        &self,
        location: &'static Location<'static>,
        future: impl Future<Output = Result<T, E>> + 'static,
        starter: Option<Rc<Starter<E>>>,
    ) -> GroupTask<T> {
        let (group, failing, hears) = (self.group.clone(), self.group.clone(), starter.clone());
        let (promise, value) = group.handle.create_future();
        let child = async move {
            match future.await {
                Ok(value) => {
                    // Nobody may want it.
                    let unwanted = promise.set(value);
                    drop(unwanted);
                }
                Err(error) => {
                    let error = Starter::take_error(hears.as_deref(), error);
                    error.into_iter().for_each(|error| failing.fail(error));
                }
            }
        };
        let task = group.handle.spawn_at(location, None, Start::Soon, child);
        let reference = task.reference();
        let number = group.enter(reference.clone());
        match group.phase() {
            Phase::Open => {}
            // The group ended while the child was being made: an instrument may do that.
            Phase::Ending => drop(reference.cancel()),
            Phase::Ended => reference.doom(),
        }
        task.finish_with(move |_, result| {
            group.leave(number, Starter::take_panic(starter.as_deref(), result));
            if let Some(starter) = starter {
                starter.end();
            }
        });
        GroupTask { reference, value }
    }

    /// Ends the group with an error of a child that has no other taker.
    pub(crate) fn fail(&self, error: E) {
        self.group.fail(error);
    }

    /// Ends the group with the panic of a child that has no other taker.
    pub(crate) fn fail_with_panic(&self, child: &TaskRef, payload: Box<dyn Any + Send>) {
        self.group.fail_with_panic(child.location(), payload);
    }

    /// How many of its tasks have not ended.
    pub fn pending(&self) -> usize {
        self.group.state.borrow().children.len()
    }
}

impl<E> Group<E> {
    fn new(handle: LoopHandle) -> Group<E> {
        let state = State {
            phase: Phase::Open,
            children: BTreeMap::new(),
            spawned: 0,
            errors: Vec::new(),
            panic: None,
            waker: None,
        };
        Group { handle, state: RefCell::new(state), wait: Cell::default() }
    }

    fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    fn children(&self) -> Vec<TaskRef> {
        self.state.borrow().children.values().cloned().collect()
    }

    fn enter(&self, child: TaskRef) -> u64 {
        let mut state = self.state.borrow_mut();
        state.spawned += 1;
        let number = state.spawned;
        state.children.insert(number, child);
        number
    }

    /// A child has ended.
    fn leave(&self, number: u64, result: Result<(), JoinError>) {
        let child = self.state.borrow_mut().children.remove(&number);
        if let Err(JoinError::Panicked(payload)) = result {
            self.fail_with_panic(child.as_ref().and_then(TaskRef::location), payload);
        }
        drop(child);
        self.wake();
    }

    fn fail_with_panic(
        &self,
        location: Option<&'static Location<'static>>,
        payload: Box<dyn Any + Send>,
    ) {
        let mut state = self.state.borrow_mut();
        if state.panic.is_none() && state.phase != Phase::Ended {
            state.panic = Some(payload);
            drop(state);
            self.end_early();
        } else {
            // The group ends with one panic; nobody else would hear of this one.
            drop(state);
            let context = ErrorContext::panic(Origin::Task, location, payload);
            self.handle.core.report(&self.handle, context);
        }
    }

    fn fail(&self, error: E) {
        let mut state = self.state.borrow_mut();
        if state.phase != Phase::Ended {
            state.errors.push(error);
        }
        drop(state);
        self.end_early();
    }

    /// Cancels all, once.
    fn end_early(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Ending;
        drop(state);
        for child in self.children() {
            child.cancel();
        }
        self.wake();
    }

    fn end(&self) -> (Vec<E>, Option<Box<dyn Any + Send>>) {
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Ended;
        let left = (std::mem::take(&mut state.errors), state.panic.take());
        let waker = state.waker.take();
        drop(state);
        self.handle.core.release(&self.handle, || drop(waker));
        left
    }

    fn wake(&self) {
        let waker = self.state.borrow_mut().waker.take();
        if let Some(waker) = waker {
            self.handle.core.release(&self.handle, || waker.wake());
        }
    }
}

/// What its parent's task does.
impl<E: 'static> Group<E> {
    fn wait(self: &Rc<Self>, context: &Context<'_>) {
        self.note_wait();
        // Wakers are the program's: cloned before the borrow and dropped after it.
        let waker = context.waker().clone();
        let old = self.state.borrow_mut().waker.replace(waker);
        drop(old);
    }

    fn note_wait(self: &Rc<Self>) {
        let mut wait = self.wait.take();
        self.handle.core.wait_on(&mut wait, || On::Shared(Shared::Tasks(How::Group, self.clone())));
        self.wait.set(wait);
    }

    /// Gives what the body gives, or `None` when the group is ending.
    fn poll_body<F: Future>(
        self: &Rc<Self>,
        body: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        if self.phase() != Phase::Open {
            return Poll::Ready(None);
        }
        if let Poll::Ready(value) = body.poll(context) {
            return Poll::Ready(Some(value));
        }
        if self.phase() != Phase::Open {
            return Poll::Ready(None);
        }
        self.wait(context);
        Poll::Pending
    }

    fn poll_children(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.state.borrow().children.is_empty() {
            return Poll::Ready(());
        }
        self.wait(context);
        Poll::Pending
    }
}

impl<E> Targets for Group<E> {
    fn targets(&self) -> Vec<Token> {
        self.state.borrow().children.values().map(TaskRef::key).collect()
    }
}

impl<T> Deref for GroupTask<T> {
    type Target = TaskRef;

    fn deref(&self) -> &TaskRef {
        &self.reference
    }
}

impl<T> Future for GroupTask<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.value.poll_as(context, || On::Plain(Plain::Task(How::GroupTask, self.reference.key())))
    }
}

impl<E> Clone for TaskGroup<E> {
    fn clone(&self) -> TaskGroup<E> {
        TaskGroup { group: self.group.clone() }
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.group.state.borrow();
        let (phase, tasks, errors) = (state.phase, state.children.len(), state.errors.len());
        // Read before it is written: the writer is the program's.
        drop(state);
        write!(f, "<TaskGroup {phase:?} tasks={tasks} errors={errors}>")
    }
}

impl<T> fmt::Debug for GroupTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}
