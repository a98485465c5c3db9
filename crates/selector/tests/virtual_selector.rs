//! `VirtualSelector`: the contract that needs no operating system, and what only it can do. All of
//! it runs under Miri.

mod common;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tulipa_selector::{
    Events, Hold, Interest, Readiness, Registration, Selector, Source, Timeout, VirtualCall,
    VirtualHandle, VirtualId, VirtualSelector,
};

tulipa_testing::selector_tests!(contract for crate::common::Virtual);

const READABLE: Interest = Interest::READABLE;
const SECOND: Duration = Duration::from_secs(1);

/// A selector, its outside world and a batch.
struct Stage {
    selector: VirtualSelector,
    world: VirtualHandle,
    events: Events,
}

impl Stage {
    fn new() -> Stage {
        let selector = VirtualSelector::new();
        Stage { world: selector.handle(), selector, events: Events::new() }
    }

    fn jumping() -> Stage {
        let stage = Stage::new();
        stage.world.set_autojump(true);
        stage
    }

    fn source(&self, data: u64) -> (VirtualId, Registration) {
        let id = self.world.new_source();
        (id, self.selector.register(id.into(), READABLE, data).unwrap())
    }

    fn select(&mut self, timeout: impl Into<Timeout>) -> Vec<u64> {
        self.selector.select(&mut self.events, timeout.into()).unwrap();
        self.events.iter().map(|event| event.data()).collect()
    }
}

#[test]
fn the_clock_moves_only_when_it_is_told_to() {
    let mut stage = Stage::new();
    let start = stage.selector.now();
    for timeout in [
        Timeout::Never,
        Timeout::Immediate,
        Timeout::After(SECOND),
        Timeout::At(start + SECOND),
        Timeout::After(Duration::MAX),
    ] {
        assert!(stage.select(timeout).is_empty(), "it does not block");
        assert_eq!(stage.selector.now(), start);
    }
    stage.world.advance(SECOND);
    assert_eq!(stage.selector.now(), start + SECOND);
    assert_eq!(stage.world.now(), start + SECOND);
    stage.world.advance_to(start);
    assert_eq!(stage.selector.now(), start + SECOND, "never back");
    stage.world.advance_to(start + 3 * SECOND);
    assert_eq!(stage.selector.now(), start + 3 * SECOND);
    stage.world.advance(Duration::ZERO);
    assert_eq!(stage.selector.now(), start + 3 * SECOND);
}

#[test]
#[should_panic(expected = "virtual time stays within an Instant")]
fn a_clock_that_would_leave_what_an_instant_can_express_panics() {
    Stage::new().world.advance(Duration::MAX);
}

#[test]
fn every_form_of_a_timeout_ends_where_it_says() {
    let mut stage = Stage::jumping();
    let mut now = stage.selector.now();
    for (timeout, expected) in [
        (Timeout::After(SECOND), SECOND),
        (Timeout::At(now + 5 * SECOND), 4 * SECOND),
        (Timeout::At(now), Duration::ZERO),
        (Timeout::Immediate, Duration::ZERO),
        (Timeout::After(Duration::ZERO), Duration::ZERO),
        (Duration::from_nanos(1).into(), Duration::from_nanos(1)),
        (Some(SECOND).into(), SECOND),
        (Some(now + 10 * SECOND).into(), 4 * SECOND - Duration::from_nanos(1)),
    ] {
        assert!(stage.select(timeout).is_empty());
        assert_eq!(stage.selector.now() - now, expected, "{timeout:?}");
        now = stage.selector.now();
    }
}

