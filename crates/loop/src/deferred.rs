//! Results with callbacks: Twisted's `Deferred`.
//!
//! The problem: callbacks run as soon as there is a result, and may do anything: set other results, add callbacks,
//! cancel, return a result that is still to come. Chains of them may be of any length.
//!
//! The trick: each callback makes a new deferred, the old one is consumed. What is to run is put into a queue of the
//! thread, and whoever puts something into an empty queue empties it. So a callback never runs inside of another one, nothing
//! is borrowed while it runs, and a chain of a million takes no stack.
//!
//! | state | what is true | next |
//! |---|---|---|
//! | `Waiting` | there is no result | `Done` |
//! | `Done` | there is one, and nobody has asked for it | `Taken` |
//! | `Taken` | a callback or a task has it | |

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::context::{self, copy_context};
use crate::core::log;
use crate::report::panic_message;
use crate::{ErrorContext, LoopFuture, LoopHandle, Origin};

/// Why a [`Deferred`] has no value. Stands for Twisted's `Failure`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeferredError<E> {
    /// With this error.
    #[error("{0}")]
    Failed(E),
    /// It was cancelled, or its [`Trigger`] was dropped.
    #[error("the deferred was cancelled")]
    Cancelled,
    /// It took longer than its timeout.
    #[error("the deferred has timed out")]
    TimedOut,
    /// A callback panicked, which was reported; this is what it said.
    #[error("a callback of the deferred panicked: {0}")]
    Panicked(String),
}

/// What a [`Deferred`] ends with.
pub type DeferredResult<T, E> = Result<T, DeferredError<E>>;

/// A result that is there or will be, with the callbacks that want it. Stands for Twisted's `Deferred`.
///
/// ```
/// use tulipa_loop::{Deferred, DeferredError};
///
/// let (trigger, deferred) = Deferred::<u32, String>::pair();
/// let deferred = deferred
///     .add_callback(|number| if number > 9 { Err(format!("{number} is too much")) } else { Ok(number * 2) })
///     .add_errback(|error| match error {
///         DeferredError::Failed(_) => Ok(0),
///         other => Err(other),
///     });
/// trigger.callback(21).unwrap();
/// assert_eq!(deferred.try_result(), Some(Ok(0)));
/// ```
///
/// Each method that adds a callback takes the deferred and gives the next one, whose result is the callback's. A
/// callback returns a `Result`; one given to [`chain`](Self::chain) another deferred, for whose result is then waited.
///
/// It is a future: `deferred.await`; and [`from_future`](Self::from_future) makes one of a future.
///
/// # Order
/// A callback runs as soon as there is the result it waits for: inside of [`Trigger::callback`], or of the method that
/// adds it. If that happens inside of a callback, it runs when that one has returned.
///
/// # Errors
/// One that nobody has asked for when the last deferred of a chain is dropped is reported to the loop's exception handler,
/// once. A cancel is no error.
#[must_use = "its errors are reported when it is dropped"]
pub struct Deferred<T: 'static, E: 'static> {
    inner: Rc<Inner<T, E>>,
}

/// Gives a [`Deferred`] its result. Dropping it without one cancels the deferred.
#[must_use = "a dropped trigger cancels its deferred"]
pub struct Trigger<T: 'static, E: 'static> {
    inner: Rc<Inner<T, E>>,
}

type Next<T, E> = Box<dyn FnOnce(DeferredResult<T, E>)>;

struct Inner<T, E> {
    state: RefCell<State<T, E>>,
    next: Cell<Option<Next<T, E>>>,
    canceller: Cell<Option<Box<dyn FnOnce()>>>,
    /// Where the result comes from.
    upstream: RefCell<Option<Weak<dyn Cancel>>>,
    handle: Option<LoopHandle>,
    location: &'static Location<'static>,
    /// How an error is told.
    tell: fn(&E) -> String,
    /// Nobody will ask for the result any more.
    abandoned: Cell<bool>,
}

enum State<T, E> {
    Waiting,
    Done(DeferredResult<T, E>),
    Taken,
}

/// What a cancel goes to.
trait Cancel {
    fn cancel(self: Rc<Self>);
}

/// A result that is there, or one that is to come. Stands for `maybeDeferred`.
#[derive(Debug)]
pub enum MaybeDeferred<T: 'static, E: 'static> {
    /// There.
    Now(DeferredResult<T, E>),
    /// To come.
    Later(Deferred<T, E>),
}

impl<E> From<E> for DeferredError<E> {
    fn from(error: E) -> DeferredError<E> {
        DeferredError::Failed(error)
    }
}

