//! The bugs of the catalogue (`B01` to `B32`) that concern this layer and have no test of their name
//! in the contract.
//!
//! | row | where |
//! |---|---|
//! | B01, B26, B27 | `contract/hygiene.rs`; B26 here too |
//! | B02, B20, B21 | `contract/errors.rs` |
//! | B03 | `contract/ownership.rs` |
//! | B04, B06, B10, B16, B18, B24 | here; B06 also in `common/behaviours.rs`, B16 in `stress.rs` |
//! | B05 | `common/behaviours.rs`, on every selector |
//! | B07 | `common/behaviours.rs` and `contract/readiness.rs` |
//! | B08, B09, B28 | `contract/readiness.rs` |
//! | B11, B23 | `contract/waiting.rs` |
//! | B22 | `contract/files.rs` |
//! | B25 | `common/notices.rs`, and the unit tests of `epoll.rs` |
//! | B36, B37, B38, B39 | loom and unit tests of `notifier.rs`; `common/notices.rs`, `syscalls.rs` |
//! | B12 to B15, B17, B19, B29 to B32 | above this layer: accepting, writing, tasks, addresses |
#![cfg(all(target_os = "linux", not(miri)))]

mod common;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::child::{alone, begin, end, traced};
use common::os::{Default, Epoll, Polling, PollingOneshot, eventfd, open_descriptors};
use common::{SelectorKind, World};
use proptest::prelude::*;
use rustix::io::Errno;
use tulipa_selector::{
    DefaultSelector, EpollSelector, Events, Interest, Notifier, PollingSelector, Registration,
    Selector, SelectorError, Source, Timeout, Token, VirtualHandle, VirtualSelector,
};

const READABLE: Interest = Interest::READABLE;

#[test]
fn b04_each_descriptor_is_closed_once() {
    traced(
        "b04_each_descriptor_is_closed_once",
        "close",
        &[],
        || {
            begin();
            for world in worlds() {
                let wires: Vec<_> = (0..4).map(|_| world.wire()).collect();
                let registrations: Vec<_> =
                    wires.iter().map(|wire| world.register(wire, READABLE, 1)).collect();
                assert!(world.selector.register(wires[0].source(), READABLE, 2).is_err());
                drop(wires);
                world.selector.close();
                drop(registrations);
            }
            end();
        },
        |calls| {
            assert!(calls.iter().any(|call| call.name == "close"));
            let twice: Vec<_> = calls.iter().filter(|call| call.line.contains("EBADF")).collect();
            assert!(twice.is_empty(), "{twice:?}");
        },
    );
}

fn worlds() -> [World; 4] {
    [Epoll::world(), Polling::world(), PollingOneshot::world(), Default::world()]
}

#[derive(Clone, Debug)]
enum Act {
    Register,
    Drop(usize),
    Mask(usize),
    Unmask(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Register),
        any::<usize>().prop_map(Act::Drop),
        any::<usize>().prop_map(Act::Mask),
        any::<usize>().prop_map(Act::Unmask),
    ]
}

