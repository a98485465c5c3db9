//! What every selector does, virtual ones included: registrations, keys, batches.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;

use tulipa_selector::{DEFAULT_EVENTS, Events, Interest, Timeout, Token};

use super::{Seen, SelectorKind};

const READABLE: Interest = Interest::READABLE;
const WRITABLE: Interest = Interest::WRITABLE;

fn both() -> Interest {
    READABLE | WRITABLE
}

fn plain(data: u64, ready: Interest) -> Seen {
    Seen { data, ready, hangup: false, error: false }
}

pub fn a_ready_source_is_reported_with_its_data_and_its_token<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let registration = world.register(&wire, READABLE, u64::MAX);
    assert!(world.look().is_empty());
    wire.send();
    assert_eq!(world.look(), [plain(u64::MAX, READABLE)]);
    let event = world.events.iter().next().unwrap();
    assert_eq!(event.token(), registration.token());
    assert!(event.is_readable() && !event.is_writable() && !event.is_priority());
    assert_eq!((&world.events).into_iter().count(), 1);
}

pub fn every_interest_can_be_registered_and_read_back<K: SelectorKind>() {
    let mut world = K::world();
    for interest in [Interest::NONE, READABLE, WRITABLE, both()] {
        let wire = world.wire();
        wire.send();
        let registration = world.register(&wire, interest, 0);
        assert_eq!(registration.interest(), interest);
        let expected = (!interest.is_none()).then_some(plain(0, interest));
        assert_eq!(world.look(), expected.into_iter().collect::<Vec<_>>());
    }
}

pub fn no_interest_reports_nothing_and_stays_registered<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, Interest::NONE, 3);
    assert!(world.look().is_empty());
    assert_eq!(world.events.len(), 0, "the operating system does not see it");
    assert_eq!(world.selector.keys().len(), 1);
    registration.set_interest(READABLE).unwrap();
    assert_eq!(world.look(), [plain(3, READABLE)]);
}

pub fn a_source_is_reported_until_it_is_served<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, READABLE, 1);
    wire.send();
    for _ in 0..5 {
        assert_eq!(world.who(), [1]);
    }
    wire.receive();
    assert!(world.who().is_empty());
    wire.send();
    assert_eq!(world.who(), [1]);
}

pub fn registering_twice_is_an_error_and_changes_nothing<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    let error = world.selector.register(wire.source(), WRITABLE, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(world.look(), [plain(1, READABLE)]);
    assert_eq!(world.selector.keys().len(), 1);
    registration.set_interest(Interest::NONE).unwrap();
    let error = world.selector.register(wire.source(), WRITABLE, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "without interest too");
}

pub fn a_deregistered_source_can_be_registered_again_under_another_token<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let mut tokens = HashSet::new();
    for data in 0..if cfg!(miri) { 10 } else { 100 } {
        let registration = world.register(&wire, READABLE, data);
        assert!(tokens.insert(registration.token()), "a token is used once");
        assert_eq!(world.who(), [data]);
        if data % 2 == 0 {
            registration.deregister().unwrap();
        }
    }
}

pub fn deregistering_gives_the_source_back<K: SelectorKind>() {
    let world = K::world();
    let wire = world.wire();
    let registration = world.register(&wire, READABLE, 1);
    let token = registration.token();
    let source = registration.deregister().unwrap();
    assert_eq!(source.raw(), wire.source().raw());
    assert_eq!(source.virtual_id(), wire.source().virtual_id());
    assert!(world.selector.get_key(token).is_none());
    assert!(world.selector.keys().is_empty());
}

pub fn dropping_a_registration_ends_the_watch<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    assert_eq!(world.who(), [1]);
    drop(registration);
    assert!(world.who().is_empty());
    assert_eq!(world.events.len(), 0);
    assert!(world.selector.keys().is_empty());
}

pub fn a_changed_interest_changes_what_is_reported<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    for interest in [WRITABLE, both(), READABLE, Interest::NONE, both(), Interest::NONE, WRITABLE] {
        registration.set_interest(interest).unwrap();
        assert_eq!(registration.interest(), interest);
        let expected = (!interest.is_none()).then_some(plain(1, interest));
        assert_eq!(world.look(), expected.into_iter().collect::<Vec<_>>());
    }
}

