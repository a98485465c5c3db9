//! One test, or a few, for each bug of other libraries that this one must not repeat. The numbers
//! are those of the project's catalogue.

mod common;

use common::{Executor, Task, many, yield_now};
use futures_lite::future;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use tulipa_sync::{Condition, Event, Lock, Queue, Semaphore};

/// Resolves like asyncio's `wait_for` whose timer fires in the turn in which the inner future
/// becomes ready: `first` is polled before `second`, both in one poll.
async fn race<T>(first: impl Future<Output = T>, second: impl Future<Output = T>) -> T {
    future::or(first, second).await
}

#[test]
fn b98_an_item_and_a_timeout_in_the_same_turn_lose_neither() {
    for item_first in [true, false] {
        let queue = Queue::unbounded();
        let timer = Event::new();
        let get = async { queue.get().await.ok() };
        let timeout = async {
            timer.wait().await;
            None
        };
        let raced: Pin<Box<dyn Future<Output = Option<i32>>>> =
            if item_first { Box::pin(race(get, timeout)) } else { Box::pin(race(timeout, get)) };
        let mut waiter = Task::waiting(raced);
        queue.try_put(1).unwrap();
        timer.set();
        let got = waiter.expect();
        assert_eq!(got, item_first.then_some(1));
        drop(waiter);
        assert_eq!(queue.try_get().ok(), (!item_first).then_some(1));
    }
}

#[test]
fn b99_a_get_that_times_out_loses_no_item() {
    let queue = Queue::unbounded();
    let mut timed_out = Task::waiting(queue.get());
    queue.try_put(1).unwrap();
    timed_out.cancel();
    assert_eq!(Task::new(queue.get()).expect(), Ok(1));
}

#[test]
fn b100_a_woken_getter_that_is_cancelled_wakes_the_next() {
    let queue = Queue::unbounded();
    let mut first = Task::waiting(queue.get());
    let mut second = Task::waiting(queue.get());
    queue.try_put(1).unwrap();
    assert!(first.is_woken() && !second.is_woken());
    first.cancel();
    assert!(second.is_woken());
    assert_eq!(second.expect(), Ok(1));
}

#[test]
fn b100_a_woken_putter_that_is_cancelled_wakes_the_next() {
    let queue = Queue::bounded(1);
    queue.try_put(0).unwrap();
    let mut first = Task::waiting(queue.put(1));
    let mut second = Task::waiting(queue.put(2));
    queue.try_get().unwrap();
    first.cancel();
    assert!(second.is_woken());
    assert_eq!(second.expect(), Ok(()));
}

#[test]
fn b101_a_granted_permit_that_is_not_consumed_goes_to_the_next() {
    let semaphore = Semaphore::new(0);
    let mut first = Task::waiting(semaphore.acquire());
    let mut second = Task::waiting(semaphore.acquire());
    semaphore.release();
    first.cancel();
    assert!(second.is_woken());
    second.expect().forget();
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
fn b101_nobody_overtakes_the_waiters() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire().unwrap();
    let mut waiter = Task::waiting(semaphore.acquire());
    drop(permit);
    assert!(semaphore.try_acquire().is_none());
    let mut barger = Task::waiting(semaphore.acquire());
    drop(waiter.expect());
    assert!(barger.poll().is_ready());
}

#[test]
fn b101_forgetting_a_permit_does_not_let_anybody_in() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire().unwrap();
    let mut waiter = Task::waiting(semaphore.acquire());
    permit.forget();
    assert!(waiter.poll().is_pending());
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
fn b102_a_notification_that_is_not_consumed_goes_to_the_next() {
    let (lock, condition) = (Lock::new(()), Condition::new());
    let mut first = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    let mut second = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    condition.notify(1);
    assert!(first.is_woken() && !second.is_woken());
    first.cancel();
    assert!(second.is_woken());
    drop(second.expect());
}

#[test]
fn b102_a_notification_is_passed_on_while_its_receiver_waits_for_the_lock() {
    let (lock, condition) = (Lock::new(()), Condition::new());
    let mut first = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    let mut second = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    let guard = lock.try_lock().unwrap();
    condition.notify(1);
    assert!(first.poll().is_pending(), "it waits for the lock now");
    first.cancel();
    assert!(second.is_woken());
    assert!(second.poll().is_pending());
    drop(guard);
    drop(second.expect());
    assert!(!lock.is_locked());
}

