//! The await graph: which task waits for what, for how long, and where they wait for each other.
//!
//! `waits` is the record, which futures keep while they wait; `observer` fills it for locks and
//! queues; `graph` and `call_graph` are what a program reads.

mod call_graph;
mod graph;
mod observer;
mod waits;

pub use call_graph::{
    FrameCallGraphEntry, FutureCallGraph, capture_call_graph, format_call_graph, print_call_graph,
};
pub use graph::{AwaitEdge, AwaitGraph, AwaitNode, AwaitTarget, AwaiterId, AwaiterState, Cycle};
pub(crate) use graph::{RawNode, described};
pub(crate) use observer::LoopObserver;
pub(crate) use waits::{Head, How, On, Plain, Purpose, Shared, Targets, WaitId, Waiter, Waits};

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::LoopHandle;
use crate::core::Core;
use crate::handle::with_current;
use crate::remote;

impl Core {
    /// Who is being polled, if somebody is.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        match self.current_task.get() {
            Some(key) => Some(Waiter::Task(key)),
            None => self.polls_main.get().then_some(Waiter::Main),
        }
    }

    /// Notes that who is being polled waits; does nothing if that is noted already.
    pub(crate) fn wait_on(&self, id: &mut WaitId, on: impl FnOnce() -> On) {
        let waiter = self.waiter();
        if !id.is_none() {
            if waiter.is_some() && self.tasks.borrow().waits().waiter(*id) == waiter {
                return;
            }
            self.wait_over(id);
        }
        let Some(waiter) = waiter else { return };
        // The last reading of the clock will do: another one would cost more than all the rest here.
        let (on, since) = (on(), self.last_reading.get());
        *id = self.tasks.borrow_mut().begin_wait(waiter, since, on);
    }

    /// Notes that a wait is over, if one was noted.
    #[inline]
    pub(crate) fn wait_over(&self, id: &mut WaitId) {
        let id = mem::take(id);
        if !id.is_none() {
            let on = self.tasks.borrow_mut().end_wait(id);
            drop(on);
        }
    }

    /// Ends the waits whose futures were dropped elsewhere.
    fn end_abandoned(&self) {
        for id in self.shared.abandoned.take() {
            self.wait_over(&mut { id });
        }
    }
}

/// Waits whose futures were dropped where their loop was not running: on other threads, for example.
/// No more than there are waits.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(Mutex<Vec<WaitId>>);

impl Abandoned {
    fn add(&self, id: WaitId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    fn take(&self) -> Vec<WaitId> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wait of a future that may go to other threads.
#[derive(Debug, Default)]
pub(crate) struct RemoteWait(Option<(Arc<remote::Shared>, WaitId)>);

impl RemoteWait {
    /// Notes that who is being polled on this thread waits.
    pub(crate) fn wait_on(&mut self, on: impl FnOnce() -> On) {
        let Some(handle) = LoopHandle::try_current() else { return self.over() };
        let core = &handle.core;
        if let Some((shared, id)) = &mut self.0 {
            if shared.id == core.id {
                return core.wait_on(id, on);
            }
            self.over();
        }
        core.end_abandoned();
        let mut id = WaitId::NONE;
        core.wait_on(&mut id, on);
        self.0 = (!id.is_none()).then(|| (core.shared.clone(), id));
    }

    pub(crate) fn over(&mut self) {
        let Some((shared, id)) = self.0.take() else { return };
        match with_current(shared.id, |core| core.tasks.borrow_mut().end_wait(id)) {
            Some(on) => drop(on),
            None => shared.abandoned.add(id),
        }
    }
}

impl Drop for RemoteWait {
    fn drop(&mut self) {
        self.over();
    }
}

/// Gives a wait a name in the await graph: while the task waits for `future` it is shown as waiting on
/// `what`. For futures of one's own, and of libraries that know nothing of this loop, which are not in
/// the graph otherwise.
///
/// ```
/// use tulipa_loop::{EventLoop, LoopHandle, spawn, waiting_on, yield_now};
///
/// let event_loop = EventLoop::new()?;
/// event_loop.run_until_complete(async {
///     let task = spawn(waiting_on("the database", std::future::pending::<()>()));
///     yield_now().await;
///     assert!(format!("{task:?}").ends_with("waiting on the database>"));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cancel safety
/// That of the future.
pub fn waiting_on<F: IntoFuture>(what: &'static str, future: F) -> WaitingOn<F::IntoFuture> {
    WaitingOn { wait: RemoteWait::default(), what, future: future.into_future() }
}

pin_project! {
    /// A future whose wait has a name: see [`waiting_on`].
    #[must_use = "futures do nothing unless awaited"]
    #[derive(Debug)]
    pub struct WaitingOn<F> {
        wait: RemoteWait,
        what: &'static str,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for WaitingOn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(context);
        match polled {
            Poll::Ready(_) => this.wait.over(),
            Poll::Pending => this.wait.wait_on(|| On::Plain(Plain::Named(this.what))),
        }
        polled
    }
}
