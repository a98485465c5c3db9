//! A hook through which an event loop learns who waits for what.
//!
//! A lock or a queue knows nothing of the loop it is used under, and a loop cannot see why a task
//! that returned `Pending` did so. Between them stands [`Observer`]: while one is set with
//! [`with_observer`], every future of this crate that begins to wait says so, with the kind of wait,
//! the primitive's name, place of creation and identity, and its owner where there is one. From
//! that a loop draws its graph of waiting tasks, and finds the cycles in it.
//!
//! With no observer set, which is the default, a wait costs one thread-local read more, and an
//! operation that does not wait costs nothing; taking a [`Lock`](crate::Lock) or writing to an
//! [`RwLock`](crate::RwLock) reads it once to learn the owner.
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//! use tulipa_sync::wait::{self, Observer, Wait, WaitToken};
//! use tulipa_sync::Event;
//!
//! #[derive(Default)]
//! struct Log(RefCell<Vec<String>>);
//!
//! impl Observer for Log {
//!     fn begin(&self, wait: &Wait) -> WaitToken {
//!         self.0.borrow_mut().push(wait.to_string());
//!         WaitToken::new(7)
//!     }
//!     fn end(&self, token: WaitToken) {
//!         self.0.borrow_mut().push(format!("end {}", token.get()));
//!     }
//! }
//!
//! let log = Rc::new(Log::default());
//! let ready = Event::new().named("ready");
//! wait::with_observer(log.clone(), || {
//!     let waiting = futures_lite::future::poll_once(ready.wait());
//!     futures_lite::future::block_on(waiting);
//! });
//! let log = log.0.take();
//! assert!(log[0].starts_with("event `ready` created at "));
//! assert_eq!(log[1], "end 7");
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::panic::Location;
use std::rc::Rc;

thread_local! {
    /// Whether `OBSERVER` holds one. Apart from it because a `Cell<bool>` has no destructor, so that
    /// reading it is one load.
    static OBSERVED: Cell<bool> = const { Cell::new(false) };
    static OBSERVER: RefCell<Option<Rc<dyn Observer>>> = const { RefCell::new(None) };
}

/// Learns of every wait that begins and ends on this thread while it is set.
///
/// The methods are called with nothing of this crate borrowed, so they may use its primitives. They
/// should not panic: [`end`](Self::end) is called from destructors.
///
/// # Order
///
/// Each [`begin`](Self::begin) is followed by exactly one [`end`](Self::end) with its token, when
/// the wait is over or its future is dropped. The `end` goes to the observer that saw the `begin`,
/// also when another one, or none, is set by then.
pub trait Observer {
    /// A future is about to return `Pending` for the first time.
    ///
    /// The token is handed back to [`end`](Self::end); what it means is up to the observer.
    fn begin(&self, wait: &Wait) -> WaitToken;

    /// The wait is over: its future is ready, or was dropped.
    fn end(&self, token: WaitToken);

    /// The future of a wait is polled with another waker than before, usually by another task.
    ///
    /// The token that this returns takes the place of the one of [`begin`](Self::begin).
    fn moved(&self, token: WaitToken) -> WaitToken {
        token
    }

    /// Who is running now, usually the task being polled: it becomes the owner of the lock that is
    /// taken now.
    fn current_owner(&self) -> Option<OwnerId> {
        None
    }

    /// The owner of a lock changed while others are waiting for it.
    ///
    /// `None` says that it was released; who waited first is told the next time it is polled.
    fn owner_changed(&self, resource: ResourceId, owner: Option<OwnerId>) {
        let _ = (resource, owner);
    }
}

/// Sets the observer of this thread while `f` runs, and restores the previous one afterwards, also
/// when `f` panics.
///
/// An event loop calls this once around each run of its tasks. The futures keep the observer that
/// saw them begin alive until they end.
pub fn with_observer<R>(observer: Rc<dyn Observer>, f: impl FnOnce() -> R) -> R {
    let _restore = Restore(replace(Some(observer)));
    f()
}

struct Restore(Option<Rc<dyn Observer>>);

impl Drop for Restore {
    fn drop(&mut self) {
        drop(replace(self.0.take()));
    }
}

fn replace(observer: Option<Rc<dyn Observer>>) -> Option<Rc<dyn Observer>> {
    OBSERVED.set(observer.is_some());
    OBSERVER.replace(observer)
}

fn observer() -> Option<Rc<dyn Observer>> {
    if OBSERVED.get() { OBSERVER.with_borrow(Option::clone) } else { None }
}

/// Who owns a lock. The observer chooses the numbers: a loop would use its task ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(NonZeroU64);

impl OwnerId {
    /// Wraps the observer's number.
    #[must_use = "making an id does nothing by itself"]
    pub const fn new(id: NonZeroU64) -> Self {
        Self(id)
    }

    /// The number it was made from.
    #[must_use = "reading an id has no effect"]
    pub const fn get(self) -> NonZeroU64 {
        self.0
    }
}

/// Which primitive is waited for: equal for all waits on one primitive, different for two
/// primitives that are waited for at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(usize);