pub fn the_same_interest_again_changes_nothing<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    assert_eq!(world.who(), [1]);
    registration.set_interest(READABLE).unwrap();
    assert_eq!(world.seen(), [plain(1, READABLE)], "nor does it disturb the batch at hand");
    assert_eq!(world.who(), [1]);
}

pub fn changed_data_is_reported_at_once<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    assert_eq!(world.who(), [1]);
    registration.set_data(2).unwrap();
    assert_eq!(world.seen()[0].data, 2, "in the batch at hand too");
    assert_eq!(world.who(), [2]);
    assert_eq!(registration.key().unwrap().data, 2);
}

pub fn keys_tell_what_is_registered<K: SelectorKind>() {
    let world = K::world();
    let wires: Vec<_> = (0..5).map(|_| world.wire()).collect();
    let mut registrations: Vec<_> =
        wires.iter().zip(0..).map(|(wire, data)| world.register(wire, READABLE, data)).collect();
    registrations[3].set_interest(Interest::NONE).unwrap();
    drop(registrations.remove(1));

    let mut keys = world.selector.keys();
    keys.sort_by_key(|key| key.data);
    assert_eq!(keys.iter().map(|key| key.data).collect::<Vec<_>>(), [0, 2, 3, 4]);
    for (key, registration) in keys.iter().zip(&registrations) {
        let same = world.selector.get_key(registration.token()).unwrap();
        assert_eq!((key.token, key.interest), (registration.token(), registration.interest()));
        assert_eq!((same.token, same.data, same.interest), (key.token, key.data, key.interest));
        let wire = wires[key.data as usize].source();
        assert_eq!(key.source.raw(), wire.raw());
        assert_eq!(key.source.virtual_id(), wire.virtual_id());
        assert_eq!(registration.key().unwrap().token, key.token);
    }
    assert!(world.selector.get_key(Token::new(u32::MAX, u32::MAX)).is_none());
}

pub fn indices_are_dense_and_tokens_are_never_used_again<K: SelectorKind>() {
    let world = K::world();
    let wires: Vec<_> = (0..8).map(|_| world.wire()).collect();
    let mut seen = HashSet::new();
    for round in 0..20 {
        let registrations: Vec<_> = wires
            .iter()
            .take(1 + round % 8)
            .map(|wire| world.register(wire, READABLE, 0))
            .collect();
        for registration in &registrations {
            let token = registration.token();
            assert!(token.index() < 8);
            assert!(seen.insert(token.to_bits()), "{token:?} was used before");
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}

pub fn after_close_everything_is_an_error<K: SelectorKind>() {
    let mut world = K::world();
    let (wire, other) = (world.wire(), world.wire());
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    assert_eq!(world.who(), [1]);
    let notifier = world.selector.notifier();
    assert!(!world.selector.is_closed());
    world.selector.close();

    assert!(world.selector.is_closed());
    assert!(world.seen().is_empty(), "nor does the batch at hand report anything");
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(world.selector.register(other.source(), READABLE, 1).map(drop)),
        ErrorKind::NotConnected
    );
    assert_eq!(kind(world.select(Timeout::Immediate)), ErrorKind::NotConnected);
    assert_eq!(kind(world.select(Timeout::Never)), ErrorKind::NotConnected);
    assert_eq!(kind(registration.set_interest(WRITABLE)), ErrorKind::NotConnected);
    assert_eq!(kind(registration.set_data(2)), ErrorKind::NotConnected);
    assert_eq!(kind(notifier.notify()), ErrorKind::NotConnected);
    assert_eq!(kind(world.selector.notifier().notify()), ErrorKind::NotConnected);
    assert!(registration.key().is_none());
    assert!(world.selector.get_key(registration.token()).is_none());
    assert!(world.selector.keys().is_empty());
    assert_eq!(registration.interest(), Interest::NONE);
    assert_eq!(kind(registration.deregister().map(drop)), ErrorKind::NotConnected);
    #[cfg(unix)]
    assert_eq!(world.selector.backend_fd(), None);
    let now = world.selector.now();
    assert!(now <= world.selector.now(), "the clock goes on");
}

pub fn closing_twice_does_nothing<K: SelectorKind>() {
    let world = K::world();
    let wire = world.wire();
    let _registration = world.register(&wire, READABLE, 1);
    world.selector.close();
    world.selector.close();
    assert!(world.selector.is_closed());
}

pub fn registrations_and_events_outlive_their_selector<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    world.who();
    let events = std::mem::take(&mut world.events);
    drop(world);
    assert_eq!(events.len(), 1);
    assert_eq!(events.iter().count(), 0);
    assert_eq!(registration.interest(), Interest::NONE);
    assert!(format!("{registration:?}").contains("NONE"));
    assert_eq!(registration.set_interest(READABLE).unwrap_err().kind(), ErrorKind::NotConnected);
}

