//! [`AsyncExitStack`]: clean-up that awaits, for a number of things that is not known before.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use crate::report::{ErrorContext, Origin};
use crate::{Cancelled, LoopHandle, cancellable, current_task};

/// What is to be done at the end, last in, first out. Stands for `contextlib.AsyncExitStack`.
///
/// [`run`](Self::run) is the usual form. Clones are handles to one stack. What is still on a stack when
/// its last handle is dropped is dropped too, and not run.
///
/// ```
/// use tulipa_loop::{AsyncExitStack, EventLoop, yield_now};
///
/// let event_loop = EventLoop::new()?;
/// let sum = event_loop.run_until_complete(AsyncExitStack::run(async |stack| {
///     for connection in 1..=3 {
///         stack.push(async move {
///             yield_now().await; // says goodbye
///             println!("closed {connection}");
///         });
///     }
///     6
/// }))?;
/// assert_eq!(sum, 6); // closed 3, closed 2, closed 1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct AsyncExitStack {
    exits: Rc<RefCell<Vec<Exit>>>,
}

/// A future does nothing before it is polled, so it is its own callback.
type Exit = Pin<Box<dyn Future<Output = ()>>>;

impl AsyncExitStack {
    /// An empty stack.
    pub fn new() -> AsyncExitStack {
        AsyncExitStack::default()
    }

    /// Runs `body` with a stack, then what it has put there, and gives its value.
    ///
    /// The exits run in whatever way the body ends: with a value, with a panic, which goes on afterwards,
    /// or because the task is cancelled. The body is then dropped where it is suspended, the exits run,
    /// and after them the cancel goes on to what is around this: the next `cancellable`, or the task, as soon
    /// as no other clean-up is at work in there.
    ///
    /// # Panics
    /// With the panic of the body, or else the first one of an exit, when all exits have run; others are
    /// reported.
    ///
    /// # Cancel safety
    /// When it is *dropped*, by a timeout for example, nothing can await any more: body and exits are
    /// dropped. Make it a task and use [`wait_for`](crate::wait_for) where the exits matter.
    pub async fn run<T>(body: impl AsyncFnOnce(AsyncExitStack) -> T) -> T {
        let stack = AsyncExitStack::new();
        let handle = stack.clone();
        // Called inside, because a closure may do something before it gives its future.
        let ended = caught(cancellable(async move { body(handle).await })).await;
        let closed = caught(stack.aclose()).await;
        if let (Ok(Err(Cancelled)), Some(task)) = (&ended, current_task()) {
            task.pass_cancel_on();
        }
        match (ended, closed) {
            (Ok(Ok(value)), Ok(())) => value,
            // Until the frame around this ends, or the task.
            (Ok(Err(Cancelled)), Ok(())) => pending().await,
            (Ok(_), Err(payload)) | (Err(payload), Ok(())) => resume_unwind(payload),
            (Err(first), Err(second)) => {
                report(second);
                resume_unwind(first)
            }
        }
    }

    /// Puts something on the stack that is done by awaiting it. Its errors are its own. Stands for
    /// `push_async_callback`, and for `enter_async_context` where the thing that was entered is `self`.
    pub fn push(&self, exit: impl Future<Output = ()> + 'static) {
        let exit = Box::pin(exit);
        self.exits.borrow_mut().push(exit);
    }

    /// Puts a closure on the stack. Stands for `callback`.
    pub fn callback(&self, exit: impl FnOnce() + 'static) {
        self.push(async move { exit() });
    }

    /// Moves everything to another stack: what was opened step by step is now whole, and its owner closes
    /// it. Stands for `pop_all`.
    pub fn pop_all(&self) -> AsyncExitStack {
        AsyncExitStack { exits: Rc::new(RefCell::new(self.exits.take())) }
    }

    /// How many things are on the stack.
    pub fn len(&self) -> usize {
        self.exits.borrow().len()
    }

    /// Whether nothing is on the stack.
    pub fn is_empty(&self) -> bool {
        self.exits.borrow().is_empty()
    }

    /// Does what is on the stack, the last thing first, also what is put there meanwhile. Stands for
    /// `aclose`.
    ///
    /// A task that is cancelled meanwhile ends the exit that is being awaited, and no other; the
    /// request is pending again afterwards.
    ///
    /// # Panics
    /// With the first panic of an exit, when all have run; others are reported.
    ///
    /// # Cancel safety
    /// The exit that is being awaited is dropped; the others stay on the stack.
    pub async fn aclose(&self) {
        let mut cancelled = false;
        let mut panic = None;
        loop {
            let exit = self.exits.borrow_mut().pop();
            let Some(exit) = exit else { break };
            match caught(cancellable(exit)).await {
                Ok(Ok(())) => {}
                Ok(Err(Cancelled)) => cancelled = true,
                Err(payload) if panic.is_none() => panic = Some(payload),
                Err(payload) => report(payload),
            }
        }
        if cancelled {
            cancel_again();
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

/// A future that gives its panic, also one of what it drops. It is dropped when it has ended.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(Some(future));
    let ended = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let future = future.as_mut().as_pin_mut();
            future.expect("it is there until it has ended").poll(context)
        }));
        match polled {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(payload)),
        }
    })
    .await;
    let dropped = catch_unwind(AssertUnwindSafe(|| future.set(None)));
    match (ended, dropped) {
        (ended, Ok(())) => ended,
        (Ok(_), Err(payload)) => Err(payload),
        (Err(first), Err(second)) => {
            report(second);
            Err(first)
        }
    }
}

/// Requests what was consumed here on behalf of others.
fn cancel_again() {
    if let Some(task) = current_task() {
        task.cancel();
    }
}

fn report(payload: Box<dyn Any + Send>) {
    if let Some(handle) = LoopHandle::try_current() {
        handle.call_exception_handler(ErrorContext::panic(Origin::Task, None, payload));
    }
}

impl fmt::Debug for AsyncExitStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let exits = self.len();
        write!(f, "<AsyncExitStack exits={exits}>")
    }
}
