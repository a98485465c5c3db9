//! What the operating system says, and which side it wakes.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tulipa_selector::{Interest, Source, Timeout};

use crate::common::os::{eventfd, fill, pipe, read_all, reset, tcp_pair};
use crate::common::{Kind, Seen, assert_not_early};

const READABLE: Interest = Interest::READABLE;
const WRITABLE: Interest = Interest::WRITABLE;
const PRIORITY: Interest = Interest::PRIORITY;

fn both() -> Interest {
    READABLE | WRITABLE
}

pub(crate) fn an_end_of_file_is_readable_and_no_hangup_while_we_can_write<K: Kind>() {
    let mut world = K::world();
    let (ours, theirs) = crate::common::os::unix_pair();
    let _registration = world.selector.register(ours.clone().into(), both(), 1).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let seen = world.look();
    assert_eq!(seen, [Seen { data: 1, ready: both(), hangup: false, error: false }]);
    assert_eq!(read_all(&*ours), (0, Ok(())));
}

pub(crate) fn a_closed_peer_wakes_both_sides<K: Kind>() {
    for interest in [READABLE, WRITABLE, both()] {
        let mut world = K::world();
        let (ours, theirs) = tcp_pair();
        let ours = Rc::new(ours);
        let registration = world.selector.register(ours.clone().into(), interest, 1).unwrap();
        drop(theirs);
        ours.shutdown(Shutdown::Write).unwrap();
        world.until(|world| world.seen().iter().any(|seen| seen.hangup));
        assert_eq!(world.seen()[0].ready, interest);
        registration.set_interest(Interest::NONE).unwrap();
        assert!(world.who().is_empty());
    }
}

pub(crate) fn a_reset_wakes_every_interested_side_with_an_error<K: Kind>() {
    for interest in [READABLE, WRITABLE, both()] {
        let mut world = K::world();
        let (ours, theirs) = tcp_pair();
        // No room, so that nothing but the reset makes it writable.
        fill(&ours);
        let ours = Rc::new(ours);
        let _registration = world.selector.register(ours.clone().into(), interest, 1).unwrap();
        assert!(world.who().is_empty());
        reset(theirs);
        let seen = world.next_seen();
        assert_eq!((seen.ready, seen.hangup, seen.error), (interest, true, true));
        assert_eq!(read_all(&*ours).1, Err(Errno::CONNRESET), "the next operation says which");
    }
}

pub(crate) fn b07_a_reset_without_interest_costs_no_wakeup<K: Kind>() {
    let mut world = K::world();
    let (ours, theirs) = tcp_pair();
    let registration = world.selector.register(Source::new(ours), READABLE, 1).unwrap();
    registration.set_interest(Interest::NONE).unwrap();
    reset(theirs);
    let deadline = world.selector.now() + Duration::from_millis(20);
    world.select(Timeout::At(deadline)).unwrap();
    assert_not_early(world.selector.now(), deadline);
    assert_eq!(world.events.len(), 0);
    registration.set_interest(WRITABLE).unwrap();
    assert!(world.next_seen().error, "it is kept for whoever resumes");
}

pub(crate) fn b09_data_before_a_reset_can_still_be_read<K: Kind>() {
    let mut world = K::world();
    let (ours, mut theirs) = tcp_pair();
    let ours = Rc::new(ours);
    let registration = world.selector.register(ours.clone().into(), READABLE, 1).unwrap();
    theirs.write_all(b"hello").unwrap();
    world.next_seen();
    registration.set_interest(Interest::NONE).unwrap();
    reset(theirs);
    registration.set_interest(READABLE).unwrap();
    world.until(|world| world.seen().iter().any(|seen| seen.error));
    assert_eq!(world.seen()[0].ready, READABLE);
    assert_eq!(read_all(&*ours), (5, Err(Errno::CONNRESET)), "data first, then the error");
}

pub(crate) fn a_pipe_whose_reader_is_gone_wakes_the_writer<K: Kind>() {
    let mut world = K::world();
    let (reader, writer) = pipe();
    fill(&writer);
    let writer = Rc::new(writer);
    let _registration = world.selector.register(writer.clone().into(), WRITABLE, 1).unwrap();
    assert!(world.who().is_empty());
    drop(reader);
    // Not at once: a child that another test is just starting has it open until it executes.
    let seen = world.next_seen();
    assert_eq!(seen.ready, WRITABLE);
    assert!(seen.error);
    assert_eq!(rustix::io::write(&writer, b"!"), Err(Errno::PIPE));
}

pub(crate) fn b08_a_pipe_is_reported_until_its_end_is_read<K: Kind>() {
    let mut world = K::world();
    let (reader, writer) = pipe();
    let reader = Rc::new(reader);
    let _registration = world.selector.register(reader.clone().into(), READABLE, 1).unwrap();
    rustix::io::write(&writer, b"0123456789").unwrap();
    drop(writer);
    world.until(|world| world.seen()[0].hangup);
    // A hang-up with data: nobody may take it for the end.
    for _ in 0..10 {
        let seen = world.look();
        assert_eq!((seen[0].ready, seen[0].hangup), (READABLE, true));
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(1));
    }
    assert_eq!(world.look()[0].ready, READABLE, "the end is readable too");
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
}

