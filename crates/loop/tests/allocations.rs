//! What allocates, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tulipa_loop::LoopHandle;
use tulipa_selector::Timeout;
use tulipa_testing::VirtualLoop;

/// Counts the allocations and the bytes in use of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    let _ = ALLOCATIONS.try_with(|cell| cell.set(cell.get() + allocations));
    let _ = IN_USE.try_with(|cell| cell.set(cell.get() + bytes));
}

// SAFETY: everything is passed on to `System`; counting touches thread-local cells that need neither
// allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `f` makes on this thread.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

fn turn(virtual_loop: &VirtualLoop) {
    virtual_loop.run_once(Timeout::Immediate).unwrap();
}

fn again(handle: &LoopHandle) {
    handle.call_soon(again);
}

#[test]
fn a_callback_that_captures_nothing_and_reschedules_itself_allocates_nothing() {
    let virtual_loop = VirtualLoop::new();
    again(&virtual_loop);
    (0..10).for_each(|_| turn(&virtual_loop));
    let made = allocations(|| (0..1000).for_each(|_| turn(&virtual_loop)));
    assert_eq!(made, 0);
}

#[test]
fn a_run_of_many_turns_allocates_nothing_for_each() {
    fn down(handle: &LoopHandle, left: u32) {
        thread_local! {
            static LEFT: Cell<u32> = const { Cell::new(0) };
        }
        fn step(handle: &LoopHandle) {
            match LEFT.get() {
                0 => handle.stop(),
                left => {
                    LEFT.set(left - 1);
                    handle.call_soon(step);
                }
            }
        }
        LEFT.set(left);
        handle.call_soon(step);
    }
    let virtual_loop = VirtualLoop::new();
    let run = |turns| {
        allocations(|| {
            down(&virtual_loop, turns);
            virtual_loop.run_forever().unwrap();
        })
    };
    run(10);
    assert_eq!(run(10), run(1000));
}

#[test]
fn call_soon_of_a_closure_with_captures_is_one_allocation() {
    let virtual_loop = VirtualLoop::new();
    let sum = Rc::new(Cell::new(0));
    let schedule = |count: u64| {
        for number in 0..count {
            let sum = sum.clone();
            drop(virtual_loop.call_soon(move |_| sum.set(sum.get() + number)));
        }
    };
    schedule(100);
    turn(&virtual_loop);
    assert_eq!(allocations(|| schedule(100)), 100);
    assert_eq!(allocations(|| turn(&virtual_loop)), 0);
}

#[test]
fn a_timer_that_is_set_and_cancelled_allocates_its_closure_and_no_more() {
    let virtual_loop = VirtualLoop::new();
    let number = Rc::new(Cell::new(0));
    let set_and_cancel = |count: u64| {
        for delay in 0..count {
            let number = number.clone();
            virtual_loop.call_later(Duration::from_secs(delay), move |_| number.set(1)).cancel();
            virtual_loop.call_later(Duration::from_secs(delay), |_| ()).cancel();
        }
    };
    set_and_cancel(10);
    assert_eq!(allocations(|| set_and_cancel(1000)), 1000);
}

#[test]
fn b46_a_million_cancelled_timers_leave_no_memory_behind() {
    let virtual_loop = VirtualLoop::new();
    let keep = virtual_loop.call_later(Duration::from_secs(1), |_| ());
    let before = IN_USE.get();
    for number in 0..1_000_000u64 {
        let payload = [number; 8];
        let delay = Duration::from_secs(payload[0] % 60);
        virtual_loop.call_later(delay, move |_| assert_eq!(payload.len(), 8)).cancel();
    }
    let left = IN_USE.get() - before;
    assert!(left < 4096, "{left} bytes are left");
    keep.cancel();
}

#[test]
fn timers_that_fire_allocate_nothing_in_the_loop() {
    fn tick(handle: &LoopHandle) {
        handle.call_later(Duration::from_millis(1), tick);
    }
    let virtual_loop = VirtualLoop::new();
    virtual_loop.world().set_autojump(true);
    tick(&virtual_loop);
    let run = |duration| {
        allocations(|| {
            virtual_loop.call_later(duration, |handle| handle.stop());
            virtual_loop.run_forever().unwrap();
        })
    };
    run(Duration::from_secs(1));
    assert_eq!(run(Duration::from_millis(10)), run(Duration::from_secs(1)));
    assert!(virtual_loop.statistics().timers_fired > 2000);
}

#[test]
fn waking_the_main_future_allocates_nothing() {
    let virtual_loop = VirtualLoop::new();
    let run = |polls: u32| {
        let mut left = polls;
        allocations(|| {
            virtual_loop
                .run_until_complete(poll_fn(|context| {
                    left -= 1;
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    context.waker().wake_by_ref();
                    Poll::Pending
                }))
                .unwrap();
        })
    };
    run(10);
    assert_eq!(run(10), run(1000));
}

#[test]
fn a_closed_loop_gives_everything_back() {
    let round = || {
        let virtual_loop = VirtualLoop::new();
        for number in 0..100 {
            let handle = virtual_loop.handle();
            virtual_loop.call_soon(move |_| drop(handle));
            let handle = virtual_loop.handle();
            virtual_loop.call_later(Duration::from_secs(number), move |_| drop(handle));
            let (promise, future) = virtual_loop.create_future::<u8>();
            future.add_done_callback(|_, _| ());
            virtual_loop.call_soon(move |_| drop(promise));
        }
        turn(&virtual_loop);
    };
    round();
    let before = IN_USE.get();
    round();
    let left = IN_USE.get() - before;
    assert!(left <= 0 || cfg!(debug_assertions) && left < 64, "{left} bytes are left");
}

#[test]
fn b46_a_million_pending_timers_and_callbacks_give_their_memory_back_once_cancelled() {
    let many: u64 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    let virtual_loop = VirtualLoop::new();
    turn(&virtual_loop);
    let before = IN_USE.get();
    let timers: Vec<_> =
        (0..many).map(|n| virtual_loop.call_later(Duration::from_secs(n), |_| ())).collect();
    timers.iter().for_each(|timer| timer.cancel());
    drop(timers);
    let callbacks: Vec<_> = (0..many).map(|_| virtual_loop.call_soon(|_| ())).collect();
    callbacks.iter().for_each(|callback| callback.cancel());
    drop(callbacks);
    turn(&virtual_loop);
    let kept = IN_USE.get() - before;
    assert!(kept < 4 << 20, "{kept} bytes are still in use");
}
