//! `Barrier`: generations, and what breaks them.

mod common;

use common::Task;
use tulipa_sync::{Barrier, BrokenBarrier};

#[test]
fn the_parties_go_together_and_each_has_its_number() {
    let barrier = Barrier::new(3);
    let mut first = Task::waiting(barrier.wait());
    let mut second = Task::waiting(barrier.wait());
    assert_eq!((barrier.parties(), barrier.n_waiting()), (3, 2));
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(2));
    assert!(first.is_woken() && second.is_woken());
    assert_eq!(barrier.n_waiting(), 0);
    assert_eq!(second.expect(), Ok(1));
    assert_eq!(first.expect(), Ok(0));
}

#[test]
fn a_barrier_for_one_never_waits() {
    let barrier = Barrier::new(1);
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(0));
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(0));
}

#[test]
#[should_panic(expected = "at least one party")]
fn a_barrier_for_nobody_is_refused() {
    let _ = Barrier::new(0);
}

#[test]
fn who_comes_before_the_released_have_run_belongs_to_the_next_generation() {
    let barrier = Barrier::new(2);
    let mut first = Task::waiting(barrier.wait());
    Task::new(barrier.wait()).expect().unwrap();
    let mut late = Task::waiting(barrier.wait());
    assert_eq!(barrier.n_waiting(), 1);
    assert_eq!(first.expect(), Ok(0));
    assert!(late.poll().is_pending());
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(1));
    assert_eq!(late.expect(), Ok(0));
}

#[test]
fn a_dropped_party_takes_its_arrival_back_and_the_numbers_stay_distinct() {
    let barrier = Barrier::new(3);
    let mut first = Task::waiting(barrier.wait());
    let mut second = Task::waiting(barrier.wait());
    first.cancel();
    assert_eq!(barrier.n_waiting(), 1);
    let mut third = Task::waiting(barrier.wait());
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(2));
    assert_eq!((second.expect(), third.expect()), (Ok(0), Ok(1)));
}

#[test]
fn dropping_a_released_party_does_not_touch_the_next_generation() {
    let barrier = Barrier::new(2);
    let mut first = Task::waiting(barrier.wait());
    Task::new(barrier.wait()).expect().unwrap();
    let mut next = Task::waiting(barrier.wait());
    first.cancel();
    assert_eq!(barrier.n_waiting(), 1);
    assert!(next.poll().is_pending());
}

#[test]
fn reset_sends_the_waiters_away_and_the_barrier_works_again() {
    let barrier = Barrier::new(2);
    let mut waiter = Task::waiting(barrier.wait());
    barrier.reset();
    assert_eq!(waiter.expect(), Err(BrokenBarrier));
    assert!(!barrier.is_broken());
    let mut first = Task::waiting(barrier.wait());
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(1));
    barrier.reset();
    assert_eq!(first.expect(), Ok(0), "it had been released before the reset");
}

#[test]
fn abort_breaks_the_barrier_for_all_until_it_is_reset() {
    let barrier = Barrier::new(2);
    let mut waiter = Task::waiting(barrier.wait());
    barrier.abort();
    assert!(barrier.is_broken());
    assert_eq!(waiter.expect(), Err(BrokenBarrier));
    assert_eq!(Task::new(barrier.wait()).expect(), Err(BrokenBarrier));
    barrier.reset();
    let mut waiter = Task::waiting(barrier.wait());
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(1));
    assert_eq!(waiter.expect(), Ok(0));
    assert_eq!(BrokenBarrier.to_string(), "the barrier is broken");
}
