//! `Lock`: who gets it, and when.

mod common;

use common::Task;
use futures_lite::future::block_on;
use tulipa_sync::{Lock, LockGuard};

#[test]
fn a_free_lock_is_taken_without_waiting() {
    let lock = Lock::new(1);
    assert!(!lock.is_locked());
    let guard = Task::new(lock.lock()).expect();
    assert_eq!(*guard, 1);
    assert!(lock.is_locked());
    drop(guard);
    assert!(!lock.is_locked());
}

#[test]
fn waiters_get_the_lock_in_the_order_in_which_they_asked() {
    let lock = Lock::new(());
    let guard = lock.try_lock().unwrap();
    let mut waiters: Vec<_> = (0..4).map(|_| Task::waiting(lock.lock())).collect();
    let mut held = guard;
    for next in 0..4 {
        LockGuard::unlock(held);
        assert!(waiters[next].is_woken());
        assert!(waiters[next + 1..].iter().all(|waiter| !waiter.is_woken()));
        held = waiters[next].expect();
    }
}

#[test]
fn a_released_lock_goes_to_the_waiter_and_not_to_a_newcomer() {
    let lock = Lock::new(());
    let guard = lock.try_lock().unwrap();
    let mut waiter = Task::waiting(lock.lock());
    drop(guard);
    assert!(lock.is_locked(), "it is handed over, not free");
    assert!(lock.try_lock().is_none());
    let mut newcomer = Task::waiting(lock.lock());
    drop(waiter.expect());
    drop(newcomer.expect());
    assert!(!lock.is_locked());
}

#[test]
fn the_guard_may_be_released_by_another_task() {
    let lock = Lock::new(0);
    let guard = lock.try_lock().unwrap();
    let mut waiter = Task::waiting(lock.lock());
    block_on(async move { LockGuard::unlock(guard) });
    assert!(waiter.poll().is_ready());
}

#[test]
fn the_lock_is_released_when_the_holder_fails_or_is_cancelled() {
    let lock = Lock::new(0);
    let failed: Result<(), &str> = block_on(async {
        let _guard = lock.lock().await;
        Err("failed")
    });
    assert!(failed.is_err() && !lock.is_locked());

    let mut holder = Task::waiting(async {
        let _guard = lock.lock().await;
        std::future::pending::<()>().await;
    });
    assert!(lock.is_locked());
    holder.cancel();
    assert!(!lock.is_locked());
}

#[test]
fn a_panic_under_the_guard_releases_the_lock_and_keeps_the_value() {
    let lock = Lock::new(0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = lock.try_lock().unwrap();
        *guard = 5;
        panic!("under the guard");
    }));
    assert!(panicked.is_err());
    assert_eq!(*lock.try_lock().unwrap(), 5);
}

#[test]
fn a_waiter_that_is_polled_with_another_waker_is_woken_through_that_one() {
    let lock = Lock::new(());
    let guard = lock.try_lock().unwrap();
    let mut waiter = Task::waiting(lock.lock());
    let wakes = std::sync::Arc::new(common::Wakes::default());
    assert!(waiter.poll_with(&wakes.clone().into()).is_pending());
    drop(guard);
    assert!(!waiter.is_woken(), "the waker of the first poll is out of use");
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_guard_gives_access_to_an_unsized_value() {
    let lock: Box<Lock<[u8]>> = Box::new(Lock::new([1, 2, 3]));
    assert_eq!(lock.try_lock().unwrap().len(), 3);
}

#[test]
fn debug_says_what_is_held_and_not_what_is_in_it() {
    struct Opaque;
    let lock = Lock::new(Opaque).named("db");
    let guard = lock.try_lock().unwrap();
    let _waiter = Task::waiting(lock.lock());
    let shown = format!("{lock:?} {guard:?} {:?}", lock.lock());
    assert!(shown.starts_with(r#"Lock { name: Some("db"), locked: true, waiting: 1, .. }"#));
    assert_eq!(LockGuard::source(&guard) as *const _, &raw const lock);
}
