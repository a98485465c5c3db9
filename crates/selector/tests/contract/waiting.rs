//! Waits: fairness, interruptions, other threads.

use std::rc::Rc;
use std::time::Duration;

use tulipa_selector::{Events, Interest, Source, Timeout};

use crate::common::child::{WAITS, begin, end, name_of, traced};
use crate::common::os::eventfd;
use crate::common::{Kind, assert_not_early};

const READABLE: Interest = Interest::READABLE;

pub(crate) fn b23_more_ready_than_the_buffer_holds_starve_nobody<K: Kind>() {
    const SOURCES: usize = 150;
    let mut world = K::world();
    world.events = Events::with_capacity(16);
    let _registrations: Vec<_> = (0..SOURCES)
        .map(|data| {
            let source = Source::new(eventfd(1));
            world.selector.register(source, READABLE, data as u64).unwrap()
        })
        .collect();
    let mut served = [0; SOURCES];
    while served.iter().sum::<usize>() < 20 * SOURCES {
        world.who().iter().for_each(|data| served[*data as usize] += 1);
    }
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(2 * least >= *most, "{served:?}");
}

pub(crate) fn b11_interruptions_are_neither_errors_nor_early_ends<K: Kind>() {
    let waits = WAITS.map(|name| format!("?{name}")).join(",");
    // Every second wait, and the first hundred in a row.
    let injections = ["1+2", "1..100"].map(|when| format!("{waits}:error=EINTR:when={when}"));
    let injections = injections.each_ref().map(String::as_str);
    let name = name_of::<K>("b11_interruptions_are_neither_errors_nor_early_ends");
    traced(&name, &waits, &injections, wait_under_interruptions::<K>, |calls| {
        assert!(calls.iter().any(|call| call.line.contains("EINTR")), "{calls:?}");
    });
}

fn wait_under_interruptions<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, READABLE, 1);
    begin();
    for _ in 0..5 {
        let deadline = world.selector.now() + Duration::from_millis(2);
        while world.selector.now() < deadline {
            world.select(Timeout::At(deadline)).unwrap();
            assert!(world.events.is_empty() && !world.events.is_notified());
        }
        assert_not_early(world.selector.now(), deadline);
        wire.send();
        world.next_seen();
        wire.receive();
        world.selector.notifier().notify().unwrap();
        world.select(Timeout::Never).unwrap();
        assert!(world.events.is_notified());
    }
    end();
}

pub(crate) fn a_wait_ends_when_another_thread_makes_a_source_ready<K: Kind>() {
    let mut world = K::world();
    for _ in 0..50 {
        let (ours, theirs) = crate::common::os::unix_pair();
        let _registration = world.selector.register(ours.into(), READABLE, 1).unwrap();
        let thread = std::thread::spawn(move || {
            std::io::Write::write_all(&mut &theirs, b"!").unwrap();
            theirs
        });
        world.select(Timeout::Never).unwrap();
        assert_eq!(world.seen()[0].ready, READABLE);
        thread.join().unwrap();
    }
}

pub(crate) fn a_wait_with_a_far_deadline_ends_when_a_source_is_ready<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, READABLE, 1);
    wire.send();
    let now = world.selector.now();
    let far = [
        Timeout::Never,
        Timeout::After(Duration::MAX),
        Timeout::After(Duration::from_secs(u64::MAX)),
        Timeout::After(Duration::from_secs(i64::MAX as u64)),
        Timeout::After(Duration::from_secs(u64::from(u32::MAX))),
        Timeout::After(Duration::from_millis(u64::from(u32::MAX) + 1)),
        Timeout::At(now + Duration::from_secs(100 * 365 * 24 * 3600)),
    ];
    for timeout in far {
        world.select(timeout).unwrap();
        assert_eq!(world.seen().len(), 1, "{timeout:?}");
    }
}

pub(crate) fn a_ring_that_is_too_late_is_no_error<K: Kind>() {
    // Threads that ring while waits begin and end: each ring races with a wait's two ends.
    let mut world = K::world();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (notifier, done) = (world.selector.notifier(), done.clone());
            std::thread::spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    notifier.notify().unwrap();
                }
            })
        })
        .collect();
    for turn in 0..5_000u64 {
        let result = world.select(Duration::from_micros(turn % 3));
        assert!(result.is_ok(), "turn {turn}: {result:?}");
        assert!(world.events.is_empty());
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

pub(crate) fn registrations_made_while_others_call_are_all_reported<K: Kind>() {
    let mut world = K::world();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (notifier, stop) = (world.selector.notifier(), done.clone());
    let thread = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            notifier.notify().unwrap();
            std::thread::yield_now();
        }
    });
    let source: Rc<_> = Rc::new(eventfd(1));
    for data in 0..2_000 {
        let registration = world.selector.register(source.clone().into(), READABLE, data).unwrap();
        world.until(|world| world.seen().iter().any(|seen| seen.data == data));
        registration.set_interest(READABLE | Interest::WRITABLE).unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
}
