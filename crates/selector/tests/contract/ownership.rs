//! Who owns a source, when it is dropped, and what its own code may do meanwhile: anything.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;

use tulipa_selector::{Events, Interest, Registration, Selector, Source, Timeout};

use crate::common::Kind;
use crate::common::os::{Hooked, eventfd};

const READABLE: Interest = Interest::READABLE;

/// Uses everything a selector has.
fn use_it(selector: &Rc<Box<dyn Selector>>) {
    let mine = selector.register(Source::new(eventfd(1)), READABLE, 99).unwrap();
    mine.set_interest(Interest::WRITABLE).unwrap();
    mine.set_interest(READABLE).unwrap();
    mine.set_data(98).unwrap();
    let mut events = Events::new();
    selector.select(&mut events, Timeout::Immediate).unwrap();
    assert!(events.iter().any(|event| event.data() == 98));
    assert!(selector.get_key(mine.token()).is_some());
    assert!(selector.keys().iter().any(|key| key.data == 98));
    selector.notifier().notify().unwrap();
    selector.backend_fd();
    assert!(!format!("{selector:?}").is_empty());
    mine.deregister().unwrap();
}

fn shared<K: Kind>() -> Rc<Box<dyn Selector>> {
    Rc::new(K::world().selector)
}

pub(crate) fn one_source_may_be_registered_with_several_selectors<K: Kind>() {
    let (mut one, mut two) = (K::world(), K::world());
    let wire = one.wire();
    let first = one.register(&wire, READABLE, 1);
    let second = two.register(&wire, READABLE, 2);
    wire.send();
    assert_eq!((one.who(), two.who()), (vec![1], vec![2]));
    first.set_interest(Interest::NONE).unwrap();
    assert_eq!((one.who(), two.who()), (vec![], vec![2]));
    drop(second);
    first.set_interest(READABLE).unwrap();
    assert_eq!((one.who(), two.who()), (vec![1], vec![]));
}

pub(crate) fn a_source_is_dropped_once_when_it_is_deregistered<K: Kind>() {
    let world = K::world();
    let drops = Rc::new(Cell::new(0));
    let register = || {
        let source = Source::new(Hooked::counting(eventfd(1), &drops));
        world.selector.register(source, READABLE, 1).unwrap()
    };
    let registration = register();
    assert_eq!(drops.get(), 0);
    let source = registration.deregister().unwrap();
    assert_eq!(drops.get(), 0, "it was given back");
    drop(source);
    assert_eq!(drops.get(), 1);
    drop(register());
    assert_eq!(drops.get(), 2);

    // A share of it outlives the registration.
    let registration = register();
    let key = registration.key().unwrap();
    drop(registration);
    assert_eq!(drops.get(), 2);
    drop(key);
    assert_eq!(drops.get(), 3);
}

pub(crate) fn a_source_is_dropped_once_when_the_selector_closes<K: Kind>() {
    let drops = Rc::new(Cell::new(0));
    for explicit in [true, false] {
        drops.set(0);
        let world = K::world();
        let registrations: Vec<_> = [READABLE, Interest::NONE]
            .into_iter()
            .map(|interest| {
                let source = Source::new(Hooked::counting(eventfd(1), &drops));
                world.selector.register(source, interest, 1).unwrap()
            })
            .collect();
        if explicit {
            world.selector.close();
            assert_eq!(drops.get(), 2);
        }
        drop(world);
        assert_eq!(drops.get(), 2);
        drop(registrations);
        assert_eq!(drops.get(), 2);
    }
}

pub(crate) fn a_refused_source_is_dropped_once<K: Kind>() {
    let world = K::world();
    let drops = Rc::new(Cell::new(0));
    let source = Source::new(Hooked::counting(eventfd(1), &drops));
    let _registration = world.selector.register(source.clone(), READABLE, 1).unwrap();
    assert!(world.selector.register(source, READABLE, 1).is_err());
    assert_eq!(drops.get(), 0);
    world.selector.close();
    assert_eq!(drops.get(), 1);
    let late = Source::new(Hooked::counting(eventfd(1), &drops));
    assert!(world.selector.register(late, READABLE, 1).is_err());
    assert_eq!(drops.get(), 2);
}

pub(crate) fn destructors_may_use_the_selector_when_a_registration_ends<K: Kind>() {
    let selector = shared::<K>();
    for by_drop in [true, false] {
        let ran = Rc::new(Cell::new(false));
        let (inner, told) = (selector.clone(), ran.clone());
        let source = Hooked::new(eventfd(1)).when_dropped(move || {
            use_it(&inner);
            told.set(true);
        });
        let registration = selector.register(Source::new(source), READABLE, 1).unwrap();
        if by_drop {
            drop(registration);
        } else {
            drop(registration.deregister());
        }
        assert!(ran.get());
        assert!(selector.keys().is_empty());
    }
    // A destructor that closes the selector in the middle of everything.
    let inner = selector.clone();
    let source = Hooked::new(eventfd(1)).when_dropped(move || inner.close());
    let registration = selector.register(Source::new(source), READABLE, 1).unwrap();
    let other = selector.register(Source::new(eventfd(1)), READABLE, 2).unwrap();
    drop(registration);
    assert!(selector.is_closed());
    assert_eq!(other.deregister().unwrap_err().kind(), ErrorKind::NotConnected);
}

