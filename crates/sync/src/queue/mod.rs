//! Queues between tasks: one type, three orders.

mod future;
mod order;
mod state;

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

pub use future::{QueueGet, QueueJoin, QueuePut};
pub use order::{Fifo, Lifo, Order, Smallest};

use crate::error::{QueueEmpty, QueueFull, QueueShutDown, TryGetError, TryPutError};
use crate::wait::Label;
use crate::wait_list::wake_due;
use state::{Due, NoPut, Nothing, Phase, State, Take};

/// A queue between tasks, first in, first out: asyncio's `Queue`.
///
/// ```
/// use futures_lite::future::{block_on, zip};
/// use tulipa_sync::{Queue, QueueShutDown};
///
/// let queue = Queue::bounded(2);
/// let producer = async {
///     for number in 0..5 {
///         queue.put(number).await.unwrap();
///     }
///     queue.shutdown(false);
/// };
/// let consumer = async {
///     let mut sum = 0;
///     while let Ok(number) = queue.get().await {
///         sum += number;
///     }
///     sum
/// };
/// assert_eq!(block_on(zip(producer, consumer)).1, 10);
/// ```
pub type Queue<T> = BaseQueue<Fifo<T>>;

/// A queue that gives back the most recent item first: asyncio's `LifoQueue`.
///
/// ```
/// let queue = tulipa_sync::LifoQueue::unbounded();
/// queue.try_put(1).unwrap();
/// queue.try_put(2).unwrap();
/// assert_eq!(queue.try_get(), Ok(2));
/// ```
pub type LifoQueue<T> = BaseQueue<Lifo<T>>;

/// A queue that gives back the smallest item first, and equal ones in the order in which they came:
/// asyncio's `PriorityQueue`.
///
/// Use [`Reverse`](std::cmp::Reverse) for the largest first.
///
/// Putting never compares: it takes constant time, and the next `get` sorts in what came since the
/// last one, `k` items among `n` in `O(k log n)`. `Ord` implementations are the
/// program's own code, so they run with nothing borrowed and may use the queue: what they put is
/// sorted in afterwards, and to them there is nothing to get. If a comparison panics, the `get`
/// that made it panics and every item stays in the queue.
///
/// ```
/// let jobs = tulipa_sync::PriorityQueue::unbounded();
/// for job in [(2, "water"), (1, "dig"), (2, "cut")] {
///     jobs.try_put(job).unwrap();
/// }
/// assert_eq!(jobs.try_get(), Ok((1, "dig")));
/// ```
pub type PriorityQueue<T> = BaseQueue<Smallest<T>>;

/// What [`Queue`], [`LifoQueue`] and [`PriorityQueue`] are; use it by those names.
///
/// Getters and putters are served in the order in which they began to wait. An item is granted to
/// a waiting getter before that is woken, so nobody can snatch it: `try_get` may report an empty
/// queue while [`qsize`](Self::qsize) still counts an item that somebody else was promised.
/// The same holds for free slots.
///
/// Dropping a queue drops its items.
pub struct BaseQueue<O: Order> {
    state: RefCell<State<O>>,
    label: Label,
}

impl<O: Order> BaseQueue<O> {
    /// A queue that holds at most `maxsize` items.
    ///
    /// asyncio takes zero for "no limit"; that is [`unbounded`](Self::unbounded) here.
    ///
    /// # Panics
    ///
    /// When `maxsize` is zero.
    #[must_use = "a queue does nothing until it is used"]
    #[track_caller]
    pub fn bounded(maxsize: usize) -> Self {
        assert!(maxsize > 0, "a bounded queue has room for at least one item");
        Self { state: RefCell::new(State::new(maxsize)), label: Label::new() }
    }

    /// A queue that holds any number of items. Nothing slows its producers down, so something else
    /// has to bound what they put.
    #[must_use = "a queue does nothing until it is used"]
    #[track_caller]
    pub fn unbounded() -> Self {
        Self { state: RefCell::new(State::new(usize::MAX)), label: Label::new() }
    }

    /// Gives the queue a name, for a [`wait::Observer`](crate::wait::Observer) and for `Debug`.
    #[must_use = "returns the named queue"]
    pub fn named(mut self, name: &'static str) -> Self {
        self.label = self.label.named(name);
        self
    }