impl ResourceId {
    /// The address serves: a primitive cannot move while a waiting future borrows it.
    pub(crate) fn of<T>(primitive: &T) -> Self {
        Self(std::ptr::from_ref(primitive).addr())
    }
}

/// What [`Observer::begin`] returns and [`Observer::end`] receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaitToken(u64);

impl WaitToken {
    /// Wraps the observer's number.
    #[must_use = "a token is for `begin` to return"]
    pub const fn new(token: u64) -> Self {
        Self(token)
    }

    /// The number it was made from.
    #[must_use = "reading a token has no effect"]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a wait is for. `Display` gives one or two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitKind {
    /// [`Lock::lock`](crate::Lock::lock), or the return to the lock of a condition's waiter.
    Lock,
    /// [`RwLock::read`](crate::RwLock::read).
    Read,
    /// [`RwLock::write`](crate::RwLock::write).
    Write,
    /// [`Semaphore::acquire`](crate::Semaphore::acquire) and its like.
    Semaphore,
    /// [`Event::wait`](crate::Event::wait).
    Event,
    /// [`Condition::wait`](crate::Condition::wait), before it is notified.
    Condition,
    /// [`Barrier::wait`](crate::Barrier::wait).
    Barrier,
    /// `get` on a queue.
    Get,
    /// `put` on a queue.
    Put,
    /// `join` on a queue.
    Join,
    /// The value of a [`oneshot`](crate::oneshot).
    Oneshot,
    /// The end of the receiver of a [`oneshot`](crate::oneshot).
    OneshotClosed,
}

impl WaitKind {
    /// One or two words.
    #[must_use = "reading the name has no effect"]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Read => "read lock",
            Self::Write => "write lock",
            Self::Semaphore => "semaphore",
            Self::Event => "event",
            Self::Condition => "condition",
            Self::Barrier => "barrier",
            Self::Get => "queue get",
            Self::Put => "queue put",
            Self::Join => "queue join",
            Self::Oneshot => "oneshot",
            Self::OneshotClosed => "oneshot closing",
        }
    }
}

impl fmt::Display for WaitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One wait, as [`Observer::begin`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    kind: WaitKind,
    resource: ResourceId,
    name: Option<&'static str>,
    created_at: &'static Location<'static>,
    owner: Option<OwnerId>,
}

impl Wait {
    /// What the wait is for.
    #[must_use = "reading the kind has no effect"]
    pub fn kind(&self) -> WaitKind {
        self.kind
    }

    /// Which primitive it waits for.
    #[must_use = "reading the id has no effect"]
    pub fn resource(&self) -> ResourceId {
        self.resource
    }

    /// The name given to the primitive with `named`.
    #[must_use = "reading the name has no effect"]
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Where the primitive was created.
    #[must_use = "reading the place has no effect"]
    pub fn created_at(&self) -> &'static Location<'static> {
        self.created_at
    }

    /// Who owns the primitive now, if it is a lock that one owner holds and the observer named it.
    ///
    /// Later changes come through [`Observer::owner_changed`].
    #[must_use = "reading the owner has no effect"]
    pub fn owner(&self) -> Option<OwnerId> {
        self.owner
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(name) = self.name {
            write!(f, " `{name}`")?;
        }
        write!(f, " created at {}", self.created_at)?;
        if let Some(owner) = self.owner {
            write!(f, ", owned by {}", owner.get())?;
        }
        Ok(())
    }
}

/// What a primitive says of itself. It also makes the primitive `!Send`.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    name: Option<&'static str>,
    created_at: &'static Location<'static>,
    _one_thread: PhantomData<*const ()>,
}

impl Label {
    #[track_caller]
    pub(crate) const fn new() -> Self {
        Self { name: None, created_at: Location::caller(), _one_thread: PhantomData }
    }

    pub(crate) const fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Reports the beginning of a wait, if somebody observes.
    #[inline]
    pub(crate) fn begin(
        &self,
        kind: WaitKind,
        resource: ResourceId,
        owner: Option<OwnerId>,
    ) -> Option<Observed> {
        let observer = observer()?;
        let Self { name, created_at, .. } = *self;
        let token = observer.begin(&Wait { kind, resource, name, created_at, owner });
        Some(Observed { observer, token: Cell::new(token) })
    }
}

/// A wait that was reported. Its drop reports the end.
pub(crate) struct Observed {
    observer: Rc<dyn Observer>,
    token: Cell<WaitToken>,
}

impl Observed {
    /// Reports that somebody else polls it now.
    pub(crate) fn moved(&self) {
        let token = self.observer.moved(self.token.get());
        self.token.set(token);
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.observer.end(self.token.get());
    }
}

/// Who is running now, as far as an observer says so.
#[inline]
pub(crate) fn current_owner() -> Option<OwnerId> {
    observer()?.current_owner()
}

/// Whether an observer is set: one thread-local read.
#[inline]
pub(crate) fn is_observed() -> bool {
    OBSERVED.get()
}

/// Tells the observer that the owner of a contended lock changed.
#[cold]
pub(crate) fn owner_changed(resource: ResourceId, owner: Option<OwnerId>) {
    if let Some(observer) = observer() {
        observer.owner_changed(resource, owner);
    }
}
