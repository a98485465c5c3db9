//! What allocates: nothing without contention, and nothing in a steady state.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use tulipa_sync::{
    Barrier, BoundedSemaphore, Condition, Event, LifoQueue, Lock, PriorityQueue, Queue, RwLock,
    Semaphore,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; counting touches a `Cell` without a
// destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<R>(f: impl FnOnce() -> R) -> usize {
    let before = ALLOCATIONS.get();
    drop(f());
    ALLOCATIONS.get() - before
}

fn ready<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the future should be ready"),
    }
}

/// Polls once and drops: one wait from its beginning to its cancellation.
fn wait<F: Future>(future: F) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut cx).is_pending());
}

#[test]
fn nothing_allocates_without_contention() {
    let count = allocations(|| {
        let lock = Lock::new(0);
        *ready(lock.lock()) += 1;
        drop(lock.try_lock());
        let rwlock = RwLock::new(0);
        drop(ready(rwlock.read()));
        drop(ready(rwlock.write()));
        let semaphore = Semaphore::new(3);
        drop(ready(semaphore.acquire_many(3)));
        semaphore.release();
        drop(ready(BoundedSemaphore::new(1).acquire()));
        let event = Event::new();
        event.set();
        ready(event.wait());
        let condition = Condition::new();
        condition.notify_all();
        drop(ready(condition.wait_for(ready(lock.lock()), |_| true)));
        ready(Barrier::new(1).wait()).unwrap();
        ready(Queue::<u8>::unbounded().join());
    });
    assert_eq!(count, 0);
}

#[test]
fn a_queue_allocates_only_for_the_room_it_has_not_had_before() {
    let (fifo, lifo, smallest) =
        (Queue::bounded(4), LifoQueue::unbounded(), PriorityQueue::unbounded());
    let turn = || {
        for item in 0..4 {
            ready(fifo.put(item)).unwrap();
            ready(lifo.put(item)).unwrap();
            ready(smallest.put(item)).unwrap();
        }
        for _ in 0..4 {
            ready(fifo.get()).unwrap();
            ready(lifo.get()).unwrap();
            ready(smallest.get()).unwrap();
        }
    };
    turn();
    assert_eq!(allocations(|| (0..100).for_each(|_| turn())), 0);
}

#[test]
fn waiting_allocates_nothing_in_a_steady_state() {
    let (lock, semaphore, event) = (Lock::new(0), Semaphore::new(0), Event::new());
    let (condition, barrier) = (Condition::new(), Barrier::new(2));
    let (full, empty) = (Queue::bounded(1), Queue::<u8>::unbounded());
    full.try_put(1).unwrap();
    let turn = || {
        wait(condition.wait(lock.try_lock().unwrap()));
        let held = lock.try_lock();
        wait(lock.lock());
        drop(held);
        wait(semaphore.acquire());
        wait(event.wait());
        wait(barrier.wait());
        wait(full.put(2));
        wait(full.join());
        wait(empty.get());
    };
    turn();
    assert_eq!(allocations(|| (0..100).for_each(|_| turn())), 0);
}

#[test]
fn a_crowd_of_waiters_costs_less_than_one_allocation_each_and_leaves_nothing_behind() {
    let semaphore = Semaphore::new(0);
    let count = if cfg!(miri) { 200 } else { 10_000 };
    let mut crowd: Vec<_> = (0..count).map(|_| semaphore.acquire()).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let growth = allocations(|| {
        for waiter in &mut crowd {
            assert!(pin!(waiter).poll(&mut cx).is_pending());
        }
    });
    assert!(growth <= 16, "doubling makes {growth} allocations");
    drop(crowd);
    let again = allocations(|| wait(semaphore.acquire()));
    assert_eq!(again, 1, "the list of the crowd was freed");
}
