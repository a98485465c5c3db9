use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::permits::{Acquire, Hold, Owned, Permits};
use crate::wait::{Label, OwnerId, WaitKind};

/// Mutual exclusion between tasks of one thread: asyncio's `Lock`, with the value it protects inside.
///
/// Tasks get the lock in the order in which they asked for it. A released lock goes straight to
/// the first waiter, so neither a newcomer nor the task that released it can overtake; whoever
/// needs the lock only between two `.await`s needs no lock at all, but a
/// [`Cell`](std::cell::Cell) or a [`RefCell`].
///
/// A panic under the guard releases the lock and leaves the value as it is: there is no poisoning.
///
/// ```
/// use tulipa_sync::Lock;
///
/// futures_lite::future::block_on(async {
///     let account = Lock::new(100);
///     {
///         let mut balance = account.lock().await;
///         *balance -= 30;
///         assert!(account.is_locked());
///     }
///     assert_eq!(account.into_inner(), 70);
/// });
/// ```
pub struct Lock<T: ?Sized> {
    permits: Permits,
    value: RefCell<T>,
}

impl<T> Lock<T> {
    /// An unlocked lock around `value`.
    #[must_use = "a lock does nothing until it is used"]
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self { permits: Permits::new(1, 1, Label::new()), value: RefCell::new(value) }
    }

    /// Gives the lock a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named lock"]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.permits.set_name(name);
        self
    }

    /// The value, once nobody uses the lock any more.
    #[must_use = "drops the value if it is not used"]
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for its turn and takes the lock: asyncio's `acquire`.
    ///
    /// The guard releases the lock when it is dropped. There is no way to release a lock that is
    /// not held, which asyncio reports at run time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue. If the lock had already been handed to
    /// it, the lock goes to the next waiter.
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> LockAcquire<'_, T> {
        LockAcquire { acquire: self.permits.acquire(1), lock: self }
    }

    /// Takes the lock if it is free and nobody waits for it.
    ///
    /// ```
    /// let lock = tulipa_sync::Lock::new("tulip");
    /// let guard = lock.try_lock().unwrap();
    /// assert!(lock.try_lock().is_none());
    /// drop(guard);
    /// assert!(lock.try_lock().is_some());
    /// ```
    #[must_use = "the lock is released when the guard is dropped"]
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        let hold = self.permits.try_acquire(1)?;
        Some(self.guard(hold))
    }

    /// Whether it is held, or about to be: asyncio's `locked`.
    ///
    /// ```
    /// let lock = tulipa_sync::Lock::new(());
    /// assert!(!lock.is_locked());
    /// let _guard = lock.try_lock();
    /// assert!(lock.is_locked());
    /// ```
    #[doc(alias = "locked")]
    #[must_use = "asking has no effect"]
    pub fn is_locked(&self) -> bool {
        self.permits.free() == 0
    }

    /// The value. Nobody else can use it: the lock is borrowed mutably.
    ///
    /// ```
    /// let mut lock = tulipa_sync::Lock::new(1);
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    #[must_use = "a reference does nothing until it is used"]
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Who holds the lock, as the [`wait::Observer`](crate::wait::Observer) named it. `None` when
    /// it is free, or was taken with no observer set.
    #[must_use = "asking has no effect"]
    pub fn owner(&self) -> Option<OwnerId> {
        self.permits.owner()
    }

    #[inline]
    fn guard<'a>(&'a self, hold: Hold<'a>) -> LockGuard<'a, T> {
        let owned = hold.into_owned();
        LockGuard { value: self.value.borrow_mut(), lock: self, _owned: owned }
    }
}

impl<T: Default> Default for Lock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Lock<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("name", &self.permits.name())
            .field("locked", &self.is_locked())
            .field("waiting", &self.permits.waiting())
            .finish_non_exhaustive()
    }
}

/// The right to use what a [`Lock`] protects. Dropping it releases the lock.
///
/// The guard may be moved into another task and dropped there.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard<'a, T: ?Sized> {
    // The order is that of dropping: the value has to be free before its next owner is.
    value: RefMut<'a, T>,
    _owned: Owned<'a>,
    lock: &'a Lock<T>,
}

impl<'a, T: ?Sized> LockGuard<'a, T> {
    /// Releases the lock: asyncio's `release`. The same as dropping the guard.
    #[doc(alias = "release")]
    pub fn unlock(guard: Self) {
        drop(guard);
    }

    /// The lock it guards.
    #[must_use = "asking has no effect"]
    pub fn source(guard: &Self) -> &'a Lock<T> {
        guard.lock
    }
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// The future of [`Lock::lock`].
#[must_use = "futures do nothing unless awaited"]
pub struct LockAcquire<'a, T: ?Sized> {
    acquire: Acquire<'a>,
    lock: &'a Lock<T>,
}

impl<'a, T: ?Sized> Future for LockAcquire<'a, T> {
    type Output = LockGuard<'a, T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.lock;
        self.acquire.poll(cx, WaitKind::Lock).map(|hold| lock.guard(hold))
    }
}

impl<T: ?Sized> fmt::Debug for LockAcquire<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockAcquire").field("lock", &self.lock).finish_non_exhaustive()
    }
}
