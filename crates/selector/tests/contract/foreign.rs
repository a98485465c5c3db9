//! `backend_fd`: a foreign main loop sleeps on the selector's own descriptor.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use tulipa_selector::{Interest, Source, Timeout};

use crate::common::os::is_readable;
use crate::common::{Kind, World};

/// The descriptor of a kind that has one.
fn descriptor<K: Kind>(world: &World) -> Option<RawFd> {
    let fd = world.selector.backend_fd();
    assert_eq!(fd.is_some(), K::EPOLL, "epoll is a descriptor, poll(2) is not");
    assert_eq!(fd, world.selector.backend_fd());
    fd
}

pub(crate) fn the_descriptor_is_readable_when_something_is_ready<K: Kind>() {
    let mut world = K::world();
    let Some(fd) = descriptor::<K>(&world) else { return };
    assert!(!is_readable(fd));
    let wire = world.wire();
    let registration = world.register(&wire, Interest::READABLE, 1);
    assert!(!is_readable(fd));
    wire.send();
    assert!(is_readable(fd));
    assert_eq!(world.who(), [1]);
    wire.receive();
    world.who();
    assert!(!is_readable(fd));
    wire.send();
    assert!(is_readable(fd));
    registration.set_interest(Interest::NONE).unwrap();
    world.who();
    assert!(!is_readable(fd), "what nobody waits for does not ring");
    registration.set_interest(Interest::READABLE).unwrap();
    assert!(is_readable(fd));
    drop(registration);
    world.who();
    assert!(!is_readable(fd));
}

pub(crate) fn the_descriptor_rings_between_waits_once_it_was_asked_for<K: Kind>() {
    let mut world = K::world();
    let Some(fd) = descriptor::<K>(&world) else { return };
    let notifier = world.selector.notifier();
    for _ in 0..20 {
        assert!(!is_readable(fd));
        let notifier = notifier.clone();
        std::thread::spawn(move || notifier.notify()).join().unwrap().unwrap();
        assert!(is_readable(fd));
        world.look();
        assert!(world.events.is_notified());
        assert!(!is_readable(fd), "the wait has heard it");
        world.look();
        assert!(!world.events.is_notified());
    }
    // Blocking waits go on as usual.
    let thread = std::thread::spawn(move || notifier.notify());
    world.until(|world| world.events.is_notified());
    thread.join().unwrap().unwrap();
}

pub(crate) fn a_call_before_the_descriptor_was_asked_for_is_passed_on<K: Kind>() {
    let mut world = K::world();
    world.selector.notifier().notify().unwrap();
    let Some(fd) = descriptor::<K>(&world) else { return };
    assert!(is_readable(fd));
    world.look();
    assert!(world.events.is_notified() && !is_readable(fd));
}

pub(crate) fn a_selector_can_be_watched_by_another_one<K: Kind>() {
    let mut inner = K::world();
    let mut outer = K::world();
    let Some(fd) = descriptor::<K>(&inner) else { return };
    // SAFETY: `inner` lives to the end of the test.
    let share = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap();
    let _nested = outer.selector.register(Source::new(share), Interest::READABLE, 1).unwrap();
    let wire = inner.wire();
    let _registration = inner.register(&wire, Interest::READABLE, 2);
    for _ in 0..10 {
        assert!(outer.who().is_empty());
        wire.send();
        assert_eq!(outer.next_seen().data, 1);
        assert_eq!(inner.who(), [2]);
        wire.receive();
        assert!(inner.who().is_empty());

        let notifier = inner.selector.notifier();
        let thread = std::thread::spawn(move || notifier.notify());
        assert_eq!(outer.next_seen().data, 1);
        thread.join().unwrap().unwrap();
        inner.select(Timeout::After(Duration::ZERO)).unwrap();
        assert!(inner.events.is_notified());
    }
}
