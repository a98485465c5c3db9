//! A value that will be there later: asyncio's `Future`, split in two.
//!
//! The [`Promise`] sets it, the [`LoopFuture`] waits for it. That a value is set twice, or that it is
//! read before it is there, are thus things that cannot be written down. Done callbacks go through
//! the ready queue, so nothing of the program but wakers runs inside `set`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::LoopHandle;
use crate::await_graph::{On, Plain, WaitId};
use crate::context::{self, copy_context};
use crate::report::Origin;

/// The future was cancelled, or its promise was dropped without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the future was cancelled")]
pub struct Cancelled;

/// How a future ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a value.
    Value,
    /// Without one: see [`Cancelled`].
    Cancelled,
}

/// The side that sets the value. Dropping it without a value cancels the future.
#[must_use = "a dropped promise cancels its future"]
pub struct Promise<T> {
    inner: Rc<Inner<T>>,
}

/// The side that waits for the value, once: awaiting gives `Ok(value)` or `Err(Cancelled)`.
///
/// Dropping it detaches: done callbacks still run. [`shared`](Self::shared) lets several wait.
///
/// # Cancel safety
/// A value that has not been handed out stays in the future; awaiting `&mut future` can be given up
/// and taken up again.
#[must_use = "a future gives its value to whoever awaits it"]
pub struct LoopFuture<T> {
    inner: Rc<Inner<T>>,
    waiter: Waiter,
}

/// A future that any number of tasks can wait for; each gets a clone of the value. A clone of it is
/// one more to wait.
///
/// # Order
/// The waiters are woken in the order in which they began to wait.
#[must_use = "a future gives its value to whoever awaits it"]
pub struct SharedFuture<T> {
    inner: Rc<Inner<T>>,
    waiter: Waiter,
}

/// Names a done callback for its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallbackId(pub(crate) u64);

struct Inner<T> {
    handle: LoopHandle,
    location: &'static Location<'static>,
    state: RefCell<State<T>>,
}

struct State<T> {
    value: Value<T>,
    waiters: BTreeMap<u64, Waiting>,
    callbacks: BTreeMap<u64, Done>,
    /// The next key of either map: both are in the order of registration.
    next: u64,
}

/// Who waits.
struct Waiting {
    waker: Waker,
    wait: WaitId,
}

/// Where the value is.
///
/// `Pending` becomes `Here` or `Cancelled`, once; `Here` becomes `Shared` when the first of several
/// waiters asks, or `Taken` when the only one does.
enum Value<T> {
    Pending,
    Here(T),
    Shared(Rc<T>),
    Taken,
    Cancelled,
}

type DoneCallback = Box<dyn FnOnce(&LoopHandle, Outcome)>;

/// Has a callback run in a copy of the current context.
fn bind(call: DoneCallback) -> DoneCallback {
    if !context::is_active() {
        return call;
    }
    let mut context = copy_context();
    Box::new(move |handle, outcome| context.run(|| call(handle, outcome)))
}

struct Done {
    call: DoneCallback,
    location: &'static Location<'static>,
}

/// The place of one waiter among the wakers.
#[derive(Default)]
struct Waiter(Cell<Option<u64>>);

impl LoopHandle {
    /// A future of this loop and the promise that sets it. Stands for `create_future`.
    #[track_caller]
    pub fn create_future<T>(&self) -> (Promise<T>, LoopFuture<T>) {
        let state = State {
            value: Value::Pending,
            waiters: BTreeMap::new(),
            callbacks: BTreeMap::new(),
            next: 0,
        };
        let location = Location::caller();
        let inner = Inner { handle: self.clone(), location, state: RefCell::new(state) };
        let inner = Rc::new(inner);
        let promise = Promise { inner: inner.clone() };
        (promise, LoopFuture { inner, waiter: Waiter::default() })
    }

    /// Turns an interface with callbacks into a future: `start` gets a promise to give to whatever
    /// calls back.
    ///
    /// ```
    /// # use tulipa_loop::EventLoop;
    /// # let event_loop = EventLoop::new()?;
    /// let answer = event_loop.from_callback(|promise| {
    ///     event_loop.call_soon(move |_| promise.set(42).unwrap());
    /// });
    /// assert_eq!(event_loop.run_until_complete(answer)?, Ok(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn from_callback<T>(&self, start: impl FnOnce(Promise<T>)) -> LoopFuture<T> {
        let (promise, future) = self.create_future();
        start(promise);
        future
    }
}

