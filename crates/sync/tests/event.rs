//! `Event`: who is released by a `set`.

mod common;

use common::Task;
use tulipa_sync::Event;

#[test]
fn waiting_for_an_event_that_is_set_is_ready_at_once() {
    let event = Event::new();
    event.set();
    Task::new(event.wait()).expect();
}

#[test]
fn set_wakes_all_who_wait_and_again_nobody() {
    let event = Event::new();
    let mut waiters: Vec<_> = (0..3).map(|_| Task::waiting(event.wait())).collect();
    event.set();
    event.set();
    assert!(event.is_set());
    for waiter in &mut waiters {
        assert_eq!(waiter.wakes(), 1);
        waiter.expect();
    }
}

#[test]
fn set_and_clear_in_one_turn_releases_those_who_wait_already() {
    let event = Event::new();
    let mut early = Task::waiting(event.wait());
    event.set();
    event.clear();
    let mut late = Task::waiting(event.wait());
    assert!(!event.is_set());
    early.expect();
    assert!(late.poll().is_pending());
    event.set();
    late.expect();
}

#[test]
fn a_set_between_wait_and_its_first_poll_counts() {
    let event = Event::new();
    let mut waiter = Task::new(event.wait());
    event.set();
    event.clear();
    waiter.expect();
}

#[test]
fn dropping_a_waiter_does_not_disturb_the_others() {
    let event = Event::new();
    let mut waiters: Vec<_> = (0..3).map(|_| Task::waiting(event.wait())).collect();
    waiters[0].cancel();
    event.set();
    waiters[1].cancel();
    assert!(waiters[2].is_woken());
    waiters[2].expect();
}

#[test]
fn debug_shows_the_flag() {
    let event = Event::new().named("up");
    assert_eq!(format!("{event:?}"), r#"Event { name: Some("up"), set: false, waiting: 0 }"#);
}
