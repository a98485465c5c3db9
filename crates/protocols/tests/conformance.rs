//! Every kind of transport, through the conformance suite.

mod common;

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tulipa_loop::EventLoop;
use tulipa_protocols::{
    Connection, Filtered, Protocol, SocketLink, attach, connect_accepted_socket,
};
use tulipa_testing::{
    MemoryLink, Pair, Recorder, ToyRecords, TransportBench, VirtualLoop, check_transport,
};

type Sockets = (OwnedFd, OwnedFd);

fn tcp() -> Sockets {
    let (near, far) = common::tcp();
    (near.into(), far.into())
}

fn unix() -> Sockets {
    let (near, far) = common::unix();
    (near.into(), far.into())
}

/// How two sockets become two connections.
type Join = fn(&EventLoop, Sockets, Recorder, Recorder) -> io::Result<Pair>;

struct OverSockets {
    event_loop: EventLoop,
    sockets: fn() -> Sockets,
    join: Join,
    shows_resets: bool,
}

impl TransportBench for OverSockets {
    fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }

    fn connect(&self, near: Recorder, far: Recorder) -> io::Result<Pair> {
        (self.join)(&self.event_loop, (self.sockets)(), near, far)
    }

    fn shows_resets(&self) -> bool {
        self.shows_resets
    }
}

fn check(sockets: fn() -> Sockets, join: Join, shows_resets: bool) {
    check_transport(|| {
        let event_loop = EventLoop::new().unwrap();
        OverSockets { event_loop, sockets, join, shows_resets }
    });
}

/// Starts a connection without waiting for it.
fn start<P: Protocol + 'static>(
    event_loop: &EventLoop,
    socket: OwnedFd,
    protocol: P,
) -> io::Result<Connection<P>> {
    let connected = connect_accepted_socket(socket, || protocol);
    event_loop.run_until_complete(connected).unwrap()
}

fn plain(
    event_loop: &EventLoop,
    sockets: Sockets,
    near: Recorder,
    far: Recorder,
) -> io::Result<Pair> {
    Ok((start(event_loop, sockets.0, near)?, start(event_loop, sockets.1, far)?))
}

/// Through the path of links that are no sockets of the crate's own.
fn linked(
    event_loop: &EventLoop,
    sockets: Sockets,
    near: Recorder,
    far: Recorder,
) -> io::Result<Pair> {
    let handle = event_loop.handle();
    let near = attach(&handle, SocketLink::adopt(sockets.0)?, near)?;
    let far = attach(&handle, SocketLink::adopt(sockets.1)?, far)?;
    Ok((near, far))
}

fn filtered(
    event_loop: &EventLoop,
    sockets: Sockets,
    near: Recorder,
    far: Recorder,
) -> io::Result<Pair> {
    let handle = event_loop.handle();
    let (client, server) = (ToyRecords::client(), ToyRecords::server());
    let client = Filtered::new(SocketLink::adopt(sockets.0)?, client);
    let server = Filtered::new(SocketLink::adopt(sockets.1)?, server);
    Ok((attach(&handle, client, near)?, attach(&handle, server, far)?))
}

#[test]
fn tcp_transports_conform() {
    check(tcp, plain, true);
}

#[test]
fn unix_transports_conform() {
    check(unix, plain, false);
}

#[test]
fn links_of_ones_own_conform() {
    check(tcp, linked, true);
}

#[test]
fn a_filter_over_tcp_conforms() {
    check(tcp, filtered, true);
}

#[test]
fn a_filter_over_unix_sockets_conforms() {
    check(unix, filtered, true);
}

struct InMemory {
    virtual_loop: VirtualLoop,
    capacity: usize,
    filtered: bool,
}

impl TransportBench for InMemory {
    fn event_loop(&self) -> &EventLoop {
        self.virtual_loop.deref()
    }

    fn connect(&self, near: Recorder, far: Recorder) -> io::Result<Pair> {
        let handle = self.virtual_loop.handle();
        let (one, other) = MemoryLink::pair(self.capacity);
        if self.filtered {
            let one = Filtered::new(one, ToyRecords::client());
            let other = Filtered::new(other, ToyRecords::server());
            return Ok((attach(&handle, one, near)?, attach(&handle, other, far)?));
        }
        Ok((attach(&handle, one, near)?, attach(&handle, other, far)?))
    }

    fn pass(&self, duration: Duration) {
        self.virtual_loop.advance(duration);
    }
}

fn check_memory(capacity: usize, filtered: bool) {
    check_transport(|| InMemory { virtual_loop: VirtualLoop::new(), capacity, filtered });
}

#[test]
fn memory_links_conform() {
    check_memory(100_000, false);
}

#[test]
fn a_filter_over_memory_conforms() {
    check_memory(100_000, true);
}