#[test]
fn a_timeout_knows_what_is_left_and_when_it_ends() {
    let now = VirtualSelector::new().now();
    let unread = || -> Instant { unreachable!("the clock is read only where it matters") };
    assert_eq!(Timeout::Never.remaining(unread), None);
    assert_eq!(Timeout::Immediate.remaining(unread), Some(Duration::ZERO));
    assert_eq!(Timeout::After(SECOND).remaining(unread), Some(SECOND));
    assert_eq!(Timeout::At(now + SECOND).remaining(|| now), Some(SECOND));
    assert_eq!(Timeout::At(now).remaining(|| now + SECOND), Some(Duration::ZERO));
    assert_eq!(Timeout::Never.deadline(unread), None);
    assert_eq!(Timeout::Immediate.deadline(|| now), Some(now));
    assert_eq!(Timeout::After(SECOND).deadline(|| now), Some(now + SECOND));
    assert_eq!(Timeout::After(Duration::MAX).deadline(|| now), None, "too far is never");
    assert_eq!(Timeout::At(now).deadline(unread), Some(now));
    assert_eq!(Timeout::from(None::<Duration>), Timeout::Never);
    assert_eq!(Timeout::from(Some(now)), Timeout::At(now));
    assert_eq!(Timeout::from(now), Timeout::At(now));
}

#[test]
fn a_year_takes_no_time() {
    const DAYS: u32 = if cfg!(miri) { 20 } else { 365 };
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    let start = stage.selector.now();
    let day = 24 * 3600 * SECOND;
    for number in 1..=DAYS {
        stage.world.script(start + number * day, wire, Readiness::READABLE);
    }
    let mut woken = 0;
    while stage.selector.now() < start + DAYS * day {
        assert_eq!(stage.select(Timeout::Never), [1]);
        woken += 1;
        assert_eq!(stage.selector.now(), start + woken * day);
        stage.world.set_ready(wire, Readiness::NONE);
    }
    assert_eq!(woken, DAYS);
}

#[test]
fn a_jump_goes_to_what_comes_first() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    let start = stage.selector.now();
    stage.world.script(start + 3 * SECOND, wire, Readiness::READABLE);
    assert_eq!(stage.world.next_scripted(), Some(start + 3 * SECOND));
    assert!(stage.select(SECOND).is_empty());
    assert_eq!(stage.selector.now(), start + SECOND, "the deadline");
    assert_eq!(stage.select(10 * SECOND), [1]);
    assert_eq!(stage.selector.now(), start + 3 * SECOND, "the script");
    assert_eq!(stage.select(10 * SECOND), [1]);
    assert_eq!(stage.selector.now(), start + 3 * SECOND, "what is ready takes no time");
    assert_eq!(stage.world.next_scripted(), None);
}

#[test]
fn a_deadline_and_the_script_at_the_same_instant_are_one_wait() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    let at = stage.selector.now() + SECOND;
    stage.world.script(at, wire, Readiness::READABLE);
    assert_eq!(stage.select(at), [1]);
    assert_eq!(stage.selector.now(), at);
}

#[test]
fn what_is_scripted_for_nobody_moves_the_clock_and_wakes_nobody() {
    let mut stage = Stage::jumping();
    let (wire, registration) = stage.source(1);
    registration.set_interest(Interest::NONE).unwrap();
    let start = stage.selector.now();
    stage.world.script(start + SECOND, wire, Readiness::READABLE);
    assert!(stage.select(2 * SECOND).is_empty());
    assert_eq!(stage.selector.now(), start + 2 * SECOND);
    registration.set_interest(READABLE).unwrap();
    assert_eq!(stage.select(Timeout::Never), [1], "but it has happened");
}

#[test]
fn a_wait_that_nothing_can_end_is_an_error() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    for timeout in [Timeout::Never, Timeout::After(Duration::MAX)] {
        let error = stage.selector.select(&mut stage.events, timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        assert!(error.to_string().contains("nothing can make progress"), "{error}");
        assert!(stage.events.is_empty());
    }
    stage.world.set_ready(wire, Readiness::READABLE);
    assert_eq!(stage.select(Timeout::Never), [1], "the error has broken nothing");
    stage.world.set_ready(wire, Readiness::NONE);
    stage.selector.notifier().notify().unwrap();
    assert!(stage.select(Timeout::Never).is_empty());
    assert!(stage.events.is_notified());
}

