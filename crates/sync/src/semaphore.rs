use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::permits::{Acquire, Hold, Permits};
use crate::wait::{Label, WaitKind};

/// The most permits a semaphore can start with or be given.
///
/// Far above any use, and far enough below `usize::MAX` that adding two counts cannot overflow.
const MAX_PERMITS: usize = usize::MAX >> 3;

/// Lets a limited number of tasks proceed at once: asyncio's `Semaphore`.
///
/// Strictly first in, first out: a task waits while the permits do not suffice *or others wait*,
/// and a request for many permits is not overtaken by requests for few.
///
/// ```
/// use tulipa_sync::Semaphore;
///
/// futures_lite::future::block_on(async {
///     let connections = Semaphore::new(5);
///     let permit = connections.acquire().await;
///     assert_eq!(connections.available_permits(), 4);
///     drop(permit);
///     assert_eq!(connections.available_permits(), 5);
/// });
/// ```
pub struct Semaphore {
    permits: Permits,
}

impl Semaphore {
    /// A semaphore with `permits` free permits. Zero is allowed: then [`release`](Self::release) has
    /// to come first.
    ///
    /// # Panics
    ///
    /// When `permits` is above `usize::MAX / 8`.
    #[must_use = "a semaphore does nothing until it is used"]
    #[track_caller]
    pub const fn new(permits: usize) -> Self {
        assert!(permits <= MAX_PERMITS, "a semaphore starts with at most usize::MAX / 8 permits");
        Self { permits: Permits::new(permits, usize::MAX, Label::new()) }
    }

    /// Gives the semaphore a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named semaphore"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.permits.set_name(name);
        self
    }

    /// Waits for a permit. Dropping the permit returns it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue. A permit that had already been granted
    /// goes to the next waiter.
    #[inline]
    pub fn acquire(&self) -> SemaphoreAcquire<'_> {
        self.acquire_many(1)
    }

    /// Waits for `count` permits, which are granted all at once.
    ///
    /// While the first in the queue waits for many, those behind it wait too. More than the
    /// semaphore has is allowed: the future waits until enough were [added](Self::add_permits).
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    #[inline]
    pub fn acquire_many(&self, count: usize) -> SemaphoreAcquire<'_> {
        SemaphoreAcquire { acquire: self.permits.acquire(count) }
    }

    /// Waits for a permit that keeps the semaphore alive, to be moved into a task of its own.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use tulipa_sync::Semaphore;
    ///
    /// futures_lite::future::block_on(async {
    ///     let limit = Rc::new(Semaphore::new(1));
    ///     let permit = limit.acquire_owned().await;
    ///     let task = async move {
    ///         let _permit = permit;
    ///     };
    ///     assert!(limit.is_locked());
    ///     task.await;
    ///     assert!(!limit.is_locked());
    /// });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    pub async fn acquire_owned(self: &Rc<Self>) -> OwnedPermit {
        self.acquire().await.forget();
        OwnedPermit { semaphore: Rc::clone(self) }
    }

    /// Takes a permit if one is free and nobody waits.
    ///
    /// ```
    /// let semaphore = tulipa_sync::Semaphore::new(1);
    /// let permit = semaphore.try_acquire().unwrap();
    /// assert!(semaphore.try_acquire().is_none());
    /// # drop(permit);
    /// ```
    #[must_use = "the permit is returned when it is dropped"]
    #[inline]
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits if they are free and nobody waits.
    #[must_use = "the permits are returned when they are dropped"]
    #[inline]
    pub fn try_acquire_many(&self, count: usize) -> Option<Permit<'_>> {
        let hold = self.permits.try_acquire(count)?;
        Some(Permit { hold })
    }

    /// Adds one permit, as asyncio's `release` does: there is no upper bound.
    ///
    /// Permits return by themselves when they are dropped. This is for those that were
    /// [forgotten](Permit::forget), and for programs that count events.
    ///
    /// # Panics
    ///
    /// When it would make more than `usize::MAX / 8` permits available.
    pub fn release(&self) {
        self.add_permits(1);
    }

    /// Adds `count` permits.
    ///
    /// ```
    /// let jobs = tulipa_sync::Semaphore::new(0);
    /// jobs.add_permits(3);
    /// assert_eq!(jobs.available_permits(), 3);
    /// ```
    ///
    /// # Panics
    ///
    /// When it would make more than `usize::MAX / 8` permits available.
    pub fn add_permits(&self, count: usize) {
        let fits = count <= MAX_PERMITS && self.permits.free().saturating_add(count) <= MAX_PERMITS;
        assert!(fits, "a semaphore holds at most usize::MAX / 8 permits");
        self.permits.release(count);
    }

    /// Whether [`acquire`](Self::acquire) would have to wait: asyncio's `locked`.
    #[doc(alias = "locked")]
    #[must_use = "asking has no effect"]
    pub fn is_locked(&self) -> bool {
        self.permits.free() == 0 || self.permits.waiting() > 0
    }

    /// How many permits are free now. With waiters, these do not suffice for the first of them.
    #[must_use = "asking has no effect"]
    pub fn available_permits(&self) -> usize {
        self.permits.free()
    }
}

impl Default for Semaphore {
    /// One permit, as in asyncio.
    #[track_caller]
    fn default() -> Self {
        Self::new(1)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("name", &self.permits.name())
            .field("available_permits", &self.permits.free())
            .field("waiting", &self.permits.waiting())
            .finish()
    }
}

