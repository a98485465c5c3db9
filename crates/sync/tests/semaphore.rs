//! `Semaphore` and `BoundedSemaphore`: strictly first come, first served.

mod common;

use common::Task;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tulipa_sync::{BoundedSemaphore, Semaphore};

#[test]
fn permits_are_taken_until_none_is_left_and_return_when_dropped() {
    let semaphore = Semaphore::new(2);
    let one = Task::new(semaphore.acquire()).expect();
    assert!(!semaphore.is_locked());
    let two = semaphore.try_acquire().unwrap();
    assert!(semaphore.is_locked() && semaphore.try_acquire().is_none());
    drop(one);
    assert_eq!(semaphore.available_permits(), 1);
    drop(two);
    assert_eq!(semaphore.available_permits(), 2);
}

#[test]
fn a_semaphore_starts_with_one_permit_by_default() {
    assert_eq!(Semaphore::default().available_permits(), 1);
    assert_eq!(BoundedSemaphore::default().bound(), 1);
}

#[test]
fn more_permits_than_can_be_counted_are_refused() {
    assert!(catch_unwind(|| Semaphore::new(usize::MAX)).is_err());
    let semaphore = Semaphore::new(usize::MAX >> 3);
    assert!(catch_unwind(AssertUnwindSafe(|| semaphore.release())).is_err());
    assert_eq!(semaphore.available_permits(), usize::MAX >> 3);
}

#[test]
fn release_has_no_upper_bound_and_wakes_the_next() {
    let semaphore = Semaphore::new(0);
    let mut waiters = [Task::waiting(semaphore.acquire()), Task::waiting(semaphore.acquire())];
    semaphore.release();
    assert!(waiters[0].is_woken() && !waiters[1].is_woken());
    semaphore.release();
    semaphore.release();
    waiters[0].expect().forget();
    waiters[1].expect().forget();
    assert_eq!(semaphore.available_permits(), 1);
}

#[test]
fn a_newcomer_queues_while_somebody_waits() {
    let semaphore = Semaphore::new(1);
    let mut large = Task::waiting(semaphore.acquire_many(2));
    assert!(semaphore.is_locked(), "a permit is free, but not for a newcomer");
    assert!(semaphore.try_acquire().is_none());
    let mut small = Task::waiting(semaphore.acquire());
    semaphore.release();
    assert_eq!(large.expect().count(), 2);
    assert!(small.poll().is_ready());
}

#[test]
fn one_release_of_many_wakes_all_it_suffices_for() {
    let semaphore = Semaphore::new(0);
    let mut waiters: Vec<_> = [1, 2, 2].map(|n| Task::waiting(semaphore.acquire_many(n))).into();
    semaphore.add_permits(4);
    let woken: Vec<_> = waiters.iter().map(Task::is_woken).collect();
    assert_eq!(woken, [true, true, false]);
    assert_eq!(semaphore.available_permits(), 1);
    waiters[0].expect().forget();
    drop(waiters[1].expect());
    assert!(waiters[2].poll().is_ready());
}

#[test]
fn a_dropped_large_request_lets_the_small_ones_behind_it_through() {
    let semaphore = Semaphore::new(1);
    let mut large = Task::waiting(semaphore.acquire_many(5));
    let mut small = Task::waiting(semaphore.acquire());
    large.cancel();
    assert!(small.is_woken());
    assert!(small.poll().is_ready());
}

#[test]
fn forgotten_permits_stay_away_until_they_are_added_again() {
    let semaphore = Semaphore::new(3);
    semaphore.try_acquire_many(2).unwrap().forget();
    assert_eq!(semaphore.available_permits(), 1);
    semaphore.add_permits(2);
    assert_eq!(semaphore.available_permits(), 3);
}

#[test]
fn an_owned_permit_keeps_the_semaphore_alive() {
    let semaphore = Rc::new(Semaphore::new(1));
    let permit = Task::new(semaphore.acquire_owned()).expect();
    assert!(semaphore.is_locked());
    let weak = Rc::downgrade(&semaphore);
    drop(semaphore);
    let kept = weak.upgrade().unwrap();
    drop(permit);
    assert!(!kept.is_locked());
}

#[test]
fn releasing_a_bounded_semaphore_too_often_panics_and_changes_nothing() {
    let semaphore = BoundedSemaphore::new(2);
    assert!(catch_unwind(AssertUnwindSafe(|| semaphore.release())).is_err());
    semaphore.try_acquire().unwrap().forget();
    semaphore.release();
    assert!(catch_unwind(AssertUnwindSafe(|| semaphore.release())).is_err());
    assert_eq!(semaphore.available_permits(), 2);
}

#[test]
fn a_permit_that_was_also_released_by_hand_does_not_exceed_the_bound() {
    let semaphore = BoundedSemaphore::new(1);
    let permit = semaphore.try_acquire().unwrap();
    semaphore.release();
    drop(permit);
    assert_eq!(semaphore.available_permits(), 1);
}

#[test]
fn a_bounded_semaphore_refuses_a_request_above_its_bound() {
    let semaphore = BoundedSemaphore::new(2);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(semaphore.acquire_many(3)))).is_err());
    assert!(semaphore.try_acquire_many(3).is_none());
    assert_eq!(Task::new(semaphore.acquire_many(2)).expect().count(), 2);
    assert!(!semaphore.is_locked());
}

#[test]
fn five_of_many_tasks_run_at_once() {
    let semaphore = Semaphore::new(5);
    let running = std::cell::Cell::new((0, 0));
    let mut executor = common::Executor::default();
    for _ in 0..20 {
        executor.spawn(async {
            let _permit = semaphore.acquire().await;
            let (now, most) = running.get();
            running.set((now + 1, most.max(now + 1)));
            common::yield_now().await;
            let (now, most) = running.get();
            running.set((now - 1, most));
        });
    }
    executor.run(None);
    assert_eq!(executor.finished.len(), 20);
    assert_eq!(running.get(), (0, 5));
}