/// What a callback of the batch may meet: only what is alive and wanted at that moment.
fn callbacks_change_registrations(mut world: World, rounds: &[Vec<Act>]) {
    let mut alive: BTreeMap<Token, Registration> = BTreeMap::new();
    let mut next = 0;
    let mut register = |alive: &mut BTreeMap<Token, Registration>, world: &World| {
        let source = Source::new(eventfd(1));
        let registration = world.selector.register(source, READABLE, next).expect("it is new");
        next += 1;
        assert!(alive.insert(registration.token(), registration).is_none());
    };
    (0..4).for_each(|_| register(&mut alive, &world));
    for acts in rounds {
        world.select(Timeout::Immediate).expect("looking never fails");
        let mut acts = acts.iter();
        for event in &world.events {
            let registration = alive.get(&event.token()).expect("its registration is alive");
            assert!(registration.interest().contains(event.ready()));
            assert_eq!(world.selector.get_key(event.token()).expect("alive").data, event.data());
            let pick = |index: usize| alive.keys().nth(index % alive.len().max(1)).copied();
            match acts.next() {
                Some(Act::Register) => register(&mut alive, &world),
                Some(Act::Drop(index)) => {
                    let token = pick(*index);
                    token.and_then(|token| alive.remove(&token));
                }
                Some(Act::Mask(index)) => {
                    let token = pick(*index).expect("the event's own is alive");
                    alive[&token].set_interest(Interest::NONE).expect("it is open");
                }
                Some(Act::Unmask(index)) => {
                    let token = pick(*index).expect("the event's own is alive");
                    alive[&token].set_interest(READABLE).expect("it is open");
                }
                None => {}
            }
        }
        // The next wait reports exactly what wants to be.
        let wanting: Vec<_> = alive
            .iter()
            .filter(|(_, registration)| !registration.interest().is_none())
            .map(|(token, _)| *token)
            .collect();
        world.select(Timeout::Immediate).expect("looking never fails");
        let mut reported: Vec<_> = world.events.iter().map(|event| event.token()).collect();
        reported.sort();
        assert_eq!(reported, wanting);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn b06_callbacks_meet_only_what_is_alive(
        rounds in proptest::collection::vec(proptest::collection::vec(act(), 0..8), 1..12),
    ) {
        for world in worlds() {
            callbacks_change_registrations(world, &rounds);
        }
    }
}

#[test]
fn b10_a_wait_that_brings_nothing_is_nothing_special() {
    // A datagram with a bad checksum cannot be made here; taking the data away before the read is
    // the same thing one layer up.
    for mut world in worlds() {
        let wire = world.wire();
        let _registration = world.register(&wire, READABLE, 1);
        wire.send();
        assert_eq!(world.who(), [1]);
        wire.receive();
        assert_eq!(world.seen().len(), 1, "readiness is a hint, taken at the time of the wait");
        assert!(world.who().is_empty());
        wire.send();
        assert_eq!(world.who(), [1]);
    }
}

#[test]
fn b16_an_eventfd_of_ours_is_reported_at_every_write() {
    for mut world in worlds() {
        let counter = std::rc::Rc::new(eventfd(0));
        let registration =
            world.selector.register(counter.clone().into(), READABLE, 1).expect("it is new");
        for turn in 0..1000 {
            rustix::io::write(&counter, &1u64.to_ne_bytes()).expect("room");
            if turn % 2 == 0 {
                // What edge-triggered users relied on to trigger again.
                registration.set_interest(READABLE | Interest::WRITABLE).expect("it is open");
                registration.set_interest(READABLE).expect("it is open");
            }
            assert_eq!(world.who(), [1]);
            rustix::io::read(&counter, &mut [0; 8]).expect("a count");
            assert!(world.who().is_empty());
        }
    }
}

#[test]
fn b18_taking_an_interest_back_and_again_neither_spins_nor_hangs() {
    for mut world in worlds() {
        let wire = world.wire();
        let registration = world.register(&wire, READABLE, 1);
        wire.send();
        assert_eq!(world.who(), [1]);
        registration.set_interest(Interest::NONE).expect("it is open");
        let deadline = world.selector.now() + Duration::from_millis(5);
        world.select(Timeout::At(deadline)).expect("waiting never fails");
        common::assert_not_early(world.selector.now(), deadline);
        registration.set_interest(READABLE).expect("it is open");
        world.select(Timeout::Never).expect("waiting never fails");
        assert_eq!(world.seen().len(), 1);
    }
}

#[test]
fn b26_a_selector_that_cannot_be_made_leaves_nothing_behind() {
    let failing = [
        "epoll_create1:error=EMFILE",
        "eventfd2:error=EMFILE",
        "timerfd_create:error=EMFILE",
        "pipe2:error=EMFILE",
        "epoll_ctl:error=ENOMEM:when=1",
        "epoll_ctl:error=ENOMEM:when=2",
    ];
    let calls = "epoll_create1,eventfd2,timerfd_create,pipe2,epoll_ctl";
    let test = "b26_a_selector_that_cannot_be_made_leaves_nothing_behind";
    traced(
        test,
        calls,
        &failing,
        || {
            let before = open_descriptors();
            for make in [make_epoll, make_polling, make_default] {
                if let Err(error) = make() {
                    let details = error.get_ref().expect("details");
                    let details = details.downcast_ref::<SelectorError>().expect("ours");
                    let refused =
                        [Errno::NOMEM, Errno::MFILE].map(|errno| Some(errno.raw_os_error()));
                    assert!(refused.contains(&details.cause().raw_os_error()), "{error}");
                    assert!(error.to_string().starts_with("cannot create"), "{error}");
                }
                assert_eq!(open_descriptors(), before);
            }
        },
        |_| {},
    );
}

fn make_epoll() -> std::io::Result<()> {
    EpollSelector::new().map(drop)
}

fn make_polling() -> std::io::Result<()> {
    PollingSelector::new().map(drop)
}

fn make_default() -> std::io::Result<()> {
    DefaultSelector::new().map(drop)
}

#[test]
fn b26_without_a_free_descriptor_nothing_breaks() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone("b26_without_a_free_descriptor_nothing_breaks", || {
        for mut world in worlds() {
            let wire = world.wire();
            let spare = world.wire();
            let limits = getrlimit(Resource::Nofile);
            let none = Rlimit { current: Some(0), maximum: limits.maximum };
            setrlimit(Resource::Nofile, none).expect("less is allowed");
            assert!(EpollSelector::new().is_err() && PollingSelector::new().is_err());
            assert!(DefaultSelector::new().is_err());
            let result = world.selector.register(wire.source(), READABLE, 1);
            wire.send();
            // poll(2) counts what it is given against the limit; epoll does not.
            if let Ok(registration) = &result {
                if world.select(Timeout::Immediate).is_ok() {
                    assert_eq!(world.seen().len(), 1);
                }
                registration.set_interest(Interest::WRITABLE).expect("no descriptor is needed");
            }
            setrlimit(Resource::Nofile, limits).expect("what it was");
            let _spare = world.register(&spare, READABLE, 2);
            spare.send();
            assert!(world.who().contains(&2), "and it works again");
        }
    });
}