impl<T> Promise<T> {
    /// Gives the future its value. Stands for `set_result`; a `Promise<Result<T, E>>` covers
    /// `set_exception`.
    ///
    /// # Order
    /// Whoever awaits is woken, and done callbacks are scheduled as by
    /// [`call_soon`](LoopHandle::call_soon), in the order of their registration, never inside this
    /// call.
    ///
    /// # Errors
    /// The value, if the future was cancelled.
    pub fn set(self, value: T) -> Result<(), T> {
        self.inner.finish(Value::Here(value))
    }

    /// Whether the future was cancelled, so that nobody wants the value any more.
    pub fn is_cancelled(&self) -> bool {
        self.inner.outcome() == Some(Outcome::Cancelled)
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let _ = self.inner.finish(Value::Cancelled);
    }
}

/// What both kinds of future can do.
macro_rules! future_methods {
    () => {
        /// Whether it has ended, with a value or cancelled. Stands for `done`.
        pub fn is_done(&self) -> bool {
            self.inner.outcome().is_some()
        }

        /// Whether it was cancelled. Stands for `cancelled`.
        pub fn is_cancelled(&self) -> bool {
            self.inner.outcome() == Some(Outcome::Cancelled)
        }

        /// Cancels it: all who wait get [`Cancelled`], and the promise is told when it sets a value.
        /// Returns whether it had not ended before. Stands for `cancel`.
        pub fn cancel(&self) -> bool {
            self.inner.cancel()
        }

        /// Calls `callback` once the future has ended. Stands for `add_done_callback`.
        ///
        /// # Order
        /// As by [`LoopHandle::call_soon`]: never inside this call, also if the future has ended.
        ///
        /// A callback that owns the future's own promise keeps both alive for ever.
        #[track_caller]
        pub fn add_done_callback(
            &self,
            callback: impl FnOnce(&LoopHandle, Outcome) + 'static,
        ) -> CallbackId {
            self.inner.add_done_callback(bind(Box::new(callback)), Location::caller())
        }

        /// Removes a done callback that has not been scheduled yet; returns whether it was there.
        /// Stands for `remove_done_callback`.
        pub fn remove_done_callback(&self, id: CallbackId) -> bool {
            let removed = self.inner.state.borrow_mut().callbacks.remove(&id.0);
            removed.is_some()
        }

        /// The loop it belongs to. Stands for `get_loop`.
        pub fn get_loop(&self) -> LoopHandle {
            self.inner.handle.clone()
        }
    };
}

impl<T> LoopFuture<T> {
    future_methods!();

    /// Takes the value without waiting; `None` while there is none. Stands for `result`.
    ///
    /// # Panics
    /// If the value was taken before.
    pub fn try_take(&mut self) -> Option<Result<T, Cancelled>> {
        match self.inner.take() {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Gives the value, or notes what the wait is for.
    pub(crate) fn poll_as(
        &self,
        context: &Context<'_>,
        on: impl FnOnce() -> On,
    ) -> Poll<Result<T, Cancelled>> {
        match self.inner.take() {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                self.inner.wait(&self.waiter, context.waker(), on);
                Poll::Pending
            }
        }
    }

    /// A future that several can wait for.
    pub fn shared(self) -> SharedFuture<T>
    where
        T: Clone,
    {
        SharedFuture { inner: self.inner.clone(), waiter: Waiter::default() }
    }
}

impl<T: Clone> SharedFuture<T> {
    future_methods!();

    /// A clone of the value without waiting; `None` while there is none. Stands for `result`.
    ///
    /// # Panics
    /// If the value was taken before the future was shared.
    pub fn try_result(&self) -> Option<Result<T, Cancelled>> {
        let value = self.inner.share()?;
        // User code, so after the borrow.
        Some(value.map(|value| T::clone(&value)))
    }
}

impl<T> Clone for SharedFuture<T> {
    fn clone(&self) -> SharedFuture<T> {
        SharedFuture { inner: self.inner.clone(), waiter: Waiter::default() }
    }
}

impl<T> Future for LoopFuture<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_as(context, || On::Plain(Plain::Promise(self.inner.location)))
    }
}