impl<T: 'static, E: fmt::Display + 'static> Deferred<T, E> {
    /// A deferred and what gives it its result. On a running loop it belongs to that.
    #[track_caller]
    pub fn pair() -> (Trigger<T, E>, Deferred<T, E>) {
        let inner = Inner::new(LoopHandle::try_current(), Location::caller(), |error: &E| {
            error.to_string()
        });
        (Trigger { inner: inner.clone() }, Deferred { inner })
    }

    /// The same with what a [`cancel`](Self::cancel) calls, to end what the result is to come from.
    #[track_caller]
    pub fn with_canceller(canceller: impl FnOnce() + 'static) -> (Trigger<T, E>, Deferred<T, E>) {
        let (trigger, deferred) = Deferred::pair();
        deferred.inner.canceller.set(Some(Box::new(canceller)));
        (trigger, deferred)
    }

    /// One that has its value already. Stands for `succeed`.
    #[track_caller]
    pub fn succeed(value: T) -> Deferred<T, E> {
        let (trigger, deferred) = Deferred::pair();
        let _ = trigger.callback(value);
        deferred
    }

    /// One that has failed already. Stands for `fail`.
    #[track_caller]
    pub fn fail(error: E) -> Deferred<T, E> {
        let (trigger, deferred) = Deferred::pair();
        let _ = trigger.errback(error);
        deferred
    }

    /// The result of a future, which runs as a task of the current loop. A cancel cancels the task. Stands for
    /// `Deferred.fromFuture` and `fromCoroutine`.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn from_future(future: impl Future<Output = Result<T, E>> + 'static) -> Deferred<T, E> {
        let (trigger, deferred) = Deferred::pair();
        let task = LoopHandle::current().spawn(async move {
            let _ = match future.await {
                Ok(value) => trigger.callback(value).map_err(drop),
                Err(error) => trigger.errback(error).map_err(drop),
            };
        });
        let reference = task.reference();
        deferred.inner.canceller.set(Some(Box::new(move || {
            reference.cancel();
        })));
        deferred
    }
}

impl<T: 'static, E: 'static> Deferred<T, E> {
    /// Calls `callback` with the value. Stands for `addCallback`.
    pub fn add_callback<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Result<U, E> + 'static,
    ) -> Deferred<U, E> {
        self.add_both(|result| Ok(callback(result?)?))
    }

    /// Calls `errback` if there is no value, with the reason. Stands for `addErrback`.
    pub fn add_errback(
        self,
        errback: impl FnOnce(DeferredError<E>) -> DeferredResult<T, E> + 'static,
    ) -> Deferred<T, E> {
        self.add_both(|result| result.or_else(errback))
    }

    /// Calls one of the two. Stands for `addCallbacks`: an error of `callback` does not come to `errback`.
    pub fn add_callbacks<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Result<U, E> + 'static,
        errback: impl FnOnce(DeferredError<E>) -> DeferredResult<U, E> + 'static,
    ) -> Deferred<U, E> {
        self.add_both(|result| match result {
            Ok(value) => Ok(callback(value)?),
            Err(error) => errback(error),
        })
    }

    /// Calls `callback` with the result, whatever it is. Stands for `addBoth`.
    pub fn add_both<U: 'static>(
        self,
        callback: impl FnOnce(DeferredResult<T, E>) -> DeferredResult<U, E> + 'static,
    ) -> Deferred<U, E> {
        self.chain_both(|result| MaybeDeferred::Now(callback(result)))
    }

    /// Calls `callback` with the value, and goes on with the result of the deferred that it returns. Stands for
    /// `addCallback` with a callback that returns one.
    pub fn chain<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Deferred<U, E> + 'static,
    ) -> Deferred<U, E> {
        self.chain_both(|result| match result {
            Ok(value) => MaybeDeferred::Later(callback(value)),
            Err(error) => MaybeDeferred::Now(Err(error)),
        })
    }

    /// Calls `callback` with the result, whatever it is, and goes on with the one that it returns, now or later. All
    /// others are short for this.
    pub fn chain_both<U: 'static>(
        self,
        callback: impl FnOnce(DeferredResult<T, E>) -> MaybeDeferred<U, E> + 'static,
    ) -> Deferred<U, E> {
        let Inner { handle, location, tell, .. } = &*self.inner;
        let next = Inner::new(handle.clone(), location, *tell);
        next.set_upstream(&self.inner);
        let (target, mut context) = (next.clone(), context::is_active().then(copy_context));
        self.inner.then(Box::new(move |result| {
            let called = target.guarded(|| match &mut context {
                Some(context) => context.run(|| callback(result)),
                None => callback(result),
            });
            match called {
                Ok(MaybeDeferred::Now(result)) => target.finish(result),
                Ok(MaybeDeferred::Later(deferred)) => target.follow(deferred),
                Err(said) => target.finish(Err(DeferredError::Panicked(said))),
            }
        }));
        Deferred { inner: next }
    }

    /// Cancels it after some time, if there is no result then: the reason is [`DeferredError::TimedOut`] instead. Stands
    /// for `addTimeout`.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn add_timeout(self, timeout: Duration) -> Deferred<T, E> {
        let late = Rc::new(Cell::new(false));
        let (source, flag) = (Rc::downgrade(&self.inner), late.clone());
        let timer = LoopHandle::current().call_later(timeout, move |_| {
            flag.set(true);
            if let Some(source) = source.upgrade() {
                source.cancel();
            }
        });
        self.add_both(move |result| {
            timer.cancel();
            match result {
                Err(DeferredError::Cancelled) if late.get() => Err(DeferredError::TimedOut),
                result => result,
            }
        })
    }

    /// Asks for its end: what the result was to come from is told (see [`with_canceller`](Self::with_canceller)), and
    /// unless that gives another one the result is [`DeferredError::Cancelled`]. If there is a result it does nothing.
    /// Stands for `cancel`.
    pub fn cancel(&self) {
        self.inner.clone().cancel();
    }

    /// Whether there is a result that nobody has asked for. Stands for `called`.
    pub fn is_done(&self) -> bool {
        matches!(*self.inner.state.borrow(), State::Done(_))
    }

    /// Takes the result, if there is one; the deferred is used up then.
    pub fn try_result(self) -> Option<DeferredResult<T, E>> {
        self.inner.take()
    }
}

