//! Descriptors: none leaks, none is inherited, none of somebody else's is touched. These tests run
//! alone in their process, because numbers belong to the process.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use tulipa_selector::{Interest, Source};

use crate::common::child::{alone, name_of};
use crate::common::os::{CLOEXEC, eventfd, flags, open_descriptors};
use crate::common::{Kind, Wire};

pub(crate) fn every_descriptor_is_closed_on_exec<K: Kind>() {
    alone(&name_of::<K>("every_descriptor_is_closed_on_exec"), || {
        let before = open_descriptors();
        let world = K::world();
        world.selector.backend_fd();
        let ours: Vec<_> =
            open_descriptors().into_iter().filter(|open| !before.contains(open)).collect();
        assert!(!ours.is_empty());
        for (fd, what) in ours {
            assert_ne!(flags(fd).unwrap() & CLOEXEC, 0, "{fd} {what} is inherited");
        }
    });
}

pub(crate) fn b26_everything_is_given_back_when_the_selector_is_dropped<K: Kind>() {
    alone(&name_of::<K>("b26_everything_is_given_back_when_the_selector_is_dropped"), || {
        let before = open_descriptors();
        let mut world = K::world();
        let wires: Vec<_> = (0..10).map(|_| world.wire()).collect();
        let registrations: Vec<_> =
            wires.iter().map(|wire| world.register(wire, Interest::READABLE, 1)).collect();
        wires.iter().for_each(Wire::send);
        assert_eq!(world.who().len(), 10);
        let notifier = world.selector.notifier();
        notifier.notify().unwrap();
        drop(wires);
        drop(world);
        drop(notifier);
        // What a registration still needs of it is its bell, if that is a descriptor.
        assert!(open_descriptors().len() <= before.len() + 1);
        drop(registrations);
        assert_eq!(open_descriptors(), before);
    });
}

pub(crate) fn b26_close_gives_everything_back_while_registrations_live<K: Kind>() {
    alone(&name_of::<K>("b26_close_gives_everything_back_while_registrations_live"), || {
        let before = open_descriptors();
        let world = K::world();
        let registrations: Vec<_> =
            (0..10).map(|_| world.register(&world.wire(), Interest::READABLE, 1)).collect();
        assert!(open_descriptors().len() > before.len() + 10);
        world.selector.close();
        // The bell is shared with notifiers, of which the selector can still make more.
        assert!(open_descriptors().len() <= before.len() + 1, "{:?}", open_descriptors());
        drop(registrations);
        drop(world);
        assert_eq!(open_descriptors(), before);
    });
}

pub(crate) fn a_live_notifier_keeps_no_more_than_its_bell<K: Kind>() {
    alone(&name_of::<K>("a_live_notifier_keeps_no_more_than_its_bell"), || {
        let before = open_descriptors();
        let world = K::world();
        let notifier = world.selector.notifier();
        let _registration = world.register(&world.wire(), Interest::READABLE, 1);
        drop(world);
        assert!(open_descriptors().len() <= before.len() + 1, "{:?}", open_descriptors());
        drop(notifier);
    });
}

pub(crate) fn b01_a_later_file_with_the_same_number_gets_no_event_of_the_earlier_one<K: Kind>() {
    let test = "b01_a_later_file_with_the_same_number_gets_no_event_of_the_earlier_one";
    alone(&name_of::<K>(test), || {
        let mut world = K::world();
        let (first, first_peer) = UnixStream::pair().unwrap();
        let (second, second_peer) = UnixStream::pair().unwrap();
        let number = second.as_raw_fd();
        let _first = world.selector.register(Source::new(first), Interest::READABLE, 1).unwrap();
        let second = world.selector.register(Source::new(second), Interest::READABLE, 2).unwrap();
        for mut peer in [&first_peer, &second_peer] {
            std::io::Write::write_all(&mut peer, b"!").unwrap();
        }
        assert_eq!(world.who(), [1, 2]);
        // The first callback closes the second socket and opens another one.
        drop(second);
        let heir = eventfd(0);
        assert_eq!(heir.as_raw_fd(), number, "the kernel gives the lowest free number");
        let heir = Rc::new(heir);
        let registration =
            world.selector.register(heir.clone().into(), Interest::READABLE, 3).unwrap();
        assert_eq!(world.seen().len(), 1, "neither the dead nor the heir has an event");
        assert_eq!(world.seen()[0].data, 1);
        assert_eq!(world.who(), [1], "nor has the kernel kept one");
        rustix::io::write(&heir, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(world.who(), [1, 3]);
        drop(registration);
        assert_eq!(world.who(), [1]);
    });
}

pub(crate) fn b27_flags_of_a_source_are_left_alone<K: Kind>() {
    alone(&name_of::<K>("b27_flags_of_a_source_are_left_alone"), || {
        let mut world = K::world();
        let (blocking, _peer) = UnixStream::pair().unwrap();
        let non_blocking = eventfd(1);
        let standard: Vec<_> = (0..3).map(|fd| flags(fd).unwrap()).collect();
        let before =
            [flags(blocking.as_raw_fd()).unwrap(), flags(non_blocking.as_raw_fd()).unwrap()];
        let (blocking, non_blocking) = (Rc::new(blocking), Rc::new(non_blocking));
        for source in [Source::from(blocking.clone()), Source::from(non_blocking.clone())] {
            let registration = world.selector.register(source, Interest::READABLE, 1).unwrap();
            world.look();
            registration.set_interest(Interest::WRITABLE).unwrap();
            world.look();
        }
        assert_eq!(
            [flags(blocking.as_raw_fd()).unwrap(), flags(non_blocking.as_raw_fd()).unwrap()],
            before
        );
        let stdin = world.selector.register(Source::new(std::io::stdin()), Interest::READABLE, 1);
        world.look();
        drop(stdin);
        assert_eq!((0..3).map(|fd| flags(fd).unwrap()).collect::<Vec<_>>(), standard);
    });
}