pub(crate) fn destructors_may_use_the_selector_when_it_closes<K: Kind>() {
    for explicit in [true, false] {
        let world = K::world();
        let selector = Rc::new(world.selector);
        let sibling = Rc::new(RefCell::new(None::<Registration>));
        let ran = Rc::new(Cell::new(0));
        let weak = Rc::downgrade(&selector);
        let (theirs, told) = (sibling.clone(), ran.clone());
        let source = Hooked::new(eventfd(1)).when_dropped(move || {
            told.set(told.get() + 1);
            let registration = theirs.borrow_mut().take();
            drop(registration);
            // When the selector itself is being dropped there is nothing left to ask.
            let Some(selector) = weak.upgrade() else { return };
            assert!(selector.is_closed());
            let late = selector.register(Source::new(eventfd(1)), READABLE, 9);
            assert_eq!(late.unwrap_err().kind(), ErrorKind::NotConnected);
            assert!(selector.keys().is_empty());
            let mut events = Events::new();
            assert!(selector.select(&mut events, Timeout::Never).is_err());
            selector.close();
            assert!(!format!("{selector:?}").is_empty());
        });
        let registration = selector.register(Source::new(source), READABLE, 1).unwrap();
        *sibling.borrow_mut() =
            Some(selector.register(Source::new(eventfd(1)), READABLE, 2).unwrap());
        if explicit {
            selector.close();
        }
        drop(selector);
        assert_eq!(ran.get(), 1);
        drop(registration);
        assert!(sibling.borrow().is_none());
    }
}

pub(crate) fn destructors_of_refused_sources_may_use_the_selector<K: Kind>() {
    let selector = shared::<K>();
    let ran = Rc::new(Cell::new(0));
    // Two objects that say they have the same descriptor: the second one is refused.
    let fd = Rc::new(eventfd(1));
    let _registration = selector.register(fd.clone().into(), READABLE, 1).unwrap();
    let (inner, told) = (selector.clone(), ran.clone());
    let same = Alias(
        fd,
        Some(Box::new(move || {
            use_it(&inner);
            told.set(told.get() + 1);
        })),
    );
    let error = selector.register(Source::new(same), READABLE, 2).unwrap_err();
    assert_eq!((error.kind(), ran.get()), (ErrorKind::AlreadyExists, 1));

    selector.close();
    let (inner, told) = (selector.clone(), ran.clone());
    let late = Hooked::new(eventfd(1)).when_dropped(move || {
        assert!(inner.is_closed() && inner.keys().is_empty());
        told.set(told.get() + 1);
    });
    let error = selector.register(Source::new(late), READABLE, 3).unwrap_err();
    assert_eq!((error.kind(), ran.get()), (ErrorKind::NotConnected, 2));
}

/// Another name for a descriptor, with a destructor.
struct Alias(Rc<std::os::fd::OwnedFd>, Option<Box<dyn FnOnce()>>);

impl std::os::fd::AsFd for Alias {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        if let Some(f) = self.1.take() {
            f();
        }
    }
}

pub(crate) fn as_fd_may_use_the_selector<K: Kind>() {
    let selector = shared::<K>();
    let inner = selector.clone();
    let source = Hooked::new(eventfd(1)).when_asked(move || use_it(&inner));
    let registration = selector.register(Source::new(source), READABLE, 1).unwrap();
    assert_eq!(selector.keys().len(), 1);
    drop(registration);

    let inner = selector.clone();
    let source = Hooked::new(eventfd(1)).when_asked(move || inner.close());
    let error = selector.register(Source::new(source), READABLE, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
}

pub(crate) fn a_source_may_own_its_registration<K: Kind>() {
    let mut world = K::world();
    let owned = Rc::new(RefCell::new(None));
    let ended = Rc::new(Cell::new(false));
    let (theirs, told) = (owned.clone(), ended.clone());
    let source = Hooked::new(eventfd(1)).when_dropped(move || {
        // What a connection that keeps its registration does in its destructor.
        let registration: Option<Registration> = theirs.borrow_mut().take();
        drop(registration);
        told.set(true);
    });
    *owned.borrow_mut() = Some(world.selector.register(Source::new(source), READABLE, 1).unwrap());
    assert_eq!(world.who(), [1]);
    world.selector.close();
    assert!(ended.get(), "closing breaks the cycle");
}

pub(crate) fn b03_registering_again_in_the_same_turn_loses_nothing<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    for turn in 0..1000 {
        let cancelled = world.register(&wire, READABLE, 0);
        if turn % 3 == 0 {
            assert_eq!(world.who(), [0]);
        }
        drop(cancelled);
        let _again = world.register(&wire, READABLE, turn);
        if turn % 3 == 0 {
            assert!(world.seen().is_empty());
        }
        assert_eq!(world.who(), [turn]);
    }
}