    /// Puts an item, and waits for room first while the queue is full.
    ///
    /// # Errors
    ///
    /// [`QueueShutDown`], with the item, when the queue was shut down before the item was put.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the item was not put, and is dropped with it; a
    /// slot it had been granted goes to the next putter. To keep the item, wait for room and put in
    /// two steps, or use [`try_put`](Self::try_put).
    pub fn put(&self, item: O::Item) -> QueuePut<'_, O> {
        QueuePut::new(self, item)
    }

    /// Takes an item, and waits for one first while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`QueueShutDown`] when the queue was shut down and has nothing left.
    ///
    /// # Panics
    ///
    /// When comparing the items of a [`PriorityQueue`] panics. No item is lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, it has taken nothing; an item it had been
    /// granted goes to the next getter, or stays in the queue where it was.
    pub fn get(&self) -> QueueGet<'_, O> {
        QueueGet::new(self)
    }

    /// Takes an item as [`get`](Self::get) does, and counts it as done when the returned guard is
    /// dropped, also by a panic or a cancellation.
    ///
    /// ```
    /// use tulipa_sync::Queue;
    ///
    /// futures_lite::future::block_on(async {
    ///     let queue = Queue::unbounded();
    ///     queue.put("tulip").await.unwrap();
    ///     {
    ///         let item = queue.get_item().await.unwrap();
    ///         assert_eq!(*item, "tulip");
    ///         assert_eq!(queue.unfinished(), 1);
    ///     }
    ///     queue.join().await;
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As for [`get`](Self::get).
    pub async fn get_item(&self) -> Result<Item<'_, O>, QueueShutDown> {
        let value = self.get().await?;
        Ok(Item { value, done: Done { queue: self } })
    }

    /// Puts an item if there is room: asyncio's `put_nowait`.
    ///
    /// ```
    /// use tulipa_sync::{Queue, QueueFull, TryPutError};
    ///
    /// let queue = Queue::bounded(1);
    /// assert_eq!(queue.try_put(1), Ok(()));
    /// assert_eq!(queue.try_put(2), Err(TryPutError::Full(QueueFull(2))));
    /// ```
    ///
    /// # Errors
    ///
    /// [`TryPutError`], with the item, when the queue is full or was shut down.
    #[doc(alias = "put_nowait")]
    #[inline]
    pub fn try_put(&self, item: O::Item) -> Result<(), TryPutError<O::Item>> {
        let mut item = Some(item);
        let put = self.state.borrow_mut().put(&mut item);
        match (put, item) {
            (Err(NoPut::Full), Some(item)) => Err(QueueFull(item).into()),
            (Err(NoPut::ShutDown), Some(item)) => Err(QueueShutDown(item).into()),
            (Ok(due), _) => {
                self.wake(due);
                Ok(())
            }
            (Err(_), None) => unreachable!("an item that is not put stays where it is"),
        }
    }

    /// Takes an item if there is one: asyncio's `get_nowait`.
    ///
    /// # Errors
    ///
    /// [`TryGetError`] when there is no item, now or for good.
    ///
    /// # Panics
    ///
    /// When comparing the items of a [`PriorityQueue`] panics. No item is lost.
    #[doc(alias = "get_nowait")]
    #[inline]
    pub fn try_get(&self) -> Result<O::Item, TryGetError> {
        self.take().map_err(|nothing| match nothing {
            Nothing::Yet => QueueEmpty.into(),
            Nothing::AnyMore => QueueShutDown(()).into(),
        })
    }

    /// Says that the work on one item that was taken is finished; [`join`](Self::join) waits for
    /// that. [`get_item`](Self::get_item) does it by itself.
    ///
    /// # Panics
    ///
    /// When it is called more often than items were put.
    #[track_caller]
    pub fn task_done(&self) {
        let due = self.state.borrow_mut().task_done();
        self.wake(due.expect("task_done() called too many times"));
    }

    /// Waits until every item that was put is done. Ready at once if none is unfinished.
    ///
    /// ```
    /// use futures_lite::future::{block_on, zip};
    ///
    /// let queue = tulipa_sync::Queue::unbounded();
    /// queue.try_put(1).unwrap();
    /// block_on(zip(queue.join(), async {
    ///     queue.get().await.unwrap();
    ///     queue.task_done();
    /// }));
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops waiting.
    pub fn join(&self) -> QueueJoin<'_, O> {
        QueueJoin::new(self)
    }

    /// Ends the queue, as asyncio does since Python 3.13. Nothing can be put from now on; getters
    /// get what is left, or with `immediate` nothing more. Those who wait in vain are told so.
    ///
    /// With `immediate`, the items are dropped and count as done. It may follow a shutdown that was
    /// not immediate.
    ///
    /// ```
    /// use tulipa_sync::{Queue, QueueShutDown, TryGetError};
    ///
    /// let queue = Queue::unbounded();
    /// queue.try_put(1).unwrap();
    /// queue.shutdown(false);
    /// assert_eq!(queue.try_get(), Ok(1));
    /// assert_eq!(queue.try_get(), Err(TryGetError::ShutDown(QueueShutDown(()))));
    /// ```
    ///
    /// # Order
    ///
    /// Getters are woken first, then putters, then joiners, each in the order in which they began
    /// to wait. The items are dropped after that.
    pub fn shutdown(&self, immediate: bool) {
        let (_dropped, due) = self.state.borrow_mut().shut_down(immediate);
        self.wake(due);
    }

    /// Whether [`shutdown`](Self::shutdown) was called.
    #[must_use = "asking has no effect"]
    pub fn is_shut_down(&self) -> bool {
        self.state.borrow().phase != Phase::Open
    }

    /// How many items are in the queue.
    #[doc(alias = "len")]
    #[must_use = "asking has no effect"]
    pub fn qsize(&self) -> usize {
        self.state.borrow().len
    }

    /// Whether there are no items in the queue: asyncio's `empty`.
    #[doc(alias = "empty")]
    #[must_use = "asking has no effect"]
    pub fn is_empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there are as many items as fit: asyncio's `full`. Never true without a limit.
    #[doc(alias = "full")]
    #[must_use = "asking has no effect"]
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.len == state.capacity
    }

    /// How many items fit. `None` without a limit, where asyncio says zero.
    #[must_use = "asking has no effect"]
    pub fn maxsize(&self) -> Option<usize> {
        let capacity = self.state.borrow().capacity;
        (capacity != usize::MAX).then_some(capacity)
    }

    /// How many items were put and are not done yet.
    #[must_use = "asking has no effect"]
    pub fn unfinished(&self) -> usize {
        self.state.borrow().unfinished
    }

    #[inline]
    fn take(&self) -> Result<O::Item, Nothing> {
        let take = self.state.borrow_mut().take();
        self.finish(take?)
    }

    #[inline]
    fn finish(&self, take: Take<O>) -> Result<O::Item, Nothing> {
        match take {
            Take::Item(item, due) => {
                self.wake(due);
                Ok(item)
            }
            Take::Prepare(store) => self.prepare(store),
        }
    }

    /// Has a store find its next item, which may call the program's code, and brings it back.
    fn prepare(&self, store: O) -> Result<O::Item, Nothing> {
        let mut out = CheckedOut { queue: self, store, took: None };
        out.store.prepare();
        out.took = out.store.pop();
        out.check_in().ok_or(Nothing::AnyMore)
    }

    #[inline]
    fn wake(&self, due: Due) {
        if due != Due::NOBODY {
            self.wake_some(due);
        }
    }

    fn wake_some(&self, due: Due) {
        if due.includes(Due::GETTERS) {
            wake_due(&self.state, State::getters_mut);
        }
        if due.includes(Due::PUTTERS) {
            wake_due(&self.state, State::putters_mut);
        }
        if due.includes(Due::JOINERS) {
            wake_due(&self.state, State::joiners_mut);
        }
    }
}

