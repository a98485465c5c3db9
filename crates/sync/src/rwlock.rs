use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::permits::{ALL, Acquire, Hold, Owned, Permits};
use crate::wait::{Label, OwnerId, WaitKind};

/// Many readers or one writer. asyncio has none.
///
/// # Preference
///
/// First come, first served: a reader that arrives while a writer waits queues behind that writer,
/// and readers that stand together in the queue are let in together. Neither side can starve the
/// other. It follows that a task which holds a read guard and asks for a second one can wait for a
/// writer that waits for it; take one guard and pass it on, or use
/// [`try_read`](Self::try_read).
///
/// A panic under a guard releases it and leaves the value as it is: there is no poisoning.
///
/// ```
/// use tulipa_sync::RwLock;
///
/// futures_lite::future::block_on(async {
///     let routes = RwLock::new(vec!["/"]);
///     {
///         let one = routes.read().await;
///         let other = routes.read().await;
///         assert_eq!(one.len() + other.len(), 2);
///     }
///     routes.write().await.push("/tulips");
///     assert_eq!(routes.read().await.len(), 2);
/// });
/// ```
pub struct RwLock<T: ?Sized> {
    permits: Permits,
    value: RefCell<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    #[must_use = "a lock does nothing until it is used"]
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self { permits: Permits::new(ALL, ALL, Label::new()), value: RefCell::new(value) }
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

impl<T: ?Sized> RwLock<T> {
    /// Waits for its turn to read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a grant that had already been made goes
    /// to the next in the queue.
    pub fn read(&self) -> RwLockRead<'_, T> {
        RwLockRead { acquire: self.permits.acquire(1), lock: self }
    }

    /// Waits for its turn to write.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; a grant that had already been made goes
    /// to the next in the queue. Readers that stood behind a dropped writer are let in.
    pub fn write(&self) -> RwLockWrite<'_, T> {
        RwLockWrite { acquire: self.permits.acquire(ALL), lock: self }
    }

    /// Reads at once, if no writer holds the lock and nobody waits for it.
    ///
    /// ```
    /// let lock = tulipa_sync::RwLock::new(1);
    /// let reader = lock.try_read().unwrap();
    /// assert!(lock.try_read().is_some());
    /// assert!(lock.try_write().is_none());
    /// assert_eq!(*reader, 1);
    /// ```
    #[must_use = "the lock is released when the guard is dropped"]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let hold = self.permits.try_acquire(1)?;
        Some(self.read_guard(hold))
    }

    /// Writes at once, if nobody holds the lock and nobody waits for it.
    ///
    /// ```
    /// let lock = tulipa_sync::RwLock::new(1);
    /// *lock.try_write().unwrap() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    #[must_use = "the lock is released when the guard is dropped"]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let hold = self.permits.try_acquire(ALL)?;
        Some(self.write_guard(hold))
    }

    /// Whether a writer holds the lock, or is about to.
    #[must_use = "asking has no effect"]
    pub fn is_write_locked(&self) -> bool {
        self.permits.free() == 0
    }

    /// Whether anybody holds the lock, or is about to.
    #[doc(alias = "locked")]
    #[must_use = "asking has no effect"]
    pub fn is_locked(&self) -> bool {
        self.permits.free() != ALL
    }

    /// The value. Nobody else can use it: the lock is borrowed mutably.
    #[must_use = "a reference does nothing until it is used"]
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The writer that holds the lock, as the [`wait::Observer`](crate::wait::Observer) named it.
    #[must_use = "asking has no effect"]
    pub fn owner(&self) -> Option<OwnerId> {
        self.permits.owner()
    }

    fn read_guard<'a>(&'a self, hold: Hold<'a>) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { value: self.value.borrow(), lock: self, _hold: hold }
    }

    fn write_guard<'a>(&'a self, hold: Hold<'a>) -> RwLockWriteGuard<'a, T> {
        let owned = hold.into_owned();
        RwLockWriteGuard { value: self.value.borrow_mut(), lock: self, owned }
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (readers, writer) = match self.permits.free() {
            0 => (0, true),
            free => (ALL - free, false),
        };
        f.debug_struct("RwLock")
            .field("name", &self.permits.name())
            .field("readers", &readers)
            .field("writer", &writer)
            .field("waiting", &self.permits.waiting())
            .finish_non_exhaustive()
    }
}

/// The right to read what an [`RwLock`] protects. Dropping it releases the lock.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // The order is that of dropping: the value has to be free before its next owner is.
    value: Ref<'a, T>,
    _hold: Hold<'a>,
    lock: &'a RwLock<T>,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// The right to change what an [`RwLock`] protects. Dropping it releases the lock.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // The order is that of dropping: the value has to be free before its next owner is.
    value: RefMut<'a, T>,
    owned: Owned<'a>,
    lock: &'a RwLock<T>,
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Goes on as a reader, with no other writer in between, and lets in the readers that wait
    /// first in the queue.
    ///
    /// ```
    /// use tulipa_sync::{RwLock, RwLockWriteGuard};
    ///
    /// let lock = RwLock::new(1);
    /// let mut writer = lock.try_write().unwrap();
    /// *writer = 2;
    /// let reader = RwLockWriteGuard::downgrade(writer);
    /// assert_eq!(*reader + *lock.try_read().unwrap(), 4);
    /// ```
    pub fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        let Self { value, owned, lock } = guard;
        drop(value);
        // Before the others are let in: they might wake, and panic.
        let value = lock.value.borrow();
        RwLockReadGuard { value, _hold: owned.downgrade(), lock }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// The future of [`RwLock::read`].
#[must_use = "futures do nothing unless awaited"]
pub struct RwLockRead<'a, T: ?Sized> {
    acquire: Acquire<'a>,
    lock: &'a RwLock<T>,
}

impl<'a, T: ?Sized> Future for RwLockRead<'a, T> {
    type Output = RwLockReadGuard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.lock;
        self.acquire.poll(cx, WaitKind::Read).map(|hold| lock.read_guard(hold))
    }
}

impl<T: ?Sized> fmt::Debug for RwLockRead<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockRead").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// The future of [`RwLock::write`].
#[must_use = "futures do nothing unless awaited"]
pub struct RwLockWrite<'a, T: ?Sized> {
    acquire: Acquire<'a>,
    lock: &'a RwLock<T>,
}

impl<'a, T: ?Sized> Future for RwLockWrite<'a, T> {
    type Output = RwLockWriteGuard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.lock;
        self.acquire.poll(cx, WaitKind::Write).map(|hold| lock.write_guard(hold))
    }
}

impl<T: ?Sized> fmt::Debug for RwLockWrite<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWrite").field("lock", &self.lock).finish_non_exhaustive()
    }
}
