//! What can go wrong. Errors carry what the caller would otherwise lose.

use std::error::Error;
use std::fmt;

/// The barrier is broken: it was reset or aborted. asyncio's `BrokenBarrierError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBarrier;

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier is broken")
    }
}

impl Error for BrokenBarrier {}

/// The queue has nothing to take now. asyncio's `QueueEmpty`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEmpty;

impl fmt::Display for QueueEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is empty")
    }
}

impl Error for QueueEmpty {}

/// The queue has no room for the item, which is returned. asyncio's `QueueFull`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueFull<T>(pub T);

impl<T> fmt::Debug for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueFull(..)")
    }
}

impl<T> fmt::Display for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is full")
    }
}

impl<T> Error for QueueFull<T> {}

/// The queue was shut down: it takes no item, or will give none any more. asyncio's `QueueShutDown`.
///
/// From a `put`, it returns the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueShutDown<T = ()>(pub T);

impl<T> fmt::Debug for QueueShutDown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueShutDown(..)")
    }
}

impl<T> fmt::Display for QueueShutDown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was shut down")
    }
}

impl<T> Error for QueueShutDown<T> {}

/// Why `try_put` did not put. Either way it returns the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room now.
    Full(QueueFull<T>),
    /// There will be none: the queue was shut down.
    ShutDown(QueueShutDown<T>),
}

impl<T> TryPutError<T> {
    /// The item that was not put.
    #[must_use = "drops the item if it is not used"]
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(QueueFull(item)) | Self::ShutDown(QueueShutDown(item)) => item,
        }
    }
}

impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => fmt::Debug::fmt(error, f),
            Self::ShutDown(error) => fmt::Debug::fmt(error, f),
        }
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => fmt::Display::fmt(error, f),
            Self::ShutDown(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<T> Error for TryPutError<T> {}

impl<T> From<QueueFull<T>> for TryPutError<T> {
    fn from(error: QueueFull<T>) -> Self {
        Self::Full(error)
    }
}

impl<T> From<QueueShutDown<T>> for TryPutError<T> {
    fn from(error: QueueShutDown<T>) -> Self {
        Self::ShutDown(error)
    }
}

/// Why `try_get` got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryGetError {
    /// There is nothing to take now.
    Empty(QueueEmpty),
    /// There will be nothing: the queue was shut down and is drained.
    ShutDown(QueueShutDown),
}

impl fmt::Display for TryGetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(error) => fmt::Display::fmt(error, f),
            Self::ShutDown(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl Error for TryGetError {}

impl From<QueueEmpty> for TryGetError {
    fn from(error: QueueEmpty) -> Self {
        Self::Empty(error)
    }
}

impl From<QueueShutDown> for TryGetError {
    fn from(error: QueueShutDown) -> Self {
        Self::ShutDown(error)
    }
}

/// The other end of a [`oneshot`](crate::oneshot) was dropped before there was a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderDropped;

impl fmt::Display for SenderDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender was dropped without sending")
    }
}

impl Error for SenderDropped {}

/// The receiver is gone. Returns the value that could not be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReceiverDropped<T>(pub T);

impl<T> fmt::Debug for ReceiverDropped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiverDropped(..)")
    }
}

impl<T> fmt::Display for ReceiverDropped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver was dropped")
    }
}

impl<T> Error for ReceiverDropped<T> {}
