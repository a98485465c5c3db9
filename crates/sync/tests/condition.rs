//! `Condition`: notifications reach somebody who looks.

mod common;

use common::Task;
use std::cell::Cell;
use tulipa_sync::{Condition, Lock, LockGuard};

fn wait<'a>(condition: &'a Condition, lock: &'a Lock<u32>) -> Task<'a, LockGuard<'a, u32>> {
    Task::waiting(condition.wait(lock.try_lock().unwrap()))
}

#[test]
fn waiting_releases_the_lock_and_returns_with_it() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let mut waiter = wait(&condition, &lock);
    assert!(!lock.is_locked());
    *lock.try_lock().unwrap() = 3;
    condition.notify(1);
    let guard = waiter.expect();
    assert_eq!(*guard, 3);
    assert!(lock.is_locked());
}

#[test]
fn a_wait_that_is_not_polled_keeps_the_lock() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let waiter = condition.wait(lock.try_lock().unwrap());
    assert!(lock.is_locked());
    drop(waiter);
    assert!(!lock.is_locked());
}

#[test]
fn notify_wakes_that_many_first_come_first_served() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let mut waiters: Vec<_> = (0..4).map(|_| wait(&condition, &lock)).collect();
    condition.notify(0);
    condition.notify(2);
    let woken: Vec<_> = waiters.iter().map(Task::is_woken).collect();
    assert_eq!(woken, [true, true, false, false]);
    drop(waiters[0].expect());
    drop(waiters[1].expect());
    condition.notify(9);
    drop(waiters[2].expect());
    drop(waiters[3].expect());
}

#[test]
fn notify_without_waiters_is_not_remembered() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    condition.notify(1);
    condition.notify_all();
    assert!(!wait(&condition, &lock).is_woken());
}

#[test]
fn notify_all_wakes_all_and_they_take_turns() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let mut waiters: Vec<_> = (0..3).map(|_| wait(&condition, &lock)).collect();
    condition.notify_all();
    let first = waiters[0].expect();
    assert!(waiters[1].poll().is_pending() && waiters[2].poll().is_pending());
    drop(first);
    drop(waiters[1].expect());
    drop(waiters[2].expect());
}

#[test]
fn a_notified_waiter_queues_for_the_lock_like_everybody() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let mut waiter = wait(&condition, &lock);
    let guard = lock.try_lock().unwrap();
    let mut rival = Task::waiting(lock.lock());
    condition.notify(1);
    assert!(waiter.poll().is_pending());
    drop(guard);
    assert!(waiter.poll().is_pending());
    drop(rival.expect());
    drop(waiter.expect());
}

#[test]
fn wait_for_looks_before_it_waits_and_after_each_notification() {
    let (lock, condition) = (Lock::new(2), Condition::new());
    let looks = Cell::new(0);
    let guard = lock.try_lock().unwrap();
    let mut waiter = Task::new(condition.wait_for(guard, |value| {
        looks.set(looks.get() + 1);
        *value == 0
    }));
    for left in [1, 0] {
        assert!(waiter.poll().is_pending());
        *lock.try_lock().unwrap() = left;
        condition.notify(1);
    }
    assert_eq!(*waiter.expect(), 0);
    assert_eq!(looks.get(), 3);
}

#[test]
fn wait_while_is_wait_for_the_opposite() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let guard = lock.try_lock().unwrap();
    drop(Task::new(condition.wait_while(guard, |value| *value != 0)).expect());
}

#[test]
fn a_predicate_that_panics_releases_the_lock() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let guard = lock.try_lock().unwrap();
    let mut waiter = Task::new(condition.wait_for(guard, |_| panic!("predicate")));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waiter.poll()));
    assert!(polled.is_err());
    drop(waiter);
    assert!(!lock.is_locked());
}

#[test]
fn several_conditions_share_a_lock() {
    let lock = Lock::new(0);
    let (full, empty) = (Condition::new(), Condition::new());
    let (one, other) = (wait(&full, &lock), wait(&empty, &lock));
    empty.notify_all();
    assert!(!one.is_woken() && other.is_woken());
}