impl<O: Order> Default for BaseQueue<O> {
    /// Without a limit, as in asyncio.
    #[track_caller]
    fn default() -> Self {
        Self::unbounded()
    }
}

impl<O: Order> fmt::Debug for BaseQueue<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read out first: a formatter writes to whatever the program made it of.
        let state = self.state.borrow();
        let (phase, getters, putters) = (state.phase, state.getters.len(), state.putters.len());
        drop(state);
        f.debug_struct("Queue")
            .field("name", &self.label.name())
            .field("qsize", &self.qsize())
            .field("maxsize", &self.maxsize())
            .field("unfinished", &self.unfinished())
            .field("phase", &phase)
            .field("getters", &getters)
            .field("putters", &putters)
            .finish_non_exhaustive()
    }
}

/// A store on its way through the program's own comparisons. It returns to the queue in any case.
struct CheckedOut<'a, O: Order> {
    queue: &'a BaseQueue<O>,
    store: O,
    took: Option<O::Item>,
}

impl<O: Order> CheckedOut<'_, O> {
    /// Returns the item that was taken, unless the queue was closed meanwhile.
    fn check_in(mut self) -> Option<O::Item> {
        let took = self.took.take();
        let closed = self.bring_back(took.is_some());
        std::mem::forget(self);
        if closed { None } else { took }
    }

    /// Returns whether the queue was closed meanwhile.
    fn bring_back(&mut self, took: bool) -> bool {
        let store = std::mem::take(&mut self.store);
        let (dropped, due) = self.queue.state.borrow_mut().check_in(store, took);
        self.queue.wake(due);
        dropped.is_some()
    }
}

impl<O: Order> Drop for CheckedOut<'_, O> {
    fn drop(&mut self) {
        // Only a panic in a comparison leads here: nothing was taken.
        self.bring_back(false);
    }
}

/// An item of a queue that counts as done when this is dropped.
#[must_use = "the item counts as done when it is dropped"]
pub struct Item<'a, O: Order> {
    // The order is that of dropping: what the item's destructor does belongs to the work.
    value: O::Item,
    done: Done<'a, O>,
}

impl<O: Order> Item<'_, O> {
    /// The item alone. It still has to be counted as done, with
    /// [`task_done`](BaseQueue::task_done).
    pub fn into_inner(item: Self) -> O::Item {
        std::mem::forget(item.done);
        item.value
    }
}

impl<O: Order> Deref for Item<'_, O> {
    type Target = O::Item;

    fn deref(&self) -> &O::Item {
        &self.value
    }
}

impl<O: Order> DerefMut for Item<'_, O> {
    fn deref_mut(&mut self) -> &mut O::Item {
        &mut self.value
    }
}

impl<O: Order> fmt::Debug for Item<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("queue", &self.done.queue).finish_non_exhaustive()
    }
}

struct Done<'a, O: Order> {
    queue: &'a BaseQueue<O>,
}

impl<O: Order> Drop for Done<'_, O> {
    fn drop(&mut self) {
        // Not `task_done`: a program that calls that as well must not panic in a destructor.
        let due = self.queue.state.borrow_mut().task_done();
        if let Some(due) = due {
            self.queue.wake(due);
        }
    }
}
