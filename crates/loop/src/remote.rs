//! The only part of a loop that other threads may hold.
//!
//! Messages go into a queue, then the doorbell is rung, in that order: see the notifier of
//! `tulipa-selector` for why no message is overlooked and why a busy loop costs no system call. The
//! loop drains the queue into its ready queue once in each turn, so the order among the messages of
//! one thread is kept.

use std::fmt;
use std::mem;
use std::panic::Location;
use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};

#[cfg(all(test, loom))]
use loom::sync::Mutex;
#[cfg(not(all(test, loom)))]
use std::sync::Mutex;

use concurrent_queue::ConcurrentQueue;
use tulipa_selector::Notifier;

use crate::LoopHandle;
use crate::await_graph::Abandoned;
use crate::context::{self, copy_context};
use crate::core::{Core, Ready};
use crate::handle::with_current;
use crate::task::TaskRunnable;
use crate::trace;

/// The loop is closed: nothing will run on it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop is closed")]
pub struct LoopClosed;

/// Why a [`Remote`] could not pass something on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The loop is closed: nothing will run on it any more.
    #[error("the event loop is closed")]
    LoopClosed,
    /// The message is in the loop's queue, but the loop cannot be woken, because the operating system
    /// refuses the system call. It runs when the loop wakes up for another reason.
    #[error("the event loop could not be woken: {0}")]
    Doorbell(#[source] std::io::Error),
}

/// A handle to a loop that any thread may use, and keep longer than the loop lives.
///
/// ```
/// use tulipa_loop::EventLoop;
///
/// let event_loop = EventLoop::new()?;
/// let remote = event_loop.remote();
/// let thread = std::thread::spawn(move || remote.call_soon(|handle| handle.stop()).map(drop));
/// event_loop.run_forever()?;
/// thread.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// What the threads share with the loop.
pub(crate) struct Shared {
    pub(crate) id: u64,
    thread: ThreadId,
    queue: ConcurrentQueue<Message>,
    notifier: Notifier,
    pub(crate) abandoned: Abandoned,
}

/// What another thread asks for.
enum Message {
    Call(Arc<dyn RemoteCall>),
    /// Poll the main future of this run.
    Main(u64),
    /// A step of a task that was woken elsewhere, or while the loop was not running.
    Task(TaskRunnable),
    Stop,
}

/// A call that can be cancelled from any thread until it runs.
pub(crate) trait RemoteCall: Send + Sync {
    fn run(&self, handle: &LoopHandle);
    fn cancel(&self) -> bool;
    fn is_pending(&self) -> bool;
    fn location(&self) -> &'static Location<'static>;
}

struct Call<F> {
    closure: Mutex<Option<F>>,
    location: &'static Location<'static>,
}

