//! Sources that never block: regular files and `/dev/null`, which epoll refuses.

use std::fs::File;
use std::time::Duration;

use tulipa_selector::{Events, Interest, Source, Timeout};

use crate::common::{Kind, World};

const BOTH: [Interest; 2] = [Interest::READABLE, Interest::WRITABLE];

fn regular_file() -> Source {
    Source::new(File::open(std::env::current_exe().expect("a path")).expect("a file"))
}

fn is_always_ready<K: Kind>(source: Source) {
    let mut world = K::world();
    let registration = world.selector.register(source, Interest::READABLE, 1).unwrap();
    let both = BOTH[0] | BOTH[1];
    for interest in [Interest::READABLE, Interest::WRITABLE, both] {
        registration.set_interest(interest).unwrap();
        for timeout in [Timeout::Immediate, Timeout::Never, Duration::MAX.into()] {
            world.select(timeout).unwrap();
            let seen = world.seen();
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].data, seen[0].ready), (1, interest));
            assert!(!seen[0].hangup && !seen[0].error);
        }
    }
    registration.deregister().unwrap();
    assert!(world.who().is_empty());
}

pub(crate) fn b22_a_regular_file_is_always_ready<K: Kind>() {
    is_always_ready::<K>(regular_file());
}

pub(crate) fn b22_dev_null_is_always_ready<K: Kind>() {
    is_always_ready::<K>(Source::new(File::open("/dev/null").unwrap()));
}

pub(crate) fn b22_an_always_ready_file_never_blocks_a_wait_and_starves_nobody<K: Kind>() {
    let mut world = K::world();
    let wire = world.wire();
    let _wire = world.register(&wire, Interest::READABLE, 1);
    let _file = world.selector.register(regular_file(), Interest::READABLE, 2).unwrap();
    for capacity in [1, 2, 100] {
        world.events = Events::with_capacity(capacity);
        world.select(Timeout::Never).unwrap();
        assert_eq!(world.seen()[0].data, 2);
        wire.send();
        // Both are served, however small the batch.
        let mut served = [false; 3];
        for _ in 0..4 {
            world.select(Timeout::Never).unwrap();
            world.seen().iter().for_each(|seen| served[seen.data as usize] = true);
        }
        assert_eq!(served, [false, true, true], "capacity {capacity}");
        world.selector.notifier().notify().unwrap();
        world.select(Timeout::Never).unwrap();
        assert!(world.events.is_notified());
        wire.receive();
    }
}

pub(crate) fn b22_an_always_ready_file_without_interest_is_quiet<K: Kind>() {
    let mut world = K::world();
    let file = world.selector.register(regular_file(), Interest::READABLE, 1).unwrap();
    assert_eq!(world.who(), [1]);
    file.set_interest(Interest::NONE).unwrap();
    assert!(world.seen().is_empty(), "masked in the batch at hand");
    let deadline = world.selector.now() + Duration::from_millis(5);
    world.select(Timeout::At(deadline)).unwrap();
    crate::common::assert_not_early(world.selector.now(), deadline);
    assert!(world.events.is_empty());
    if K::EPOLL {
        // A file has nothing exceptional, ever: this neither reports nor spins.
        file.set_interest(Interest::PRIORITY).unwrap();
        let deadline = world.selector.now() + Duration::from_millis(5);
        world.select(Timeout::At(deadline)).unwrap();
        crate::common::assert_not_early(world.selector.now(), deadline);
        assert!(world.events.is_empty());
    }
    file.set_interest(Interest::READABLE).unwrap();
    assert_eq!(world.who(), [1]);
}

pub(crate) fn b22_many_always_ready_files_share_a_small_batch<K: Kind>() {
    const FILES: usize = 9;
    let mut world = K::world();
    let _files: Vec<_> = (0..FILES)
        .map(|data| {
            world.selector.register(regular_file(), Interest::READABLE, data as u64).unwrap()
        })
        .collect();
    for capacity in [1, 4, FILES] {
        world.events = Events::with_capacity(capacity);
        let served = serve(&mut world, FILES * 20);
        assert!(2 * served.iter().min().unwrap() >= *served.iter().max().unwrap(), "{served:?}");
    }

    fn serve(world: &mut World, total: usize) -> [usize; FILES] {
        let mut served = [0; FILES];
        while served.iter().sum::<usize>() < total {
            world.who().iter().for_each(|data| served[*data as usize] += 1);
        }
        served
    }
}
