//! asyncio's locks and queues for the tasks of one thread, correct under cancellation, on any
//! executor.
//!
//! ```
//! use futures_lite::future::{block_on, zip};
//! use tulipa_sync::{Queue, Semaphore};
//!
//! let queue = Queue::bounded(8);
//! let limit = Semaphore::new(2);
//!
//! let producer = async {
//!     for bulb in ["Apeldoorn", "Ballerina", "Queen of Night"] {
//!         queue.put(bulb).await.unwrap();
//!     }
//!     queue.shutdown(false);
//! };
//! let consumer = async {
//!     let mut planted = 0;
//!     while let Ok(_bulb) = queue.get().await {
//!         let _permit = limit.acquire().await;
//!         planted += 1;
//!     }
//!     planted
//! };
//! assert_eq!(block_on(zip(producer, consumer)).1, 3);
//! ```
//!
//! # What it promises
//!
//! - **First in, first out, and no barging.** Who waits is served in the order in which it began
//!   to; what it is woken for is already its own.
//! - **Cancellation loses nothing.** Every future may be dropped at any point. A permit, item, slot
//!   or notification that it had been granted and not returned goes to the next.
//! - **No user code under a borrow.** Wakers, destructors and the `Ord` of queued items may use the
//!   primitive they are called from.
//! - **No allocation** on the uncontended path, nor for waiting once the program has warmed up. A
//!   waiter takes a slot of 32 to 48 bytes in a list that grows by doubling and is kept for the
//!   first 64. ([`oneshot`] allocates once, for what its two ends share.)
//! - **No `unsafe`, no atomics, no dependencies.**
//!
//! # Limits
//!
//! - One thread: the types are neither `Send` nor `Sync`. Between threads take `async-lock` for
//!   locks, semaphores and barriers, and `async-channel` for queues. With such neighbours only what
//!   never leaves the thread should be held in these.
//! - Wakers may be called from anywhere, so any executor will do, but a `Send` future cannot hold
//!   one of these across an `.await`.
//! - What need not wait does not yield: a task that always finds an item or a permit keeps its
//!   thread, as in asyncio.
//! - Forgetting a waiting future (`std::mem::forget`) leaves its place in the queue taken.
//! - Fewer than 2³² − 1 waiters at a time on one primitive.
//!
//! # Map
//!
//! | asyncio | here | for |
//! |---|---|---|
//! | `Lock` | [`Lock`] | one task at a time, with the value inside |
//! | none | [`RwLock`] | many readers or one writer, first come, first served |
//! | `Event` | [`Event`] | something has happened |
//! | `Condition` | [`Condition`] | what a lock protects has changed |
//! | `Semaphore`, `BoundedSemaphore` | [`Semaphore`], [`BoundedSemaphore`] | a limited number of tasks at once |
//! | `Barrier` | [`Barrier`] | all have arrived |
//! | `Queue`, `PriorityQueue`, `LifoQueue` | [`Queue`], [`PriorityQueue`], [`LifoQueue`] | items from task to task |
//! | a bare `Future` | [`oneshot`] | one value from task to task |
//! | none | [`wait`] | a loop that shows who waits for what |
//!
//! The named futures are in [`futures`]. What is acquired is released by a guard; `try_` forms stand
//! where asyncio has `_nowait`, and names that collide with Rust's habits got the Rust form
//! (`is_set`, `is_locked`, `is_empty`). All types are `Debug`, whatever they hold, and do not show
//! it.

#![forbid(unsafe_code)]

mod barrier;
mod condition;
mod error;
mod event;
mod lock;
mod permits;
mod queue;
mod rwlock;
mod semaphore;
mod wait_list;

pub mod oneshot;
pub mod wait;

pub use barrier::Barrier;
pub use condition::Condition;
pub use error::{
    BrokenBarrier, QueueEmpty, QueueFull, QueueShutDown, ReceiverDropped, SenderDropped,
    TryGetError, TryPutError,
};
pub use event::Event;
pub use lock::{Lock, LockGuard};
pub use queue::{BaseQueue, Fifo, Item, Lifo, LifoQueue, Order, PriorityQueue, Queue, Smallest};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, OwnedPermit, Permit, Semaphore};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The futures that the methods of this crate return, for structs that store them.
pub mod futures {
    pub use crate::barrier::BarrierWait;
    pub use crate::condition::ConditionWait;
    pub use crate::event::EventWait;
    pub use crate::lock::LockAcquire;
    pub use crate::oneshot::Closed as OneshotClosed;
    pub use crate::queue::{QueueGet, QueueJoin, QueuePut};
    pub use crate::rwlock::{RwLockRead, RwLockWrite};
    pub use crate::semaphore::SemaphoreAcquire;
}