impl<F> Call<F> {
    /// Whoever takes the closure decides whether it runs or is dropped. The lock is held for the
    /// taking only, so no user code runs under it and it cannot be poisoned.
    fn take(&self) -> Option<F> {
        self.closure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<F: FnOnce(&LoopHandle) + Send> RemoteCall for Call<F> {
    fn run(&self, handle: &LoopHandle) {
        if let Some(closure) = self.take() {
            closure(handle);
        }
    }

    fn cancel(&self) -> bool {
        self.take().is_some()
    }

    fn is_pending(&self) -> bool {
        self.closure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

/// A call that was passed to a loop from another thread. Dropping it leaves the call alone.
#[derive(Clone)]
pub struct RemoteHandle {
    call: Arc<dyn RemoteCall>,
}

impl RemoteHandle {
    /// Keeps the call from running and drops its closure, on this thread. Returns whether it was in
    /// time: of a cancel and the call itself exactly one wins.
    pub fn cancel(&self) -> bool {
        self.call.cancel()
    }

    /// Whether the call has neither run nor been cancelled.
    pub fn is_pending(&self) -> bool {
        self.call.is_pending()
    }
}

impl fmt::Debug for RemoteHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_pending() { "pending" } else { "done" };
        write!(f, "<RemoteHandle {state} created at {}>", self.call.location())
    }
}

impl Remote {
    pub(crate) fn new(shared: Arc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Runs `callback` on the loop's thread. Stands for `call_soon_threadsafe`.
    ///
    /// It may be called before the loop runs; the callback then waits for that. On the loop's own
    /// thread [`LoopHandle::call_soon`] is cheaper.
    ///
    /// # Order
    /// Calls of one thread run in their order. They join the loop's ready queue at its next turn.
    ///
    /// # Errors
    /// [`RemoteError::LoopClosed`]; the callback is dropped, on this thread. A loop that is closed
    /// later drops what it has not run, on its own thread.
    #[track_caller]
    pub fn call_soon(
        &self,
        callback: impl FnOnce(&LoopHandle) + Send + 'static,
    ) -> Result<RemoteHandle, RemoteError> {
        let location = Location::caller();
        if !context::is_active() {
            return self.send_call(location, callback);
        }
        let mut context = copy_context();
        self.send_call(location, move |handle: &LoopHandle| context.run(|| callback(handle)))
    }

    /// A call that inherits no context.
    pub(crate) fn send_call(
        &self,
        location: &'static Location<'static>,
        closure: impl FnOnce(&LoopHandle) + Send + 'static,
    ) -> Result<RemoteHandle, RemoteError> {
        let call = Arc::new(Call { closure: Mutex::new(Some(closure)), location });
        self.shared.send(Message::Call(call.clone()))?;
        Ok(RemoteHandle { call })
    }

    /// Stops the loop, as [`LoopHandle::stop`] does.
    ///
    /// # Errors
    /// As [`call_soon`](Self::call_soon).
    pub fn stop(&self) -> Result<(), RemoteError> {
        self.shared.send(Message::Stop)
    }

    /// The number of the loop.
    pub(crate) fn loop_id(&self) -> u64 {
        self.shared.id
    }

    /// The thread that the loop lives on.
    pub(crate) fn thread(&self) -> ThreadId {
        self.shared.thread
    }

    /// Whether the loop is closed.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }
}

impl Shared {
    pub(crate) fn new(id: u64, notifier: Notifier) -> Shared {
        let (thread, queue) = (thread::current().id(), ConcurrentQueue::unbounded());
        Shared { id, thread, queue, notifier, abandoned: Abandoned::default() }
    }

    /// Asks for the main future of a run to be polled.
    pub(crate) fn wake_main(&self, run: u64) {
        // A closed loop polls nothing, and a waker has nobody to tell about a broken doorbell: the
        // next message does.
        let _ = self.send(Message::Main(run));
    }

    /// Puts the next step of a woken task where the loop finds it: on the loop's thread into the
    /// ready queue, which is plain memory, from anywhere else into the queue of messages.
    pub(crate) fn schedule_task(&self, task: TaskRunnable) {
        let mut task = Some(task);
        let span = with_current(self.id, |core| {
            let task = task.take()?;
            let span = core.traced(task.metadata());
            core.ready.borrow_mut().push(Ready::Task(task));
            span
        });
        let Some(task) = task else {
            // After the look at the current loop: a subscriber may do anything.
            return trace::woken(span.flatten());
        };
        match self.queue.push(Message::Task(task)) {
            // A waker has nobody to tell about a broken doorbell: the next message does.
            Ok(()) => drop(self.notifier.notify()),
            // The loop is gone and could not collect this task in time. Dropping it here could drop
            // its future on a foreign thread, so it is leaked.
            Err(refused) => mem::forget(refused),
        }
    }

    fn send(&self, message: Message) -> Result<(), RemoteError> {
        self.queue.push(message).map_err(|_| RemoteError::LoopClosed)?;
        match self.notifier.notify() {
            // Closed between the two: the message was in time, and the loop has run or dropped it.
            Err(error) if error.kind() != std::io::ErrorKind::NotConnected => {
                Err(RemoteError::Doorbell(error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("loop", &self.id).finish_non_exhaustive()
    }
}

impl Core {
    /// Moves what other threads asked for into the ready queue: what is there now, not what comes
    /// meanwhile, so that a busy thread cannot hold the loop.
    #[inline]
    pub(crate) fn receive(&self) {
        if !self.shared.is_empty() {
            self.receive_some();
        }
    }

    fn receive_some(&self) {
        for _ in 0..self.shared.queue.len() {
            let Ok(message) = self.shared.queue.pop() else { break };
            match message {
                Message::Stop => self.stopping.set(true),
                Message::Main(run) => {
                    self.ready.borrow_mut().push(Ready::Main(run));
                }
                Message::Task(task) => {
                    let span = self.traced(task.metadata());
                    self.ready.borrow_mut().push(Ready::Task(task));
                    trace::woken(span);
                }
                Message::Call(call) => {
                    self.ready.borrow_mut().push(Ready::Remote(call));
                }
            }
        }
    }

    /// Refuses further messages and drops those that are there.
    pub(crate) fn close_shared(&self, handle: &LoopHandle) {
        self.shared.queue.close();
        while let Ok(message) = self.shared.queue.pop() {
            self.release(handle, || {
                if let Message::Call(call) = &message {
                    // Drops the closure on the loop's thread, also while a handle to it lives.
                    call.cancel();
                }
            });
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p tulipa-loop --lib loom`
#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "loom checks the accesses to a cell of its own")]
mod loom_tests;
