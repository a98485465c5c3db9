//! `EpollSelector` and `PollingSelector` watch the same descriptors through the same random
//! operations and must report the same: the sides, hang-ups and errors, as sets.
//!
//! `TULIPA_CASES` is the number of cases, 256 unless it is set.
#![cfg(all(target_os = "linux", not(miri)))]

mod common;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use common::World;
use common::os::{Epoll, Polling, PollingOneshot, eventfd, fill, pipe, read_all};
use common::{Kind, Seen};
use proptest::prelude::*;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use tulipa_selector::{Interest, Registration, Source, Timeout};

/// How many sources there are: two of each sort.
const SOURCES: usize = 8;

#[derive(Clone, Debug)]
enum Op {
    PeerWrites(usize),
    PeerReads(usize),
    PeerShutsDown(usize, Shutdown),
    PeerCloses(usize),
    Write(usize),
    Fill(usize),
    Read(usize),
    ShutDown(usize, Shutdown),
    SetInterest(usize, Interest),
    Deregister(usize),
    Register(usize, Interest),
    Replace(usize),
    Select,
}

fn operation() -> impl Strategy<Value = Op> {
    let index = 0..SOURCES;
    let shutdown =
        || prop_oneof![Just(Shutdown::Read), Just(Shutdown::Write), Just(Shutdown::Both)];
    let interest = || {
        (any::<bool>(), any::<bool>()).prop_map(|(readable, writable)| {
            let readable = if readable { Interest::READABLE } else { Interest::NONE };
            let writable = if writable { Interest::WRITABLE } else { Interest::NONE };
            readable | writable
        })
    };
    prop_oneof![
        4 => index.clone().prop_map(Op::PeerWrites),
        3 => index.clone().prop_map(Op::PeerReads),
        1 => (index.clone(), shutdown()).prop_map(|(i, how)| Op::PeerShutsDown(i, how)),
        1 => index.clone().prop_map(Op::PeerCloses),
        2 => index.clone().prop_map(Op::Write),
        1 => index.clone().prop_map(Op::Fill),
        4 => index.clone().prop_map(Op::Read),
        1 => (index.clone(), shutdown()).prop_map(|(i, how)| Op::ShutDown(i, how)),
        6 => (index.clone(), interest()).prop_map(|(i, interest)| Op::SetInterest(i, interest)),
        2 => index.clone().prop_map(Op::Deregister),
        3 => (index.clone(), interest()).prop_map(|(i, interest)| Op::Register(i, interest)),
        1 => index.prop_map(Op::Replace),
        6 => Just(Op::Select),
    ]
}

/// One source and its other end, if it has one and that is open.
struct Wire {
    ours: Rc<OwnedFd>,
    theirs: Option<OwnedFd>,
}

fn wire(index: usize) -> Wire {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = match index % 4 {
        0 => socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a pair"),
        1 => pipe(),
        2 => {
            let (reader, writer) = pipe();
            (writer, reader)
        }
        _ => return Wire { ours: Rc::new(eventfd(0)), theirs: None },
    };
    Wire { ours: Rc::new(ours), theirs: Some(theirs) }
}

/// One selector and its registrations.
struct Side {
    name: &'static str,
    world: World,
    registrations: Vec<Option<Registration>>,
}

impl Side {
    fn new<K: Kind>() -> Side {
        let registrations = (0..SOURCES).map(|_| None).collect();
        Side { name: K::NAME, world: K::world(), registrations }
    }

    fn register(&mut self, index: usize, wire: &Wire, interest: Interest) {
        let source = Source::from(wire.ours.clone());
        let result = self.world.selector.register(source, interest, index as u64);
        match &self.registrations[index] {
            Some(_) => assert!(result.is_err(), "it is registered"),
            None => self.registrations[index] = Some(result.expect("it is not registered")),
        }
    }

    fn select(&mut self) -> Vec<Seen> {
        self.world.select(Timeout::Immediate).expect("looking never fails");
        self.world.seen()
    }
}

/// Does to the descriptors what `op` says; errors are part of the game.
fn touch(wires: &mut [Wire], op: &Op) {
    let theirs = |index: usize| wires[index].theirs.as_ref();
    match op {
        Op::PeerWrites(index) => {
            // An eventfd takes eight bytes at a time, and is its own peer.
            let to = theirs(*index).unwrap_or(&wires[*index].ours);
            let _ = rustix::io::write(to, &1u64.to_ne_bytes());
        }
        Op::PeerReads(index) => {
            theirs(*index).map(read_all);
        }
        Op::PeerShutsDown(index, how) => {
            theirs(*index).map(|fd| rustix::net::shutdown(fd, *how));
        }
        Op::PeerCloses(index) => wires[*index].theirs = None,
        Op::Write(index) => {
            let _ = rustix::io::write(&wires[*index].ours, &7u64.to_ne_bytes());
        }
        Op::Fill(index) if index % 4 == 3 => {
            let _ = rustix::io::write(&wires[*index].ours, &(u64::MAX - 1).to_ne_bytes());
        }
        Op::Fill(index) => fill(&wires[*index].ours),
        Op::Read(index) => {
            let _ = rustix::io::read(&wires[*index].ours, &mut [0; 8]);
        }
        Op::ShutDown(index, how) => {
            let _ = rustix::net::shutdown(&wires[*index].ours, *how);
        }
        _ => {}
    }
}

fn run(ops: &[Op]) {
    let mut wires: Vec<_> = (0..SOURCES).map(wire).collect();
    let mut sides = [Side::new::<Epoll>(), Side::new::<Polling>(), Side::new::<PollingOneshot>()];
    for (step, op) in ops.iter().chain([&Op::Select]).enumerate() {
        touch(&mut wires, op);
        if let Op::Replace(index) = op {
            // Another file, which mostly gets the number of the one before.
            sides.iter_mut().for_each(|side| drop(side.registrations[*index].take()));
            wires[*index] = wire(*index);
        }
        for side in &mut sides {
            match op {
                Op::SetInterest(index, interest) => {
                    if let Some(registration) = &side.registrations[*index] {
                        registration.set_interest(*interest).expect("it is open");
                    }
                }
                Op::Deregister(index) => drop(side.registrations[*index].take()),
                Op::Register(index, interest) => side.register(*index, &wires[*index], *interest),
                _ => {}
            }
        }
        if matches!(op, Op::Select) {
            let [epoll, others @ ..] = &mut sides;
            let expected = epoll.select();
            for side in others {
                assert_eq!(side.select(), expected, "step {step}: {} and epoll", side.name);
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("TULIPA_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn epoll_and_polling_report_the_same(ops in proptest::collection::vec(operation(), 1..120)) {
        run(&ops);
    }
}