impl<T: 'static, E: 'static> Trigger<T, E> {
    /// Gives the deferred its value. Stands for `callback`.
    ///
    /// # Errors
    /// The value, if the deferred was cancelled.
    pub fn callback(self, value: T) -> Result<(), T> {
        if self.is_cancelled() {
            return Err(value);
        }
        self.inner.finish(Ok(value));
        Ok(())
    }

    /// Gives the deferred its error. Stands for `errback`.
    ///
    /// # Errors
    /// The error, if the deferred was cancelled.
    pub fn errback(self, error: E) -> Result<(), E> {
        if self.is_cancelled() {
            return Err(error);
        }
        self.inner.finish(Err(DeferredError::Failed(error)));
        Ok(())
    }

    /// Whether the deferred was cancelled, so that nobody wants a result any more.
    pub fn is_cancelled(&self) -> bool {
        self.inner.is_over()
    }
}

impl<T: 'static, E: 'static> Drop for Trigger<T, E> {
    fn drop(&mut self) {
        self.inner.finish(Err(DeferredError::Cancelled));
    }
}

impl<T: 'static, E: 'static> Drop for Deferred<T, E> {
    fn drop(&mut self) {
        self.inner.abandoned.set(true);
        self.inner.report_if_unheard();
    }
}

impl<T: 'static, E: 'static> Inner<T, E> {
    fn new(
        handle: Option<LoopHandle>,
        location: &'static Location<'static>,
        tell: fn(&E) -> String,
    ) -> Rc<Inner<T, E>> {
        Rc::new(Inner {
            state: RefCell::new(State::Waiting),
            next: Cell::default(),
            canceller: Cell::default(),
            upstream: RefCell::default(),
            handle,
            location,
            tell,
            abandoned: Cell::new(false),
        })
    }

    fn set_upstream<U: 'static>(&self, upstream: &Rc<Inner<U, E>>) {
        let upstream: Rc<dyn Cancel> = upstream.clone();
        self.upstream.replace(Some(Rc::downgrade(&upstream)));
    }

    fn is_over(&self) -> bool {
        !matches!(*self.state.borrow(), State::Waiting)
    }

    /// Sets the result, unless there is one.
    fn finish(self: &Rc<Self>, result: DeferredResult<T, E>) {
        if self.is_over() {
            return drop(result);
        }
        self.state.replace(State::Done(result));
        // It may hold anything of the program's.
        drop(self.canceller.take());
        self.go_on();
        self.report_if_unheard();
    }

    /// Sets who gets the result.
    fn then(self: &Rc<Self>, next: Next<T, E>) {
        let old = self.next.replace(Some(next));
        debug_assert!(old.is_none(), "a result has one taker");
        self.go_on();
    }

    /// Hands the result on if there are both, it and a taker.
    fn go_on(&self) {
        let Some(next) = self.next.take() else { return };
        match self.take() {
            Some(result) => run(Box::new(move || next(result))),
            None => self.next.set(Some(next)),
        }
    }

    fn take(&self) -> Option<DeferredResult<T, E>> {
        let mut state = self.state.borrow_mut();
        match mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Gets the result of another one.
    fn follow(self: &Rc<Self>, other: Deferred<T, E>) {
        self.set_upstream(&other.inner);
        let target = self.clone();
        other.inner.then(Box::new(move |result| target.finish(result)));
    }

    /// Calls code of the program's; a panic is reported, and told as text.
    fn guarded<R>(&self, code: impl FnOnce() -> R) -> Result<R, String> {
        let mut said = String::new();
        let result = match catch_unwind(AssertUnwindSafe(code)) {
            Ok(value) => return Ok(value),
            Err(payload) => payload,
        };
        said.push_str(panic_message(&*result));
        self.report(ErrorContext::panic(Origin::Done, Some(self.location), result));
        Err(said)
    }

    fn report(&self, context: ErrorContext) {
        match self.handle.clone().or_else(LoopHandle::try_current) {
            Some(handle) => handle.call_exception_handler(context),
            None => log(&context),
        }
    }

    /// Reports an error that nobody can ask for any more.
    fn report_if_unheard(&self) {
        if !self.abandoned.get() {
            return;
        }
        if let Some(Err(DeferredError::Failed(error))) = self.take() {
            let told = self.guarded(|| (self.tell)(&error)).unwrap_or_default();
            let mut context = ErrorContext::error("unhandled error in a deferred", told);
            context.location = Some(self.location);
            self.report(context);
        }
    }
}