impl<T: Clone> Future for SharedFuture<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.try_result() {
            Some(result) => Poll::Ready(result),
            None => {
                self.inner.wait(&self.waiter, context.waker(), || {
                    On::Plain(Plain::Promise(self.inner.location))
                });
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for LoopFuture<T> {
    fn drop(&mut self) {
        self.inner.give_up(&self.waiter);
    }
}

impl<T> Drop for SharedFuture<T> {
    fn drop(&mut self) {
        self.inner.give_up(&self.waiter);
    }
}

impl<T> Inner<T> {
    fn outcome(&self) -> Option<Outcome> {
        self.state.borrow().outcome()
    }

    fn finish(&self, value: Value<T>) -> Result<(), T> {
        let mut state = self.state.borrow_mut();
        if state.outcome().is_some() {
            drop(state);
            return match value {
                Value::Here(value) => Err(value),
                _ => Ok(()),
            };
        }
        state.value = value;
        let outcome = state.outcome().unwrap_or(Outcome::Cancelled);
        let waiters = mem::take(&mut state.waiters);
        let callbacks = mem::take(&mut state.callbacks);
        drop(state);
        for done in callbacks.into_values() {
            // A closed loop drops it instead, and its destructor is the program's.
            self.handle.core.release(&self.handle, || self.schedule(done, outcome));
        }
        for mut waiting in waiters.into_values() {
            self.handle.core.wait_over(&mut waiting.wait);
            self.handle.core.release(&self.handle, || waiting.waker.wake());
        }
        Ok(())
    }

    fn cancel(&self) -> bool {
        let pending = self.outcome().is_none();
        let _ = self.finish(Value::Cancelled);
        pending
    }

    fn add_done_callback(
        &self,
        call: DoneCallback,
        location: &'static Location<'static>,
    ) -> CallbackId {
        let done = Done { call, location };
        let mut state = self.state.borrow_mut();
        let id = state.next_id();
        match state.outcome() {
            Some(outcome) => {
                drop(state);
                self.schedule(done, outcome);
            }
            None => {
                state.callbacks.insert(id, done);
            }
        }
        CallbackId(id)
    }

    fn schedule(&self, done: Done, outcome: Outcome) {
        if self.handle.is_closed() {
            return;
        }
        let Done { call, location } = done;
        let run = Box::new(move |handle: &LoopHandle| call(handle, outcome));
        self.handle.push_callback(run, location, Origin::Done);
    }

    fn take(&self) -> Poll<Result<T, Cancelled>> {
        let mut state = self.state.borrow_mut();
        match mem::replace(&mut state.value, Value::Taken) {
            Value::Here(value) => Poll::Ready(Ok(value)),
            Value::Taken => panic!("a future was asked for its value a second time"),
            Value::Shared(_) => unreachable!("a future that is shared has no single owner"),
            Value::Cancelled => {
                state.value = Value::Cancelled;
                Poll::Ready(Err(Cancelled))
            }
            Value::Pending => {
                state.value = Value::Pending;
                Poll::Pending
            }
        }
    }

    fn share(&self) -> Option<Result<Rc<T>, Cancelled>> {
        let mut state = self.state.borrow_mut();
        let value = match mem::replace(&mut state.value, Value::Taken) {
            Value::Here(value) => Rc::new(value),
            Value::Shared(value) => value,
            Value::Taken => panic!("a future was asked for its value a second time"),
            other => {
                let cancelled = matches!(other, Value::Cancelled);
                state.value = other;
                return cancelled.then_some(Err(Cancelled));
            }
        };
        state.value = Value::Shared(value.clone());
        Some(Ok(value))
    }

    fn wait(&self, waiter: &Waiter, waker: &Waker, on: impl FnOnce() -> On) {
        // The old and the new waker are user code: cloned before the borrow, dropped after it.
        let waker = waker.clone();
        let mut state = self.state.borrow_mut();
        let id = waiter.0.get().unwrap_or_else(|| state.next_id());
        waiter.0.set(Some(id));
        let mut wait = state.waiters.get(&id).map(|old| old.wait).unwrap_or_default();
        drop(state);
        self.handle.core.wait_on(&mut wait, on);
        let old = self.state.borrow_mut().waiters.insert(id, Waiting { waker, wait });
        drop(old);
    }

    fn give_up(&self, waiter: &Waiter) {
        if let Some(id) = waiter.0.get() {
            let waiting = self.state.borrow_mut().waiters.remove(&id);
            if let Some(mut waiting) = waiting {
                self.handle.core.wait_over(&mut waiting.wait);
            }
        }
    }
}

impl<T> State<T> {
    fn outcome(&self) -> Option<Outcome> {
        match self.value {
            Value::Pending => None,
            Value::Cancelled => Some(Outcome::Cancelled),
            Value::Here(_) | Value::Shared(_) | Value::Taken => Some(Outcome::Value),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl<T> Inner<T> {
    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let callbacks = self.state.borrow().callbacks.len();
        let status = match self.outcome() {
            None => "pending",
            Some(Outcome::Value) => "finished",
            Some(Outcome::Cancelled) => "cancelled",
        };
        write!(f, "<{name} {status} callbacks={callbacks} created at {}>", self.location)
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt("Promise", f)
    }
}

impl<T> fmt::Debug for LoopFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt("LoopFuture", f)
    }
}

impl<T> fmt::Debug for SharedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt("SharedFuture", f)
    }
}