#[test]
fn the_script_plays_in_order_of_time_and_then_of_the_calls() {
    let mut stage = Stage::new();
    let (wire, _registration) = stage.source(1);
    let start = stage.selector.now();
    // Written in the wrong order; for the last instant the later call wins.
    stage.world.script(start + 3 * SECOND, wire, Readiness::NONE);
    stage.world.script(start + 3 * SECOND, wire, Readiness::READABLE | Readiness::HANGUP);
    stage.world.script(start + SECOND, wire, Readiness::READABLE);
    stage.world.script(start + 2 * SECOND, wire, Readiness::WRITABLE);
    let expected = [
        Readiness::NONE,
        Readiness::READABLE,
        Readiness::WRITABLE,
        Readiness::READABLE | Readiness::HANGUP,
    ];
    for readiness in expected {
        assert_eq!(stage.world.readiness(wire), readiness);
        stage.world.advance(SECOND);
    }
    assert_eq!(stage.select(Timeout::Never), [1]);
    assert!(stage.events.iter().next().unwrap().is_hangup());
    stage.world.script(start, wire, Readiness::NONE);
    assert!(stage.select(Timeout::Never).is_empty(), "the past is now");
}

#[test]
fn a_long_step_plays_everything_on_its_way() {
    let stage = Stage::new();
    let (wire, _registration) = stage.source(1);
    let start = stage.selector.now();
    for step in 1..100 {
        let readiness = if step % 2 == 0 { Readiness::READABLE } else { Readiness::WRITABLE };
        stage.world.script(start + step * SECOND, wire, readiness);
    }
    stage.world.advance(98 * SECOND);
    assert_eq!(stage.world.readiness(wire), Readiness::READABLE);
    assert_eq!(stage.world.next_scripted(), Some(start + 99 * SECOND));
}

#[test]
fn the_same_calls_give_the_same_events() {
    let run = || {
        let mut stage = Stage::jumping();
        stage.events = Events::with_capacity(3);
        let start = stage.selector.now();
        let sources: Vec<_> = (0..10).map(|data| stage.source(data)).collect();
        for step in 0..50u32 {
            let (wire, _) = &sources[(step * 7 % 10) as usize];
            let readiness = if step % 3 == 0 { Readiness::NONE } else { Readiness::READABLE };
            stage.world.script(start + step / 4 * SECOND, *wire, readiness);
        }
        let mut story = Vec::new();
        for turn in 0..if cfg!(miri) { 50 } else { 200 } {
            let seen = stage.select(SECOND);
            if turn % 5 == 0 {
                seen.iter().for_each(|data| {
                    stage.world.set_ready(sources[*data as usize].0, Readiness::NONE);
                });
            }
            story.push((stage.selector.now() - start, seen));
        }
        story
    };
    let story = run();
    assert!(story.iter().filter(|(_, seen)| seen.len() > 1).count() > 5, "{story:?}");
    assert_eq!(story, run());
}

#[test]
fn sources_are_reported_in_the_order_of_their_creation() {
    let mut stage = Stage::new();
    let ids: Vec<_> = (0..5).map(|_| stage.world.new_source()).collect();
    let register =
        |index: usize| stage.selector.register(ids[index].into(), READABLE, index as u64).unwrap();
    let _registrations: Vec<_> = [3, 0, 4, 2, 1].map(register).into_iter().collect();
    for index in [4, 1, 3, 0, 2] {
        stage.world.set_ready(ids[index], Readiness::READABLE);
    }
    assert_eq!(stage.select(Timeout::Never), [0, 1, 2, 3, 4]);
    stage.events = Events::with_capacity(2);
    let batches: Vec<_> = (0..3).map(|_| stage.select(Timeout::Never)).collect();
    assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4, 0]], "and go on where they stopped");
}