/// A [`Semaphore`] that never has more permits than it started with: asyncio's `BoundedSemaphore`.
///
/// [`Permit`]s are returned once by construction; the bound catches the manual
/// [`release`](Self::release) that has no acquisition to undo.
///
/// ```
/// use tulipa_sync::BoundedSemaphore;
///
/// let semaphore = BoundedSemaphore::new(1);
/// semaphore.try_acquire().unwrap().forget();
/// semaphore.release();
/// assert_eq!(semaphore.available_permits(), 1);
/// ```
pub struct BoundedSemaphore {
    permits: Permits,
}

impl BoundedSemaphore {
    /// A semaphore with `permits` free permits, and never more.
    ///
    /// # Panics
    ///
    /// When `permits` is above `usize::MAX / 8`.
    #[must_use = "a semaphore does nothing until it is used"]
    #[track_caller]
    pub const fn new(permits: usize) -> Self {
        assert!(permits <= MAX_PERMITS, "a semaphore starts with at most usize::MAX / 8 permits");
        Self { permits: Permits::new(permits, permits, Label::new()) }
    }

    /// Gives the semaphore a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named semaphore"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.permits.set_name(name);
        self
    }

    /// Waits for a permit. Dropping the permit returns it.
    ///
    /// # Cancel safety
    ///
    /// As for [`Semaphore::acquire`].
    #[inline]
    pub fn acquire(&self) -> SemaphoreAcquire<'_> {
        SemaphoreAcquire { acquire: self.permits.acquire(1) }
    }

    /// Waits for `count` permits, which are granted all at once.
    ///
    /// # Panics
    ///
    /// When `count` is above the bound: it could only wait for ever.
    ///
    /// # Cancel safety
    ///
    /// As for [`Semaphore::acquire`].
    #[inline]
    pub fn acquire_many(&self, count: usize) -> SemaphoreAcquire<'_> {
        assert!(count <= self.bound(), "a bounded semaphore never has more permits than its bound");
        SemaphoreAcquire { acquire: self.permits.acquire(count) }
    }

    /// Takes a permit if one is free and nobody waits.
    #[must_use = "the permit is returned when it is dropped"]
    #[inline]
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits if they are free and nobody waits.
    #[must_use = "the permits are returned when they are dropped"]
    #[inline]
    pub fn try_acquire_many(&self, count: usize) -> Option<Permit<'_>> {
        let hold = self.permits.try_acquire(count)?;
        Some(Permit { hold })
    }

    /// Returns one [forgotten](Permit::forget) permit.
    ///
    /// # Panics
    ///
    /// When all permits are there already: the program released more often than it acquired.
    #[track_caller]
    pub fn release(&self) {
        assert!(self.permits.free() < self.bound(), "BoundedSemaphore released too many times");
        self.permits.release(1);
    }

    /// Whether [`acquire`](Self::acquire) would have to wait: asyncio's `locked`.
    #[doc(alias = "locked")]
    #[must_use = "asking has no effect"]
    pub fn is_locked(&self) -> bool {
        self.permits.free() == 0 || self.permits.waiting() > 0
    }

    /// How many permits are free now.
    #[must_use = "asking has no effect"]
    pub fn available_permits(&self) -> usize {
        self.permits.free()
    }

    /// How many permits there are in all.
    #[must_use = "asking has no effect"]
    pub fn bound(&self) -> usize {
        self.permits.bound()
    }
}

impl Default for BoundedSemaphore {
    /// One permit, as in asyncio.
    #[track_caller]
    fn default() -> Self {
        Self::new(1)
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("name", &self.permits.name())
            .field("available_permits", &self.permits.free())
            .field("bound", &self.permits.bound())
            .field("waiting", &self.permits.waiting())
            .finish()
    }
}

/// Permits of a [`Semaphore`] or a [`BoundedSemaphore`]. Dropping returns them.
#[must_use = "the permit is returned when it is dropped"]
pub struct Permit<'a> {
    hold: Hold<'a>,
}

impl Permit<'_> {
    /// How many permits it stands for.
    #[must_use = "asking has no effect"]
    pub fn count(&self) -> usize {
        self.hold.count()
    }

    /// Takes the permits out of circulation. `release` brings them back.
    pub fn forget(self) {
        self.hold.forget();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("count", &self.hold.count())
            .field("semaphore", &self.hold.permits().name())
            .finish_non_exhaustive()
    }
}

/// A permit that keeps its [`Semaphore`] alive. Dropping returns it.
#[must_use = "the permit is returned when it is dropped"]
pub struct OwnedPermit {
    semaphore: Rc<Semaphore>,
}

impl OwnedPermit {
    /// The semaphore it came from.
    #[must_use = "asking has no effect"]
    pub fn semaphore(&self) -> &Rc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.semaphore.permits.release(1);
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedPermit").field("semaphore", &self.semaphore).finish()
    }
}

/// The future of [`Semaphore::acquire`] and its like.
#[must_use = "futures do nothing unless awaited"]
pub struct SemaphoreAcquire<'a> {
    acquire: Acquire<'a>,
}

impl<'a> Future for SemaphoreAcquire<'a> {
    type Output = Permit<'a>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.acquire.poll(cx, WaitKind::Semaphore).map(|hold| Permit { hold })
    }
}

impl fmt::Debug for SemaphoreAcquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreAcquire")
            .field("semaphore", &self.acquire.permits().name())
            .finish_non_exhaustive()
    }
}