pub fn selectors_on_one_thread_are_independent<K: SelectorKind>() {
    let (mut one, mut two) = (K::world(), K::world());
    let (first, second) = (one.wire(), two.wire());
    let _first = one.register(&first, READABLE, 1);
    let second_registration = two.register(&second, READABLE, 2);
    second.send();
    assert!(one.who().is_empty());
    assert_eq!(two.who(), [2]);
    one.selector.notifier().notify().unwrap();
    two.look();
    assert!(!two.events.is_notified());
    one.look();
    assert!(one.events.is_notified());
    one.selector.close();
    assert_eq!(two.who(), [2]);
    assert_eq!(second_registration.interest(), READABLE);
}

pub fn one_batch_may_be_used_with_several_selectors<K: SelectorKind>() {
    let (one, two) = (K::world(), K::world());
    let (first, second) = (one.wire(), two.wire());
    first.send();
    second.send();
    let _first = one.register(&first, READABLE, 1);
    let _second = two.register(&second, READABLE, 2);
    let mut events = Events::new();
    for (world, data) in [(&one, 1), (&two, 2), (&one, 1)] {
        world.selector.select(&mut events, Timeout::Immediate).unwrap();
        let seen: Vec<_> = events.iter().map(|event| event.data()).collect();
        assert_eq!(seen, [data]);
    }
    events.clear();
    assert!(events.is_empty() && events.iter().next().is_none());
}

pub fn b05_no_event_surfaces_after_deregistration_not_even_from_the_batch_at_hand<
    K: SelectorKind,
>() {
    let mut world = K::world();
    let wires: Vec<_> = (0..4).map(|_| world.wire()).collect();
    wires.iter().for_each(|wire| wire.send());
    let mut registrations: HashMap<_, _> = wires
        .iter()
        .zip(0..)
        .map(|(wire, data)| (data, world.register(wire, READABLE, data)))
        .collect();
    world.select(Timeout::Immediate).unwrap();
    assert_eq!(world.events.len(), 4);
    let mut served = Vec::new();
    for event in &world.events {
        served.push(event.data());
        // The first callback ends all the others, in both ways there are.
        for (data, registration) in registrations.extract_if(|data, _| *data != event.data()) {
            if data % 2 == 0 {
                registration.deregister().unwrap();
            }
        }
    }
    assert_eq!(served.len(), 1);
    assert_eq!(world.who(), served);
}

pub fn b06_a_later_user_of_an_index_gets_no_event_of_the_earlier_one<K: SelectorKind>() {
    let mut world = K::world();
    let (wire, quiet) = (world.wire(), world.wire());
    wire.send();
    let registration = world.register(&wire, READABLE, 1);
    let old = registration.token();
    world.select(Timeout::Immediate).unwrap();
    drop(registration);
    let heir = world.register(&quiet, both(), 2);
    assert_eq!(heir.token().index(), old.index(), "the index is used again");
    assert_ne!(heir.token(), old);
    assert_eq!(world.seen(), [], "the pending event was for somebody else");
    assert!(world.selector.get_key(old).is_none());
    assert_eq!(world.look(), [plain(2, WRITABLE)]);
}

pub fn an_interest_taken_back_in_the_middle_of_a_batch_is_masked<K: SelectorKind>() {
    let mut world = K::world();
    let wires: Vec<_> = (0..3).map(|_| world.wire()).collect();
    wires.iter().for_each(|wire| wire.send());
    let registrations: Vec<_> =
        wires.iter().zip(0..).map(|(wire, data)| world.register(wire, both(), data)).collect();
    world.select(Timeout::Immediate).unwrap();
    registrations[0].set_interest(Interest::NONE).unwrap();
    registrations[1].set_interest(WRITABLE).unwrap();
    assert_eq!(world.seen(), [plain(1, WRITABLE), plain(2, both())]);
    assert_eq!(world.events.len(), 3, "the length counts what was reported");
    let (least, most) = world.events.iter().size_hint();
    assert!(least <= 2 && most == Some(3));
}