impl<T: 'static, E: 'static> Cancel for Inner<T, E> {
    fn cancel(self: Rc<Self>) {
        if self.is_over() {
            return;
        }
        let upstream = self.upstream.borrow().as_ref().and_then(Weak::upgrade);
        if let Some(upstream) = upstream {
            return upstream.cancel();
        }
        if let Some(canceller) = self.canceller.take() {
            let _reported = self.guarded(canceller);
        }
        self.finish(Err(DeferredError::Cancelled));
    }
}

type Job = Box<dyn FnOnce()>;

thread_local! {
    /// What is to run, while something runs.
    static QUEUE: RefCell<Option<VecDeque<Job>>> = const { RefCell::new(None) };
}

/// Runs a job, or leaves it to who runs one further up the stack.
fn run(job: Job) {
    let mut job = Some(job);
    let is_first = QUEUE.with_borrow_mut(|queue| match queue {
        Some(queue) => {
            queue.extend(job.take());
            false
        }
        None => {
            *queue = Some(VecDeque::new());
            true
        }
    });
    if !is_first {
        return;
    }
    /// The queue is closed again also if a destructor of the program's panics.
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            let left = QUEUE.with_borrow_mut(Option::take);
            drop(left);
        }
    }
    let _close = Close;
    while let Some(next) = job.take() {
        next();
        job = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(VecDeque::pop_front));
    }
}

impl<T: 'static, E: 'static> IntoFuture for Deferred<T, E> {
    type Output = DeferredResult<T, E>;
    type IntoFuture = DeferredFuture<T, E>;

    /// Dropping the future cancels the deferred, as it does a task that is awaited.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    fn into_future(self) -> DeferredFuture<T, E> {
        let (promise, future) = LoopHandle::current().create_future();
        let source = self.inner.clone();
        let unheard = self.inner.clone();
        source.then(Box::new(move |result| {
            if let Err(result) = promise.set(result) {
                // Nobody waits any more: it goes where errors go that nobody has asked for.
                unheard.state.replace(State::Done(result));
                unheard.abandoned.set(true);
                unheard.report_if_unheard();
            }
        }));
        DeferredFuture { future, source }
    }
}

/// The wait for a [`Deferred`].
///
/// # Cancel safety
/// Dropping it cancels the deferred.
#[must_use = "futures do nothing unless polled"]
pub struct DeferredFuture<T: 'static, E: 'static> {
    future: LoopFuture<DeferredResult<T, E>>,
    source: Rc<Inner<T, E>>,
}

impl<T: 'static, E: 'static> Future for DeferredFuture<T, E> {
    type Output = DeferredResult<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.future).poll(context);
        polled.map(|result| result.unwrap_or(Err(DeferredError::Cancelled)))
    }
}

impl<T: 'static, E: 'static> Drop for DeferredFuture<T, E> {
    fn drop(&mut self) {
        self.future.cancel();
        self.source.clone().cancel();
    }
}

impl<T: 'static, E: 'static> fmt::Debug for Inner<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.state.borrow() {
            State::Waiting => "waiting",
            State::Done(Ok(_)) => "done",
            State::Done(Err(_)) => "failed",
            State::Taken => "taken",
        };
        write!(f, "{state} created at {}", self.location)
    }
}

impl<T: 'static, E: 'static> fmt::Debug for Deferred<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Deferred {:?}>", self.inner)
    }
}

impl<T: 'static, E: 'static> fmt::Debug for Trigger<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Trigger {:?}>", self.inner)
    }
}

impl<T: 'static, E: 'static> fmt::Debug for DeferredFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<DeferredFuture {:?}>", self.source)
    }
}