pub(crate) fn a_full_socket_is_writable_again_once_the_peer_reads<K: Kind>() {
    let mut world = K::world();
    let (ours, theirs) = crate::common::os::unix_pair();
    let _registration = world.selector.register(ours.clone().into(), WRITABLE, 1).unwrap();
    for _ in 0..10 {
        assert_eq!(world.who(), [1]);
        fill(&*ours);
        assert!(world.who().is_empty());
        let _ = read_all(&theirs);
    }
}

pub(crate) fn a_listener_is_readable_until_all_are_accepted<K: Kind>() {
    let mut world = K::world();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Rc::new(listener);
    let _registration = world.selector.register(listener.clone().into(), READABLE, 1).unwrap();
    assert!(world.who().is_empty());
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(world.next_seen().ready, READABLE);
        listener.accept().unwrap();
    }
    assert!(world.who().is_empty());
}

pub(crate) fn a_refused_connection_is_writable_with_an_error<K: Kind>() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
    // Bound and not listening: nobody else can get the port meanwhile.
    let refusing = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let refusing = refusing.unwrap();
    rustix::net::bind(&refusing, &"127.0.0.1:0".parse::<std::net::SocketAddrV4>().unwrap())
        .unwrap();
    let address = rustix::net::getsockname(&refusing).unwrap();

    let mut world = K::world();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    assert_eq!(connect(&socket, &address), Err(Errno::INPROGRESS));
    let socket = Rc::new(socket);
    let _registration = world.selector.register(socket.clone().into(), WRITABLE, 1).unwrap();
    let seen = world.next_seen();
    assert_eq!((seen.ready, seen.error), (WRITABLE, true));
    assert_eq!(sockopt::socket_error(&socket), Ok(Err(Errno::CONNREFUSED)));
}

pub(crate) fn an_eventfd_is_readable_while_its_count_is_not_zero<K: Kind>() {
    let mut world = K::world();
    let counter: Rc<OwnedFd> = Rc::new(eventfd(0));
    let registration = world.selector.register(counter.clone().into(), READABLE, 1).unwrap();
    assert!(world.who().is_empty());
    rustix::io::write(&counter, &3u64.to_ne_bytes()).unwrap();
    assert_eq!(world.look()[0].ready, READABLE);
    registration.set_interest(both()).unwrap();
    assert_eq!(world.look()[0].ready, both());
    assert_eq!(rustix::io::read(&counter, &mut [0; 8]), Ok(8));
    assert_eq!(world.look()[0].ready, WRITABLE);
}

pub(crate) fn urgent_data_is_priority_and_not_readable<K: Kind>() {
    if !K::EPOLL {
        return;
    }
    let (ours, theirs) = tcp_pair();
    let ours = Rc::new(ours);
    for interest in [PRIORITY, PRIORITY | READABLE] {
        let mut world = K::world();
        let _registration = world.selector.register(ours.clone().into(), interest, 1).unwrap();
        assert!(world.who().is_empty());
        assert_eq!(rustix::net::send(&theirs, b"!", SendFlags::OOB), Ok(1));
        world.until(|world| !world.seen().is_empty());
        assert_eq!(world.seen(), [Seen { data: 1, ready: PRIORITY, hangup: false, error: false }]);
        let mut byte = [0];
        let (received, _) = rustix::net::recv(&*ours, &mut byte, RecvFlags::OOB).unwrap();
        assert_eq!((received, byte), (1, *b"!"));
        assert!(world.who().is_empty());
    }
}

pub(crate) fn urgent_data_does_not_look_like_data_to_those_who_did_not_ask<K: Kind>() {
    let mut world = K::world();
    let (ours, mut theirs) = tcp_pair();
    let ours = Rc::new(ours);
    let _registration = world.selector.register(ours.clone().into(), READABLE, 1).unwrap();
    assert_eq!(rustix::net::send(&theirs, b"!", SendFlags::OOB), Ok(1));
    let deadline = world.selector.now() + Duration::from_millis(20);
    while world.selector.now() < deadline {
        world.select(Timeout::At(deadline)).unwrap();
        assert!(world.seen().is_empty(), "a read would find nothing");
    }
    theirs.write_all(b"data").unwrap();
    assert_eq!(world.next_seen().ready, READABLE);
    assert_eq!(read_all(&*ours).0, 4);
}

pub(crate) fn urgent_data_and_data_are_both_reported<K: Kind>() {
    if !K::EPOLL {
        return;
    }
    let mut world = K::world();
    let (ours, mut theirs) = tcp_pair();
    let interest = PRIORITY | READABLE;
    let _registration = world.selector.register(Source::new(ours), interest, 1).unwrap();
    theirs.write_all(b"data").unwrap();
    assert_eq!(rustix::net::send(&theirs, b"!", SendFlags::OOB), Ok(1));
    world.until(|world| world.seen().first().is_some_and(|seen| seen.ready == interest));
}

pub(crate) fn b28_a_blocking_source_blocks_no_wait<K: Kind>() {
    let mut world = K::world();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let _registration = world.selector.register(Source::new(ours), READABLE, 1).unwrap();
    let deadline = world.selector.now() + Duration::from_millis(5);
    world.select(Timeout::At(deadline)).unwrap();
    assert_not_early(world.selector.now(), deadline);
    assert!(world.seen().is_empty());
}
