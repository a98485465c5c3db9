//! What tasks allocate: one block each, and nothing for a step.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle, sleep, spawn, yield_now};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; counting touches a `Cell` without a
// destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size());
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

/// How often the future allocates, a run before having made room in the loop's tables.
fn allocations<F: Future<Output = ()>>(future: impl Fn() -> F) -> usize {
    let event_loop = EventLoop::new().unwrap();
    let counted = event_loop.run_until_complete(async {
        future().await;
        let before = ALLOCATIONS.get();
        future().await;
        ALLOCATIONS.get() - before
    });
    counted.unwrap()
}

#[test]
fn a_task_is_one_allocation() {
    let count = allocations(|| async {
        for _ in 0..100 {
            spawn(async { 1 }).await.unwrap();
        }
    });
    assert_eq!(count, 100);
    let count = allocations(|| async {
        for _ in 0..100 {
            drop(spawn(yield_now()));
        }
        yield_now().await;
        yield_now().await;
        assert_eq!(LoopHandle::current().statistics().tasks, 0);
    });
    assert_eq!(count, 100);
}

#[test]
fn a_step_and_a_wake_allocate_nothing() {
    let yields = || async {
        for _ in 0..100 {
            yield_now().await;
        }
    };
    let count = allocations(|| async {
        let tasks = [spawn(yields()), spawn(yields()), spawn(yields())];
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(count, 3);
}

/// One side of a ping-pong: waits until it is its turn, and wakes the other.
async fn side(mine: usize, turn: Rc<Cell<usize>>, wakers: Rc<[Cell<Option<Waker>>; 2]>) {
    for _ in 0..100 {
        poll_fn(|context| {
            if turn.get() == mine {
                return Poll::Ready(());
            }
            wakers[mine].set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        turn.set(1 - mine);
        if let Some(waker) = wakers[1 - mine].take() {
            waker.wake();
        }
    }
}

#[test]
fn a_ping_pong_between_tasks_allocates_the_tasks_only() {
    let count = allocations(|| async {
        let (turn, wakers) =
            (Rc::new(Cell::new(0)), Rc::new(<[Cell<Option<Waker>>; 2]>::default()));
        let one = spawn(side(0, turn.clone(), wakers.clone()));
        let two = spawn(side(1, turn, wakers));
        one.await.unwrap();
        two.await.unwrap();
    });
    assert_eq!(count, 4);
}

#[test]
fn a_sleep_allocates_nothing() {
    let count = allocations(|| async {
        for _ in 0..100 {
            sleep(Duration::from_nanos(1)).await;
        }
    });
    assert_eq!(count, 0);
}

/// What a parked task holds beside its future: its allocation, counted here, and an entry of 80 bytes
/// in the loop's table.
#[test]
fn a_parked_task_is_small() {
    let event_loop = EventLoop::new().unwrap();
    let park =
        |count| (0..count).for_each(|_| drop(event_loop.spawn(std::future::pending::<()>())));
    // The tables double: after these they have room for some more.
    park(1030);
    event_loop.run_once(Duration::ZERO).unwrap();
    let (allocations, bytes) = (ALLOCATIONS.get(), BYTES.get());
    park(10);
    assert_eq!(ALLOCATIONS.get() - allocations, 10);
    let each = (BYTES.get() - bytes) / 10;
    assert!(each <= 72, "a task's own allocation has {each} bytes");
}
