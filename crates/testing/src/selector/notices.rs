//! What every selector does, virtual ones included: notifications and timeouts.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tulipa_selector::{Interest, Timeout};

use super::{SelectorKind, assert_not_early};

pub fn a_call_before_the_wait_ends_it<K: SelectorKind>() {
    let mut world = K::world();
    assert!(!world.events.is_notified());
    for timeout in [Timeout::Never, Timeout::Immediate, Timeout::After(Duration::MAX)] {
        world.selector.notifier().notify().unwrap();
        world.select(timeout).unwrap();
        assert!(world.events.is_notified() && world.events.is_empty());
        world.select(Timeout::Immediate).unwrap();
        assert!(!world.events.is_notified(), "each call is told once");
    }
}

pub fn calls_are_coalesced<K: SelectorKind>() {
    let mut world = K::world();
    let notifier = world.selector.notifier();
    for notifier in [&notifier, &notifier.clone(), &world.selector.notifier()] {
        for _ in 0..1000 {
            notifier.notify().unwrap();
        }
    }
    world.select(Timeout::Never).unwrap();
    assert!(world.events.is_notified());
    let deadline = world.selector.now() + Duration::from_millis(5);
    world.select(Timeout::At(deadline)).unwrap();
    assert!(!world.events.is_notified());
    assert_not_early(world.selector.now(), deadline);
}

pub fn a_call_from_another_thread_ends_a_blocked_wait<K: SelectorKind>() {
    let mut world = K::world();
    for _ in 0..if cfg!(miri) { 5 } else { 50 } {
        let _hold = world.hold();
        let notifier = world.selector.notifier();
        let thread = thread::spawn(move || notifier.notify());
        world.until(|world| world.events.is_notified());
        thread.join().unwrap().unwrap();
    }
}

pub fn calls_of_many_threads_all_arrive<K: SelectorKind>() {
    const THREADS: usize = 8;
    const CALLS: usize = if cfg!(miri) { 10 } else { 500 };
    let mut world = K::world();
    let _hold = world.hold();
    let said = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (notifier, said) = (world.selector.notifier(), said.clone());
            thread::spawn(move || {
                for _ in 0..CALLS {
                    said.fetch_add(1, SeqCst);
                    notifier.notify().unwrap();
                }
            })
        })
        .collect();
    let mut waits = 0;
    while said.load(SeqCst) < THREADS * CALLS {
        // Every increment is followed by a call, so this always ends.
        world.until(|world| world.events.is_notified());
        waits += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(waits <= THREADS * CALLS, "each call ends at most one wait");
}

pub fn a_call_and_events_come_together<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, Interest::READABLE, 1);
    wire.send();
    world.selector.notifier().notify().unwrap();
    world.select(Timeout::Never).unwrap();
    assert!(world.events.is_notified());
    assert_eq!(world.seen()[0].data, 1, "a call hides no readiness");
}

pub fn b39_a_call_after_close_or_drop_is_an_error<K: SelectorKind>() {
    let world = K::world();
    let notifier = world.selector.notifier();
    notifier.notify().unwrap();
    world.selector.close();
    assert_eq!(notifier.notify().unwrap_err().kind(), ErrorKind::NotConnected);
    drop(world);
    let late = notifier.clone();
    let result = thread::spawn(move || late.notify()).join().unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::NotConnected);

    let world = K::world();
    let notifier = world.selector.notifier();
    drop(world);
    assert_eq!(notifier.notify().unwrap_err().kind(), ErrorKind::NotConnected);
}

pub fn a_call_ends_the_longest_wait_there_is<K: SelectorKind>() {
    let mut world = K::world();
    for timeout in [Timeout::Never, Timeout::After(Duration::MAX), Timeout::from(None::<Duration>)]
    {
        let _hold = world.hold();
        let notifier = world.selector.notifier();
        let thread = thread::spawn(move || notifier.notify());
        while !world.events.is_notified() {
            world.select(timeout).unwrap();
        }
        thread.join().unwrap().unwrap();
        world.events.clear();
    }
}

pub fn no_timeout_and_a_past_deadline_do_not_wait<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, Interest::READABLE, 1);
    let now = world.selector.now();
    let past = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
    let timeouts =
        [Timeout::Immediate, Timeout::After(Duration::ZERO), Timeout::At(past), Timeout::At(now)];
    for timeout in timeouts {
        world.select(timeout).unwrap();
        assert!(world.events.is_empty());
    }
    wire.send();
    for timeout in timeouts {
        world.select(timeout).unwrap();
        assert_eq!(world.seen().len(), 1, "what is ready is reported all the same");
    }
}

pub fn b25_a_timeout_below_a_millisecond_is_not_early_and_not_busy<K: SelectorKind>() {
    let mut world = K::world();
    for microseconds in [1, 400, 999, 1_001, 1_400] {
        let deadline = world.selector.now() + Duration::from_micros(microseconds);
        let mut waits = 0;
        while world.selector.now() < deadline {
            world.select(Timeout::At(deadline)).unwrap();
            waits += 1;
        }
        assert!(waits <= 2, "{waits} waits for {microseconds} microseconds");
    }
    // A nanosecond is rounded up, or over before it begins.
    world.select(Duration::from_nanos(1)).unwrap();
}

pub fn a_deadline_is_never_early_and_nothing_is_reported<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, Interest::READABLE, 1);
    for milliseconds in [1, 3, 10] {
        let duration = Duration::from_millis(milliseconds);
        let deadline = world.selector.now() + duration;
        world.select(duration).unwrap();
        assert_not_early(world.selector.now(), deadline);
        assert!(world.events.is_empty() && !world.events.is_notified());
    }
}

pub fn the_clock_never_goes_back<K: SelectorKind>() {
    let mut world = K::world();
    let mut before = world.selector.now();
    for _ in 0..100 {
        world.select(Duration::from_micros(10)).unwrap();
        let now = world.selector.now();
        assert!(now >= before);
        before = now;
    }
}