pub fn a_hangup_wakes_every_interested_side<K: SelectorKind>() {
    for interest in [READABLE, WRITABLE, both()] {
        let mut world = K::world();
        let wire = world.wire();
        let registration = world.register(&wire, interest, 1);
        wire.hang_up();
        world.until(|world| world.seen().iter().any(|seen| seen.hangup));
        assert_eq!(world.seen()[0].ready, interest);
        registration.set_interest(Interest::NONE).unwrap();
        assert_eq!(world.seen(), [], "masked like any other readiness");
    }
}

pub fn b07_a_hangup_without_interest_costs_no_wakeup<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    let registration = world.register(&wire, READABLE, 1);
    registration.set_interest(Interest::NONE).unwrap();
    wire.hang_up();
    // One wait that lasts until its deadline: nothing else ends it.
    let deadline = world.selector.now() + std::time::Duration::from_millis(20);
    world.select(Timeout::At(deadline)).unwrap();
    super::assert_not_early(world.selector.now(), deadline);
    assert_eq!(world.events.len(), 0);
    registration.set_interest(READABLE).unwrap();
    assert!(world.next_seen().hangup, "it is told once somebody asks");
}

pub fn a_wait_replaces_the_batch_of_the_one_before<K: SelectorKind>() {
    let mut world = K::world();
    let wires: Vec<_> = (0..3).map(|_| world.wire()).collect();
    wires.iter().for_each(|wire| wire.send());
    let _registrations: Vec<_> =
        wires.iter().zip(0..).map(|(wire, data)| world.register(wire, READABLE, data)).collect();
    assert_eq!(world.who(), [0, 1, 2]);
    wires[0].receive();
    wires[2].receive();
    assert_eq!(world.who(), [1]);
    assert_eq!(world.events.len(), 1);
    wires[1].receive();
    assert!(world.who().is_empty() && world.events.is_empty());
}

pub fn a_batch_is_no_larger_than_its_capacity<K: SelectorKind>() {
    assert_eq!(Events::new().capacity(), DEFAULT_EVENTS);
    assert_eq!(Events::with_capacity(0).capacity(), 1);
    if !K::BOUNDED {
        return;
    }
    let mut world = K::world();
    let wires: Vec<_> = (0..20).map(|_| world.wire()).collect();
    wires.iter().for_each(|wire| wire.send());
    let _registrations: Vec<_> =
        wires.iter().zip(0..).map(|(wire, data)| world.register(wire, READABLE, data)).collect();
    // From large to small as well: a buffer kept from an earlier wait must not show.
    for capacity in [20, 0, 7, 1, 19, 3] {
        world.events = Events::with_capacity(capacity);
        world.select(Timeout::Immediate).unwrap();
        assert_eq!(world.events.len(), capacity.max(1));
    }
}

pub fn more_ready_than_fit_starve_nobody<K: SelectorKind>() {
    const SOURCES: usize = 30;
    const ROUNDS: usize = if cfg!(miri) { 4 } else { 100 };
    let mut world = K::world();
    let wires: Vec<_> = (0..SOURCES).map(|_| world.wire()).collect();
    wires.iter().for_each(|wire| wire.send());
    let _registrations: Vec<_> =
        wires.iter().zip(0..).map(|(wire, data)| world.register(wire, READABLE, data)).collect();
    for capacity in [1, 7, SOURCES - 1] {
        world.events = Events::with_capacity(capacity);
        let mut served = [0; SOURCES];
        let mut total = 0;
        while total < SOURCES * ROUNDS {
            // Callers must not cost anybody a place for ever either.
            world.selector.notifier().notify().unwrap();
            for data in world.who() {
                served[data as usize] += 1;
                total += 1;
            }
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        assert!(2 * least >= *most, "capacity {capacity}: {served:?}");
    }
}

pub fn debug_output_names_what_it_is<K: SelectorKind>() {
    let mut world = K::world();
    let wire = world.wire();
    wire.send();
    let registration = world.register(&wire, READABLE, 77);
    world.who();
    let output = format!(
        "{:?} {:?} {registration:?} {:?} {:?}",
        world.selector,
        world.events,
        world.selector.keys(),
        world.selector.notifier()
    );
    assert!(output.contains("READABLE") && output.contains("77") && output.contains("sources: 1"));
    assert!(["epoll", "polling", "virtual"].contains(&world.selector.name()));
}