#[test]
fn b102_a_dropped_waiter_does_not_hold_the_lock() {
    let (lock, condition) = (Lock::new(()), Condition::new());
    let mut waiter = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    let guard = lock.try_lock().unwrap();
    condition.notify_all();
    assert!(waiter.poll().is_pending());
    drop(guard);
    waiter.cancel();
    assert!(!lock.is_locked(), "the lock it was handed is free again");
}

#[test]
fn b103_a_set_while_a_waiter_registers_is_not_missed() {
    let event = std::rc::Rc::new(Event::new());
    let mut waiter = Task::new(event.wait());
    // Cloning this waker, which is part of registering, sets and clears the event.
    let setter = event.clone();
    let waker = common::waker_that_acts_when_cloned(move || {
        setter.set();
        setter.clear();
    });
    assert!(waiter.poll_with(&waker).is_ready());
}

#[test]
fn b103_a_notification_while_the_lock_is_released_is_not_missed() {
    let lock = std::rc::Rc::new(Lock::new(()));
    let condition = std::rc::Rc::new(Condition::new());
    let mut rival;
    let mut waiter = Task::new(condition.wait(lock.try_lock().unwrap()));
    // The release of the lock wakes the rival, which notifies from within its waker.
    let notifier = condition.clone();
    rival = Task::new(lock.lock());
    let waker = common::acting_waker(move || notifier.notify(1));
    assert!(rival.poll_with(&waker).is_pending());
    assert!(waiter.poll().is_pending());
    assert!(waiter.is_woken());
    drop(rival.expect());
    drop(waiter.expect());
}

#[test]
fn b104_a_lock_future_dropped_at_any_point_blocks_nobody() {
    let lock = Lock::new(());
    let guard = lock.try_lock().unwrap();
    drop(lock.lock());
    let mut waiting = Task::waiting(lock.lock());
    let mut granted = Task::waiting(lock.lock());
    let mut last = Task::waiting(lock.lock());
    waiting.cancel();
    drop(guard);
    assert!(granted.is_woken());
    granted.cancel();
    assert!(last.is_woken());
    drop(last.expect());
    assert!(!lock.is_locked());
}

#[test]
fn b108_every_waiter_is_woken_once() {
    let count = many();
    let queue = Queue::unbounded();
    let getters: Vec<_> = (0..count).map(|_| Task::waiting(queue.get())).collect();
    (0..count).for_each(|item| queue.try_put(item).unwrap());
    assert!(getters.iter().all(|getter| getter.wakes() == 1));

    let semaphore = Semaphore::new(0);
    let waiters: Vec<_> = (0..count).map(|_| Task::waiting(semaphore.acquire())).collect();
    semaphore.add_permits(count);
    assert!(waiters.iter().all(|waiter| waiter.wakes() == 1));
}

#[test]
fn b108_notify_all_costs_each_waiter_a_bounded_number_of_polls() {
    let count = many();
    let (lock, condition) = (Lock::new(0), Condition::new());
    let mut executor = Executor::default();
    for _ in 0..count {
        executor.spawn(async {
            let guard = lock.lock().await;
            *condition.wait(guard).await += 1;
        });
    }
    executor.spawn(async {
        yield_now().await;
        condition.notify_all();
    });
    executor.run(None);
    assert_eq!(executor.finished.len(), count + 1);
    assert!(executor.steps <= 4 * (count + 1), "{} steps", executor.steps);
    drop(executor);
    assert_eq!(lock.into_inner(), count);
}

#[test]
fn b108_cancelling_all_waiters_wakes_nobody() {
    let count = many();
    let semaphore = Semaphore::new(0);
    let mut waiters: Vec<_> = (0..count).map(|_| Task::waiting(semaphore.acquire())).collect();
    for index in (0..count).rev().step_by(2).chain((0..count).step_by(2)) {
        waiters[index].cancel();
    }
    assert!(waiters.iter().all(|waiter| waiter.wakes() == 0));
    assert!(matches!(Task::new(semaphore.acquire()).poll(), Poll::Pending));
}
