//! What goes wrong: refused registrations, numbers closed behind our back, a kernel that says no.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tulipa_selector::{Interest, SelectorError, Source, Timeout, VirtualId};

use crate::common::child::{alone, name_of, traced};
use crate::common::os::{Careless, close_behind_its_back, eventfd, open_descriptors};
use crate::common::{Kind, World, assert_not_early};

const READABLE: Interest = Interest::READABLE;

/// A number that is not open, as a source.
fn closed_source() -> Rc<Careless> {
    let careless = Rc::new(Careless::new(eventfd(0)));
    close_behind_its_back(careless.raw());
    careless
}

/// Whether this kind notices a number that is not open when it is registered. `poll(2)` notices
/// when it waits.
fn notices_closed_numbers<K: Kind>() -> bool {
    K::EPOLL
}

pub(crate) fn an_error_names_the_operation_and_the_descriptor<K: Kind>() {
    alone(&name_of::<K>("an_error_names_the_operation_and_the_descriptor"), || {
        let world = K::world();
        let wire = world.wire();
        let raw = wire.source().raw();
        let _registration = world.register(&wire, READABLE, 1);
        let error = world.selector.register(wire.source(), READABLE, 2).unwrap_err();
        let details = error.get_ref().unwrap().downcast_ref::<SelectorError>().unwrap();
        assert_eq!(details.raw_source(), raw);
        assert_eq!(details.cause().kind(), ErrorKind::AlreadyExists);
        let message = error.to_string();
        assert!(message.contains("register") && message.contains(&raw.unwrap().to_string()));

        if notices_closed_numbers::<K>() {
            let closed = closed_source();
            let raw = closed.raw();
            let error = world.selector.register(closed.into(), READABLE, 3).unwrap_err();
            let details = error.get_ref().unwrap().downcast_ref::<SelectorError>().unwrap();
            assert_eq!(details.raw_source(), Some(raw));
            assert_eq!(details.cause().raw_os_error(), Some(Errno::BADF.raw_os_error()));
            assert!(std::error::Error::source(details).is_some());
            assert!(error.to_string().contains(&format!("descriptor {raw}")), "{error}");
        }
    });
}

pub(crate) fn after_a_failed_registration_nothing_is_registered<K: Kind>() {
    alone(&name_of::<K>("after_a_failed_registration_nothing_is_registered"), || {
        if !notices_closed_numbers::<K>() {
            return;
        }
        let world = K::world();
        let closed = closed_source();
        for _ in 0..3 {
            let error = world.selector.register(closed.clone().into(), READABLE, 1).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::AlreadyExists, "it was rolled back");
            assert!(world.selector.keys().is_empty());
        }
        assert_eq!(Rc::strong_count(&closed), 1, "nobody keeps a share");
        let noted = world.selector.register(closed.into(), Interest::NONE, 1).unwrap();
        assert_eq!(world.selector.keys().len(), 1, "without interest nobody asks the kernel");
        assert!(noted.set_interest(READABLE).is_err());
        assert_eq!(noted.interest(), Interest::NONE);
        assert_eq!(world.selector.keys().len(), 1, "and it stays registered");
    });
}

pub(crate) fn after_a_failed_change_the_interest_is_none_and_may_be_set_again<K: Kind>() {
    alone(&name_of::<K>("after_a_failed_change_the_interest_is_none_and_may_be_set_again"), || {
        if !notices_closed_numbers::<K>() {
            return;
        }
        let mut world = K::world();
        let keeper = eventfd(1);
        let careless = Rc::new(Careless::new(keeper.try_clone().unwrap()));
        let raw = careless.raw();
        let registration = world.selector.register(careless.into(), READABLE, 1).unwrap();
        assert_eq!(world.who(), [1]);
        close_behind_its_back(raw);
        let error = registration.set_interest(READABLE | Interest::WRITABLE).unwrap_err();
        assert!(error.to_string().contains(&raw.to_string()), "{error}");
        assert_eq!(registration.interest(), Interest::NONE);
        assert!(world.seen().is_empty());

        // The number comes back, and with it the source.
        let again = keeper.try_clone().unwrap();
        assert_eq!(again.as_raw_fd(), raw, "the kernel gives the lowest free number");
        registration.set_interest(READABLE).unwrap();
        world.until(|world| !world.seen().is_empty());
        assert_eq!(world.seen()[0].data, 1);
        drop(registration);
        assert!(world.who().is_empty());
    });
}