#[test]
fn readiness_may_be_set_before_the_source_is_registered() {
    let mut stage = Stage::new();
    let wire = stage.world.new_source();
    stage.world.set_ready(wire, Readiness::READABLE);
    let registration = stage.selector.register(wire.into(), READABLE, 1).unwrap();
    assert_eq!(stage.select(Timeout::Never), [1]);
    drop(registration);
    assert_eq!(stage.world.readiness(wire), Readiness::READABLE);
    let _again = stage.selector.register(wire.into(), Interest::WRITABLE, 2).unwrap();
    assert!(stage.select(Timeout::Never).is_empty());
}

#[test]
fn hangups_and_errors_wake_every_side_that_is_waited_for() {
    let mut stage = Stage::new();
    let (wire, registration) = stage.source(1);
    for readiness in [Readiness::HANGUP, Readiness::ERROR, Readiness::ERROR | Readiness::HANGUP] {
        stage.world.set_ready(wire, readiness);
        for interest in [READABLE, Interest::WRITABLE, Interest::PRIORITY] {
            registration.set_interest(interest).unwrap();
            assert_eq!(stage.select(Timeout::Never), [1]);
            let event = stage.events.iter().next().unwrap();
            assert_eq!(event.ready(), interest);
            assert_eq!(event.is_hangup(), readiness.contains(Readiness::HANGUP));
            assert_eq!(event.is_error(), readiness.contains(Readiness::ERROR));
        }
        registration.set_interest(Interest::NONE).unwrap();
        assert!(stage.select(Timeout::Never).is_empty());
    }
    assert_eq!(format!("{:?}", Readiness::ERROR | Readiness::HANGUP), "HANGUP | ERROR");
}

#[cfg(unix)]
#[test]
fn descriptors_are_refused() {
    let stage = Stage::new();
    let error = stage.selector.register(Source::new(std::io::stdin()), READABLE, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("real selector"), "{error}");
    assert!(stage.selector.keys().is_empty());
    assert_eq!(stage.selector.backend_fd(), None);
}

#[test]
fn a_hold_keeps_the_clock_from_running_away() {
    let mut stage = Stage::jumping();
    let start = stage.selector.now();
    let hold = stage.world.hold();
    let notifier = stage.selector.notifier();
    let (done, result) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _hold = hold;
        done.send(42).unwrap();
        notifier.notify().unwrap();
    });
    while !stage.events.is_notified() {
        assert!(stage.select(3600 * SECOND).is_empty());
        if !stage.events.is_notified() {
            panic!("a wait under a hold ended at {:?}", stage.selector.now() - start);
        }
    }
    assert_eq!(stage.selector.now(), start);
    assert_eq!(result.recv(), Ok(42));
    worker.join().unwrap();
    assert!(stage.select(SECOND).is_empty());
    assert_eq!(stage.selector.now(), start + SECOND, "without a hold it jumps again");
}

#[test]
fn the_end_of_the_last_hold_lets_the_clock_go_on() {
    let mut stage = Stage::jumping();
    let start = stage.selector.now();
    let (one, two) = (stage.world.hold(), stage.world.hold());
    let worker = thread::spawn(move || {
        drop(one);
        thread::yield_now();
        drop(two);
    });
    assert!(stage.select(SECOND).is_empty());
    assert_eq!(stage.selector.now(), start + SECOND);
    worker.join().unwrap();

    let hold = stage.world.hold();
    let worker = thread::spawn(move || drop(hold));
    let error = stage.selector.select(&mut stage.events, Timeout::Never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "and then nothing is left to wait for");
    worker.join().unwrap();
}