#[test]
fn b26_an_orphan_without_a_free_descriptor_is_dealt_with_later() {
    use common::os::{Careless, close_behind_its_back};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone("b26_an_orphan_without_a_free_descriptor_is_dealt_with_later", || {
        let mut world = Epoll::world();
        let wire = world.wire();
        let _registration = world.register(&wire, READABLE, 1);
        wire.send();
        let duplicate: OwnedFd = eventfd(1);
        let careless = Careless::new(duplicate.try_clone().expect("a duplicate"));
        let raw = careless.raw();
        let orphan =
            world.selector.register(Source::new(careless), READABLE, 2).expect("it is new");
        close_behind_its_back(raw);
        drop(orphan);
        let limits = getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(0), maximum: limits.maximum };
        setrlimit(Resource::Nofile, none).expect("less is allowed");
        assert_eq!(world.who(), [1], "those who are ready do not wait for the descriptor");
        wire.receive();
        let error = world.select(Timeout::Immediate).expect_err("no descriptor for a new epoll");
        assert!(error.to_string().contains("rebuild"), "{error}");
        setrlimit(Resource::Nofile, limits).expect("what it was");
        world.select(Timeout::Immediate).expect("there is a descriptor now");
        let deadline = world.selector.now() + Duration::from_millis(5);
        world.select(Timeout::At(deadline)).expect("waiting never fails");
        common::assert_not_early(world.selector.now(), deadline);
    });
}

/// Compiles for one `Marker` only where `T` is not `Send` (or `Sync`): otherwise it is ambiguous
/// which `item` is meant.
trait AmbiguousIfSend<Marker> {
    fn item() {}
}
impl<T: ?Sized> AmbiguousIfSend<()> for T {}
impl<T: ?Sized + Send> AmbiguousIfSend<PhantomData<T>> for T {}

trait AmbiguousIfSync<Marker> {
    fn item() {}
}
impl<T: ?Sized> AmbiguousIfSync<()> for T {}
impl<T: ?Sized + Sync> AmbiguousIfSync<PhantomData<T>> for T {}

macro_rules! assert_stays_on_its_thread {
    ($($type:ty),*) => { $(
        <$type as AmbiguousIfSend<_>>::item();
        <$type as AmbiguousIfSync<_>>::item();
    )* };
}

#[test]
fn b24_a_selector_stays_on_its_thread_and_a_notifier_goes_anywhere() {
    assert_stays_on_its_thread!(
        EpollSelector,
        PollingSelector,
        DefaultSelector,
        VirtualSelector,
        VirtualHandle,
        Registration,
        Events,
        Source,
        Box<dyn Selector>
    );
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    fn across<T: Send + Sync + 'static>() {}
    anywhere::<Notifier>();
    anywhere::<Token>();
    anywhere::<Interest>();
    anywhere::<Timeout>();
    across::<SelectorError>();
    across::<tulipa_selector::Hold>();
    across::<tulipa_selector::Event>();
}