pub(crate) fn a_virtual_source_is_refused<K: Kind>() {
    let world = K::world();
    let error = world.selector.register(VirtualId(1).into(), READABLE, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(world.selector.keys().is_empty());
}

pub(crate) fn priority_where_there_is_none_is_refused_and_undone<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let result = world.selector.register(wire.source(), READABLE | Interest::PRIORITY, 1);
    if K::EPOLL {
        assert!(result.unwrap().interest().is_priority());
        return;
    }
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    let registration = world.register(&wire, READABLE, 1);
    assert_eq!(world.who(), [1]);
    let error = registration.set_interest(Interest::PRIORITY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(registration.interest(), Interest::NONE);
    assert!(world.who().is_empty());
    registration.set_interest(READABLE).unwrap();
    assert_eq!(world.who(), [1]);
}

pub(crate) fn a_source_closed_behind_our_back_can_be_deregistered<K: Kind>() {
    alone(&name_of::<K>("a_source_closed_behind_our_back_can_be_deregistered"), || {
        let mut world = K::world();
        let careless = Careless::new(eventfd(1));
        let raw = careless.raw();
        let registration = world.selector.register(Source::new(careless), READABLE, 1).unwrap();
        close_behind_its_back(raw);
        let source = registration.deregister().unwrap();
        assert_eq!(source.raw(), Some(raw));
        assert!(world.who().is_empty());

        // Whoever gets the number next can be registered and is heard.
        let next = eventfd(1);
        assert_eq!(next.as_raw_fd(), raw);
        let _next = world.selector.register(Source::new(next), READABLE, 2).unwrap();
        assert_eq!(world.who(), [2]);
    });
}

/// How many waits end before one lasts until its deadline.
fn wakeups(world: &mut World) -> usize {
    for count in 0..100 {
        let deadline = world.selector.now() + Duration::from_millis(20);
        world.select(Timeout::At(deadline)).unwrap();
        if world.selector.now() >= deadline {
            return count;
        }
    }
    panic!("it spins");
}

pub(crate) fn b02_a_closed_source_with_a_live_duplicate_goes_quiet<K: Kind>() {
    alone(&name_of::<K>("b02_a_closed_source_with_a_live_duplicate_goes_quiet"), || {
        let mut world = K::world();
        for interest in [READABLE, Interest::WRITABLE] {
            let (ours, theirs) = crate::common::os::unix_pair();
            let duplicate = ours.try_clone().unwrap();
            let careless = Careless::new(Rc::into_inner(ours).unwrap());
            let raw = careless.raw();
            let registration = world.selector.register(Source::new(careless), interest, 1).unwrap();
            close_behind_its_back(raw);
            drop(registration);
            std::io::Write::write_all(&mut &theirs, b"!").unwrap();
            assert!(wakeups(&mut world) <= 2);
            assert!(world.who().is_empty());
            drop(duplicate);
        }
    });
}

pub(crate) fn b02_a_closed_source_that_is_still_registered_disturbs_nobody<K: Kind>() {
    alone(&name_of::<K>("b02_a_closed_source_that_is_still_registered_disturbs_nobody"), || {
        let mut world = K::world();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let duplicate = ours.try_clone().unwrap();
        let careless = Careless::new(ours);
        let raw = careless.raw();
        let registration = world.selector.register(Source::new(careless), READABLE, 1).unwrap();
        let other = eventfd(1);
        let _other = world.selector.register(Source::new(other), READABLE, 2).unwrap();
        std::io::Write::write_all(&mut &theirs, b"!").unwrap();
        assert_eq!(world.who(), [1, 2]);
        close_behind_its_back(raw);
        for _ in 0..5 {
            assert!(world.who().contains(&2), "what else is ready is reported");
        }
        drop(registration);
        for _ in 0..3 {
            assert_eq!(world.who(), [2]);
        }
        drop(duplicate);
    });
}

pub(crate) fn b02_recovery_keeps_all_other_sources<K: Kind>() {
    alone(&name_of::<K>("b02_recovery_keeps_all_other_sources"), || {
        let mut world = K::world();
        let wires: Vec<_> = (0..4).map(|_| world.wire()).collect();
        let interests = [READABLE, Interest::WRITABLE, Interest::NONE, READABLE];
        let registrations: Vec<_> =
            (0..4).map(|i| world.register(&wires[i], interests[i], i as u64)).collect();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let _file = world.selector.register(Source::new(file), READABLE, 9).unwrap();
        let notifier = world.selector.notifier();

        let duplicate = eventfd(1);
        let careless = Careless::new(duplicate.try_clone().unwrap());
        let raw = careless.raw();
        let orphan = world.selector.register(Source::new(careless), READABLE, 5).unwrap();
        close_behind_its_back(raw);
        drop(orphan);
        wires[0].send();
        wires[2].send();
        world.look();

        assert_eq!(world.who(), [0, 1, 9]);
        registrations[2].set_interest(READABLE).unwrap();
        registrations[1].set_interest(Interest::NONE).unwrap();
        wires[3].send();
        assert_eq!(world.who(), [0, 2, 3, 9]);
        notifier.notify().unwrap();
        world.look();
        assert!(world.events.is_notified());
        drop(registrations);
        assert_eq!(world.who(), [9]);
        drop(_file);
        let thread = std::thread::spawn(move || notifier.notify());
        world.until(|world| world.events.is_notified());
        thread.join().unwrap().unwrap();
        assert!(wakeups(&mut world) <= 2);
    });
}

fn failing_epoll_ctl(when: &str) -> String {
    format!("epoll_ctl:error=ENOMEM:when={when}")
}

pub(crate) fn b20_failing_registrations_leak_nothing<K: Kind>() {
    let injections = ["1+2", "2+3", "3+2", "5+1"].map(failing_epoll_ctl);
    let injections = injections.each_ref().map(String::as_str);
    let name = name_of::<K>("b20_failing_registrations_leak_nothing");
    traced(&name, "epoll_ctl", &injections, register_until_it_works::<K>, |_| {});
}

fn register_until_it_works<K: Kind>() {
    let before = open_descriptors();
    let Ok(world) = std::panic::catch_unwind(K::world) else {
        assert_eq!(open_descriptors(), before, "nothing is left of a selector that could not be");
        return;
    };
    let with_selector = open_descriptors().len();
    for turn in 0..50 {
        let wire = world.wire();
        match world.selector.register(wire.source(), READABLE, 1) {
            Ok(registration) => {
                if let Err(error) = registration.set_interest(Interest::WRITABLE) {
                    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                    assert_eq!(registration.interest(), Interest::NONE);
                }
                assert_eq!(world.selector.keys().len(), 1);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
                let details = error.get_ref().unwrap().downcast_ref::<SelectorError>().unwrap();
                assert_eq!(details.raw_source(), wire.source().raw());
            }
        }
        assert!(world.selector.keys().is_empty(), "turn {turn}");
        drop(wire);
        assert_eq!(open_descriptors().len(), with_selector, "turn {turn}");
    }
    drop(world);
    assert_eq!(open_descriptors(), before);
}

pub(crate) fn b21_a_failing_wait_loses_no_event<K: Kind>() {
    let injections = ["6+2", "7+3", "8+5", "9+7"].map(failing_epoll_ctl);
    let injections = injections.each_ref().map(String::as_str);
    let name = name_of::<K>("b21_a_failing_wait_loses_no_event");
    traced(&name, "epoll_ctl", &injections, wait_until_it_works::<K>, |_| {});
}

fn wait_until_it_works<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, READABLE, 1);
    for turn in 0..50 {
        wire.send();
        let served = (0..100).any(|_| match world.select(Duration::from_millis(50)) {
            Ok(()) => world.seen().iter().any(|seen| seen.ready == READABLE),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
                false
            }
        });
        assert!(served, "turn {turn}");
        wire.receive();
    }
    // A deadline is not cut short by what failed before.
    let deadline = world.selector.now() + Duration::from_millis(5);
    while world.selector.now() < deadline {
        let _ = world.select(Timeout::At(deadline));
    }
    assert_not_early(world.selector.now(), deadline);
}