#[test]
fn a_hold_changes_nothing_for_what_is_ready_or_due() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    let _hold = stage.world.hold();
    let now = stage.selector.now();
    assert!(stage.select(Timeout::Immediate).is_empty());
    assert!(stage.select(Timeout::At(now)).is_empty());
    stage.world.set_ready(wire, Readiness::READABLE);
    assert_eq!(stage.select(Timeout::Never), [1]);
    stage.world.set_autojump(false);
    assert_eq!(stage.select(3600 * SECOND), [1]);
}

#[test]
fn a_hold_may_outlive_its_selector() {
    let stage = Stage::new();
    let (hold, notifier) = (stage.world.hold(), stage.selector.notifier());
    drop(stage);
    thread::spawn(move || drop(hold)).join().unwrap();
    assert_eq!(notifier.notify().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn the_handle_outlives_its_selector() {
    let stage = Stage::new();
    let (wire, registration) = stage.source(1);
    let Stage { selector, world, .. } = stage;
    drop(selector);
    let before = world.now();
    world.script(before + SECOND, wire, Readiness::READABLE);
    world.advance(SECOND);
    assert_eq!(world.now(), before + SECOND);
    assert_eq!(world.readiness(wire), Readiness::READABLE);
    assert!(registration.key().is_none());
}

#[test]
fn two_worlds_have_clocks_of_their_own() {
    let (one, two) = (Stage::new(), Stage::new());
    let before = two.selector.now();
    one.world.advance(SECOND);
    assert_eq!(two.selector.now(), before);
}

#[test]
fn the_clock_does_not_jump_over_a_notification_that_came_before_the_hold_ended() {
    let rounds = if cfg!(miri) { 20 } else { 10_000 };
    let selector = VirtualSelector::new();
    let world = selector.handle();
    world.set_autojump(true);
    let (sender, holds) = mpsc::channel();
    let notifier = selector.notifier();
    let worker = thread::spawn(move || {
        for hold in holds {
            notifier.notify().unwrap();
            drop::<Hold>(hold);
        }
    });
    let mut events = Events::new();
    for _ in 0..rounds {
        let before = selector.now();
        sender.send(world.hold()).unwrap();
        selector.select(&mut events, Timeout::from(before + SECOND)).unwrap();
        assert!(events.is_notified());
        assert_eq!(selector.now(), before);
    }
    drop(sender);
    worker.join().unwrap();
}

#[test]
fn what_is_called_by_the_script_sees_its_own_time_and_may_go_on() {
    let stage = Stage::new();
    let start = stage.world.now();
    let seen = Rc::new(RefCell::new(Vec::new()));
    for seconds in [3, 1, 2] {
        let seen = seen.clone();
        stage.world.call_at(start + seconds * SECOND, move |world| {
            seen.borrow_mut().push((seconds, world.now() - start));
            let at = world.now() + SECOND / 2;
            world.call_at(at, move |world| {
                seen.borrow_mut().push((10 * seconds, world.now() - start))
            });
        });
    }
    stage.world.advance(5 * SECOND / 2);
    let half = SECOND / 2;
    assert_eq!(
        *seen.borrow(),
        [(1, SECOND), (10, SECOND + half), (2, 2 * SECOND), (20, 2 * SECOND + half)]
    );
    assert_eq!(stage.world.next_scripted(), Some(start + 3 * SECOND));
}

#[test]
fn a_call_for_an_instant_that_has_gone_comes_with_the_next_wait() {
    let mut stage = Stage::new();
    let (wire, _registration) = stage.source(1);
    stage.world.call_at(stage.world.now(), move |world| world.set_ready(wire, Readiness::READABLE));
    assert_eq!(stage.world.readiness(wire), Readiness::NONE);
    assert_eq!(stage.select(Duration::ZERO), [1]);
}

#[test]
fn a_clock_that_jumps_stops_where_the_script_makes_something_ready() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    let at = stage.world.now() + SECOND;
    stage.world.call_at(at, move |world| world.set_ready(wire, Readiness::READABLE));
    assert_eq!(stage.select(3600 * SECOND), [1]);
    assert_eq!(stage.world.now(), at);
}

#[test]
fn shuffled_reports_have_each_source_once_in_an_order_that_is_chosen() {
    let mut stage = Stage::new();
    let sources: Vec<_> = (0..5).map(|number| stage.source(number)).collect();
    for (wire, _) in &sources {
        stage.world.set_ready(*wire, Readiness::READABLE);
    }
    assert_eq!(stage.select(Duration::ZERO), [0, 1, 2, 3, 4]);
    stage.world.set_shuffle(Some(Box::new(|_| 0)));
    assert_eq!(stage.select(Duration::ZERO), [1, 2, 3, 4, 0]);
    stage.world.set_shuffle(None);
    assert_eq!(stage.select(Duration::ZERO), [0, 1, 2, 3, 4]);
}

#[test]
fn a_refused_registration_registers_nothing() {
    let mut stage = Stage::new();
    let wire = stage.world.new_source();
    stage.world.set_ready(wire, Readiness::READABLE);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let calls = asked.clone();
    stage.world.set_refusal(Some(Box::new(move |call| {
        calls.borrow_mut().push(call);
        Some(ErrorKind::OutOfMemory.into())
    })));
    let error = stage.selector.register(wire.into(), READABLE, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().starts_with("cannot register virtual source"), "{error}");
    assert_eq!(asked.take(), [VirtualCall::Register(wire)]);
    stage.world.set_refusal(None);
    assert!(stage.select(Timeout::Immediate).is_empty());
    let _registration = stage.selector.register(wire.into(), READABLE, 1).unwrap();
    assert_eq!(stage.select(Timeout::Immediate), [1]);
}

#[test]
fn b20_a_refused_change_leaves_no_interest_and_may_be_made_again() {
    let mut stage = Stage::new();
    let (wire, registration) = stage.source(1);
    stage.world.set_ready(wire, Readiness::READABLE | Readiness::WRITABLE);
    stage.world.set_refusal(Some(Box::new(|_| Some(ErrorKind::OutOfMemory.into()))));
    let error = registration.set_interest(Interest::WRITABLE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(registration.interest(), Interest::NONE);
    registration.set_interest(Interest::NONE).unwrap();
    stage.world.set_refusal(None);
    assert!(stage.select(Timeout::Immediate).is_empty());
    registration.set_interest(Interest::WRITABLE).unwrap();
    assert_eq!(stage.select(Timeout::Immediate), [1]);
}

#[test]
fn b11_an_interrupted_wait_tells_nothing_and_loses_nothing() {
    let mut stage = Stage::jumping();
    let (wire, _registration) = stage.source(1);
    stage.world.set_ready(wire, Readiness::READABLE);
    stage.selector.notifier().notify().unwrap();
    let start = stage.selector.now();
    let mut left = 2;
    stage.world.set_refusal(Some(Box::new(move |call| {
        assert_eq!(call, VirtualCall::Select);
        left -= 1;
        (left >= 0).then(|| ErrorKind::Interrupted.into())
    })));
    for interruptions in 1..=2 {
        assert!(stage.select(SECOND).is_empty());
        assert!(!stage.events.is_notified());
        assert_eq!((stage.selector.now(), stage.world.interruptions()), (start, interruptions));
    }
    assert_eq!(stage.select(SECOND), [1]);
    assert!(stage.events.is_notified());
}

#[test]
fn a_wait_that_is_refused_fails_and_who_refuses_may_change_that() {
    let mut stage = Stage::new();
    let world = stage.world.clone();
    stage.world.set_refusal(Some(Box::new(move |_| {
        world.set_refusal(None);
        Some(ErrorKind::OutOfMemory.into())
    })));
    let error = stage.selector.select(&mut stage.events, Timeout::Never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    // It has taken itself back.
    stage.selector.select(&mut stage.events, Timeout::Immediate).unwrap();
}
